//! What settings owe to reason and to each other.
//!
//! Does: check ranges, and pairs of settings that contradict each other; each message names both
//! settings with value and origin, and the way out. Does not: change anything. Invariant: pure; all
//! problems are reported, not only the first.

use std::time::Duration;

use super::keys;
use super::problem::{Origin, Problem};
use super::units::{format_duration, format_size};
use super::{Config, MemorySplit, Origins};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Bytes of a frame before its page (docs/protocol.md).
const FRAME_HEADER: u64 = 12;

/// A configuration under examination.
pub struct Examination<'a> {
    /// The settings.
    pub config: &'a Config,
    /// Where they come from.
    pub origins: &'a Origins,
    /// The memory, resolved.
    pub split: MemorySplit,
    /// Memory that the process may use, if known.
    pub usable: Option<u64>,
}

impl Examination<'_> {
    /// All problems.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        self.sizes(&mut found);
        self.counts(&mut found);
        self.durations(&mut found);
        self.shares(&mut found);
        // Contradictions of numbers that are out of range themselves would only repeat the matter.
        if found.is_empty() {
            self.memory(&mut found);
            self.query(&mut found);
            self.pages(&mut found);
            self.lease(&mut found);
        }
        self.tls(&mut found);
        self.exposure(&mut found);
        self.filter(&mut found);
        found
    }

    fn problem(&self, key: &str, what: String) -> Problem {
        Problem {
            key: key.to_owned(),
            value: keys::find(key).map(|k| (k.show)(self.config)),
            origin: Some(self.origins.of(key)),
            what,
        }
    }

    /// Another setting with its value and origin, for the middle of a sentence.
    fn cite(&self, key: &str) -> String {
        let value = keys::find(key).map_or_else(String::new, |k| (k.show)(self.config));
        format!("{key} = {value} ({})", self.origins.of(key))
    }

    fn sizes(&self, found: &mut Vec<Problem>) {
        let c = self.config;
        let ranges = [
            ("segment.target_size", c.segment.target_size, KIB, 4 * GIB),
            ("read.chunk_size", c.read.chunk_size, 64 * KIB, 256 * MIB),
            ("limits.max_page_size", c.limits.max_page_size, 1, GIB),
            (
                "limits.max_batch_size",
                c.limits.max_batch_size,
                KIB,
                2 * GIB,
            ),
            ("limits.max_json_size", c.limits.max_json_size, KIB, GIB),
            (
                "limits.max_footer_size",
                c.limits.max_footer_size,
                64 * KIB,
                2 * GIB,
            ),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let (least, most) = (format_size(least), format_size(most));
                found.push(self.problem(key, format!("it must be from {least} to {most}")));
            }
        }
    }

    fn counts(&self, found: &mut Vec<Problem>) {
        let c = self.config;
        let partitions = u64::from(c.limits.max_partitions);
        let most_partitions = u64::from(crate::id::MAX_PARTITIONS);
        let ranges = [
            ("limits.max_partitions", partitions, most_partitions),
            (
                "limits.max_exchanges",
                c.limits.max_exchanges as u64,
                1 << 32,
            ),
            (
                "limits.max_sinks_per_exchange",
                c.limits.max_sinks_per_exchange as u64,
                1 << 32,
            ),
            (
                "limits.max_connections",
                c.limits.max_connections as u64,
                1 << 20,
            ),
            (
                "limits.max_concurrent_reads",
                c.limits.max_concurrent_reads as u64,
                1 << 20,
            ),
            (
                "segment.upload_concurrency",
                c.segment.upload_concurrency as u64,
                1024,
            ),
            (
                "read.fetch_concurrency",
                c.read.fetch_concurrency as u64,
                1024,
            ),
        ];
        for (key, value, most) in ranges {
            if !(1..=most).contains(&value) {
                found.push(self.problem(key, format!("it must be from 1 to {most}")));
            }
        }
    }

    fn durations(&self, found: &mut Vec<Problem>) {
        let c = self.config;
        let second = Duration::from_secs(1);
        let milli = Duration::from_millis(1);
        let day = Duration::from_secs(86_400);
        let ranges = [
            (
                "server.reload_interval",
                c.server.reload_interval,
                milli,
                day,
            ),
            (
                "server.drain_timeout",
                c.server.drain_timeout,
                Duration::ZERO,
                day,
            ),
            (
                "segment.commit_linger",
                c.segment.commit_linger,
                Duration::ZERO,
                10 * second,
            ),
            ("lease.duration", c.lease.duration, second, 30 * day),
            (
                "lease.sweep_interval",
                c.lease.sweep_interval,
                milli,
                30 * day,
            ),
            ("limits.header_timeout", c.limits.header_timeout, milli, day),
            ("limits.body_timeout", c.limits.body_timeout, milli, day),
            (
                "limits.read_stall_timeout",
                c.limits.read_stall_timeout,
                milli,
                day,
            ),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let (least, most) = (format_duration(least), format_duration(most));
                found.push(self.problem(key, format!("it must be from {least} to {most}")));
            }
        }
    }

    fn shares(&self, found: &mut Vec<Problem>) {
        let shares = [
            (
                "memory.write_share",
                self.config.memory.write_share,
                0.1,
                0.9,
            ),
            ("read.cache_share", self.config.read.cache_share, 0.0, 1.0),
        ];
        for (key, value, least, most) in shares {
            // Also refuses what is not a number.
            if !(least..=most).contains(&value) {
                found.push(self.problem(key, format!("it must be from {least} to {most}")));
            }
        }
    }

    fn memory(&self, found: &mut Vec<Problem>) {
        let c = self.config;
        if let (Some(budget), Some(usable)) = (c.memory.budget, self.usable)
            && budget > usable
        {
            let usable = format_size(usable);
            found.push(self.problem(
                "memory.budget",
                format!(
                    "this process may use only {usable} in all: lower it, or write \"auto\" for an \
                     eighth of that"
                ),
            ));
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
            let what = format!("{fetches} chunks (read.fetch_concurrency) of one read");
            found.push(self.over("read.chunk_size", &what, "reading", read, fetches));
        }
        if c.limits.max_page_size.saturating_add(c.read.chunk_size) > read {
            let what = "one page and the chunk that it ends in";
            found.push(self.over("limits.max_page_size", what, "reading", read, 1));
        }
    }

    /// What one query may hold must be enough for one batch, and for one page and the chunk that
    /// it ends in, or it would wait for ever.
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

    /// A size that does not fit into its share of the budget.
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
                    "the sweeper must look at least once within a lease, {other}: lower it or \
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
            let what = "clients show certificates only where TLS is spoken: set \
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
                    "it is reachable from other machines, and no token is configured: set \
                     server.token_file, listen on 127.0.0.1, or write \
                     server.allow_remote_without_token = true if the network itself or \
                     server.tls_client_ca_file keeps strangers out"
                        .into(),
                ),
            );
        }
    }

    fn filter(&self, found: &mut Vec<Problem>) {
        if let Err(why) = check_filter(&self.config.log.filter) {
            found.push(self.problem("log.filter", why));
        }
    }
}

/// A filter that parses, and in which no misspelt level passes as the name of a module.
fn check_filter(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const FORM: &str = "write a level (off, error, warn, info, debug, trace) or module=level, \
                        separated by commas, such as info,stopover=debug";
    if filter.trim().is_empty() {
        return Err(format!("it is empty: {FORM}"));
    }
    tracing_subscriber::EnvFilter::try_new(filter).map_err(|e| format!("{e}: {FORM}"))?;
    for directive in filter.split(',').map(str::trim) {
        let lower = directive.to_ascii_lowercase();
        let bare = !directive.contains(['=', '[', ':']);
        if bare && !LEVELS.contains(&lower.as_str()) && directive.parse::<u8>().is_err() {
            return Err(format!("{directive} is not a level: {FORM}"));
        }
    }
    Ok(())
}

impl Origins {
    fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }
}
