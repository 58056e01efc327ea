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
    gateway: Option<Gateway>,
    /// The proxy in front of the gateway that makes it look distant.
    distant: Option<DistantStore>,
}

struct DistantStore {
    _process: Process,
    url: String,
}

/// An S3 server; its buckets are the folders under its root.
pub struct Gateway {
    process: Process,
    port: u16,
}

impl Store {
    pub async fn start(kind: StorageKind, work: &Path) -> Result<Self> {
        let root = work.join(format!("store-{}", kind.name()));
        let folders: Vec<_> = BUCKETS.iter().map(|bucket| root.join(bucket)).collect();
        for folder in &folders {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let gateway = match kind {
            StorageKind::Local => None,
            StorageKind::S3 => Some(Gateway::start("versitygw", &root, work).await?),
        };
        Ok(Self {
            kind,
            folders,
            gateway,
            distant: None,
        })
    }

    /// Adds milliseconds of latency to every request to the S3 server (benches/slow_store).
    pub async fn add_latency(&mut self, latency: u64, work: &Path) -> Result<()> {
        let gateway = self
            .gateway
            .as_ref()
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

    /// The URL of the S3 server; `None` for local folders.
    fn endpoint(&self) -> Option<String> {
        let distant = self.distant.as_ref().map(|store| store.url.clone());
        distant.or_else(|| self.gateway.as_ref().map(Gateway::url))
    }

    /// The properties of Trino's own exchange manager.
    pub fn stock_properties(&self) -> Vec<(&'static str, String)> {
        let Some(endpoint) = self.endpoint() else {
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
        for (folder, bucket) in self.folders.iter().zip(BUCKETS) {
            toml.push_str("[[base_directory]]\n");
            match self.endpoint() {
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
        let gateway = self.gateway.iter();
        gateway.map(Gateway::log).collect()
    }
}

impl Gateway {
    /// Access key and secret key.
    pub const KEYS: (&str, &str) = (ACCESS_KEY, SECRET_KEY);

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn log(&self) -> (String, PathBuf) {
        (self.process.name.clone(), self.process.log.clone())
    }

    pub async fn start(name: &str, root: &Path, work: &Path) -> Result<Self> {
        let port = free_ports(1)?[0];
        let mut command = Command::new(artifacts::versitygw()?);
        command
            .args([
                "--access",
                ACCESS_KEY,
                "--secret",
                SECRET_KEY,
                "--region",
                "us-east-1",
            ])
            .args([
                "--port",
                &format!("127.0.0.1:{port}"),
                "--quiet",
                "--keep-alive",
            ])
            .args(["--health", "/health", "posix"])
            .arg(root);
        let log = work.join(format!("logs/{name}.log"));
        let mut process = Process::spawn(name, command, &log)?;
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
        Ok(Self { process, port })
    }
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
