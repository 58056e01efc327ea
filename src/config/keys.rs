//! The table of all settings: name, type and range of each.
//!
//! Does: provide the one list that loading, the nearest-key hint, `stopover check` and the tests of
//! the documentation use. Does not: check settings against each other (`validate`). Invariant: what
//! [`Key::show`] prints, [`Key::set`] reads back as the same value, except secrets.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Config;
use super::problem::InvalidValue;
use super::raw::Raw;
use super::trace_values::*;
use super::values::*;
use crate::id::MAX_PARTITIONS;

/// One setting.
pub(super) struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// Parses a value into the configuration.
    pub set: fn(&mut Config, &Raw) -> Result<(), InvalidValue>,
    /// Prints the value as it is written in the file, without quotes.
    pub show: fn(&Config) -> String,
    /// Checks the value against the setting's range.
    pub check: fn(&Config) -> Result<(), InvalidValue>,
    /// Whether a running daemon applies a change.
    pub reload: Reload,
}

/// When a change of a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reload {
    /// On SIGHUP or `stopover reload`.
    Live,
    /// When the daemon is started again.
    Restart,
}

impl Reload {
    /// As the column of `docs/configuration.md` has it.
    #[cfg(test)]
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Live => "yes",
            Self::Restart => "restart",
        }
    }
}

impl Key {
    /// The same setting, marked as live: a running daemon applies changes.
    const fn live(mut self) -> Self {
        self.reload = Reload::Live;
        self
    }
}

