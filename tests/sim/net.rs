//! The network between clients and daemons: HTTP without sockets.
//!
//! Does: carry a request to the daemon's own router and the answer back, late, cut or not at all.
//! Does not: repeat anything (clients do). Invariant: a request is carried out by the run that it
//! reached or by none; whether the daemon notices that its client left is a matter of chance.

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

use crate::chance::Chance;
use crate::host::{Host, Life};
use crate::simulation::{Simulation, note};
use crate::weather::NetWeather;

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: &'static str,
    pub path: String,
    pub content_type: Option<&'static str>,
    pub body: Bytes,
    /// Only what exists already: `If-Match: *`.
    pub if_match: bool,
}

impl Ask {
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            content_type: None,
            body: Bytes::new(),
            if_match: false,
        }
    }

    pub fn with(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.content_type = Some(content_type);
        self.body = body.into();
        self
    }
}

/// An answer, as far as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
    /// Whether the response ended by itself.
    pub whole: bool,
}

/// No answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Nobody listens: nothing was done.
    Refused,
    /// Whether anything was done is not known.
    Lost,
}

/// What became of a request.
#[derive(Debug)]
pub struct Called {
    /// The run that it reached.
    pub reached: Option<u64>,
    pub result: Result<Reply, Silence>,
}

/// How a client takes a response.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taking {
    /// Leaves after so many bytes.
    pub leaves_after: Option<usize>,
    /// Takes nothing for a while after the head.
    pub stalls: Option<Duration>,
}

pub struct Net {
    simulation: Arc<Simulation>,
    chance: Chance,
    pub weather: Mutex<NetWeather>,
    /// Until when a host cannot be reached.
    cut_off: Mutex<Vec<Option<Instant>>>,
}

enum Part {
    Head(u16),
    Data(Bytes),
    End,
}

impl Net {
    pub fn new(simulation: &Arc<Simulation>, hosts: usize, weather: NetWeather) -> Arc<Self> {
        Arc::new(Self {
            simulation: Arc::clone(simulation),
            chance: Chance::new(simulation.seed, "net"),
            weather: Mutex::new(weather),
            cut_off: Mutex::new(vec![None; hosts]),
        })
    }

    pub fn cut_off(&self, host: usize, duration: Duration) {
        note!(
            self.simulation,
            "host {host} cut off for {} ms",
            duration.as_millis()
        );
        self.cut_off.lock()[host] = Some(Instant::now() + duration);
    }

    pub fn join(&self) {
        self.cut_off.lock().fill(None);
    }

    fn is_cut_off(&self, host: &Host) -> bool {
        self.cut_off.lock()[host.index].is_some_and(|until| Instant::now() < until)
    }

    /// Sends a request and takes the answer.
    pub async fn call(&self, host: &Host, ask: Ask, patience: Duration, taking: Taking) -> Called {
        let what = format!("{} {}", ask.method, ask.path);
        let mut reached = None;
        let exchange = self.exchange(host, ask, taking, &mut reached);
        let result = tokio::time::timeout(patience, exchange).await;
        let result = result.unwrap_or(Err(Silence::Lost));
        match &result {
            Ok(reply) => note!(
                self.simulation,
                "call {what} at {reached:x?}: {} with {} bytes, whole {}",
                reply.status,
                reply.body.len(),
                reply.whole
            ),
            Err(silence) => note!(self.simulation, "call {what} at {reached:x?}: {silence:?}"),
        }
        Called { reached, result }
    }

    async fn exchange(
        &self,
        host: &Host,
        ask: Ask,
        taking: Taking,
        reached: &mut Option<u64>,
    ) -> Result<Reply, Silence> {
        let weather = self.weather.lock().clone();
        tokio::time::sleep(weather.way(&self.chance)).await;
        if self.chance.yes(weather.loses_requests) || self.is_cut_off(host) {
            tokio::time::sleep(self.chance.millis(10, 30_000)).await;
            return Err(Silence::Lost);
        }
        let life = host.life().ok_or(Silence::Refused)?;
        *reached = Some(life.nest.incarnation);
        let (sender, mut receiver) = mpsc::channel(1);
        let cut = !ask.body.is_empty() && self.chance.yes(weather.cuts_uploads);
        let request = self.request(&ask, &weather, cut);
        let connection = life
            .nest
            .start(Box::pin(serve(Arc::clone(&life), request, sender)));
        drop(life);
        // A client that leaves is noticed, or its connection stays half open.
        let _leaving = self.chance.yes(700).then(|| Leaving(connection));
        let reply = take(&mut receiver, taking).await;
        tokio::time::sleep(weather.way(&self.chance)).await;
        if cut || self.chance.yes(weather.loses_answers) || self.is_cut_off(host) {
            return Err(Silence::Lost);
        }
        reply
    }

    fn request(&self, ask: &Ask, weather: &NetWeather, cut: bool) -> Request<Body> {
        let mut request = Request::builder().method(ask.method).uri(&ask.path);
        if let Some(content_type) = ask.content_type {
            request = request.header("content-type", content_type);
        }
        if ask.if_match {
            request = request.header("if-match", "*");
        }
        if ask.path.contains("/partitions/") {
            request = request.header("accept", "application/vnd.stopover.read");
        }
        if ask.body.is_empty() {
            return request.body(Body::empty()).expect("a plain request");
        }
        request = request.header("content-length", ask.body.len());
        let body = if cut || self.chance.yes(weather.trickles) {
            self.trickle(ask.body.clone(), cut)
        } else {
            Body::from(ask.body.clone())
        };
        request.body(body).expect("a plain request")
    }

    /// A body in pieces with pauses, which may break off.
    fn trickle(&self, body: Bytes, cut: bool) -> Body {
        let piece = self.chance.between(1, body.len() as u64) as usize;
        let pieces: Vec<(Duration, Result<Bytes, std::io::Error>)> = (0..body.len())
            .step_by(piece)
            .map(|at| {
                let bytes = body.slice(at..(at + piece).min(body.len()));
                (self.chance.millis(0, 800), Ok(bytes))
            })
            .collect();
        let mut pieces = pieces;
        if cut {
            let broken = std::io::Error::other("connection reset");
            let last = pieces.len() - 1;
            pieces[last].1 = Err(broken);
        }
        let pieces = stream::iter(pieces);
        Body::from_stream(futures::StreamExt::then(
            pieces,
            |(pause, piece)| async move {
                tokio::time::sleep(pause).await;
                piece
            },
        ))
    }
}

/// Ends the daemon's side of a connection when the client's side ends.
struct Leaving(AbortHandle);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The daemon's side: runs in its nest, and so dies with it.
async fn serve(life: Arc<Life>, request: Request<Body>, sender: mpsc::Sender<Part>) {
    let (router, door) = (life.router.clone(), Arc::clone(&life.door));
    let request = match request.uri().path().ends_with("/pages") {
        true => request.map(|body| life.nest.meter.body(body)),
        false => request,
    };
    drop(life);
    let response: Result<_, Infallible> = Ok(door.serve(router, request).await);
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

/// The client's side.
async fn take(receiver: &mut mpsc::Receiver<Part>, taking: Taking) -> Result<Reply, Silence> {
    let Some(Part::Head(status)) = receiver.recv().await else {
        return Err(Silence::Lost);
    };
    if let Some(stall) = taking.stalls {
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
                    whole: true,
                });
            }
        }
        if let Some(most) = taking.leaves_after.filter(|most| body.len() > *most) {
            body.truncate(most);
            break;
        }
    }
    Ok(Reply {
        status,
        body,
        whole: false,
    })
}
