//! What the daemon can be told, one struct per subsystem, each setting documented once.
//!
//! Does: hold validated settings with their defaults. Does not: read files (`load`) or know units
//! (`units`). Invariant: a [`Config`] that [`load`] returns contradicts itself nowhere.

mod base_directory;
mod base_uri;
mod keys;
mod layers;
mod load;
mod machine;
mod problem;
#[cfg(test)]
mod tests;
pub mod units;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use base_uri::{BaseUri, BaseUriError, Scheme};
pub use load::{Environment, Files, Flags, Loaded, load, load_in};
pub use machine::Machine;
pub use problem::{ConfigErrors, Origin, Problem};

/// Where settings come from, by `section.key`; what is not here is a default.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<&'static str, Origin>);

/// Everything.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[memory]`
    pub memory: MemoryConfig,
    /// `[[base_directory]]`, at least one.
    pub base_directories: Vec<BaseDirectoryConfig>,
    /// `[segment]`
    pub segment: SegmentConfig,
    /// `[read]`
    pub read: ReadConfig,
    /// `[lease]`
    pub lease: LeaseConfig,
    /// `[query]`
    pub query: QueryConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[log]`
    pub log: LogConfig,
}

/// `[server]`: where and for whom the daemon listens.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Listen on an address that is not loopback although no token is configured.
    pub allow_remote_without_token: bool,
    /// File with one accepted bearer token a line, after its scopes if it has not all; none: no
    /// token is asked for.
    pub token_file: Option<PathBuf>,
    /// File with the daemon's certificate chain; none: TLS is not spoken.
    pub tls_certificate_file: Option<PathBuf>,
    /// File with the key of that certificate.
    pub tls_key_file: Option<PathBuf>,
    /// File with the certificates that vouch for clients; none: clients need none.
    pub tls_client_ca_file: Option<PathBuf>,
    /// How often the files of tokens and certificates are looked at for changes.
    pub reload_interval: Duration,
    /// How long a stopping daemon lets open sinks finish.
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7077)),
            allow_remote_without_token: false,
            token_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
            reload_interval: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl ServerConfig {
    /// The files of certificate and key, if TLS is spoken.
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        let certificate = self.tls_certificate_file.as_deref()?;
        Some((certificate, self.tls_key_file.as_deref()?))
    }

    /// How the daemon's URLs begin.
    pub fn scheme(&self) -> &'static str {
        match self.tls() {
            Some(_) => "https",
            None => "http",
        }
    }
}

/// `[memory]`
#[derive(Debug, Clone)]
pub struct MemoryConfig {
    /// Bytes of pages held at most, writing and reading together; `None` is "auto".
    pub budget: Option<u64>,
    /// Share of the budget that writing has for itself; reading has the rest.
    pub write_share: f64,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            budget: None,
            write_share: 0.5,
        }
    }
}

/// The budget in bytes, divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySplit {
    /// For batches and segments that are being written.
    pub write: u64,
    /// For chunks that are fetched, cached and streamed.
    pub read: u64,
}

impl MemoryConfig {
    /// The budget in bytes, "auto" resolved on this machine.
    pub fn resolve(&self) -> u64 {
        self.budget
            .unwrap_or_else(|| machine::auto_budget(Machine::detect()))
    }

    /// The budget divided between writing and reading, "auto" resolved on this machine.
    pub fn split(&self) -> MemorySplit {
        self.split_on(Machine::detect())
    }

    /// The same for a given machine.
    pub fn split_on(&self, machine: Machine) -> MemorySplit {
        let budget = self.budget.unwrap_or_else(|| machine::auto_budget(machine));
        let write = ((budget as f64 * self.write_share) as u64).min(budget);
        MemorySplit {
            write,
            read: budget - write,
        }
    }
}

/// `[[base_directory]]`: one place for segments.
#[derive(Clone, Default)]
pub struct BaseDirectoryConfig {
    /// `file:///…`, `s3://bucket/prefix`, `gs://…`, `az://container/prefix`, `memory://name`.
    pub uri: String,
    /// Its name in segments and handles; empty: derived from the URI.
    pub name: String,
    /// Options of the store, by their names in the file (`region`, `endpoint`, `path_style`, …).
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for BaseDirectoryConfig {
    /// Without secrets: configurations end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .options
            .iter()
            .map(|(name, value)| (name, load::shown_option(name, value)));
        f.debug_struct("BaseDirectoryConfig")
            .field("uri", &self.uri)
            .field("name", &self.name)
            .field("options", &shown.collect::<BTreeMap<_, _>>())
            .finish()
    }
}

