//! Writing the content of files.
//!
//! Does: write it, bypassing the page cache for large files where the file system supports that
//! (docs/decisions/storage-direct-io.md). Does not: name, lock or sync files. Invariant: after a
//! successful write a file holds exactly its content, however it was written.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Seek as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
#[cfg(target_os = "linux")]
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Size in bytes from which a file bypasses the page cache: for smaller ones the wait for the disk
/// costs more than the copy.
const LARGE: usize = 1 << 20;
/// Bytes per direct write, gathered in a buffer outside of the memory budget.
const GATHERED: usize = 2 << 20;
/// Alignment of the memory, length and offset of a direct write. The kernel refuses it where a disk
/// has larger logical blocks.
const BLOCK: usize = 4096;

/// Writes the files of one base directory.
#[derive(Debug)]
pub(super) struct ContentWriter {
    direct: AtomicBool,
    /// Nothing finds space.
    #[cfg(test)]
    pub full: AtomicBool,
}

impl ContentWriter {
    /// Bypasses the page cache if `direct`, until the file system refuses that.
    pub(super) fn new(direct: bool) -> Self {
        Self {
            direct: AtomicBool::new(direct),
            #[cfg(test)]
            full: AtomicBool::new(false),
        }
    }

    /// Writes the content of an empty file.
    ///
    /// # Errors
    /// Those of the file system; the content of the file is unspecified then.
    pub(super) fn write(&self, file: &mut File, content: &[Bytes]) -> io::Result<()> {
        #[cfg(test)]
        if self.full.load(Ordering::Relaxed) {
            return Err(ErrorKind::StorageFull.into());
        }
        self.write_with(file, content, write_blocks)
    }

    fn write_with(
        &self,
        file: &mut File,
        content: &[Bytes],
        blocks: impl FnOnce(&mut File, &[Bytes], usize) -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        let size: usize = content.iter().map(Bytes::len).sum();
        if size >= LARGE && self.direct.load(Ordering::Relaxed) {
            let written = bypassing_page_cache(file, |file| blocks(file, content, size))
                .and_then(|rest| file.write_all(&rest));
            match written {
                Err(error) if is_unsupported(&error) => {
                    self.direct.store(false, Ordering::Relaxed);
                    tracing::info!(%error,
                        "the file system has no direct I/O; writing through the page cache");
                    file.set_len(0)?;
                    file.rewind()?;
                }
                written => return written,
            }
        }
        write_vectored(file, content)
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::Unsupported
    )
}

/// Runs `work` with direct I/O; afterwards the file has its previous flags, also after an error.
#[cfg(target_os = "linux")]
fn bypassing_page_cache<T>(
    file: &mut File,
    work: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<T> {
    let flags = fcntl_getfl(&*file)?;
    fcntl_setfl(&*file, flags | OFlags::DIRECT)?;
    let done = work(file);
    fcntl_setfl(&*file, flags)?;
    done
}

#[cfg(not(target_os = "linux"))]
fn bypassing_page_cache<T>(
    _: &mut File,
    _: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<T> {
    Err(ErrorKind::Unsupported.into())
}

/// Writes whole blocks; returns the rest, which is less than a block.
fn write_blocks(file: &mut File, content: &[Bytes], size: usize) -> io::Result<Vec<u8>> {
    let room = size.min(GATHERED).next_multiple_of(BLOCK);
    let mut memory = vec![0; room + BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let buffer = &mut memory[start..start + room];
    let mut filled = 0;
    for part in content {
        let mut rest = &part[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(room - filled));
            buffer[filled..filled + now.len()].copy_from_slice(now);
            (filled, rest) = (filled + now.len(), later);
            if filled == room {
                file.write_all(buffer)?;
                filled = 0;
            }
        }
    }
    let (blocks, rest) = buffer[..filled].split_at(filled / BLOCK * BLOCK);
    file.write_all(blocks)?;
    Ok(rest.to_vec())
}

fn write_vectored(file: &mut File, content: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = content.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// Parts of varying lengths, `size` bytes in total, no two blocks alike.
    fn content(size: usize) -> Vec<Bytes> {
        let whole: Vec<u8> = (0..size).map(|n| (n / 7 + n / 4096) as u8).collect();
        let (mut whole, mut parts) = (Bytes::from(whole), Vec::new());
        while !whole.is_empty() {
            let length = (parts.len() * 70_001) % 300_007;
            parts.push(whole.split_to(length.min(whole.len())));
        }
        parts
    }

    fn read_back(file: &mut File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_file_holds_its_content_wherever_that_ends() {
        let around = [LARGE, GATHERED, GATHERED + BLOCK, 3 * GATHERED];
        let sizes = around.into_iter().flat_map(|at| [at - 1, at, at + 1]);
        for size in sizes.chain([0, 1, BLOCK]) {
            let (writer, content) = (ContentWriter::new(true), content(size));
            let mut file = tempfile::tempfile().unwrap();
            writer.write(&mut file, &content).unwrap();
            assert!(read_back(&mut file) == content.concat(), "{size} bytes");
            // Later writes go through the page cache again.
            #[cfg(target_os = "linux")]
            assert!(!fcntl_getfl(&file).unwrap().contains(OFlags::DIRECT));
        }
    }

    /// Most file systems refuse a misaligned write themselves, and the writes after it.
    #[test]
    fn a_file_whose_direct_write_is_refused_midway_is_written_through_the_page_cache() {
        let writer = ContentWriter::new(true);
        let content = content(LARGE + 1);
        let misplaced = |file: &mut File, content: &[Bytes], _| {
            file.write_all(&content.concat()[..BLOCK + 1])?;
            Err(ErrorKind::InvalidInput.into())
        };
        let mut file = tempfile::tempfile().unwrap();
        writer.write_with(&mut file, &content, misplaced).unwrap();
        assert!(read_back(&mut file) == content.concat());
        let again = |_: &mut File, _: &[Bytes], _| panic!("direct I/O was refused before");
        let mut file = tempfile::tempfile().unwrap();
        writer.write_with(&mut file, &content, again).unwrap();
        assert!(read_back(&mut file) == content.concat());
    }

    #[test]
    fn blocks_written_before_a_refusal_are_not_in_the_file() {
        let (writer, content) = (ContentWriter::new(true), content(LARGE));
        let refuse = |file: &mut File, content: &[Bytes], size| {
            write_blocks(file, content, size)?;
            write_blocks(file, content, size)?;
            Err(ErrorKind::Unsupported.into())
        };
        let mut file = tempfile::tempfile().unwrap();
        writer.write_with(&mut file, &content, refuse).unwrap();
        assert!(read_back(&mut file) == content.concat());
    }

    #[test]
    fn other_failures_are_not_treated_as_a_refusal() {
        let (writer, content) = (ContentWriter::new(true), content(LARGE));
        let mut file = tempfile::tempfile().unwrap();
        let full = |_: &mut File, _: &[Bytes], _| Err(ErrorKind::StorageFull.into());
        match writer.write_with(&mut file, &content, full) {
            // The temporary folder may be on a file system without direct I/O.
            Ok(()) => assert!(!writer.direct.load(Ordering::Relaxed)),
            Err(failed) => assert_eq!(failed.kind(), ErrorKind::StorageFull),
        }
    }
}
