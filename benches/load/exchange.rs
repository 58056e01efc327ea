//! One exchange at one or more daemons: what is written and read of it, over a number of
//! connections.
//!
//! Does: announce, write, finish, plan, read, remove. Does not: measure. Invariant: a read that did
//! not bring every page and byte that was written is an error.

use std::net::SocketAddr;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stopover::segment::frame::{FRAME_HEADER_LEN, verify_batch, write_frame_header};

use crate::client::Client;

const PAGES: &str = "application/vnd.stopover.pages";
const JSON: &str = "application/json";
/// Partitions, where nothing else is said.
pub const PARTITIONS: usize = 50;
const END_RECORD: usize = 32;

/// What is sent, again and again.
pub struct Batch {
    /// Frames.
    pub bytes: Vec<u8>,
    /// How many.
    pub pages: u64,
    page_bytes: u64,
    partitions: usize,
}

impl Batch {
    /// About `size` bytes in pages of `page` bytes, spread over so many partitions and sorted by
    /// them.
    pub fn new(size: usize, page: usize, partitions: usize) -> Result<Self> {
        let pages = (size / page).max(1);
        let mut bytes = Vec::with_capacity(pages * (page + FRAME_HEADER_LEN));
        let mut noise = 0x9E37_79B9_7F4A_7C15u64;
        for number in 0..pages {
            let start = bytes.len();
            bytes.resize(start + FRAME_HEADER_LEN, 0);
            bytes.extend((0..page).map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            }));
            let partition = number * partitions / pages;
            write_frame_header(&mut bytes[start..], u32::try_from(partition)?);
        }
        let (pages, page_bytes) = (pages as u64, (pages * page) as u64);
        let all = verify_batch(bytes.clone().into(), partitions as u32, page as u64)?;
        ensure!(all.pages == pages, "the batch is not what it should be");
        Ok(Self {
            bytes,
            pages,
            page_bytes,
            partitions,
        })
    }
}

/// Runs a job on each of a number of threads, with a connection of its own, to the daemons in turn.
pub fn on_connections(
    addresses: &[SocketAddr],
    connections: usize,
    job: impl Fn(usize, &mut Client) -> Result<()> + Sync,
) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| {
                let (job, address) = (&job, addresses[number % addresses.len()]);
                scope.spawn(move || job(number, &mut Client::connect(address)?))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a thread of the benchmark panicked"))
    })
}

/// An exchange. Each connection writes its share of the sinks, one after another.
pub struct Exchange<'a> {
    addresses: Vec<SocketAddr>,
    name: String,
    connections: usize,
    sinks: usize,
    batches: usize,
    batch: &'a Batch,
}

impl<'a> Exchange<'a> {
    /// Announces it, with one sink for each connection, which will get so many batches.
    pub fn announce(
        address: SocketAddr,
        name: &str,
        connections: usize,
        batches: usize,
        batch: &'a Batch,
    ) -> Result<Self> {
        let path = format!("/v1/exchanges/{name}");
        let partitions = batch.partitions;
        let body = format!("{{\"partitions\": {partitions}, \"ordered\": false}}");
        Client::connect(address)?.call("PUT", &path, JSON, body.as_bytes())?;
        Ok(Self {
            addresses: vec![address],
            name: name.to_owned(),
            connections,
            sinks: connections,
            batches,
            batch,
        })
    }

    /// The same with so many sinks, written through these daemons.
    pub fn with_sinks(mut self, sinks: usize, addresses: Vec<SocketAddr>) -> Self {
        (self.sinks, self.addresses) = (sinks, addresses);
        self
    }

    /// Frame bytes that are sent in all.
    pub fn bytes(&self) -> u64 {
        (self.sinks * self.batches * self.batch.bytes.len()) as u64
    }

    fn sink(&self, number: usize, what: &str) -> String {
        format!("/v1/exchanges/{}/sinks/{number}/0/{what}", self.name)
    }

    fn each_sink(&self, job: impl Fn(usize, &mut Client) -> Result<()> + Sync) -> Result<()> {
        let connections = self.connections;
        on_connections(&self.addresses, connections, |first, client| {
            let mut mine = (first..self.sinks).step_by(connections);
            mine.try_for_each(|sink| job(sink, client))
        })
    }

    /// Sends all batches of all sinks.
    pub fn write(&self) -> Result<()> {
        self.each_sink(|sink, client| self.write_one(sink, client))
    }

    fn write_one(&self, sink: usize, client: &mut Client) -> Result<()> {
        (0..self.batches).try_for_each(|number| {
            let path = self.sink(sink, &format!("pages?batch={number}"));
            client.call("POST", &path, PAGES, &self.batch.bytes)?;
            Ok(())
        })
    }

    /// Finishes all sinks.
    pub fn finish(&self) -> Result<()> {
        self.each_sink(|sink, client| self.finish_one(sink, client))
    }

    fn finish_one(&self, sink: usize, client: &mut Client) -> Result<()> {
        let claim = format!(
            "{{\"batches\": {}, \"pages\": {}, \"bytes\": {}}}",
            self.batches,
            self.batches as u64 * self.batch.pages,
            self.batches as u64 * self.batch.page_bytes
        );
        client.call("POST", &self.sink(sink, "finish"), JSON, claim.as_bytes())?;
        Ok(())
    }

    /// Writes and finishes one sink after another, as tasks follow one another in a slot.
    pub fn write_and_finish(&self) -> Result<()> {
        self.each_sink(|sink, client| {
            self.write_one(sink, client)?;
            self.finish_one(sink, client)
        })
    }

    /// Gives all sinks up.
    pub fn abort(&self) -> Result<()> {
        self.each_sink(|sink, client| {
            client.call("POST", &self.sink(sink, "abort"), JSON, b"")?;
            Ok(())
        })
    }

    /// The handles, with their bytes.
    pub fn handles(&self) -> Result<Vec<(String, u64)>> {
        self.handles_from(self.addresses[0])
    }

    /// The same, planned by some daemon.
    pub fn handles_from(&self, planner: SocketAddr) -> Result<Vec<(String, u64)>> {
        let attempts: Vec<_> = (0..self.sinks).map(|sink| [sink, 0]).collect();
        let body = serde_json::json!({"attempts": attempts, "target_size": 64 << 20}).to_string();
        let path = format!("/v1/exchanges/{}/handles", self.name);
        let answer = Client::connect(planner)?.call("POST", &path, JSON, body.as_bytes())?;
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
        let written = (self.sinks * self.batches) as u64 * self.batch.page_bytes;
        ensure!(sum == written, "{sum} bytes in handles, {written} written");
        Ok(handles)
    }

    /// Reads all handles through some daemons; the end record of each must count its bytes.
    pub fn read(&self, through: &[SocketAddr], handles: &[(String, u64)]) -> Result<()> {
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
        Client::connect(self.addresses[0])?.call("DELETE", &path, JSON, b"")?;
        Ok(())
    }
}
