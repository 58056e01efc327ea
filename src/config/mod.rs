//! The daemon's configuration: defaults, then file, then environment, then flags.
//!
//! Does: load, validate and hold the settings ([`sections`]). Does not: act on them. Invariant: a
//! [`Config`] that [`load`] returns has every value in its range and no two in contradiction.
//!
//! A new setting is one line in `sections.rs`, one row in `keys.rs`, its entry in
//! `config/default.toml` and its row in `docs/configuration.md`; tests compare all four.

mod base_directory;
mod base_uri;
mod files;
mod keys;
mod layers;
mod live;
mod load;
mod located;
mod machine;
pub mod options;
mod otel_variables;
mod problem;
mod raw;
mod reload;
mod secret;
pub mod sections;
#[cfg(test)]
mod tests;
mod trace_values;
pub mod units;
mod validate;
mod values;

use std::collections::BTreeMap;

pub use base_uri::{BaseUri, BaseUriError, Scheme};
pub use files::{exposure_warning, read_file, read_file_up_to, read_text_file};
pub use live::Live;
pub use load::{Draft, Environment, Files, Flags, Loaded, cloud_variables, draft, load, load_in};
pub use machine::Machine;
pub use problem::{ConfigErrors, InvalidValue, Origin, Problem};
pub use reload::{BaseFiles, Change, Changes};
pub use secret::{Secret, is_secret_name, shown_authority, shown_uri};
pub use sections::*;

/// Origins of the settings that are not defaults, by `section.key`.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<&'static str, Origin>);

/// All settings.
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
    /// `[tracing]`
    pub tracing: TracingConfig,
}
