//! Rules over the documentation: what a page names exists, and every promise has its tests.
//!
//! Does: read the Markdown files on disk and print every violation with file, line and what to do.
//! Does not: judge the prose, or compare pages with behaviour (settings, metrics, problems and
//! routes are compared beside their code). Invariant: a page can only name files, sections,
//! functions and tests that exist.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

const MAX_COLUMNS: usize = 100;

/// Pages that record what was, so the paths in them may be gone.
const HISTORICAL: &[&str] = &["docs/lab/", "CHANGELOG.md"];

/// Folders of which every path in a code span must exist.
const FOLDERS: &[&str] = &[
    "benches",
    "config",
    "deploy",
    "docs",
    "fuzz",
    "src",
    "tests",
    "trino-plugin",
];

/// A Markdown file, or another text.
struct Page {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl Page {
    /// The numbered lines outside code blocks.
    fn text_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.lines().filter(move |(_, line)| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence && !line.starts_with("    ")
        })
    }

    /// The same without tables.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_row = |line: &str| line.trim_start().starts_with('|');
        self.text_lines().filter(move |(_, line)| !is_row(line))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// The links of a line as text and target.
    fn links(line: &str) -> Vec<(&str, &str)> {
        let mut found = Vec::new();
        for (at, _) in line.match_indices("](") {
            let Some(end) = line[at + 2..].find(')') else {
                continue;
            };
            let begin = line[..at].rfind('[').map_or(0, |begin| begin + 1);
            found.push((&line[begin..at], &line[at + 2..at + 2 + end]));
        }
        found
    }

    /// The code spans of a line.
    fn spans(line: &str) -> impl Iterator<Item = &str> {
        line.split('`').skip(1).step_by(2)
    }

    /// The anchors of its headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose().filter(|(_, line)| line.starts_with('#'));
        let anchor = |text: &str| {
            let text = text.trim_start_matches('#').trim().to_lowercase();
            let fits = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            text.chars()
                .filter(fits)
                .collect::<String>()
                .replace(' ', "-")
        };
        headings.map(|(_, line)| anchor(line)).collect()
    }

    fn is_historical(&self) -> bool {
        HISTORICAL
            .iter()
            .any(|prefix| self.path.starts_with(prefix))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the project.
fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(root().join(path)).ok()
}

/// All pages of the project, sorted.
fn pages() -> Vec<Page> {
    files("md")
}

