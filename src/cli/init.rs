//! `stopover init`: creates the identity of base directories, or a new key.
//!
//! Does: create identities where daemons refuse to, after the operator has confirmed why, and
//! rotate keys. Does not: decide what needs confirmation (`storage`). Invariant: without flags
//! nothing is done that a daemon would not do, except that no conditional write is needed.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigArgs, EXIT_USAGE, async_runtime, failure, print};
use crate::id::BaseName;
use crate::runtime::Runtime;
use crate::storage::{Identification, InitOptions, Storage};

/// Arguments of `init`.
#[derive(Args)]
pub(super) struct InitArgs {
    /// Only the base directory of this name [default: all]
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Permit objects in the base directory that Stopover did not write; they are never touched
    #[arg(long)]
    beside_foreign_objects: bool,
    /// Create a new identity although there are exchanges whose identity is lost. No daemon may be
    /// running; handles that were sealed before are refused
    #[arg(long)]
    replace_lost_identity: bool,
    /// Add a key with which new source handles are sealed. The previous key still opens handles;
    /// after a second rotation it does not
    #[arg(long)]
    rotate: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Creates identities or rotates keys.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn init(args: InitArgs) -> Result<ExitCode, ExitCode> {
    let only = args.only.map(|name| name.parse::<BaseName>()).transpose();
    let only = only.map_err(|error| {
        eprintln!("stopover: --only: {error}");
        ExitCode::from(EXIT_USAGE)
    })?;
    let options = InitOptions {
        beside_foreign_objects: args.beside_foreign_objects,
        replace_lost_identity: args.replace_lost_identity,
        rotate: args.rotate,
    };
    let config = args.config.load()?.config;
    let done = async_runtime::block_on(async {
        let bases = &config.base_directories;
        let storage = Storage::open_with(bases, Identification::Require, &Runtime::system())?;
        storage.init(only.as_ref(), options).await
    });
    let done = done.map_err(failure)?.map_err(failure)?;
    if done.is_empty() {
        eprintln!("stopover: --only: no base directory of this name is configured");
        return Err(ExitCode::from(EXIT_USAGE));
    }
    for (name, outcome) in done {
        print(&format!("{name} {outcome}\n"));
    }
    Ok(ExitCode::SUCCESS)
}
