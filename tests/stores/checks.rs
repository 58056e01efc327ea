//! The checks: what is tried on a store, and what came out.
//!
//! Does: start a server, and use it through the daemon's own code or a whole daemon. Does not:
//! compare outcomes with what is claimed (`table`). Invariant: an outcome is what was observed; a
//! check of what must hold everywhere fails instead.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use futures::TryStreamExt as _;
use stopover::app::Daemon;
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::exchange::{Announce, ExchangeSpec};
use stopover::id::{DaemonId, ExchangeId, SegmentId, SinkId, TaskAttempt};
use stopover::runtime::Runtime;
use stopover::segment::frame::{BatchVerifier, FRAME_HEADER_LEN, write_frame_header};
use stopover::storage::Storage;
use stopover::store::Retention;

use crate::azure;
use crate::emulators::{Emulator, KMS_KEY_NAME, Kind};
use crate::folder;
use crate::minio;
use crate::process::wait_until;
use crate::proxy::Proxy;
use crate::storage_conformance;
use crate::store::Store;
use crate::tls::Authority;
use crate::wire::{Damage, Direction, Wire};

/// Kills of daemons in a short soak. While Azurite and HDFS answer, few attempts are open that a
/// kill could lose: they need more.
fn kills(store: Store) -> &'static str {
    match store {
        Store::Server(Kind::Azurite | Kind::Hadoop) => "20",
        _ => "8",
    }
}

/// Objects that are deleted together.
pub const DELETED: u64 = 40;

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Check {
    Conformance,
    Soak,
    Trino,
    ConditionalWrites,
    BulkDelete,
    Checksums,
    Versioning,
    Encryption,
}

impl Check {
    pub const ALL: [Self; 8] = [
        Self::Conformance,
        Self::Soak,
        Self::Trino,
        Self::ConditionalWrites,
        Self::BulkDelete,
        Self::Checksums,
        Self::Versioning,
        Self::Encryption,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Conformance => "conformance",
            Self::Soak => "soak",
            Self::Trino => "trino",
            Self::ConditionalWrites => "conditional-writes",
            Self::BulkDelete => "bulk-delete",
            Self::Checksums => "checksums",
            Self::Versioning => "versioning",
            Self::Encryption => "encryption",
        }
    }

    /// The head of its column.
    pub fn title(self) -> &'static str {
        match self {
            Self::Conformance => "conformance suite",
            Self::Soak => "soak",
            Self::Trino => "Trino query",
            Self::ConditionalWrites => "conditional writes",
            Self::BulkDelete => "bulk delete",
            Self::Checksums => "damaged upload",
            Self::Versioning => "versioning warned",
            Self::Encryption => "encryption",
        }
    }

    /// Tries it on a store, with a folder for data and logs; the outcome in a few words.
    pub async fn run(self, store: Store, work: &Path) -> Result<String> {
        match (self, store) {
            (Self::Soak, _) => {
                let world = ["--world", store.name(), "--kills", kills(store)];
                let status = program("soak", &world).status()?;
                ensure!(status.success(), "it ended with {status}, see above");
                Ok("passed".into())
            }
            (Self::Trino, _) => bail!("one cluster tries all stores: `trino`"),
            (_, Store::Folder) => folder::run(self, work).await,
            (Self::Conformance, Store::Server(kind)) => conformance(kind, work).await,
            (Self::ConditionalWrites, Store::Server(kind)) => conditional_writes(kind, work).await,
            (Self::BulkDelete, Store::Server(kind)) => bulk_delete(kind, work).await,
            (Self::Checksums, Store::Server(kind)) => checksums(kind, work).await,
            (Self::Versioning, Store::Server(kind)) => versioning(kind, work).await,
            (Self::Encryption, Store::Server(kind)) => encryption(kind, work).await,
        }
    }
}

/// Another test program of this package.
fn program(name: &str, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["test", "--locked", "--test", name, "--"])
        .args(arguments);
    command
}

/// Runs queries of one Trino cluster on each of these stores, since its start takes longest; the
/// stores on which all gave the right rows and left nothing. On HDFS also while its processes are
/// killed.
pub fn trino(stores: &[Store]) -> Result<Vec<Store>> {
    let mut arguments = vec!["--scenario", "few-results", "--scenario", "store-killed"];
    for store in stores {
        arguments.extend(["--storage", store.name()]);
    }
    let mut running = program("trino", &arguments)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = running.stdout.take().context("it is piped")?;
    let mut passed = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        let is_of =
            |store: &&Store| line.starts_with(&format!("PASS {} few-results ", store.name()));
        passed.extend(stores.iter().find(is_of));
        passed.retain(|store: &Store| !line.starts_with(&format!("FAIL {} ", store.name())));
    }
    running.wait()?;
    Ok(passed)
}

