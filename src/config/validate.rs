//! Validation of the configuration as a whole.
//!
//! Does: check the range of each setting, and settings that contradict each other; a message names
//! both settings with value and origin, and the remedy. Does not: change anything. Invariant:
//! pure; all problems are reported, not only the first.

use super::keys;
use super::problem::{InvalidValue, Origin, Problem};
use super::secret::names_token_file;
use super::units::{format_size, format_size_like};
use super::{Config, MemorySplit, Origins};
use crate::human::count;

/// Bytes of a frame's header (docs/protocol.md).
const FRAME_HEADER: u64 = 12;

/// Validates a loaded configuration.
pub(super) struct Validator<'a> {
    pub config: &'a Config,
    pub origins: &'a Origins,
    /// The memory budget, divided.
    pub split: MemorySplit,
    /// Memory that the process may use, bytes, if known.
    pub usable: Option<u64>,
}

impl Validator<'_> {
    /// All problems.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        self.ranges(&mut found);
        // Values that are out of range would only cause further, misleading contradictions.
        if found.is_empty() {
            self.memory(&mut found);
            self.query(&mut found);
            self.pages(&mut found);
            self.lease(&mut found);
        }
        self.tls(&mut found);
        self.exposure(&mut found);
        self.advertised(&mut found);
        self.admin(&mut found);
        self.filter(&mut found);
        self.tracing(&mut found);
        found
    }

    fn problem(&self, key: &str, what: String) -> Problem {
        let shown = keys::find(key).filter(|_| !names_token_file(key));
        let value = shown.map(|k| (k.show)(self.config));
        Problem::new(key, value, self.origins.of(key), what)
    }

    /// Another setting with its value and origin, as part of a message.
    fn cite(&self, key: &str) -> String {
        let value = keys::find(key).map_or_else(String::new, |k| (k.show)(self.config));
        format!("{key} = {value} ({})", self.origins.of(key))
    }

    fn ranges(&self, found: &mut Vec<Problem>) {
        for key in keys::KEYS {
            if let Err(why) = (key.check)(self.config) {
                found.push(self.problem(key.name, why.to_string()));
            }
        }
    }

    fn memory(&self, found: &mut Vec<Problem>) {
        let c = self.config;
        if let (Some(budget), Some(usable)) = (c.memory.budget, self.usable)
            && budget > usable
        {
            let usable = format_size_like(usable, budget);
            found.push(self.problem(
                "memory.budget",
                format!(
                    "this process may use only {usable} in total: lower it, or write \"auto\" for \
                     an eighth of that"
                ),
            ));
            return;
        }
        if self.budget_is_too_small(found) {
            return;
        }
        let MemorySplit { write, read } = self.split;
        if c.limits.max_batch_size > write {
            found.push(self.over("limits.max_batch_size", "one batch", "writing", write, 1));
        }
        if c.segment.target_size > write / 2 {
            let what = "one segment that fills while another is uploaded";
            found.push(self.over("segment.target_size", what, "writing", write, 2));
        }
        let fetches = c.read.fetch_concurrency as u64;
        if c.read.chunk_size.saturating_mul(fetches) > read {
            let what = format!(
                "{} (read.fetch_concurrency) of one read",
                count(fetches, "chunk")
            );
            found.push(self.over("read.chunk_size", &what, "reading", read, fetches));
        }
        if c.limits.max_page_size.saturating_add(c.read.chunk_size) > read {
            let what = "one page and the chunk that it ends in";
            found.push(self.over("limits.max_page_size", what, "reading", read, 1));
        }
    }

    /// Reports a budget that nothing fits into as one problem, if the settings that it contradicts
    /// are all defaults: there is only one setting to correct then.
    fn budget_is_too_small(&self, found: &mut Vec<Problem>) -> bool {
        const OTHERS: [&str; 5] = [
            "memory.write_share",
            "limits.max_batch_size",
            "limits.max_page_size",
            "read.chunk_size",
            "read.fetch_concurrency",
        ];
        let c = self.config;
        let Some(budget) = c.memory.budget else {
            return false;
        };
        let fetched = c
            .read
            .chunk_size
            .saturating_mul(c.read.fetch_concurrency as u64);
        let paged = c.limits.max_page_size.saturating_add(c.read.chunk_size);
        let write = c.limits.max_batch_size as f64 / c.memory.write_share;
        let read = fetched.max(paged) as f64 / (1.0 - c.memory.write_share);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "sizes within their ranges, divided by a share from 0.1 to 0.9"
        )]
        let least = write.max(read).ceil() as u64;
        if budget >= least
            || OTHERS
                .iter()
                .any(|key| self.origins.of(key) != Origin::Default)
        {
            return false;
        }
        found.push(self.problem(
            "memory.budget",
            format!(
                "one batch and one read of default size must fit into it: raise it to {} or more, \
                 or lower limits.max_batch_size, limits.max_page_size and read.chunk_size, too",
                format_size(least)
            ),
        ));
        true
    }

    /// A query's limits must allow for one batch, and for one page plus the chunk that it ends in;
    /// otherwise it would wait forever.
    fn query(&self, found: &mut Vec<Problem>) {
        let c = self.config;
        let chunk = c.read.chunk_size;
        let memory = [
            (
                "query.max_write_memory",
                c.query.max_write_memory,
                c.limits.max_batch_size,
                "one batch must fit into it",
                vec!["limits.max_batch_size"],
            ),
            (
                "query.max_read_memory",
                c.query.max_read_memory,
                c.limits.max_page_size.saturating_add(chunk),
                "one page and the chunk that it ends in must fit into it",
                vec!["limits.max_page_size", "read.chunk_size"],
            ),
        ];
        for (key, value, least, why, others) in memory {
            if value.is_some_and(|value| value < least) {
                let others: Vec<String> = others.iter().map(|other| self.cite(other)).collect();
                let (others, least) = (others.join(" and "), format_size(least));
                found.push(self.problem(
                    key,
                    format!("{why}, {others}: raise it to {least} or more, or lower those"),
                ));
            }
        }
        let counts = [
            ("query.max_concurrent_writes", c.query.max_concurrent_writes),
            ("query.max_concurrent_reads", c.query.max_concurrent_reads),
        ];
        for (key, value) in counts {
            if value == Some(0) {
                let what = "it must be at least 1, or \"unlimited\"";
                found.push(self.problem(key, what.to_owned()));
            }
        }
    }

    /// The problem of a size that does not fit into its share of the budget.
    fn over(&self, key: &str, what: &str, purpose: &str, share: u64, times: u64) -> Problem {
        let total = format_size(self.split.write + self.split.read);
        let most = format_size(share / times);
        self.problem(
            key,
            format!(
                "{what} must fit into the memory for {purpose}, {} of a budget of {total}, by {} \
                 and {}: lower it to {most} or less, or raise memory.budget",
                format_size(share),
                self.cite("memory.budget"),
                self.cite("memory.write_share"),
            ),
        )
    }

    fn pages(&self, found: &mut Vec<Problem>) {
        let limits = &self.config.limits;
        if limits.max_page_size + FRAME_HEADER > limits.max_batch_size {
            let other = self.cite("limits.max_batch_size");
            found.push(self.problem(
                "limits.max_page_size",
                format!(
                    "such a page and its frame of {FRAME_HEADER} bytes do not fit into a batch, \
                     {other}: lower it or raise limits.max_batch_size"
                ),
            ));
        }
    }

    fn lease(&self, found: &mut Vec<Problem>) {
        if self.config.lease.sweep_interval >= self.config.lease.duration {
            let other = self.cite("lease.duration");
            found.push(self.problem(
                "lease.sweep_interval",
                format!(
                    "at least one sweep must fall within a lease, {other}: lower it or \
                     raise lease.duration"
                ),
            ));
        }
    }

    fn tls(&self, found: &mut Vec<Problem>) {
        let server = &self.config.server;
        let certificate = server.tls_certificate_file.is_some();
        if certificate != server.tls_key_file.is_some() {
            let (given, missing) = match certificate {
                true => ("server.tls_certificate_file", "server.tls_key_file"),
                false => ("server.tls_key_file", "server.tls_certificate_file"),
            };
            let what = format!("TLS needs a certificate and its key: set {missing}, too");
            found.push(self.problem(given, what));
        }
        if server.tls_client_ca_file.is_some() && server.tls().is_none() {
            let what = "client certificates require TLS: set \
                        server.tls_certificate_file and server.tls_key_file, too";
            found.push(self.problem("server.tls_client_ca_file", what.into()));
        }
    }

    fn exposure(&self, found: &mut Vec<Problem>) {
        let server = &self.config.server;
        let open = server.token_file.is_none() && !server.allow_remote_without_token;
        if !server.listen.ip().to_canonical().is_loopback() && open {
            found.push(
                self.problem(
                    "server.listen",
                    "other machines can reach this address, and no token is configured: set \
                     server.token_file, listen on 127.0.0.1, or write \
                     server.allow_remote_without_token = true if the network itself or \
                     server.tls_client_ca_file restricts access"
                        .into(),
                ),
            );
        }
    }

    /// A proxy may add TLS before this daemon, but a daemon with TLS does not speak plain HTTP.
    fn advertised(&self, found: &mut Vec<Problem>) {
        let server = &self.config.server;
        let plain = |uri: &&String| uri.starts_with("http://");
        let Some(uri) = server.advertise.iter().find(plain) else {
            return;
        };
        if server.tls().is_some() {
            let certificate = self.cite("server.tls_certificate_file");
            let what = format!("this daemon speaks only TLS, {certificate}: write https for {uri}");
            found.push(self.problem("server.advertise", what));
        }
    }

    fn admin(&self, found: &mut Vec<Problem>) {
        let server = &self.config.server;
        if server.admin_token_file.is_some() && server.admin_listen.is_none() {
            let what = "it is for the address of server.admin_listen: set that, too";
            found.push(self.problem("server.admin_token_file", what.into()));
        }
        if server
            .admin_listen
            .is_some_and(|admin| admin == server.listen && admin.port() != 0)
        {
            let other = self.cite("server.listen");
            let what = format!("{other} is the same address: choose another port");
            found.push(self.problem("server.admin_listen", what));
        }
    }

    fn tracing(&self, found: &mut Vec<Problem>) {
        let tracing = &self.config.tracing;
        if tracing.max_batch_size > tracing.max_queue_size {
            let other = self.cite("tracing.max_queue_size");
            let what = format!("a batch is a part of the queue, {other}: lower it or raise that");
            found.push(self.problem("tracing.max_batch_size", what));
        }
    }

    fn filter(&self, found: &mut Vec<Problem>) {
        if let Err(why) = check_filter(&self.config.log.filter) {
            found.push(self.problem("log.filter", why.to_string()));
        }
    }
}

