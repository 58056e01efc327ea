//! A small HDFS of separate processes: a NameNode and three DataNodes.
//!
//! Does: configure, format and start them, list what is in it past the daemon under test. Does not:
//! test anything. Invariant: each process can be killed and started again on its data; all end with
//! this process.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::fetch::fetch;
use crate::process::{Process, wait_until};

const DATA_NODES: usize = 3;
/// The name of each DataNode, beside its address.
pub const DATA_NODE_NAME: &str = "127.0.0.2";
/// Small, and quick to start.
const JVM_OPTIONS: [&str; 3] = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
/// Folders that all exchanges share, which stay.
const SHARED: [&str; 3] = ["v2/markers/", "v2/segments/", "v2/probes/"];
const NAME_NODE: &str = "org.apache.hadoop.hdfs.server.namenode.NameNode";
const DATA_NODE: &str = "org.apache.hadoop.hdfs.server.datanode.DataNode";

/// Where the processes of one HDFS find their configuration and keep their data.
pub struct Hdfs {
    folder: PathBuf,
    logs: PathBuf,
    /// The port of the NameNode's pages.
    http: u16,
    data_nodes: Vec<Option<Process>>,
}

fn properties(folder: &Path, rpc: u16, http: u16) -> Vec<(&'static str, String)> {
    let file = |name: &str| format!("file://{}", folder.join(name).display());
    let any_port = || "127.0.0.1:0".to_owned();
    vec![
        ("fs.defaultFS", format!("hdfs://127.0.0.1:{rpc}")),
        ("dfs.namenode.http-address", format!("127.0.0.1:{http}")),
        ("dfs.namenode.name.dir", file("name")),
        ("hadoop.tmp.dir", folder.join("tmp").display().to_string()),
        ("dfs.datanode.address", any_port()),
        ("dfs.datanode.http.address", any_port()),
        ("dfs.datanode.ipc.address", any_port()),
        // Used by clients that are told to, and reach the DataNodes through what listens there.
        ("dfs.datanode.hostname", DATA_NODE_NAME.into()),
        ("dfs.replication", "2".into()),
        // A NameNode that starts again serves as soon as it knows where the blocks are.
        ("dfs.namenode.safemode.extension", "0".into()),
        // A DataNode that was killed gets no new blocks after 6 s, as docs/stores.md advises. It
        // counts as dead after 70 s, not after 10 minutes: later than one on a busy machine that
        // has not had its turn.
        ("dfs.heartbeat.interval", "1".into()),
        ("dfs.namenode.heartbeat.recheck-interval", "30000".into()),
        ("dfs.namenode.stale.datanode.interval", "6000".into()),
        ("dfs.namenode.avoid.write.stale.datanode", "true".into()),
        ("dfs.namenode.avoid.read.stale.datanode", "true".into()),
    ]
}

