//! What each kind of store does, tried on a real server: the table in docs/stores.md.
//!
//! A separate program (`harness = false`), since it takes long and its child processes must end
//! with it. Each check of each store has an outcome, which must be the one that docs/stores.tsv
//! claims; `--record` writes it there, with the version of the server and the date, and the table
//! that follows from it. A check that fails has no outcome: then nothing is claimed.
//!
//!     cargo test --test stores                                        all
//!     cargo test --test stores -- --store azurite --check conformance
//!     cargo test --test stores -- --record

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own
#![allow(missing_docs, reason = "a program, not a library")]

mod azure;
mod checks;
#[allow(dead_code, reason = "also used by the soak and the tests with Trino")]
#[path = "../emulators/mod.rs"]
mod emulators;
#[path = "../trino/fetch.rs"]
mod fetch;
mod folder;
mod minio;
#[allow(dead_code, reason = "also used by the tests with Trino")]
#[path = "../trino/process.rs"]
mod process;
mod proxy;
#[path = "../storage_conformance/mod.rs"]
mod storage_conformance;
mod store;
mod table;
#[path = "../it/support/tls.rs"]
#[allow(dead_code)] // not all of it is used here
mod tls;
#[path = "../hdfs/wire.rs"]
#[allow(dead_code)] // not all of it is used here
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use checks::Check;
use process::until_signal;
use store::Store;
use table::{Entry, Table};

#[derive(Parser)]
#[command(about = "Tries stores on real servers and compares the outcomes with docs/stores.md")]
struct Arguments {
    /// Only this store [default: all].
    #[arg(long, value_enum)]
    store: Vec<Store>,
    /// Only this check [default: all].
    #[arg(long, value_enum)]
    check: Vec<Check>,
    /// Write the outcomes to docs/stores.tsv and docs/stores.md instead of comparing them.
    #[arg(long)]
    record: bool,
    /// Leave logs behind even after success.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: children die with the thread that spawned them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let local = tokio::task::LocalSet::new();
    match runtime.block_on(local.run_until(until_signal(run(&arguments)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAIL {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// All of these, or all there are.
fn chosen<T: Copy>(given: &[T], all: &[T]) -> Vec<T> {
    if given.is_empty() { all } else { given }.to_vec()
}

async fn run(arguments: &Arguments) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let work = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let work = work.join(format!("stores-{}", now.as_millis()));
    std::fs::create_dir_all(&work)?;
    println!("logs: {}", work.display());
    let mut table = Table::read()?;
    let (mut failed, started) = (Vec::new(), Instant::now());
    let stores = chosen(&arguments.store, &Store::ALL);
    let checks = chosen(&arguments.check, &Check::ALL);
    let with_trino = match checks.contains(&Check::Trino) {
        true => checks::trino(&stores)?,
        false => Vec::new(),
    };
    for &store in &stores {
        for &check in &checks {
            let title = format!("{} {}", store.name(), check.name());
            println!("---- {title} ----");
            let began = Instant::now();
            let folder = work.join(store.name()).join(check.name());
            std::fs::create_dir_all(&folder)?;
            let outcome = match check {
                Check::Trino if with_trino.contains(&store) => Ok("passed".to_owned()),
                Check::Trino => Err(anyhow::anyhow!("it failed, see above")),
                _ => check.run(store, &folder).await,
            };
            let entry = outcome.and_then(|outcome| Entry::new(store, check, outcome));
            if arguments.record {
                table.record(store, check, entry.as_ref().ok())?;
            }
            let judged = entry.and_then(|entry| table.agrees(&entry).map(|()| entry));
            let seconds = began.elapsed().as_secs_f64();
            match judged {
                Ok(entry) => println!("PASS {title}: {} ({seconds:.1} s)", entry.outcome),
                Err(error) => {
                    println!("FAIL {title} ({seconds:.1} s): {error:#}");
                    failed.push(title);
                }
            }
        }
    }
    println!("total {:.0} s", started.elapsed().as_secs_f64());
    ensure!(failed.is_empty(), "{}", failed.join(", "));
    if !arguments.keep {
        std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    }
    Ok(())
}
