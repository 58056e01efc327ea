//! Uploads that carry a CRC-64/NVME of their bytes, for stores that verify it: cheaper for both
//! sides than the SHA-256 in a signature.
//!
//! Does: make the clients for such uploads out of those for others, one to use and one that damages
//! what it sends, which puts the store to the test; remember how it came out. Does not: put it to
//! the test (`probe`) or say when (`health`). Invariant: no upload goes this way before the store
//! was seen to refuse one that was damaged on its way.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, ObjectStore};

use crate::store::Store;

/// Two more ways to put into a store, and whether the first may be gone.
#[derive(Debug)]
pub struct Checksums {
    /// Puts with the checksum in place of the hash.
    pub checked: Arc<dyn Store>,
    /// The same, but damages each object on its way.
    pub damaging: Arc<dyn Store>,
    verified: OnceLock<bool>,
}

impl Checksums {
    /// Nobody knows yet whether the store verifies anything.
    pub fn new(checked: Arc<dyn Store>, damaging: Arc<dyn Store>) -> Self {
        Self {
            checked,
            damaging,
            verified: OnceLock::new(),
        }
    }

    /// Whether the store verifies checksums, if it is known.
    pub fn verified(&self) -> Option<bool> {
        self.verified.get().copied()
    }

    /// It is known now; the first answer stays.
    pub fn settle(&self, verified: bool) {
        self.verified.get_or_init(|| verified);
    }

    /// The way that uploads go, unless it is the usual one.
    pub fn for_uploads(&self) -> Option<&dyn Store> {
        (self.verified() == Some(true)).then_some(&*self.checked)
    }
}

/// What becomes of `signed`, which `builder` has built, with checksums: one to use and one that
/// damages. In all else they are the same, and they share its credentials.
pub fn clients(
    builder: &AmazonS3Builder,
    signed: &AmazonS3,
) -> object_store::Result<[Arc<dyn ObjectStore>; 2]> {
    let builder = builder
        .clone()
        .with_credentials(Arc::clone(signed.credentials()))
        .with_unsigned_payload(true)
        .with_checksum_algorithm(Checksum::CRC64NVME);
    let damaging = builder.clone().with_http_connector(Damaging);
    Ok([Arc::new(builder.build()?), Arc::new(damaging.build()?)])
}

/// Connects as the client does otherwise, and damages what it uploads.
#[derive(Debug)]
struct Damaging;

impl HttpConnector for Damaging {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let sound = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(DamagingClient(sound)))
    }
}

#[derive(Debug)]
struct DamagingClient(HttpClient);

#[async_trait]
impl HttpService for DamagingClient {
    /// The request is signed and has its checksum by now: only the body is other than they say.
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let mut bytes: Vec<u8> = body.collect().await?.to_bytes().into();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        let damaged = HttpRequest::from_parts(head, bytes.into());
        self.0.execute(damaged).await
    }
}
