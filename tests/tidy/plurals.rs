//! Rule for messages: a count and its noun agree.
//!
//! Does: find `{} pages` and the like in the daemon's code, `%s pages` in the plugin's. Does not:
//! read text that is put together otherwise. Invariant: constants and limits (`{MAX_PAGES} pages`,
//! `{limit} bytes`) are not meant: they are never 1.

use crate::source::{Violations, files};

/// The nouns that are counted, in the plural.
const NOUNS: &[&str] = &[
    "attempts",
    "base directories",
    "batches",
    "blocks",
    "bytes",
    "checks",
    "chunks",
    "commits",
    "connections",
    "cores",
    "daemons",
    "exchanges",
    "files",
    "indexes",
    "integrity checks",
    "markers",
    "objects",
    "pages",
    "partitions",
    "probe objects",
    "problems",
    "queries",
    "ranges",
    "retries",
    "seconds",
    "segments",
    "sinks",
    "tasks",
    "tokens",
];

/// The plural nouns that follow a placeholder directly.
fn counted(line: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("} ") {
        let name = line[..at].rsplit('{').next().unwrap_or_default();
        let constant = !name.is_empty() && !name.chars().any(|c| c.is_lowercase());
        if constant || matches!(name, "limit" | "longest") {
            continue;
        }
        found.extend(noun_at(&line[at + 2..]));
    }
    found
}

/// The same in Java, where a placeholder is `%s` or `%d`, or a number is added to a text.
fn counted_in_java(line: &str) -> Vec<&'static str> {
    let placeholders = ["%s ", "%d ", "+ \" "].into_iter();
    placeholders
        .flat_map(|placeholder| line.match_indices(placeholder))
        .filter_map(|(at, placeholder)| noun_at(&line[at + placeholder.len()..]))
        .collect()
}

/// The plural noun with which a text begins.
fn noun_at(text: &str) -> Option<&'static str> {
    let ends = |noun: &str| !text[noun.len()..].starts_with(char::is_alphanumeric);
    let mut nouns = NOUNS.iter();
    nouns
        .find(|noun| text.starts_with(**noun) && ends(noun))
        .copied()
}

/// Story: `stopover exchanges` ended with "1 exchanges", the page with "1 integrity checks", and a
/// finish that was refused counted "1 batches, 1 pages".
#[test]
fn a_count_agrees_with_its_noun() {
    let mut violations = Violations::default();
    for source in files(&["src"], &[".rs"]) {
        if source.path.ends_with("_tests.rs") {
            continue;
        }
        for (number, line) in source.code() {
            for noun in counted(line) {
                let what = format!("{{}} {noun} also counts 1: use crate::human::count");
                violations.add(&source.path, number, &what);
            }
        }
    }
    violations.none();
}

/// Story: a node that gave up at once said "gave up after 1 attempts".
#[test]
fn a_count_of_the_plugin_agrees_with_its_noun() {
    let mut violations = Violations::default();
    let sources = files(&["trino-plugin/stopover/src/main"], &[".java"]);
    assert!(sources.len() > 20, "the plugin's code is elsewhere");
    for source in sources {
        for (number, line) in source.code() {
            for noun in counted_in_java(line) {
                let what = format!("%s {noun} also counts 1: use Counts.count");
                violations.add(&source.path, number, &what);
            }
        }
    }
    violations.none();
}

#[test]
fn constants_limits_and_other_words_are_not_counts() {
    assert_eq!(counted("\"{} pages, {n:>4} bytes\""), ["pages", "bytes"]);
    assert_eq!(counted("\"{} base directories\""), ["base directories"]);
    assert_eq!(
        counted_in_java("\"%s pages, %d bytes\" + n + \" attempts\""),
        ["pages", "bytes", "attempts"]
    );
    assert!(counted_in_java("\"%s has pages\"").is_empty());
    for fine in [
        "{MAX} pages",
        "{limit} bytes",
        "{} pagesomething",
        "{name} has pages",
    ] {
        assert!(counted(fine).is_empty(), "{fine}");
    }
}