pub const BUCKET: &str = "stores";
/// The base directory in it.
const PLACE: &str = "stores/some/prefix";

/// A server with an empty bucket.
async fn start(kind: Kind, work: &Path) -> Result<Emulator> {
    let data = work.join("data");
    std::fs::create_dir_all(&data)?;
    let emulator = Emulator::start(kind, &data, work).await?;
    emulator.create(BUCKET).await?;
    Ok(emulator)
}

/// A server that keeps versions, which fake-gcs-server does in its memory only.
async fn start_in_memory(kind: Kind, work: &Path) -> Result<Emulator> {
    let emulator = Emulator::start_in_memory(kind, work).await?;
    emulator.create(BUCKET).await?;
    Ok(emulator)
}

/// The base directory in the bucket of all checks, reached at this port.
fn base(kind: Kind, port: u16, more: &[(&str, &str)]) -> BaseDirectoryConfig {
    base_at(kind, port, PLACE, more)
}

/// A base directory in a bucket.
pub fn base_in(emulator: &Emulator, bucket: &str, more: &[(&str, &str)]) -> BaseDirectoryConfig {
    base_at(emulator.kind, emulator.port, bucket, more)
}

fn base_at(kind: Kind, port: u16, place: &str, more: &[(&str, &str)]) -> BaseDirectoryConfig {
    let options = kind.options(port).into_iter();
    let options = options.map(|(name, value)| (name.to_owned(), value.as_str().into()));
    let more = more.iter().map(|(k, v)| ((*k).to_owned(), (*v).into()));
    BaseDirectoryConfig {
        uri: kind.uri(place, port),
        name: "tried".into(),
        options: options.chain(more).collect::<BTreeMap<_, _>>(),
    }
}

/// Base directories that a starting daemon has probed.
pub async fn probed(base: BaseDirectoryConfig) -> Result<Storage> {
    // With keys of its own: versitygw with versions says of a deleted object that it exists.
    let storage = Storage::open(&[base], &Runtime::system())?;
    let status = storage.probe().await.remove(0);
    ensure!(status.healthy, "{:?}", status.error);
    Ok(storage)
}

/// Fails with the message of a failed assertion.
async fn asserted(checks: impl Future<Output = ()> + 'static) -> Result<()> {
    let checked = tokio::task::spawn_local(checks).await;
    checked.context("an assertion failed, see above")
}

/// That a base directory passes the conformance suite.
pub async fn conforms(base: BaseDirectoryConfig) -> Result<()> {
    let storage = probed(base).await?;
    asserted(async move { storage_conformance::all(&storage).await }).await
}

async fn conformance(kind: Kind, work: &Path) -> Result<String> {
    let emulator = start(kind, work).await?;
    if kind == Kind::Azurite {
        azure::connection_strings(&emulator, work).await?;
    }
    if kind == Kind::Minio {
        minio::assumed_role(&emulator, BUCKET).await?;
    }
    conforms(base(kind, emulator.port, &[])).await?;
    let mut left = emulator.keys(BUCKET).await?;
    let permanent = ["identity", "markers/.keep", "members", "segments/.keep"];
    left.retain(|key| !permanent.iter().any(|name| key.ends_with(name)));
    ensure!(left.is_empty(), "left in the bucket: {left:?}");
    Ok("passed".into())
}

pub fn segment(sequence: u64) -> SegmentId {
    SegmentId {
        daemon: DaemonId(0xC0FFEE),
        sequence,
    }
}

async fn conditional_writes(kind: Kind, work: &Path) -> Result<String> {
    let emulator = start(kind, work).await?;
    one_of_many(base(kind, emulator.port, &[])).await
}

/// Stores so many segments of an exchange.
pub async fn put_segments(storage: &Storage, exchange: &ExchangeId, count: u64) -> Result<()> {
    for number in 0..count {
        let content = vec![Bytes::from_static(b"x")];
        storage
            .put_segment(exchange, segment(number), content)
            .await?;
    }
    Ok(())
}

