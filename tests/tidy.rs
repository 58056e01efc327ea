//! Rules over the source itself: arrows between modules, places of dangerous calls, sizes,
//! contracts.
//!
//! Does: read the files on disk and print every violation with file, line, rule and what to do.
//! Does not: replace the compiler or clippy (functions of at most 70 lines are clippy's).
//! Invariant: the lists of exceptions may only shrink: one that is not needed any more is a
//! violation itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

/// Which modules may use which. Arrows point one way; `ingest` and `read` meet only in `catalog`.
const ARROWS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("crc", &[]),
    ("runtime", &[]),
    ("fair", &[]),
    ("memory", &["fair"]),
    ("dashboard", &[]),
    ("config", &["id"]),
    ("telemetry", &["config", "fair", "memory"]),
    ("segment", &["crc", "id"]),
    ("store", &["config", "fair", "id", "runtime", "telemetry"]),
    (
        "storage",
        &["config", "fair", "id", "runtime", "store", "telemetry"],
    ),
    (
        "cache",
        &[
            "catalog",
            "id",
            "memory",
            "read",
            "runtime",
            "segment",
            "storage",
            "telemetry",
        ],
    ),
    (
        "catalog",
        &[
            "cache",
            "crc",
            "id",
            "memory",
            "segment",
            "storage",
            "telemetry",
        ],
    ),
    (
        "exchange",
        &["crc", "id", "runtime", "storage", "telemetry"],
    ),
    (
        "ingest",
        &[
            "cache",
            "catalog",
            "config",
            "crc",
            "exchange",
            "fair",
            "id",
            "memory",
            "runtime",
            "segment",
            "storage",
            "telemetry",
        ],
    ),
    (
        "read",
        &[
            "cache",
            "catalog",
            "config",
            "id",
            "memory",
            "runtime",
            "segment",
            "storage",
            "telemetry",
        ],
    ),
    (
        "gc",
        &[
            "catalog",
            "config",
            "exchange",
            "id",
            "ingest",
            "read",
            "runtime",
            "storage",
            "telemetry",
        ],
    ),
    (
        "http",
        &["config", "fair", "memory", "runtime", "telemetry"],
    ),
    (
        "api",
        &[
            "catalog",
            "config",
            "dashboard",
            "exchange",
            "fair",
            "gc",
            "http",
            "id",
            "ingest",
            "memory",
            "read",
            "runtime",
            "segment",
            "storage",
            "telemetry",
        ],
    ),
    (
        "app",
        &[
            "api",
            "cache",
            "catalog",
            "config",
            "exchange",
            "gc",
            "http",
            "id",
            "ingest",
            "memory",
            "read",
            "runtime",
            "storage",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "config",
            "gc",
            "http",
            "id",
            "runtime",
            "segment",
            "storage",
            "store",
            "telemetry",
        ],
    ),
];

/// What may be written only in some places: the text, the places, what to do elsewhere.
const PLACES: &[(&str, &[&str], &str)] = &[
    ("object_store::", &["src/store/"], "go through crate::store"),
    (
        "axum::",
        &["src/api/", "src/http/"],
        "HTTP stops in api and http: pass plain values",
    ),
    (
        "http::",
        &["src/api/", "src/http/"],
        "HTTP stops in api and http: pass plain values",
    ),
    (
        "hyper::",
        &["src/api/", "src/http/"],
        "HTTP stops in api and http: pass plain values",
    ),
    (
        "hyper_util::",
        &["src/api/", "src/http/"],
        "HTTP stops in api and http: pass plain values",
    ),
    (
        "http_body::",
        &["src/api/", "src/http/"],
        "HTTP stops in api and http: pass plain values",
    ),
    (
        "tokio_rustls::",
        &["src/http/", "src/cli/health_tls.rs"],
        "TLS stops in http: pass plain values",
    ),
    (
        "std::env",
        &["src/config/"],
        "make it a setting, or take it from config::Environment",
    ),
    (
        "Instant::now",
        &["src/runtime.rs"],
        "ask the Clock that is passed in",
    ),
    (
        "SystemTime::now",
        &["src/runtime.rs"],
        "ask the Clock that is passed in",
    ),
    (
        "tokio::spawn",
        &["src/runtime.rs"],
        "spawn through the TaskGroup that is passed in",
    ),
    (
        "thread::spawn",
        &[],
        "spawn through the TaskGroup that is passed in",
    ),
    (
        "rand::",
        &["src/runtime.rs"],
        "ask the Random that is passed in",
    ),
    (
        "new_v4",
        &["src/runtime.rs"],
        "ask the Random that is passed in",
    ),
    (
        "println!",
        &["src/cli/"],
        "log with tracing: stdout belongs to the command line",
    ),
    (
        "eprintln!",
        &["src/cli/"],
        "log with tracing: a failure is told once, where it is handled",
    ),
    (
        "unsafe {",
        // sysconf, and mallopt.
        &["src/telemetry/process.rs", "src/cli/process.rs"],
        "find a safe way; this crate denies unsafe code",
    ),
];

