//! Programs and folders that `tests/lib/fetch.sh` provides.
//!
//! Does: run that script. Does not: fetch anything itself. Invariant: what is returned exists.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Fetches `what` with `tests/lib/fetch.sh` and returns its path.
pub fn fetch(what: &str) -> Result<PathBuf> {
    let path = PathBuf::from(printed(&[what])?);
    ensure!(
        path.exists(),
        "tests/lib/fetch.sh {what} named {}, which is missing",
        path.display()
    );
    Ok(path)
}

/// The version of a program that the script fetches.
#[allow(dead_code, reason = "used by the tests of stores")]
pub fn fetched_version(what: &str) -> Result<String> {
    printed(&["version", what])
}

fn printed(arguments: &[&str]) -> Result<String> {
    let output = Command::new("bash")
        .arg(repository().join("tests/lib/fetch.sh"))
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start bash")?;
    ensure!(
        output.status.success(),
        "tests/lib/fetch.sh {} failed, see above",
        arguments.join(" ")
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
