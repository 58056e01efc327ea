//! The file format of `java.util.Properties`.
//!
//! Pure: text to names and values with their lines. Does not: interpret them. Invariant: an ASCII
//! file is parsed as by Java.
//!
//! Source: the documentation of `java.util.Properties.load`. Not a dependency: the library for it
//! brings a regular expression engine for these rules.

/// A property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    /// The line that it begins in, from 1.
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) value: String,
}

/// Reads a file.
///
/// # Errors
/// The line of an escape sequence that is malformed.
pub(super) fn parse(text: &str) -> Result<Vec<Pair>, usize> {
    let mut pairs = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let mut logical = first.trim_start_matches(is_blank).to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while continues(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(is_blank));
        }
        let (name, value) = split(&logical);
        let unescaped = |text| unescape(text).ok_or(index + 1);
        pairs.push(Pair {
            line: index + 1,
            name: unescaped(name)?,
            value: unescaped(value)?,
        });
    }
    Ok(pairs)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Whether a line ends with a backslash that is not escaped itself.
fn continues(line: &str) -> bool {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    backslashes % 2 == 1
}

/// Name and value, both still escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (is_blank(c) || matches!(c, '=' | ':'));
        escaped = c == '\\' && !escaped;
        ends
    });
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (name, rest.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let (digits, rest) = chars.as_str().split_at_checked(4)?;
                let number = u32::from_str_radix(digits, 16).ok()?;
                plain.push(char::from_u32(number)?);
                chars = rest.chars();
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        let pairs = parse(text).unwrap().into_iter();
        pairs
            .map(|pair| (pair.line, pair.name, pair.value))
            .collect()
    }

    #[test]
    fn the_forms_that_java_reads_are_read() {
        for (text, name, value) in [
            ("a=b", "a", "b"),
            ("  a = b ", "a", "b "),
            ("a: b", "a", "b"),
            ("a b=c", "a", "b=c"),
            ("a", "a", ""),
            ("a==b", "a", "=b"),
            ("a\\=b=c", "a=b", "c"),
            ("a=s3\\://x", "a", "s3://x"),
            ("a=\\u0041\\tb\\\\", "a", "A\tb\\"),
            ("a=b\\\n   c", "a", "bc"),
            ("a=b\\\\", "a", "b\\"),
            ("a=b\\", "a", "b"),
            ("a=b\r\n", "a", "b"),
        ] {
            assert_eq!(
                read(text),
                [(1, name.to_owned(), value.to_owned())],
                "{text:?}"
            );
        }
    }

    #[test]
    fn lines_are_counted_over_comments_and_continuations() {
        let text = "# a\n\n! b\na=1\\\n2\n  # c\nb=3";
        let expected = [(4, "a", "12"), (7, "b", "3")];
        let expected =
            expected.map(|(line, name, value)| (line, name.to_owned(), value.to_owned()));
        assert_eq!(read(text), expected);
        for bad in ["a=\\u12", "a=\\u12ég", "a=\\ud800"] {
            assert_eq!(parse(&format!("x=1\n{bad}")), Err(2), "{bad}");
        }
    }
}
