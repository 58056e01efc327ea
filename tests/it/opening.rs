//! Opening base directories from arbitrary configurations: replays `fuzz/regressions/open`, tries
//! mutations of it, and every option of every store with every odd value.

use std::collections::BTreeSet;

use stopover::config::{BaseDirectoryConfig, Scheme, Secret, options};
use stopover::runtime::Random;

use crate::corpus::{inputs, mutated, mutations};

#[path = "../../fuzz/open.rs"]
mod open;

#[test]
fn every_regression_input_is_opened_without_a_panic() {
    inputs("open").iter().for_each(|input| open::open(input));
}

/// A tenth of the inputs that decoders get: building clients takes time.
#[test]
fn mutated_configurations_are_opened_without_a_panic() {
    let (count, seed) = mutations();
    let (inputs, random) = (inputs("open"), Random::seeded(seed));
    for n in 0..count / 10 {
        let input = mutated(&inputs, &random);
        let checked = std::panic::catch_unwind(|| open::open(&input));
        let text = String::from_utf8_lossy(&input);
        assert!(checked.is_ok(), "input {n} of seed {seed}: {text}");
    }
}

const VALUES: [&str; 26] = [
    "",
    " ",
    "\n",
    "a\nb",
    "a\n",
    "\u{0}",
    "a\tb",
    "\u{e9}",
    "a b",
    "%",
    "{x}",
    "\"",
    "http://",
    "http://[",
    "http:/x",
    "http://h:99999",
    "http://a b/",
    "http://user:pass@host/bucket?x#y",
    "//",
    "..",
    "/dev/zero",
    "/dev",
    "-1",
    "99999999999999999999",
    "true",
    "ends with a non-breaking space\u{a0}",
];

/// Those that have made a client panic, tried with every option: nothing, and the end of a line.
const ALWAYS: [&str; 3] = ["", "\n", "a\n"];
/// Those that an option which names files is tried with: what never ends, and a folder.
const ALWAYS_AS_FILES: [&str; 2] = ["/dev/zero", "/dev"];
/// Of the other cases of a cloud one of so many is tried. Coprime with the number of values, so
/// that every value has its turn.
const STEP: usize = 9;

/// Names that only the store's client knows; `options::all` has ours.
const OF_CLIENTS: [(Scheme, &str); 3] = [
    (
        Scheme::S3,
        "aws_access_key_id aws_secret_access_key aws_default_region aws_region aws_bucket \
            aws_endpoint aws_endpoint_url_s3 aws_session_token aws_virtual_hosted_style_request \
            aws_s3_express aws_imdsv1_fallback aws_metadata_endpoint aws_unsigned_payload \
            aws_checksum_algorithm aws_container_credentials_relative_uri \
            aws_container_credentials_full_uri aws_container_authorization_token_file \
            aws_web_identity_token_file aws_role_arn aws_role_session_name aws_endpoint_url_sts \
            aws_skip_signature aws_copy_if_not_exists aws_conditional_put aws_disable_tagging \
            aws_disable_bulk_delete aws_request_payer aws_server_side_encryption \
            aws_sse_kms_key_id aws_sse_bucket_key_enabled aws_sse_customer_key_base64 \
            aws_allow_http aws_allow_invalid_certificates aws_connect_timeout \
            aws_default_content_type aws_http1_only aws_http2_only aws_http2_keep_alive_interval \
            aws_http2_keep_alive_timeout aws_http2_max_frame_size aws_pool_idle_timeout \
            aws_pool_max_idle_per_host aws_proxy_url aws_proxy_ca_certificate aws_proxy_excludes \
            aws_randomize_addresses aws_timeout aws_user_agent",
    ),
    (
        Scheme::Gs,
        "google_service_account google_service_account_key google_base_url \
            google_application_credentials google_bearer_token google_skip_signature \
            google_timeout google_user_agent google_default_content_type google_proxy_url",
    ),
    (
        Scheme::Az,
        "azure_storage_account_key azure_storage_account_name azure_authority_host \
            azure_storage_sas_token azure_storage_token azure_storage_endpoint azure_msi_endpoint \
            azure_object_id azure_msi_resource_id azure_federated_token_file \
            azure_use_fabric_endpoint azure_use_azure_cli azure_skip_signature \
            azure_fabric_token_service_url azure_fabric_workload_host azure_fabric_session_token \
            azure_fabric_cluster_identifier azure_credential_type azure_storage_encryption_key \
            azure_timeout azure_user_agent",
    ),
];

/// Every option of a scheme.
fn names(scheme: Scheme) -> Vec<&'static str> {
    let ours = options::all().filter(|(of, _)| of.is_none_or(|of| of == scheme));
    let clients = OF_CLIENTS.iter().filter(|(of, _)| *of == scheme);
    let clients = clients.flat_map(|(_, names)| names.split_whitespace());
    ours.map(|(_, name)| name).chain(clients).collect()
}

/// Whether an option names files or a folder.
fn names_file(name: &str) -> bool {
    let ends = [
        "_file",
        "_files",
        "_path",
        "_dir",
        "_credentials",
        "_keytab",
        "_cache",
    ];
    ends.iter().any(|end| name.ends_with(end))
}

