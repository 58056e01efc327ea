//! Rules for the source code itself: dependencies between modules, where certain calls may be
//! made, sizes, file headers.
//!
//! Does: read the files on disk and print every violation with its file, line, rule and remedy.
//! Does not: repeat checks of the compiler or clippy (which limits functions to 70 lines).
//! Invariant: the lists of exceptions may only shrink: an exception that is no longer needed is
//! itself a violation.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own

mod callbacks;
mod errors;
mod imports;
mod plurals;
mod source;
mod style;

use std::collections::{BTreeMap, BTreeSet};

use source::{Source, Violations, files};

/// Which modules each module may use, lowest module first; an arrow may only point to a module
/// listed before. `ingest` and `read` never use each other: both use `catalog`.
const ARROWS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("certificate", &[]),
    ("crc", &[]),
    ("human", &[]),
    ("runtime", &[]),
    ("fair", &[]),
    ("memory", &["fair", "human"]),
    ("config", &["id", "human"]),
    ("telemetry", &["config", "fair", "memory", "runtime"]),
    ("segment", &["crc", "id", "human"]),
    (
        "store",
        &[
            "certificate",
            "config",
            "fair",
            "id",
            "human",
            "runtime",
            "telemetry",
        ],
    ),
    (
        "storage",
        &["config", "crc", "id", "human", "runtime", "store"],
    ),
    ("dashboard", &["human", "storage", "telemetry"]),
    (
        "cache",
        &[
            "id",
            "memory",
            "human",
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
            "fair",
            "id",
            "memory",
            "human",
            "runtime",
            "segment",
            "storage",
            "telemetry",
        ],
    ),
    (
        "exchange",
        &["crc", "id", "human", "runtime", "segment", "storage"],
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
            "human",
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
            "human",
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
        &[
            "certificate",
            "config",
            "fair",
            "memory",
            "human",
            "runtime",
            "telemetry",
        ],
    ),
    (
        "reload",
        &[
            "catalog",
            "config",
            "exchange",
            "fair",
            "http",
            "ingest",
            "memory",
            "runtime",
            "storage",
            "store",
            "telemetry",
        ],
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
            "human",
            "read",
            "reload",
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
            "human",
            "read",
            "reload",
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
            "crc",
            "exchange",
            "gc",
            "http",
            "id",
            "human",
            "runtime",
            "segment",
            "storage",
            "store",
            "telemetry",
        ],
    ),
];

/// Text that may occur only in some places: the text, the places, what to do elsewhere.
const PLACES: &[(&str, &[&str], &str)] = &[
    ("object_store::", &["src/store/"], "go through crate::store"),
    (
        "axum::",
        &["src/api/", "src/http/"],
        "only api and http know HTTP: pass plain values",
    ),
    (
        "http::",
        &["src/api/", "src/http/"],
        "only api and http know HTTP: pass plain values",
    ),
    (
        "hyper::",
        &["src/api/", "src/http/"],
        "only api and http know HTTP: pass plain values",
    ),
    (
        "hyper_util::",
        &["src/api/", "src/http/"],
        "only api and http know HTTP: pass plain values",
    ),
    (
        "http_body::",
        &["src/api/", "src/http/", "src/store/object/progress.rs"],
        "only api, http and the clients of object stores know HTTP: pass plain values",
    ),
    (
        "tokio_rustls::",
        &["src/certificate.rs", "src/http/", "src/cli/client_tls.rs"],
        "only http knows TLS: pass plain values",
    ),
    (
        "opentelemetry",
        &["src/telemetry/traces/"],
        "make spans with telemetry::traces",
    ),
    (
        "reqwest::",
        &[
            "src/telemetry/traces/",
            "src/store/object/causes.rs",
            "src/store/object/tls.rs",
        ],
        "only the clients of stores and the export of traces speak HTTP to others",
    ),
    (
        "std::env",
        &["src/config/"],
        "make it a setting, or read it from config::Environment",
    ),
    (
        "Instant::now",
        &["src/runtime.rs"],
        "use the Clock that is passed in",
    ),
    (
        "SystemTime::now",
        &["src/runtime.rs"],
        "use the Clock that is passed in",
    ),
    (
        "tokio::spawn",
        &["src/runtime.rs"],
        "spawn through the TaskGroup that is passed in",
    ),
    (
        "std::fs",
        &[
            "src/cli/",
            "src/config/",
            "src/http/credentials/",
            "src/store/",
        ],
        "a file may lie on a file system that hangs: read it at start and on a reload, and keep \
         what was found",
    ),
    (
        "tokio::runtime",
        &[
            "src/runtime.rs",
            "src/cli/async_runtime.rs",
            "src/store/hdfs/workers.rs",
        ],
        "run the work of a command with cli::async_runtime::block_on, which ends although a file \
         system hangs",
    ),
    (
        "thread::spawn",
        &[],
        "spawn through the TaskGroup that is passed in",
    ),
    (
        "rand::",
        &["src/runtime.rs"],
        "use the Random that is passed in",
    ),
    (
        "new_v4",
        &["src/runtime.rs"],
        "use the Random that is passed in",
    ),
    (
        "println!",
        &["src/cli/"],
        "log with tracing: stdout belongs to the command line",
    ),
    (
        "eprintln!",
        &["src/cli/"],
        "log with tracing: a failure is logged once, where it is handled",
    ),
    (
        "unsafe {",
        // sysconf, and mallopt.
        &["src/telemetry/process.rs", "src/cli/process.rs"],
        "use safe code: this crate denies unsafe code",
    ),
];

