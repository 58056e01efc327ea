//! Connection strings of Azure, tried on Azurite.
//!
//! Does: use base directories that have nothing but a connection string, in each form in which
//! Azure's tools print one, and one that is wrong. Does not: test what a base directory does once
//! it is open (the conformance suite). Invariant: what is said to work was found in the container
//! by a client of the tests' own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use stopover::config::BaseDirectoryConfig;
use stopover::runtime::Runtime;
use stopover::storage::Storage;

use crate::checks::{BUCKET, segment};
use crate::emulators::{AZURE_ACCOUNT, AZURE_KEY, Emulator};

/// How many objects a delete removes with one request.
const OBJECTS: u64 = 5;

/// Tries all of them at a server that has the container.
pub async fn connection_strings(emulator: &Emulator, work: &Path) -> Result<()> {
    let blobs = format!("http://127.0.0.1:{}/{AZURE_ACCOUNT}", emulator.port);
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let (valid, ended) = (signature(now + hour)?, signature(now - hour)?);
    let others = "QueueEndpoint=http://127.0.0.1:1/q;TableEndpoint=http://127.0.0.1:1/t;";
    let account = format!("DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};");
    let key = format!("AccountKey={AZURE_KEY};");
    let works = [
        (
            "key",
            format!("{account}{key}BlobEndpoint={blobs};{others}"),
        ),
        // As the portal prints it: without the account.
        (
            "signature",
            format!("BlobEndpoint={blobs}/;{others}SharedAccessSignature={valid}"),
        ),
        (
            "signature-of-account",
            format!("{account}BlobEndpoint={blobs};SharedAccessSignature=?{valid};"),
        ),
    ];
    for (name, text) in works {
        let tried = works_with(emulator, name, &text).await;
        tried.with_context(|| format!("a connection string with a {name}"))?;
        let (passed, said) = checked(emulator, work, name, &text)?;
        ensure!(passed, "check with a {name}: {said}");
    }
    let (passed, said) = checked(emulator, work, "emulator", "UseDevelopmentStorage=true")?;
    ensure!(passed, "check with the emulator: {said}");
    let other_key = STANDARD.encode("another key");
    for (name, text) in [
        (
            "another-key",
            format!("{account}AccountKey={other_key};BlobEndpoint={blobs}"),
        ),
        (
            "ended",
            format!("BlobEndpoint={blobs};SharedAccessSignature={ended}"),
        ),
    ] {
        let (passed, said) = checked(emulator, work, name, &text)?;
        let told = said.contains("403") && !said.contains(&other_key) && !said.contains("sig=");
        ensure!(!passed && told, "check with {name}: {said}");
    }
    Ok(())
}

/// A base directory is probed, and objects are written there, read and deleted.
async fn works_with(emulator: &Emulator, name: &str, text: &str) -> Result<()> {
    let base = BaseDirectoryConfig {
        uri: format!("az://{BUCKET}/{name}"),
        name: name.to_owned(),
        options: options(text)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect(),
    };
    let storage = Storage::open(&[base], &Runtime::system())?;
    let status = storage.probe().await.remove(0);
    ensure!(status.healthy, "{:?}", status.error);
    let (exchange, content) = ("connected".parse()?, Bytes::from(vec![7; 100_000]));
    let mut last = None;
    for number in 0..OBJECTS {
        let put = storage.put_segment(&exchange, segment(number), vec![content.clone()]);
        last = Some(put.await?);
    }
    let last = last.context("objects were written")?;
    ensure!(storage.get_range(&last, 0..100_000).await? == content);
    let found = async || -> Result<usize> {
        let keys = emulator.keys(BUCKET).await?;
        let is_own = |key: &&String| key.starts_with(&format!("{name}/")) && key.ends_with(".seg");
        Ok(keys.iter().filter(is_own).count())
    };
    ensure!(
        found().await? == OBJECTS as usize,
        "another number is there"
    );
    ensure!(storage.remove_exchange(&exchange).await? == OBJECTS);
    ensure!(
        found().await? == 0,
        "some are there after they were deleted"
    );
    Ok(())
}

fn options(text: &str) -> [(&'static str, &str); 3] {
    [
        ("connection_string", text),
        ("allow_http", "true"),
        ("timeout", "20s"),
    ]
}

/// What `stopover check` says of it, and whether it works.
fn checked(emulator: &Emulator, work: &Path, name: &str, text: &str) -> Result<(bool, String)> {
    let config = work.join(format!("{name}.toml"));
    let options = options(text).map(|(name, value)| match value {
        "true" => format!("{name} = true\n"),
        _ => format!("{name} = \"{value}\"\n"),
    });
    let table = format!(
        "[[base_directory]]\nuri = \"az://{BUCKET}/{name}\"\nname = \"{name}\"\n{}",
        options.concat()
    );
    std::fs::write(&config, table)?;
    let built = env!("CARGO_BIN_EXE_stopover");
    let binary = std::env::var_os("STOPOVER_BINARY").unwrap_or_else(|| built.into());
    let mut command = Command::new(binary);
    command.args(["check", "--config"]).arg(&config);
    // Where `UseDevelopmentStorage=true` leads, which is one fixed port otherwise.
    let emulator = format!("http://127.0.0.1:{}", emulator.port);
    let output = command.env("AZURITE_BLOB_STORAGE_URL", emulator).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

/// A shared access signature for everything in the container, until then. Azurite does not know one
/// of the account in a request that deletes several blobs.
fn signature(end: SystemTime) -> Result<String> {
    const VERSION: &str = "2018-11-09";
    let end = humantime::format_rfc3339_seconds(end).to_string();
    let resource = format!("/blob/{AZURE_ACCOUNT}/{BUCKET}");
    // What is left out: a start, a policy, addresses, a protocol, a snapshot, five headers.
    let signed = format!("racwdl\n\n{end}\n{resource}\n\n\n\n{VERSION}\nc\n\n\n\n\n\n");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(AZURE_KEY)?);
    let tag = STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([
        ("sv", VERSION),
        ("sr", "c"),
        ("sp", "racwdl"),
        ("se", &end),
        ("sig", &tag),
    ]);
    Ok(query.finish())
}
