//! `stopover health`: one request to a running daemon, for container health checks.
//!
//! Does: GET `/healthz` or `/readyz` and evaluate the status. Does not: need a token, a client
//! certificate or an async runtime. Invariant: every wait is bounded by a timeout.

use std::process::ExitCode;

use clap::Args;

use super::daemon_client::{AddressArgs, Answer};
use super::print;
use crate::telemetry::logs::printable;

/// Arguments of `health`.
#[derive(Args)]
pub(super) struct HealthArgs {
    /// Check readiness (base directories usable, not stopping) instead of liveness
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    at: AddressArgs,
}

/// Sends the request and prints the result.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn health(args: HealthArgs) -> Result<ExitCode, ExitCode> {
    let daemon = args.at.probe()?;
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let url = daemon.url(path);
    match daemon.send("GET", path) {
        Ok(Answer { status: 200, .. }) => {
            print(&format!("{url} answered 200\n"));
            return Ok(ExitCode::SUCCESS);
        }
        Ok(answer) => eprintln!("stopover: {}", not_well(&url, &answer)),
        Err(error) => eprintln!("stopover: {url} did not answer: {}", daemon.explain(&error)),
    }
    Err(ExitCode::FAILURE)
}

/// What an answer says. It may be that of anything that listens there.
fn not_well(url: &str, Answer { status, body }: &Answer) -> String {
    printable(&format!("{url} answered {status}: {}", body.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: the answer reached the terminal as it came, with the sequences that the terminal
    /// obeys.
    #[test]
    fn an_answer_cannot_control_the_terminal() {
        let answer = Answer {
            status: 500,
            body: "no\u{1b}[2J\u{9b}31m\n".into(),
        };
        let text = not_well("http://a", &answer);
        assert_eq!(text, "http://a answered 500: no\\u{1b}[2J\\u{9b}31m");
    }
}
