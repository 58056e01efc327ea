//! The cost of a page in instructions of the daemon, counted by valgrind.
//!
//! Does: run a daemon under callgrind with few and with many pages, and divide the difference. Does
//! not: measure time. Invariant: the cost of start and shutdown is in both runs and cancels out.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::exchange::{Batch, Exchange};
use crate::server::Server;

const FEW: usize = 2;
const MANY: usize = 10;

/// Instructions per page: for writing it, and for reading it from memory.
pub struct PerPage {
    pub ingest: f64,
    pub serve: f64,
}

/// Counts with batches like this one; callgrind's output stays in the folder.
pub fn count(binary: &Path, folder: &Path, batch: &Batch) -> Result<PerPage> {
    let few = run(binary, folder, batch, FEW, false)?;
    let many = run(binary, folder, batch, MANY, false)?;
    let read = run(binary, folder, batch, MANY, true)?;
    let more_pages = (MANY - FEW) as f64 * batch.pages as f64;
    Ok(PerPage {
        ingest: (many - few) / more_pages,
        serve: (read - many) / (MANY as f64 * batch.pages as f64),
    })
}

fn run(binary: &Path, folder: &Path, batch: &Batch, batches: usize, read: bool) -> Result<f64> {
    let name = format!("callgrind-{batches}{}", if read { "-read" } else { "" });
    let out = folder.join(&name);
    let mut valgrind = Command::new("valgrind");
    valgrind
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()));
    let base = folder.join(format!("{name}-data"));
    let settings = format!(
        "[memory]\nbudget = \"1GiB\"\n[[base_directory]]\nuri = \"{}\"\nfsync = false\n",
        base.display()
    );
    let daemon = Server::daemon_under(&mut valgrind, binary, folder, &name, &settings)
        .context("is valgrind installed?")?;
    let exchange = Exchange::announce(daemon.address, "instructions", 1, batches, batch)?;
    exchange.write()?;
    exchange.finish()?;
    if read {
        let handles = exchange.handles()?;
        exchange.read(&[daemon.address], &handles)?;
    }
    exchange.remove()?;
    daemon.stop()?;
    let counted = std::fs::read_to_string(&out)?;
    let total = counted
        .lines()
        .find_map(|line| {
            line.strip_prefix("summary: ")
                .or(line.strip_prefix("totals: "))
        })
        .context("callgrind's output has no total")?;
    Ok(total.trim().parse()?)
}