/// Of many writers that create the same object, one succeeds: as the probe finds, and in a race.
pub async fn one_of_many(base: BaseDirectoryConfig) -> Result<String> {
    const WRITERS: usize = 16;
    let storage = probed(base).await?;
    let honours = !storage.status()[0].ignores_preconditions;
    let mut winners = Vec::new();
    for round in 0..10 {
        let exchange: ExchangeId = format!("race-{round}").parse()?;
        let seen = storage.observe_markers(&exchange).await;
        let (content, seen) = (Bytes::from_static(b"{}"), &seen);
        let puts = (0..WRITERS).map(|_| storage.put_marker(&exchange, &content, seen));
        let puts = futures::future::join_all(puts).await;
        winners.push(
            puts.into_iter()
                .filter(|put| *put.as_ref().unwrap_or(&false))
                .count(),
        );
        storage.remove_exchange(&exchange).await?;
    }
    let one = winners.iter().all(|winners| *winners == 1);
    match (honours, one) {
        (true, true) => Ok("yes".into()),
        (true, false) => bail!("the probe finds conditions honoured; winners: {winners:?}"),
        (false, _) => Ok("no".into()),
    }
}

/// How many requests it takes to delete many objects.
async fn bulk_delete(kind: Kind, work: &Path) -> Result<String> {
    let emulator = start(kind, work).await?;
    // What is not HTTP is not counted by a proxy.
    let proxy = match kind {
        Kind::Hadoop => None,
        _ => Some(Proxy::start(emulator.port).await?),
    };
    let port = proxy.as_ref().map_or(emulator.port, |proxy| proxy.port);
    let storage = probed(base(kind, port, &[])).await?;
    let exchange: ExchangeId = "bulk".parse()?;
    put_segments(&storage, &exchange, DELETED).await?;
    let deletes = async || match &proxy {
        Some(proxy) => {
            let sent = proxy.take_requests();
            let deletes = sent.iter().filter(|request| request.deletes()).count();
            anyhow::Ok(deletes as u64)
        }
        None => emulator.deletes().await,
    };
    let before = deletes().await?;
    ensure!(storage.remove_exchange(&exchange).await? == DELETED);
    let after = deletes().await?;
    // A proxy counts from the last time on.
    let deletes = after - proxy.as_ref().map_or(before, |_| 0);
    Ok(match deletes {
        1..8 => "yes".into(),
        _ if deletes >= DELETED => "one by one".into(),
        _ => bail!("{deletes} requests delete {DELETED} objects"),
    })
}

/// What changes uploads on their way to a store.
enum Damaging {
    Requests(Proxy),
    Packets(Wire),
}

impl Damaging {
    /// In front of a server, with the base directory that is reached through it.
    async fn start(
        kind: Kind,
        emulator: &Emulator,
        work: &Path,
    ) -> Result<(Self, BaseDirectoryConfig)> {
        if kind != Kind::Hadoop {
            let proxy = Proxy::start(emulator.port).await?;
            let base = base(kind, proxy.port, &[]);
            return Ok((Self::Requests(proxy), base));
        }
        let site = work.join("wire.xml");
        let by_name = "<property><name>dfs.client.use.datanode.hostname</name>\
                       <value>true</value></property>";
        std::fs::write(&site, format!("<configuration>{by_name}</configuration>"))?;
        let site = site.to_str().context("a path in UTF-8")?;
        let wire = Wire::start(&emulator.data_ports().await?).await;
        let base = base(kind, emulator.port, &[("config_files", site)]);
        Ok((Self::Packets(wire), base))
    }

    /// From now on: one byte of each request, or of the next bytes that DataNodes are sent.
    fn begin(&self) {
        match self {
            Self::Requests(proxy) => proxy.damage_uploads(),
            Self::Packets(wire) => wire.damage(Damage {
                direction: Direction::Sent,
                // Behind the request and the head of the first packet: in its content.
                at: 20_000,
                every: None,
                bits: 1,
            }),
        }
    }

    /// Ends it; how many bytes were changed.
    fn end(&self) -> u64 {
        match self {
            Self::Requests(proxy) => proxy.heal(),
            Self::Packets(wire) => wire.heal(),
        }
    }
}

/// What becomes of a segment of which a byte was changed on its way: another daemon reads it.
async fn checksums(kind: Kind, work: &Path) -> Result<String> {
    let emulator = start(kind, work).await?;
    let (damaging, base) = Damaging::start(kind, &emulator, work).await?;
    let (writer, reader) = (daemon(&base, 7)?, daemon(&base, 8)?);
    let sink = sent(&writer).await?;
    damaging.begin();
    let finished = writer.ingest.finish(&sink, None).await;
    let damaged = damaging.end();
    ensure!(damaged > 0, "no byte was changed");
    if finished.is_err() {
        return Ok("refused".into());
    }
    if matches!(damaging, Damaging::Packets(_)) {
        // One byte was changed, and then no more.
        read_elsewhere(&reader, &sink).await?;
        return Ok("noticed, and sent again".into());
    }
    found_by_reader(&reader, &sink).await
}

