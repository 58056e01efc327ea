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
    /// HDFS.
    #[value(name = "hadoop", alias = "hdfs")]
    Hadoop,
}

impl StorageKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "versitygw",
            Self::Minio => "minio",
            Self::Azurite => "azurite",
            Self::FakeGcs => "fake-gcs-server",
            Self::Hadoop => "hadoop",
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
            Self::Hadoop => emulators::Kind::Hadoop,
        })
    }
}

const BUCKETS: [&str; 2] = ["stopover-one", "stopover-two"];
/// What belongs to a base directory itself.
const PERMANENT: [&str; 4] = [".keep", "identity", "members", "sweeper"];

pub struct Store {
    pub kind: StorageKind,
    /// The names of the base directories: of folders below the root, or of buckets.
    names: Vec<String>,
    root: PathBuf,
    emulator: Option<Emulator>,
    /// A second S3 server over the same buckets, through which the second one is reached.
    second: Option<Emulator>,
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

/// The base directory that can be taken away.
const SECOND: usize = 1;

impl Store {
    pub async fn start(kind: StorageKind, work: &Path) -> Result<Self> {
        let root = work.join(format!("store-{}", kind.name()));
        let mut store = Self {
            kind,
            names: BUCKETS.map(str::to_owned).into(),
            root,
            emulator: None,
            second: None,
            distant: None,
        };
        std::fs::create_dir_all(&store.root)
            .with_context(|| format!("cannot create {}", store.root.display()))?;
        let Some(kind) = kind.emulator() else {
            for name in BUCKETS {
                std::fs::create_dir_all(store.folder(name))?;
            }
            return Ok(store);
        };
        let logs = work.join("logs");
        let emulator = Emulator::start(kind, &store.root, &logs).await?;
        for bucket in BUCKETS {
            emulator.create(bucket).await?;
        }
        store.emulator = Some(emulator);
        if kind == emulators::Kind::Versitygw {
            let logs = logs.join("second");
            std::fs::create_dir_all(&logs)?;
            store.second = Some(Emulator::start(kind, &store.root, &logs).await?);
        }
        Ok(store)
    }

    /// The folder of a base directory: where it is, or where an S3 server keeps the bucket.
    fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The folders of the base directories, if they are local.
    pub fn folders(&self) -> Vec<PathBuf> {
        let names = self
            .names
            .iter()
            .filter(|_| self.kind == StorageKind::Local);
        names.map(|name| self.folder(name)).collect()
    }

    /// Takes the second base directory away: its folder is moved, its S3 server killed.
    pub fn take_away(&mut self) -> Result<()> {
        match &mut self.second {
            Some(server) => server.kill(),
            None => std::fs::rename(self.folder(BUCKETS[SECOND]), self.elsewhere())?,
        }
        Ok(())
    }

    /// Gives it back, if it was taken away.
    pub async fn give_back(&mut self) -> Result<()> {
        if self.elsewhere().exists() {
            std::fs::rename(self.elsewhere(), self.folder(BUCKETS[SECOND]))?;
        }
        match &mut self.second {
            Some(server) if !server.is_running() => server.restart().await,
            _ => Ok(()),
        }
    }

    /// The server of the buckets.
    pub fn server(&mut self) -> Option<&mut Emulator> {
        self.emulator.as_mut()
    }

    /// Where the folder of the second base directory is while it is away.
    fn elsewhere(&self) -> PathBuf {
        self.folder(BUCKETS[SECOND]).with_extension("away")
    }

    /// Makes a third base directory of another folder or bucket; returns its name.
    pub fn add_third(&mut self) -> Result<String> {
        let name = "stopover-three".to_owned();
        std::fs::create_dir_all(self.folder(&name))?;
        self.names.push(name.clone());
        Ok(name)
    }

    /// The third base directory is lost for ever, with all that is in it.
    pub fn lose_third(&self) -> Result<()> {
        let name = self.names.last().context("there is one")?;
        Ok(std::fs::remove_dir_all(self.folder(name))?)
    }

    /// Forgets the third base directory, and removes its folder if it is there; returns whether
    /// there was one.
    pub fn remove_third(&mut self) -> Result<bool> {
        let third = self.names.drain(BUCKETS.len()..).next();
        if let Some(folder) = third.as_ref().map(|name| self.folder(name))
            && folder.exists()
        {
            std::fs::remove_dir_all(folder)?;
        }
        Ok(third.is_some())
    }

    /// The segments in the last base directory.
    pub fn segments_in_last(&self) -> Result<usize> {
        let name = self.names.last().context("there is one")?;
        segments_in(&[self.folder(name)])
    }

    /// The segments in the second base directory, wherever it is.
    pub fn segments_in_second(&self) -> Result<usize> {
        segments_in(&[self.folder(BUCKETS[SECOND]), self.elsewhere()])
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

    /// The port of the store of a base directory, or of the proxy in front of it; `None` for local
    /// folders.
    fn port(&self, base: usize) -> Option<u16> {
        let distant = self.distant.as_ref().map(|store| store.port);
        let second = self.second.as_ref().filter(|_| base == SECOND);
        let emulator = second.or(self.emulator.as_ref());
        distant.or_else(|| emulator.map(|emulator| emulator.port))
    }

    /// The properties of Trino's own exchange manager.
    pub fn stock_properties(&self) -> Vec<(&'static str, String)> {
        let Some(port) = self.port(0) else {
            let folders = self.folders();
            let folders = folders.iter().map(|f| f.display().to_string());
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
        let Some(kind) = self.kind.emulator() else {
            let table = |name: &String| {
                let folder = self.folder(name);
                let folder = folder.display();
                format!("[[base_directory]]\nname = \"{name}\"\nuri = \"file://{folder}\"\n\n")
            };
            return self.names.iter().map(table).collect();
        };
        let table = |(base, name): (usize, &String)| {
            let mut more = vec![("name", name.as_str())];
            if kind == emulators::Kind::Versitygw {
                // Without it, an upload to S3 is hashed for its signature, which costs more.
                more.push(("upload_checksum", "crc64nvme"));
            }
            let port = self.port(base).unwrap_or_default();
            kind.table(name, port, &more)
        };
        self.names.iter().enumerate().map(table).collect()
    }

    /// All files or objects in the base directories, except [`PERMANENT`].
    pub async fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for folder in self.folders() {
            list(&folder, &mut files)?;
        }
        if let Some(emulator) = &self.emulator {
            for bucket in &self.names {
                let keys = emulator.keys(bucket).await?.into_iter();
                files.extend(keys.map(|key| PathBuf::from(bucket).join(key)));
            }
        }
        files.retain(|file| !PERMANENT.iter().any(|name| file.ends_with(name)));
        Ok(files)
    }

    pub fn logs(&self) -> Vec<(String, PathBuf)> {
        let emulators = self.emulator.iter().chain(&self.second);
        emulators.map(Emulator::log).collect()
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
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY])
            .args(["--region", "us-east-1", "--quiet", "--keep-alive"])
            .args(["--port", &format!("127.0.0.1:{port}")])
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
