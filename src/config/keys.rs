//! The table of all settings: for each its name, how to read it and how to print it.
//!
//! Does: the one list that loading, the nearest-key hint, `stopover check` and the tests of the
//! documentation share. Does not: check what settings owe each other (`validate`). Invariant: what
//! [`Key::show`] prints, [`Key::set`] reads back as the same value.

use std::time::Duration;

use super::Config;
use super::layers::Raw;
use super::units::{format_duration, format_size, parse_duration, parse_size};

/// One setting.
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// Takes a value into the configuration, or says what is wrong and the way out.
    pub set: fn(&mut Config, &Raw) -> Result<(), String>,
    /// Prints the value as it would be written in the file, without quotes.
    pub show: fn(&Config) -> String,
}

macro_rules! key {
    ($section:ident . $field:ident, $read:path, $show:expr) => {
        Key {
            name: concat!(stringify!($section), ".", stringify!($field)),
            set: |config, raw| {
                config.$section.$field = $read(raw)?;
                Ok(())
            },
            show: |config| $show(&config.$section.$field),
        }
    };
}

/// How "no limit" is written.
const UNLIMITED: &str = "unlimited";

/// Every setting outside `[[base_directory]]`, in the order of `config/default.toml`.
pub const KEYS: &[Key] = &[
    key!(server.listen, address, ToString::to_string),
    key!(server.allow_remote_without_token, flag, ToString::to_string),
    key!(server.token_file, optional_path, show_path),
    key!(server.tls_certificate_file, optional_path, show_path),
    key!(server.tls_key_file, optional_path, show_path),
    key!(server.tls_client_ca_file, optional_path, show_path),
    key!(server.reload_interval, duration, show_duration),
    key!(server.drain_timeout, duration, show_duration),
    key!(memory.budget, budget, show_budget),
    key!(memory.write_share, share, ToString::to_string),
    key!(segment.target_size, size, show_size),
    key!(segment.commit_linger, duration, show_duration),
    key!(segment.upload_concurrency, count, ToString::to_string),
    key!(read.chunk_size, size, show_size),
    key!(read.fetch_concurrency, count, ToString::to_string),
    key!(read.cache_share, share, ToString::to_string),
    key!(lease.duration, duration, show_duration),
    key!(lease.sweep_interval, duration, show_duration),
    key!(query.max_write_memory, optional_size, show_optional_size),
    key!(query.max_read_memory, optional_size, show_optional_size),
    key!(
        query.max_concurrent_writes,
        optional_count,
        show_optional_count
    ),
    key!(
        query.max_concurrent_reads,
        optional_count,
        show_optional_count
    ),
    key!(limits.max_partitions, count, ToString::to_string),
    key!(limits.max_page_size, size, show_size),
    key!(limits.max_batch_size, size, show_size),
    key!(limits.max_json_size, size, show_size),
    key!(limits.max_exchanges, count, ToString::to_string),
    key!(limits.max_sinks_per_exchange, count, ToString::to_string),
    key!(limits.max_connections, count, ToString::to_string),
    key!(limits.max_concurrent_reads, count, ToString::to_string),
    key!(limits.max_footer_size, size, show_size),
    key!(limits.header_timeout, duration, show_duration),
    key!(limits.body_timeout, duration, show_duration),
    key!(limits.read_stall_timeout, duration, show_duration),
    Key {
        name: "log.format",
        set: |config, raw| {
            config.log.json = json_format(raw)?;
            Ok(())
        },
        show: |config| if config.log.json { "json" } else { "text" }.to_owned(),
    },
    key!(log.filter, text, ToString::to_string),
];

/// The setting of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The names of all settings.
pub fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

/// A name longer than this is no misspelt setting; comparing it with all of them would take long.
pub const LONGEST_MISSPELT: usize = 64;

/// The known key or section that was most likely meant.
pub fn nearest(given: &str) -> Option<String> {
    if given.len() > LONGEST_MISSPELT {
        return None;
    }
    let leaf = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let score = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(known, given);
        let last = strsim::normalized_damerau_levenshtein(&leaf(known), &leaf(given));
        // A right key in the wrong section is a likelier mistake than a wrong key in the right one.
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

fn text(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) => Ok(text.clone()),
        _ => Err("write it as text, in double quotes".into()),
    }
}