/// Checks that a filter parses, and that no misspelt level is interpreted as the name of a module.
fn check_filter(filter: &str) -> Result<(), InvalidValue> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const FORM: &str = "write a level (off, error, warn, info, debug, trace) or module=level, \
                        separated by commas, such as info,stopover=debug";
    if filter.trim().is_empty() {
        return Err(format!("it is empty: {FORM}").into());
    }
    tracing_subscriber::EnvFilter::try_new(filter).map_err(|e| format!("{e}: {FORM}"))?;
    // Fields of spans may contain commas.
    let directives = filter.split(',').filter(|_| !filter.contains('{'));
    for directive in directives.map(str::trim) {
        let lower = directive.to_ascii_lowercase();
        let bare = !directive.contains(['=', '[', ':']);
        check_target(directive)?;
        if bare && !LEVELS.contains(&lower.as_str()) && directive.parse::<u8>().is_err() {
            return Err(format!("{directive} is not a level: {FORM}").into());
        }
    }
    Ok(())
}

/// The crates that log something; most of them only below `info`.
const CRATES: [&str; 14] = [
    "stopover",
    "axum",
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "object_store",
    "reqwest",
    "rustls",
    "tokio",
    "tokio_rustls",
    "tokio_util",
    "tower",
    "want",
];

