//! What the disk does without a daemon: one file, from one end to the other.
//!
//! Does: write it with one fsync at its end, read it (out of the page cache, where the daemon's
//! segments are too). Does not: try to be clever. Invariant: speeds are MB a second of the bytes
//! that were asked for.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

/// Writes so many bytes, syncs, removes them; MB a second.
pub fn write(folder: &Path, piece: &[u8], bytes: u64) -> Result<f64> {
    let start = Instant::now();
    let file = keep(folder, piece, bytes)?;
    let speed = bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
    std::fs::remove_file(file)?;
    Ok(speed)
}

/// Writes so many bytes, syncs, and leaves them there.
pub fn keep(folder: &Path, piece: &[u8], bytes: u64) -> Result<PathBuf> {
    let path = folder.join("plain-file");
    let mut file = File::create(&path)?;
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len() as u64);
        file.write_all(&piece[..now as usize])?;
        left -= now;
    }
    file.sync_all()?;
    Ok(path)
}

/// Reads the file; MB a second.
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
