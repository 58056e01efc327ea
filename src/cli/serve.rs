//! `stopover serve`: starts logging and the async runtime, then runs the daemon.
//!
//! Does: initialize what a process has once. Does not: build the daemon (`app`). Invariant: stdout
//! carries exactly one line, printed once requests are accepted.

use std::io::Write;
use std::process::ExitCode;

use super::{EXIT_SINKS_LOST, VERSION, failure, process, supervisor};
use crate::app::{self, Phase};
use crate::config::Loaded;
use crate::runtime::Runtime;
use crate::telemetry::logs;

/// Runs the daemon to its end.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn serve(mut loaded: Loaded) -> Result<ExitCode, ExitCode> {
    process::bound_allocator();
    let open_files = process::raise_open_files();
    process::require_open_files(open_files).map_err(failure)?;
    let log = logs::init(&loaded.config.log).map_err(failure)?;
    let _flushed = log.flush_at_end();
    for notice in &loaded.notices {
        tracing::warn!("{notice}");
    }
    tracing::info!(version = VERSION, "starting");
    process::fit_connections(&mut loaded.config.limits, open_files);
    let runtime = tokio::runtime::Runtime::new().map_err(failure)?;
    let scheme = loaded.config.server.scheme();
    let report = |phase| {
        supervisor::notify(phase);
        if let Phase::Serving(address) = phase {
            announce(scheme, address);
        }
    };
    let system = Runtime::system();
    let served = runtime.block_on(app::run(&loaded, log, &system, report));
    match served.map_err(failure)? {
        0 => Ok(ExitCode::SUCCESS),
        _ => Err(ExitCode::from(EXIT_SINKS_LOST)),
    }
}

/// Prints the address. A closed stdout is ignored.
fn announce(scheme: &str, address: std::net::SocketAddr) {
    let mut out = std::io::stdout().lock();
    let printed = writeln!(out, "listening on {scheme}://{address}").and_then(|()| out.flush());
    if let Err(error) = printed {
        tracing::debug!(%error, "stdout is closed");
    }
}
