//! Pages that are damaged between a daemon and the disks of HDFS.
//!
//! Does: write with one daemon and read with others, over connections that change bytes, and from a
//! disk that did. Does not: damage what NameNodes are told. Invariant: what an acknowledged attempt
//! is read as is what was written, or the read is an error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use futures::TryStreamExt as _;
use stopover::app::Daemon;
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::exchange::{Announce, ExchangeSpec};
use stopover::id::{DaemonId, SegmentId, SinkId, TaskAttempt};
use stopover::runtime::Runtime;
use stopover::segment::frame::BatchVerifier;
use stopover::store::keys;
use stopover::store::open::open_all;

use crate::cluster::{Cluster, base};
use crate::frames::{self, End};
use crate::wire::{Damage, Direction, HOST, Wire};

/// Pages of an attempt: together more than one packet of HDFS holds.
const PAGES: u32 = 60;

/// How long something that cannot succeed is watched: it is tried again for a minute.
const PATIENCE: Duration = Duration::from_secs(10);

/// Together with pages of other sizes, no byte of a page is where another one's equal is.
fn page(number: u32) -> Vec<u8> {
    let bytes = (0..2000 + number).map(|at| (at * 31 + number * 7 + at / 256) as u8);
    bytes.collect()
}

/// A cluster whose DataNode is reached through damaged wire.
pub struct Damaged {
    cluster: Cluster,
    wire: Wire,
    site: PathBuf,
    daemons: u64,
}

impl Damaged {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("wire.xml");
        let property =
            |name, value| format!("<property><name>{name}</name><value>{value}</value></property>");
        let text = property("dfs.client.use.datanode.hostname", "true");
        std::fs::write(&site, format!("<configuration>{text}</configuration>")).unwrap();
        let arguments = ["--datanodes", "1", "--host", HOST];
        let mut cluster = Cluster::start_in(folder, &[], &arguments);
        let ports = cluster.run("ports");
        let ports: Vec<u16> = ports.split(' ').map(|port| port.parse().unwrap()).collect();
        Self {
            wire: Wire::start(&ports).await,
            cluster,
            site,
            daemons: 0,
        }
    }

    fn base(&self) -> BaseDirectoryConfig {
        let uri = format!("hdfs://127.0.0.1:{}/damaged", self.cluster.name_nodes[0]);
        let site = self.site.to_str().unwrap();
        base(&uri, &[("config_files", site), ("timeout", "3s")])
    }

    /// Another daemon, whose memory is empty.
    fn daemon(&mut self) -> Daemon {
        let config = Config {
            base_directories: vec![self.base()],
            ..Config::default()
        };
        self.daemons += 1;
        Daemon::build(&config, &Runtime::seeded(self.daemons)).unwrap()
    }

    /// Reads an attempt with another daemon; `damage` begins once it is planned, if `late`.
    async fn read(
        &mut self,
        sink: &SinkId,
        damage: Option<Damage>,
        late: bool,
    ) -> Result<Vec<Vec<u8>>, String> {
        let reader = self.daemon();
        let damage_now = |now: bool| {
            damage
                .filter(|_| now)
                .map(|damage| self.wire.damage(damage))
        };
        damage_now(!late);
        let chosen = [sink.task_attempt];
        let planned = reader
            .catalog
            .plan_handles(&sink.exchange, true, &chosen, 1 << 20);
        let (mut handles, _memory) = planned.await.map_err(|error| told(&error))?;
        let handle = handles.next().ok_or("no handle")?;
        damage_now(late);
        let stream = reader.reader.read_handle(&handle.text, 0).await;
        let stream = stream.map_err(|error| told(&error))?;
        let read: Result<Vec<_>, _> = stream.try_collect().await;
        let read = read.map_err(|error| told(&error))?;
        match frames::parse(&read.concat()) {
            (pages, End::Complete) => Ok(pages.into_iter().map(|page| page.page).collect()),
            (_, end) => Err(format!("{end:?}")),
        }
    }
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn sink(exchange: &str) -> SinkId {
    SinkId {
        exchange: exchange.parse().unwrap(),
        task_attempt: TaskAttempt::new(0, 0).unwrap(),
    }
}

fn written() -> Vec<Vec<u8>> {
    (0..PAGES).map(page).collect()
}

