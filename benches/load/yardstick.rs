//! The yardstick: the least work that a server can do with the same HTTP stack.
//!
//! Does: read bodies and drop them or copy them to memory, and stream bytes from memory. Does not:
//! inspect a byte. Invariant: copied and streamed bytes use memory as large as a round, so that
//! they do not fit into the processor's cache.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::stream;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The most bytes that are streamed at a time.
const MAX_PIECE: usize = 1 << 20;

async fn drop_body(mut body: Body) -> Json<Value> {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    Json(json!({"batch": 0, "next": 1, "length": length}))
}

/// Retains bodies, each copied into a buffer of its size; when full, the oldest are dropped.
struct Retained {
    free: usize,
    bodies: VecDeque<Vec<u8>>,
}

impl Retained {
    fn new(free: usize) -> Self {
        let bodies = VecDeque::new();
        Self { free, bodies }
    }

    fn add(&mut self, body: Vec<u8>) {
        while self.free < body.len() {
            let Some(oldest) = self.bodies.pop_front() else {
                return;
            };
            self.free += oldest.len();
        }
        self.free -= body.len();
        self.bodies.push_back(body);
    }
}

async fn copy_body(
    retained: Arc<Mutex<Retained>>,
    announced: usize,
    mut body: Body,
) -> Json<Value> {
    let mut buffer = Vec::with_capacity(announced);
    while let Some(Ok(frame)) = body.frame().await {
        buffer.extend_from_slice(frame.data_ref().map_or(&[], |bytes| &bytes[..]));
    }
    let length = buffer.len();
    retained.lock().add(buffer);
    Json(json!({"batch": 0, "next": 1, "length": length}))
}

/// As many bytes as a round moves, allocated at the first response, and the next position in them.
struct Memory {
    length: usize,
    bytes: OnceLock<Bytes>,
    position: AtomicUsize,
}

impl Memory {
    fn new(length: usize) -> Self {
        Self {
            length,
            bytes: OnceLock::new(),
            position: AtomicUsize::new(0),
        }
    }

    /// The next bytes, at most `most`; after the last one it starts over.
    fn next(&self, most: usize) -> Bytes {
        let length = self.length;
        // Not zeros, which the system could map to one page.
        let bytes = self.bytes.get_or_init(|| vec![7; length].into());
        let most = most.min(MAX_PIECE).min(length);
        let start = self.position.fetch_add(most, Ordering::Relaxed) % length;
        bytes.slice(start..(start + most).min(length))
    }
}

fn read_memory(memory: Arc<Memory>, length: usize) -> Body {
    Body::from_stream(stream::unfold(length, move |left| {
        let now = memory.next(left);
        let next = left - now.len();
        async move { (!now.is_empty()).then_some((Ok::<_, Infallible>(now), next)) }
    }))
}

/// Serves until killed, with `bytes` bytes to serve from memory.
pub fn serve(bytes: usize) -> Result<()> {
    let memory = Arc::new(Memory::new(bytes));
    let retained = Arc::new(Mutex::new(Retained::new(bytes)));
    let router = Router::new()
        .route("/drop", post(drop_body))
        .route(
            "/copy/{length}",
            post(move |Path(length): Path<usize>, body: Body| {
                copy_body(Arc::clone(&retained), length, body)
            }),
        )
        .route(
            "/read/{length}",
            get(move |Path(length): Path<usize>| {
                let memory = Arc::clone(&memory);
                async move { read_memory(memory, length) }
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
