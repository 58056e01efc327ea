//! Base directories in a file system.
//!
//! Does: write files that are complete and durable once they have their name, read ranges of them,
//! remove them together with the folders that become empty. Does not: interpret the files.
//! Invariant: no symbolic link below a base directory is followed; a file under its final name is
//! complete; a file whose name ends in `.tmp` is locked by the process that writes it, so an
//! unlocked one is abandoned.

mod anchor;
mod backend;
mod calls;
mod content;
#[cfg(test)]
mod durability_tests;
mod error;
mod name_cache;
mod names;
mod payload;
mod permissions;
mod publish;
mod read;
mod remote;
mod reserve;
mod root;
mod space;
mod swap;
#[cfg(test)]
mod tests;
mod threads;
mod tree;

pub use backend::{LocalStore, WriteMode};
