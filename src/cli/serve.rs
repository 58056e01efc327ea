//! `stopover serve`: starts logging and the async runtime, then runs the daemon.
//!
//! Does: initialize what a process has once. Does not: build the daemon (`app`). Invariant: stdout
//! carries exactly one line, printed once requests are accepted.

use std::io::Write;
use std::process::ExitCode;

use super::{EXIT_OK, failure, process};
use crate::app;
use crate::config::Loaded;
use crate::runtime::Runtime;
use crate::telemetry::logs;

/// Runs the daemon to its end.
pub fn serve(mut loaded: Loaded) -> ExitCode {
    process::bound_allocator();
    let open_files = process::raise_open_files();
    if let Err(error) = logs::init(&loaded.config.log) {
        return failure(&error);
    }
    for notice in &loaded.notices {
        tracing::warn!("{notice}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    process::fit_connections(&mut loaded.config.limits, open_files);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error),
    };
    match runtime.block_on(app::run(&loaded.config, &Runtime::system(), |address| {
        announce(loaded.config.server.scheme(), address);
    })) {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => failure(&error),
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
