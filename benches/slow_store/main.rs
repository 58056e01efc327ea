//! slow-store: a proxy that makes an S3 server behave as if it were distant and busy.
//!
//! Does: delay every request, refuse those above a rate with 503 SlowDown, forward all others
//! unchanged with their bodies limited to the bandwidth of one connection, and report the number of
//! refusals. Does not: inspect bodies or sign anything (the signature covers the Host header, which
//! stays as the client wrote it). Invariant: a refused request never reaches the upstream server.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Parser;
use http_body_util::{Either, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Sleep;

type Body = Either<Full<Bytes>, PacedBody>;

/// Makes an S3 server behave as if it were distant and busy.
#[derive(Parser)]
struct Options {
    /// The upstream S3 server, host:port
    #[arg(long)]
    upstream: SocketAddr,
    /// The address to listen on; port 0 selects a free one, which is printed
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Milliseconds added to every request
    #[arg(long, default_value_t = 40)]
    latency: u64,
    /// Requests per second that write, list or delete
    #[arg(long, default_value_t = 3500)]
    puts: u32,
    /// Requests per second that read
    #[arg(long, default_value_t = 5500)]
    gets: u32,
    /// MB per second of one connection; 0 for no limit
    #[arg(long, default_value_t = 0)]
    bandwidth: u32,
}

/// Grants `per_second` requests per second, with bursts of a tenth of a second.
struct Rate {
    per_second: f64,
    state: parking_lot::Mutex<(f64, Instant)>,
}

impl Rate {
    fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        let state = parking_lot::Mutex::new((per_second / 10.0, Instant::now()));
        Self { per_second, state }
    }

    fn grants(&self) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        let earned = now.duration_since(state.1).as_secs_f64() * self.per_second;
        let tokens = (state.0 + earned).min((self.per_second / 10.0).max(1.0));
        let granted = tokens >= 1.0;
        *state = (if granted { tokens - 1.0 } else { tokens }, now);
        granted
    }
}

struct Proxy {
    upstream: SocketAddr,
    latency: Duration,
    bandwidth: Option<f64>,
    puts: Rate,
    gets: Rate,
    refused: AtomicU64,
}

/// The upstream connection that belongs to a client's connection.
#[derive(Default)]
struct Upstream {
    sender: Option<SendRequest<PacedBody>>,
    driver: JoinSet<()>,
}

impl Proxy {
    async fn answer(
        &self,
        upstream: &Mutex<Upstream>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        if request.uri().path() == "/-/refused" {
            let refused = self.refused.load(Ordering::Relaxed).to_string();
            return Response::new(Either::Left(Full::from(refused)));
        }
        tokio::time::sleep(self.latency).await;
        let rate = match *request.method() {
            Method::GET | Method::HEAD => &self.gets,
            _ => &self.puts,
        };
        if !rate.grants() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SlowDown</Code>\
                        <Message>Please reduce your request rate.</Message></Error>";
            return error(StatusCode::SERVICE_UNAVAILABLE, body.into());
        }
        match self.forward(upstream, request).await {
            Ok(response) => {
                response.map(|body| Either::Right(PacedBody::new(body, self.bandwidth)))
            }
            Err(failure) => error(StatusCode::BAD_GATEWAY, format!("{failure:#}")),
        }
    }

    async fn forward(
        &self,
        upstream: &Mutex<Upstream>,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>> {
        let mut upstream = upstream.lock().await;
        let mut ready = None;
        if let Some(mut sender) = upstream.sender.take()
            && sender.ready().await.is_ok()
        {
            ready = Some(sender);
        }
        let mut sender = match ready {
            Some(sender) => sender,
            None => self.connect(&mut upstream.driver).await?,
        };
        let request = request.map(|body| PacedBody::new(body, self.bandwidth));
        let response = sender.send_request(request).await?;
        upstream.sender = Some(sender);
        Ok(response)
    }

    async fn connect(&self, driver: &mut JoinSet<()>) -> Result<SendRequest<PacedBody>> {
        let stream = TcpStream::connect(self.upstream)
            .await
            .context("cannot connect to the upstream server")?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        driver.spawn(async move {
            // If the connection breaks, its request fails, which the client receives as an error.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// A body that passes no faster than the bandwidth of one connection.
struct PacedBody {
    body: Incoming,
    /// Bytes per second.
    bandwidth: Option<f64>,
    start: Instant,
    carried: f64,
    wait: Option<Pin<Box<Sleep>>>,
}

impl PacedBody {
    fn new(body: Incoming, bandwidth: Option<f64>) -> Self {
        Self {
            body,
            bandwidth,
            start: Instant::now(),
            carried: 0.0,
            wait: None,
        }
    }
}

impl hyper::body::Body for PacedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some(bandwidth), Some(Ok(frame))) = (self.bandwidth, &frame) {
            self.carried += frame.data_ref().map_or(0, Bytes::len) as f64;
            let due = self.start + Duration::from_secs_f64(self.carried / bandwidth);
            self.wait = Some(Box::pin(tokio::time::sleep_until(due.into())));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn error(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(body)));
    *response.status_mut() = status;
    response
}

async fn serve(proxy: Arc<Proxy>, stream: TcpStream) {
    let upstream = Arc::new(Mutex::new(Upstream::default()));
    let service = service_fn(move |request| {
        let (proxy, upstream) = (Arc::clone(&proxy), Arc::clone(&upstream));
        async move { Ok::<_, Infallible>(proxy.answer(&upstream, request).await) }
    });
    // A client that disconnects is not a failure of the proxy.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let proxy = Arc::new(Proxy {
        upstream: options.upstream,
        latency: Duration::from_millis(options.latency),
        bandwidth: (options.bandwidth > 0).then(|| f64::from(options.bandwidth) * 1e6),
        puts: Rate::new(options.puts),
        gets: Rate::new(options.gets),
        refused: AtomicU64::new(0),
    });
    let listener = TcpListener::bind(options.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                connections.spawn(serve(Arc::clone(&proxy), stream));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
