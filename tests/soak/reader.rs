//! Reads one handle to its end, at one daemon after another: a read that breaks off is resumed
//! where it stopped. Every page is looked at as a whole.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt as _;
use reqwest::StatusCode;
use stopover::runtime::Random;

use crate::client::{Clients, Failure, Problem, chance, pause, problem};
use crate::content::PageId;
use crate::exchange::Exchange;
use crate::tally::count;
use crate::wire::{Event, ReadStream};

/// For how long a read may go on without a page.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct Handle {
    pub text: String,
    pub partition: u32,
    pub pages: u64,
    pub bytes: u64,
}

/// The pages of a handle in the order in which they came; `None` if the lease may have run out.
///
/// # Errors
/// A broken promise.
pub async fn read(
    clients: &Clients,
    exchange: &Exchange,
    handle: &Handle,
    chosen: &BTreeMap<u32, u32>,
    rng: &Random,
) -> Result<Option<Vec<PageId>>> {
    count(&clients.tally.reads);
    let mut read = Read {
        clients,
        exchange,
        handle,
        chosen,
        rng,
        pages: Vec::new(),
        bytes: 0,
    };
    let mut deadline = Instant::now() + PATIENCE;
    let mut door = clients.any(rng);
    loop {
        let before = read.pages.len();
        match read.rest(door).await? {
            None => break,
            Some(failure) if exchange.may_have_expired(&failure) => return Ok(None),
            Some(failure) if !failure.is_weather() => {
                bail!("reading partition {}: {failure:?}", handle.partition)
            }
            Some(failure) => {
                if read.pages.len() > before {
                    deadline = Instant::now() + PATIENCE;
                }
                ensure!(
                    Instant::now() < deadline,
                    "no page comes any more: {failure:?}"
                );
            }
        }
        let next = clients.any(rng);
        if !read.pages.is_empty() {
            count(&clients.tally.reads_resumed);
            if next != door {
                count(&clients.tally.resumed_elsewhere);
            }
        }
        door = next;
        pause(rng, 150).await;
    }
    ensure!(
        (read.pages.len() as u64, read.bytes) == (handle.pages, handle.bytes),
        "a handle of {} pages and {} bytes ended after {} and {}",
        handle.pages,
        handle.bytes,
        read.pages.len(),
        read.bytes
    );
    let tally = &clients.tally;
    tally.pages.set(tally.pages.get() + read.pages.len() as u64);
    tally.bytes.set(tally.bytes.get() + read.bytes);
    Ok(Some(read.pages))
}

struct Read<'a> {
    clients: &'a Clients,
    exchange: &'a Exchange,
    handle: &'a Handle,
    chosen: &'a BTreeMap<u32, u32>,
    rng: &'a Random,
    pages: Vec<PageId>,
    bytes: u64,
}

impl Read<'_> {
    /// Reads on at one daemon; `None` when the end came.
    async fn rest(&mut self, door: usize) -> Result<Option<Failure>> {
        let path = format!("/v1/read?skip={}", self.pages.len());
        let url = self.clients.url(door, self.rng, &path);
        let request = self
            .clients
            .http
            .post(url)
            .header("content-type", "text/plain");
        let response = match request.body(self.handle.text.clone()).send().await {
            Ok(response) => response,
            Err(error) => return Ok(Some(error.into())),
        };
        let status = response.status();
        if status != StatusCode::OK {
            return Ok(Some(match response.bytes().await {
                Ok(body) => problem(status, &body),
                Err(error) => error.into(),
            }));
        }
        // Some readers are slow, and some have had enough in the midst.
        let slow = chance(self.rng, 30);
        let enough = chance(self.rng, 10).then(|| self.rng.next_u64() % (self.handle.pages + 1));
        let (mut parser, mut body) = (ReadStream::default(), response.bytes_stream());
        while let Some(part) = body.next().await {
            let part = match part {
                Ok(part) => part,
                Err(error) => return Ok(Some(error.into())),
            };
            for event in parser.feed(&part)? {
                match event {
                    Event::Page {
                        partition,
                        task,
                        attempt,
                        page,
                    } => {
                        self.take(partition, task, attempt, &page)?;
                    }
                    Event::End => return Ok(None),
                    Event::Problem(json) => {
                        return Ok(Some(Failure::Problem(Problem::of(status, &json))));
                    }
                }
            }
            if enough.is_some_and(|enough| self.pages.len() as u64 > enough) {
                return Ok(Some(Failure::Broken("the reader left".into())));
            }
            if slow {
                pause(self.rng, 40).await;
            }
        }
        Ok(Some(Failure::Broken("the stream has no end".into())))
    }

    fn take(&mut self, partition: u32, task: u32, attempt: u32, page: &[u8]) -> Result<()> {
        let id = PageId::of(page).with_context(|| format!("a page of task {task}"))?;
        let told = PageId {
            exchange: self.exchange.hash,
            task,
            attempt,
            partition,
            position: id.position,
        };
        ensure!(id == told, "a page of {id:?} came as {told:?}");
        ensure!(
            partition == self.handle.partition && self.chosen.get(&task) == Some(&attempt),
            "{id:?} was not asked for"
        );
        ensure!(
            (self.pages.len() as u64) < self.handle.pages,
            "more than the {} pages of the handle came",
            self.handle.pages
        );
        self.pages.push(id);
        self.bytes += page.len() as u64;
        Ok(())
    }
}
