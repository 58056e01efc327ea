//! Azure: accounts that keep what is deleted, which Azurite does not know.

#![allow(clippy::disallowed_methods)] // servers run as spawned tasks

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use stopover::runtime::Runtime;
use stopover::storage::StoreErrorKind;
use stopover::store::Retention;
use stopover::store::keys;
use stopover::store::open::open_all;

use crate::base;
use crate::gate::serve;

/// Answers each delete of a batch; `permanent` is what Azure says of it.
async fn deleted(State(permanent): State<bool>, request: Request) -> Response {
    if request.method() != Method::POST {
        return StatusCode::NOT_FOUND.into_response();
    }
    let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let count = String::from_utf8_lossy(&body).matches("DELETE /").count();
    let part = |id: usize| {
        format!(
            "--answers\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\n\
             HTTP/1.1 202 Accepted\r\nx-ms-delete-type-permanent: {permanent}\r\n\r\n\r\n"
        )
    };
    let text = (0..count).map(part).collect::<String>() + "--answers--\r\n";
    let content_type = [("content-type", "multipart/mixed; boundary=answers")];
    (StatusCode::ACCEPTED, content_type, Bytes::from(text)).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_keeps_deleted_objects_is_noticed_by_its_answer_to_a_delete() {
    for (permanent, retention) in [(true, None), (false, Some(Retention::SoftDelete))] {
        let app = Router::new().fallback(deleted).with_state(permanent);
        let endpoint = format!("http://{}/account", serve(app, None).await);
        let options = [
            ("account", "account"),
            ("endpoint", endpoint.as_str()),
            ("allow_http", "true"),
            ("access_key", "aHVzaA=="),
        ];
        let base = base("az://container/p", &options);
        let store = open_all(&[base], &Runtime::seeded(1)).unwrap().remove(0);
        let store = store.opened.store;
        assert_eq!(store.observed().retention, None);
        let missing = store.get_range(&keys::probe(1), 0..1).await.unwrap_err();
        assert_eq!(missing.kind, StoreErrorKind::NotFound);
        let removed = store.delete(vec![keys::probe(1), keys::probe(2)]).await;
        assert_eq!(removed.unwrap(), 2);
        assert_eq!(store.observed().retention, retention);
    }
}
