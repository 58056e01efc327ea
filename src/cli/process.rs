//! What the process sets for itself once, before it does anything else.
//!
//! Does: bound what the allocator keeps, and raise the number of files that may be open to what the
//! system allows. Does not: decide limits of the daemon. Invariant: called before there is a second
//! thread; what cannot be set is left as it is, and said.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::LimitsConfig;

/// Files and sockets beside those of clients: base directories, the log, requests to a store.
const OWN_FILES: u64 = 512;

/// Bounds how much memory glibc's allocator keeps for later, and has it keep that. By itself it has
/// up to eight arenas a core, each of which may keep the room of large buffers that others could
/// use again; and it gives the room of a batch back to the system just before the next batch needs
/// it, so that each is read into fresh memory, which costs several times the copy into it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn bound_allocator() {
    const ARENAS: libc::c_int = 2;
    /// The most that glibc allows.
    const LARGEST_IN_ARENA: libc::c_int = 32 << 20;
    // SAFETY: mallopt changes only the allocator's own settings, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_IN_ARENA);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

/// Other allocators have no arenas to bound.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound_allocator() {}

/// Raises the limit of open files as far as it may be raised; answers what it is then, if there is
/// one.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let mut raised = limit;
    raised.current = limit.maximum;
    if raised != limit && setrlimit(Resource::Nofile, raised).is_err() {
        return limit.current;
    }
    raised.current
}

/// Lowers the number of connections to what so many open files leave room for, so that a full house
/// never keeps the daemon from its own files.
pub fn fit_connections(limits: &mut LimitsConfig, open_files: Option<u64>) {
    let Some(open_files) = open_files else { return };
    let room = open_files
        .saturating_sub(OWN_FILES)
        .max(open_files / 2)
        .max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if limits.max_connections > room {
        tracing::warn!(
            open_files,
            limits.max_connections,
            "the process may open too few files for limits.max_connections; it takes {room} \
             connections: raise the limit of open files (LimitNOFILE, ulimit -n)"
        );
        limits.max_connections = room;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(with(Some(1024)), 512);
        assert_eq!(with(Some(4096)), 4096 - 512);
        assert_eq!(with(Some(256)), 128);
    }
}
