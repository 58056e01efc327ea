//! What to do about a message of the log.
//!
//! Pure: a table from beginnings of messages to advice. Does not: find problems (`findings`).
//! Invariant: every warning and error that the code logs has a row, unless it is one of those that
//! carry their remedy, and every row has such a message (a test reads the source).

const BUG: &str = "This is a bug: report it with this line. The daemon goes on.";
const SWEPT: &str = "Queries are not affected; the daemon that sweeps removes it later.";
const CONDITIONS: &str = "Nothing has failed. Only an exchange that is renewed as it is collected \
                          is in danger; a store with conditional writes has no such risk.";

/// The beginning of a message, and the advice. The first row that fits wins.
#[rustfmt::skip] // a row each, not four lines
const ADVICE: &[(&str, &str)] = &[
    ("base directory", "See the base directory above; the daemon probes it until it works."),
    ("the base directory", "The message says which rule or feature of the bucket to change."),
    ("no new exchange", "Make the base directories that are named reachable."),
    ("store does not implement", CONDITIONS),
    ("the store does not implement", CONDITIONS),
    ("credentials could not be renewed", "Check the service that is named: once the old \
        credentials expire, the base directory cannot be used."),
    ("the identity of the base directory", "It works again. Remove the rule of the bucket that \
        expires objects: a segment that is removed fails its query."),
    ("found an object that Stopover did not write", "It is left alone. If it is unexpected, give \
        Stopover a folder or prefix of its own."),
    ("segment upload failed", "Trino runs the tasks of these sinks again; check the store."),
    ("the upload of a segment panicked", BUG),
    ("damaged bytes", "The range was read again; if it recurs, check that disk or network."),
    ("request failed", "The client was told what to do; see the cause."),
    ("response failed after its head", "The client sees that the response is incomplete and \
        repeats the read; see the cause."),
    ("cannot check", "The store did not answer; it is asked again."),
    ("cannot write the marker", "Its tasks or its query fail; check the base directories \
        above."),
    ("cannot write the list of the fleet", "It is tried again with the next sweep; check the base \
        directories above."),
    ("cannot decode the marker", "Its query fails. Run `stopover inspect` on the exchange, and \
        check that disk or store."),
    ("cannot remove", SWEPT),
    ("exchange closed; what is left", SWEPT),
    ("sweep incomplete", "Nothing is lost; the next sweep retries. If it recurs, check the base \
        directories above."),
    ("the digest of the sweeper", "If it recurs, remove the object v2/sweeper: it is foreign or \
        damaged."),
    ("this daemon collects nothing", "Configure the base directories of the fleet here, or abandon \
        those that are lost with `stopover members`."),
    ("credential file invalid", "Correct the file; the daemon reads it again by itself. Until \
        then a restart would fail."),
    ("accepting a connection failed", "Most often the limit of open files: raise LimitNOFILE of \
        the service, or ulimit -n."),
    ("limit of open files", "Raise LimitNOFILE of the service, or ulimit -n."),
    ("server.advertise", "Correct server.advertise, and restart the daemon."),
    ("settings were edited", "Restart the daemon to apply them."),
    ("the configuration was not reloaded", "Correct the file: `stopover check` names each \
        problem."),
    ("reloading the configuration panicked", BUG),
    ("sinks were still open", "Their tasks run again. Raise server.drain_timeout above the longest \
        task."),
    ("lines of the log were lost", "Check what reads the log, or log less (log.filter)."),
    ("no traces are recorded", "Check tracing.collector and its files, and restart the daemon; \
        queries are not affected."),
    ("traces cannot be exported", "Check tracing.collector; queries are not affected."),
    ("stopping before all traces", "The last spans are missing; queries are not affected."),
    ("cannot notify the supervisor", "Check that the unit has Type=notify and NotifyAccess=main; \
        queries are not affected."),
    ("metrics could not be encoded", BUG),
    ("panic", BUG),
    ("internal error", BUG),
];

/// What to do about a message, by its constant beginning; empty if it is unknown.
pub fn advice(message: &str) -> &'static str {
    let known = ADVICE.iter().find(|(start, _)| message.starts_with(start));
    known.map_or("", |(_, advice)| advice)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// Messages that are computed, and why they need no row.
    const COMPUTED: &[(&str, &str)] = &[
        ("{warning}", "of a credential; it names the remedy"),
        ("{notice}", "of a setting; it names the remedy"),
    ];

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("tests") || path.ends_with("tests.rs") {
                continue;
            }
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }

    /// The arguments of a macro, without its parentheses. Parentheses in its texts are balanced.
    fn arguments(rest: &str) -> &str {
        let mut depth = 0;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth < 0
        });
        &rest[..end.expect("a macro ends")]
    }

    /// The first text among the arguments that is not inside a call, with its lines joined.
    fn message(arguments: &str) -> Option<String> {
        let mut depth = 0;
        for (index, part) in arguments.split('"').enumerate() {
            if index % 2 == 0 {
                let count = |c: char| i32::try_from(part.matches(c).count()).unwrap();
                depth += count('(') - count(')');
            } else if depth == 0 {
                return Some(part.split("\\\n").map(str::trim_start).collect());
            }
        }
        None
    }

    /// The messages of warnings and errors in a source file, without its tests.
    fn messages(source: &str) -> Vec<String> {
        let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let mut found = Vec::new();
        for name in ["tracing::warn!(", "tracing::error!("] {
            for (at, _) in code.match_indices(name) {
                let arguments = arguments(&code[at + name.len()..]);
                found.push(message(arguments).unwrap_or_else(|| arguments.to_owned()));
            }
        }
        found
    }

    fn logged() -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        sources(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut files,
        );
        let mut found = Vec::new();
        for file in files {
            let source = std::fs::read_to_string(&file).unwrap();
            let messages = messages(&source).into_iter();
            found.extend(messages.map(|message| (file.clone(), message)));
        }
        found
    }

    #[test]
    fn every_warning_and_error_has_advice_and_all_advice_has_a_message() {
        let logged = logged();
        assert!(logged.len() > 40, "only {} were found", logged.len());
        let is_computed = |message: &str| COMPUTED.iter().any(|(text, _)| *text == message);
        let without: Vec<_> = logged
            .iter()
            .filter(|(_, message)| advice(message).is_empty() && !is_computed(message))
            .collect();
        assert!(without.is_empty(), "add rows to ADVICE for {without:#?}");
        for (start, _) in ADVICE.iter().chain(COMPUTED) {
            let used = logged.iter().any(|(_, message)| {
                let row = ADVICE.iter().find(|(start, _)| message.starts_with(start));
                row.map_or(message == start, |(row, _)| row == start)
            });
            assert!(used, "nothing logs {start:?}: remove the row");
        }
    }

    #[test]
    fn messages_are_found_over_lines_and_behind_fields_but_not_in_tests() {
        let source = "tracing::warn!(base = %self.name, why = f(\"; \"),\n    \"a (b) \\\n     \
                      c {d}\");\n\
                      tracing::error!(\"e\");\ntracing::info!(\"f\");\n\
                      #[cfg(test)]\nmod tests {\n    tracing::warn!(\"g\");\n}\n";
        assert_eq!(messages(source), ["a (b) c {d}", "e"]);
    }

    #[test]
    fn a_known_message_has_advice_and_an_unknown_one_has_none() {
        assert!(advice("panic: this is a bug").contains("report"));
        assert_eq!(advice("something else"), "");
    }
}
