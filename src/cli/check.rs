//! `stopover check`: explains the configuration and probes its base directories.
//!
//! Does: print settings with their origins, the memory split, the required credentials, and the
//! result of probing each base directory. Does not: listen or leave anything behind. Invariant:
//! exit code 0 only if a daemon with this configuration would be ready.

use std::fmt::Write;
use std::process::ExitCode;

use super::{failure, print};
use crate::app;
use crate::config::{Loaded, Origin, units};
use crate::runtime::Runtime;
use crate::storage::{BaseStatus, Storage};
use crate::telemetry::logs::printable;

///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub fn check(loaded: Loaded) -> Result<ExitCode, ExitCode> {
    print(&explain(&loaded));
    let runtime = tokio::runtime::Runtime::new().map_err(failure)?;
    let system = Runtime::system();
    let credentials = app::describe_credentials(&loaded.config.server, &system);
    print(&format!("credentials: {}\n", credentials.map_err(failure)?));
    // Store clients must be built inside the runtime that they use.
    let _within = runtime.enter();
    let storage = Storage::open(&loaded.config.base_directories, &system).map_err(failure)?;
    let statuses = runtime.block_on(storage.probe());
    let unconditional = runtime.block_on(storage.bases_ignoring_preconditions());
    print(&printable(&verdict(&statuses)));
    for base in unconditional {
        print(&format!(
            "note: {base} ignores preconditions of writes: an exchange that is renewed at the \
             moment it is collected may be lost\n"
        ));
    }
    match statuses.iter().all(|status| status.healthy) {
        true => Ok(ExitCode::SUCCESS),
        false => Err(ExitCode::FAILURE),
    }
}

fn explain(loaded: &Loaded) -> String {
    let mut text = String::from("settings (with the origin of those that are not defaults):\n");
    for (name, value, origin) in loaded.settings() {
        let _ = match origin {
            Origin::Default => writeln!(text, "  {name} = {value}"),
            origin => writeln!(text, "  {name} = {value}    <- {origin}"),
        };
    }
    let split = loaded.config.memory.split();
    let (write, read) = (
        units::format_size(split.write),
        units::format_size(split.read),
    );
    let _ = writeln!(text, "memory: {write} for writing, {read} for reading");
    for notice in &loaded.notices {
        let _ = writeln!(text, "note: {notice}");
    }
    text
}

fn verdict(statuses: &[BaseStatus]) -> String {
    let mut text = String::from(
        "base directories (after writing, reading, listing and deleting an object):\n",
    );
    for status in statuses {
        let outcome = match &status.error {
            _ if status.healthy => "works".to_owned(),
            Some(error) => format!("does not work: {error}"),
            None => "does not work".to_owned(),
        };
        let _ = writeln!(text, "  {} {}: {outcome}", status.name, status.uri);
    }
    text
}
