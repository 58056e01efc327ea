//! The yardstick: the least that a server can do with the same HTTP stack.
//!
//! Does: read bodies and drop them, and stream bytes out of memory. Does not: look at a byte.
//! Invariant: its handlers hold no lock and allocate nothing for the bytes that pass.

use std::convert::Infallible;
use std::io::Write as _;

use anyhow::Result;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::stream;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

/// What it streams at a time.
const PIECE: usize = 1 << 20;

async fn take(mut body: Body) -> Json<Value> {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    Json(json!({"batch": 0, "next": 1, "length": length}))
}

fn give(piece: Bytes, length: usize) -> Body {
    Body::from_stream(stream::unfold(length, move |left| {
        let now = piece.slice(..left.min(PIECE));
        let next = left - now.len();
        async move { (!now.is_empty()).then_some((Ok::<_, Infallible>(now), next)) }
    }))
}

/// Serves until it is killed.
pub fn serve() -> Result<()> {
    let piece = Bytes::from(vec![7; PIECE]);
    let router = Router::new()
        .route("/take", post(take))
        .route(
            "/give/{length}",
            get(move |Path(length): Path<usize>| {
                let piece = piece.clone();
                async move { give(piece, length) }
            }),
        )
        .layer(DefaultBodyLimit::disable());
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        axum::serve(listener, router).await?;
        Ok(())
    })
}
