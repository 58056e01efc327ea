//! `stopover check`: explains the configuration and probes its base directories.
//!
//! Does: print settings with their origins, the memory split, the required credentials, and the
//! result of probing each base directory. Does not: listen or leave anything behind. Invariant:
//! exit code 0 only if a daemon with this configuration would be ready.

use std::fmt::Write;
use std::process::ExitCode;

use super::{EXIT_FAILURE, EXIT_OK, failure, print};
use crate::app;
use crate::config::{Loaded, Origin, units};
use crate::runtime::Runtime;
use crate::storage::{BaseStatus, Storage};

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
        let storage = Storage::open(bases, &Runtime::system())?;
        let statuses = storage.probe().await;
        Ok::<_, crate::storage::StorageError>((
            statuses,
            storage.bases_ignoring_preconditions().await,
        ))
    });
    let (statuses, unconditional) = match probed {
        Ok(answers) => answers,
        Err(error) => return failure(&error),
    };
    print(&verdict(&statuses));
    for base in unconditional {
        print(&format!(
            "note: {base} ignores preconditions of writes: an exchange that is renewed at the \
             moment it is collected may be lost\n"
        ));
    }
    if statuses.iter().all(|status| status.healthy) {
        ExitCode::from(EXIT_OK)
    } else {
        ExitCode::from(EXIT_FAILURE)
    }
}

fn explain(loaded: &Loaded) -> String {
    let mut text = String::from("settings (with the origin of those that are not defaults):\n");
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
