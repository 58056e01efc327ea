//! What needs attention now, and what to do about it.
//!
//! Pure: the data of the overview to sentences. Invariant: each finding names a remedy.

use super::view::View;
use crate::human::{count, size};

/// Something that needs attention; both are plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    pub remedy: String,
}

impl Finding {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// All findings, the gravest first.
pub fn findings(view: &View) -> Vec<Finding> {
    let mut found = Vec::new();
    for obstacle in &view.obstacles {
        found.push(Finding::new(
            format!("No new exchange can be opened: {obstacle}"),
            "Queries that start now wait or fail. Make that base directory reachable; the daemon \
             probes it and goes on by itself.",
        ));
    }
    integrity(view, &mut found);
    bases(view, &mut found);
    if let Some(why) = &view.not_collecting {
        found.push(Finding::new(
            format!("Expired exchanges are not collected here: {why}"),
            "Configure the base directories that the fleet uses, or remove them from the fleet \
             with `stopover members`.",
        ));
    }
    memory(view, &mut found);
    for warning in &view.credential_warnings {
        found.push(Finding::new(
            "Credentials work, but not safely, or not for long".to_owned(),
            warning.clone(),
        ));
    }
    found
}

fn integrity(view: &View, found: &mut Vec<Finding>) {
    let failures = view.metrics.integrity_failures.get();
    if failures > 0 {
        found.push(Finding::new(
            format!(
                "{} failed since the start",
                count(failures, "integrity check")
            ),
            "Reads were repeated or failed, never shortened. Look for the segment and its base \
             directory in the errors below, and check that disk or network.",
        ));
    }
}

fn bases(view: &View, found: &mut Vec<Finding>) {
    for base in &view.bases {
        let (status, name) = (&base.status, &base.status.name);
        let remedy = match (&status.unreadable, &status.error) {
            (Some(_), _) => {
                "What lies on it cannot be read until it answers: check the store, \
                             its address and the credentials."
            }
            (None, Some(_)) if status.full => {
                "New segments go to the others: free space, or enlarge it."
            }
            (None, Some(_)) => {
                "New segments go to the others, while it is probed: check the store, its limits \
                 and the credentials."
            }
            (None, None) => continue,
        };
        let why = status.unreadable.as_ref().or(status.error.as_ref());
        let why = why.map_or("", String::as_str);
        found.push(Finding::new(
            format!("Base directory {name} is out of order: {why}"),
            remedy,
        ));
    }
}

fn memory(view: &View, found: &mut Vec<Finding>) {
    for pool in view.pools.iter().filter(|pool| pool.waiting > 0) {
        let what = format!(
            "Requests for {} wait for memory for {}",
            size(pool.waiting),
            pool.name
        );
        let remedy = match pool.limited {
            0 => "For some seconds this is normal: it is how producers are slowed down. If it \
                  lasts, raise memory.budget, add daemons, or see whether a base directory is \
                  slow."
                .to_owned(),
            limited => format!(
                "At their own limit: {}. Raise query.max_write_memory or query.max_read_memory if \
                 they should not be.",
                count(limited, "query")
            ),
        };
        found.push(Finding::new(what, remedy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::PoolView;

    #[test]
    fn a_daemon_without_trouble_has_no_findings() {
        assert_eq!(findings(&View::default()), []);
    }

    #[test]
    fn every_kind_of_trouble_is_named_with_a_remedy() {
        let view = View {
            obstacles: vec!["nothing works".into()],
            not_collecting: Some("b is missing".into()),
            credential_warnings: vec!["the certificate expires".into()],
            pools: vec![PoolView {
                name: "writing",
                waiting: 1024,
                ..PoolView::default()
            }],
            ..View::default()
        };
        view.metrics.integrity_failures.inc();
        let found = findings(&view);
        let what: Vec<&str> = found.iter().map(|finding| &*finding.what).collect();
        for (part, index) in [
            ("nothing works", 0),
            ("1 integrity", 1),
            ("b is missing", 2),
        ] {
            assert!(what[index].contains(part), "{what:?}");
        }
        assert!(
            what[3].starts_with("Requests for 1.0 KiB wait for memory for writing"),
            "{what:?}"
        );
        assert!(found[4].remedy.contains("expires"));
        assert!(found.iter().all(|finding| !finding.remedy.is_empty()));
    }
}
