//! One exchange at one or more daemons, written and read over a number of connections.
//!
//! Does: announce, write, finish, plan, read, remove. Does not: measure. Invariant: a read that
//! does not return every page and byte that was written is an error.

use std::net::SocketAddr;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stopover::segment::frame::{FRAME_HEADER_LEN, verify_batch, write_frame_header};

use crate::client::Client;

const PAGES: &str = "application/vnd.stopover.pages";
const JSON: &str = "application/json";
/// The default number of partitions.
pub const PARTITIONS: usize = 50;
const END_RECORD: usize = 32;

/// A batch that is sent repeatedly.
pub struct Batch {
    pub bytes: Vec<u8>,
    pub pages: u64,
    page_bytes: u64,
    partitions: usize,
}

impl Batch {
    /// About `size` bytes in pages of `page` bytes, spread evenly over the partitions and sorted by
    /// partition.
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
        ensure!(all.pages == pages, "the batch has another number of pages");
        Ok(Self {
            bytes,
            pages,
            page_bytes,
            partitions,
        })
    }
}

/// Runs a job on `connections` threads, each with a connection to one of the daemons in turn.
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

/// An exchange. Each connection writes its share of the sinks sequentially.
pub struct Exchange<'a> {
    addresses: Vec<SocketAddr>,
    name: String,
    connections: usize,
    sinks: usize,
    batches: usize,
    batch: &'a Batch,
}

impl<'a> Exchange<'a> {
    /// Announces an exchange with one sink of `batches` batches per connection.
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

    /// Uses this number of sinks, written through these daemons.
    pub fn with_sinks(mut self, sinks: usize, addresses: Vec<SocketAddr>) -> Self {
        (self.sinks, self.addresses) = (sinks, addresses);
        self
    }

    /// The total number of frame bytes that are sent.
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

    /// Writes and finishes one sink after another, as consecutive tasks in a slot do.
    pub fn write_and_finish(&self) -> Result<()> {
        self.each_sink(|sink, client| {
            self.write_one(sink, client)?;
            self.finish_one(sink, client)
        })
    }

    pub fn abort(&self) -> Result<()> {
        self.each_sink(|sink, client| {
            client.call("POST", &self.sink(sink, "abort"), JSON, b"")?;
            Ok(())
        })
    }

    /// The handles, each with its number of page bytes.
    pub fn handles(&self) -> Result<Vec<(String, u64)>> {
        self.handles_from(self.addresses[0])
    }

    /// The handles as planned by this daemon.
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
                let bytes = line["bytes"].as_u64().context("the handle has no bytes")?;
                handles.push((handle.to_owned(), bytes));
            }
        }
        let sum: u64 = handles.iter().map(|(_, bytes)| bytes).sum();
        let written = (self.sinks * self.batches) as u64 * self.batch.page_bytes;
        ensure!(sum == written, "{sum} bytes in handles, {written} written");
        Ok(handles)
    }

    /// Reads all handles through these daemons; the end record of each must count its bytes.
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
                let counted = end.get(16..24).context("the end record is missing")?;
                let counted = u64::from_le_bytes(counted.try_into()?);
                ensure!(counted == *bytes, "{counted} bytes read, {bytes} planned");
            }
        })
    }

    pub fn remove(self) -> Result<()> {
        let path = format!("/v1/exchanges/{}", self.name);
        Client::connect(self.addresses[0])?.call("DELETE", &path, JSON, b"")?;
        Ok(())
    }
}