/// What may be written nowhere, tests included.
const NOWHERE: &[(&str, &str)] = &[
    (concat!("todo", "!("), "write it, or leave it out"),
    (concat!("unimplemented", "!("), "write it, or leave it out"),
    (concat!("dbg", "!("), "log with tracing"),
];

/// What no file of the project may name, in any folder: paths of one machine, hosts of registries.
const FOREIGN: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/usr/lib", "/jvm/"),
    concat!("/home", "/"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("repo1.", "maven.org"),
    concat!("repo.maven", ".apache.org"),
    concat!("registry.", "npmjs.org"),
    concat!("proxy.", "golang.org"),
    concat!("/private/", "tmp"),
];

/// Files that may hold one of the [`PLACES`] texts elsewhere, with the reason.
const PLACE_EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "src/api/observe.rs",
    "Instant::now",
    "the outermost layer measures how long answers take, and decides nothing by it",
)];

/// Files longer than [`MAX_LINES`], with the length that they may have.
const LENGTH_EXCEPTIONS: &[(&str, usize)] = &[];

const MAX_LINES: usize = 500;
const MAX_COLUMNS: usize = 100;

/// A file of the project.
struct Source {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The top-level module it belongs to.
    fn module(&self) -> &str {
        let rest = self.path.strip_prefix("src/").unwrap_or(&self.path);
        rest.split(['/', '.']).next().unwrap_or(rest)
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Its lines with numbers, up to the inline tests.
    fn before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
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

    /// The same without comments and tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let in_test = self.is_test();
        self.before_tests()
            .filter(move |(_, line)| !in_test && !line.trim_start().starts_with("//"))
    }
}

#[derive(Default)]
struct Violations(BTreeSet<String>);

impl Violations {
    fn add(&mut self, path: &str, line: usize, what: &str) {
        self.0.insert(format!("{path}:{line}: {what}"));
    }

    fn none(self) {
        let mut text = String::new();
        for violation in &self.0 {
            let _ = writeln!(text, "{violation}");
        }
        assert!(self.0.is_empty(), "\n{text}");
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below some folders whose names end in one of these, sorted.
fn files(folders: &[&str], endings: &[&str]) -> Vec<Source> {
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
        "there is nothing to look at in {folders:?}"
    );
    found
}

/// Folders that are no part of the project: those of `.gitignore`, and git's own.
fn ignored() -> Vec<String> {
    let list = std::fs::read_to_string(root().join(".gitignore")).unwrap_or_default();
    let folders = list
        .lines()
        .filter_map(|line| line.trim().strip_suffix('/'));
    let last = folders.filter_map(|folder| folder.rsplit('/').next());
    let own = [".git", "target", "node_modules"];
    last.chain(own).map(str::to_owned).collect()
}

/// Whether `text` occurs in `line` as a path or call of its own, not as the end of a longer name.
fn occurs(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            || text.starts_with(char::is_uppercase)
            || text == "new_v4"
            || (text.contains("spawn") && before == Some(':'))
    })
}

/// The modules named by `crate::x` or `crate::{x, y::z}` in some code, with the line of each.
fn uses(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code: Vec<(usize, &str)> = source.code().collect();
    for (index, (number, line)) in code.iter().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let more = code[index + 1..].iter().take(20).map(|(_, l)| *l);
                let joined: String = std::iter::once(group).chain(more).collect();
                let group = joined.split(';').next().unwrap_or(&joined);
                let names = top_level(group).into_iter();
                found.extend(names.map(|name| (*number, name)));
            } else {
                found.push((*number, identifier(rest)));
            }
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// `a, b::{c, d}, e}` names `a`, `b` and `e`.
fn top_level(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut begin) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begin = true,
            c if begin && depth == 0 && !c.is_whitespace() => {
                names.push(identifier(&group[at..]));
                begin = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn modules_use_only_what_their_arrows_allow_and_every_arrow_is_used() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut unused: BTreeSet<(&str, &str)> = ARROWS
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |to| (*from, *to)))
        .collect();
    let mut violations = Violations::default();
    for source in files(&["src"], &[".rs"]) {
        let module = source.module();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let Some(targets) = allowed.get(module) else {
            violations.add(
                &source.path,
                1,
                "this module has no row in ARROWS of tests/tidy.rs",
            );
            continue;
        };
        for (line, target) in uses(&source) {
            unused.retain(|(from, to)| !(*from == module && *to == target));
            if target != module && !targets.contains(&target.as_str()) {
                let what = format!(
                    "{module} may not use crate::{target}: it may use {targets:?}; move the code, \
                     or pass the thing in from app"
                );
                violations.add(&source.path, line, &what);
            }
        }
    }
    for (from, to) in unused {
        let what = format!("no file uses the arrow {from} -> {to}: take it out");
        violations.add("tests/tidy.rs", 1, &what);
    }
    violations.none();
}