/// Sends all pages of an attempt of a new exchange.
async fn send(writer: &Daemon, sink: &SinkId) {
    let spec = ExchangeSpec {
        partitions: 1,
        ordered: true,
    };
    let announced = writer
        .exchanges
        .announce(&sink.exchange, spec, Announce::CreateOrRenew);
    announced.await.unwrap();
    let pages = written();
    let pages: Vec<_> = pages.iter().map(|page| (0, &page[..])).collect();
    let batch = frames::batch(&pages);
    let admission = writer.ingest.admit(sink, Some(0)).unwrap();
    let admission = admission.reserve(batch.len() as u64).await.unwrap();
    let verifier = BatchVerifier::new(1, 1 << 20);
    admission.append(verifier, batch.into()).unwrap();
}

/// The bits that are changed at a position: another one at each.
fn once(direction: Direction, at: u64) -> Damage {
    Damage {
        direction,
        at,
        every: None,
        bits: 1 << (at % 8),
    }
}

/// Damage of every packet, and of every further try.
fn always(direction: Direction) -> Damage {
    Damage {
        direction,
        at: 1_000,
        every: Some(997),
        bits: 4,
    }
}

pub async fn all() {
    let mut damaged = Damaged::start().await;
    no_damaged_upload_is_acknowledged(&mut damaged).await;
    let unnoticed = no_damaged_packet_ends_a_task(&damaged).await;
    no_damaged_read_is_served(&mut damaged, &unnoticed).await;
    what_a_disk_changed_with_its_checksum_is_an_error(&mut damaged).await;
}

async fn no_damaged_upload_is_acknowledged(damaged: &mut Damaged) {
    let writer = damaged.daemon();
    // The request, the first packet's header, its checksums, content; and acknowledgements.
    let sent = (0..340).step_by(34).chain([600, 5_000, 66_000, 120_000]);
    let sent = sent.map(|at| once(Direction::Sent, at));
    let received = [0, 12, 18, 36].map(|at| once(Direction::Received, at));
    let mut hits = 0;
    for (number, damage) in sent.chain(received).enumerate() {
        let sink = sink(&format!("upload-{number}"));
        send(&writer, &sink).await;
        damaged.wire.damage(damage);
        let finished = writer.ingest.finish(&sink, None).await;
        hits += damaged.wire.heal();
        if finished.is_ok() {
            let read = damaged.read(&sink, None, false).await;
            assert!(read.as_ref() == Ok(&written()), "{damage:?}: {read:?}");
        }
    }
    assert!(hits >= 16, "{hits} bytes were damaged");
    let sink = sink("upload-all");
    send(&writer, &sink).await;
    damaged.wire.damage(always(Direction::Sent));
    let finished = writer.ingest.finish(&sink, None);
    let finished = tokio::time::timeout(PATIENCE, finished).await;
    assert!(damaged.wire.heal() > 0);
    assert!(
        !matches!(finished, Ok(Ok(_))),
        "damaged bytes were acknowledged"
    );
}

