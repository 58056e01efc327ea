//! Tests of opening base directories: names, locations, options, and the text of errors.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use crate::certificate::Validity;
use crate::config::{BaseDirectoryConfig, BaseUri, Secret};
use crate::runtime::{Clock, Runtime};
use crate::store::open::{OpenError, Opened, open_in, review};
use crate::store::options::Options;

fn config(uri: &str, options: &[(&str, &str)]) -> BaseDirectoryConfig {
    let options = options.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    BaseDirectoryConfig {
        uri: uri.into(),
        name: String::new(),
        options: options.collect(),
    }
}

fn open(configs: &[BaseDirectoryConfig]) -> Result<Vec<Opened>, OpenError> {
    open_in(configs, &[], &Runtime::seeded(1))
}

fn open_one(uri: &str, options: &[(&str, &str)]) -> Result<Vec<Opened>, OpenError> {
    open(&[config(uri, options)])
}

fn name(uri: &str, options: &[(&str, &str)]) -> String {
    open_one(uri, options).unwrap()[0].name.to_string()
}

/// It is refused, and the text has all of these words and no secret.
fn refused(opened: Result<Vec<Opened>, OpenError>, words: &[&str]) {
    let error = opened.unwrap_err();
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
}

const KEYS: [(&str, &str); 2] = [
    ("access_key_id", "hush-id"),
    ("secret_access_key", "hush-key"),
];

#[test]
fn derived_names_are_the_same_in_every_daemon_and_release() {
    let s3 = [("endpoint", "https://minio.example:9000"), KEYS[0], KEYS[1]];
    assert_eq!(name("file:///var/lib/stopover", &[]), "b-2d76e4f2");
    assert_eq!(name("s3://bucket/prefix", &s3), "b-72afb24c");
}

#[test]
fn a_location_has_one_name_however_its_uri_is_written() {
    let plain = name("file:///a/b", &[]);
    assert_eq!(name("file:///a/b/", &[]), plain);
    assert_eq!(name("file:///a//b", &[]), plain);
    assert_eq!(name("file:///a/./b", &[]), plain);
    assert_eq!(
        name("file:///a/b", &[("fsync", "false")]),
        plain,
        "options are not part of the location"
    );
    assert_ne!(name("file:///a/c", &[]), plain);
    let at = |endpoint| name("s3://bucket/p", &[("endpoint", endpoint), KEYS[0], KEYS[1]]);
    assert_eq!(at("https://one.example"), at("https://one.example/"));
    assert_ne!(at("https://one.example"), at("https://two.example"));
}

#[test]
fn the_same_location_or_the_same_name_twice_is_an_error() {
    let twice = [config("file:///a/b", &[]), config("file:///a/b/", &[])];
    refused(open(&twice), &["same location", "file:///a/b"]);
    let endpoint = |name| (name, "https://minio.example");
    let aliases = [
        config("s3://b/p", &[endpoint("endpoint"), KEYS[0], KEYS[1]]),
        config("s3://b/p/q", &[endpoint("aws_endpoint"), KEYS[0], KEYS[1]]),
    ];
    refused(open(&aliases), &["lies within", "s3://b/p"]);
    let mut named = [config("file:///a", &[]), config("memory://a", &[])];
    for config in &mut named {
        config.name = "mine".into();
    }
    refused(
        open(&named),
        &["mine", "file:///a", "same name", "another `name`"],
    );
    refused(open(&[]), &["at least one"]);
}

#[test]
fn a_name_must_be_valid_in_handles() {
    let named = BaseDirectoryConfig {
        name: "Not/Fit".into(),
        ..config("memory://a", &[])
    };
    refused(open(&[named]), &["option `name`", "a-z 0-9 -"]);
}

#[test]
fn credentials_in_the_uri_are_refused_and_not_shown() {
    refused(
        open_one("s3://id:hush@bucket/p", &[]),
        &["must not contain credentials"],
    );
    refused(open_one("az://container/p?sig=hush", &[]), &["no ? or #"]);
}

