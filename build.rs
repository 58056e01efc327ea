//! Tells the program which commit it was built from: `BUILT_VERSION` for `--version`.
//!
//! (Not `STOPOVER_…`: cargo passes it on to what it runs, and such names are settings.)
//!
//! Does: ask git, or read what `git archive` wrote into `.source-revision`. Does not: fail where
//! there is neither. Invariant: only release builds ask git, so that a commit does not rebuild what
//! is being worked on; the same sources give the same text.

#![allow(clippy::disallowed_methods)] // cargo tells a build script all by variables

use std::path::Path;
use std::process::Command;

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let root = Path::new(&root);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=.source-revision");
    if release && root.join(".git").exists() {
        println!("cargo::rerun-if-changed=.git/HEAD");
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
    }
    let version = describe(&version, revision(root, release).as_deref());
    println!("cargo::rustc-env=BUILT_VERSION={version}");
}

/// The text of `--version`, after the name.
pub fn describe(version: &str, revision: Option<&str>) -> String {
    match revision {
        Some(revision) => format!("{version} ({revision})"),
        None => version.to_owned(),
    }
}

/// Commit and date, such as `1a2b3c4d5e 2026-11-29`.
pub fn revision(root: &Path, release: bool) -> Option<String> {
    archived(&std::fs::read_to_string(root.join(".source-revision")).unwrap_or_default())
        .or_else(|| release.then(|| from_git(root)).flatten())
}

/// What `git archive` made of the file; in a working tree it has not been filled in.
fn archived(text: &str) -> Option<String> {
    let text = text.lines().last()?.trim();
    (!text.is_empty() && !text.contains('$')).then(|| text.to_owned())
}

fn from_git(root: &Path) -> Option<String> {
    // A source archive below some other repository is not part of it.
    root.join(".git").exists().then_some(())?;
    let shown = Command::new("git")
        .args([
            "show",
            "--no-patch",
            "--abbrev=10",
            "--format=%h %cs",
            "HEAD",
        ])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(shown.stdout).ok()?.trim().to_owned();
    (shown.status.success() && !text.is_empty()).then_some(text)
}
