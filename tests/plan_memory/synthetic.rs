//! A store that holds the segments of one exchange without any memory for them.
//!
//! Does: list them, and make the tail of each from its id when it is requested. Does not: hold
//! their pages; objects of other kinds are held as they are put. Invariant: every segment is
//! committed by the last one of its task.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use stopover::crc;
use stopover::id::{DaemonId, ExchangeId, SegmentId, TaskAttempt};
use stopover::segment::blocks::{BlockEntry, Blocks};
use stopover::segment::footer::{CommitRecord, Footer, Totals};
use stopover::segment::layout::{FRAME_HEADER_LEN, SEGMENT_HEADER_LEN, Trailer};
use stopover::storage::Tail;
use stopover::store::keys::{self, Folder, Key, OwnObject};
use stopover::store::{
    DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, StoreErrorKind, Versioned,
};

/// Bytes of the only page of a block.
const PAGE: u32 = 8;

/// So the order of ids is that of tasks.
const TASKS_OF_A_DAEMON: u32 = 100;

/// How many segments and blocks the exchange has: as many of each for every task.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub tasks: u32,
    pub partitions: u32,
    /// Segments of a task, each with a block for every partition.
    segments: u32,
}

impl Shape {
    pub fn with_tasks(tasks: u32) -> Self {
        Self {
            tasks,
            partitions: 20,
            segments: 25,
        }
    }

    pub fn blocks(self) -> u64 {
        u64::from(self.tasks) * u64::from(self.segments) * u64::from(self.partitions)
    }

    /// The segment of a task with this index.
    fn id(self, task: u32, index: u32) -> SegmentId {
        SegmentId {
            daemon: DaemonId(u64::from(task / TASKS_OF_A_DAEMON)),
            sequence: u64::from(task) * u64::from(self.segments) + u64::from(index),
        }
    }

    fn ids(self) -> impl Iterator<Item = SegmentId> {
        let tasks = 0..self.tasks;
        tasks.flat_map(move |task| (0..self.segments).map(move |index| self.id(task, index)))
    }

    fn footer(self, exchange: &ExchangeId, segment: SegmentId) -> Footer {
        let number = segment.sequence as u32;
        let (task, index) = (number / self.segments, number % self.segments);
        let attempt = TaskAttempt::new(task, 0).unwrap();
        let mut offset = SEGMENT_HEADER_LEN as u64;
        let blocks = (0..self.partitions).map(|partition| {
            let block = BlockEntry {
                partition,
                sink: 0,
                pages: 1,
                frames_length: FRAME_HEADER_LEN as u32 + PAGE,
                checksum: partition,
                offset,
            };
            offset += block.length();
            block
        });
        let blocks = Blocks::new(&blocks.collect::<Vec<_>>());
        let commit = (index + 1 == self.segments).then(|| self.commit(attempt));
        Footer {
            exchange: exchange.clone(),
            segment,
            sealed_millis: 0,
            sinks: vec![attempt],
            blocks,
            commits: commit.into_iter().collect(),
        }
    }

    fn commit(self, attempt: TaskAttempt) -> CommitRecord {
        let pages = u64::from(self.segments) * u64::from(self.partitions);
        let earlier = 0..self.segments - 1;
        let base = "main".parse::<stopover::id::BaseName>().unwrap();
        let segment = |index| (base.clone(), self.id(attempt.task, index).sequence);
        CommitRecord {
            attempt,
            totals: Totals {
                batches: 1,
                pages,
                bytes: pages * u64::from(PAGE),
                checksum: 0,
            },
            predecessors: earlier.map(segment).collect(),
        }
    }

    /// A whole object, with zeros where its pages would be.
    fn object(self, exchange: &ExchangeId, segment: SegmentId) -> Vec<u8> {
        let footer = self.footer(exchange, segment);
        let mut object = vec![0; footer.blocks.end() as usize];
        let encoded = footer.encode().concat();
        let trailer = Trailer {
            footer_offset: object.len() as u64,
            footer_length: encoded.len() as u32,
            footer_crc: crc::checksum(&encoded),
        };
        object.extend_from_slice(&encoded);
        object.extend_from_slice(&trailer.encode());
        object
    }
}

#[derive(Debug)]
pub struct SyntheticStore {
    exchange: ExchangeId,
    shape: Shape,
    others: Mutex<BTreeMap<Key, Bytes>>,
}

fn missing() -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, "no such object")
}

/// Contents under one key differ, so they are versions.
fn version(content: &Bytes) -> String {
    crc::checksum(content).to_string()
}

impl SyntheticStore {
    pub fn new(exchange: &ExchangeId, shape: Shape) -> Arc<Self> {
        Arc::new(Self {
            exchange: exchange.clone(),
            shape,
            others: Mutex::default(),
        })
    }

    fn listed(&self, id: SegmentId) -> ObjectMeta {
        ObjectMeta {
            key: keys::segment(&self.exchange, id),
            size: 1 << 20,
            entity_tag: Some(format!("\"{:032x}\"", id.sequence)),
        }
    }

    fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        match keys::parse(key) {
            Some(OwnObject::Segment(exchange, segment)) if exchange == self.exchange => {
                Ok(self.shape.object(&exchange, segment).into())
            }
            _ => self.others.lock().get(key).cloned().ok_or_else(missing),
        }
    }
}

#[async_trait]
impl Store for SyntheticStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.others
            .lock()
            .insert(key.clone(), content.concat().into());
        Ok(())
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        let mut others = self.others.lock();
        let found = others.get(key).map(version);
        let holds = match expected {
            Precondition::Absent | Precondition::StrictlyAbsent => found.is_none(),
            Precondition::Version(expected) => found.as_ref() == Some(expected),
        };
        if holds {
            others.insert(key.clone(), content);
        }
        Ok(holds)
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        let bytes = self.get(key)?;
        let version = version(&bytes);
        Ok(Versioned {
            bytes,
            entity_tag: version.clone(),
            version,
        })
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        let bytes = self.get(key)?;
        let object_size = bytes.len() as u64;
        let start = object_size.saturating_sub(max) as usize;
        Ok(Tail {
            bytes: bytes.slice(start..),
            object_size,
        })
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.get(key)?;
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        if *folder != keys::segments(&self.exchange) {
            return self.list(folder).await;
        }
        let after = after.and_then(keys::parse);
        let first = match after {
            Some(OwnObject::Segment(_, segment)) => segment.sequence as usize + 1,
            _ => 0,
        };
        let segments = self.shape.ids().skip(first).take(max);
        Ok(segments.map(|id| self.listed(id)).collect())
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        if *folder == keys::segments(&self.exchange) {
            let segments = self.shape.ids();
            return Ok(segments.map(|id| self.listed(id)).collect());
        }
        let prefix = format!("{folder}/");
        let others = self.others.lock();
        let found = others
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(&prefix));
        let listed = found.map(|(key, content)| ObjectMeta {
            key: key.clone(),
            size: content.len() as u64,
            entity_tag: Some(version(content)),
        });
        Ok(listed.collect())
    }

    async fn list_folders(&self, _: &Folder) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        let mut others = self.others.lock();
        let removed = keys.iter().filter_map(|key| others.remove(key));
        Ok(removed.count() as u64)
    }

    async fn delete_if(&self, key: &Key, _: Option<&str>) -> Result<DeleteOutcome, StoreError> {
        match self.others.lock().remove(key) {
            Some(_) => Ok(DeleteOutcome::Removed),
            None => Ok(DeleteOutcome::Absent),
        }
    }

    async fn remove_stale_temporaries(&self, _: &Folder) -> Result<u64, StoreError> {
        Ok(0)
    }
}
