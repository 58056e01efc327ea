//! What the tests ask of a server past the daemon: buckets, versions, the keys that are there.
//!
//! Does: sign and send single requests. Does not: use code of the daemon. Invariant: a request that
//! fails is an error with the server's words.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::azure::{
    AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzureBuilder,
};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{ACCESS_KEY, AZURE_ACCOUNT, AZURE_KEY, Kind, SECRET_KEY};

fn http() -> Result<reqwest::Client> {
    let client = reqwest::Client::builder().no_proxy();
    Ok(client.timeout(Duration::from_secs(20)).build()?)
}

/// Whether a server at this port answers HTTP at all.
pub async fn answers(port: u16) -> bool {
    let Ok(http) = http() else { return false };
    let answer = http.get(format!("http://127.0.0.1:{port}/")).send().await;
    answer.is_ok_and(|answer| answer.status() != 503)
}

pub async fn create(kind: Kind, port: u16, bucket: &str) -> Result<()> {
    match kind {
        Kind::Versitygw | Kind::Minio => s3(port, bucket, "").await,
        Kind::Azurite => {
            let url = format!("http://127.0.0.1:{port}/{AZURE_ACCOUNT}/{bucket}?restype=container");
            let mut request = request(Method::PUT, &url, String::new())?;
            let key = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURE_KEY)?);
            AzureAuthorizer::new(&key, AZURE_ACCOUNT).try_authorize(&mut request)?;
            send(request).await.map(drop)
        }
        Kind::FakeGcs => {
            let url = format!("http://127.0.0.1:{port}/storage/v1/b?project=test");
            send(request(
                Method::POST,
                &url,
                format!("{{\"name\": \"{bucket}\"}}"),
            )?)
            .await
            .map(drop)
        }
        // Daemons create their folders.
        Kind::Hadoop => Ok(()),
    }
    .with_context(|| format!("{}: creating the bucket {bucket}", kind.name()))
}

/// Creates a bucket of S3 that locks new objects for a day.
pub async fn create_locked(port: u16, bucket: &str) -> Result<()> {
    let locks = HeaderMap::from_iter([(
        HeaderName::from_static("x-amz-bucket-object-lock-enabled"),
        HeaderValue::from_static("true"),
    )]);
    signed(Method::PUT, port, bucket, "", locks).await?;
    let rule = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
                <DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule>\
                </ObjectLockConfiguration>";
    s3(port, &format!("{bucket}?object-lock="), rule).await
}

pub async fn keep_versions(kind: Kind, port: u16, bucket: &str) -> Result<bool> {
    let enabled = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                   <Status>Enabled</Status></VersioningConfiguration>";
    match kind {
        Kind::Versitygw | Kind::Minio => {
            let path = format!("{bucket}?versioning=");
            s3(port, &path, enabled).await?;
            Ok(true)
        }
        Kind::FakeGcs => {
            let url = format!("http://127.0.0.1:{port}/storage/v1/b/{bucket}");
            let enabled = "{\"versioning\": {\"enabled\": true}}";
            send(request(Method::PATCH, &url, enabled.into())?).await?;
            Ok(true)
        }
        Kind::Azurite | Kind::Hadoop => Ok(false),
    }
}

async fn s3(port: u16, path: &str, body: &str) -> Result<()> {
    let signed = signed(Method::PUT, port, path, body, HeaderMap::new());
    signed.await.map(drop)
}

/// The number of versions and delete markers in a bucket whose keys contain `part`.
pub async fn versions(kind: Kind, port: u16, bucket: &str, part: &str) -> Result<usize> {
    if kind == Kind::FakeGcs {
        let url = format!("http://127.0.0.1:{port}/storage/v1/b/{bucket}/o?versions=true");
        let (_, listed) = send(request(Method::GET, &url, String::new())?).await?;
        let listed: Value = serde_json::from_str(&listed)?;
        let names = listed["items"].as_array().into_iter().flatten();
        let names = names.filter_map(|item| item["name"].as_str());
        return Ok(names.filter(|name| name.contains(part)).count());
    }
    let path = format!("{bucket}?versions=");
    let (_, listed) = signed(Method::GET, port, &path, "", HeaderMap::new()).await?;
    let keys = listed.split("<Key>").skip(1);
    let keys = keys.filter_map(|rest| rest.split("</Key>").next());
    Ok(keys.filter(|key| key.contains(part)).count())
}

