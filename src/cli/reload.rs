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
use crate::telemetry::logs::{printable, printable_json};

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
        true => as_json(&answer),
        false => {
            let reloaded = serde_json::from_value(answer).map_err(super::failure)?;
            printable(&as_text(&reloaded))
        }
    });
    Ok(ExitCode::SUCCESS)
}

fn as_json(answer: &Value) -> String {
    printable_json(&format!("{answer:#}\n"))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: JSON leaves the control characters from U+0080 to U+009F as they are, and terminals
    /// obey them.
    #[test]
    fn json_cannot_control_the_terminal_and_stands_for_the_same_value() {
        let answer = serde_json::json!({ "notices": ["a\u{9b}31m\u{1b}\u{85}"] });
        let text = as_json(&answer);
        assert!(text.contains("\\u009b31m\\u001b\\u0085"), "{text}");
        assert!(!text.contains(['\u{9b}', '\u{85}']), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), answer);
    }
}
