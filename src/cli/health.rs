//! `stopover health`: one request to a running daemon, for container health checks.
//!
//! Does: GET `/healthz` or `/readyz` and evaluate the status. Does not: need a token, a client
//! certificate or an async runtime. Invariant: every wait is bounded by a timeout.

use std::process::ExitCode;

use clap::Args;

use super::daemon_client::{AddressArgs, Answer};
use super::print;

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
        Ok(Answer { status, body }) => {
            eprintln!("stopover: {url} answered {status}: {}", body.trim());
        }
        Err(error) => eprintln!("stopover: {url} did not answer: {}", daemon.explain(&error)),
    }
    Err(ExitCode::FAILURE)
}