#[test]
fn uris_that_name_no_location_are_refused() {
    refused(open_one("/var/lib/x", &[]), &["not a URI", "file:///"]);
    refused(
        open_one("ftp://host/x", &[]),
        &["ftp://", "file, s3, gs, az, hdfs, viewfs, memory"],
    );
    refused(open_one("file://host/x", &[]), &["absolute path"]);
    refused(open_one("file:///", &[]), &["root of the file system"]);
    refused(open_one("s3:///prefix", &KEYS), &["names no bucket"]);
    refused(
        open_one(&format!("s3://b/{}", "x".repeat(1000)), &KEYS),
        &["longer than"],
    );
}

#[test]
fn unknown_options_are_refused_with_the_nearest_right_one() {
    let near = open_one("s3://b/p", &[KEYS[0], KEYS[1], ("acess_key_id", "hush")]);
    refused(
        near,
        &["`acess_key_id`", "did you mean `access_key_id`", "s3://b/p"],
    );
    refused(
        open_one("s3://b/p", &[("fsync", "true")]),
        &["`fsync`", "option of file://"],
    );
    refused(
        open_one("file:///a", &[("region", "x")]),
        &["`region`", "option of s3://"],
    );
    refused(
        open_one("file:///a", &[("zzz", "x")]),
        &["unknown", "fsync"],
    );
    refused(
        open_one("s3://b/p", &[("aws_no_such", "x")]),
        &["`aws_no_such`"],
    );
}

#[test]
fn malformed_values_are_refused() {
    refused(
        open_one("file:///a", &[("fsync", "yes")]),
        &["`fsync`", "`true` or `false`"],
    );
    let many = ("max_concurrent_requests", "0");
    refused(
        open_one("file:///a", &[many]),
        &["max_concurrent_requests", "from 1 to 4096"],
    );
    assert!(open_one("file:///a", &[("max_concurrent_requests", "7")]).is_ok());
    let encrypted = |how| {
        let options = [KEYS[0], KEYS[1], ("aws_server_side_encryption", how)];
        let key = ("aws_sse_kms_key_id", "arn:aws:kms:eu-central-1:1:key/2");
        open_one("s3://b/p", &[&options[..], &[key]].concat())
    };
    refused(
        encrypted("sse:kms"),
        &["aws_server_side_encryption", "`aws:kms`"],
    );
    assert!(encrypted("aws:kms").is_ok() && encrypted("AES256").is_ok());
    let endpoint = ("endpoint", "minio:9000");
    refused(
        open_one("s3://b/p", &[endpoint, KEYS[0], KEYS[1]]),
        &["`endpoint`", "http"],
    );
    let checksum = ("upload_checksum", "md5");
    refused(
        open_one("s3://b/p", &[checksum, KEYS[0], KEYS[1]]),
        &["upload_checksum", "`sha256` or `crc64nvme`"],
    );
    let timeout = ("aws_connect_timeout", "soon");
    refused(
        open_one("s3://b/p", &[timeout, KEYS[0], KEYS[1]]),
        &["its client"],
    );
    for name in ["aws_timeout", "aws_read_timeout"] {
        refused(
            open_one("s3://b/p", &[(name, "60 seconds"), KEYS[0], KEYS[1]]),
            &[name, "set `timeout` instead"],
        );
    }
    for timeout in ["soon", "1ms", "2h"] {
        refused(
            open_one("file:///a", &[("timeout", timeout)]),
            &["`timeout`", "from 100ms to 1h"],
        );
    }
    let limits = |uri: &str| {
        let opened = open_one(uri, &[("timeout", "45s")]).unwrap();
        opened[0].opened.limits.deadline.timeout.as_secs()
    };
    assert_eq!([limits("file:///a"), limits("s3://b/p")], [45, 45]);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    refused(
        open_one("s3://b/p", &KEYS[..1]),
        &["access_key_id", "without `secret_access_key`"],
    );
    refused(
        open_one("s3://b/p", &KEYS[1..]),
        &["secret_access_key", "without `access_key_id`"],
    );
    refused(
        open_one("s3://b/p", &[("session_token", "hush")]),
        &["session_token", "all three"],
    );
    let twice = [KEYS[0], KEYS[1], ("aws_region", "x"), ("region", "y")];
    refused(
        open_one("s3://b/p", &twice),
        &["aws_region", "`region`", "same option"],
    );
    refused(
        open_one("s3://b/p", &[("aws_bucket", "other")]),
        &["part of the URI"],
    );
    for (other, value) in [
        ("aws_unsigned_payload", "true"),
        ("aws_checksum_algorithm", "sha256"),
    ] {
        let both = [
            KEYS[0],
            KEYS[1],
            ("upload_checksum", "sha256"),
            (other, value),
        ];
        refused(open_one("s3://b/p", &both), &["upload_checksum", other]);
    }
    let style = ("aws_virtual_hosted_style_request", "true");
    refused(open_one("s3://b/p", &[style]), &["path_style"]);
    let http = [KEYS[0], KEYS[1], ("endpoint", "http://h:1")];
    refused(open_one("s3://b/p", &http), &["allow_http = true"]);
    let two = [
        ("service_account_path", "/x"),
        ("service_account_key", "hush"),
    ];
    refused(open_one("gs://b/p", &two), &["contradict"]);
    refused(open_one("az://c/p", &[]), &["`account`", "storage account"]);
    let secret = [("account", "a"), ("client_secret", "hush")];
    refused(
        open_one("az://c/p", &secret),
        &["client_secret", "tenant_id"],
    );
    let two = [
        ("account", "a"),
        ("access_key", "aHVzaA=="),
        ("sas_token", "hush"),
    ];
    refused(open_one("az://c/p", &two), &["access_key", "sas_token"]);
    let role = ("aws_role_arn", "arn:aws:iam::1:role/x");
    refused(
        open_one("s3://b/p", &[role]),
        &["aws_role_arn", "token_file", "iam_role"],
    );
    refused(
        open_one("s3://b/p", &[("external_id", "7")]),
        &["external_id", "iam_role"],
    );
    refused(
        open_one("s3://b/p", &[("iam_role", "x")]),
        &["iam_role", "ARN of a role"],
    );
}

