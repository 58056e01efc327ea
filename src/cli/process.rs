//! Process-wide settings, made once at start.
//!
//! Does: configure the allocator, raise the limit of open files to the hard limit, and lower
//! `limits.max_connections` to what that allows. Does not: change other limits of the daemon.
//! Invariant: called before a second thread exists; what cannot be changed stays as it is and is
//! logged.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::LimitsConfig;

/// File descriptors reserved for base directories, logs and requests to stores.
const OWN_FILES: u64 = 512;

/// Limits the number of arenas of glibc's allocator, and stops it from returning freed batch
/// buffers to the system. By default it uses up to eight arenas per core, each of which may retain
/// large free buffers; and it unmaps a freed batch buffer just before the next batch needs one, so
/// that every batch is read into fresh pages, which costs several times as much as the copy.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(super) fn bound_allocator() {
    const ARENAS: libc::c_int = 2;
    /// The maximum that glibc accepts.
    const LARGEST_IN_ARENA: libc::c_int = 32 << 20;
    // SAFETY: mallopt changes only the allocator's own settings, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_IN_ARENA);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound_allocator() {}

/// Raises the soft limit of open files to the hard limit. Returns the resulting limit, if any.
pub(super) fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let mut raised = limit;
    raised.current = limit.maximum;
    if raised != limit && setrlimit(Resource::Nofile, raised).is_err() {
        return limit.current;
    }
    raised.current
}

/// File descriptors that a daemon needs to start and to serve a single client: the runtime, the
/// listener, a request to each base directory.
const LEAST_FILES: u64 = 64;

/// The limit of open files is too low for a daemon.
#[derive(Debug, thiserror::Error)]
#[error(
    "this process may open only {limit} files, and a daemon needs at least {LEAST_FILES}, plus one \
     for each connection: raise the limit (LimitNOFILE of systemd, ulimit -n)"
)]
pub(super) struct TooFewFiles {
    limit: u64,
}

/// Checks that a daemon can start under a limit of open files. Otherwise the first of its parts
/// that opens a file or a socket would report a misleading error.
///
/// # Errors
/// If it cannot.
pub(super) fn require_open_files(limit: Option<u64>) -> Result<(), TooFewFiles> {
    match limit {
        Some(limit) if limit < LEAST_FILES => Err(TooFewFiles { limit }),
        _ => Ok(()),
    }
}

/// Lowers `limits.max_connections` to what the limit of open files allows, so that connections
/// cannot exhaust the descriptors that base directories need.
pub(super) fn fit_connections(limits: &mut LimitsConfig, open_files: Option<u64>) {
    let Some(open_files) = open_files else { return };
    let room = open_files
        .saturating_sub(OWN_FILES)
        .max(open_files / 2)
        .max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let room = room - (room / 2).min(LimitsConfig::max_strangers(room));
    if limits.max_connections > room {
        tracing::warn!(
            open_files,
            limits.max_connections,
            "limit of open files is too low for limits.max_connections; accepting {room} \
             connections: raise it (LimitNOFILE, ulimit -n)"
        );
        limits.max_connections = room;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: under `ulimit -n 9` the daemon's error suggested to choose another address.
    #[test]
    fn a_limit_of_open_files_that_is_too_low_for_a_daemon_is_named() {
        let refused = require_open_files(Some(9)).unwrap_err().to_string();
        assert!(
            refused.contains("only 9 files") && refused.contains("ulimit -n"),
            "{refused}"
        );
        assert!(require_open_files(Some(64)).is_ok() && require_open_files(None).is_ok());
    }

    #[test]
    fn connections_are_lowered_to_what_the_open_files_leave_room_for() {
        let with = |open_files| {
            let mut limits = LimitsConfig::default();
            fit_connections(&mut limits, open_files);
            limits.max_connections
        };
        let default = LimitsConfig::default().max_connections;
        assert_eq!(with(None), default);
        assert_eq!(with(Some(1 << 20)), default);
        assert_eq!(with(Some(1024)), 256);
        assert_eq!(with(Some(4096)), 4096 - 512 - 1024);
        assert_eq!(with(Some(256)), 64);
    }
}
