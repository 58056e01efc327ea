//! `stopover check`: what the configuration means, and whether its base directories work.
//!
//! Does: print settings with their origins, the memory, what the doors ask for, and the outcome of
//! a probe of each base directory. Does not: listen or leave anything behind. Invariant: exit code
//! 0 only if a daemon with this configuration would be ready.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

use super::{EXIT_FAILURE, EXIT_OK, failure, print};
use crate::app;
use crate::config::{Loaded, Origin, units};
use crate::runtime::Runtime;
use crate::storage::{BaseStatus, Storage};
use crate::telemetry::metrics::Metrics;

/// Prints the explanation.
pub fn check(loaded: Loaded) -> ExitCode {
    print(&explain(&loaded));
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error),
    };
    match app::describe_credentials(&loaded.config.server, &Runtime::system()) {
        Ok(credentials) => print(&format!("credentials: {credentials}\n")),
        Err(error) => return failure(&error),
    }
    let bases = &loaded.config.base_directories;
    let probed = runtime.block_on(async {
        let storage = Storage::open(bases, &Runtime::system(), &Arc::new(Metrics::default()))?;
        let statuses = storage.probe().await;
        Ok::<_, crate::storage::StorageError>((statuses, storage.without_conditions().await))
    });
    let (statuses, unconditional) = match probed {
        Ok(answers) => answers,
        Err(error) => return failure(&error),
    };
    print(&verdict(&statuses));
    for base in unconditional {
        print(&format!(
            "note: {base} ignores conditions on writes: a lease that is renewed in the instant of \
             its collection may be lost\n"
        ));
    }
    if statuses.iter().all(|status| status.healthy) {
        ExitCode::from(EXIT_OK)
    } else {
        ExitCode::from(EXIT_FAILURE)
    }
}

fn explain(loaded: &Loaded) -> String {
    let mut text = String::from("settings (those that are not the default name their origin):\n");
    let mut line = |args: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{args}");
    };
    for (name, value, origin) in loaded.settings() {
        match origin {
            Origin::Default => line(format_args!("  {name} = {value}")),
            origin => line(format_args!("  {name} = {value}    <- {origin}")),
        }
    }
    let split = loaded.config.memory.split();
    line(format_args!(
        "memory: {} for writing, {} for reading",
        units::format_size(split.write),
        units::format_size(split.read)
    ));
    for notice in &loaded.notices {
        line(format_args!("note: {notice}"));
    }
    text
}

fn verdict(statuses: &[BaseStatus]) -> String {
    let mut text = String::from("base directories (written, read, listed, deleted):\n");
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