macro_rules! key {
    ($section:ident . $field:ident, $read:path, $show:expr) => {
        key!($section.$field, $read, $show, |_| Ok(()))
    };
    ($section:ident . $field:ident, $read:path, $show:expr, in $range:expr) => {
        key!($section.$field, $read, $show, |config| {
            check_range(&config.$section.$field, $range, $show)
        })
    };
    ($section:ident . $field:ident, $read:path, $show:expr, $check:expr) => {
        Key {
            name: concat!(stringify!($section), ".", stringify!($field)),
            set: |config, raw| {
                config.$section.$field = $read(raw)?;
                Ok(())
            },
            show: |config| $show(&config.$section.$field),
            check: $check,
            reload: Reload::Restart,
        }
    };
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// Every setting outside `[[base_directory]]`, in the order of `config/default.toml`. This is the
/// only definition of which settings a running daemon applies.
///
/// Limits that clients read when they start are not live (`max_page_size`, `max_batch_size`), nor
/// are `max_control_body_size`, which determines the size of a pool, and `max_connections`, which
/// is adapted to the limit of open files of the process.
#[rustfmt::skip] // one row each
pub(super) const KEYS: &[Key] = &[
    key!(server.listen, address, ToString::to_string),
    key!(server.admin_listen, optional_address, show_address),
    key!(server.admin_token_file, optional_path, show_path),
    key!(server.allow_remote_without_token, flag, ToString::to_string),
    key!(server.http2, flag, ToString::to_string),
    key!(server.allowed_hosts, host_names, show_list),
    key!(server.advertise, advertised, show_list),
    key!(server.zone, zone, ToString::to_string),
    key!(server.token_file, optional_path, show_path),
    key!(server.tls_certificate_file, optional_path, show_path),
    key!(server.tls_key_file, optional_path, show_path),
    key!(server.tls_client_ca_file, optional_path, show_path),
    key!(server.reload_interval, duration, show_duration, in MILLI..=DAY),
    key!(server.start_timeout, duration, show_duration, in MILLI..=HOUR),
    key!(server.drain_timeout, duration, show_duration, in Duration::ZERO..=DAY),
    key!(memory.budget, budget, show_budget),
    key!(memory.write_share, share, ToString::to_string, in 0.1..=0.9),
    key!(memory.home_share, share, ToString::to_string, in 0.0..=1.0),
    key!(segment.target_size, size, show_size, in KIB..=GIB),
    key!(segment.commit_linger, duration, show_duration, in Duration::ZERO..=10 * SECOND),
    key!(segment.upload_concurrency, count, ToString::to_string, in 1..=1024),
    key!(read.chunk_size, size, show_size, in 64 * KIB..=256 * MIB),
    key!(read.fetch_concurrency, count, ToString::to_string, in 1..=1024),
    key!(read.cache_share, share, ToString::to_string, in 0.0..=1.0),
    key!(lease.duration, duration, show_duration, in SECOND..=MONTH),
    key!(lease.announcement_timeout, duration, show_duration, in SECOND..=HOUR),
    key!(lease.sweep_interval, duration, show_duration, in MILLI..=MONTH),
    key!(query.max_write_memory, optional_size, show_optional_size).live(),
    key!(query.max_read_memory, optional_size, show_optional_size).live(),
    key!(query.max_concurrent_writes, optional_count, show_optional_count).live(),
    key!(query.max_concurrent_reads, optional_count, show_optional_count).live(),
    key!(query.max_stored_size, optional_size, show_optional_size).live(),
    key!(limits.max_partitions, count, ToString::to_string, in 1..=MAX_PARTITIONS).live(),
    key!(limits.max_page_size, size, show_size, in 1..=GIB),
    key!(limits.max_batch_size, size, show_size, in KIB..=2 * GIB),
    key!(limits.max_control_body_size, size, show_size, in KIB..=GIB),
    key!(limits.max_exchanges, count, ToString::to_string, in 1..=1 << 32).live(),
    key!(limits.max_announced_exchanges, count, ToString::to_string, in 1..=1 << 32).live(),
    key!(limits.max_sinks_per_exchange, count, ToString::to_string, in 1..=1 << 32).live(),
    key!(limits.max_connections, count, ToString::to_string, in 1..=1 << 20),
    key!(limits.max_concurrent_reads, count, ToString::to_string, in 1..=1 << 20).live(),
    key!(limits.max_footer_size, size, show_size, in 64 * KIB..=2 * GIB).live(),
    key!(limits.header_timeout, duration, show_duration, in MILLI..=DAY).live(),
    key!(limits.body_timeout, duration, show_duration, in MILLI..=DAY).live(),
    key!(limits.response_stall_timeout, duration, show_duration, in MILLI..=DAY).live(),
    Key {
        name: "log.format",
        set: |config, raw| {
            config.log.json = json_format(raw)?;
            Ok(())
        },
        show: |config| if config.log.json { "json" } else { "text" }.to_owned(),
        check: |_| Ok(()),
        reload: Reload::Restart,
    },
    key!(log.filter, text, ToString::to_string).live(),
    key!(tracing.collector, collector_url, show_url),
    key!(tracing.protocol, otlp_protocol, ToString::to_string),
    key!(tracing.headers, headers, show_headers),
    key!(tracing.service_name, service_name, ToString::to_string),
    key!(tracing.resource_attributes, attributes, show_attributes),
    key!(tracing.parent_based, flag, ToString::to_string),
    key!(tracing.sampling_ratio, share, ToString::to_string, in 0.0..=1.0),
    key!(tracing.max_queue_size, count, ToString::to_string, in 1..=1 << 20),
    key!(tracing.max_batch_size, count, ToString::to_string, in 1..=1 << 16),
    key!(tracing.export_interval, duration, show_duration, in MILLI..=HOUR),
    key!(tracing.export_timeout, duration, show_duration, in MILLI..=HOUR),
];

/// Also refuses what is not a number.
fn check_range<T: PartialOrd>(
    value: &T,
    range: RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<(), InvalidValue> {
    if range.contains(value) {
        return Ok(());
    }
    let (least, most) = (show(range.start()), show(range.end()));
    Err(format!("it must be from {least} to {most}").into())
}

/// The setting of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The names of all settings.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

/// Longest name that is compared with all settings to find the one that was meant.
pub(super) const LONGEST_MISSPELT: usize = 64;

fn leaf(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Whether a name is so similar to that of a setting that it is probably a misspelling.
pub(super) fn is_misspelt(given: &str) -> bool {
    let close = |known: &str| strsim::normalized_damerau_levenshtein(leaf(known), leaf(given));
    given.len() <= LONGEST_MISSPELT && names().any(|known| close(known) > 0.8)
}

/// The known key or section that was most likely meant.
pub(super) fn nearest(given: &str) -> Option<String> {
    if given.len() > LONGEST_MISSPELT {
        return None;
    }
    let score = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(known, given);
        let last = strsim::normalized_damerau_levenshtein(leaf(known), leaf(given));
        // A correct key in the wrong section is likelier than a wrong key in the correct section.
        whole.max(last * 0.95)
    };
    names()
        .map(str::to_owned)
        .chain(["[[base_directory]]".to_owned()])
        .map(|known| (score(known.trim_matches(['[', ']'])), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score > 0.6)
        .map(|(_, known)| known)
}
