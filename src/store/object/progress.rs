//! HTTP requests that fail when they make no progress.
//!
//! Does: bound the wait for an answer, counted from when the whole request was given to the kernel,
//! and the wait for each piece of a response. Does not: bound a request as a whole (`deadline`
//! does, generously), or watch the sending: the kernel breaks a connection on which nothing was
//! acknowledged for 30 s (`TCP_USER_TIMEOUT`, which the client's library sets). Invariant: a store
//! that is slow and goes on does not fail, one that stops does
//! (docs/decisions/storage-deadlines.md).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, PutPayload};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use url::{Host, Url};

use super::answers::{Seen, unless_throttled};
use super::issued::IssuedSecrets;
use super::renewed::{CredentialSource, Renewed};
use super::renewing::{ProviderBuilder, Renewing};
use super::tls::ClientTls;
use crate::runtime::{Clock, TaskGroup};
use crate::store::deadline::DeadlinePolicy;

/// What the kernel may still hold of a request that was given to it, in bytes.
const SOCKET_BUFFER: usize = 4 << 20;

/// Nothing happened for too long.
#[derive(Debug, thiserror::Error)]
#[error("the store {what} for {} s", .timeout.as_secs_f64().round())]
struct NoProgress {
    what: &'static str,
    timeout: Duration,
}

fn no_progress(what: &'static str, timeout: Duration) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, NoProgress { what, timeout })
}

/// Builds the clients of one base directory.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Its `timeout` is the longest time without progress.
    pub policy: DeadlinePolicy,
    /// Measures it.
    pub clock: Clock,
    /// Runs what no operation waits for.
    pub tasks: TaskGroup,
    /// Gathers what the answers show.
    pub seen: Arc<Seen>,
    /// Learns the secrets that requests carry.
    pub issued: IssuedSecrets,
    /// What is shown to servers that want a certificate.
    pub tls: Option<ClientTls>,
    /// Host and port of services of this machine that give out credentials: no proxy reaches them.
    pub direct: Vec<(String, u16)>,
}

impl Connector {
    /// Has requests to this URL use no proxy if it is one of this machine: of its loopback.
    pub(super) fn reach_directly(&mut self, url: &str) {
        if let Some(url) = Url::parse(url).ok().filter(is_loopback) {
            let place = (url.host_str(), url.port_or_known_default());
            self.direct.extend(place.0.map(str::to_owned).zip(place.1));
        }
    }

    /// The credentials of a service, fetched again before they expire.
    pub(super) fn renewed<S: CredentialSource>(&self, source: S) -> Arc<Renewed<S>> {
        Arc::new(Renewed::new(
            source,
            self.clock.clone(),
            Arc::clone(&self.seen),
        ))
    }

    /// The credentials of the store's client, requested again when the store calls them expired.
    ///
    /// # Errors
    /// Those of the client.
    pub(super) fn renewing<B: ProviderBuilder>(
        &self,
        builder: B,
    ) -> object_store::Result<Arc<Renewing<B>>> {
        let seen = Arc::clone(&self.seen);
        Ok(Arc::new(Renewing::new(builder, self.clock.clone(), seen)?))
    }

    /// The client of the HTTP library.
    fn inner(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let Some(tls) = &self.tls else {
            return ReqwestConnector::default().connect(options);
        };
        let client = tls.client(options);
        let client = client.map_err(|error| object_store::Error::Generic {
            store: "HTTP client",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(client))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let options = options.clone().with_timeout_disabled();
        let options = options.with_read_timeout_disabled();
        Ok(HttpClient::new(Service {
            inner: self.inner(&options)?,
            direct: Mutex::default(),
            options,
            connector: self.clone(),
        }))
    }
}

#[derive(Debug)]
struct Service {
    inner: HttpClient,
    /// Uses no proxy; made when it is needed.
    direct: Mutex<Option<HttpClient>>,
    options: ClientOptions,
    connector: Connector,
}

/// Where instances, containers and pods get credentials. These addresses are those of this machine:
/// a proxy would be asked for the credentials of its own.
const METADATA: [&str; 7] = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
    "metadata.google.internal",
    "metadata",
];