#[test]
fn the_arrows_form_no_circle() {
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for (module, targets) in ARROWS {
        let early = targets.iter().find(|target| !known.contains(*target));
        assert_eq!(
            early, None,
            "{module} points to a module below it in ARROWS"
        );
        known.insert(module);
    }
}

#[test]
fn what_has_its_place_is_written_nowhere_else() {
    let mut violations = Violations::default();
    let mut unused: BTreeSet<(&str, &str)> = PLACE_EXCEPTIONS
        .iter()
        .map(|(path, text, _)| (*path, *text))
        .collect();
    for source in files(&["src"], &[".rs"]) {
        for (line, code) in source.code() {
            for (text, places, instead) in PLACES {
                if !occurs(code, text) || places.iter().any(|p| source.path.starts_with(p)) {
                    continue;
                }
                let exception = (source.path.as_str(), *text);
                if PLACE_EXCEPTIONS
                    .iter()
                    .any(|(p, t, _)| (*p, *t) == exception)
                {
                    unused.retain(|known| *known != exception);
                } else {
                    let what = format!("{text} has its place in {places:?}: {instead}");
                    violations.add(&source.path, line, &what);
                }
            }
        }
    }
    for (path, text) in unused {
        let what =
            format!("the exception for {text} in {path} is not needed any more: take it out");
        violations.add("tests/tidy.rs", 1, &what);
    }
    violations.none();
}

#[test]
fn nothing_is_left_for_later() {
    let mut violations = Violations::default();
    for source in files(&["benches", "src", "tests"], &[".rs"]) {
        for (index, line) in source.text.lines().enumerate() {
            for (text, instead) in NOWHERE {
                if line.contains(text) {
                    violations.add(&source.path, index + 1, &format!("{text}…): {instead}"));
                }
            }
        }
    }
    violations.none();
}

#[test]
fn every_file_opens_with_its_contract() {
    let mut violations = Violations::default();
    for source in files(&["benches", "src", "tests"], &[".rs"]) {
        if !source.text.starts_with("//! ") {
            let what = "open the file with //!: what it does, what it does not own, its invariant";
            violations.add(&source.path, 1, what);
        }
    }
    violations.none();
}

#[test]
fn files_stay_short() {
    let mut violations = Violations::default();
    let exceptions: BTreeMap<_, _> = LENGTH_EXCEPTIONS.iter().copied().collect();
    for source in files(&["src"], &[".rs"]) {
        let lines = source.before_tests().count();
        let most = exceptions
            .get(source.path.as_str())
            .copied()
            .unwrap_or(MAX_LINES);
        if lines > most && !source.is_test() {
            let what = format!("{lines} lines before its tests, at most {most}: split it");
            violations.add(&source.path, most, &what);
        } else if most > MAX_LINES && lines < most {
            let what = format!(
                "lower the exception of {} to {lines}, or take it out",
                source.path
            );
            violations.add("tests/tidy.rs", 1, &what);
        }
    }
    violations.none();
}

#[test]
fn lines_stay_within_the_columns() {
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
        "{} lines are longer than {MAX_COLUMNS} columns: wrap\n{}",
        long.len(),
        long.join("\n")
    );
}

#[test]
fn no_file_names_a_machine_or_a_registry() {
    let mut violations = Violations::default();
    let endings = [
        ".rs",
        ".md",
        ".toml",
        ".sh",
        ".java",
        ".xml",
        ".yaml",
        ".yml",
        ".properties",
        ".service",
        ".json",
        ".html",
        "Dockerfile",
        "/run",
        ".config",
        ".dockerignore",
        ".gitignore",
    ];
    for source in files(&[""], &endings) {
        for (index, line) in source.text.lines().enumerate() {
            for text in FOREIGN.iter().filter(|text| line.contains(**text)) {
                let what =
                    format!("{text} belongs to one machine or network: find it, or leave it out");
                violations.add(&source.path, index + 1, &what);
            }
        }
    }
    violations.none();
}

#[test]
fn the_rules_see_what_they_should_see() {
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        text: text.into(),
    };
    let file = source(
        "src/read/mod.rs",
        "//! x\nuse crate::{\n    commit::{a, b},\n    ingest,\n};\nlet x = crate::api::y();\n\
         // crate::storage\n#[cfg(test)]\nmod tests {\n    use crate::config;\n}\n",
    );
    let names: Vec<_> = uses(&file).into_iter().collect();
    let expected = [(2, "commit"), (2, "ingest"), (6, "api")];
    assert_eq!(names, expected.map(|(line, name)| (line, name.to_owned())));
    assert_eq!(file.module(), "read");
    assert_eq!(source("src/id.rs", "").module(), "id");
    assert!(occurs(
        "let x = tokio::time::Instant::now();",
        "Instant::now"
    ));
    assert!(occurs("std::thread::spawn(f)", "thread::spawn"));
    assert!(occurs("use http::Method;", "http::"));
    assert!(!occurs("use super::http::HttpMetrics;", "http::"));
    assert!(!occurs("my_object_store::x", "object_store::"));
    assert!(!occurs("eprintln!(\"\")", "println!"));
}
