//! The speed of the disk without a daemon: one file, written or read sequentially.
//!
//! Does: write a file with one fsync at its end, read it (from the page cache, where the daemon's
//! segments are, too). Does not: use several files or threads. Invariant: speeds are MB/s of the
//! requested bytes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

/// Writes and syncs a file of `bytes` bytes, then removes it; returns MB/s.
pub fn write(folder: &Path, piece: &[u8], bytes: u64) -> Result<f64> {
    let start = Instant::now();
    let file = write_file(folder, piece, bytes)?;
    let speed = bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
    std::fs::remove_file(file)?;
    Ok(speed)
}

/// Writes and syncs a file of `bytes` bytes and returns its path.
pub fn write_file(folder: &Path, piece: &[u8], bytes: u64) -> Result<PathBuf> {
    let path = folder.join("plain-file");
    let mut file = File::create(&path)?;
    let mut left = bytes;
    while left > 0 {
        let count = left.min(piece.len() as u64);
        file.write_all(&piece[..count as usize])?;
        left -= count;
    }
    file.sync_all()?;
    Ok(path)
}

/// Reads the file; returns MB/s.
pub fn read(path: &Path) -> Result<f64> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    let (start, mut bytes) = (Instant::now(), 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64()),
            n => bytes += n,
        }
    }
}
