//! The network between clients and daemons: HTTP without sockets.
//!
//! Does: deliver a request to the daemon's own router and the answer back: late, truncated or not
//! at all. Does not: retry (clients do). Invariant: a request is handled by the run that it reached
//! or by none; whether the daemon notices a disconnected client is random.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::Request;
use bytes::Bytes;
use futures::stream;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::faults::NetFaults;
use crate::host::{DaemonRun, Host};
use crate::rng::Rng;
use crate::simulation::{Simulation, note};

#[derive(Debug, Clone)]
pub struct Call {
    pub method: &'static str,
    pub path: String,
    pub content_type: Option<&'static str>,
    pub body: Bytes,
    /// Sends `If-Match: *`: renew, but do not create.
    pub if_match: bool,
    /// Sends `If-None-Match: *`: create, and answer at once.
    pub if_none_match: bool,
    /// Sends `Stopover-Foreign: 1`: the sink is written at its home.
    pub foreign: bool,
    /// Sends the descriptor of the exchange, if it was announced.
    pub described: bool,
}

impl Call {
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            content_type: None,
            body: Bytes::new(),
            if_match: false,
            if_none_match: false,
            foreign: false,
            described: true,
        }
    }

    pub fn with(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.content_type = Some(content_type);
        self.body = body.into();
        self
    }
}

/// A response, as far as it arrived.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
    /// Whether the response arrived to its end.
    pub complete: bool,
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReply {
    /// No daemon listens: the request had no effect.
    Refused,
    /// Whether the request had an effect is unknown.
    Lost,
}

/// The outcome of a request.
#[derive(Debug)]
pub struct CallOutcome {
    /// The run that it reached.
    pub reached: Option<u64>,
    pub result: Result<Reply, NoReply>,
}

/// How a client reads a response.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadBehaviour {
    /// Disconnects after this many bytes.
    pub disconnects_after: Option<usize>,
    /// Reads nothing for this time after the head.
    pub stalls_for: Option<Duration>,
}

pub struct Net {
    simulation: Arc<Simulation>,
    rng: Rng,
    pub faults: Mutex<NetFaults>,
    /// For each host, the time until which it is unreachable.
    cut_off: Mutex<Vec<Option<Instant>>>,
    /// The descriptors that daemons have answered, by exchange.
    descriptors: Mutex<BTreeMap<String, String>>,
}

/// How a request body ends before it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Reset,
    /// Nothing more arrives, not even that the connection is gone.
    Silence,
}

enum Part {
    Head(u16),
    Data(Bytes),
    End,
}

impl Net {
    pub fn new(simulation: &Arc<Simulation>, hosts: usize, faults: NetFaults) -> Arc<Self> {
        Arc::new(Self {
            simulation: Arc::clone(simulation),
            rng: Rng::new(simulation.seed, "net"),
            faults: Mutex::new(faults),
            cut_off: Mutex::new(vec![None; hosts]),
            descriptors: Mutex::default(),
        })
    }

    /// Whether the clients of an exchange send its descriptor: those of some know none, as curl.
    pub fn describes(&self, exchange: &str) -> bool {
        !exchange.ends_with(['3', '7'])
    }

    /// Records the descriptor of an exchange: requests for it carry it from now on.
    pub fn describe(&self, exchange: &str, descriptor: &str) {
        if self.describes(exchange) {
            let mut descriptors = self.descriptors.lock();
            descriptors.insert(exchange.to_owned(), descriptor.to_owned());
        }
    }

    /// Forgets the descriptor of an exchange: the answer with it was lost.
    pub fn forget(&self, exchange: &str) {
        self.descriptors.lock().remove(exchange);
    }

    fn descriptor(&self, call: &Call) -> Option<String> {
        let rest = call.path.strip_prefix("/v1/exchanges/")?;
        let exchange = rest.split(['/', '?']).next()?;
        let known = self.descriptors.lock().get(exchange).cloned();
        known.filter(|_| call.described)
    }

    pub fn cut_off(&self, host: usize, duration: Duration) {
        note!(
            self.simulation,
            "host {host} cut off for {} ms",
            duration.as_millis()
        );
        self.cut_off.lock()[host] = Some(Instant::now() + duration);
    }

    pub fn reconnect(&self) {
        self.cut_off.lock().fill(None);
    }

    fn is_cut_off(&self, host: &Host) -> bool {
        self.cut_off.lock()[host.index].is_some_and(|until| Instant::now() < until)
    }

    /// Sends a request and receives the response.
    pub async fn call(
        &self,
        host: &Host,
        call: Call,
        timeout: Duration,
        behaviour: ReadBehaviour,
    ) -> CallOutcome {
        let what = format!("{} {}", call.method, call.path);
        let mut reached = None;
        let round_trip = self.round_trip(host, call, behaviour, &mut reached);
        let result = tokio::time::timeout(timeout, round_trip).await;
        let result = result.unwrap_or(Err(NoReply::Lost));
        match &result {
            Ok(reply) => note!(
                self.simulation,
                "call {what} at {reached:x?}: {} with {} bytes, complete {}",
                reply.status,
                reply.body.len(),
                reply.complete
            ),
            Err(no_reply) => note!(self.simulation, "call {what} at {reached:x?}: {no_reply:?}"),
        }
        CallOutcome { reached, result }
    }