#[test]
fn a_connection_string_stands_for_the_options_of_an_account() {
    let location = |options: &[(&str, &str)]| {
        let opened = open_one("az://c/p", options).unwrap();
        opened[0].opened.location.clone()
    };
    let public = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=aHVzaA==;\
                  EndpointSuffix=core.windows.net";
    let same = [("account", "acc"), ("access_key", "aHVzaA==")];
    assert_eq!(location(&[("connection_string", public)]), location(&same));
    let china = "AccountName=acc;AccountKey=aHVzaA==;EndpointSuffix=core.chinacloudapi.cn";
    let china = location(&[("connection_string", china)]);
    assert!(
        china.contains("https://acc.blob.core.chinacloudapi.cn"),
        "{china}"
    );
    // As the portal prints it: the signature, the endpoints of all services, and no account.
    let host = "https://acc.blob.core.windows.net/";
    let signed = |endpoint: &str| {
        let text = format!(
            "BlobEndpoint={endpoint};QueueEndpoint=https://acc.queue.core.windows.net/;\
             SharedAccessSignature=sv=2022-11-02&ss=b&sig=aHVzaA%3D%3D"
        );
        location(&[("connection_string", &text)])
    };
    let (in_host, in_path) = (signed(host), signed("https://10.0.0.1:10000/acc"));
    assert!(in_host.ends_with("windows.net acc"), "{in_host}");
    assert!(in_path.ends_with(":10000/acc acc"), "{in_path}");
    for (text, words) in [
        ("hush", "must be pairs"),
        ("Password=hush", "a part that is unknown"),
    ] {
        refused(
            open_one("az://c/p", &[("connection_string", text)]),
            &["`connection_string`", words],
        );
    }
    let both = [("connection_string", public), same[1]];
    refused(open_one("az://c/p", &both), &["`access_key`", "contradict"]);
}

#[test]
fn regions_of_other_partitions_have_their_own_domains() {
    for (region, place) in [
        ("cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn"),
        ("eusc-de-east-1", "https://s3.eusc-de-east-1.amazonaws.eu"),
        ("us-gov-west-1", "aws"),
        ("eu-central-1", "aws"),
    ] {
        let opened = open_one("s3://b/p", &[("region", region)]).unwrap();
        let location = &opened[0].opened.location;
        assert!(location.ends_with(&format!(" at {place}")), "{location}");
    }
}

