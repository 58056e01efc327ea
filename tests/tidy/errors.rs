//! Rule for errors: they are types, not text.

use crate::source::{Source, Violations, files};

/// Files that return `Result<_, String>`: path, how often, reason.
const TEXT_ERRORS: &[(&str, usize, &str)] = &[(
    "src/config/load.rs",
    2,
    "the content of a file, with an io::Error",
)];

/// The lines of code at which a type `Result<_, String>` starts.
fn text_errors(source: &Source) -> Vec<usize> {
    let (mut text, mut starts) = (String::new(), Vec::new());
    for (number, line) in source.code() {
        starts.push((text.len(), number));
        text.push_str(line);
        text.push('\n');
    }
    let line_at = |at: usize| starts[starts.partition_point(|(start, _)| *start <= at) - 1].1;
    let results = text.match_indices("Result<");
    let errors = results.filter(|(at, name)| error_type(&text[at + name.len()..]) == "String");
    errors.map(|(at, _)| line_at(at)).collect()
}

/// The last of the type arguments that `text` starts with, up to their closing `>`.
fn error_type(text: &str) -> &str {
    let (mut depth, mut start, mut previous) = (0, 0, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' if previous == '-' => {}
            '>' if depth == 0 => return text[start..at].trim().trim_end_matches(','),
            '>' | ')' | ']' => depth -= 1,
            // A comma after the last argument separates nothing.
            ',' if depth == 0 && !text[at + 1..].trim_start().starts_with('>') => start = at + 1,
            _ => {}
        }
        previous = c;
    }
    ""
}

#[test]
fn no_error_is_text() {
    let mut found = Vec::new();
    for source in files(&["src"], &[".rs"]) {
        for line in text_errors(&source) {
            found.push((source.path.clone(), line, source.path.clone()));
        }
    }
    let what = "Result<_, String> loses the cause: add a variant to the error type of the module";
    Violations::of(&found, TEXT_ERRORS, what).none();
}

#[test]
fn text_errors_are_found_in_signatures_aliases_and_across_lines() {
    let source = Source::new(
        "src/x.rs",
        "fn a() -> Result<u8, String> {}\n\
         fn b() -> Result<String, Error> {}\n\
         type F = fn(&str) -> Result<Vec<(u8, String)>, String>;\n\
         fn c() -> Result<\n    Map<u8, String>,\n    String,\n> {}\n\
         // Result<u8, String>\n\
         fn d() -> Result<fn() -> u8, Box<String>> {}\n",
    );
    assert_eq!(text_errors(&source), [1, 3, 4]);
}
