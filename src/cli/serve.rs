//! `stopover serve`: starts logging and the async runtime, then runs the daemon.
//!
//! Does: initialize what a process has once. Does not: build the daemon (`app`). Invariant: stdout
//! carries exactly one line, printed once requests are accepted.

use std::cell::OnceCell;
use std::io::Write;
use std::process::ExitCode;

use super::progress::Progress;
use super::{EXIT_SINKS_LOST, async_runtime, failure, process, supervisor};
use crate::app::{self, DrainProgress, Phase};
use crate::config::Loaded;
use crate::runtime::Runtime;
use crate::telemetry::{VERSION, logs};

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
    let scheme = loaded.config.server.scheme();
    let bar = DrainBar::default();
    let report = |phase| {
        supervisor::notify(phase);
        match phase {
            Phase::Listening(_) => {}
            Phase::Serving(address) => announce(scheme, address),
            Phase::Draining(progress) => bar.show(progress),
        }
    };
    let system = Runtime::system();
    let served = async_runtime::block_on(app::run(&loaded, log, &system, report));
    match served.map_err(failure)?.map_err(failure)? {
        0 => Ok(ExitCode::SUCCESS),
        _ => Err(ExitCode::from(EXIT_SINKS_LOST)),
    }
}

/// Shows on a terminal how many of the open sinks have finished, and when the others are cut off.
#[derive(Default)]
struct DrainBar(OnceCell<Progress>);

impl DrainBar {
    fn show(&self, progress: DrainProgress) {
        let DrainProgress {
            sinks,
            left,
            remaining,
        } = progress;
        if sinks == 0 {
            return;
        }
        let begin = || Progress::bar(sinks as u64, "");
        let bar = self.0.get_or_init(begin);
        bar.message(format!(
            "waiting for open sinks, {} s at most",
            remaining.as_secs()
        ));
        bar.set(sinks.saturating_sub(left) as u64);
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