    async fn round_trip(
        &self,
        host: &Host,
        call: Call,
        behaviour: ReadBehaviour,
        reached: &mut Option<u64>,
    ) -> Result<Reply, NoReply> {
        let faults = self.faults.lock().clone();
        tokio::time::sleep(faults.latency(&self.rng)).await;
        if self.rng.chance(faults.loses_requests) || self.is_cut_off(host) {
            tokio::time::sleep(self.rng.millis(10, 30_000)).await;
            return Err(NoReply::Lost);
        }
        let run = host.current_run().ok_or(NoReply::Refused)?;
        *reached = Some(run.process.incarnation);
        let (sender, mut receiver) = mpsc::channel(1);
        let cut = self.cut(&call, &faults);
        let request = self.request(&call, &faults, cut);
        let connection = run
            .process
            .start(Box::pin(serve(Arc::clone(&run), request, sender)));
        drop(run);
        // The daemon notices a disconnected client, or the connection stays half open.
        let _leaving = self.rng.chance(700).then(|| AbortOnDrop(connection));
        let reply = receive(&mut receiver, behaviour).await;
        tokio::time::sleep(faults.latency(&self.rng)).await;
        if cut.is_some() || self.rng.chance(faults.loses_answers) || self.is_cut_off(host) {
            return Err(NoReply::Lost);
        }
        reply
    }

    fn cut(&self, call: &Call, faults: &NetFaults) -> Option<Cut> {
        if call.body.is_empty() {
            return None;
        }
        let reset = self.rng.chance(faults.cuts_uploads).then_some(Cut::Reset);
        reset.or_else(|| {
            let halted = self.rng.chance(faults.halts_uploads);
            halted.then(|| {
                self.simulation.count("an upload that halts");
                Cut::Silence
            })
        })
    }

    fn request(&self, call: &Call, faults: &NetFaults, cut: Option<Cut>) -> Request<Body> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(&call.path)
            .header("host", "localhost");
        if let Some(content_type) = call.content_type {
            request = request.header("content-type", content_type);
        }
        if call.if_match {
            request = request.header("if-match", "*");
        }
        if call.if_none_match {
            request = request.header("if-none-match", "*");
        }
        if call.foreign {
            request = request.header("stopover-foreign", "1");
        }
        if let Some(descriptor) = self.descriptor(call) {
            request = request.header("stopover-exchange", descriptor);
        }
        if call.path.contains("/partitions/") {
            request = request.header("accept", "application/vnd.stopover.read");
        }
        if call.body.is_empty() {
            return request.body(Body::empty()).expect("a plain request");
        }
        request = request.header("content-length", call.body.len());
        let body = if cut.is_some() || self.rng.chance(faults.trickles) {
            self.trickle(call.body.clone(), cut)
        } else {
            Body::from(call.body.clone())
        };
        request.body(body).expect("a plain request")
    }

    /// A body that arrives in pieces with pauses, and may break off.
    fn trickle(&self, body: Bytes, cut: Option<Cut>) -> Body {
        let piece = self.rng.between(1, body.len() as u64) as usize;
        let pieces: Vec<(Duration, Result<Bytes, std::io::Error>)> = (0..body.len())
            .step_by(piece)
            .map(|at| {
                let bytes = body.slice(at..(at + piece).min(body.len()));
                (self.rng.millis(0, 800), Ok(bytes))
            })
            .collect();
        let mut pieces = pieces;
        if cut.is_some() {
            let broken = std::io::Error::other("connection reset");
            let last = pieces.len() - 1;
            pieces[last].1 = Err(broken);
        }
        let pieces = stream::iter(pieces);
        Body::from_stream(futures::StreamExt::then(
            pieces,
            move |(pause, piece)| async move {
                tokio::time::sleep(pause).await;
                if piece.is_err() && cut == Some(Cut::Silence) {
                    std::future::pending::<()>().await;
                }
                piece
            },
        ))
    }
}

/// Closes the daemon's side of a connection when the client's side is dropped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The daemon's side of a connection; it runs in the daemon's process and dies with it.
async fn serve(run: Arc<DaemonRun>, request: Request<Body>, sender: mpsc::Sender<Part>) {
    let (router, mutant_router) = (run.router.clone(), Arc::clone(&run.mutant_router));
    let request = match request.uri().path().ends_with("/pages") {
        true => request.map(|body| run.process.meter.body(body)),
        false => request,
    };
    drop(run);
    let response: Result<_, Infallible> = Ok(mutant_router.serve(router, request).await);
    let Ok(response) = response;
    let head = Part::Head(response.status().as_u16());
    if sender.send(head).await.is_err() {
        return;
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if sender.send(Part::Data(data)).await.is_err() {
            return;
        }
    }
    debug_assert!(body.is_end_stream() || body.size_hint().lower() == 0);
    let _ = sender.send(Part::End).await;
}

/// The client's side of a connection.
async fn receive(
    receiver: &mut mpsc::Receiver<Part>,
    behaviour: ReadBehaviour,
) -> Result<Reply, NoReply> {
    let Some(Part::Head(status)) = receiver.recv().await else {
        return Err(NoReply::Lost);
    };
    if let Some(stall) = behaviour.stalls_for {
        tokio::time::sleep(stall).await;
    }
    let mut body = Vec::new();
    while let Some(part) = receiver.recv().await {
        match part {
            Part::Data(bytes) => body.extend_from_slice(&bytes),
            Part::End | Part::Head(_) => {
                return Ok(Reply {
                    status,
                    body,
                    complete: true,
                });
            }
        }
        if let Some(most) = behaviour
            .disconnects_after
            .filter(|most| body.len() > *most)
        {
            body.truncate(most);
            break;
        }
    }
    Ok(Reply {
        status,
        body,
        complete: false,
    })
}