/// A daemon on one base directory.
pub fn daemon(base: &BaseDirectoryConfig, seed: u64) -> Result<Daemon> {
    let config = Config {
        base_directories: vec![base.clone()],
        ..Config::default()
    };
    Ok(Daemon::build(&config, &Runtime::seeded(seed))?)
}

/// A sink of a new exchange that has all of its pages and is not finished.
pub async fn sent(writer: &Daemon) -> Result<SinkId> {
    let sink = SinkId {
        exchange: "damage".parse()?,
        task_attempt: TaskAttempt::new(0, 0)?,
    };
    let spec = ExchangeSpec {
        partitions: 1,
        ordered: false,
    };
    let announced = writer
        .exchanges
        .announce(&sink.exchange, spec, Announce::CreateOrRenew);
    announced.await?;
    let mut batch = vec![7; FRAME_HEADER_LEN + 100_000];
    write_frame_header(&mut batch, 0);
    let admission = writer.ingest.admit(&sink, Some(0))?;
    let admission = admission.reserve(batch.len() as u64).await?;
    admission.append(BatchVerifier::new(1, 1 << 20), batch.into())?;
    Ok(sink)
}

/// That a reader of damaged pages gets an error that tells the damage.
pub async fn found_by_reader(reader: &Daemon, sink: &SinkId) -> Result<String> {
    let read = read_elsewhere(reader, sink).await;
    let error = read
        .err()
        .context("damaged bytes were served as they are")?;
    let told = format!("{error:#}");
    ensure!(told.contains("checksum"), "another failure: {told}");
    Ok("stored; its readers find the damage".into())
}

/// Plans the attempt, and reads its only handle.
async fn read_elsewhere(reader: &Daemon, sink: &SinkId) -> Result<()> {
    let chosen = [sink.task_attempt];
    let planned = reader
        .catalog
        .plan_handles(&sink.exchange, false, &chosen, 1 << 20);
    let (mut handles, _memory) = planned.await?;
    let handle = handles.next().context("no handle")?;
    let stream = reader.reader.read_handle(&handle.text, 0).await?;
    stream.try_for_each(|_| async { Ok(()) }).await?;
    Ok(())
}

/// Whether `check` warns about a bucket that keeps what is deleted.
async fn versioning(kind: Kind, work: &Path) -> Result<String> {
    let emulator = match kind {
        Kind::FakeGcs => start_in_memory(kind, work).await?,
        _ => start(kind, work).await?,
    };
    if kind == Kind::Minio {
        minio::object_lock(&emulator, work).await?;
    }
    let plain = printed(&emulator, PLACE, work)?;
    ensure!(!plain.contains("versions"), "without versions: {plain}");
    if !emulator.keep_versions(BUCKET).await? {
        return Ok("it keeps none".into());
    }
    let storage = Storage::open(&[base(kind, emulator.port, &[])], &Runtime::seeded(7))?;
    storage.probe().await;
    // Google Cloud Storage says it in an answer of its own, for which no probe waits.
    let seen = || async { Ok(storage.status()[0].retention == Some(Retention::Versions)) };
    wait_until("the versions are seen", Duration::from_secs(20), seen).await?;
    let warned = printed(&emulator, PLACE, work)?;
    ensure!(
        warned.contains("delete_versions"),
        "no way out of versions in: {warned}"
    );
    // Only on S3 can the daemon delete them.
    let ways: &[_] = match kind.service() {
        "S3" => &[("kept", false), ("deleted", true)],
        _ => &[("kept", false)],
    };
    for &(exchange, deletes) in ways {
        let more: &[_] = match deletes {
            true => &[("delete_versions", "true")],
            false => &[],
        };
        let storage = probed(base(kind, emulator.port, more)).await?;
        let id: ExchangeId = exchange.parse()?;
        put_segments(&storage, &id, 3).await?;
        ensure!(storage.remove_exchange(&id).await? == 3);
        let left = emulator.versions(BUCKET, exchange).await?;
        ensure!(
            (left == 0) == deletes,
            "{left} versions and delete markers with {more:?}"
        );
    }
    Ok("yes".into())
}

/// What `stopover check` prints of a base directory at a server.
pub fn printed(emulator: &Emulator, place: &str, work: &Path) -> Result<String> {
    let name = [("name", "tried")];
    printed_of(&emulator.kind.table(place, emulator.port, &name), work)
}

