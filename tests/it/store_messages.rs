//! What `stopover check` says about stores that cannot work: the cause and the way out.
//!
//! Story: each of these was tried by hand, and the message led away from the cause.

use std::process::Command;

use crate::support::process::Process;
use crate::support::stub_store::{s3_error, start};
use crate::support::tls::{Authority, CredentialFiles};

const KEYS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "an-id"),
    ("AWS_SECRET_ACCESS_KEY", "a-key"),
];

/// The output of `check` with one base directory.
fn check(uri: &str, options: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.env_clear().args(["check", "--base-directory", uri]);
    for option in options {
        command.arg(format!("--set=base_directory.0.{option}"));
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(!output.status.success(), "this base directory cannot work");
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&printed).into_owned()
}

fn assert_explains(printed: &str, parts: &[&str]) {
    for part in parts {
        assert!(printed.contains(part), "{part:?} is missing in: {printed}");
    }
}

/// What `check` says about an S3 server at this URL.
fn check_s3(endpoint: &str) -> String {
    let endpoint = format!("endpoint={endpoint}");
    check("s3://bucket/p", &[&endpoint, "allow_http=true"], &KEYS)
}

/// A daemon that speaks TLS, as any server does, and the authority that issued its certificate.
fn tls_server() -> (Process, Authority, CredentialFiles, tempfile::TempDir) {
    let authority = Authority::new();
    let files = CredentialFiles::new(&authority.server());
    files.write("ca.pem", &authority.certificate());
    let folder = tempfile::tempdir().unwrap();
    let set = |key: &str, file| format!("--set=server.{key}={}", files.path(file).display());
    let certificate = set("tls_certificate_file", "certificate.pem");
    let key = set("tls_key_file", "key.pem");
    let server = Process::start(folder.path(), &[&certificate, &key]);
    (server, authority, files, folder)
}

#[test]
fn a_private_ca_is_explained_and_ca_file_is_the_way_out() {
    let (server, _authority, files, _folder) = tls_server();
    let printed = check_s3(&server.url);
    assert_explains(
        &printed,
        &["CA that is not trusted", "ca_file", "SSL_CERT_FILE"],
    );
    let ca = format!("ca_file={}", files.path("ca.pem").display());
    let endpoint = format!("endpoint={}", server.url);
    let trusted = check("s3://bucket/p", &[&endpoint, &ca], &KEYS);
    assert!(!trusted.contains("CA that is not trusted"), "{trusted}");
}

#[test]
fn https_to_an_http_port_and_http_to_an_https_port_are_explained() {
    let plain = tempfile::tempdir().unwrap();
    let plain_server = Process::start(plain.path(), &[]);
    let printed = check_s3(&plain_server.url.replace("http://", "https://"));
    assert_explains(&printed, &["does not speak TLS", "allow_http = true"]);
    let (server, _authority, _files, _folder) = tls_server();
    let printed = check_s3(&server.url.replace("https://", "http://"));
    assert_explains(&printed, &["speaks TLS", "write endpoint with https://"]);
}

#[test]
fn a_probe_of_a_tls_port_says_so() {
    let (server, _authority, _files, _folder) = tls_server();
    let address = server.url.trim_start_matches("https://");
    let mut health = Command::new(env!("CARGO_BIN_EXE_stopover"));
    let output = health
        .args(["health", "--address", address])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_explains(&printed, &["the port speaks TLS", "--certificate"]);
}

#[test]
fn missing_credentials_are_the_first_thing_that_is_said() {
    let nobody = "http://127.0.0.1:1/169.254.169.254";
    let endpoint = "endpoint=http://127.0.0.1:1";
    let printed = check(
        "s3://bucket/p",
        &[endpoint, "allow_http=true"],
        &[("AWS_METADATA_ENDPOINT", nobody)],
    );
    assert_explains(
        &printed,
        &[
            "no credentials were found",
            "AWS_ACCESS_KEY_ID",
            "~/.aws and SSO",
        ],
    );
    let cause = printed.find("no credentials were found").unwrap();
    assert!(printed.find("127.0.0.1:1").unwrap() > cause, "{printed}");
}

#[test]
fn errors_of_the_server_get_advice() {
    for (status, code, message, parts) in [
        (
            "403 Forbidden",
            "InvalidAccessKeyId",
            "The Access Key Id you provided does not exist in our records.",
            [
                "does not know this key",
                "access_key_id",
                "at this endpoint",
            ],
        ),
        (
            "400 Bad Request",
            "AuthorizationHeaderMalformed",
            "the region is wrong; expecting &#39;eu-central-1&#39;",
            ["expecting 'eu-central-1'", "set region", "bucket"],
        ),
        (
            "403 Forbidden",
            "AccessDenied",
            "Access Denied.",
            [
                "permission to get, put, list",
                "below the URI",
                "AccessDenied",
            ],
        ),
    ] {
        let server = start(move |_| s3_error(status, code, message));
        assert_explains(&check_s3(&format!("http://{server}")), &parts);
    }
}

#[test]
fn an_sts_that_cannot_be_reached_is_not_blamed_on_the_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a.b.c").unwrap();
    let printed = check(
        "s3://bucket/p",
        &["region=eu-central-1"],
        &[
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/x"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
            ("AWS_ENDPOINT_URL_STS", "https://127.0.0.1:1"),
        ],
    );
    assert_explains(
        &printed,
        &["STS", "could not be reached", "aws_endpoint_url_sts"],
    );
    assert!(!printed.contains("permission to get, put"), "{printed}");
}
