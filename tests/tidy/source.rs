//! The project's files, as the rules read them, and the list of what they violate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

/// A text file of the project.
pub struct Source {
    /// Relative to the root, with `/` on every platform.
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// The top-level module that contains it.
    pub fn module(&self) -> &str {
        let rest = self.path.strip_prefix("src/").unwrap_or(&self.path);
        rest.split(['/', '.']).next().unwrap_or(rest)
    }

    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Its numbered lines before the inline tests.
    pub fn before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let end = lines
            .windows(4)
            .position(|w| {
                w[0] == "#[cfg(test)]" && w[1..].iter().any(|l| l.starts_with("mod tests {"))
            })
            .unwrap_or(lines.len());
        let lines = lines.into_iter().take(end).enumerate();
        lines.map(|(index, line)| (index + 1, line))
    }

    /// Its numbered lines of code: without comments and tests.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let in_test = self.is_test();
        self.before_tests()
            .filter(move |(_, line)| !in_test && !line.trim_start().starts_with("//"))
    }
}

#[derive(Default)]
pub struct Violations(BTreeSet<String>);

impl Violations {
    pub fn add(&mut self, path: &str, line: usize, what: &str) {
        self.0.insert(format!("{path}:{line}: {what}"));
    }

    /// Fails the test unless the list is empty.
    pub fn none(self) {
        let mut text = String::new();
        for violation in &self.0 {
            let _ = writeln!(text, "{violation}");
        }
        assert!(self.0.is_empty(), "\n{text}");
    }

    /// Compares what a rule found with its exceptions: too many are violations, and so is an
    /// exception that allows more than was found.
    ///
    /// `found` has the path, the line and the key of each finding; `exceptions` the key, how many
    /// findings it allows, and why.
    pub fn of(
        found: &[(String, usize, String)],
        exceptions: &[(&str, usize, &str)],
        what: &str,
    ) -> Self {
        let mut violations = Self::default();
        let mut counts = BTreeMap::<&str, usize>::new();
        for (_, _, key) in found {
            *counts.entry(key).or_default() += 1;
        }
        let allowed = |key: &str| exceptions.iter().find(|(of, ..)| *of == key);
        for (path, line, key) in found {
            let (count, most) = (counts[key.as_str()], allowed(key).map_or(0, |(_, n, _)| *n));
            if count > most {
                violations.add(
                    path,
                    *line,
                    &format!("{what} ({key}: {count}, allowed {most})"),
                );
            }
        }
        for (key, most, _) in exceptions {
            let count = counts.get(key).copied().unwrap_or_default();
            if count < *most {
                let what = format!("lower the exception for {key} to {count}; remove it at 0");
                violations.add("tests/tidy", 1, &what);
            }
        }
        violations
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below some folders with one of these endings, sorted by path.
pub fn files(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let ignored = ignored();
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a folder can be read");
            let entries = entries.map(|entry| entry.expect("an entry can be read").path());
            waiting.extend(entries.filter(|p| !ignored.iter().any(|i| p.ends_with(i))));
        } else if endings
            .iter()
            .any(|end| path.to_string_lossy().ends_with(end))
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root()).expect("below the root");
            let path = path.to_string_lossy().replace('\\', "/");
            found.push(Source { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(
        !found.is_empty(),
        "no files with the endings {endings:?} in {folders:?}"
    );
    found
}

/// Names of folders that do not belong to the project: those in `.gitignore`, and git's own.
fn ignored() -> Vec<String> {
    let list = std::fs::read_to_string(root().join(".gitignore")).unwrap_or_default();
    let folders = list
        .lines()
        .filter_map(|line| line.trim().strip_suffix('/'));
    let last = folders.filter_map(|folder| folder.rsplit('/').next());
    let own = [".git", "target", "node_modules"];
    last.chain(own).map(str::to_owned).collect()
}