impl Hdfs {
    /// Writes the configuration and formats the NameNode.
    pub fn create(folder: &Path, logs: &Path, rpc: u16, http: u16) -> Result<Self> {
        let hdfs = Self {
            folder: folder.to_owned(),
            logs: logs.to_owned(),
            http,
            data_nodes: Vec::new(),
        };
        let mut text = "<configuration>\n".to_owned();
        for (name, value) in properties(folder, rpc, http) {
            let property = format!("<name>{name}</name><value>{value}</value>");
            let _ = writeln!(text, "<property>{property}</property>");
        }
        text += "</configuration>\n";
        std::fs::create_dir_all(hdfs.configuration())?;
        for name in ["core-site.xml", "hdfs-site.xml"] {
            std::fs::write(hdfs.configuration().join(name), &text)?;
        }
        let mut format = hdfs.java(NAME_NODE)?;
        format.args(["-format", "-nonInteractive", "-force"]);
        let output = format.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "formatting the NameNode: {said}");
        Ok(hdfs)
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("conf")
    }

    fn java(&self, class: &str) -> Result<Command> {
        let mut command = Command::new(fetch("jdk")?.join("bin/java"));
        let jars = fetch("hadoop")?;
        let classes = format!("{}:{}/*", self.configuration().display(), jars.display());
        command.args(JVM_OPTIONS).args(["-cp", &classes, class]);
        Ok(command)
    }

    pub fn name_node(&self) -> Result<Command> {
        self.java(NAME_NODE)
    }

    /// Starts the DataNodes that do not run.
    pub fn start_data_nodes(&mut self) -> Result<()> {
        for number in 0..DATA_NODES {
            if self.data_nodes.get(number).is_some_and(Option::is_some) {
                continue;
            }
            let name = format!("datanode-{number}");
            let data = self.folder.join(&name);
            let mut command = self.java(DATA_NODE)?;
            command
                .arg("-D")
                .arg(format!("dfs.datanode.data.dir=file://{}", data.display()));
            let process = Process::spawn(&name, command, &self.logs.join(format!("{name}.log")))?;
            self.data_nodes.resize_with(DATA_NODES, || None);
            self.data_nodes[number] = Some(process);
        }
        Ok(())
    }

    /// Kills a DataNode.
    pub fn kill_data_node(&mut self, number: usize) {
        if let Some(mut process) = self.data_nodes[number % DATA_NODES].take() {
            process.kill();
        }
    }

    /// Waits until the NameNode permits writes and knows all DataNodes that run.
    pub async fn wait_until_up(&self) -> Result<()> {
        let running = self.data_nodes.iter().flatten().count();
        let limit = Duration::from_secs(180);
        wait_until("HDFS is up", limit, || async {
            let query = "jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState";
            let Ok(found) = self.get(query).await else {
                return Ok(false);
            };
            let state = &found["beans"][0];
            let live = state["NumLiveDataNodes"].as_u64().unwrap_or_default();
            Ok(state["FSState"] == "Operational" && live >= running as u64)
        })
        .await
    }

    /// How many deletes the NameNode has carried out. Its counters are up to 10 s old.
    pub async fn deletes(&self) -> Result<u64> {
        tokio::time::sleep(Duration::from_secs(12)).await;
        let query = "jmx?qry=Hadoop:service=NameNode,name=NameNodeActivity";
        let found = self.get(query).await?;
        let deletes = found["beans"][0]["DeleteFileOps"].as_u64();
        deletes.context("the NameNode counts deletes")
    }

    /// The ports at which clients reach the DataNodes.
    pub async fn data_ports(&self) -> Result<Vec<u16>> {
        let query = "jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo";
        let found = self.get(query).await?;
        let nodes = found["beans"][0]["LiveNodes"].as_str();
        let nodes: Value =
            serde_json::from_str(nodes.context("the NameNode tells its DataNodes")?)?;
        let nodes = nodes.as_object().context("the DataNodes have names")?;
        let port = |node: &Value| {
            let (_, port) = node["xferaddr"].as_str()?.rsplit_once(':')?;
            port.parse().ok()
        };
        let ports: Option<Vec<u16>> = nodes.values().map(port).collect();
        ports.context("a DataNode has no address")
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://127.0.0.1:{}/{path}", self.http);
        let answer = http
            .get(&url)
            .timeout(Duration::from_secs(20))
            .send()
            .await?;
        if answer.status() == 404 {
            return Ok(Value::Null);
        }
        Ok(answer.error_for_status()?.json().await?)
    }

    /// The keys of all objects in a folder; also its empty folders, with a slash. An object that
    /// can be replaced is a folder whose one subfolder contains a file of the same name
    /// (docs/decisions/storage-hdfs.md).
    pub async fn keys(&self, bucket: &str) -> Result<Vec<String>> {
        let (mut keys, mut folders) = (Vec::new(), VecDeque::from([String::new()]));
        while let Some(folder) = folders.pop_front() {
            let path = format!("webhdfs/v1/{bucket}/{folder}?op=LISTSTATUS&user.name=root");
            let found = self.get(&path).await?;
            let entries = found["FileStatuses"]["FileStatus"].as_array();
            let entries = entries.map_or(&[][..], Vec::as_slice);
            let is_shared = folder.is_empty() || SHARED.iter().any(|name| folder.ends_with(name));
            if entries.is_empty() && !is_shared {
                keys.push(folder.clone());
            }
            for entry in entries {
                let name = entry["pathSuffix"]
                    .as_str()
                    .context("an entry has a name")?;
                match entry["type"] == "DIRECTORY" {
                    true => folders.push_back(format!("{folder}{name}/")),
                    false => keys.push(key(&folder, name)),
                }
            }
        }
        Ok(keys)
    }

    pub fn log(&self) -> PathBuf {
        self.logs.join("datanode-0.log")
    }
}

/// The key of the object of which this file is the content, or the path of another file.
fn key(folder: &str, name: &str) -> String {
    let path = format!("{folder}{name}");
    let version = format!("/{name}/{name}");
    path.strip_suffix(&version).unwrap_or(&path).to_owned()
}
