//! Responses to requests that match no route.

use axum::http::{Method, Uri};

use crate::api::problem::{Problem, ProblemType};

/// Responds to an unknown path.
pub(crate) async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(256).collect();
    Problem::new(
        ProblemType::NotFound,
        format!("unknown route {path}; GET /openapi.json lists all routes"),
    )
}

/// Responds to a method that the path does not have; the router adds the `Allow` header.
pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(256).collect();
    Problem::new(
        ProblemType::MethodNotAllowed,
        format!("{path} does not accept {method}; the Allow header lists what it accepts"),
    )
}
