//! The two base directories of the cluster's daemons: local folders, or buckets of an S3 server.
//!
//! Both kinds are folders on this machine in the end, so what is left in them is read from the file
//! system itself, not through the daemon under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::artifacts;
use crate::process::{Process, free_ports, wait_until};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageKind {
    Local,
    S3,
}

impl StorageKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "s3",
        }
    }
}

const BUCKETS: [&str; 2] = ["stopover-one", "stopover-two"];
const ACCESS_KEY: &str = "stopover-test";
const SECRET_KEY: &str = "stopover-test-secret";
/// What belongs to a base directory itself.
const PERMANENT: [&str; 4] = [".keep", "identity", "members", "sweeper"];

pub struct Store {
    pub kind: StorageKind,
    /// One folder per base directory.
    pub folders: Vec<PathBuf>,
    /// On S3, one server for each base directory, both over the same buckets.
    gateways: Vec<Gateway>,
    /// The proxy in front of the gateway that makes it look distant.
    distant: Option<DistantStore>,
}

struct DistantStore {
    _process: Process,
    url: String,
}

/// An S3 server; its buckets are the folders under its root.
pub struct Gateway {
    name: String,
    root: PathBuf,
    log: PathBuf,
    port: u16,
    process: Process,
}

/// The base directory that can be taken away.
const SECOND: usize = 1;

impl Store {
    pub async fn start(kind: StorageKind, work: &Path) -> Result<Self> {
        let root = work.join(format!("store-{}", kind.name()));
        let folders: Vec<_> = BUCKETS.iter().map(|bucket| root.join(bucket)).collect();
        for folder in &folders {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let mut gateways = Vec::new();
        if kind == StorageKind::S3 {
            for name in ["versitygw", "versitygw-two"] {
                gateways.push(Gateway::start(name, &root, work).await?);
            }
        }
        Ok(Self {
            kind,
            folders,
            gateways,
            distant: None,
        })
    }

    /// Takes the second base directory away: its folder is moved, its S3 server killed.
    pub fn take_away(&mut self) -> Result<()> {
        match self.gateways.get_mut(SECOND) {
            Some(gateway) => gateway.process.kill(),
            None => std::fs::rename(&self.folders[SECOND], self.elsewhere())?,
        }
        Ok(())
    }

    /// Gives it back, if it was taken away.
    pub async fn give_back(&mut self) -> Result<()> {
        if self.elsewhere().exists() {
            std::fs::rename(self.elsewhere(), &self.folders[SECOND])?;
        }
        match self.gateways.get_mut(SECOND) {
            Some(gateway) if gateway.process.exited().is_some() => gateway.restart().await,
            _ => Ok(()),
        }
    }

    /// Where the folder of the second base directory is while it is away.
    fn elsewhere(&self) -> PathBuf {
        self.folders[SECOND].with_extension("away")
    }

    /// Makes a third base directory of another folder or bucket; returns its name.
    pub fn add_third(&mut self) -> Result<String> {
        let folder = self.folders[0].with_file_name("stopover-three");
        std::fs::create_dir_all(&folder)?;
        let name = base_name(&folder);
        self.folders.push(folder);
        Ok(name)
    }

    /// Forgets the third base directory, and removes its folder; returns whether there was one.
    pub fn remove_third(&mut self) -> Result<bool> {
        let third = self.folders.drain(BUCKETS.len()..).next();
        if let Some(folder) = &third {
            std::fs::remove_dir_all(folder)?;
        }
        Ok(third.is_some())
    }

    /// The segments in the last base directory.
    pub fn segments_in_last(&self) -> Result<usize> {
        let folder = self.folders.last().context("there is one")?;
        segments_in(std::slice::from_ref(folder))
    }

    /// The segments in the second base directory, wherever it is.
    pub fn segments_in_second(&self) -> Result<usize> {
        segments_in(&[self.folders[SECOND].clone(), self.elsewhere()])
    }

    /// Adds milliseconds of latency to every request to the S3 server (benches/slow_store).
    pub async fn add_latency(&mut self, latency: u64, work: &Path) -> Result<()> {
        let gateway = self
            .gateways
            .first()
            .context("latency can be added only to an S3 server")?;
        let port = free_ports(1)?[0];
        let program = std::env::var_os("STOPOVER_BENCH_SLOW_STORE").context(
            "set STOPOVER_BENCH_SLOW_STORE to the proxy's path, see docs/performance.md",
        )?;
        let mut command = Command::new(program);
        command
            .args(["--upstream", &format!("127.0.0.1:{}", gateway.port)])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--latency", &latency.to_string()]);
        let process = Process::spawn("slow-store", command, &work.join("logs/slow-store.log"))?;
        let answers = || async move {
            Ok(tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok())
        };
        wait_until("the proxy listens", Duration::from_secs(20), answers).await?;
        let url = format!("http://127.0.0.1:{port}");
        self.distant = Some(DistantStore {
            _process: process,
            url,
        });
        Ok(())
    }

    /// The URL of the S3 server of a base directory; `None` for local folders.
    fn endpoint(&self, base: usize) -> Option<String> {
        let distant = self.distant.as_ref().map(|store| store.url.clone());
        let gateway = self.gateways.get(base).or(self.gateways.first());
        distant.or_else(|| gateway.map(Gateway::url))
    }

    /// The properties of Trino's own exchange manager.
    pub fn stock_properties(&self) -> Vec<(&'static str, String)> {
        let Some(endpoint) = self.endpoint(0) else {
            let folders = self.folders.iter().map(|f| f.display().to_string());
            let folders = folders.collect::<Vec<_>>().join(",");
            return vec![("exchange.base-directories", folders)];
        };
        vec![
            (
                "exchange.base-directories",
                BUCKETS.map(|bucket| format!("s3://{bucket}")).join(","),
            ),
            ("exchange.s3.endpoint", endpoint),
            ("exchange.s3.region", "us-east-1".to_owned()),
            ("exchange.s3.aws-access-key", ACCESS_KEY.to_owned()),
            ("exchange.s3.aws-secret-key", SECRET_KEY.to_owned()),
            ("exchange.s3.path-style-access", "true".to_owned()),
        ]
    }

    /// The `[[base_directory]]` tables of a daemon's configuration.
    pub fn configuration(&self) -> String {
        let mut toml = String::new();
        for (base, folder) in self.folders.iter().enumerate() {
            let bucket = base_name(folder);
            toml.push_str(&format!("[[base_directory]]\nname = \"{bucket}\"\n"));
            match self.endpoint(base) {
                None => toml.push_str(&format!("uri = \"file://{}\"\n", folder.display())),
                Some(endpoint) => toml.push_str(&format!(
                    "uri = \"s3://{bucket}\"\nregion = \"us-east-1\"\n\
                     endpoint = \"{endpoint}\"\nallow_http = true\npath_style = true\n\
                     upload_checksum = \"crc64nvme\"\n\
                     access_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\n"
                )),
            }
            toml.push('\n');
        }
        toml
    }

    /// All files in the base directories, except [`PERMANENT`].
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for folder in &self.folders {
            list(folder, &mut files)?;
        }
        files.retain(|file| !PERMANENT.iter().any(|name| file.ends_with(name)));
        Ok(files)
    }

