//! Names of the operations that have a span, by method and route.
//!
//! Pure. Invariant: the names are few and constant; what only watches the daemon has none, since
//! probes and scrapes would bury what a query does.

use axum::http::Method;

use super::authorization::permissions::{
    CHOSEN, EXCHANGE, HANDLES, PARTITION, SINK, SINK_ABORT, SINK_FINISH, SINK_PAGES,
};

const NAMES: &[(&str, &str, &str)] = &[
    ("GET", "/v1/exchanges", "list exchanges"),
    ("PUT", EXCHANGE, "announce"),
    ("GET", EXCHANGE, "show exchange"),
    ("DELETE", EXCHANGE, "close"),
    ("PUT", SINK, "declare sink"),
    ("DELETE", SINK, "withdraw sink"),
    ("POST", SINK_PAGES, "batch"),
    ("POST", SINK_FINISH, "finish"),
    ("POST", SINK_ABORT, "abort"),
    ("POST", CHOSEN, "prefetch"),
    ("POST", HANDLES, "plan"),
    ("POST", "/v1/read", "read"),
    ("GET", PARTITION, "read partition"),
];

/// The name of an operation on exchanges; `None` for all other requests.
pub(super) fn name(method: &Method, route: &str) -> Option<&'static str> {
    let mut rows = NAMES.iter();
    let row = rows.find(|(known, path, _)| *path == route && *known == method.as_str());
    row.map(|(.., name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::authorization::permissions::TABLE;

    #[test]
    fn every_route_of_exchanges_and_no_other_has_a_name_of_its_own() {
        for (method, route, _) in TABLE {
            let given = name(&method.parse().unwrap(), route);
            let concerns_daemon = *route == "/v1/daemon" || route.starts_with("/v1/admin/");
            let concerns_exchanges = route.starts_with("/v1/") && !concerns_daemon;
            assert_eq!(given.is_some(), concerns_exchanges, "{method} {route}");
        }
        let names: std::collections::BTreeSet<_> = NAMES.iter().map(|(.., name)| name).collect();
        assert_eq!(names.len(), NAMES.len());
        assert_eq!(name(&Method::GET, "unmatched"), None);
    }
}