#[test]
fn every_option_that_names_a_file_is_known_to_hold_a_secret_or_not() {
    const OTHERS: [&str; 4] = [
        "ca_file",
        "client_certificate_file",
        "config_dir",
        "config_files",
    ];
    let mut files = 0;
    for (_, name) in options::all().filter(|(_, name)| names_file(name)) {
        files += 1;
        let is_secret = options::names_secret_file(name);
        assert_ne!(is_secret, OTHERS.contains(&name), "{name}");
    }
    assert!(files > OTHERS.len(), "{files}");
}

/// Another option without which this one is not used, with a value.
fn companion(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "client_certificate_file" => Some(("client_key_file", "/dev/null")),
        "client_key_file" => Some(("client_certificate_file", "/dev/null")),
        _ => None,
    }
}

/// What makes the rest of a configuration complete, so that the odd value gets as far as possible.
const COMPLETE: [(&str, &[(&str, &str)]); 10] = [
    ("file:///nowhere/at/all", &[]),
    ("memory://m/p", &[]),
    ("hdfs://node:8020/p", &[]),
    ("viewfs://table/p", &[]),
    (
        "s3://bucket/p",
        &[("access_key_id", "id"), ("secret_access_key", "key")],
    ),
    ("s3://bucket/p", &[]),
    ("gs://bucket/p", &[("google_bearer_token", "token")]),
    ("gs://bucket/p", &[]),
    (
        "az://container/p",
        &[("account", "a"), ("access_key", "aGFo")],
    ),
    (
        "az://container/p",
        &[("account", "a"), ("sas_token", "sv=1&sig=x")],
    ),
];

fn base(
    uri: &str,
    options: impl Iterator<Item = (&'static str, &'static str)>,
) -> BaseDirectoryConfig {
    BaseDirectoryConfig {
        uri: uri.to_owned(),
        name: String::new(),
        options: options
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect(),
    }
}

/// Whether it can be opened as an option and as a variable, or is refused, without a panic.
fn is_opened(
    uri: &str,
    complete: &[(&'static str, &'static str)],
    name: &'static str,
    value: &'static str,
) -> bool {
    let given = || complete.iter().copied();
    let with_option = base(uri, given().chain([(name, value)]));
    let variable = (name.to_uppercase(), Secret::from(value));
    let opened = std::panic::catch_unwind(|| {
        open::open_each(vec![with_option], &[]);
        open::open_each(vec![base(uri, given())], &[variable]);
    });
    opened.is_ok()
}

/// Story: a key id, a secret, a token, a region or an endpoint that ended with the end of a line
/// made the daemon panic, from the file and from the environment. Later a step of 8 through 26
/// values left every second value untried, and a list of names lacked those options that were added
/// after it: two of them read a device that never ends until the memory was used up. All cases are
/// tried where more mutations than usual are wanted.
#[test]
fn every_option_with_every_odd_value_is_opened_or_refused_without_a_panic() {
    let all = mutations().0 > 1000;
    let (mut number, mut tried, mut panicked) = (0, BTreeSet::new(), Vec::new());
    for (uri, complete) in COMPLETE {
        let scheme = Scheme::of(uri).unwrap();
        let step = if all || scheme.client_prefix().is_none() {
            1
        } else {
            STEP
        };
        for name in names(scheme) {
            for value in VALUES {
                number += 1;
                let always = ALWAYS.contains(&value)
                    || (names_file(name) && ALWAYS_AS_FILES.contains(&value));
                if number % step != 0 && !always {
                    continue;
                }
                tried.insert((scheme.name(), value));
                let given: Vec<_> = complete.iter().copied().chain(companion(name)).collect();
                if !is_opened(uri, &given, name, value) {
                    panicked.push(format!("{uri} with {name} = {value:?}"));
                }
            }
        }
    }
    assert_eq!(panicked, Vec::<String>::new());
    assert_eq!(tried.len(), Scheme::ALL.len() * VALUES.len(), "{tried:?}");
}

/// What a file with a token may hold.
const TOKENS: [&[u8]; 9] = [
    b"",
    b"\n",
    b"a.b.c",
    b"a.b.c\n",
    b" a.b.c\r\n",
    b"a\nb",
    b"a\0b",
    b"\xef\xbb\xbfa.b",
    b"\xff\xfea\0.\0",
];

/// Story: the client of S3 panicked when it put the token of a pod with the end of a line into a
/// header. A file is not checked for good when it is opened: it is replaced every hour.
#[test]
fn every_token_file_is_read_or_refused_without_a_panic() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let s3: &[(&str, &str)] = &[
        ("aws_container_credentials_full_uri", "http://127.0.0.1:1/x"),
        ("aws_container_authorization_token_file", path),
    ];
    let web: &[(&str, &str)] = &[
        ("aws_role_arn", "arn:aws:iam::1:role/x"),
        ("aws_web_identity_token_file", path),
    ];
    let az: &[(&str, &str)] = &[
        ("account", "a"),
        ("client_id", "i"),
        ("tenant_id", "t"),
        ("azure_federated_token_file", path),
    ];
    for (uri, options) in [("s3://b/p", s3), ("s3://b/p", web), ("az://c/p", az)] {
        for token in TOKENS {
            std::fs::write(path, token).unwrap();
            let options = options
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            let base = BaseDirectoryConfig {
                uri: uri.into(),
                name: String::new(),
                options: options.collect(),
            };
            open::open_each(vec![base], &[]);
        }
    }
}