fn address(raw: &Raw) -> Result<std::net::SocketAddr, String> {
    text(raw)?.parse().map_err(|_| {
        "it is not an address to listen on: write IP and port, such as 127.0.0.1:7077 or \
         [::1]:7077 (port 0 takes a free one)"
            .to_owned()
    })
}

fn flag(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Bool(flag) => Ok(*flag),
        Raw::Text(text) => text
            .trim()
            .parse()
            .map_err(|_| "write true or false".to_owned()),
        _ => Err("write true or false".into()),
    }
}

fn optional_path(raw: &Raw) -> Result<Option<std::path::PathBuf>, String> {
    let path = text(raw)?;
    Ok((!path.is_empty()).then(|| path.into()))
}

fn duration(raw: &Raw) -> Result<Duration, String> {
    match raw {
        Raw::Text(text) => parse_duration(text),
        Raw::Integer(n) => Err(format!(
            "it is not a duration: {n} has no unit, write \"{n}s\" or \"{n}ms\""
        )),
        _ => Err("write a duration such as \"30s\" or \"1m 30s\"".into()),
    }
}

fn size(raw: &Raw) -> Result<u64, String> {
    match raw {
        Raw::Text(text) => parse_size(text),
        Raw::Integer(number) => {
            u64::try_from(*number).map_err(|_| "a size is not negative: write 64MiB".to_owned())
        }
        _ => Err("write a size such as \"64MiB\" or \"500 kB\"".into()),
    }
}

fn budget(raw: &Raw) -> Result<Option<u64>, String> {
    match raw {
        Raw::Text(text) if text.trim() == "auto" => Ok(None),
        other => size(other)
            .map(Some)
            .map_err(|why| format!("{why}, or \"auto\"")),
    }
}

fn is_unlimited(raw: &Raw) -> bool {
    matches!(raw, Raw::Text(text) if text.trim() == UNLIMITED)
}

fn optional_size(raw: &Raw) -> Result<Option<u64>, String> {
    if is_unlimited(raw) {
        return Ok(None);
    }
    size(raw)
        .map(Some)
        .map_err(|why| format!("{why}, or \"{UNLIMITED}\""))
}

fn optional_count(raw: &Raw) -> Result<Option<u64>, String> {
    if is_unlimited(raw) {
        return Ok(None);
    }
    count(raw)
        .map(Some)
        .map_err(|why| format!("{why}, or \"{UNLIMITED}\""))
}

fn share(raw: &Raw) -> Result<f64, String> {
    let number = match raw {
        Raw::Float(number) => Some(*number),
        Raw::Integer(number) => Some(*number as f64),
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| "write a share from 0 to 1, such as 0.5".to_owned())
}

fn count<T: TryFrom<i64> + std::str::FromStr>(raw: &Raw) -> Result<T, String> {
    let number = match raw {
        Raw::Integer(number) => T::try_from(*number).ok(),
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        let most = if size_of::<T>() == 4 {
            u64::from(u32::MAX)
        } else {
            i64::MAX as u64
        };
        format!("write a whole number from 0 to {most}")
    })
}

fn json_format(raw: &Raw) -> Result<bool, String> {
    match text(raw)?.as_str() {
        "json" => Ok(true),
        "text" => Ok(false),
        _ => Err("write \"text\" or \"json\"".into()),
    }
}

fn show_duration(duration: &Duration) -> String {
    format_duration(*duration)
}

fn show_size(size: &u64) -> String {
    format_size(*size)
}

fn show_budget(budget: &Option<u64>) -> String {
    budget.map_or_else(|| "auto".to_owned(), format_size)
}

fn show_optional_size(size: &Option<u64>) -> String {
    size.map_or_else(|| UNLIMITED.to_owned(), format_size)
}

fn show_optional_count(count: &Option<u64>) -> String {
    count.map_or_else(|| UNLIMITED.to_owned(), |count| count.to_string())
}

fn show_path(path: &Option<std::path::PathBuf>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| path.display().to_string())
}
