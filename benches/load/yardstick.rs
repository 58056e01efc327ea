//! The yardstick: the least that a server can do with the same HTTP stack.
//!
//! Does: read bodies and drop them, or keep them, and stream bytes out of memory. Does not: look at
//! a byte. Invariant: bytes are kept, and streamed, in memory that is as large as a round: what the
//! processor's cache holds is no memory.

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

/// What it streams at a time.
const PIECE: usize = 1 << 20;

async fn take(mut body: Body) -> Json<Value> {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    Json(json!({"batch": 0, "next": 1, "length": length}))
}

/// Keeps bodies, each copied into a buffer of its size; the oldest go when it is full.
struct Kept {
    room: usize,
    bodies: VecDeque<Vec<u8>>,
}

impl Kept {
    fn new(room: usize) -> Self {
        let bodies = VecDeque::new();
        Self { room, bodies }
    }

    fn add(&mut self, body: Vec<u8>) {
        while self.room < body.len() {
            let Some(oldest) = self.bodies.pop_front() else {
                return;
            };
            self.room += oldest.len();
        }
        self.room -= body.len();
        self.bodies.push_back(body);
    }
}

async fn keep(kept: Arc<Mutex<Kept>>, announced: usize, mut body: Body) -> Json<Value> {
    let mut buffer = Vec::with_capacity(announced);
    while let Some(Ok(frame)) = body.frame().await {
        buffer.extend_from_slice(frame.data_ref().map_or(&[], |bytes| &bytes[..]));
    }
    let length = buffer.len();
    kept.lock().add(buffer);
    Json(json!({"batch": 0, "next": 1, "length": length}))
}

/// As many bytes as a round moves, there from the first response on, and where the next begins.
struct Memory {
    length: usize,
    bytes: OnceLock<Bytes>,
    next: AtomicUsize,
}

impl Memory {
    fn new(length: usize) -> Self {
        Self {
            length,
            bytes: OnceLock::new(),
            next: AtomicUsize::new(0),
        }
    }

    /// The next bytes, at most so many; behind the last come the first again.
    fn piece(&self, most: usize) -> Bytes {
        let length = self.length;
        // Not zeros: those could all be the same page of the system's memory.
        let bytes = self.bytes.get_or_init(|| vec![7; length].into());
        let most = most.min(PIECE).min(length);
        let start = self.next.fetch_add(most, Ordering::Relaxed) % length;
        bytes.slice(start..(start + most).min(length))
    }
}

fn give(memory: Arc<Memory>, length: usize) -> Body {
    Body::from_stream(stream::unfold(length, move |left| {
        let now = memory.piece(left);
        let next = left - now.len();
        async move { (!now.is_empty()).then_some((Ok::<_, Infallible>(now), next)) }
    }))
}

/// Serves until it is killed, with so many bytes in memory to give.
pub fn serve(bytes: usize) -> Result<()> {
    let memory = Arc::new(Memory::new(bytes));
    let kept = Arc::new(Mutex::new(Kept::new(bytes)));
    let router = Router::new()
        .route("/take", post(take))
        .route(
            "/keep/{length}",
            post(move |Path(length): Path<usize>, body: Body| {
                keep(Arc::clone(&kept), length, body)
            }),
        )
        .route(
            "/give/{length}",
            get(move |Path(length): Path<usize>| {
                let memory = Arc::clone(&memory);
                async move { give(memory, length) }
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