/// Text that may occur in no file, in any folder: paths of one machine, hosts of registries.
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

/// Files that may contain a text of [`PLACES`] although it belongs elsewhere, and why.
const PLACE_EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "src/api/observe.rs",
    "Instant::now",
    "the outermost layer measures response times, and no decision depends on them",
)];

/// Whether `text` occurs in `line` as a whole path or call, not as the end of a longer name.
fn occurs(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            || text.starts_with(char::is_uppercase)
            || text == "new_v4"
            || (text.contains("spawn") && before == Some(':'))
    })
}

/// The top-level modules that `crate::x` and `crate::{x, y::z}` refer to, each with its line.
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
fn modules_use_only_what_arrows_allows_and_every_arrow_is_used() {
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
                "this module has no row in ARROWS of tests/tidy/main.rs",
            );
            continue;
        };
        for (line, target) in uses(&source) {
            unused.retain(|(from, to)| !(*from == module && *to == target));
            if target != module && !targets.contains(&target.as_str()) {
                let what = format!(
                    "{module} may not use crate::{target}, only {targets:?}: move the code, or \
                     pass the value in from app"
                );
                violations.add(&source.path, line, &what);
            }
        }
    }
    for (from, to) in unused {
        let what = format!("no file uses the arrow {from} -> {to}: remove it");
        violations.add("tests/tidy/main.rs", 1, &what);
    }
    violations.none();
}

#[test]
fn the_arrows_form_no_cycle() {
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for (module, targets) in ARROWS {
        let later = targets.iter().find(|target| !known.contains(*target));
        assert_eq!(
            later, None,
            "{module} uses a module that ARROWS lists after it"
        );
        known.insert(module);
    }
}

#[test]
fn restricted_text_occurs_only_in_its_places() {
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
                    let what = format!("{text} is allowed only in {places:?}: {instead}");
                    violations.add(&source.path, line, &what);
                }
            }
        }
    }
    for (path, text) in unused {
        let what = format!("the exception for {text} in {path} is no longer needed: remove it");
        violations.add("tests/tidy/main.rs", 1, &what);
    }
    violations.none();
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
                    format!("{text} belongs to one machine or network: discover it, or omit it");
                violations.add(&source.path, index + 1, &what);
            }
        }
    }
    violations.none();
}

#[test]
fn the_rules_find_uses_and_calls_but_not_parts_of_names() {
    let file = Source::new(
        "src/read/mod.rs",
        "//! x\nuse crate::{\n    commit::{a, b},\n    ingest,\n};\nlet x = crate::api::y();\n\
         // crate::storage\n#[cfg(test)]\nmod tests {\n    use crate::config;\n}\n",
    );
    let names: Vec<_> = uses(&file).into_iter().collect();
    let expected = [(2, "commit"), (2, "ingest"), (6, "api")];
    assert_eq!(names, expected.map(|(line, name)| (line, name.to_owned())));
    assert_eq!(file.module(), "read");
    assert_eq!(Source::new("src/id.rs", "").module(), "id");
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
