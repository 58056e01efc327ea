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
    if release {
        // Where git has them: in a linked working tree they are not below `.git`, and a file that
        // is missing would rebuild everything each time.
        for file in ["HEAD", "logs/HEAD"] {
            if let Some(path) = git(root, &["rev-parse", "--git-path", file]) {
                println!("cargo::rerun-if-changed={path}");
            }
        }
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
    let format = "--format=%h %cs";
    git(root, &["show", "--no-patch", "--abbrev=10", format, "HEAD"])
}

/// What a command of git prints; `None` without a repository of these sources. A source archive
/// below some other repository is not part of it.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    root.join(".git").exists().then_some(())?;
    let output = Command::new("git").args(args).current_dir(root).output();
    let output = output.ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
