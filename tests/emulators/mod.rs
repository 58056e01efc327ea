//! The servers on which object stores are tested: their processes, and a client of their own.
//!
//! Does: start, kill and restart a server on loopback, create buckets, list objects past the daemon
//! under test. Does not: fetch the programs (`tests/lib/fetch.sh`) or test anything. Invariant: a
//! server ends with its [`Emulator`].
//!
//! HDFS is several processes (`hdfs`); the one that is killed and restarted here is its NameNode.
//! Google's XML interface, which clients use, is incomplete in fake-gcs-server; `gcs_xml` completes
//! it with requests of the JSON interface.

mod gcs_xml;
mod hdfs;
mod objects;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::fetch::{fetch, fetched_version};
use crate::process::{Process, free_ports, wait_until};

pub const ACCESS_KEY: &str = "stopover-test";
pub const SECRET_KEY: &str = "stopover-test-secret";
/// The account that Azurite has by itself; Microsoft published its key.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// The key with which MinIO encrypts where it is asked for SSE-S3 or SSE-KMS.
pub const KMS_KEY_NAME: &str = "stopover-test-key";
const KMS_KEY: &str = "stopover-test-key:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Versitygw,
    Minio,
    Azurite,
    #[value(name = "fake-gcs-server")]
    FakeGcs,
    #[value(name = "hadoop", alias = "hdfs")]
    Hadoop,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Versitygw,
        Self::Minio,
        Self::Azurite,
        Self::FakeGcs,
        Self::Hadoop,
    ];

    /// What `tests/lib/fetch.sh` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Versitygw => "versitygw",
            Self::Minio => "minio",
            Self::Azurite => "azurite",
            Self::FakeGcs => "fake-gcs-server",
            Self::Hadoop => "hadoop",
        }
    }

    /// The service whose interface it has.
    pub fn service(self) -> &'static str {
        match self {
            Self::Versitygw | Self::Minio => "S3",
            Self::Azurite => "Azure",
            Self::FakeGcs => "GCS",
            Self::Hadoop => "HDFS",
        }
    }

    pub fn version(self) -> Result<String> {
        fetched_version(self.name())
    }

    /// Of a bucket, or of a folder of the HDFS whose NameNode is reached at this port.
    pub fn uri(self, bucket: &str, port: u16) -> String {
        let scheme = match self {
            Self::Versitygw | Self::Minio => "s3",
            Self::Azurite => "az",
            Self::FakeGcs => "gs",
            Self::Hadoop => return format!("hdfs://127.0.0.1:{port}/{bucket}"),
        };
        format!("{scheme}://{bucket}")
    }

    /// The options of a base directory at this server, reached at this port.
    pub fn options(self, port: u16) -> Vec<(&'static str, String)> {
        let endpoint = format!("http://127.0.0.1:{port}");
        match self {
            Self::Versitygw | Self::Minio => vec![
                ("endpoint", endpoint),
                ("allow_http", "true".into()),
                ("region", "us-east-1".into()),
                ("path_style", "true".into()),
                ("access_key_id", ACCESS_KEY.into()),
                ("secret_access_key", SECRET_KEY.into()),
            ],
            Self::Azurite => vec![
                ("endpoint", format!("{endpoint}/{AZURE_ACCOUNT}")),
                ("allow_http", "true".into()),
                ("account", AZURE_ACCOUNT.into()),
                ("access_key", AZURE_KEY.into()),
                // It deletes the 256 objects of a batch one by one, and reads nothing meanwhile.
                // Then it closes connections that seem idle, though a request waits in them.
                ("timeout", "3m".into()),
                ("azure_pool_max_idle_per_host", "0".into()),
            ],
            Self::FakeGcs => vec![
                ("endpoint", endpoint),
                ("allow_http", "true".into()),
                ("google_bearer_token", "test".into()),
            ],
            Self::Hadoop => Vec::new(),
        }
    }

    /// A `[[base_directory]]` table of a daemon's configuration.
    pub fn table(self, bucket: &str, port: u16, more: &[(&str, &str)]) -> String {
        let uri = self.uri(bucket, port);
        let options = self.options(port).into_iter();
        let more = more.iter().map(|(name, value)| (*name, (*value).into()));
        let lines = options.chain(more).map(|(name, value): (_, String)| {
            let is_flag = matches!(value.as_str(), "true" | "false");
            let quote = if is_flag { "" } else { "\"" };
            format!("{name} = {quote}{value}{quote}\n")
        });
        format!(
            "[[base_directory]]\nuri = \"{uri}\"\n{}\n",
            lines.collect::<String>()
        )
    }

    /// Whether it keeps what it acknowledged when it is killed. Azurite writes its index every few
    /// seconds, and fake-gcs-server an object and its metadata one after the other.
    pub fn survives_kills(self) -> bool {
        matches!(self, Self::Versitygw | Self::Minio | Self::Hadoop)
    }
}

