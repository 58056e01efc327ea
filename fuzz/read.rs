//! The claim about reads of handles that are sealed but that no daemon planned: each ends, after at
//! most [`BOUND`] bytes with the client's leave, and holds no more memory than the read pool has.
//!
//! Does: make a handle of an input, and read it from segments in memory with little memory. Needs
//! the whole crate, unlike the decoders. Invariant: nothing leaves this process.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use stopover::app::Daemon;
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::id::{DaemonId, ExchangeId, SegmentId, TaskAttempt};
use stopover::read::ReadError;
use stopover::runtime::Runtime;
use stopover::segment::frame::{FRAME_HEADER_LEN, verify_batch, write_frame_header};
use stopover::segment::layout::END_MARKER;
use stopover::segment::writer::{SegmentDraft, SinkRun, write_segment};

#[path = "sealed.rs"]
pub mod sealed;

use self::sealed::{Fields, Range};

/// Bytes that are read of one handle.
const BOUND: usize = 2 << 20;
/// A read that receives nothing for this long stands still.
const STANDS_STILL: Duration = Duration::from_secs(30);
const DAEMON: u64 = 7;

/// A daemon with 1 MiB for reading, and the range of each partition of each of its segments.
struct World {
    runtime: tokio::runtime::Runtime,
    daemon: Daemon,
    base: u64,
    secret: [u8; 32],
    ranges: Vec<Range>,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let mut config = Config::default();
        config.memory.budget = Some(2 << 20);
        config.base_directories = vec![BaseDirectoryConfig {
            uri: "memory://fuzz-read".into(),
            name: "main".into(),
            options: [].into(),
        }];
        let (daemon, ranges) = runtime.block_on(async {
            let daemon = Daemon::build(&config, &Runtime::seeded(1)).unwrap();
            daemon.start(Duration::from_secs(60)).await;
            let mut ranges = Vec::new();
            for (exchange, sequence, pages) in [
                ("q", 0, [vec![1; 200], vec![20_000, 1, 1]]),
                ("q", 1, [vec![300_000], vec![3, 1]]),
                ("other", 2, [vec![100], vec![700_000]]),
            ] {
                ranges.extend(store(&daemon, exchange, sequence, pages).await);
            }
            (daemon, ranges)
        });
        let identity = daemon.storage.identities().remove(0).1.unwrap();
        Self {
            runtime,
            daemon,
            base: identity.id.0,
            secret: *identity.keys[0].secret(),
            ranges,
        }
    }
}

/// Stores a segment with pages of these lengths in partitions 0 and 1; returns the range of each.
async fn store(
    daemon: &Daemon,
    exchange: &str,
    sequence: u64,
    pages: [Vec<usize>; 2],
) -> Vec<Range> {
    let exchange: ExchangeId = exchange.parse().unwrap();
    let segment = SegmentId {
        daemon: DaemonId(DAEMON),
        sequence,
    };
    let sink = TaskAttempt::new(0, 0).unwrap();
    let mut runs = Vec::new();
    for (partition, lengths) in (0..).zip(pages) {
        for length in lengths {
            let mut frame = vec![7; FRAME_HEADER_LEN + length];
            write_frame_header(&mut frame, partition);
            let batch = verify_batch(frame.into(), 2, 1 << 20).unwrap();
            runs.extend(batch.runs.into_iter().map(|run| SinkRun { sink, run }));
        }
    }
    let image = write_segment(SegmentDraft {
        exchange: exchange.clone(),
        segment,
        sealed_millis: 0,
        runs,
        commits: Vec::new(),
    });
    let put = daemon
        .storage
        .put_segment(&exchange, segment, image.content);
    put.await.unwrap();
    let blocks = image.footer.blocks;
    blocks
        .iter()
        .map(|block| Range {
            base: 0,
            daemon: 0,
            sequence,
            offset: block.offset,
            length: block.length(),
            gap: blocks.end() - block.offset - block.length(),
            pages: block.pages.into(),
            checksum: stopover::crc::checksum(&block.checksum.to_le_bytes()),
        })
        .collect()
}

/// A handle of an input: a byte for the exchange and the partition, one for the pages to skip, then
/// for each range eight: which range of a segment, how it differs, and how often it comes.
fn handle(input: &[u8]) -> Option<(Fields, u64)> {
    let [place, skip, ranges @ ..] = input else {
        return None;
    };
    let mut fields = Fields {
        key: 1,
        bases: vec![WORLD.base],
        exchange: ["q", "other", "never"][usize::from(place >> 4) % 3].to_owned(),
        partition: u64::from(place & 1),
        bytes: 0,
        daemons: vec![DAEMON],
        ranges: Vec::new(),
    };
    for range in ranges.chunks_exact(8) {
        let [which, offset, longer, long, gap, pages, few, many] = range else {
            continue;
        };
        let (mut range, signed) = (
            WORLD.ranges[usize::from(*which) % WORLD.ranges.len()].clone(),
            |change: &u8, factor: i64| i64::from(change.cast_signed()) * factor,
        );
        let add = |to: &mut u64, change: i64| *to = to.wrapping_add_signed(change);
        add(&mut range.offset, signed(offset, 1));
        add(&mut range.length, signed(longer, 1) + signed(long, 1 << 24));
        add(&mut range.gap, signed(gap, 1));
        add(&mut range.pages, signed(pages, 1));
        let count = 1 + usize::from(*few) + 64 * usize::from(*many);
        fields.ranges.extend(std::iter::repeat_n(range, count));
    }
    fields.agree();
    Some((fields, u64::from(*skip)))
}

/// Reads the handle of an input.
pub fn read(input: &[u8]) {
    let Some((fields, skip)) = handle(input) else {
        return;
    };
    let (text, pages) = (fields.seal(&WORLD.secret), fields.pages());
    let pool = &WORLD.daemon.read_pool;
    WORLD.runtime.block_on(async {
        let Ok(mut stream) = WORLD.daemon.reader.read_handle(&text, skip).await else {
            return;
        };
        let (mut received, mut last) = (0, Bytes::new());
        while received < BOUND {
            let next = tokio::time::timeout(STANDS_STILL, stream.next()).await;
            match next.expect("the read stands still") {
                Some(Ok(bytes)) => {
                    received += bytes.len();
                    last = bytes;
                }
                Some(Err(ReadError::Interrupted)) => panic!("the daemon does not stop"),
                Some(Err(_)) => return,
                None => {
                    let end: [u8; 32] = last[..].try_into().expect("an end record");
                    assert_eq!(end[..4], END_MARKER.to_le_bytes());
                    let counted = u64::from_le_bytes(end[8..16].try_into().unwrap());
                    assert_eq!(Some(counted), pages.and_then(|p| p.checked_sub(skip)));
                    return;
                }
            }
            assert!(pool.used() <= pool.capacity());
        }
    });
}
