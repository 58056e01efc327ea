//! A library for `LD_PRELOAD` that falsifies the wall clock: `clock_gettime` of `CLOCK_REALTIME` is
//! off by the seconds in `SOAK_WALL_OFFSET`; all other clocks are unchanged.
//!
//! Built by `rustc` when the soak starts (`clocks.rs`), not by cargo.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_long};
use std::sync::atomic::{AtomicI64, Ordering};

const REALTIME: c_int = 0;
const REALTIME_COARSE: c_int = 5;
#[cfg(target_arch = "x86_64")]
const SYS_CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const SYS_CLOCK_GETTIME: c_long = 113;
const UNREAD: i64 = i64::MIN;

static OFFSET: AtomicI64 = AtomicI64::new(UNREAD);

/// The kernel's layout.
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanos: c_long,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn getenv(name: *const c_char) -> *const c_char;
    fn atoll(text: *const c_char) -> i64;
}

fn offset() -> i64 {
    let known = OFFSET.load(Ordering::Relaxed);
    if known != UNREAD {
        return known;
    }
    // SAFETY: arguments and results are C strings; this process does not change its environment.
    let read = unsafe {
        let text = getenv(c"SOAK_WALL_OFFSET".as_ptr());
        if text.is_null() { 0 } else { atoll(text) }
    };
    OFFSET.store(read, Ordering::Relaxed);
    read
}

/// Replaces the C library's function.
///
/// # Safety
/// As for the C library's function: `into` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, into: *mut Timespec) -> c_int {
    // SAFETY: the system call that the C library makes, with the caller's own pointer.
    let answer = unsafe { syscall(SYS_CLOCK_GETTIME, clock as c_long, into) };
    if answer == 0 && (clock == REALTIME || clock == REALTIME_COARSE) {
        // SAFETY: the call above succeeded, so it has written there.
        unsafe { (*into).seconds += offset() };
    }
    answer as c_int
}
