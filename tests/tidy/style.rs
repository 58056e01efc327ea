//! Rules for single files: header, length, width of the lines, no unfinished code.

use std::collections::BTreeMap;
use std::path::Path;

use crate::source::{Source, Violations, files};

/// Text that may occur nowhere, tests included, and what to do instead.
const NOWHERE: &[(&str, &str)] = &[
    (concat!("todo", "!("), "write the code, or remove the call"),
    (
        concat!("unimplemented", "!("),
        "write the code, or remove the call",
    ),
    (concat!("dbg", "!("), "log with tracing"),
];

/// Files longer than [`MAX_LINES`], and the length that each may have.
const LENGTH_EXCEPTIONS: &[(&str, usize)] = &[];

const MAX_LINES: usize = 500;
const MAX_COLUMNS: usize = 100;

/// Files `mod.rs` that are the largest of their folder: path, 1, reason.
const LARGEST_MODULE_FILES: &[(&str, usize, &str)] = &[];

/// The `mod.rs` files that have more lines before their tests than each of the other files in
/// their folder.
fn largest_module_files(sources: &[Source]) -> Vec<(String, usize, String)> {
    let lines = |source: &Source| source.before_tests().count();
    let folder = |source: &Source| Path::new(&source.path).parent().map(Path::to_owned);
    let is_module_file = |source: &&Source| source.path.ends_with("/mod.rs") && !source.is_test();
    sources
        .iter()
        .filter(is_module_file)
        .filter(|module| {
            let others = sources.iter().filter(|other| {
                folder(other) == folder(module) && other.path != module.path && !other.is_test()
            });
            let largest = others.map(lines).max();
            largest.is_some_and(|largest| lines(module) > largest)
        })
        .map(|module| (module.path.clone(), 1, module.path.clone()))
        .collect()
}

#[test]
fn mod_rs_is_never_the_largest_file_of_its_folder() {
    let found = largest_module_files(&files(&["src"], &[".rs"]));
    let what = "mod.rs is the largest file of its folder: move code to a file named after it";
    Violations::of(&found, LARGEST_MODULE_FILES, what).none();
}

#[test]
fn a_mod_rs_is_found_if_no_other_file_of_its_folder_has_as_many_lines() {
    let file = |path: &str, lines: usize| Source::new(path, &"x\n".repeat(lines));
    let largest = |sources: &[Source]| -> Vec<String> {
        let found = largest_module_files(sources).into_iter();
        found.map(|(path, ..)| path).collect()
    };
    let mut sources = vec![
        file("src/a/mod.rs", 9),
        file("src/a/b.rs", 8),
        file("src/a/tests.rs", 10),
        file("src/a/c/mod.rs", 20),
    ];
    assert_eq!(largest(&sources), ["src/a/mod.rs"]);
    sources.push(file("src/a/d.rs", 9));
    assert_eq!(largest(&sources), <[&str; 0]>::default());
}

#[test]
fn every_file_starts_with_its_contract() {
    let mut violations = Violations::default();
    for source in files(&["benches", "src", "tests"], &[".rs"]) {
        if !source.text.starts_with("//! ") {
            let what = "start the file with //!: what it does, what it does not do, its invariant";
            violations.add(&source.path, 1, what);
        }
    }
    violations.none();
}

#[test]
fn no_file_is_too_long() {
    let mut violations = Violations::default();
    let exceptions: BTreeMap<_, _> = LENGTH_EXCEPTIONS.iter().copied().collect();
    for source in files(&["src"], &[".rs"]) {
        let lines = source.before_tests().count();
        let most = exceptions
            .get(source.path.as_str())
            .copied()
            .unwrap_or(MAX_LINES);
        if lines > most && !source.is_test() {
            let what = format!("{lines} lines before its tests, {most} allowed: split it");
            violations.add(&source.path, most, &what);
        } else if most > MAX_LINES && lines < most {
            let what = format!(
                "lower the exception for {} to {lines}, or remove it",
                source.path
            );
            violations.add("tests/tidy/style.rs", 1, &what);
        }
    }
    violations.none();
}

#[test]
fn no_line_is_too_long() {
    let mut long = Vec::new();
    for source in files(&["benches", "src", "tests"], &[".rs"]) {
        for (index, line) in source.text.lines().enumerate() {
            if line.chars().count() > MAX_COLUMNS {
                long.push(format!("{}:{}", source.path, index + 1));
            }
        }
    }
    assert!(
        long.is_empty(),
        "{} lines are longer than {MAX_COLUMNS} columns: wrap them\n{}",
        long.len(),
        long.join("\n")
    );
}

#[test]
fn no_unfinished_code_is_left() {
    let mut violations = Violations::default();
    for source in files(&["benches", "src", "tests"], &[".rs"]) {
        for (index, line) in source.text.lines().enumerate() {
            for (text, instead) in NOWHERE {
                if line.contains(text) {
                    violations.add(
                        &source.path,
                        index + 1,
                        &format!("{text}…) is not allowed: {instead}"),
                    );
                }
            }
        }
    }
    violations.none();
}

/// Story: a drain that had nothing to wait for ended before it was reported, in one of two runs:
/// `select!` polls its branches in a random order unless told otherwise.
#[test]
fn each_select_says_in_which_order_it_polls() {
    let mut violations = Violations::default();
    let mut found = 0;
    for source in files(&["src"], &[".rs"]) {
        let mut lines = source.text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            if !line.trim_end().ends_with("select! {") {
                continue;
            }
            found += 1;
            let next = lines.peek().map_or("", |(_, next)| next.trim());
            if !next.starts_with("biased;") {
                let message = "select! without `biased;` polls in a random order";
                violations.add(&source.path, index + 1, message);
            }
        }
    }
    assert!(found > 10, "the rule finds the uses: {found}");
    violations.none();
}
