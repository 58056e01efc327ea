//! Rules for callbacks: calls against the arrows that no import shows.
//!
//! Code of a higher module can run inside a lower one through a trait, a stored closure or a
//! task-local value. Each rule lists today's cases with the reason; the lists may only shrink.

use std::collections::BTreeMap;

use crate::ARROWS;
use crate::source::{Source, Violations, files};

/// Traits of a lower module that a higher one implements: file and trait, how often, reason.
const UPWARD_TRAITS: &[(&str, usize, &str)] = &[
    ("src/cache/hot.rs: Reclaim", 1, "memory evicts cached data"),
    ("src/cache/lru.rs: Reclaim", 1, "memory evicts cached data"),
    (
        "src/storage/attached_store.rs: Store",
        1,
        "a wrapper below the retries, in which what only storage knows decides",
    ),
];

/// Files with closures or function pointers as types, by which code can be passed down and stored:
/// path, how often, reason.
const CALLABLES: &[(&str, usize, &str)] = &[
    (
        "src/config/keys.rs",
        3,
        "a row of the table of settings: how to set, show and check one",
    ),
    (
        "src/config/values.rs",
        1,
        "the reader of a value that may be a word instead; not stored",
    ),
    (
        "src/store/local/publish.rs",
        2,
        "how to name a new file; not stored",
    ),
    (
        "src/store/local/tree.rs",
        1,
        "what to do with each file of a folder; not stored",
    ),
    (
        "src/telemetry/pools.rs",
        1,
        "which number of a pool a gauge shows",
    ),
];

/// Files with task-local values, which pass data around the signatures: path, how often, reason.
const TASK_LOCALS: &[(&str, usize, &str)] = &[];

/// What `impl … Trait for …` implements: the last name of the path of the trait.
fn implemented_trait(header: &str) -> Option<&str> {
    let rest = header.trim_start();
    let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
    let rest = without_parameters(rest.strip_prefix("impl")?)?;
    let (path, _) = rest.split_once(" for ")?;
    let path = path.split('<').next().unwrap_or(path).trim();
    path.rsplit("::").next()
}

/// `<T: Fn() -> u8> Trait for X` without the type parameters.
fn without_parameters(text: &str) -> Option<&str> {
    if !text.starts_with('<') {
        return text.starts_with(' ').then_some(text);
    }
    let (mut depth, mut previous) = (0, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if previous != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[at + 1..]);
        }
        previous = c;
    }
    None
}

/// The trait that a line declares for other modules.
fn declared_trait(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (visibility, rest) = line.split_once("trait ")?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    visibility
        .starts_with("pub")
        .then(|| &rest[..end.unwrap_or(rest.len())])
}

/// Implementations of traits that a module lower in [`ARROWS`] declares.
fn upward_traits(sources: &[Source]) -> Vec<(String, usize, String)> {
    let height = |module: &str| ARROWS.iter().position(|(name, _)| *name == module);
    let mut declared = BTreeMap::new();
    for source in sources {
        for (_, line) in source.code() {
            if let Some(name) = declared_trait(line) {
                declared.insert(name, height(source.module()));
            }
        }
    }
    let mut found = Vec::new();
    for source in sources {
        let code: Vec<(usize, &str)> = source.code().collect();
        for (index, (number, line)) in code.iter().enumerate() {
            if !line.trim_start().starts_with("impl") && !line.starts_with("unsafe impl") {
                continue;
            }
            let lines = code[index..].iter().take(6).map(|(_, line)| *line);
            let header = lines.collect::<Vec<_>>().join(" ");
            let header = header.split('{').next().unwrap_or(&header);
            let Some(name) = implemented_trait(header) else {
                continue;
            };
            if declared
                .get(name)
                .is_some_and(|of| *of < height(source.module()))
            {
                let key = format!("{}: {name}", source.path);
                found.push((source.path.clone(), *number, key));
            }
        }
    }
    found
}