#[test]
fn a_profile_in_the_environment_is_noticed() {
    let profile = [("AWS_PROFILE".to_owned(), Secret::from("mine"))];
    let told = |options: &[(&str, &str)]| {
        let configs = [config("s3://b/p", options)];
        review(&configs, &profile, &Runtime::seeded(1)).notices
    };
    assert!(told(&[])[0].contains("profiles (~/.aws) are not read"));
    assert_eq!(told(&KEYS), [""; 0]);
}

/// Story: the soft delete of a bucket of Google shows in its settings alone, which s3:// does not
/// read. For 7 days all that had been deleted was paid for, and nothing said so.
#[test]
fn googles_soft_delete_is_noticed_where_its_settings_cannot_be_read() {
    let told = |endpoint: &str| {
        let options = [&KEYS[..], &[("endpoint", endpoint)]].concat();
        let configs = [config("s3://b/p", &options)];
        review(&configs, &[], &Runtime::seeded(1)).notices
    };
    let notices = told("https://storage.googleapis.com");
    assert_eq!(notices.len(), 1, "{notices:?}");
    for words in ["s3://b/p", "7 days", "--clear-soft-delete"] {
        assert!(notices[0].contains(words), "{notices:?}");
    }
    assert_eq!(told("https://minio.example"), [""; 0]);
}

#[test]
fn every_cloud_opens_without_a_request() {
    let http = [
        ("endpoint", "http://h:1"),
        ("allow_http", "true"),
        ("path_style", "false"),
    ];
    assert!(open_one("s3://b/p", &[&KEYS[..], &http].concat()).is_ok());
    assert!(
        open_one("s3://b", &[]).is_ok(),
        "the environment's or an instance's credentials"
    );
    assert!(open_one("s3://b.with.dots/p", &KEYS).is_ok());
    let role = [
        ("aws_role_arn", "arn:x"),
        ("aws_web_identity_token_file", "/t"),
    ];
    assert!(open_one("s3://b/p", &role).is_ok());
    assert!(open_one("gs://b/p", &[("google_skip_signature", "true")]).is_ok());
    assert!(open_one("az://c/p", &[("account", "a"), ("access_key", "aHVzaA==")]).is_ok());
    assert!(open_one("az://c/p", &[("use_emulator", "true")]).is_ok());
}

#[test]
fn debug_output_shows_no_secret() {
    let token = ("session_token", "hush-token");
    let shown = format!(
        "{:?}",
        open_one("s3://b/p", &[KEYS[0], KEYS[1], token]).unwrap()
    );
    assert!(
        shown.contains("s3://b/p") && !shown.contains("hush"),
        "{shown}"
    );
    let options: BTreeMap<String, Secret> = KEYS
        .iter()
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .collect();
    let uri = BaseUri::parse("s3://b").unwrap();
    let options = Options::new("b", &uri, &options, &[]);
    assert!(!format!("{options:?}").contains("hush"));
}

/// What is wrong with one base directory, each with its option.
fn faults(uri: &str, options: &[(&str, &str)], variables: &[(&str, &str)]) -> Vec<String> {
    let variables = variables.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let variables: Vec<(String, Secret)> = variables.collect();
    let found = review(&[config(uri, options)], &variables, &Runtime::seeded(1));
    let faults = found.faults.iter().map(|(_, fault)| fault.to_string());
    faults.chain(found.notices).collect()
}

#[test]
fn all_faults_of_a_base_directory_are_found_and_unknown_options_come_first() {
    let options = [
        ("endpoint", "http://host"),
        ("access_key_id", "hush"),
        ("aws_no_such", "hush"),
        ("path_stile", "hush"),
    ];
    let found = faults("s3://b/p", &options, &[]);
    let expected = [
        "`path_stile`",
        "`access_key_id`",
        "`aws_no_such`",
        "allow_http",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (fault, word) in found.iter().zip(expected) {
        assert!(fault.contains(word) && !fault.contains("hush"), "{fault}");
    }
}

/// Story: `AWS_SECRET_ACCESS_KEY` from a Secret of Kubernetes ended with the end of a line, and the
/// daemon panicked when it signed its first request.
#[test]
fn variables_of_the_clouds_lose_white_space_and_may_not_hold_control_characters() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "hush-id\n"),
        ("AWS_SECRET_ACCESS_KEY", " hush"),
    ];
    let notices = faults("s3://b/p", &[], &keys);
    assert_eq!(notices.len(), 2, "{notices:#?}");
    assert!(
        notices[0].contains("AWS_ACCESS_KEY_ID: white space"),
        "{notices:#?}"
    );
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "hu\nsh"),
        ("AWS_SESSION_TOKEN", "hush\u{200b}"),
        ("AWS_REGION", "eu central 1"),
        ("AWS_ENDPOINT_URL", "http://me:hush@host"),
        ("AWS_ENDPOINT_URL_STS", "sts"),
        ("AWS_METADATA_ENDPOINT", "hush hush"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://x/?hush"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@hush/"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/dev/zero"),
    ] {
        let found = faults("s3://b/p", &[], &[(name, value)]);
        assert_eq!(found.len(), 1, "{name}: {found:#?}");
        assert!(
            found[0].contains(name) && !found[0].contains("hush"),
            "{found:#?}"
        );
    }
}

