//! `stopover check`: explains the configuration and probes its base directories.
//!
//! Does: print settings with their origins, the memory split, the required credentials, and the
//! result of probing each base directory. Does not: listen or leave anything behind. Invariant:
//! exit code 0 only if a daemon with this configuration would be ready.

use std::cmp::Reverse;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use futures::StreamExt as _;

use super::async_runtime::{self, unless_it_hangs};
use super::progress::Progress;
use super::{failure, print};
use crate::app;
use crate::config::{BaseDirectoryConfig, BaseUri, Loaded, Origin, units};
use crate::runtime::Runtime;
use crate::storage::{BaseStatus, Identification, Storage, StorageError};
use crate::store::BACKGROUND_LIMIT;
use crate::telemetry::logs::printable;

/// Explains a configuration and probes its base directories.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn check(loaded: Loaded) -> Result<ExitCode, ExitCode> {
    print(&explain(&loaded));
    let system = Runtime::system();
    let credentials = app::describe_credentials(&loaded.config.server, &system);
    print(&format!("credentials: {}\n", credentials.map_err(failure)?));
    let bases = &loaded.config.base_directories;
    let missing = missing_folders(bases);
    let probing = Progress::bar(bases.len() as u64, "probing base directories");
    let statuses = async_runtime::block_on(async {
        let storage = Storage::open_with(bases, Identification::Require, &system)?;
        storage
            .probes()
            .for_each(async |()| probing.advance(1))
            .await;
        // What stores find out in the background is part of the result. A file system that hangs
        // keeps its own tasks from ending.
        let settled = system.tasks.shut_down();
        let _ = system.clock.within(2 * BACKGROUND_LIMIT, settled).await;
        Ok::<_, StorageError>(storage.status())
    });
    drop(probing);
    remove_empty_folders(missing);
    let statuses = statuses.map_err(failure)?.map_err(failure)?;
    print(&printable(&verdict(&statuses)));
    for base in statuses.iter().filter(|base| base.ignores_preconditions) {
        print(&format!(
            "note: {} does not implement conditional writes: an exchange that is renewed at the \
             moment it is collected may be lost\n",
            base.name
        ));
    }
    for base in &statuses {
        if let Some(retention) = base.retention {
            print(&format!("note: {} {}\n", base.name, retention.warning()));
        }
    }
    match statuses.iter().all(|status| status.healthy) {
        true => Ok(ExitCode::SUCCESS),
        false => Err(ExitCode::FAILURE),
    }
}

/// The folders that probes will create, those further down first. None of a file system that
/// hangs.
pub(super) fn missing_folders(bases: &[BaseDirectoryConfig]) -> Vec<PathBuf> {
    let uris = bases
        .iter()
        .filter_map(|base| BaseUri::parse(&base.uri).ok());
    let folders = uris.filter_map(|uri| uri.folder());
    let missing = |folder: PathBuf| {
        let above = folder.ancestors().take_while(|folder| !folder.exists());
        above.map(Path::to_owned).collect::<Vec<_>>()
    };
    let missing = folders.filter_map(|folder| unless_it_hangs(move || missing(folder)));
    let mut all: Vec<PathBuf> = missing.flatten().collect();
    // Base directories may share a folder that is missing.
    all.sort_by_key(|folder| Reverse(folder.components().count()));
    all
}

/// Removes folders that were missing, unless something is in them by now, which is not ours to
/// remove.
pub(super) fn remove_empty_folders(folders: Vec<PathBuf>) {
    for folder in folders {
        unless_it_hangs(move || std::fs::remove_dir(folder));
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
        "base directories (after writing, reading, listing and deleting objects, also on \
         conditions):\n",
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