/// The lines with a closure or function pointer that can be stored: `dyn Fn…`, `fn(…)` as a type,
/// and `Fn…` as a bound of a struct or of an `impl` block.
fn callables(source: &Source) -> Vec<usize> {
    let mut in_header = false;
    let mut found = Vec::new();
    for (number, line) in source.code() {
        let start = line.trim_start();
        let item = start.trim_start_matches("pub ");
        let item = item.strip_prefix("pub(crate) ").unwrap_or(item);
        in_header |= item.starts_with("struct ") || item.starts_with("impl<");
        let objects = line.match_indices("dyn ");
        let is_object = objects
            .map(|(at, _)| line[at + 4..].trim_start_matches("for<'a> "))
            .any(is_closure);
        let pointers = line.match_indices("fn(");
        let is_pointer = pointers
            .map(|(at, _)| line[..at].chars().next_back())
            .any(|before| before.is_none_or(|c| !c.is_alphanumeric() && c != '_'));
        let mut bounds = line.match_indices(": ").map(|(at, _)| &line[at + 2..]);
        if is_object || is_pointer || (in_header && bounds.any(is_closure)) {
            found.push(number);
        }
        in_header &= !line.contains(['{', ';']);
    }
    found
}

fn is_closure(text: &str) -> bool {
    let text = text.strip_prefix("Async").unwrap_or(text);
    let names = ["Fn(", "FnMut(", "FnOnce("];
    names.iter().any(|name| text.starts_with(name))
}

fn task_locals(source: &Source) -> Vec<usize> {
    let lines = source.code();
    let lines = lines.filter(|(_, line)| line.contains("task_local!"));
    lines.map(|(number, _)| number).collect()
}

/// What a rule finds in `src`, counted by file.
fn by_file(rule: fn(&Source) -> Vec<usize>) -> Vec<(String, usize, String)> {
    let mut found = Vec::new();
    for source in files(&["src"], &[".rs"]) {
        for line in rule(&source) {
            found.push((source.path.clone(), line, source.path.clone()));
        }
    }
    found
}

#[test]
fn no_module_implements_a_trait_of_a_lower_one() {
    let found = upward_traits(&files(&["src"], &[".rs"]));
    let what = "a lower module declares this trait, so it calls up: move the question down, or \
                make the calls in sequence in the higher module";
    Violations::of(&found, UPWARD_TRAITS, what).none();
}

#[test]
fn every_closure_and_function_pointer_type_is_listed() {
    let what = "a stored closure can call up: pass a value instead, or return one";
    Violations::of(&by_file(callables), CALLABLES, what).none();
}

#[test]
fn no_value_is_task_local() {
    let what = "pass the value as an argument";
    Violations::of(&by_file(task_locals), TASK_LOCALS, what).none();
}

#[test]
fn implementations_of_lower_traits_are_found_in_all_spellings() {
    let traits = "pub trait Low {\n}\npub(crate) trait Crate: Send {\n}\ntrait Own {\n}\n";
    let implementations = "impl Low for X {}\n\
         impl<F: Fn() -> u8> crate::memory::Low for Y<F> {}\n\
         impl<T> Crate\n    for Z<T>\nwhere\n    T: Copy,\n{\n}\n\
         impl Own for X {}\nimpl X {\n    fn low(&self) {}\n}\nimpl Display for Low {}\n";
    let sources = [
        Source::new("src/memory.rs", traits),
        Source::new("src/api/mod.rs", implementations),
        Source::new("src/memory/x.rs", implementations),
        Source::new("src/id.rs", implementations),
    ];
    let found: Vec<_> = upward_traits(&sources);
    let expected = [(1, "Low"), (2, "Low"), (3, "Crate")];
    let expected = expected.map(|(line, name)| {
        let path = "src/api/mod.rs".to_owned();
        (path.clone(), line, format!("{path}: {name}"))
    });
    assert_eq!(found, expected);
}

#[test]
fn callables_and_task_locals_are_found_but_not_functions_that_take_closures() {
    let source = Source::new(
        "src/x.rs",
        "struct A {\n    f: Arc<dyn Fn(u8) -> u8>,\n    g: fn(u8),\n}\n\
         type B = Box<dyn FnOnce() + Send>;\n\
         pub struct C<F: FnMut()>(F);\n\
         pub(crate) struct D<F>\nwhere\n    F: AsyncFn(),\n{\n    f: F,\n}\n\
         impl<F: Fn()> C<F> {\n    fn each(f: impl Fn(u8)) {}\n}\n\
         fn visit(f: &mut dyn FnMut(u8)) {}\n\
         // dyn Fn()\n\
         tokio::task_local! {\n}\n",
    );
    assert_eq!(callables(&source), [2, 3, 5, 6, 9, 13, 16]);
    assert_eq!(task_locals(&source), [18]);
}
