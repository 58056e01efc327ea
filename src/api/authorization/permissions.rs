//! The permission table: which scopes each route requires.
//!
//! Does not: check tokens. Invariant: every route has a row (a test compares them with the routes),
//! and a route without a row is denied to all clients.

use axum::http::Method;

use crate::http::scopes::Scopes;

/// What a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No token: the probes of an orchestrator have none.
    Open,
    /// A token with at least one of these scopes.
    AnyOf(Scopes),
    /// Denied to every client.
    Denied,
}

pub const EXCHANGE: &str = "/v1/exchanges/{exchange}";
pub const SINK: &str = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}";
pub const SINK_PAGES: &str = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/pages";
pub const SINK_FINISH: &str = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/finish";
pub const SINK_ABORT: &str = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/abort";
pub const CHOSEN: &str = "/v1/exchanges/{exchange}/chosen";
pub const HANDLES: &str = "/v1/exchanges/{exchange}/handles";
const METRICS: &str = "/metrics";
pub const PARTITION: &str = "/v1/exchanges/{exchange}/partitions/{partition}";

const READ: Access = Access::AnyOf(Scopes::READ);
const WRITE: Access = Access::AnyOf(Scopes::WRITE);
const COORDINATE: Access = Access::AnyOf(Scopes::COORDINATE);
/// For coordinators and for operators.
const CLOSE: Access = Access::AnyOf(Scopes::COORDINATE.or(Scopes::ADMIN));
const ADMIN: Access = Access::AnyOf(Scopes::ADMIN);
/// For routes that show no content of exchanges.
const ANY_TOKEN: Access = Access::AnyOf(Scopes::ALL);

/// Method, route, requirement. `docs/operations.md` has the same table (a test compares them).
pub const TABLE: &[(&str, &str, Access)] = &[
    ("GET", "/v1/exchanges", ADMIN),
    ("PUT", EXCHANGE, COORDINATE),
    ("GET", EXCHANGE, ADMIN),
    ("DELETE", EXCHANGE, CLOSE),
    ("PUT", SINK, WRITE),
    ("DELETE", SINK, WRITE),
    ("POST", SINK_PAGES, WRITE),
    ("POST", SINK_FINISH, WRITE),
    ("POST", SINK_ABORT, WRITE),
    ("POST", CHOSEN, COORDINATE),
    ("POST", HANDLES, COORDINATE),
    ("POST", "/v1/read", READ),
    ("GET", PARTITION, ADMIN),
    ("POST", "/v1/admin/reload", ADMIN),
    ("GET", "/v1/daemon", ANY_TOKEN),
    ("GET", "/healthz", Access::Open),
    ("GET", "/readyz", Access::Open),
    ("GET", METRICS, ANY_TOKEN),
    ("GET", "/openapi.json", ANY_TOKEN),
    ("GET", "/", ANY_TOKEN),
    ("GET", "/exchanges", ADMIN),
    ("GET", "/exchanges/{exchange}", ADMIN),
    ("GET", "/base-directories/{base}", ANY_TOKEN),
];

/// Whether a route is also served to a connection that finds no slot: what people and programs
/// watch a daemon by. The routes without a token need no slot either.
pub fn needs_no_slot(route: Option<&str>) -> bool {
    route == Some(METRICS)
}

/// The requirement of a request; `route` is the pattern that its path matched, if any.
pub fn of(method: &Method, route: Option<&str>) -> Access {
    let Some(route) = route else {
        // Without a token, a client does not learn which routes exist.
        return ANY_TOKEN;
    };
    // Every GET route also serves HEAD.
    let method = match *method {
        Method::HEAD => "GET",
        _ => method.as_str(),
    };
    let mut rows = TABLE
        .iter()
        .filter(|(_, path, _)| *path == route)
        .peekable();
    if rows.peek().is_none() {
        return Access::Denied;
    }
    // The router refuses methods that the route does not have.
    rows.find(|(known, ..)| *known == method)
        .map_or(ANY_TOKEN, |(.., access)| *access)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_a_row_and_every_row_a_route() {
        let document = crate::api::described().into_openapi();
        let document = serde_json::to_value(document).unwrap();
        let mut routes = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                routes.push((method.to_uppercase(), path.clone()));
            }
        }
        assert!(routes.len() >= 15, "{routes:?}");
        for (method, path) in &routes {
            let row = TABLE.iter().find(|(m, p, _)| m == method && p == path);
            assert!(row.is_some(), "{method} {path} has no row in TABLE");
        }
        for (method, path, _) in TABLE {
            let route = ((*method).to_owned(), (*path).to_owned());
            assert!(routes.contains(&route), "{method} {path} is not a route");
        }
    }

    #[test]
    fn only_probes_are_open() {
        let open = TABLE.iter().filter(|(.., access)| *access == Access::Open);
        let open: Vec<_> = open.map(|(method, path, _)| (*method, *path)).collect();
        assert_eq!(open, [("GET", "/healthz"), ("GET", "/readyz")]);
    }

    #[test]
    fn a_worker_can_neither_plan_nor_close_nor_read_without_a_handle() {
        let worker = Scopes::WRITE.or(Scopes::READ);
        for (method, path, access) in TABLE {
            let allowed = matches!(access, Access::AnyOf(scopes) if scopes.intersects(worker));
            let works = path.starts_with(SINK) || *path == "/v1/read";
            assert_eq!(allowed, works || *access == ANY_TOKEN, "{method} {path}");
        }
    }

    #[test]
    fn a_route_that_is_not_in_the_table_is_denied() {
        assert_eq!(of(&Method::GET, Some("/v2/forgotten")), Access::Denied);
        assert_eq!(of(&Method::GET, None), ANY_TOKEN);
        assert_eq!(of(&Method::PATCH, Some("/v1/exchanges")), ANY_TOKEN);
        assert_eq!(of(&Method::POST, Some("/healthz")), ANY_TOKEN);
        assert_eq!(of(&Method::HEAD, Some(PARTITION)), ADMIN);
    }

    #[test]
    fn the_table_of_the_operations_page_is_this_one() {
        let page = include_str!("../../../docs/operations.md");
        for (method, path, access) in TABLE {
            let required = match access {
                Access::Open => "no token needed".to_owned(),
                Access::AnyOf(Scopes::ALL) => "any token".to_owned(),
                Access::AnyOf(scopes) => scopes.to_string(),
                Access::Denied => unreachable!("no row is denied"),
            };
            let row = format!("| `{method} {path}` | {required} |");
            assert!(page.contains(&row), "docs/operations.md lacks {row}");
        }
    }

    #[test]
    fn scopes_are_parsed_in_any_order_and_unknown_ones_are_refused() {
        assert_eq!(Scopes::parse("read"), Some(Scopes::READ));
        let both = Scopes::READ.or(Scopes::WRITE);
        assert_eq!(Scopes::parse("write,read"), Some(both));
        for bad in ["", "Read", "read,", "read write", "all", "read,root"] {
            assert_eq!(Scopes::parse(bad), None, "{bad:?}");
        }
    }
}
