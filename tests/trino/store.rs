//! The two base directories of the cluster's daemons: local folders, or buckets of a store.
//!
//! What is left in them is read from the file system or asked of the store, not of the daemon under
//! test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::emulators::{self, ACCESS_KEY, Emulator, SECRET_KEY};
use crate::fetch::fetch;
use crate::process::{Process, free_ports, wait_until};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageKind {
    Local,
    /// An S3 server.
    #[value(name = "versitygw", alias = "s3")]
    S3,
    Minio,
    Azurite,
    #[value(name = "fake-gcs-server")]
    FakeGcs,
}

impl StorageKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "versitygw",
            Self::Minio => "minio",
            Self::Azurite => "azurite",
            Self::FakeGcs => "fake-gcs-server",
        }
    }

    /// The server of an object store.
    fn emulator(self) -> Option<emulators::Kind> {
        Some(match self {
            Self::Local => return None,
            Self::S3 => emulators::Kind::Versitygw,
            Self::Minio => emulators::Kind::Minio,
            Self::Azurite => emulators::Kind::Azurite,
            Self::FakeGcs => emulators::Kind::FakeGcs,
        })
    }
}

const BUCKETS: [&str; 2] = ["stopover-one", "stopover-two"];
/// What belongs to a base directory itself.
const PERMANENT: [&str; 4] = [".keep", "identity", "members", "sweeper"];

pub struct Store {
    pub kind: StorageKind,
    /// One folder per base directory, if they are local.
    pub folders: Vec<PathBuf>,
    emulator: Option<Emulator>,
    /// The proxy in front of the store that makes it look distant.
    distant: Option<DistantStore>,
}

struct DistantStore {
    _process: Process,
    port: u16,
}

/// An S3 server; its buckets are the folders under its root.
pub struct Gateway {
    process: Process,
    port: u16,
}

impl Store {
    pub async fn start(kind: StorageKind, work: &Path) -> Result<Self> {
        let root = work.join(format!("store-{}", kind.name()));
        let mut store = Self {
            kind,
            folders: Vec::new(),
            emulator: None,
            distant: None,
        };
        std::fs::create_dir_all(&root)
            .with_context(|| format!("cannot create {}", root.display()))?;
        match kind.emulator() {
            None => store
                .folders
                .extend(BUCKETS.map(|bucket| root.join(bucket))),
            Some(kind) => {
                let emulator = Emulator::start(kind, &root, &work.join("logs")).await?;
                for bucket in BUCKETS {
                    emulator.create(bucket).await?;
                }
                store.emulator = Some(emulator);
            }
        }
        for folder in &store.folders {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(store)
    }

    /// Adds milliseconds of latency to every request to the S3 server (benches/slow_store).
    pub async fn add_latency(&mut self, latency: u64, work: &Path) -> Result<()> {
        let emulator = self
            .emulator
            .as_ref()
            .context("latency can be added only to an S3 server")?;
        let port = free_ports(1)?[0];
        let program = std::env::var_os("STOPOVER_BENCH_SLOW_STORE").context(
            "set STOPOVER_BENCH_SLOW_STORE to the proxy's path, see docs/performance.md",
        )?;
        let mut command = Command::new(program);
        command
            .args(["--upstream", &format!("127.0.0.1:{}", emulator.port)])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--latency", &latency.to_string()]);
        let process = Process::spawn("slow-store", command, &work.join("logs/slow-store.log"))?;
        let answers = || async move {
            Ok(tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok())
        };
        wait_until("the proxy listens", Duration::from_secs(20), answers).await?;
        self.distant = Some(DistantStore {
            _process: process,
            port,
        });
        Ok(())
    }

    /// The port of the store or of the proxy in front of it; `None` for local folders.
    fn port(&self) -> Option<u16> {
        let distant = self.distant.as_ref().map(|store| store.port);
        distant.or_else(|| self.emulator.as_ref().map(|emulator| emulator.port))
    }

    /// The properties of Trino's own exchange manager.
    pub fn stock_properties(&self) -> Vec<(&'static str, String)> {
        let Some(port) = self.port() else {
            let folders = self.folders.iter().map(|f| f.display().to_string());
            let folders = folders.collect::<Vec<_>>().join(",");
            return vec![("exchange.base-directories", folders)];
        };
        vec![
            (
                "exchange.base-directories",
                BUCKETS.map(|bucket| format!("s3://{bucket}")).join(","),
            ),
            ("exchange.s3.endpoint", format!("http://127.0.0.1:{port}")),
            ("exchange.s3.region", "us-east-1".to_owned()),
            ("exchange.s3.aws-access-key", ACCESS_KEY.to_owned()),
            ("exchange.s3.aws-secret-key", SECRET_KEY.to_owned()),
            ("exchange.s3.path-style-access", "true".to_owned()),
        ]
    }

    /// The `[[base_directory]]` tables of a daemon's configuration.
    pub fn configuration(&self) -> String {
        let (Some(kind), Some(port)) = (self.kind.emulator(), self.port()) else {
            let table = |folder: &PathBuf| {
                let folder = folder.display();
                format!("[[base_directory]]\nuri = \"file://{folder}\"\n\n")
            };
            return self.folders.iter().map(table).collect();
        };
        // Without it, an upload to S3 is hashed for its signature, which costs more.
        let more: &[_] = match kind {
            emulators::Kind::Versitygw => &[("upload_checksum", "crc64nvme")],
            _ => &[],
        };
        BUCKETS
            .map(|bucket| kind.table(bucket, port, more))
            .concat()
    }

    /// All files or objects in the base directories, except [`PERMANENT`].
    pub async fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for folder in &self.folders {
            list(folder, &mut files)?;
        }
        if let Some(emulator) = &self.emulator {
            for bucket in BUCKETS {
                let keys = emulator.keys(bucket).await?.into_iter();
                files.extend(keys.map(|key| PathBuf::from(bucket).join(key)));
            }
        }
        files.retain(|file| !PERMANENT.iter().any(|name| file.ends_with(name)));
        Ok(files)
    }

    pub fn logs(&self) -> Vec<(String, PathBuf)> {
        self.emulator.iter().map(Emulator::log).collect()
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
        let mut command = Command::new(fetch("versitygw")?);
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