/// A URI, a setting that names a file with a pod's token there, and what else it needs.
type TokenSetting = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const TOKEN_FILES: [TokenSetting; 3] = [
    ("s3://b/p", "aws_container_authorization_token_file", &[]),
    ("s3://b/p", "aws_web_identity_token_file", &[]),
    (
        "az://c/p",
        "azure_federated_token_file",
        &[("account", "a")],
    ),
];

/// Story: `kubectl create secret` from a file that an editor had ended with the end of a line: the
/// client panicked with the one token, and was refused with the other.
#[test]
fn a_token_file_that_ends_with_a_line_is_used_without_it_and_noticed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for (uri, name, more) in TOKEN_FILES {
        std::fs::write(path, "hush-token\n").unwrap();
        let found = faults(uri, &[more, &[(name, path)]].concat(), &[]);
        assert_eq!(found.len(), 1, "{found:#?}");
        for word in [name, "white space", "left out"] {
            assert!(found[0].contains(word), "{found:#?}");
        }
        let variable = name.to_ascii_uppercase();
        let found = faults(uri, more, &[(&variable, path)]);
        assert!(found[0].contains(&variable), "{found:#?}");
        std::fs::write(path, "hush-token").unwrap();
        assert_eq!(faults(uri, &[more, &[(name, path)]].concat(), &[]), [""; 0]);
    }
}

#[test]
fn a_token_file_with_more_than_a_token_is_refused_before_it_is_sent() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for (uri, name, more) in TOKEN_FILES {
        for (content, words) in [
            ("hush\nhush\n", "control character"),
            ("hush\u{e9}", "not ASCII"),
        ] {
            std::fs::write(path, content).unwrap();
            let options = [more, &[(name, path)]].concat();
            refused(open_one(uri, &options), &[name, "names a file that", words]);
        }
        // It may come later.
        std::fs::write(path, "").unwrap();
        assert!(open_one(uri, &[more, &[(name, path)]].concat()).is_ok());
    }
}

/// Options and variables that name a file with a secret, and the URI of a base directory.
const SECRET_FILES: [(&str, &str); 9] = [
    ("s3://b/p", "client_key_file"),
    ("gs://b/p", "client_key_file"),
    ("az://c/p", "client_key_file"),
    ("gs://b/p", "service_account_path"),
    ("gs://b/p", "google_service_account"),
    ("gs://b/p", "application_credentials"),
    ("gs://b/p", "GOOGLE_APPLICATION_CREDENTIALS"),
    ("hdfs://n/p", "kerberos_keytab"),
    ("hdfs://n/p", "kerberos_cache"),
];

#[test]
fn a_file_with_a_secret_that_all_users_may_read_is_warned_about() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let notices = |uri: &str, name: &str, value: &str| {
        let (options, variables) = match name.starts_with("GOOGLE_") {
            true => (&[][..], vec![(name.to_owned(), value.into())]),
            false => (&[(name, value)][..], vec![]),
        };
        let bases = [config(uri, options)];
        review(&bases, &variables, &Runtime::seeded(1)).notices
    };
    let warned = |uri: &str, name: &str, value: &str| {
        let notices = notices(uri, name, value);
        let warning = notices.iter().find(|text| text.starts_with("every user"));
        let named = warning.is_none_or(|text| text.contains(name) && text.contains(path));
        assert!(named, "{notices:?}");
        warning.is_some()
    };
    let token = ("s3://b/p", "aws_web_identity_token_file");
    for (mode, expected) in [(0o600, false), (0o644, true)] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
        for (uri, name) in SECRET_FILES {
            assert_eq!(warned(uri, name, path), expected, "{mode:o} {name}");
        }
        let cache = format!("FILE:{path}");
        assert_eq!(warned("hdfs://n/p", "kerberos_cache", &cache), expected);
        assert!(!warned(token.0, token.1, path), "the platform writes it");
    }
}

