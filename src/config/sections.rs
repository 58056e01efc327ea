//! The settings, section by section: meaning, type and default of each.
//!
//! Does: hold validated values. Does not: parse (`values`), bound (`keys`) or explain why a default
//! was chosen (`config/default.toml`, which a test compares with this file).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::machine::{Machine, auto_budget};
use super::secret::Secret;

/// Defines a struct whose fields have defaults.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// `[server]`: the listener, its credentials and its shutdown.
    ServerConfig {
        /// Address to listen on.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 7077)),
        /// Second address, for people and programs that watch the daemon; `None`: there is none.
        admin_listen: Option<SocketAddr> = None,
        /// File with the bearer tokens of the second address; `None`: those of `token_file`.
        admin_token_file: Option<PathBuf> = None,
        /// Allows an address that is not loopback although no token is configured.
        allow_remote_without_token: bool = false,
        /// Speaks HTTP/2 besides HTTP/1.1.
        http2: bool = false,
        /// Host names under which clients without a token reach the daemon, besides `localhost`
        /// and IP addresses.
        allowed_hosts: Vec<String> = Vec::new(),
        /// URIs by which nodes on other machines reach this daemon: scheme, host and port.
        advertise: Vec<String> = Vec::new(),
        /// Availability zone of this daemon; empty: none.
        zone: String = String::new(),
        /// File with the accepted bearer tokens, one per line, each preceded by its scopes unless
        /// it has all of them; `None`: no token is required.
        token_file: Option<PathBuf> = None,
        /// File with the daemon's certificate chain (PEM); `None`: no TLS.
        tls_certificate_file: Option<PathBuf> = None,
        /// File with the private key of that certificate (PEM).
        tls_key_file: Option<PathBuf> = None,
        /// File with the CAs that client certificates are verified against (PEM); `None`: clients
        /// need no certificate.
        tls_client_ca_file: Option<PathBuf> = None,
        /// Interval at which the credential files are checked for changes.
        reload_interval: Duration = Duration::from_secs(10),
        /// How long the start may take; base directories that have not answered by then are opened
        /// later.
        start_timeout: Duration = Duration::from_secs(20),
        /// How long a stopping daemon waits for open sinks to finish.
        drain_timeout: Duration = Duration::from_secs(30),
    }
}

impl ServerConfig {
    /// Certificate and key file, if TLS is configured.
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        let certificate = self.tls_certificate_file.as_deref()?;
        Some((certificate, self.tls_key_file.as_deref()?))
    }

    /// Hosts of the advertised URIs.
    pub fn advertised_hosts(&self) -> impl Iterator<Item = String> {
        let urls = self.advertise.iter().filter_map(|uri| Url::parse(uri).ok());
        urls.filter_map(|url| url.host_str().map(str::to_owned))
    }

    /// Scheme of the daemon's URLs.
    pub fn scheme(&self) -> &'static str {
        match self.tls() {
            Some(_) => "https",
            None => "http",
        }
    }
}

section! {
    /// `[memory]`: the budget for pages.
    MemoryConfig {
        /// Bytes for pages that are being written or read; `None` is "auto".
        budget: Option<u64> = None,
        /// Share of the budget reserved for writing, 0.1 to 0.9; reading has the rest.
        write_share: f64 = 0.5,
        /// Share of the write memory that foreign sinks may hold, 0 to 1.
        home_share: f64 = 0.5,
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
    /// The budget in bytes, with "auto" resolved on this machine.
    pub fn resolve(&self) -> u64 {
        self.resolve_on(Machine::detect())
    }

    /// The budget divided between writing and reading, with "auto" resolved on this machine.
    pub fn split(&self) -> MemorySplit {
        self.split_on(Machine::detect())
    }

    /// The same for a given machine.
    pub fn split_on(&self, machine: Machine) -> MemorySplit {
        let budget = self.resolve_on(machine);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share is from 0.1 to 0.9; a rounding error of some bytes does not matter"
        )]
        let write = ((budget as f64 * self.write_share) as u64).min(budget);
        MemorySplit {
            write,
            read: budget - write,
        }
    }

    /// Bytes that foreign sinks may hold of `write` bytes of memory.
    pub fn foreign_share(&self, write: u64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share is from 0 to 1; a rounding error of some bytes does not matter"
        )]
        let share = (write as f64 * self.home_share) as u64;
        share.min(write)
    }

    fn resolve_on(&self, machine: Machine) -> u64 {
        self.budget.unwrap_or_else(|| auto_budget(machine))
    }
}

/// `[[base_directory]]`: a location where exchanges are stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BaseDirectoryConfig {
    /// `file:///…`, `s3://bucket/prefix`, `gs://…`, `az://container/prefix`, `memory://name`.
    pub uri: String,
    /// Its name in segments and handles; if empty, it is derived from the URI.
    pub name: String,
    /// Options of its store, named as in the file (`region`, `endpoint`, `path_style`, …).
    pub options: BTreeMap<String, Secret>,
}

