//! What is answered while the daemon starts.
//!
//! Does: hold whether the daemon has started, and refuse requests for exchanges until then. Does
//! not: start anything (`app` does). Invariant: liveness, readiness, metrics, the dashboard and the
//! description of the daemon are answered as long as the process listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Problem, ProblemType};
use super::protocol::DESCRIPTION;

/// Whether the daemon is still starting. Clones share the state; by default it has started.
#[derive(Debug, Clone, Default)]
pub struct Startup(Arc<AtomicBool>);

impl Startup {
    /// The start begins.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// The start is over: everything is served from now on.
    pub fn complete(&self) {
        self.0.store(false, Ordering::Release);
    }

    pub fn is_running(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Refuses requests for exchanges while the daemon starts.
pub async fn require_started(
    State(startup): State<Startup>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    if route.starts_with("/v1/") && route != DESCRIPTION && startup.is_running() {
        let detail = "the base directories are being probed: send the request again, or to another \
                      daemon; server.start_timeout limits the start";
        return Problem::new(ProblemType::Starting, detail).into_response();
    }
    next.run(request).await
}
