//! The exit codes of all commands, in one place.
//!
//! Pure. Does: name them, and describe which command ends with which and why. Invariant: the help
//! of each command and `docs/command-line.md` agree with it (a test compares them).

use std::fmt::Write as _;

/// Invalid arguments or configuration; a retry does not help.
pub(super) const EXIT_USAGE: u8 = 2;

/// A daemon stopped on request, but some sinks had not finished by then.
pub(super) const EXIT_SINKS_LOST: u8 = 3;

/// A code, and its general meaning.
const CODES: &[(u8, &str)] = &[
    (0, "success"),
    (
        1,
        "failure: a base directory, the network or a daemon failed, or an object is damaged",
    ),
    (EXIT_USAGE, "invalid arguments or configuration"),
    (EXIT_SINKS_LOST, "`serve` alone: open sinks were cut off"),
];

/// A command, a code, and its meaning for this command.
const MEANINGS: &[(&str, u8, &str)] = &[
    ("serve", 0, "it stopped on request, and no sink was cut off"),
    ("serve", 1, "it could not start"),
    (
        "serve",
        EXIT_SINKS_LOST,
        "it stopped on request, but cut off open sinks; their tasks will run again",
    ),
    (
        "check",
        0,
        "a daemon with this configuration would be ready",
    ),
    (
        "check",
        1,
        "a base directory does not work, or a credential file is invalid",
    ),
    ("exchanges", 1, "the daemon did not answer, or refused"),
    (
        "exchange",
        1,
        "there is none of this id, or the daemon did not answer",
    ),
    (
        "inspect",
        1,
        "there is none, it cannot be read, or it is damaged",
    ),
    (
        "gc",
        1,
        "a base directory failed, or an exchange could not be decided",
    ),
    (
        "init",
        1,
        "a base directory failed, or is not what was confirmed",
    ),
    ("members", 1, "the list cannot be read or written"),
    ("bench", 1, "a base directory failed, or it was interrupted"),
    (
        "import",
        EXIT_USAGE,
        "invalid arguments, or a file that cannot be read, converted or written",
    ),
    ("health", 0, "the daemon is alive, or with --ready, ready"),
    ("health", 1, "it is not, or did not answer"),
    (
        "reload",
        1,
        "the daemon did not answer, or its configuration has a problem",
    ),
    ("completions", 0, "printed"),
    ("man", 1, "a page cannot be written"),
];

/// Codes with a general meaning with which a command never ends.
const NEVER: &[(&str, u8)] = &[("import", 1)];

/// The codes in the help of the program.
pub(super) fn help() -> String {
    let mut text = String::from("Exit codes:");
    for (code, meaning) in CODES {
        let _ = write!(text, "\n  {code}  {}", meaning.replace('`', ""));
    }
    text
}

/// The codes in the help of a command.
pub(super) fn help_of(command: &str) -> String {
    let mut text = String::from("Exit codes:");
    for (code, general) in CODES {
        if NEVER.contains(&(command, *code)) {
            continue;
        }
        let mut meanings = MEANINGS.iter();
        let own = meanings.find(|(name, own, _)| *name == command && own == code);
        let meaning = match own {
            Some((.., meaning)) => meaning,
            None if *code == EXIT_SINKS_LOST => continue,
            None => general,
        };
        let _ = write!(text, "\n  {code}  {meaning}");
    }
    text
}

/// The rows of the table in `docs/command-line.md`.
#[cfg(test)]
pub(super) fn rows() -> impl Iterator<Item = String> {
    CODES
        .iter()
        .map(|(code, meaning)| format!("| {code} | {meaning} |"))
}
