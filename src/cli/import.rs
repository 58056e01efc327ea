//! `stopover import`: from the configuration of Trino's exchange manager to Stopover's.
//!
//! Does: read `exchange-manager.properties`, print or write both files, and list what differs. Does
//! not: convert single properties (`rules`). Invariant: no file is overwritten, secrets are
//! never printed, and what is written has been read back by the daemon's own loader.

mod convert;
mod properties;
mod rules;
mod values;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{EXIT_USAGE, print};
use crate::config::{Environment, Files, Flags, load_in};
use crate::telemetry::logs::printable;
use convert::{Converted, Note};

/// Largest file that is read.
const MAX_SIZE: u64 = 1 << 20;
const DAEMON_FILE: &str = "stopover.toml";
const PLUGIN_FILE: &str = "exchange-manager.properties";

/// Arguments of `import`.
#[derive(Args)]
pub(super) struct ImportArgs {
    /// Trino's etc/exchange-manager.properties; - reads it from stdin
    file: PathBuf,
    /// Folder to write stopover.toml (mode 0600) and exchange-manager.properties to; without it,
    /// both are printed, with secrets masked
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Converts a file.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn import(args: ImportArgs) -> Result<ExitCode, ExitCode> {
    let shown = args.file.display();
    let text = read(&args.file).map_err(|error| refused(&format!("{shown}: {error}")))?;
    let converted = convert::convert(&text).map_err(|faults| {
        let faults: Vec<_> = faults
            .iter()
            .map(|fault| format!("{shown}: {fault}"))
            .collect();
        refused(&faults.join("\nstopover: "))
    })?;
    let mut notes = converted.notes.clone();
    notes.extend(read_back(&converted));
    match &args.output {
        None => {
            print(&format!(
                "# {DAEMON_FILE}, for the daemons\n{}",
                converted.daemon(false)
            ));
            print(&format!(
                "\n# {PLUGIN_FILE}, for Trino's nodes\n{}",
                converted.plugin()
            ));
            print("\n# Secrets are masked: --output FOLDER writes both files\n");
        }
        Some(folder) => {
            let files = [
                (folder.join(DAEMON_FILE), converted.daemon(true), 0o600),
                (folder.join(PLUGIN_FILE), converted.plugin(), 0o644),
            ];
            for (path, text, mode) in files {
                write_new(&path, &text, mode).map_err(|error| {
                    refused(&format!("cannot write {}: {error}", path.display()))
                })?;
                print(&format!("wrote {}\n", path.display()));
            }
        }
    }
    print(&describe(&notes));
    Ok(ExitCode::SUCCESS)
}

fn refused(what: &str) -> ExitCode {
    eprintln!("stopover: {}", printable(what));
    ExitCode::from(EXIT_USAGE)
}

fn read(path: &Path) -> Result<String, io::Error> {
    let mut source: Box<dyn io::Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(std::fs::File::open(path)?),
    };
    let mut text = String::new();
    source.by_ref().take(MAX_SIZE).read_to_string(&mut text)?;
    if source.read(&mut [0])? > 0 {
        let what = format!("larger than {} KiB: not such a file", MAX_SIZE >> 10);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(text)
}

/// Writes a file that does not exist yet.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What the daemon's loader reports about the converted file.
fn read_back(converted: &Converted) -> Vec<Note> {
    let path = PathBuf::from("/").join(DAEMON_FILE);
    let files = BTreeMap::from([(path.clone(), converted.daemon(true))]);
    let environment = Environment {
        variables: converted.placeholders(),
        files: Files::InMemory(files),
        ..Environment::of_process()
    };
    let flags = Flags {
        config: Some(path),
        ..Flags::default()
    };
    match load_in(&flags, &environment) {
        Ok(_) => Vec::new(),
        Err(problems) => vec![Note::general(format!(
            "a daemon on this machine refuses the result, so edit it: {problems}"
        ))],
    }
}

fn describe(notes: &[Note]) -> String {
    let mut text = String::from("\nNotes:\n");
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
    text.push_str(
        "- run `stopover check --config stopover.toml` where the daemon will run, and change a \
         cluster while it is stopped: docs/trino.md\n",
    );
    printable(&text)
}
