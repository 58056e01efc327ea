//! `stopover members`: shows and edits the list of the base directories that the fleet uses.
//!
//! Does: read the list, set the state of one base directory, print the result. Does not: move or
//! remove data. Invariant: without an edit nothing is written.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{ConfigArgs, EXIT_USAGE, async_runtime, failure, print};
use crate::id::BaseName;
use crate::runtime::Runtime;
use crate::storage::{Identification, MemberState, Membership, Storage};

/// Arguments of `members`.
#[derive(Args)]
pub(super) struct MembersArgs {
    /// What to do
    #[arg(value_enum, default_value = "list")]
    action: Action,
    /// The base directory to add, drain or abandon
    name: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Print the list
    List,
    /// Put new segments there. First add the base directory to the configuration of every daemon
    Add,
    /// Put no new segments there; what it holds is still read
    Drain,
    /// Expect nothing of it any more: it is drained and empty, or lost for ever with what it held
    Abandon,
}

impl Action {
    fn state(self) -> Option<MemberState> {
        match self {
            Self::List => None,
            Self::Add => Some(MemberState::Active),
            Self::Drain => Some(MemberState::Draining),
            Self::Abandon => Some(MemberState::Abandoned),
        }
    }
}

/// Shows or edits the list.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn members(args: MembersArgs) -> Result<ExitCode, ExitCode> {
    let usage = |text: String| {
        eprintln!("stopover: {text}");
        ExitCode::from(EXIT_USAGE)
    };
    let edit = match (args.action.state(), args.name) {
        (None, None) => None,
        (None, Some(_)) => return Err(usage("`members list` needs no name".into())),
        (Some(_), None) => return Err(usage("name the base directory".into())),
        (Some(state), Some(name)) => {
            let name: Result<BaseName, _> = name.parse();
            Some((name.map_err(|error| usage(error.to_string()))?, state))
        }
    };
    let config = args.config.load()?.config;
    let list = async_runtime::block_on(async {
        let bases = &config.base_directories;
        // A base directory that is added may be new.
        let identification = match args.action {
            Action::Add => Identification::Create,
            _ => Identification::Require,
        };
        let storage = Storage::open_with(bases, identification, &Runtime::system())?;
        if let Some((name, state)) = edit {
            return storage.set_member(&name, state).await.map(Some);
        }
        let complete = storage.check_members().await;
        match (storage.members(), complete) {
            (Some(list), _) => Ok(Some(list)),
            (None, complete) => complete.map(|()| None),
        }
    });
    if let Some(list) = list.map_err(failure)?.map_err(failure)? {
        print(&as_text(&list));
    }
    Ok(ExitCode::SUCCESS)
}

fn as_text(list: &Membership) -> String {
    let mut text = String::new();
    for member in &list.members {
        let _ = writeln!(text, "{} {} {}", member.name, member.id, member.state);
    }
    text
}