/// What it prints of the base directory in this table.
pub fn printed_of(table: &str, work: &Path) -> Result<String> {
    let config = work.join("stopover.toml");
    std::fs::write(&config, table)?;
    let built = env!("CARGO_BIN_EXE_stopover");
    let binary = std::env::var_os("STOPOVER_BINARY").unwrap_or_else(|| built.into());
    let mut command = Command::new(binary);
    command.args(["check", "--config"]).arg(&config);
    let output = command.output()?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(output.status.success(), "check: {text}");
    Ok(text)
}

/// Which ways of encryption by the server work: an object written with the options of a base
/// directory has the header that says so, and is read back.
async fn encryption(kind: Kind, work: &Path) -> Result<String> {
    const HEADER: &str = "x-amz-server-side-encryption";
    if kind.service() != "S3" {
        return Ok("an option of S3".into());
    }
    let emulator = start(kind, work).await?;
    let ways: [(&str, &[(&str, &str)]); 2] = [
        ("SSE-S3", &[("aws_server_side_encryption", "AES256")]),
        (
            "SSE-KMS",
            &[
                ("aws_server_side_encryption", "aws:kms"),
                ("aws_sse_kms_key_id", KMS_KEY_NAME),
            ],
        ),
    ];
    let mut works = Vec::new();
    for (n, (name, options)) in (1..).zip(ways) {
        let storage = probed(base(kind, emulator.port, options)).await?;
        let (exchange, content) = ("encrypted".parse()?, Bytes::from(vec![7; 100_000]));
        let put = storage.put_segment(&exchange, segment(n), vec![content.clone()]);
        let at = put.await?;
        ensure!(storage.get_range(&at, 0..100_000).await? == content);
        let keys = emulator.keys(BUCKET).await?;
        let key = keys.iter().find(|key| key.ends_with(".seg"));
        let key = key.context("no segment is in the bucket")?;
        if emulator.header(BUCKET, key, HEADER).await?.as_deref() == Some(options[0].1) {
            works.push(name);
        }
        storage.remove_exchange(&exchange).await?;
    }
    let unknown = [
        ("aws_server_side_encryption", "aws:kms"),
        ("aws_sse_kms_key_id", "no-such-key"),
    ];
    let refused = probed(base(kind, emulator.port, &unknown)).await.is_err();
    if works.is_empty() {
        return Ok("ignored by the server".into());
    }
    ensure!(refused, "a key that does not exist is accepted");
    customer_key(work).await?;
    works.push("SSE-C");
    Ok(works.join(", "))
}

/// Keys of the client's own (SSE-C) on MinIO, which takes them over TLS only: a base directory is
/// used with the key with which it was written, and with no other.
async fn customer_key(work: &Path) -> Result<()> {
    const KEYS: [&str; 2] = [
        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=",
    ];
    let (data, certificates) = (work.join("tls-data"), work.join("tls"));
    std::fs::create_dir_all(data.join(BUCKET))?;
    std::fs::create_dir_all(&certificates)?;
    let authority = Authority::new();
    let server = authority.server();
    let ca = certificates.join("ca.pem");
    std::fs::write(certificates.join("public.crt"), server.certificate)?;
    std::fs::write(certificates.join("private.key"), server.key)?;
    std::fs::write(&ca, authority.certificate())?;
    let emulator = Emulator::start_tls(&data, work, &certificates).await?;
    let endpoint = format!("https://localhost:{}", emulator.port);
    let ca = ca.display().to_string();
    let tried = async |key: Option<&str>| {
        let mut options = vec![("endpoint", &*endpoint), ("ca_file", &*ca)];
        options.extend(key.map(|_| ("aws_server_side_encryption", "sse-c")));
        options.extend(key.map(|key| ("aws_sse_customer_key_base64", key)));
        probed(base(Kind::Minio, emulator.port, &options)).await
    };
    let storage = tried(Some(KEYS[0])).await?;
    let (exchange, content) = ("encrypted".parse()?, Bytes::from(vec![7; 100_000]));
    let put = storage.put_segment(&exchange, segment(1), vec![content.clone()]);
    let at = put.await?;
    ensure!(storage.get_range(&at, 0..100_000).await? == content);
    for other in [Some(KEYS[1]), None] {
        let opened = tried(other).await;
        ensure!(opened.is_err(), "it works with the key {other:?}");
    }
    storage.remove_exchange(&exchange).await?;
    Ok(())
}
