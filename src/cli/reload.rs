//! `stopover reload`: makes a daemon read its configuration again.
//!
//! Does: send the request, print what the daemon applied and what needs a restart. Does not: read
//! the configuration itself, except to find the daemon. Invariant: exit code 0 means that the
//! daemon has read all of it.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::daemon_client::DaemonArgs;
use super::print;
use crate::telemetry::logs::printable;

/// Arguments of `reload`.
#[derive(Args)]
pub(super) struct ReloadArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Deserialize)]
struct Edited {
    key: String,
    from: String,
    to: String,
}

#[derive(Deserialize)]
struct Reloaded {
    applied: Vec<Edited>,
    needs_restart: Vec<Edited>,
    notices: Vec<String>,
}

/// Sends the request and prints the result.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn reload(args: ReloadArgs) -> Result<ExitCode, ExitCode> {
    let daemon = args.daemon.client()?;
    let answer: Value = daemon.json("POST", "/v1/admin/reload")?;
    print(&match args.json {
        true => format!("{answer:#}\n"),
        false => {
            let reloaded = serde_json::from_value(answer).map_err(super::failure)?;
            printable(&as_text(&reloaded))
        }
    });
    Ok(ExitCode::SUCCESS)
}

fn as_text(reloaded: &Reloaded) -> String {
    let mut text = String::new();
    for (what, edited) in [
        ("in effect now", &reloaded.applied),
        ("needs a restart", &reloaded.needs_restart),
    ] {
        for Edited { key, from, to } in edited {
            let _ = writeln!(text, "{what}: {key}: {from} -> {to}");
        }
    }
    for notice in &reloaded.notices {
        let _ = writeln!(text, "note: {notice}");
    }
    if reloaded.applied.is_empty() && reloaded.needs_restart.is_empty() {
        text.push_str("no setting was edited; tokens and certificates were read again\n");
    }
    text
}