/// Story: such an endpoint was reported as "not listed after it was written".
#[test]
fn an_endpoint_that_contains_the_bucket_is_refused() {
    for endpoint in ["https://host/bucket", "https://bucket.host/"] {
        let options = [("endpoint", endpoint), KEYS[0], KEYS[1]];
        refused(
            open_one("s3://bucket/p", &options),
            &["`endpoint`", "contains the bucket"],
        );
    }
    let options = [("endpoint", "https://bucketeer.host/s3"), KEYS[0], KEYS[1]];
    assert!(open_one("s3://bucket/p", &options).is_ok());
}

#[test]
fn an_endpoint_with_a_user_or_a_query_is_refused_and_not_shown() {
    for endpoint in [
        "http://me:hush@host",
        "https://hush@host",
        "https://host/?hush",
    ] {
        let options = [
            ("endpoint", endpoint),
            ("allow_http", "true"),
            KEYS[0],
            KEYS[1],
        ];
        refused(open_one("s3://b/p", &options), &["`endpoint`", "must not"]);
    }
}

#[test]
fn a_ca_is_read_from_its_file() {
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, ca.pem().as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    assert!(open_one("s3://b/p", &[("ca_file", path)]).is_ok());
    assert!(
        open_one(
            "gs://b/p",
            &[("ca_file", path), ("google_skip_signature", "true")]
        )
        .is_ok()
    );
    assert!(open_one("az://c/p", &[("ca_file", path), ("account", "a")]).is_ok());
    refused(
        open_one("s3://b/p", &[("ca_file", "/no/such")]),
        &["`ca_file`", "cannot be read"],
    );
    refused(
        open_one("s3://b/p", &[("ca_file", "/")]),
        &["`ca_file`", "must name a file"],
    );
    refused(
        open_one("s3://b/p", &[("ca_file", "Cargo.toml")]),
        &["`ca_file`", "without a certificate in PEM"],
    );
}

#[test]
fn a_certificate_and_a_signature_say_until_when_and_warn_before_it() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026, 4, 11);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let own = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, own).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = file("pem", params.self_signed(&key).unwrap().pem());
    let key = file("key", key.serialize_pem());
    let shown = [
        ("client_certificate_file", certificate.as_str()),
        ("client_key_file", key.as_str()),
    ];
    let signed = ("sas_token", "?st=2026-02-01&se=2026-03-03&sig=hush");
    let azure = [("account", "a"), signed, shown[0], shown[1]];
    let days = |validity: Validity| {
        let [from, to] = [validity.not_before, validity.not_after];
        [from, to].map(|millis| millis / 86_400_000)
    };
    let opened = |uri: &str, options: &[(&str, &str)]| {
        open_one(uri, options).unwrap().remove(0).opened.validity
    };
    // 2026-01-01 is the day 20,454.
    assert_eq!(opened("s3://b/p", &shown).map(days), Some([20_454, 20_554]));
    assert_eq!(opened("az://c/p", &azure).map(days), Some([20_485, 20_515]));
    assert_eq!(opened("s3://b/p", &[]), None);
    let notices = |day: u64| {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400);
        let runtime = Runtime {
            clock: Clock::with_fixed_wall(wall),
            ..Runtime::seeded(1)
        };
        review(&[config("az://c/p", &azure)], &[], &runtime).notices
    };
    assert_eq!(notices(20_500), [""; 0]);
    let soon = notices(20_513);
    assert!(
        soon.len() == 1 && soon[0].contains("sas_token expires at 2026-03-03"),
        "{soon:?}"
    );
    let both = notices(20_560);
    assert!(both.len() == 2, "{both:?}");
    assert!(both[0].contains("client_certificate_file expired at 2026-04-11"));
    assert!(!format!("{both:?}").contains("hush"), "{both:?}");
}
