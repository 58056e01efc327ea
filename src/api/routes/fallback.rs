//! What no route takes.

use axum::http::{Method, Uri};

use crate::api::problem::{Problem, ProblemType};

/// No such path.
pub async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(256).collect();
    Problem::new(
        ProblemType::NotFound,
        format!("there is no route {path}; GET /openapi.json lists them"),
    )
}

/// No such method for this path; the Allow header names those that there are.
pub async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(256).collect();
    Problem::new(
        ProblemType::MethodNotAllowed,
        format!("{path} does not take {method}; the Allow header says what it takes"),
    )
}
