//! Encryption, requester pays and storage classes: what a server demands is in each request.
//!
//! The servers refuse a request without it, as S3 does (docs.aws.amazon.com, "Specifying
//! server-side encryption", "Using Requester Pays buckets"). `tests/stores` asks MinIO, which
//! encrypts.

use axum::http::Method;
use axum::http::request::Parts;

use crate::fake_azure::FakeAzure;
use crate::fake_gcs::FakeGcs;
use crate::fake_s3::{FakeS3, Oddity};
use crate::gate::{Gate, Refusal};
use crate::{base, fault};

/// A key of 32 bytes and its MD5, in Base64.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn header<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name)?.to_str().ok()
}

/// Whether a request is for one object; the others are lists, and deletes of several.
fn is_of_object(head: &Parts) -> bool {
    let query = head.uri.query().unwrap_or_default();
    let lists = ["list-type", "versions", "delete"];
    !lists.iter().any(|word| query.contains(word)) && head.uri.path() != "/bucket"
}

fn demand(holds: bool) -> Result<(), Refusal> {
    if holds {
        Ok(())
    } else {
        Err((400, "InvalidRequest"))
    }
}

/// The base directory at a gate.
async fn tried(gate: &Gate, more: &[(&str, &str)]) -> Option<String> {
    let endpoint = format!("http://{}", gate.address);
    let own = [
        ("endpoint", endpoint.as_str()),
        ("allow_http", "true"),
        ("region", "us-east-1"),
        ("access_key_id", "key"),
        ("secret_access_key", "secret"),
    ];
    fault(base("s3://bucket/p", &[&own[..], more].concat())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_encrypted_as_each_server_demands() {
    const SSE: &str = "x-amz-server-side-encryption";
    let sse_s3 = |head: &Parts| match head.method {
        Method::PUT => demand(header(head, SSE) == Some("AES256")),
        // S3 refuses this header where nothing is written.
        _ => demand(header(head, SSE).is_none()),
    };
    let sse_kms = |head: &Parts| match head.method {
        Method::PUT => demand(
            header(head, SSE) == Some("aws:kms")
                && header(head, &format!("{SSE}-aws-kms-key-id")) == Some("alias/spool")
                && header(head, &format!("{SSE}-bucket-key-enabled")) == Some("true"),
        ),
        _ => demand(header(head, SSE).is_none()),
    };
    let sse_c = |head: &Parts| {
        let has = |end: &str| header(head, &format!("{SSE}-customer-{end}")).is_some();
        match head.method {
            Method::PUT | Method::GET | Method::HEAD if is_of_object(head) => {
                demand(has("algorithm") && has("key") && has("key-md5"))
            }
            _ => demand(!has("key")),
        }
    };
    let kms = [
        ("aws_server_side_encryption", "aws:kms"),
        ("aws_sse_kms_key_id", "alias/spool"),
        ("aws_sse_bucket_key_enabled", "true"),
    ];
    let customer = [
        ("aws_server_side_encryption", "sse-c"),
        ("aws_sse_customer_key_base64", KEY),
    ];
    let gates = [
        (
            Gate::start(sse_s3).await,
            &[("aws_server_side_encryption", "AES256")][..],
        ),
        (Gate::start(sse_kms).await, &kms[..]),
        (Gate::start(sse_c).await, &customer[..]),
    ];
    for (gate, options) in &gates {
        assert_eq!(tried(gate, options).await, None, "{:?}", gate.refused());
        assert_eq!(gate.refused(), [] as [&str; 0]);
        let without = tried(gate, &[]).await;
        assert!(without.is_some(), "{options:?} are not demanded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_requester_pays_is_told_so_with_each_request() {
    // A signed URL has it in its query.
    let pays = |head: &Parts| {
        let query = head.uri.query().unwrap_or_default();
        let is_told = header(head, "x-amz-request-payer") == Some("requester")
            || query.contains("x-amz-request-payer=requester");
        if is_told {
            Ok(())
        } else {
            Err((403, "AccessDenied"))
        }
    };
    let gate = Gate::start(pays).await;
    let option = ("aws_request_payer", "requester");
    assert_eq!(tried(&gate, &[option]).await, None, "{:?}", gate.refused());
    assert!(tried(&gate, &[]).await.is_some());
    // Also where earlier versions are listed and deleted.
    let store = FakeS3::start(Oddity::Versions).await;
    let gate = Gate::start_with(None, store, Box::new(pays)).await;
    let options = [option, ("delete_versions", "true")];
    assert_eq!(tried(&gate, &options).await, None, "{:?}", gate.refused());
    assert_eq!(gate.refused(), [] as [&str; 0]);
    assert!(gate.store().versions() > 0, "what is kept has a version");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_objects_have_the_storage_class_of_their_base_directory() {
    let class = |head: &Parts| match head.method {
        Method::PUT => demand(header(head, "x-amz-storage-class") == Some("ONEZONE_IA")),
        _ => Ok(()),
    };
    let gate = Gate::start(class).await;
    let option = ("storage_class", "ONEZONE_IA");
    assert_eq!(tried(&gate, &[option]).await, None, "{:?}", gate.refused());
    assert!(tried(&gate, &[]).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn google_and_azure_get_their_own_headers_with_the_storage_class() {
    let wants = |name: &'static str, class: &'static str| {
        move |head: &Parts| match head.method {
            Method::PUT => demand(header(head, name) == Some(class)),
            _ => Ok(()),
        }
    };
    let google = FakeGcs::start_checking(wants("x-goog-storage-class", "NEARLINE")).await;
    let azure = FakeAzure::start(wants("x-ms-access-tier", "Cool")).await;
    let endpoints = [format!("http://{}", google.address), azure.endpoint()];
    let of_google = vec![
        ("endpoint", endpoints[0].as_str()),
        ("google_bearer_token", "token-7"),
    ];
    let of_azure = vec![
        ("endpoint", endpoints[1].as_str()),
        ("account", "account"),
        ("access_key", "aHVzaA=="),
    ];
    for (uri, options, class) in [
        ("gs://bucket/p", of_google, "NEARLINE"),
        ("az://container/p", of_azure, "Cool"),
    ] {
        let with = |more: &[(&'static str, &'static str)]| {
            let options = [&options[..], &[("allow_http", "true")], more].concat();
            fault(base(uri, &options))
        };
        assert_eq!(with(&[("storage_class", class)]).await, None, "{uri}");
        assert!(with(&[]).await.is_some(), "{uri}: it is not demanded");
    }
}
