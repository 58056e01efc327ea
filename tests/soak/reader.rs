//! Reads one handle to its end: a read that breaks off is resumed at a random daemon. All bytes of
//! every page are checked.

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

/// How long a read is retried without a new page.
const MAX_RETRY_TIME: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct Handle {
    pub text: String,
    pub partition: u32,
    pub pages: u64,
    pub bytes: u64,
}

/// The pages of a handle in the order received; `None` if the lease may have expired.
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
    let mut deadline = Instant::now() + MAX_RETRY_TIME;
    let mut daemon = clients.any(rng);
    loop {
        let before = read.pages.len();
        match read.continue_at(daemon).await? {
            None => break,
            Some(failure) if exchange.may_have_expired(&failure) => return Ok(None),
            Some(failure) if !failure.is_transient() => {
                bail!("reading partition {}: {failure:?}", handle.partition)
            }
            Some(failure) => {
                if read.pages.len() > before {
                    deadline = Instant::now() + MAX_RETRY_TIME;
                }
                ensure!(Instant::now() < deadline, "no further page: {failure:?}");
            }
        }
        let next = clients.any(rng);
        if !read.pages.is_empty() {
            count(&clients.tally.reads_resumed);
            if next != daemon {
                count(&clients.tally.resumed_elsewhere);
            }
        }
        daemon = next;
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
    /// Continues the read at one daemon; `None` at the end of the stream.
    async fn continue_at(&mut self, daemon: usize) -> Result<Option<Failure>> {
        let path = format!("/v1/read?skip={}", self.pages.len());
        let url = self.clients.url(daemon, self.rng, &path);
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
        // Some readers are slow, and some disconnect early.
        let slow = chance(self.rng, 30);
        let disconnect_after =
            chance(self.rng, 10).then(|| self.rng.next_u64() % (self.handle.pages + 1));
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
                        self.check_page(partition, task, attempt, &page)?;
                    }
                    Event::End => return Ok(None),
                    Event::Problem(json) => {
                        return Ok(Some(Failure::Problem(Problem::of(status, &json))));
                    }
                }
            }
            if disconnect_after.is_some_and(|limit| self.pages.len() as u64 > limit) {
                return Ok(Some(Failure::NoAnswer("the reader disconnected".into())));
            }
            if slow {
                pause(self.rng, 40).await;
            }
        }
        Ok(Some(Failure::NoAnswer("the stream has no end".into())))
    }

    fn check_page(&mut self, partition: u32, task: u32, attempt: u32, page: &[u8]) -> Result<()> {
        let id = PageId::of(page).with_context(|| format!("a page of task {task}"))?;
        let stated = PageId {
            exchange: self.exchange.hash,
            task,
            attempt,
            partition,
            position: id.position,
        };
        ensure!(id == stated, "the page {id:?} was sent as {stated:?}");
        ensure!(
            partition == self.handle.partition && self.chosen.get(&task) == Some(&attempt),
            "{id:?} was not requested"
        );
        ensure!(
            (self.pages.len() as u64) < self.handle.pages,
            "received more than the {} pages of the handle",
            self.handle.pages
        );
        self.pages.push(id);
        self.bytes += page.len() as u64;
        Ok(())
    }
}
