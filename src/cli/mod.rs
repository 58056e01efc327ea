//! The command line: what can be said to `stopover`, and its exit codes.
//!
//! Does: parse arguments, load the configuration, hand over to a command. Does not: know what the
//! commands do. Invariant: stdout carries only what was asked for; errors and logs go to stderr.

mod check;
mod gc;
mod health;
mod health_tls;
mod inspect;
mod inspect_text;
mod process;
mod serve;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Flags, Loaded, load};

/// It worked.
pub const EXIT_OK: u8 = 0;
/// It failed while it ran.
pub const EXIT_FAILURE: u8 = 1;
/// The arguments or the configuration are wrong; trying again does not help.
pub const EXIT_USAGE: u8 = 2;

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked (serve: it was asked to stop and did, with nothing lost)
  1  it failed: a base directory, the network, or what was looked at is not as it should be
  2  the arguments or the configuration are wrong";

const CONFIGURATION: &str = "\
Every setting can be given in the configuration file, as environment variable
STOPOVER_SECTION__KEY (STOPOVER_SEGMENT__TARGET_SIZE=32MiB) or with --set; flags win over the
environment, the environment over the file. docs/configuration.md lists all settings.";

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
    /// On SIGTERM or SIGINT it takes no new sinks, lets open ones finish within
    /// server.drain_timeout, and ends. On SIGHUP it reads tokens and certificates again.
    #[command(after_help = CONFIGURATION)]
    Serve(ConfigArgs),
    /// Load the configuration, try each base directory, and say what would happen
    #[command(after_help = CONFIGURATION)]
    Check(ConfigArgs),
    /// Print what a segment holds: its sinks, partitions and commit records
    Inspect(inspect::InspectArgs),
    /// Collect what a dead cluster left, where no daemon runs that does; watches for a whole lease
    ///
    /// An exchange goes only if nobody renewed it while this command itself watched. Running
    /// daemons do the same all the time: there it is needed only to see what would go.
    #[command(after_help = CONFIGURATION)]
    Gc(gc::GcArgs),
    /// Ask a running daemon whether it serves; for health checks where there is no curl
    Health(health::HealthArgs),
}

/// Where the configuration comes from.
#[derive(Args, Default)]
struct ConfigArgs {
    /// Configuration file (TOML); also STOPOVER_CONFIG. Without one the built-in defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one [server.listen]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Where segments go: a local folder, file://, s3://, gs://, az:// or memory://; may be given
    /// more than once and replaces those of the file and the environment
    #[arg(long = "base-directory", value_name = "URI")]
    base_directories: Vec<String>,
    /// Bytes of pages held in memory at most, or "auto" [memory.budget]
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<String>,
    /// Any other setting, such as segment.target_size=32MiB; may be given more than once
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// Loads the configuration, or prints everything that is wrong with it.
    fn load(self) -> Result<Loaded, ExitCode> {
        let flags = Flags {
            config: self.config,
            listen: self.listen,
            base_directories: self.base_directories,
            memory_budget: self.memory_budget,
            set: self.set,
        };
        load(&flags).map_err(|errors| {
            eprintln!("stopover: {errors}");
            ExitCode::from(EXIT_USAGE)
        })
    }
}

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => args.load().map(serve::serve),
        Command::Check(args) => args.load().map(check::check),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Gc(args) => gc::gc(args),
        Command::Health(args) => health::health(args),
    };
    result.unwrap_or_else(|code| code)
}

/// Prints to stdout; whoever closed it has seen enough.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A failure while a command ran, told once.
fn failure(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    eprintln!("stopover: {text}");
    ExitCode::from(EXIT_FAILURE)
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
            panic!("serve was asked for");
        };
        assert_eq!(args.base_directories, ["./a", "./b"]);
        assert_eq!(args.set, ["segment.target_size=1MiB"]);
    }
}