/// Story: hdfs-native 0.14.8 believes what the header of a packet says of its size and place, and
/// panics if it is wrong; so did the task of the daemon that had asked. Returns the damage that
/// neither the client nor HDFS noticed: the store gave other bytes.
async fn no_damaged_packet_ends_a_task(damaged: &Damaged) -> Vec<Damage> {
    let opened = open_all(&[damaged.base()], &Runtime::system()).unwrap();
    let store = &opened[0].opened.store;
    let daemon = DaemonId(7);
    let id = SegmentId {
        daemon,
        sequence: 1,
    };
    let key = keys::segment(&"packets".parse().unwrap(), id);
    let content = Bytes::from(written().concat());
    store.put(&key, vec![content.clone()]).await.unwrap();
    damaged.wire.damage(once(Direction::Received, u64::MAX));
    store.get_range(&key, 1_000..60_000).await.unwrap();
    let length = damaged.wire.passed();
    let (mut unnoticed, mut errors) = (Vec::new(), 0);
    // The answer and the header of the first packet, and the last one, which is empty.
    for at in (0..48).chain(length - 32..length) {
        let damage = once(Direction::Received, at);
        damaged.wire.damage(damage);
        // A client that waits for what never comes; the daemon's own limit is around the store.
        let read = store.get_range(&key, 1_000..60_000);
        let read = tokio::time::timeout(Duration::from_secs(3), read).await;
        assert_eq!(damaged.wire.heal(), 1, "{damage:?}");
        let Ok(read) = read else {
            errors += 1;
            continue;
        };
        match read {
            Ok(bytes) if bytes == content.slice(1_000..60_000) => {}
            Ok(_) => unnoticed.push(damage),
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 0 && !unnoticed.is_empty(), "{errors} errors");
    unnoticed
}

/// At the positions that the store does not notice, and some others.
async fn no_damaged_read_is_served(damaged: &mut Damaged, unnoticed: &[Damage]) {
    let writer = damaged.daemon();
    let sink = sink("read");
    send(&writer, &sink).await;
    writer.ingest.finish(&sink, None).await.unwrap();
    let more = [3, 30, 100, 1_000, 70_000].map(|at| once(Direction::Received, at));
    let request = [5, 60].map(|at| once(Direction::Sent, at));
    let mut hits = 0;
    for late in [false, true] {
        for &damage in unnoticed.iter().chain(&more).chain(&request) {
            let read = damaged.read(&sink, Some(damage), late).await;
            hits += damaged.wire.heal();
            if let Ok(pages) = read {
                assert!(pages == written(), "{damage:?}: other pages");
            }
        }
        let read = damaged.read(&sink, Some(always(Direction::Received)), late);
        let read = tokio::time::timeout(PATIENCE, read).await;
        assert!(damaged.wire.heal() > 0);
        assert!(!matches!(read, Ok(Ok(_))), "damaged bytes were served");
    }
    assert!(hits as usize > unnoticed.len(), "{hits} bytes were damaged");
    let read = damaged.read(&sink, None, false).await;
    assert!(read.as_ref() == Ok(&written()), "{read:?}");
}

/// Story: a sync had 16 s, whatever the size of the file, so each put over a way of less than 400
/// KiB/s failed, and so did each try after it.
pub async fn a_slow_way_is_waited_for() {
    const SIZE: usize = 8 << 20;
    let damaged = Damaged::start().await;
    let uri = damaged.base().uri;
    let site = damaged.site.to_str().unwrap();
    let base = base(&uri, &[("config_files", site)]);
    let opened = open_all(&[base], &Runtime::seeded(1)).unwrap();
    let store = &opened[0].opened.store;
    damaged.wire.throttle(200 << 10);
    let (daemon, sequence) = (DaemonId(1), 1);
    let id = SegmentId { daemon, sequence };
    let key = keys::segment(&"slow".parse().unwrap(), id);
    let content = Bytes::from(vec![7; SIZE]);
    store.put(&key, vec![content.clone()]).await.unwrap();
    damaged.wire.throttle(0);
    let read = store.get_range(&key, 0..SIZE as u64).await.unwrap();
    assert!(read == content, "other bytes");
}

/// What was damaged before HDFS computed its checksum looks right to HDFS.
async fn what_a_disk_changed_with_its_checksum_is_an_error(damaged: &mut Damaged) {
    let writer = damaged.daemon();
    let sink = sink("disk");
    send(&writer, &sink).await;
    writer.ingest.finish(&sink, None).await.unwrap();
    let newest = newest_block(&damaged.cluster.folder.path().join("hdfs"));
    let (mut block, meta) = (std::fs::read(&newest).unwrap(), meta_of(&newest));
    let mut checks = std::fs::read(&meta).unwrap();
    let at = block.len() / 2;
    block[at] ^= 1;
    // Two bytes of version, one of type, four of length; then four for each 512 bytes.
    let chunk = at / 512;
    let end = block.len().min((chunk + 1) * 512);
    let check = checksum(CrcAlgorithm::Crc32Iscsi, &block[chunk * 512..end]) as u32;
    checks[7 + 4 * chunk..][..4].copy_from_slice(&check.to_be_bytes());
    std::fs::write(&newest, block).unwrap();
    std::fs::write(&meta, checks).unwrap();
    let error = damaged.read(&sink, None, false).await.unwrap_err();
    assert!(error.contains("checksum"), "{error}");
}

/// All blocks below a folder.
fn blocks(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            blocks(&path, found);
        } else if name.starts_with("blk_") && !name.ends_with(".meta") {
            found.push(path);
        }
    }
}

/// The newest block that holds pages: others are small.
fn newest_block(folder: &Path) -> PathBuf {
    let mut found = Vec::new();
    blocks(folder, &mut found);
    let meta = |path: &PathBuf| std::fs::metadata(path).unwrap();
    found.retain(|path| meta(path).len() > 100_000);
    found.sort_by_key(|path| meta(path).modified().unwrap());
    found.pop().expect("a segment on the disk")
}

fn meta_of(block: &Path) -> PathBuf {
    let name = block.file_name().unwrap().to_string_lossy().into_owned();
    let files = std::fs::read_dir(block.parent().unwrap()).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    let is_meta = |path: &PathBuf| {
        let other = path.file_name().unwrap().to_string_lossy().into_owned();
        other.starts_with(&format!("{name}_")) && other.ends_with(".meta")
    };
    files.find(is_meta).expect("the checksums of a block")
}
