//! The command line: commands, arguments and exit codes.
//!
//! Does: parse arguments, load the configuration, run a command. Does not: implement the commands.
//! Invariant: stdout carries only the requested output; errors and logs go to stderr.

mod async_runtime;
mod bench;
mod bench_machine;
mod bench_store;
mod check;
mod client_tls;
mod daemon_client;
mod exchange;
mod exchange_view;
mod exchanges;
mod exit_codes;
mod gc;
mod generate;
mod health;
mod import;
mod init;
mod inspect;
mod inspect_exchange;
mod inspect_fleet;
mod inspect_footer;
mod inspect_text;
mod members;
mod process;
mod progress;
mod reload;
mod serve;
mod supervisor;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use exit_codes::{EXIT_SINKS_LOST, EXIT_USAGE};

use crate::config::{ConfigErrors, Environment, Flags, Loaded, cloud_variables, draft, load};
use crate::runtime::Runtime;
use crate::store::open::check_bases;
use crate::telemetry::VERSION;
use crate::telemetry::logs::printable;

const CONFIGURATION: &str = "\
Every setting can be given in the configuration file, as environment variable
STOPOVER_SECTION__KEY (STOPOVER_SEGMENT__TARGET_SIZE=32MiB) or with --set. Flags override the
environment, the environment overrides the file. docs/configuration.md lists all settings.";

#[derive(Parser)]
#[command(name = "stopover", version = VERSION, about, long_about = None)]
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
    /// to finish, and exits: with 3 if it had to cut some off. On SIGHUP it reads its
    /// configuration, tokens and certificates again, and logs what it applied and what needs a
    /// restart.
    #[command(after_help = CONFIGURATION)]
    Serve(ConfigArgs),
    /// Validate the configuration, probe each base directory, and print the result
    #[command(after_help = CONFIGURATION)]
    Check(ConfigArgs),
    /// List the exchanges of a running daemon's base directories
    ///
    /// Shows size, age, what is left of the lease, and the base directories of each. Needs a token
    /// with scope admin where tokens are configured.
    Exchanges(exchanges::ExchangesArgs),
    /// Show one exchange: segments, attempts, sizes, and which daemons wrote it
    Exchange(exchange::ExchangeArgs),
    /// Print what the base directories hold of an exchange, or the footer of a segment
    ///
    /// Needs no daemon.
    Inspect(inspect::InspectArgs),
    /// Collect the exchanges of a dead cluster, if no daemon runs, after watching for a lease
    ///
    /// An exchange is removed only if it was not renewed while this command watched it. Running
    /// daemons collect by themselves; while they run, use --dry-run to list what would be removed.
    #[command(after_help = CONFIGURATION)]
    Gc(gc::GcArgs),
    /// Create the identity of base directories if daemons refuse to, or a new key for handles
    ///
    /// A daemon creates the identity of an empty base directory itself. This command is needed for
    /// a store without create-only writes, a location with foreign objects, a lost identity, and to
    /// rotate keys.
    #[command(after_help = CONFIGURATION)]
    Init(init::InitArgs),
    /// Show or edit the list of the base directories that the fleet uses
    ///
    /// Prints a line for each: its name, its id, and whether it is active, draining or abandoned.
    #[command(after_help = CONFIGURATION)]
    Members(members::MembersArgs),
    /// Measure what this machine and these base directories can do
    ///
    /// Latencies, throughput and prices, for choosing sizes. It writes objects of its own, and
    /// removes them, also when it is interrupted.
    #[command(after_help = CONFIGURATION)]
    Bench(bench::BenchArgs),
    /// Convert the configuration of Trino's own exchange manager
    ///
    /// Prints or writes a configuration for the daemons and one for Trino's nodes, and what has no
    /// counterpart, with the reason.
    Import(import::ImportArgs),
    /// Check whether a daemon is alive or ready; for container health checks without curl
    Health(health::HealthArgs),
    /// Make a running daemon read its configuration again, as SIGHUP does
    ///
    /// Prints what it applied and what needs a restart. A configuration with a problem changes
    /// nothing. Needs a token with scope admin where tokens are configured.
    Reload(reload::ReloadArgs),
    /// Print completions for a shell
    Completions(generate::CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(generate::ManArgs),
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
    /// Loads the configuration, opens its base directories once to detect problems with their
    /// options, and prints all problems together.
    fn load(self) -> Result<Loaded, ExitCode> {
        let mut draft = draft(&self.flags(), &Environment::of_process());
        check_bases(&mut draft, &cloud_variables(), &Runtime::system());
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

/// The definition of the command line.
fn command() -> clap::Command {
    let command = Cli::command().after_help(exit_codes::help());
    command.mut_subcommands(|sub| {
        let codes = exit_codes::help_of(sub.get_name());
        let help = match sub.get_after_help() {
            Some(help) => format!("{help}\n\n{codes}"),
            None => codes,
        };
        sub.after_help(help)
    })
}

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        Command::Serve(args) => args.load().and_then(serve::serve),
        Command::Check(args) => args.load().and_then(check::check),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Gc(args) => gc::gc(args),
        Command::Init(args) => init::init(args),
        Command::Members(args) => members::members(args),
        Command::Bench(args) => bench::bench(args),
        Command::Import(args) => import::import(args),
        Command::Health(args) => health::health(args),
        Command::Exchanges(args) => exchanges::exchanges(args),
        Command::Exchange(args) => exchange::exchange(args),
        Command::Reload(args) => reload::reload(args),
        Command::Completions(args) => Ok(generate::completions(&args, command())),
        Command::Man(args) => generate::man(&args, command()),
    };
    result.unwrap_or_else(|code| code)
}

/// Prints to stdout; returns whether it is still open. A closed one is no error.
fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
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

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_command_is_documented_and_lists_its_exit_codes() {
        let page = include_str!("../../docs/command-line.md");
        for sub in command().get_subcommands() {
            let name = sub.get_name();
            let row = format!("| `stopover {name}");
            assert!(page.contains(&row), "docs/command-line.md lacks {row}");
            let help = sub.get_after_help().unwrap().to_string();
            assert!(help.contains("Exit codes:"), "{name}: {help}");
        }
        for row in exit_codes::rows() {
            assert!(page.contains(&row), "docs/command-line.md lacks {row}");
        }
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
