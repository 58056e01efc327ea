//! One exchange at one daemon: what is written and read of it, over a number of connections.
//!
//! Does: announce, write, finish, plan, read, remove. Does not: measure. Invariant: a read that did
//! not bring every page and byte that was written is an error.

use std::net::SocketAddr;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stopover::segment::frame::{FRAME_HEADER, seal_frame, verify_batch};

use crate::client::Client;

const PAGES: &str = "application/vnd.stopover.pages";
const JSON: &str = "application/json";
const PARTITIONS: usize = 50;
const END_RECORD: usize = 32;

/// What is sent, again and again.
pub struct Batch {
    /// Frames.
    pub bytes: Vec<u8>,
    /// How many.
    pub pages: u64,
    page_bytes: u64,
}

impl Batch {
    /// About `size` bytes in pages of `page` bytes, spread over 50 partitions and sorted by them.
    pub fn new(size: usize, page: usize) -> Result<Self> {
        let pages = (size / page).max(1);
        let mut bytes = Vec::with_capacity(pages * (page + FRAME_HEADER));
        let mut noise = 0x9E37_79B9_7F4A_7C15u64;
        for number in 0..pages {
            let start = bytes.len();
            bytes.resize(start + FRAME_HEADER, 0);
            bytes.extend((0..page).map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            }));
            let partition = number * PARTITIONS / pages;
            seal_frame(&mut bytes[start..], u32::try_from(partition)?);
        }
        let (pages, page_bytes) = (pages as u64, (pages * page) as u64);
        let all = verify_batch(bytes.clone().into(), PARTITIONS as u32, page as u64)?;
        ensure!(all.pages == pages, "the batch is not what it should be");
        Ok(Self {
            bytes,
            pages,
            page_bytes,
        })
    }
}

/// Runs a job on each of a number of threads, with a connection of its own.
pub fn on_connections(
    address: SocketAddr,
    connections: usize,
    job: impl Fn(usize, &mut Client) -> Result<()> + Sync,
) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| {
                let job = &job;
                scope.spawn(move || job(number, &mut Client::connect(address)?))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a thread of the benchmark panicked"))
    })
}

/// An exchange with one sink for each connection.
pub struct Exchange<'a> {
    address: SocketAddr,
    name: String,
    connections: usize,
    batches: usize,
    batch: &'a Batch,
}

impl<'a> Exchange<'a> {
    /// Announces it. Each connection will send so many batches.
    pub fn announce(
        address: SocketAddr,
        name: &str,
        connections: usize,
        batches: usize,
        batch: &'a Batch,
    ) -> Result<Self> {
        let path = format!("/v1/exchanges/{name}");
        let body = format!("{{\"partitions\": {PARTITIONS}, \"ordered\": false}}");
        Client::connect(address)?.call("PUT", &path, JSON, body.as_bytes())?;
        Ok(Self {
            address,
            name: name.to_owned(),
            connections,
            batches,
            batch,
        })
    }

    /// Frame bytes that are sent in all.
    pub fn bytes(&self) -> u64 {
        (self.connections * self.batches * self.batch.bytes.len()) as u64
    }

    fn sink(&self, number: usize, what: &str) -> String {
        format!("/v1/exchanges/{}/sinks/{number}/0/{what}", self.name)
    }

    /// Sends all batches of all sinks.
    pub fn write(&self) -> Result<()> {
        on_connections(self.address, self.connections, |sink, client| {
            (0..self.batches).try_for_each(|number| {
                let path = self.sink(sink, &format!("pages?batch={number}"));
                client.call("POST", &path, PAGES, &self.batch.bytes)?;
                Ok(())
            })
        })
    }

    /// Finishes all sinks.
    pub fn finish(&self) -> Result<()> {
        on_connections(self.address, self.connections, |sink, client| {
            let claim = format!(
                "{{\"batches\": {}, \"pages\": {}, \"bytes\": {}}}",
                self.batches,
                self.batches as u64 * self.batch.pages,
                self.batches as u64 * self.batch.page_bytes
            );
            let path = self.sink(sink, "finish");
            client.call("POST", &path, JSON, claim.as_bytes())?;
            Ok(())
        })
    }

    /// Gives all sinks up.
    pub fn abort(&self) -> Result<()> {
        on_connections(self.address, self.connections, |sink, client| {
            client.call("POST", &self.sink(sink, "abort"), JSON, b"")?;
            Ok(())
        })
    }

    /// The handles, with their bytes.
    pub fn handles(&self) -> Result<Vec<(String, u64)>> {
        let attempts: Vec<_> = (0..self.connections).map(|sink| [sink, 0]).collect();
        let body = serde_json::json!({"attempts": attempts, "target_size": 64 << 20}).to_string();
        let path = format!("/v1/exchanges/{}/handles", self.name);
        let answer = Client::connect(self.address)?.call("POST", &path, JSON, body.as_bytes())?;
        let mut handles = Vec::new();
        for line in answer
            .split(|byte| *byte == b'\n')
            .filter(|l| !l.is_empty())
        {
            let line: Value = serde_json::from_slice(line)?;
            if let Some(handle) = line["handle"].as_str() {
                let bytes = line["bytes"].as_u64().context("a handle has bytes")?;
                handles.push((handle.to_owned(), bytes));
            }
        }
        let sum: u64 = handles.iter().map(|(_, bytes)| bytes).sum();
        let written = (self.connections * self.batches) as u64 * self.batch.page_bytes;
        ensure!(sum == written, "{sum} bytes in handles, {written} written");
        Ok(handles)
    }

    /// Reads all handles through some daemon; the end record of each must count its bytes.
    pub fn read(&self, through: SocketAddr, handles: &[(String, u64)]) -> Result<()> {
        let next = Mutex::new(handles.iter());
        on_connections(through, self.connections, |_, client| {
            loop {
                let Some((handle, bytes)) = next.lock().expect("no panics").next() else {
                    return Ok(());
                };
                let mut end = Vec::new();
                client.stream(
                    "POST",
                    "/v1/read",
                    "text/plain",
                    handle.as_bytes(),
                    |part| {
                        if part.len() >= END_RECORD {
                            end.clear();
                        }
                        end.extend_from_slice(&part[part.len().saturating_sub(END_RECORD)..]);
                    },
                )?;
                let end = &end[end.len().saturating_sub(END_RECORD)..];
                let counted = end.get(16..24).context("there is an end record")?;
                let counted = u64::from_le_bytes(counted.try_into()?);
                ensure!(
                    counted == *bytes,
                    "{counted} bytes came, {bytes} were announced"
                );
            }
        })
    }

    /// Removes it.
    pub fn remove(self) -> Result<()> {
        let path = format!("/v1/exchanges/{}", self.name);
        Client::connect(self.address)?.call("DELETE", &path, JSON, b"")?;
        Ok(())
    }
}
