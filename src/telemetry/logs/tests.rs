//! Every character that must not reach a log, through every kind of input.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;

use super::escape::is_unsafe;
use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The events of `act`.
fn logged(json: bool, act: impl FnOnce()) -> String {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = Registry::default().with(output(json, move || writer.clone()));
    tracing::subscriber::with_default(subscriber, act);
    let bytes = buffer.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

fn log_everywhere(text: &str) {
    let error = std::io::Error::other(text.to_owned());
    let span = tracing::info_span!("request", path = %text, id = text);
    let _in_span = span.enter();
    tracing::info!(display = %text, debug = ?text, plain = text, %error, "{text}");
}

fn unsafe_characters() -> impl Iterator<Item = char> {
    (0..=0x10_FFFF)
        .filter_map(char::from_u32)
        .filter(|c| is_unsafe(*c))
}

/// Story: 7-bit control characters were escaped, 8-bit ones and line separators were not. A path
/// with U+009B moved the cursor of a terminal that showed the log.
#[test]
fn no_control_character_reaches_the_log_through_any_field_message_or_span() {
    for known in [
        '\0', '\n', '\r', '\t', '\u{1b}', '\u{7f}', '\u{80}', '\u{85}', '\u{9b}',
    ] {
        assert!(is_unsafe(known), "{known:?}");
    }
    for known in [
        '\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}', '\u{200f}', '\u{feff}',
    ] {
        assert!(is_unsafe(known), "{known:?}");
    }
    for c in unsafe_characters() {
        for json in [false, true] {
            let text = logged(json, || log_everywhere(&format!("before{c}after")));
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.contains(is_unsafe), "{c:?} in {line:?}");
            assert!(line.matches("before").count() >= 6, "{line:?}");
        }
    }
}

#[test]
fn json_with_escapes_still_has_the_same_values() {
    let value = "\u{9b}\u{202e}\u{e0001}\n\"\\ü";
    let text = logged(true, || tracing::info!(value, "m"));
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed["value"], value);
}

#[test]
fn what_is_printed_keeps_its_lines_and_nothing_else_that_is_unsafe() {
    let printed = printable("one\ntwo\u{9b}2J\r\u{2028}");
    assert_eq!(printed, "one\ntwo\\u{9b}2J\\u{d}\\u{2028}");
}

#[test]
fn a_panic_is_one_line_of_the_log() {
    let text = logged(false, || {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        drop(std::panic::catch_unwind(|| panic!("quotes\n\u{9b}")));
        std::panic::set_hook(hook);
    });
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    for part in [r"quotes\n\u{9b}", "logs/tests.rs"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn ordinary_text_is_written_as_it_is() {
    let text = logged(false, || tracing::info!(name = %"grüße 日本 🦀", "m"));
    assert!(text.contains("name=grüße 日本 🦀"), "{text}");
}

/// Story: while a store was unavailable, its client logged three lines for each request.
#[test]
fn at_info_the_clients_of_object_stores_log_warnings_only_unless_they_are_asked_for() {
    let shown = |text: &str| filter(text).unwrap().to_string();
    for text in ["info", "info,stopover=debug", "stopover::store=debug, INFO"] {
        assert!(shown(text).contains("object_store=warn"), "{}", shown(text));
    }
    for text in [
        "error",
        "debug",
        "info,object_store=info",
        "off",
        "stopover=trace",
    ] {
        assert!(
            !shown(text).contains("object_store=warn"),
            "{}",
            shown(text)
        );
    }
}
