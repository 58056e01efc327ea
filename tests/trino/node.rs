//! One Trino node: its configuration folder and its JVM.
//!
//! A node never changes its port and id, so a restarted worker is the same node to the coordinator,
//! as a restarted pod would be.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::artifacts::{Artifacts, ExchangeManager};
use crate::connectors::Extras;
use crate::process::{Process, wait_until};
use crate::query::Client;

/// The options that Trino requires, and some that let three JVMs fit on one machine.
const JVM_OPTIONS: [&str; 9] = [
    "--add-modules=jdk.incubator.vector",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Djdk.attach.allowAttachSelf=true",
    "-XX:+EnableDynamicAgentLoading",
    "-XX:+UseG1GC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:G1HeapRegionSize=16M",
    "-Duser.timezone=UTC",
];

/// How much memory the processes of a cluster get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// Three JVMs and their daemons fit on a machine that does other work, too.
    #[default]
    Small,
    /// What Trino's own exchange manager needs on S3, where a sink for 50 partitions holds 255 MiB:
    /// workers with twice the heap that run half as many tasks at a time.
    Large,
}

impl Size {
    fn heap(self, coordinator: bool) -> &'static str {
        match self {
            Self::Large if !coordinator => "3g",
            _ => "1536m",
        }
    }

    /// The budget of each daemon.
    pub fn daemon_budget(self) -> &'static str {
        match self {
            Self::Small => "256MiB",
            Self::Large => "1GiB",
        }
    }

    /// How much larger the memory limits of workers are than with `Small`.
    fn factor(self) -> u32 {
        match self {
            Self::Small => 1,
            Self::Large => 2,
        }
    }
}

pub struct Node {
    pub id: String,
    pub port: u16,
    folder: PathBuf,
    java: PathBuf,
    jvm_options: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
    client: Client,
}

/// What the configuration of a node depends on besides its name.
pub struct Layout<'a> {
    pub artifacts: &'a Artifacts,
    pub work: &'a Path,
    pub coordinator_port: u16,
    pub manager: ExchangeManager,
    /// The lines of `etc/exchange-manager.properties`.
    pub exchange: String,
    pub extras: &'a Extras,
}

impl Layout<'_> {
    fn jvm_options(&self, port: u16) -> Vec<String> {
        let heap = self.extras.size.heap(port == self.coordinator_port);
        let mut options = vec![format!("-Xmx{heap}")];
        options.extend(self.extras.jvm_options().into_iter().map(str::to_owned));
        options
    }
}

impl Node {
    pub fn create(id: &str, port: u16, layout: &Layout<'_>) -> Result<Self> {
        let folder = layout.work.join(id);
        let node = Self {
            id: id.to_owned(),
            port,
            java: layout.artifacts.java(),
            jvm_options: layout.jvm_options(port),
            log: layout.work.join(format!("logs/{id}.log")),
            process: None,
            client: Client::new(port)?,
            folder,
        };
        node.write(layout)
            .with_context(|| format!("cannot write to {}", node.folder.display()))?;
        Ok(node)
    }

    fn write(&self, layout: &Layout<'_>) -> Result<()> {
        let etc = self.folder.join("etc");
        std::fs::create_dir_all(etc.join("catalog"))?;
        std::fs::create_dir_all(self.folder.join("plugin"))?;
        std::fs::create_dir_all(self.folder.join("data"))?;
        std::fs::write(
            etc.join("config.properties"),
            self.config(layout.coordinator_port, layout.extras),
        )?;
        std::fs::write(etc.join("exchange-manager.properties"), &layout.exchange)?;
        // Decimals, so that sums do not depend on the order of addition; many splits, so that there
        // are tasks to lose.
        std::fs::write(
            etc.join("catalog/tpch.properties"),
            "connector.name=tpch\ntpch.column-naming=STANDARD\n\
             tpch.double-type-mapping=DECIMAL\ntpch.splits-per-node=4\n",
        )?;
        let mut plugins = BTreeSet::from(["tpch"]);
        if let Some(uri) = &layout.extras.event_uri {
            std::fs::write(
                etc.join("event-listener.properties"),
                format!(
                    "event-listener.name=http\nhttp-event-listener.log-completed=true\n\
                     http-event-listener.connect-ingest-uri={uri}\n"
                ),
            )?;
            plugins.insert("http-event-listener");
        }
        for catalog in &layout.extras.catalogs {
            plugins.extend(&catalog.plugins);
            let file = etc.join(format!("catalog/{}.properties", catalog.name));
            std::fs::write(file, &catalog.properties)?;
        }
        let trino = &layout.artifacts.trino;
        link(&trino.join("lib"), &self.folder.join("lib"))?;
        for plugin in plugins {
            let plugin = Path::new("plugin").join(plugin);
            link(&trino.join(&plugin), &self.folder.join(&plugin))?;
        }
        match (layout.manager, &layout.artifacts.plugin) {
            (ExchangeManager::Stopover, Some(plugin)) => {
                link(plugin, &self.folder.join("plugin/stopover"))
            }
            _ => link(
                &trino.join("plugin/exchange-filesystem"),
                &self.folder.join("plugin/exchange-filesystem"),
            ),
        }
    }

