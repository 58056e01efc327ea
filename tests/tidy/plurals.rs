//! Rule for messages: a count and its noun agree.
//!
//! Does: find `{} pages` and the like in the code. Does not: read text that is put together
//! otherwise. Invariant: constants and limits (`{MAX_PAGES} pages`, `{limit} bytes`) are not meant:
//! they are never 1.

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
        let rest = &line[at + 2..];
        let ends = |noun: &str| !rest[noun.len()..].starts_with(char::is_alphanumeric);
        let mut nouns = NOUNS.iter();
        found.extend(nouns.find(|noun| rest.starts_with(**noun) && ends(noun)));
    }
    found
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

#[test]
fn constants_limits_and_other_words_are_not_counts() {
    assert_eq!(counted("\"{} pages, {n:>4} bytes\""), ["pages", "bytes"]);
    assert_eq!(counted("\"{} base directories\""), ["base directories"]);
    for fine in [
        "{MAX} pages",
        "{limit} bytes",
        "{} pagesomething",
        "{name} has pages",
    ] {
        assert!(counted(fine).is_empty(), "{fine}");
    }
}
