//! The API's description, OpenAPI 3.1, generated from the routes.
//!
//! Does: define the parts of the document other than the routes, and serve it. Invariant: the
//! document equals the golden file `tests/golden/openapi.json`.

use std::sync::Arc;

use axum::Extension;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, SecurityRequirement};

use super::extract::NoQuery;
use super::problem::{Problem, ProblemBody};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Stopover",
        description = "Stores the exchange data of Trino's fault-tolerant execution. \
                       `docs/protocol.md` is normative; every error is a problem with a stable \
                       `type`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ProblemBody))
)]
struct Head;

/// The document without its routes.
pub(super) fn head() -> OpenApi {
    let mut head = Head::openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("Required if the daemon has a server.token_file"))
        .build();
    head.components
        .get_or_insert_with(Components::default)
        .add_security_scheme("token", SecurityScheme::Http(bearer));
    let token = SecurityRequirement::new::<_, [&str; 0], &str>("token", []);
    head.security = Some(vec![SecurityRequirement::default(), token]);
    head
}

/// The complete document as JSON text.
#[derive(Clone)]
pub(super) struct OpenApiText(Arc<str>);

impl OpenApiText {
    /// Renders the document.
    pub(super) fn new(document: &OpenApi) -> Self {
        let text = document.to_pretty_json();
        Self(format!("{}\n", text.expect("the document is plain data")).into())
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json"))
)]
pub(super) async fn document(
    Extension(OpenApiText(text)): Extension<OpenApiText>,
    _: NoQuery,
) -> Result<impl IntoResponse, Problem> {
    Ok(([(CONTENT_TYPE, "application/json")], text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Arc<str> {
        OpenApiText::new(&crate::api::described().into_openapi()).0
    }

    /// To accept an intended change of the API, run this test with `STOPOVER_GOLDEN=write` and
    /// review the diff.
    #[test]
    fn the_document_is_the_golden_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/openapi.json");
        if std::env::vars().any(|(k, v)| k == "STOPOVER_GOLDEN" && v == "write") {
            std::fs::write(path, &*text()).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap();
        assert!(
            *text() == golden,
            "{path} differs; see the comment of this test"
        );
    }

    #[test]
    fn every_route_of_the_protocol_page_is_described() {
        let page = include_str!("../../docs/protocol.md");
        let document: serde_json::Value = serde_json::from_str(&text()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut seen = 0;
        for (position, _) in page.match_indices('`') {
            let text = &page[position + 1..];
            let Some((method, rest)) = text.split_once(' ') else {
                continue;
            };
            if !["GET", "PUT", "POST", "DELETE"].contains(&method) || !rest.starts_with('/') {
                continue;
            }
            let end = rest.find(['`', '?']).unwrap();
            let pointer = &document["paths"][&rest[..end]][method.to_lowercase()];
            assert!(pointer.is_object(), "{method} {}", &rest[..end]);
            seen += 1;
        }
        assert!(seen >= 15, "only {seen} routes found on the page");
    }
}