/// The modules of this crate.
pub(super) const MODULES: [&str; 24] = [
    "api",
    "app",
    "cache",
    "catalog",
    "certificate",
    "cli",
    "config",
    "crc",
    "dashboard",
    "exchange",
    "fair",
    "gc",
    "http",
    "human",
    "id",
    "ingest",
    "memory",
    "read",
    "reload",
    "runtime",
    "segment",
    "storage",
    "store",
    "telemetry",
];

/// Checks that the module of a directive exists: with a misspelt one, nothing is logged of what was
/// meant.
fn check_target(directive: &str) -> Result<(), InvalidValue> {
    let Some((target, _)) = directive.split_once(['=', '[']) else {
        return Ok(());
    };
    let mut parts = target.trim().split("::");
    let (root, module) = (parts.next().unwrap_or_default(), parts.next());
    let unknown = |name: &str, known: &[&str], prefix: &str| {
        let similarity = |known: &str| match name.len() > keys::LONGEST_MISSPELT {
            true => 0.0,
            false => strsim::normalized_damerau_levenshtein(known, name),
        };
        let nearest = known
            .iter()
            .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let nearest = nearest.filter(|nearest| similarity(nearest) > 0.5);
        let way_out = nearest.map_or_else(
            || format!("there are {}", known.join(", ")),
            |nearest| format!("did you mean {prefix}{nearest}?"),
        );
        Err(format!("no module {prefix}{name} logs anything: {way_out}").into())
    };
    match module {
        _ if root.is_empty() => Ok(()),
        _ if !CRATES.contains(&root) => unknown(root, &CRATES, ""),
        Some(module) if root == "stopover" && !MODULES.contains(&module) => {
            unknown(module, &MODULES, "stopover::")
        }
        _ => Ok(()),
    }
}

impl Origins {
    /// Where a setting was made.
    pub(super) fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }
}