/// A header of an object in a bucket of S3.
pub async fn header(port: u16, path: &str, name: &str) -> Result<Option<String>> {
    let (headers, _) = signed(Method::HEAD, port, path, "", HeaderMap::new()).await?;
    let value = headers.get(name).map(|value| value.to_str());
    Ok(value.transpose()?.map(str::to_owned))
}

async fn signed(
    method: Method,
    port: u16,
    path: &str,
    body: &str,
    headers: HeaderMap,
) -> Result<(HeaderMap, String)> {
    let url = format!("http://127.0.0.1:{port}/{path}");
    let mut request = request(method, &url, body.to_owned())?;
    request.headers_mut().extend(headers);
    let credential = AwsCredential {
        key_id: ACCESS_KEY.into(),
        secret_key: SECRET_KEY.into(),
        token: None,
    };
    AwsAuthorizer::new(&credential, "s3", "us-east-1").try_authorize(&mut request, None)?;
    send(request).await
}

fn request(method: Method, url: &str, body: String) -> Result<HttpRequest> {
    let length = body.len();
    let mut request = HttpRequest::new(HttpRequestBody::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.parse()?;
    request
        .headers_mut()
        .insert("content-length", length.into());
    Ok(request)
}

async fn send(request: HttpRequest) -> Result<(HeaderMap, String)> {
    let (head, body) = request.into_parts();
    let body = body.as_bytes().cloned().unwrap_or_default();
    let url = head.uri.to_string();
    let sent = http()?.request(head.method, url).headers(head.headers);
    let answer = sent.body(body).send().await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = answer.text().await?;
    ensure!(status.is_success(), "{status}: {text}");
    Ok((headers, text))
}

/// A client with the defaults of its library.
fn client(kind: Kind, port: u16, bucket: &str) -> Result<Box<dyn ObjectStore>> {
    let endpoint = format!("http://127.0.0.1:{port}");
    let options = ClientOptions::new().with_allow_http(true);
    Ok(match kind {
        Kind::Versitygw | Kind::Minio => Box::new(
            AmazonS3Builder::new()
                .with_client_options(options)
                .with_endpoint(endpoint)
                .with_region("us-east-1")
                .with_bucket_name(bucket)
                .with_access_key_id(ACCESS_KEY)
                .with_secret_access_key(SECRET_KEY)
                .build()?,
        ),
        Kind::Azurite => Box::new(
            MicrosoftAzureBuilder::new()
                .with_client_options(options)
                .with_endpoint(format!("{endpoint}/{AZURE_ACCOUNT}"))
                .with_account(AZURE_ACCOUNT)
                .with_access_key(AZURE_KEY)
                .with_container_name(bucket)
                .build()?,
        ),
        Kind::FakeGcs => Box::new(
            GoogleCloudStorageBuilder::new()
                .with_client_options(options)
                .with_base_url(&endpoint)
                .with_bucket_name(bucket)
                .with_bearer_token("test")
                .build()?,
        ),
        Kind::Hadoop => anyhow::bail!("it has no interface of an object store"),
    })
}

/// The keys of all objects in a bucket.
pub async fn keys(kind: Kind, port: u16, bucket: &str) -> Result<Vec<String>> {
    let client = client(kind, port, bucket)?;
    let objects = client.list(None).map_ok(|object| object.location);
    let found: Vec<_> = objects.try_collect().await?;
    Ok(found.into_iter().map(String::from).collect())
}