/// `[segment]`
#[derive(Debug, Clone)]
pub struct SegmentConfig {
    /// A segment is sealed when it holds this many bytes.
    pub target_size: u64,
    /// How long a finish waits for others to share its segment.
    pub commit_linger: Duration,
    /// Segments that the daemon uploads at a time.
    pub upload_concurrency: usize,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        Self {
            target_size: 64 << 20,
            commit_linger: Duration::from_millis(20),
            upload_concurrency: 4,
        }
    }
}

/// `[read]`
#[derive(Debug, Clone)]
pub struct ReadConfig {
    /// Bytes fetched by one request, aligned; neighbours in a chunk are served from it.
    pub chunk_size: u64,
    /// Chunks that one read fetches ahead; small parts may be four times as many.
    pub fetch_concurrency: usize,
    /// Share of the read memory that may hold cached chunks, 0 to 1.
    pub cache_share: f64,
}

impl Default for ReadConfig {
    fn default() -> Self {
        Self {
            chunk_size: 8 << 20,
            fetch_concurrency: 4,
            cache_share: 0.5,
        }
    }
}

/// `[lease]`
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// An exchange that was watched for this long and not renewed is collected.
    pub duration: Duration,
    /// How often the sweeper looks.
    pub sweep_interval: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(900),
            sweep_interval: Duration::from_secs(60),
        }
    }
}

/// `[query]`: what one query may have of a daemon at a time. Over it, its requests wait; `None` is
/// "unlimited": as much as there is.
#[derive(Debug, Clone, Default)]
pub struct QueryConfig {
    /// Bytes held in memory for writing, cached segments included.
    pub max_write_memory: Option<u64>,
    /// Bytes held in memory for reading, cached chunks included.
    pub max_read_memory: Option<u64>,
    /// Requests with pages that are taken at a time.
    pub max_concurrent_writes: Option<u64>,
    /// Reads that are streamed at a time.
    pub max_concurrent_reads: Option<u64>,
}

/// `[limits]`: a bound on everything that comes from outside.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Output partitions of an exchange.
    pub max_partitions: u32,
    /// Bytes of one page.
    pub max_page_size: u64,
    /// Bytes of one batch request.
    pub max_batch_size: u64,
    /// Bytes of one JSON or handle body.
    pub max_json_size: u64,
    /// Exchanges that one daemon writes at a time.
    pub max_exchanges: usize,
    /// Sinks of one exchange that one daemon holds at a time.
    pub max_sinks_per_exchange: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Reads streamed at a time; more wait.
    pub max_concurrent_reads: usize,
    /// Footer index of one segment, bytes.
    pub max_footer_size: u64,
    /// A request head must be complete within this time.
    pub header_timeout: Duration,
    /// A request body must be complete within this time once it is being read.
    pub body_timeout: Duration,
    /// A response whose client takes nothing for this long is cut off.
    pub read_stall_timeout: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_partitions: 65_536,
            max_page_size: 16 << 20,
            max_batch_size: 32 << 20,
            max_json_size: 64 << 20,
            max_exchanges: 10_000,
            max_sinks_per_exchange: 100_000,
            max_connections: 10_000,
            max_concurrent_reads: 4096,
            max_footer_size: 256 << 20,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            read_stall_timeout: Duration::from_secs(120),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// A tracing filter, like `info` or `stopover=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            json: false,
            filter: "info".into(),
        }
    }
}