section! {
    /// `[segment]`: how pages are gathered into segments.
    SegmentConfig {
        /// Bytes at which a segment is sealed.
        target_size: u64 = 64 << 20,
        /// How long a `finish` waits for others to join its group commit.
        commit_linger: Duration = Duration::from_millis(20),
        /// Concurrent uploads of the daemon.
        upload_concurrency: usize = 4,
    }
}

section! {
    /// `[read]`: fetching and caching.
    ReadConfig {
        /// Bytes of one aligned fetch, shared by readers of neighbouring partitions.
        chunk_size: u64 = 8 << 20,
        /// Chunks that one read fetches ahead; four times as many if they are small.
        fetch_concurrency: usize = 4,
        /// Share of the read memory that cached chunks may occupy, 0 to 1.
        cache_share: f64 = 0.5,
    }
}

section! {
    /// `[lease]`: when an exchange that is no longer renewed is collected.
    LeaseConfig {
        /// How long an exchange must be observed without a renewal before it is collected.
        duration: Duration = Duration::from_secs(900),
        /// How long the marker of an exchange may be missing after the announcement was answered.
        announcement_timeout: Duration = Duration::from_secs(60),
        /// Interval between sweeps, and between reads of the sweeper's digest.
        sweep_interval: Duration = Duration::from_secs(60),
    }
}

section! {
    /// `[query]`: limits of one query at one daemon. Requests over a limit wait, except where
    /// stated otherwise; `None` is "unlimited".
    QueryConfig {
        /// Bytes of the write memory, including its hot segments.
        max_write_memory: Option<u64> = None,
        /// Bytes of the read memory, including its cached chunks.
        max_read_memory: Option<u64> = None,
        /// Concurrent requests that carry pages.
        max_concurrent_writes: Option<u64> = None,
        /// Concurrent streamed reads.
        max_concurrent_reads: Option<u64> = None,
        /// Bytes that it may have stored through this daemon. What exceeds it is refused.
        max_stored_size: Option<u64> = None,
    }
}

section! {
    /// `[limits]`: bounds on everything that clients send or hold open.
    LimitsConfig {
        /// Output partitions of an exchange.
        max_partitions: u32 = 65_536,
        /// Bytes of one page.
        max_page_size: u64 = 16 << 20,
        /// Bytes of one batch request.
        max_batch_size: u64 = 32 << 20,
        /// Bytes of one JSON body.
        max_control_body_size: u64 = 4 << 20,
        /// Exchanges with sinks at this daemon.
        max_exchanges: usize = 10_000,
        /// Exchanges that were announced through this daemon and are open.
        max_announced_exchanges: usize = 20_000,
        /// Sinks of one exchange at this daemon.
        max_sinks_per_exchange: usize = 100_000,
        /// Open connections.
        max_connections: usize = 10_000,
        /// Concurrent streamed reads; further ones wait.
        max_concurrent_reads: usize = 4096,
        /// Bytes of a segment's footer.
        max_footer_size: u64 = 256 << 20,
        /// Time for a complete request head.
        header_timeout: Duration = Duration::from_secs(30),
        /// Time for a complete request body, from when the daemon starts to read it.
        body_timeout: Duration = Duration::from_secs(60),
        /// Time for which a client may read nothing of a response before it is disconnected.
        response_stall_timeout: Duration = Duration::from_secs(120),
    }
}

impl LimitsConfig {
    /// Connections that have sent no authorized request yet: so many are open in addition to
    /// `max_connections`.
    pub fn max_strangers(max_connections: usize) -> usize {
        max_connections.clamp(64, 1024)
    }
}

section! {
    /// `[log]`
    LogConfig {
        /// One JSON object per line instead of text.
        json: bool = false,
        /// A tracing filter, such as `info` or `stopover=debug`.
        filter: String = "info".into(),
    }
}

section! {
    /// `[tracing]`: spans for an OpenTelemetry collector.
    TracingConfig {
        /// Where spans are posted, with its path; `None`: there are none.
        collector: Option<Url> = None,
        /// The form of OTLP; there is one.
        protocol: String = OTLP_PROTOCOL.into(),
        /// Headers of each export, which often hold a token.
        headers: Vec<(String, Secret)> = Vec::new(),
        /// The resource attribute `service.name`.
        service_name: String = "stopover".into(),
        /// Further resource attributes.
        resource_attributes: Vec<(String, String)> = Vec::new(),
        /// Whether the decision of a caller that sends `traceparent` is followed.
        parent_based: bool = true,
        /// Share of the other traces that is recorded, 0 to 1.
        sampling_ratio: f64 = 1.0,
        /// Spans that wait for their export; further ones are dropped.
        max_queue_size: usize = 4096,
        /// Spans of one export.
        max_batch_size: usize = 512,
        /// How long a span waits for others to share its export.
        export_interval: Duration = Duration::from_secs(5),
        /// Time for one export, and for what is left when the daemon stops.
        export_timeout: Duration = Duration::from_secs(10),
    }
}

/// OTLP in the form that every collector accepts on port 4318.
pub const OTLP_PROTOCOL: &str = "http/protobuf";
