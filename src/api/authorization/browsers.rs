//! Refuses browsers where no token is configured.
//!
//! Does: recognize requests that a browser sends on behalf of another site's page, by `Origin`,
//! `Sec-Fetch-Site` and `Host`. Does not: check tokens; a page cannot send one. Invariant: an
//! accepted request was sent by a program, or by a browser that shows this daemon's own page under
//! a name that an attacker cannot make resolve to this daemon.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderName, HeaderValue};

use crate::api::problem::{Problem, ProblemType};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Longest part of a header that is quoted.
const MAX_QUOTED: usize = 100;

/// Refuses what a browser sends for another page.
pub(super) fn check(request: &Request, allowed_hosts: &[String]) -> Result<(), Problem> {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    // In HTTP/2, and in HTTP/1.1 in front of a path, the target may name the host, too.
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    if let Some(unknown) = [host, authority]
        .into_iter()
        .flatten()
        .find(|host| !is_known(host, allowed_hosts))
    {
        return Err(refused(format!(
            "without a token, the daemon answers only to localhost, IP addresses and the names in \
             server.allowed_hosts, and the Host is {}: add it there, or configure \
             server.token_file",
            quoted(unknown)
        )));
    }
    let own = authority.or(host);
    let is_own = |origin: &HeaderValue| is_same_origin(origin, own);
    if let Some(origin) = headers
        .get_all(ORIGIN)
        .iter()
        .find(|origin| !is_own(origin))
    {
        return Err(refused(format!(
            "without a token, the daemon answers no page of another site, and the Origin is {}: \
             configure server.token_file, or send no Origin",
            quoted(origin.to_str().unwrap_or_default())
        )));
    }
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    if sites.any(|site| site != "same-origin" && site != "none") {
        return Err(refused(
            "without a token, the daemon answers no page of another site, and Sec-Fetch-Site says \
             that one has sent this: enter the address of the daemon by hand"
                .to_owned(),
        ));
    }
    Ok(())
}

fn refused(detail: String) -> Problem {
    Problem::new(ProblemType::Forbidden, detail)
}

fn quoted(text: &str) -> String {
    let text: String = text.chars().take(MAX_QUOTED).collect();
    format!("{text:?}")
}

/// Whether a name, with or without a port, cannot be made to resolve to this daemon by a stranger.
fn is_known(host: &str, allowed_hosts: &[String]) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port))
        });
    }
    let name = match host.find(':') {
        None => host,
        Some(colon) if is_port(&host[colon..]) => &host[..colon],
        Some(_) => return false,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<Ipv4Addr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || allowed_hosts
            .iter()
            .any(|allowed| name.eq_ignore_ascii_case(allowed))
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .is_some_and(|port| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether an origin is the daemon under the name in `Host`.
fn is_same_origin(origin: &HeaderValue, own: Option<&str>) -> bool {
    let (Ok(origin), Some(own)) = (origin.to_str(), own) else {
        return false;
    };
    let without_scheme = ["http://", "https://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme));
    without_scheme.is_some_and(|origin| origin.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn answers(target: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = axum::http::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        match check(&request, &["stopover.trino.svc".to_owned()]) {
            Ok(()) => true,
            Err(problem) => {
                assert_eq!(problem.problem_type(), ProblemType::Forbidden);
                false
            }
        }
    }

    #[test]
    fn only_names_that_a_stranger_cannot_redirect_are_answered() {
        // Story: a page of evil.example, whose name resolved to 127.0.0.1 after it had been loaded,
        // listed and deleted the exchanges of a daemon without tokens (DNS rebinding).
        for host in [
            "127.0.0.1",
            "127.0.0.1:7077",
            "10.0.0.12:80",
            "[::1]:7077",
            "[fd00::7]",
            "localhost",
            "LOCALHOST:7077",
            "localhost.:7077",
            "stopover.trino.svc:7077",
        ] {
            assert!(answers("/v1/exchanges", &[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7077",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "stopover.trino.svc.evil.example",
            "evil@127.0.0.1",
            "127.0.0.1:7077:x",
            "127.0.0.1:123456",
            "[::1",
            "[::1]x",
            "[evil.example]",
            "::1",
            "0x7f000001",
            "127.1",
            "",
        ] {
            assert!(!answers("/v1/exchanges", &[("host", host)]), "{host}");
            let local = [("host", "localhost")];
            if !host.is_empty() && !host.contains(['[', ':', '@']) {
                let target = format!("http://{host}/v1/exchanges");
                assert!(!answers(&target, &local), "{target}");
            }
        }
        assert!(answers("http://localhost/v1/exchanges", &[]));
    }

    #[test]
    fn pages_of_other_sites_are_not_answered_and_the_own_page_is() {
        // Story: a form on any page aborted a sink of a daemon without tokens.
        let host = ("host", "localhost:7077");
        for own in ["http://localhost:7077", "https://localhost:7077"] {
            assert!(answers("/", &[host, ("origin", own)]), "{own}");
        }
        for other in [
            "http://evil.example",
            "http://localhost:8080",
            "http://localhost",
            "http://127.0.0.1:7077",
            "null",
            "localhost:7077",
            "file://",
        ] {
            assert!(!answers("/", &[host, ("origin", other)]), "{other}");
            let both = [host, ("origin", "http://localhost:7077"), ("origin", other)];
            assert!(!answers("/", &both), "{other}");
        }
        for (site, answered) in [
            ("none", true),
            ("same-origin", true),
            ("same-site", false),
            ("cross-site", false),
            ("", false),
        ] {
            assert_eq!(
                answers("/", &[host, ("sec-fetch-site", site)]),
                answered,
                "{site}"
            );
        }
    }
}