    pub fn logs(&self) -> Vec<(String, PathBuf)> {
        self.gateways.iter().map(Gateway::log).collect()
    }
}

impl Gateway {
    /// Access key and secret key.
    pub const KEYS: (&str, &str) = (ACCESS_KEY, SECRET_KEY);

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn log(&self) -> (String, PathBuf) {
        (self.name.clone(), self.log.clone())
    }

    pub async fn start(name: &str, root: &Path, work: &Path) -> Result<Self> {
        let port = free_ports(1)?[0];
        let log = work.join(format!("logs/{name}.log"));
        let process = Self::launch(name, root, port, &log).await?;
        Ok(Self {
            name: name.to_owned(),
            root: root.to_owned(),
            log,
            port,
            process,
        })
    }

    /// Starts it again on the same port, after it was killed.
    async fn restart(&mut self) -> Result<()> {
        self.process = Self::launch(&self.name, &self.root, self.port, &self.log).await?;
        Ok(())
    }

    async fn launch(name: &str, root: &Path, port: u16, log: &Path) -> Result<Process> {
        let mut command = Command::new(artifacts::versitygw()?);
        command
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY])
            .args(["--region", "us-east-1", "--quiet", "--keep-alive"])
            .args(["--port", &format!("127.0.0.1:{port}")])
            .args(["--health", "/health", "posix"])
            .arg(root);
        let mut process = Process::spawn(name, command, log)?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://127.0.0.1:{port}/health");
        wait_until(&format!("{name} answers"), Duration::from_secs(20), || {
            let exited = process.exited();
            let request = http.get(&url).send();
            async move {
                anyhow::ensure!(exited.is_none(), "{name} exited at once: {exited:?}");
                Ok(request
                    .await
                    .is_ok_and(|answer| answer.status().is_success()))
            }
        })
        .await?;
        Ok(process)
    }
}

fn base_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn segments_in(folders: &[PathBuf]) -> Result<usize> {
    let mut files = Vec::new();
    for folder in folders {
        list(folder, &mut files)?;
    }
    files.retain(|file| file.extension().is_some_and(|kind| kind == "seg"));
    Ok(files.len())
}

fn list(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        // A folder may be removed while it is listed, since closing removes folders.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("cannot list {}", folder.display()))?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&entry.path(), into)?,
            Ok(_) => into.push(entry.path()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
