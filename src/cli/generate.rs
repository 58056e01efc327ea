//! `stopover completions` and `stopover man`: the files for shells and `man` about the commands.
//!
//! Does: generate both from the definition of the command line. Does not: install anything.
//! Invariant: their content is that of `--help`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::{failure, print};

/// Arguments of `completions`.
#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Args)]
pub(super) struct ManArgs {
    /// Write a page for each command into this folder, instead of the main page to stdout
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Prints the completions for a shell.
pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "stopover", &mut text);
    print(&String::from_utf8_lossy(&text));
    ExitCode::SUCCESS
}

/// Prints or writes the manual pages.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn man(args: &ManArgs, command: Command) -> Result<ExitCode, ExitCode> {
    match &args.dir {
        Some(folder) => write_pages(folder, command).map_err(failure)?,
        None => {
            let mut text = Vec::new();
            let page = clap_mangen::Man::new(command);
            page.render(&mut text).map_err(failure)?;
            print(&String::from_utf8_lossy(&text));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_pages(folder: &Path, command: Command) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    // Every command has a separate page, except `help`.
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder)
}
