//! `stopover serve`: starts logging and the async runtime, then runs the daemon.
//!
//! Does: initialize what a process has once. Does not: build the daemon (`app`). Invariant: stdout
//! carries exactly one line, printed once requests are accepted.

use std::convert::Infallible;
use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::{EXIT_SINKS_LOST, failure, process, supervisor};
use crate::app::{self, Phase};
use crate::config::Loaded;
use crate::runtime::Runtime;
use crate::telemetry::logs;
use crate::telemetry::recent::RecentProblems;

/// Runs the daemon to its end.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn serve(mut loaded: Loaded) -> Result<ExitCode, ExitCode> {
    process::bound_allocator();
    let open_files = process::raise_open_files();
    process::require_open_files(open_files).map_err(failure)?;
    let recent = RecentProblems::default();
    logs::init(&loaded.config.log, Some(&recent)).map_err(failure)?;
    for notice in &loaded.notices {
        tracing::warn!("{notice}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
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
    let served = runtime.block_on(async {
        tokio::select! {
            served = app::run(&loaded.config, &system, recent, report) => served,
            never = report_edits(&loaded) => match never {},
        }
    });
    match served.map_err(failure)? {
        0 => Ok(ExitCode::SUCCESS),
        _ => Err(ExitCode::from(EXIT_SINKS_LOST)),
    }
}

/// On every SIGHUP, logs which settings were edited but take effect only at the next start: the
/// daemon reloads credentials alone.
async fn report_edits(loaded: &Loaded) -> Infallible {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        // `app` reports it.
        return std::future::pending().await;
    };
    while hangup.recv().await.is_some() {
        match loaded.edited() {
            Err(errors) => {
                tracing::error!(%errors, "the configuration was edited and has problems; the \
                    daemon goes on with the one that it was started with");
            }
            Ok(edited) if edited.is_empty() => {}
            Ok(edited) => {
                let edited = edited.join(", ");
                tracing::warn!(%edited, "settings were edited since the start: restart the daemon \
                    to apply them; SIGHUP reloads only tokens and certificates");
            }
        }
    }
    std::future::pending().await
}

/// Prints the address. A closed stdout is ignored.
fn announce(scheme: &str, address: std::net::SocketAddr) {
    let mut out = std::io::stdout().lock();
    let printed = writeln!(out, "listening on {scheme}://{address}").and_then(|()| out.flush());
    if let Err(error) = printed {
        tracing::debug!(%error, "stdout is closed");
    }
}
