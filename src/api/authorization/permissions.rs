//! Who may do what: the one table.
//!
//! Does: say for each route which scopes may use it. Does not: know tokens. Invariant: every route
//! has a row (a test walks the routes), and a route without one is closed to everybody.

use axum::http::Method;

use crate::http::scopes::Scopes;

/// What a route asks of who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: probes of an orchestrator have no token.
    Open,
    /// A token with any of these.
    Any(Scopes),
    /// Nobody.
    Closed,
}

const EXCHANGE: &str = "/v1/exchanges/{exchange}";
const SINK: &str = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}";
const SINK_PAGES: &str = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/pages";
const SINK_FINISH: &str = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/finish";
const SINK_ABORT: &str = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/abort";
const HANDLES: &str = "/v1/exchanges/{exchange}/handles";
const PARTITION: &str = "/v1/exchanges/{exchange}/partitions/{partition}";

const READ: Access = Access::Any(Scopes::READ);
const WRITE: Access = Access::Any(Scopes::WRITE);
/// Whoever owns an exchange, and whoever looks after the daemons.
const CLOSE: Access = Access::Any(Scopes::WRITE.and(Scopes::ADMIN));
const LOOK: Access = Access::Any(Scopes::READ.and(Scopes::ADMIN));
/// It shows nothing of any exchange's content.
const ANY_TOKEN: Access = Access::Any(Scopes::ALL);

/// Who may do what. `docs/operations.md` shows the same table (a test compares them).
pub const TABLE: &[(&str, &str, Access)] = &[
    ("GET", "/v1/exchanges", LOOK),
    ("PUT", EXCHANGE, WRITE),
    ("GET", EXCHANGE, LOOK),
    ("DELETE", EXCHANGE, CLOSE),
    ("PUT", SINK, WRITE),
    ("POST", SINK_PAGES, WRITE),
    ("POST", SINK_FINISH, WRITE),
    ("POST", SINK_ABORT, WRITE),
    ("POST", HANDLES, READ),
    ("POST", "/v1/read", READ),
    ("GET", PARTITION, READ),
    ("GET", "/healthz", Access::Open),
    ("GET", "/readyz", Access::Open),
    ("GET", "/metrics", ANY_TOKEN),
    ("GET", "/openapi.json", ANY_TOKEN),
    ("GET", "/", ANY_TOKEN),
];

/// What a request asks of who sends it; `route` is the pattern that its path matched, if any.
pub fn of(method: &Method, route: Option<&str>) -> Access {
    let Some(route) = route else {
        // There is nothing there, but that, too, is told to nobody without a token.
        return ANY_TOKEN;
    };
    // The routes answer HEAD as they answer GET.
    let method = match *method {
        Method::HEAD => "GET",
        _ => method.as_str(),
    };
    let mut rows = TABLE
        .iter()
        .filter(|(_, path, _)| *path == route)
        .peekable();
    if rows.peek().is_none() {
        return Access::Closed;
    }
    // A method that the route does not have is refused by the router.
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
            assert!(routes.contains(&route), "{method} {path} is no route");
        }
    }

    #[test]
    fn only_probes_are_open() {
        let open = TABLE.iter().filter(|(.., access)| *access == Access::Open);
        let open: Vec<_> = open.map(|(method, path, _)| (*method, *path)).collect();
        assert_eq!(open, [("GET", "/healthz"), ("GET", "/readyz")]);
    }

    #[test]
    fn what_is_not_in_the_table_is_open_to_nobody() {
        assert_eq!(of(&Method::GET, Some("/v2/forgotten")), Access::Closed);
        assert_eq!(of(&Method::GET, None), ANY_TOKEN);
        assert_eq!(of(&Method::PATCH, Some("/v1/exchanges")), ANY_TOKEN);
        assert_eq!(of(&Method::POST, Some("/healthz")), ANY_TOKEN);
        assert_eq!(of(&Method::HEAD, Some(PARTITION)), READ);
    }

    #[test]
    fn the_table_of_the_operations_page_is_this_one() {
        let page = include_str!("../../../docs/operations.md");
        for (method, path, access) in TABLE {
            let who = match access {
                Access::Open => "no token needed".to_owned(),
                Access::Any(Scopes::ALL) => "any token".to_owned(),
                Access::Any(scopes) => scopes.to_string(),
                Access::Closed => unreachable!("no row is closed"),
            };
            let row = format!("| `{method} {path}` | {who} |");
            assert!(page.contains(&row), "docs/operations.md lacks {row}");
        }
    }

    #[test]
    fn scopes_are_read_in_any_order_and_nothing_else_is() {
        assert_eq!(Scopes::parse("read"), Some(Scopes::READ));
        let both = Scopes::READ.and(Scopes::WRITE);
        assert_eq!(Scopes::parse("write,read"), Some(both));
        for bad in ["", "Read", "read,", "read write", "all", "read,root"] {
            assert_eq!(Scopes::parse(bad), None, "{bad:?}");
        }
    }
}
