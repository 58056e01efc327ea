//! Base directories on HDFS.
//!
//! Does: write files that are complete and durable once they have their name, read ranges of them,
//! replace small objects if they are unchanged, list and remove, through Hadoop's own protocol
//! (`hdfs-native`). Does not: know what the files are for. Invariant: every decision between
//! several writers is one call of the NameNode, which it carries out whole or not at all, whichever
//! of them is stopped or killed between two calls (docs/decisions/storage-hdfs.md).

mod backend;
mod content;
mod error;
mod mounts;
mod name_nodes;
mod names;
mod open;
mod site;
mod tree;
mod versioned;
mod workers;

pub(super) use open::open;