/// A running server.
pub struct Emulator {
    pub kind: Kind,
    /// Where clients reach it.
    pub port: u16,
    /// Where the server itself answers HTTP; another one if requests are translated on their way,
    /// or if it speaks another protocol to clients.
    inner: u16,
    data: PathBuf,
    log: PathBuf,
    process: Option<Process>,
    manner: Manner,
    _translator: Option<gcs_xml::Translator>,
    hdfs: Option<Box<hdfs::Hdfs>>,
}

/// How a server runs, if not as usual.
#[derive(Debug, Default)]
struct Manner {
    /// The folder of its certificate and key: with TLS.
    certificates: Option<PathBuf>,
    in_memory: bool,
}

impl Emulator {
    /// Starts a server whose data are below `data`, an existing folder, and whose log is in `logs`.
    pub async fn start(kind: Kind, data: &Path, logs: &Path) -> Result<Self> {
        let port = free_ports(1)?[0];
        Self::start_at(kind, port, data, logs).await
    }

    /// The same over TLS, on MinIO, with `public.crt` and `private.key` of a folder. A bucket there
    /// is a folder below `data`.
    pub async fn start_tls(data: &Path, logs: &Path, certificates: &Path) -> Result<Self> {
        let (kind, port) = (Kind::Minio, free_ports(1)?[0]);
        let manner = Manner {
            certificates: Some(certificates.to_owned()),
            ..Manner::default()
        };
        Self::start_with(kind, port, data, logs, manner).await
    }

    /// The same with everything in memory, where fake-gcs-server has versions of objects.
    #[allow(dead_code)] // not every test of emulators needs it
    pub async fn start_in_memory(kind: Kind, logs: &Path) -> Result<Self> {
        ensure!(kind == Kind::FakeGcs, "{} keeps files", kind.name());
        let manner = Manner {
            in_memory: true,
            ..Manner::default()
        };
        Self::start_with(kind, free_ports(1)?[0], logs, logs, manner).await
    }

    /// The same at a given port.
    pub async fn start_at(kind: Kind, port: u16, data: &Path, logs: &Path) -> Result<Self> {
        Self::start_with(kind, port, data, logs, Manner::default()).await
    }

    async fn start_with(
        kind: Kind,
        port: u16,
        data: &Path,
        logs: &Path,
        manner: Manner,
    ) -> Result<Self> {
        let (inner, translator) = match kind {
            Kind::FakeGcs => {
                let inner = free_ports(1)?[0];
                (inner, Some(gcs_xml::Translator::start(port, inner)?))
            }
            Kind::Hadoop => (free_ports(1)?[0], None),
            _ => (port, None),
        };
        let hdfs = match kind {
            Kind::Hadoop => Some(Box::new(hdfs::Hdfs::create(data, logs, port, inner)?)),
            _ => None,
        };
        let mut emulator = Self {
            kind,
            port,
            inner,
            data: data.to_owned(),
            log: logs.join(format!("{}.log", kind.name())),
            process: None,
            manner,
            _translator: translator,
            hdfs,
        };
        emulator.restart().await?;
        emulator.restart_data_nodes().await?;
        Ok(emulator)
    }

    /// Starts it again on the same data and port.
    pub async fn restart(&mut self) -> Result<()> {
        let name = self.kind.name();
        let command = self.command()?;
        let mut process = Process::spawn(name, command, &self.log)?;
        let port = self.inner;
        wait_until(&format!("{name} answers"), Duration::from_secs(180), || {
            let exited = process.exited();
            async move {
                ensure!(exited.is_none(), "{name} ended at start: {exited:?}");
                Ok(objects::answers(port).await)
            }
        })
        .await
        .with_context(|| format!("see {}", self.log.display()))?;
        self.process = Some(process);
        match &self.hdfs {
            Some(hdfs) => hdfs.wait_until_up().await,
            None => Ok(()),
        }
    }

    /// Starts the DataNodes that do not run, and waits until HDFS works; nothing elsewhere.
    pub async fn restart_data_nodes(&mut self) -> Result<()> {
        match &mut self.hdfs {
            Some(hdfs) => {
                hdfs.start_data_nodes()?;
                hdfs.wait_until_up().await
            }
            None => Ok(()),
        }
    }

