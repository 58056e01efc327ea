//! The content of files.
//!
//! Does: write a file durably, read ranges of one. Does not: give a file its final name (`backend`,
//! `versioned`). Invariant: a file that was written is on the disks of all DataNodes that have it,
//! not only in their memory; a range is read whole or not at all.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hdfs_native::file::FileReader;
use hdfs_native::{Client, HdfsError, WriteOptions};

use super::backend::HdfsStore;
use super::error::{Failure, failure};
use crate::human::count;
use crate::store::{Result, StoreError, StoreErrorKind, Tail};

/// Files and folders are for their owner alone, as on local file systems.
const FILE: u32 = 0o600;
pub(super) const FOLDER: u32 = 0o700;

/// The smallest size of a block that NameNodes accept by default.
const BLOCK_UNIT: u64 = 1 << 20;

/// One block for a file of this size: only the last block of a file can be synced.
fn block_size(size: u64) -> u64 {
    size.max(1).next_multiple_of(BLOCK_UNIT)
}

impl HdfsStore {
    /// Writes a file that does not exist. If it fails, what was written stays, open or closed.
    pub(super) async fn write_file(
        &self,
        path: &str,
        content: &[Bytes],
        create_parent: bool,
    ) -> Result<(), Failure> {
        self.create_root().await?;
        let size: usize = content.iter().map(Bytes::len).sum();
        let mut options = WriteOptions::default()
            .permission(FILE)
            .create_parent(create_parent)
            .block_size(block_size(size as u64));
        options.replication = self.replication;
        let (path, content) = (path.to_owned(), content.to_vec());
        let sync = self.nodes.sync(size as u64);
        let write = move |client: Client| async move {
            let mut file = client.create(&path, &options).await?;
            for bytes in content.into_iter().filter(|bytes| !bytes.is_empty()) {
                file.write_bytes(bytes).await?;
            }
            if size > 0 {
                sync.run(&mut file).await?;
            }
            Ok::<_, Failure>(file.close().await?)
        };
        self.nodes.transfer(write).await
    }

    /// Creates the base directory with permissions for its owner alone, unless it exists: what is
    /// created below it inherits them.
    async fn create_root(&self) -> Result<(), Failure> {
        if self.root_exists.load(Ordering::Relaxed) {
            return Ok(());
        }
        let root = self.root.clone();
        let create = move |client: Client| async move {
            match client.get_file_info(&root).await {
                Err(HdfsError::FileNotFound(_)) => client.mkdirs(&root, FOLDER, true).await,
                found => found.map(drop),
            }
        };
        self.nodes.call(create).await?;
        self.root_exists.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn read_tail(&self, path: &str, max: u64) -> Result<Tail> {
        let at = path.to_owned();
        let read = move |client: Client| async move {
            let file = client.read(&at).await?;
            let size = file.file_length();
            let start = size.saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
            let bytes = read_exactly(&file, start, size - start).await?;
            Ok::<_, HdfsError>(Tail {
                bytes,
                object_size: size as u64,
            })
        };
        let tail = self.nodes.transfer(read).await;
        tail.map_err(|error| failure("reading", path, error))
    }

    pub(super) async fn read_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let (at, wanted) = (path.to_owned(), range.clone());
        let read = move |client: Client| async move {
            let file = client.read(&at).await?;
            let size = file.file_length();
            // Beyond the end the client panics.
            let within = wanted.start <= wanted.end && wanted.end <= size as u64;
            let (Ok(start), Ok(end), true) = (
                usize::try_from(wanted.start),
                usize::try_from(wanted.end),
                within,
            ) else {
                return Ok::<_, HdfsError>(Err(size));
            };
            read_exactly(&file, start, end - start).await.map(Ok)
        };
        let bytes = self.nodes.transfer(read).await;
        let bytes = bytes.map_err(|error| failure("reading", path, error))?;
        bytes.map_err(|size| {
            let message = format!(
                "{path} has {}, not the range {range:?}",
                count(size, "byte")
            );
            StoreError::new(StoreErrorKind::Corrupt, message)
        })
    }

    /// The whole content of a small file.
    pub(super) async fn read_all(&self, path: &str) -> Result<Bytes, Failure> {
        let path = path.to_owned();
        let read = move |client: Client| async move {
            let file = client.read(&path).await?;
            read_exactly(&file, 0, file.file_length()).await
        };
        self.nodes.transfer(read).await
    }
}

async fn read_exactly(file: &FileReader, start: usize, length: usize) -> Result<Bytes, HdfsError> {
    if length == 0 {
        return Ok(Bytes::new());
    }
    let bytes = file.read_range(start, length).await?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(HdfsError::DataTransferError(format!(
            "got {} instead of {length}",
            count(bytes.len(), "byte")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_block_whatever_its_size() {
        const MIB: u64 = 1 << 20;
        for (size, block) in [(0, MIB), (1, MIB), (MIB, MIB), (MIB + 1, 2 * MIB)] {
            assert_eq!(block_size(size), block, "{size}");
        }
        assert_eq!(block_size(200 * MIB - 7), 200 * MIB);
    }
}