/// All files of the project with this extension, sorted.
fn files(extension: &str) -> Vec<Page> {
    let skipped = [".git", "target", "node_modules", "data", "corpus"];
    let (mut found, mut waiting) = (Vec::new(), vec![root()]);
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() && !skipped.iter().any(|name| path.ends_with(name)) {
                waiting.push(path);
            } else if path.extension().is_some_and(|end| end == extension) {
                let text = std::fs::read_to_string(&path).expect("a file can be read");
                let path = path.strip_prefix(root()).expect("below the root");
                let path = path.to_string_lossy().replace('\\', "/");
                found.push(Page { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `target`, relative to the folder of `page`, from the root and without `.` and `..`.
fn resolve(page: &str, target: &str) -> String {
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let mut parts = Vec::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    parts.join("/")
}

fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn lines_of_prose_stay_within_the_columns() {
    let mut long = Vec::new();
    for page in pages() {
        for (number, line) in page.prose() {
            // A line that is one link cannot be wrapped.
            let breakable = line.trim().contains(' ');
            if line.chars().count() > MAX_COLUMNS && breakable {
                long.push(format!(
                    "{}:{number}: wrap at {MAX_COLUMNS} columns",
                    page.path
                ));
            }
        }
    }
    none(long);
}

#[test]
fn links_between_pages_resolve() {
    let pages = pages();
    let anchors: BTreeMap<&str, BTreeSet<String>> = pages
        .iter()
        .map(|p| (p.path.as_str(), p.anchors()))
        .collect();
    let mut broken = Vec::new();
    for page in &pages {
        for (number, line) in page.text_lines() {
            for (_, target) in Page::links(line) {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let file = match file {
                    "" => page.path.clone(),
                    file => resolve(&page.path, file),
                };
                if !root().join(&file).exists() {
                    broken.push(format!("{}:{number}: {file} does not exist", page.path));
                } else if !anchor.is_empty()
                    && let Some(known) = anchors.get(file.as_str())
                    && !known.contains(anchor)
                {
                    broken.push(format!("{}:{number}: {file} has no #{anchor}", page.path));
                }
            }
        }
    }
    none(broken);
}

/// Whether a code span is a path of one file or folder below one of [`FOLDERS`].
#[test]
fn every_page_is_in_the_table_of_contents_of_the_site() {
    let summary = read("docs/SUMMARY.md").expect("the table of contents");
    let listed: BTreeSet<String> = summary
        .lines()
        .flat_map(Page::links)
        .map(|(_, target)| format!("docs/{target}"))
        .collect();
    // Those below decisions/ and lab/ are added when the site is built.
    let missing = pages().into_iter().filter(|page| {
        let name = page.path.strip_prefix("docs/");
        name.is_some_and(|name| !name.contains('/') && name != "SUMMARY.md")
            && !listed.contains(&page.path)
    });
    none(
        missing
            .map(|page| format!("docs/SUMMARY.md does not list {}", page.path))
            .collect(),
    );
}

fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let folder = span.split('/').next().unwrap_or(span);
    span.contains('/') && FOLDERS.contains(&folder) && span.chars().all(plain)
}

#[test]
fn paths_in_code_spans_exist() {
    let mut missing = Vec::new();
    for page in pages().iter().filter(|page| !page.is_historical()) {
        for (number, line) in page.text_lines() {
            for span in Page::spans(line).filter(|span| is_path(span)) {
                let built = span.contains("/target/");
                if !built && !root().join(span).exists() {
                    missing.push(format!("{}:{number}: {span} does not exist", page.path));
                }
            }
        }
    }
    none(missing);
}

/// The permissions on buckets that a text names, such as `s3:GetObject`.
fn permissions(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for prefix in ["s3:", "storage.buckets.", "storage.objects."] {
        for (at, _) in text.match_indices(prefix) {
            let rest = &text[at + prefix.len()..];
            let length = rest.find(|c: char| !c.is_ascii_alphabetic());
            let name = &rest[..length.unwrap_or(rest.len())];
            // s3://, and s3:prefix, which is a condition.
            let is_action = prefix != "s3:" || name.starts_with(|c: char| c.is_ascii_uppercase());
            if !name.is_empty() && is_action {
                found.insert(&text[at..at + prefix.len() + name.len()]);
            }
        }
    }
    found
}

/// Story: the code read the settings of a bucket, and the page of permissions denied it.
#[test]
fn every_permission_that_is_named_is_on_the_page_of_buckets() {
    let buckets = read("docs/buckets.md").expect("the page exists");
    let granted = permissions(&buckets);
    let mut missing = Vec::new();
    let sources = files("rs").into_iter().chain(pages());
    for file in sources.filter(|file| !file.is_historical() && !file.path.starts_with("tests/")) {
        let named = permissions(&file.text);
        let unknown = named.difference(&granted);
        missing.extend(unknown.map(|name| format!("{}: {name}", file.path)));
    }
    none(missing);
}

/// Whether `code` defines an item of this name.
fn defines(code: &str, name: &str) -> bool {
    ["fn", "struct", "enum", "trait", "type", "const", "mod"]
        .iter()
        .any(|keyword| {
            let item = format!("{keyword} {name}");
            code.match_indices(&item).any(|(at, _)| {
                let next = code[at + item.len()..].chars().next();
                !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
            })
        })
}

#[test]
fn every_step_of_the_walks_links_to_a_function_that_exists() {
    let page = Page {
        path: "docs/architecture.md".into(),
        text: read("docs/architecture.md").expect("docs/architecture.md can be read"),
    };
    let (mut wrong, mut steps) = (Vec::new(), 0);
    for (number, line) in page.lines() {
        for (text, target) in Page::links(line).iter().filter(|(_, t)| t.ends_with(".rs")) {
            let Some(name) = text.strip_prefix('`').and_then(|t| t.strip_suffix('`')) else {
                continue;
            };
            let file = resolve(&page.path, target);
            let item = name.rsplit("::").next().unwrap_or(name);
            if item.contains(['/', '.']) {
                continue; // A path; the link itself is checked above.
            }
            steps += 1;
            if !read(&file).is_some_and(|code| defines(&code, item)) {
                wrong.push(format!(
                    "{}:{number}: {file} does not define {item}",
                    page.path
                ));
            }
        }
    }
    assert!(steps >= 20, "{steps} functions are named in {}", page.path);
    none(wrong);
}

/// The numbers and titles of the promises of a page: its headings `## 1. Title`.
fn promises(page: &str) -> Vec<(&str, &str)> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    headings
        .filter_map(|heading| heading.split_once(". "))
        .collect()
}

#[test]
fn every_promise_has_tests_and_every_test_named_exists() {
    let semantics = read("docs/semantics.md").expect("docs/semantics.md can be read");
    let index = read("docs/semantics-tests.md").expect("docs/semantics-tests.md can be read");
    assert_eq!(promises(&semantics).len(), 10);
    assert_eq!(
        promises(&semantics),
        promises(&index),
        "the two pages differ"
    );
    let code = files("rs");
    let (mut wrong, mut named) = (Vec::new(), 0);
    for section in index.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let (mut file, mut tests) = ("", 0);
        for line in section.lines() {
            if let Some(rest) = line.strip_prefix("In `") {
                file = rest.trim_end_matches("`:");
            } else if let Some(rest) = line.strip_prefix("- `") {
                let name = rest.split('`').next().unwrap_or(rest);
                tests += 1;
                let test = format!("fn {name}(");
                if !read(file).is_some_and(|code| code.contains(&test)) {
                    let found = code.iter().find(|page| page.text.contains(&test));
                    let found = found.map_or("nowhere", |page| page.path.as_str());
                    wrong.push(format!(
                        "{title}: {name} is not in {file}; it is in {found}"
                    ));
                }
            }
        }
        if tests == 0 {
            wrong.push(format!("{title}: no test is named"));
        }
        named += tests;
    }
    none(wrong);
    assert!(named >= 80, "{named} tests are named");
}

/// The rows of the table that `tests/stores` writes: the store, then its cells.
fn tried(page: &str) -> Vec<Vec<&str>> {
    let begin = "<!-- written by `cargo test --test stores";
    let written = page.split_once(begin).map_or("", |(_, rest)| rest);
    let (written, _) = written.split_once("<!-- end").unwrap_or((written, ""));
    let rows = written.lines().filter(|line| line.starts_with("| "));
    rows.skip(1)
        .map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

/// A cell is claimed only where a run of that check wrote it down.
#[test]
fn the_table_of_stores_shows_what_was_recorded_and_nothing_else() {
    let (page, recorded) = (read("docs/stores.md"), read("docs/stores.tsv"));
    let (page, recorded) = (page.unwrap(), recorded.unwrap());
    let entries: Vec<Vec<&str>> = recorded
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect())
        .collect();
    let (mut shown, rows) = (0, tried(&page));
    assert!(!rows.is_empty(), "docs/stores.md has no table");
    for row in &rows {
        let of_store = |entry: &&Vec<&str>| row[0].contains(&format!(": {} ", entry[0]));
        let of_store: Vec<_> = entries.iter().filter(of_store).collect();
        for entry in &of_store {
            assert!(row[0].contains(entry[2]), "{row:?} lacks {entry:?}");
        }
        for cell in &row[1..] {
            let is_shown = |e: &&&Vec<&str>| format!("{}, {}", e[4], e[3]) == *cell;
            assert!(
                of_store.iter().any(|entry| is_shown(&entry)),
                "docs/stores.tsv has no {cell:?} of {}",
                row[0]
            );
            shown += 1;
        }
    }
    assert_eq!(shown, entries.len(), "cells shown, and entries recorded");
}

#[test]
fn the_rules_see_what_they_should_see() {
    let text =
        "# A b: `c`\n[x](y.md#z) and [`m::f`](../src/m.rs)\n```\n[n](o)\n```\n| `src/a.rs` |\n";
    let page = Page {
        path: "docs/p.md".into(),
        text: text.into(),
    };
    assert_eq!(page.prose().count(), 2);
    assert_eq!(page.text_lines().count(), 3);
    assert!(page.anchors().contains("a-b-c"));
    let links = Page::links("[x](y.md#z) and [`m::f`](../src/m.rs)");
    assert_eq!(links, [("x", "y.md#z"), ("`m::f`", "../src/m.rs")]);
    assert_eq!(resolve("docs/p.md", "../src/m.rs"), "src/m.rs");
    assert!(is_path("src/a.rs") && !is_path("segment/x.rs") && !is_path("src/{a,b}.rs"));
    assert!(defines("pub async fn finish(&self)", "finish"));
    assert!(!defines("fn finish_here()", "finish"));
    let named = permissions("`s3:GetObject`, s3://b, s3:prefix, storage.buckets.get.");
    assert!(
        named
            .into_iter()
            .eq(["s3:GetObject", "storage.buckets.get"])
    );
}