    /// How many files and folders clients have deleted on HDFS.
    pub async fn deletes(&self) -> Result<u64> {
        let hdfs = self.hdfs.as_ref().context("it counts no deletes")?;
        hdfs.deletes().await
    }

    /// The ports of the DataNodes of HDFS, which clients find behind the name
    /// [`hdfs::DATA_NODE_NAME`], too.
    #[allow(dead_code)] // not every test of emulators asks
    pub async fn data_ports(&self) -> Result<Vec<u16>> {
        let hdfs = self.hdfs.as_ref().context("it has no DataNodes")?;
        hdfs.data_ports().await
    }

    /// Kills one of the DataNodes; nothing elsewhere.
    pub fn kill_data_node(&mut self, number: usize) {
        if let Some(hdfs) = &mut self.hdfs {
            hdfs.kill_data_node(number);
        }
    }

    fn command(&self) -> Result<Command> {
        if let Some(hdfs) = &self.hdfs {
            return hdfs.name_node();
        }
        let program = fetch(self.kind.name())?;
        let (port, data) = (self.inner.to_string(), &self.data);
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(&program);
        match self.kind {
            Kind::Versitygw => {
                let versions = data.with_file_name("versitygw-versions");
                std::fs::create_dir_all(&versions)?;
                command
                    .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY])
                    .args(["--region", "us-east-1", "--quiet", "--keep-alive"])
                    .args(["--health", "/health", "--port", &address])
                    .args(["posix", "--versioning-dir"])
                    .arg(versions)
                    .arg(data);
            }
            Kind::Minio => {
                command
                    .args(["server", "--quiet", "--address", &address])
                    .arg(data)
                    .env("MINIO_ROOT_USER", ACCESS_KEY)
                    .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
                    .env("MINIO_KMS_SECRET_KEY", KMS_KEY)
                    .env("MINIO_BROWSER", "off")
                    .env("MINIO_UPDATE", "off");
                if let Some(certificates) = &self.manner.certificates {
                    command.arg("--certs-dir").arg(certificates);
                }
            }
            Kind::Azurite => {
                command
                    .args(["--blobHost", "127.0.0.1", "--blobPort", &port])
                    .args(["--silent", "--disableTelemetry", "--location"])
                    .arg(data);
            }
            Kind::FakeGcs => {
                command
                    .args(["-scheme", "http", "-host", "127.0.0.1", "-port", &port])
                    .args(["-public-host", &address, "-log-level", "error"]);
                match self.manner.in_memory {
                    true => command.args(["-backend", "memory"]),
                    false => command
                        .args(["-backend", "filesystem", "-filesystem-root"])
                        .arg(data),
                };
            }
            Kind::Hadoop => unreachable!("its processes are those of `hdfs`"),
        }
        Ok(command)
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub fn log(&self) -> (String, PathBuf) {
        (self.kind.name().to_owned(), self.log.clone())
    }

    /// Creates a bucket.
    pub async fn create(&self, bucket: &str) -> Result<()> {
        objects::create(self.kind, self.inner, bucket).await
    }

    /// Creates a bucket of S3 that locks new objects for a day.
    #[allow(dead_code)] // not every test of emulators needs it
    pub async fn create_locked(&self, bucket: &str) -> Result<()> {
        objects::create_locked(self.inner, bucket).await
    }

    /// Lets a bucket keep earlier versions of its objects; `false` if the server has none.
    pub async fn keep_versions(&self, bucket: &str) -> Result<bool> {
        objects::keep_versions(self.kind, self.inner, bucket).await
    }

    /// The number of versions and delete markers whose keys contain `part`, where there are any.
    #[allow(dead_code)] // not every test of emulators asks
    pub async fn versions(&self, bucket: &str, part: &str) -> Result<usize> {
        objects::versions(self.kind, self.inner, bucket, part).await
    }

    /// A header of an object, on S3.
    pub async fn header(&self, bucket: &str, key: &str, name: &str) -> Result<Option<String>> {
        objects::header(self.inner, &format!("{bucket}/{key}"), name).await
    }

    /// The keys of all objects in a bucket.
    pub async fn keys(&self, bucket: &str) -> Result<Vec<String>> {
        match &self.hdfs {
            Some(hdfs) => hdfs.keys(bucket).await,
            None => objects::keys(self.kind, self.port, bucket).await,
        }
    }
}
