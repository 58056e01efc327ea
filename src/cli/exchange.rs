//! `stopover exchange`: shows one exchange, according to a daemon.
//!
//! Does: query the daemon, print the response. Does not: read base directories (`inspect` does,
//! without a daemon). Invariant: nothing is changed.

use std::process::ExitCode;

use clap::Args;

use super::daemon_client::DaemonArgs;
use super::exchange_view::ExchangeView;
use super::{EXIT_USAGE, print};
use crate::id::ExchangeId;
use crate::telemetry::logs::printable;

/// Arguments of `exchange`.
#[derive(Args)]
pub(super) struct ExchangeArgs {
    /// The exchange, as `stopover exchanges` lists it
    #[arg(value_name = "EXCHANGE")]
    exchange: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Shows it.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn exchange(args: ExchangeArgs) -> Result<ExitCode, ExitCode> {
    let exchange: ExchangeId = args.exchange.parse().map_err(|error| {
        eprintln!("stopover: {error}");
        ExitCode::from(EXIT_USAGE)
    })?;
    let daemon = args.daemon.client()?;
    let shown: ExchangeView = daemon.json("GET", &format!("/v1/exchanges/{exchange}"))?;
    print(&match args.json {
        true => shown.as_json(),
        false => printable(&shown.as_text()),
    });
    Ok(ExitCode::SUCCESS)
}
