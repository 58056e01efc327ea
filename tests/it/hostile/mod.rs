//! Attacks on a running daemon, byte by byte over sockets.
//!
//! Each test starts a daemon as a process with a small budget, and a probe that calls `/healthz`
//! throughout. Invariant of every test, checked at its end: the process is alive and has not
//! panicked, no answer was 500, its memory stayed below budget plus overhead, every probe was
//! answered within two seconds, and an exchange from before the attack is still whole.

mod bodies;
mod browsers;
mod connections;
mod corpus;
mod lost_data;
mod memory;
mod requests;
mod table;
mod target;
mod tls;
