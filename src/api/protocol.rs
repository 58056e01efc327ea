//! Protocol versions: those that this daemon speaks, and the headers that carry them.
//!
//! Does: refuse requests of a protocol that this daemon does not speak; name its run and protocol
//! in every response. Does not: know the routes. Invariant: a client that sends no protocol
//! version, such as curl, is served.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Problem, ProblemType};
use crate::id::DaemonId;

/// The newest protocol that this daemon speaks, and the one that its responses name.
pub(super) const NEWEST_PROTOCOL: u32 = 1;
/// The oldest protocol that this daemon speaks.
pub(super) const OLDEST_PROTOCOL: u32 = 1;

/// Answered regardless of the client's protocol, so that a client can query the daemon's versions.
pub(super) const DESCRIPTION: &str = "/v1/daemon";

const PROTOCOL: HeaderName = HeaderName::from_static("stopover-protocol");
const RUN: HeaderName = HeaderName::from_static("stopover-run");

/// Wraps all routes.
pub(super) async fn negotiate(
    State(run): State<DaemonId>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let versioned = path.starts_with("/v1/") && path != DESCRIPTION;
    let mut response = match check(request.headers()) {
        Err(problem) if versioned => problem.into_response(),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(PROTOCOL, HeaderValue::from(NEWEST_PROTOCOL));
    let run = HeaderValue::from_str(&run.to_string());
    headers.insert(RUN, run.expect("a daemon id is hexadecimal digits"));
    response
}

fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(PROTOCOL) else {
        return Ok(());
    };
    let spoken = value.to_str().ok().and_then(|text| text.parse().ok());
    let Some(spoken) = spoken else {
        return Err(Problem::invalid(
            "the header Stopover-Protocol is not a decimal number",
        ));
    };
    let older = match spoken {
        OLDEST_PROTOCOL..=NEWEST_PROTOCOL => return Ok(()),
        0..OLDEST_PROTOCOL => "client",
        _ => "daemon",
    };
    let detail = format!(
        "the client speaks protocol {spoken}, this daemon {OLDEST_PROTOCOL} to {NEWEST_PROTOCOL}; \
         upgrade the {older}: daemons first, then the clients"
    );
    Err(Problem::new(ProblemType::UnsupportedProtocol, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_value(value: &'static str) -> Result<(), Problem> {
        check(
            &[(PROTOCOL, HeaderValue::from_static(value))]
                .into_iter()
                .collect(),
        )
    }

    #[test]
    fn a_spoken_protocol_and_none_at_all_are_accepted() {
        check(&HeaderMap::new()).unwrap();
        for version in OLDEST_PROTOCOL..=NEWEST_PROTOCOL {
            let value = HeaderValue::from(version);
            check(&[(PROTOCOL, value)].into_iter().collect()).unwrap();
        }
    }

    #[test]
    fn another_protocol_is_refused_and_the_refusal_names_the_side_to_upgrade() {
        for (value, side) in [("0", "upgrade the client"), ("999", "upgrade the daemon")] {
            let problem = check_value(value).unwrap_err();
            assert_eq!(problem.problem_type(), ProblemType::UnsupportedProtocol);
            assert!(problem.body().detail.contains(side), "{problem:?}");
        }
        let problem = check_value("one").unwrap_err();
        assert_eq!(problem.problem_type(), ProblemType::InvalidRequest);
    }
}
