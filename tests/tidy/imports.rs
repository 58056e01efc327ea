//! Rule for imports: no two files use each other.
//!
//! A module and its direct children are one unit in this respect: the parent declares and
//! re-exports its children, and they may use what it defines.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, Violations, files};

/// Pairs of files that use each other: the pair, 1, reason.
const MUTUAL_IMPORTS: &[(&str, usize, &str)] = &[];

/// The names from the crate's root to a file's module: `src/a/mod.rs` and `src/a.rs` are `[a]`.
fn module_path(file: &str) -> Vec<&str> {
    let path = file.strip_prefix("src/").unwrap_or(file);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut names: Vec<&str> = path.split('/').collect();
    names.pop_if(|last| matches!(*last, "mod" | "lib"));
    names
}

/// All paths that some code contains, `a::{b, c::d}` as `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    // The prefixes of the groups around the current place, and the path that is being read.
    let (mut groups, mut path): (Vec<Vec<&str>>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        if is_name(first) {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            path.push(&rest[..end]);
            rest = &rest[end..];
            if let Some(after) = rest.strip_prefix("::") {
                rest = after;
                continue;
            }
        } else if first == '{' && !(path.is_empty() && groups.is_empty()) {
            groups.push(path.clone());
            rest = &rest[1..];
            continue;
        } else {
            rest = &rest[first.len_utf8()..];
        }
        if path.len() > groups.last().map_or(1, Vec::len) {
            found.push(path.clone());
        }
        if first == '}' {
            groups.pop();
        }
        path = groups.last().cloned().unwrap_or_default();
    }
    found
}

/// The file that a path in `source` leads to, if it is one of the crate's.
fn target<'s, 'a>(
    source: &'s Source,
    path: &[&'s str],
    modules: &BTreeMap<Vec<&str>, &'a str>,
) -> Option<&'a str> {
    let mut module = module_path(&source.path);
    let mut names = path;
    match names[0] {
        "crate" => module.clear(),
        "self" => {}
        "super" => {
            while names[0] == "super" {
                module.pop();
                names = names.get(1..).filter(|names| !names.is_empty())?;
            }
            return resolve(module, names, modules);
        }
        // The name of a child; other names belong to other crates, or to a `use` elsewhere.
        child if modules.contains_key(&[&module[..], &[child]].concat()) => {
            return resolve(module, names, modules);
        }
        _ => return None,
    }
    resolve(module, &names[1..], modules)
}

fn resolve<'s, 'a>(
    mut module: Vec<&'s str>,
    names: &[&'s str],
    modules: &BTreeMap<Vec<&str>, &'a str>,
) -> Option<&'a str> {
    for name in names {
        let next = [&module[..], &[*name]].concat();
        if !modules.contains_key(&next) {
            break;
        }
        module = next;
    }
    modules.get(&module).copied()
}

fn mutual_imports(sources: &[Source]) -> Vec<(String, usize, String)> {
    let mut sources: Vec<&Source> = sources.iter().collect();
    sources.retain(|source| !source.is_test() && source.path != "src/main.rs");
    let modules = sources.iter().map(|s| (module_path(&s.path), &*s.path));
    let modules: BTreeMap<Vec<&str>, &str> = modules.collect();
    let mut uses = BTreeSet::new();
    for source in &sources {
        let code: Vec<&str> = source.code().map(|(_, line)| line).collect();
        let code = code.join("\n");
        let targets = paths(&code).into_iter();
        let targets = targets.filter_map(|path| target(source, &path, &modules));
        uses.extend(targets.map(|target| (&*source.path, target)));
    }
    let mutual = uses.iter().filter(|(a, b)| {
        let (one, other) = (module_path(a), module_path(b));
        let related = one.split_last().is_some_and(|(_, parent)| parent == other)
            || other.split_last().is_some_and(|(_, parent)| parent == one);
        a < b && !related && uses.contains(&(*b, *a))
    });
    mutual
        .map(|(a, b)| ((*a).to_owned(), 1, format!("{a} <-> {b}")))
        .collect()
}

#[test]
fn no_two_files_use_each_other() {
    let found = mutual_imports(&files(&["src"], &[".rs"]));
    let what = "two files use each other: move what both need into one of them, or into a third";
    Violations::of(&found, MUTUAL_IMPORTS, what).none();
}

#[test]
fn mutual_imports_are_found_through_every_kind_of_path() {
    let pairs = |files: &[(&str, &str)]| -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(p, text)| Source::new(p, text)).collect();
        let found = mutual_imports(&sources).into_iter();
        found.map(|(_, _, pair)| pair).collect()
    };
    let parent = ("src/a/mod.rs", "mod b;\nmod c;\npub use b::X;\n");
    let both = ["src/a/b.rs <-> src/a/c.rs"];
    let of_b = ("src/a/b.rs", "use super::c::Y;\n");
    assert_eq!(
        pairs(&[
            parent,
            of_b,
            ("src/a/c.rs", "use crate::a::{\n    b::X,\n};\n")
        ]),
        both
    );
    assert_eq!(
        pairs(&[
            parent,
            of_b,
            ("src/a/c.rs", "fn f() { crate::a::b::x() }\n")
        ]),
        both
    );
    assert_eq!(
        pairs(&[parent, of_b, ("src/a/c.rs", "use super::{X, b};\n")]),
        both
    );
    let none: [&str; 0] = [];
    assert_eq!(
        pairs(&[
            parent,
            of_b,
            ("src/a/c.rs", "// use super::b::X;\nuse b::X;\n")
        ]),
        none
    );
    assert_eq!(
        pairs(&[parent, ("src/a/b.rs", "use super::Error;\n")]),
        none,
        "a parent and its child"
    );
    assert_eq!(
        pairs(&[
            parent,
            ("src/d.rs", "use crate::a::b::X;\n"),
            ("src/a/b.rs", "use crate::d::Y;\n")
        ]),
        ["src/a/b.rs <-> src/d.rs"],
        "files of two modules"
    );
}
