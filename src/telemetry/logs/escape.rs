//! A writer for log lines that escapes control, bidirectional and invisible characters.
//!
//! Does: escape them in all formatted text: messages, fields, spans, errors. Does not: format.
//! Invariant: every event is written with one call, and the only line end in it is its last byte.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

/// How an escaped character is written.
#[derive(Debug, Clone, Copy)]
pub(in crate::telemetry) enum Notation {
    /// `\\u{9b}`
    Rust,
    /// `\\u009b`, inside the strings of JSON, where such characters can only be.
    Json,
}

/// Wraps the writer of each event.
#[derive(Debug)]
pub(super) struct Escaping<W> {
    pub writer: W,
    pub notation: Notation,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = EscapingWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter {
            writer: self.writer.make_writer(),
            notation: self.notation,
        }
    }
}

/// Writes one event.
#[derive(Debug)]
pub(super) struct EscapingWriter<W> {
    writer: W,
    notation: Notation,
}

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.write_all(event)?;
        Ok(event.len())
    }

    fn write_all(&mut self, event: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if !line.contains(is_unsafe) {
            return self.writer.write_all(event);
        }
        let mut escaped = escape(line, self.notation);
        escaped.push('\n');
        self.writer.write_all(escaped.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The text with every unsafe character escaped.
pub(in crate::telemetry) fn escape(text: &str, notation: Notation) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match (is_unsafe(c), notation) {
            (false, _) => escaped.push(c),
            (true, Notation::Rust) => escaped.extend(c.escape_unicode()),
            (true, Notation::Json) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    escaped.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    escaped
}

/// Control characters (7-bit and 8-bit), line and paragraph separators, and characters that are
/// invisible or change the direction of what follows.
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}