    fn config(&self, coordinator_port: u16, extras: &Extras) -> String {
        let factor = extras.size.factor();
        let coordinator = self.port == coordinator_port;
        let mut config = format!(
            "coordinator={coordinator}\nhttp-server.http.port={}\n\
             discovery.uri=http://127.0.0.1:{coordinator_port}\nretry-policy=TASK\n\
             query.max-memory-per-node={}MB\nmemory.heap-headroom-per-node=300MB\n\
             task.concurrency=2\ntask.info-update-interval=500ms\n\
             exchange.deduplication-buffer-size=1MB\n",
            self.port,
            // No task runs on the coordinator.
            if coordinator { 700 } else { 700 * factor }
        );
        if coordinator {
            // The defaults suit large machines and long queries: these nodes have less memory than
            // one task gets by default, and a lost task would wait 10 s before each new attempt.
            let _ = write!(
                config,
                "node-scheduler.include-coordinator=false\nquery.max-memory={}GB\n\
                 fault-tolerant-execution-task-memory={}MB\nretry-initial-delay=1s\n\
                 retry-max-delay=5s\nquery.remote-task.max-error-duration=15s\n",
                2 * factor,
                150 * factor * factor
            );
        }
        if let Some(url) = &extras.collector {
            let _ = write!(
                config,
                "tracing.enabled=true\ntracing.exporter.protocol=http/protobuf\n\
                 tracing.exporter.endpoint={url}\n"
            );
        }
        config
    }

    pub fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(&self.java);
        command
            .current_dir(&self.folder)
            .args(JVM_OPTIONS)
            .args(&self.jvm_options);
        let data = self.folder.join("data");
        command
            .arg("-Dnode.environment=test")
            .arg(format!("-Dnode.id={}", self.id))
            .arg(format!("-Dnode.data-dir={}", data.display()))
            .arg("-Dnode.internal-address=127.0.0.1")
            .arg("-Dconfig=etc/config.properties")
            .args(["-cp", "lib/*", "io.trino.server.TrinoServer"]);
        self.process = Some(Process::spawn(&self.id, command, &self.log)?);
        Ok(())
    }

    pub async fn wait_until_up(&mut self) -> Result<()> {
        let process = self
            .process
            .as_mut()
            .with_context(|| format!("{} not started", self.id))?;
        wait_until(
            &format!("{} is up", self.id),
            Duration::from_secs(600),
            || {
                let exited = process.exited();
                let client = self.client.clone();
                async move {
                    ensure!(
                        exited.is_none(),
                        "the JVM exited while starting: {exited:?}"
                    );
                    Ok(client.is_up().await)
                }
            },
        )
        .await
    }

    pub fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.exited().is_none())
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub fn log(&self) -> (String, PathBuf) {
        (self.id.clone(), self.log.clone())
    }
}

/// Formats properties as lines of a `.properties` file.
pub fn properties(pairs: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

fn link(target: &Path, at: &Path) -> Result<()> {
    symlink(target, at).with_context(|| format!("{} -> {}", at.display(), target.display()))
}