/// Whether the host of a URL is this machine, by its name or by an address of its loopback.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// All hosts in the form of `NO_PROXY`, where `*` stands for names alone.
const EVERY_HOST: &str = "*,0.0.0.0/0,::/0";

impl Service {
    /// The client for requests to this host and port.
    fn client(&self, host: Option<&str>, port: u16) -> Result<HttpClient, HttpError> {
        let is_direct = |host: &str| {
            let mut direct = self.connector.direct.iter();
            METADATA.contains(&host) || direct.any(|place| (&*place.0, place.1) == (host, port))
        };
        if !host.is_some_and(is_direct) {
            return Ok(self.inner.clone());
        }
        let mut direct = self.direct.lock();
        if let Some(client) = &*direct {
            return Ok(client.clone());
        }
        // A proxy that is configured replaces those of the environment; all hosts are excluded.
        let options = self.options.clone().with_proxy_url("http://127.0.0.1:9");
        let options = options.with_proxy_excludes(EVERY_HOST);
        let client = ReqwestConnector::default().connect(&options);
        let client = client.map_err(|error| HttpError::new(HttpErrorKind::Connect, error))?;
        Ok(direct.insert(client).clone())
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Connector { policy, clock, .. } = &self.connector;
        self.connector.issued.note(&request);
        let unsent = request.body().content_length().min(SOCKET_BUFFER);
        let timeout = policy.transfer(unsent as u64);
        let uri = request.uri();
        let usual = if uri.scheme_str() == Some("http") {
            80
        } else {
            443
        };
        let inner = self.client(uri.host(), uri.port_u16().unwrap_or(usual))?;
        let (request, sent) = announcing_its_end(request).await?;
        let unanswered = async {
            // Either way nothing is left to be sent.
            let _ = sent.await;
            clock.sleep(timeout).await;
        };
        let response = tokio::select! {
            biased;
            response = inner.execute(request) => response?,
            () = unanswered => return Err(no_progress("did not answer", timeout)),
        };
        self.connector.seen.note(&response);
        let watched = |body| Watched::new(body, self.connector.clone());
        let response = response.map(|body| HttpResponseBody::new(watched(body)));
        self.connector
            .seen
            .note_batch(unless_throttled(response).await?)
            .await
    }
}

/// The last bytes of a request; dropped when they have been sent.
struct Last {
    bytes: Bytes,
    _sent: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Last {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The same request, and what ends when all of it has been handed to the kernel.
async fn announcing_its_end(
    request: HttpRequest,
) -> Result<(HttpRequest, oneshot::Receiver<()>), HttpError> {
    let (sender, sent) = oneshot::channel();
    if request.body().as_bytes().is_some() {
        // One small piece; the sender is dropped here, so the time for the answer begins now.
        return Ok((request, sent));
    }
    let (head, body) = request.into_parts();
    let mut pieces: Vec<Bytes> = body.into_data_stream().try_collect().await?;
    if let Some(bytes) = pieces.pop() {
        let last = Last {
            bytes,
            _sent: sender,
        };
        pieces.push(Bytes::from_owner(last));
    }
    let body = HttpRequestBody::from(pieces.into_iter().collect::<PutPayload>());
    Ok((HttpRequest::from_parts(head, body), sent))
}

type Pause = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A response body whose next piece must come in time.
struct Watched {
    body: HttpResponseBody,
    pause: Pause,
    connector: Connector,
}

impl Watched {
    fn new(body: HttpResponseBody, connector: Connector) -> Self {
        Self {
            body,
            pause: pause(&connector),
            connector,
        }
    }
}

fn pause(Connector { policy, clock, .. }: &Connector) -> Pause {
    let (timeout, clock) = (policy.timeout, clock.clone());
    Box::pin(async move { clock.sleep(timeout).await })
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.pause = pause(&self.connector);
            return Poll::Ready(frame);
        }
        let timeout = self.connector.policy.timeout;
        let ended = self.pause.as_mut().poll(context);
        ended.map(|()| Some(Err(no_progress("sent nothing", timeout))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
