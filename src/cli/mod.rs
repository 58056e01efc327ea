//! The command line: commands, arguments and exit codes.
//!
//! Does: parse arguments, load the configuration, run a command. Does not: implement the commands.
//! Invariant: stdout carries only the requested output; errors and logs go to stderr.

mod check;
mod gc;
mod health;
mod health_tls;
mod import;
mod init;
mod inspect;
mod inspect_fleet;
mod inspect_text;
mod members;
mod process;
mod serve;
mod supervisor;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigErrors, Environment, Flags, Loaded, cloud_variables, draft, load};
use crate::runtime::Runtime;
use crate::store::open::review;
use crate::telemetry::logs::printable;

/// Invalid arguments or configuration; a retry does not help.
pub const EXIT_USAGE: u8 = 2;

/// A daemon stopped on request, but some sinks had not finished by then.
pub const EXIT_SINKS_LOST: u8 = 3;

const EXIT_CODES: &str = "\
Exit codes:
  0  success (serve: it stopped on request, and no sink was cut off)
  1  failure: a base directory or the network failed, or the inspected object is damaged
  2  invalid arguments or configuration
  3  serve: it stopped on request, but cut off open sinks; their tasks will run again";

const CONFIGURATION: &str = "\
Every setting can be given in the configuration file, as environment variable
STOPOVER_SECTION__KEY (STOPOVER_SEGMENT__TARGET_SIZE=32MiB) or with --set. Flags override the
environment, the environment overrides the file. docs/configuration.md lists all settings.";

#[derive(Parser)]
#[command(name = "stopover", version, about, long_about = None, after_help = EXIT_CODES)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT
    ///
    /// Once it serves, it prints one line on stdout: "listening on http://ADDRESS:PORT" (or https).
    /// On SIGTERM or SIGINT it accepts no new sinks, waits up to server.drain_timeout for open ones
    /// to finish, and exits: with 3 if it had to cut some off. On SIGHUP it reloads tokens and
    /// certificates, and logs which other settings were edited.
    #[command(after_help = CONFIGURATION)]
    Serve(ConfigArgs),
    /// Validate the configuration, probe each base directory, and print the result
    #[command(after_help = CONFIGURATION)]
    Check(ConfigArgs),
    /// Print the footer of a segment: its sinks, partitions and commit records
    Inspect(inspect::InspectArgs),
    /// Collect the exchanges of a dead cluster, where no daemon runs, after watching for a lease
    ///
    /// An exchange is removed only if it was not renewed while this command watched it. Running
    /// daemons collect by themselves; beside them, use --dry-run to see what would be removed.
    #[command(after_help = CONFIGURATION)]
    Gc(gc::GcArgs),
    /// Give base directories their identity where daemons refuse to, or a new key for handles
    ///
    /// A daemon creates the identity of an empty base directory itself. This command is needed for
    /// a store without create-only writes, a place that holds other objects too, a lost identity,
    /// and to rotate keys.
    #[command(after_help = CONFIGURATION)]
    Init(init::InitArgs),
    /// Show or edit the list of the base directories that the fleet uses
    ///
    /// Prints a line for each: its name, its id, and whether it is active, draining or abandoned.
    #[command(after_help = CONFIGURATION)]
    Members(members::MembersArgs),
    /// Convert the configuration of Trino's own exchange manager
    ///
    /// Prints or writes a configuration for the daemons and one for Trino's nodes, and what has no
    /// counterpart, with the reason.
    Import(import::ImportArgs),
    /// Check whether a daemon is alive or ready; for container health checks without curl
    Health(health::HealthArgs),
}

/// Arguments that select and override the configuration.
#[derive(Args, Default)]
struct ConfigArgs {
    /// Configuration file (TOML); also STOPOVER_CONFIG. Without one, the built-in defaults apply
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; port 0 picks a free one [server.listen]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Base directory: a local folder, file://, s3://, gs://, az:// or memory://; may be repeated;
    /// replaces those of the file and the environment
    #[arg(long = "base-directory", value_name = "URI")]
    base_directories: Vec<String>,
    /// Most memory for pages, or "auto" [memory.budget]
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<String>,
    /// Any other setting, such as segment.target_size=32MiB; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// Loads the configuration, opens its base directories once to find what is wrong with their
    /// options, and prints all problems together.
    fn load(self) -> Result<Loaded, ExitCode> {
        let mut draft = draft(&self.flags(), &Environment::of_process());
        let bases = &draft.loaded.config.base_directories;
        let review = review(bases, &cloud_variables(), &Runtime::system());
        draft.loaded.notices.extend(review.notices);
        for (base, fault) in review.faults {
            let option = fault.option.as_deref().unwrap_or("uri");
            let what = match &fault.option {
                Some(_) => fault.reason.to_string(),
                None => format!("{}: {}", fault.object, fault.reason),
            };
            draft.refuse_option(base, option, what);
        }
        draft.finish().map_err(report_problems)
    }

    /// Loads the configuration for commands that use no base directory.
    fn load_settings(self) -> Result<Loaded, ExitCode> {
        load(&self.flags()).map_err(report_problems)
    }

    fn flags(self) -> Flags {
        Flags {
            config: self.config,
            listen: self.listen,
            base_directories: self.base_directories,
            memory_budget: self.memory_budget,
            set: self.set,
        }
    }
}

fn report_problems(errors: ConfigErrors) -> ExitCode {
    eprintln!("stopover: {errors}");
    ExitCode::from(EXIT_USAGE)
}

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => args.load().and_then(serve::serve),
        Command::Check(args) => args.load().and_then(check::check),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Gc(args) => gc::gc(args),
        Command::Init(args) => init::init(args),
        Command::Members(args) => members::members(args),
        Command::Import(args) => import::import(args),
        Command::Health(args) => health::health(args),
    };
    result.unwrap_or_else(|code| code)
}

/// Prints to stdout; a closed stdout is ignored.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints an error with its causes, and returns the exit code.
fn failure(error: impl std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    eprintln!("stopover: {}", printable(&text));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_that_may_be_repeated_keep_their_order() {
        let cli = Cli::try_parse_from([
            "stopover",
            "serve",
            "--base-directory",
            "./a",
            "--base-directory",
            "./b",
            "--set",
            "segment.target_size=1MiB",
        ])
        .ok()
        .unwrap();
        let Command::Serve(args) = cli.command else {
            panic!("serve was requested");
        };
        assert_eq!(args.base_directories, ["./a", "./b"]);
        assert_eq!(args.set, ["segment.target_size=1MiB"]);
    }
}
