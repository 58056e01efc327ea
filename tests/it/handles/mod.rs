//! Sealed handles that no daemon would plan: each is refused with a documented problem, or read
//! within bounds.
//!
//! A seal proves that a daemon planned a handle, so its content is trusted as far as its checks go.
//! These tests hold the key of the base directory and seal what they like. Invariant of every read:
//! it makes progress, holds no more memory than the read pool has, and ends with an end record that
//! counts what was sent, with a problem, or with the bound of the test.

mod mutation;
#[path = "../../../fuzz/read.rs"]
pub mod read;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use stopover::api::problem::ProblemType;
use stopover::catalog::handle::{Handle, Seals};
use stopover::config::Config;
use stopover::runtime::Random;
use stopover::storage::identity::Identity;

use self::mutation::{Drawn, Mutation};
use self::read::sealed::Fields;
use crate::corpus::{inputs, mutated, mutations};
use crate::support::frames::{End, batch, parse};
use crate::support::{BaseFolder, TestServer, ok_json, sink};

const PARTITIONS: u32 = 2;
/// Bytes that a test reads of one response, a few times the memory for reading.
const READ_BOUND: usize = 6 << 20;
/// A read that receives nothing for this long stands still.
const STANDS_STILL: Duration = Duration::from_secs(60);
/// Reads that run at a time, so that they compete for memory.
const AT_A_TIME: usize = 6;

/// A daemon with 1 MiB for reading, and what it stores.
struct World {
    server: TestServer,
    base_folder: BaseFolder,
    identity: Arc<Identity>,
    /// Handles that were planned, of segments in memory and of segments that are not.
    planned: Vec<Handle>,
}

fn small(base_folder: &BaseFolder) -> Config {
    let mut config = base_folder.config();
    config.memory.budget = Some(2 << 20);
    config.limits.max_page_size = 400_000;
    config.limits.max_batch_size = 500_000;
    config
}

/// Writes tasks of both exchanges, and returns the texts of their handles.
async fn write(server: &TestServer, tasks: std::ops::Range<u32>) -> Vec<String> {
    let (large, medium) = (vec![7; 300_000], vec![8; 20_000]);
    let mut planned = Vec::new();
    for exchange in ["w", "other"] {
        server.announce(exchange, PARTITIONS).await;
        for task in tasks.clone() {
            let sink = sink(exchange, task, 0);
            server.add(&sink, 0, batch(&[(0, &large)])).await;
            let tiny = [(0, b"a".as_slice()), (1, b"b"), (1, &medium)];
            server.add(&sink, 1, batch(&tiny.repeat(5))).await;
            ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
        }
        let attempts: Vec<[u32; 2]> = tasks.clone().map(|task| [task, 0]).collect();
        let lines = server.handles(exchange, &json!(attempts), 1 << 20).await;
        let texts = lines.iter().map(|line| line["handle"].as_str().unwrap());
        planned.extend(texts.map(str::to_owned));
    }
    planned
}

impl World {
    async fn new() -> Self {
        let base_folder = BaseFolder::new();
        let config = small(&base_folder);
        let first = TestServer::open(&config).await;
        let mut planned = write(&first, 0..3).await;
        first.shut_down().await;
        let server = TestServer::open(&config).await;
        planned.extend(write(&server, 3..5).await);
        let identity = std::fs::read(base_folder.path().join("v2/identity")).unwrap();
        let identity = Arc::new(Identity::decode(&identity).unwrap());
        let seals = Seals::new(vec![(identity.name.clone(), Some(Arc::clone(&identity)))]);
        let planned = planned.iter().map(|text| {
            let handle = Handle::open(text, &seals).unwrap();
            let again = Fields::of(&handle, identity.id).seal(identity.keys[0].secret());
            assert_eq!(Handle::open(&again, &seals).as_ref(), Ok(&handle));
            handle
        });
        Self {
            planned: planned.collect(),
            server,
            base_folder,
            identity,
        }
    }

    /// The content of a planned handle, which can be changed and sealed again.
    fn fields(&self, n: usize) -> Fields {
        let handle = &self.planned[n % self.planned.len()];
        Fields::of(handle, self.identity.id)
    }

    /// Reads a handle up to [`READ_BOUND`], and checks what comes.
    async fn read(&self, drawn: &Drawn) -> Outcome {
        let path = format!("/v1/read?skip={}", drawn.skip);
        let request = self.server.request(Method::POST, &path);
        let request = request.header("content-type", "text/plain");
        let sent = request.body(drawn.text.clone()).send();
        let sent = tokio::time::timeout(STANDS_STILL, sent).await;
        let response = sent
            .unwrap_or_else(|_| panic!("no answer: {drawn:?}"))
            .unwrap();
        let status = response.status();
        let (mut received, mut ended) = (Vec::new(), true);
        let mut chunks = response.bytes_stream();
        loop {
            let next = tokio::time::timeout(STANDS_STILL, chunks.next()).await;
            let next = next.unwrap_or_else(|_| panic!("stands still: {drawn:?}"));
            let Some(chunk) = next else { break };
            received.extend_from_slice(&chunk.unwrap_or_else(|e| panic!("{e}: {drawn:?}")));
            let pool = &self.server.daemon.read_pool;
            assert!(pool.used() <= pool.capacity());
            if received.len() > READ_BOUND {
                ended = false;
                break;
            }
        }
        if status != StatusCode::OK {
            let problem: Value = serde_json::from_slice(&received).unwrap();
            return Outcome::refused(&problem, status.as_u16(), drawn);
        }
        if !ended {
            return Outcome::Bounded;
        }
        match parse(&received) {
            (pages, End::Complete) => Outcome::Complete(pages.len() as u64),
            (_, End::Problem(problem)) => {
                let status = problem["status"].as_u64().unwrap();
                Outcome::refused(&problem, status.try_into().unwrap(), drawn)
            }
            (_, End::Missing) => panic!("the response was cut off: {drawn:?}"),
        }
    }

    /// Waits until reads hold no memory but that of caches, and wait for none.
    async fn expect_idle(&self) {
        self.server.expect_no_request_in_progress().await;
        let pool = &self.server.daemon.read_pool;
        let deadline = std::time::Instant::now() + STANDS_STILL;
        while pool.waiting() > 0 || pool.try_reserve("idle", pool.capacity()).is_none() {
            assert!(
                std::time::Instant::now() < deadline,
                "{} bytes are held and {} waited for after all reads have ended",
                pool.used(),
                pool.waiting()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// How a read ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// With this problem, before or after the head.
    Refused(String),
    /// With an end record, after this many pages.
    Complete(u64),
    /// With the bound of the test.
    Bounded,
}

impl Outcome {
    fn refused(problem: &Value, status: u16, drawn: &Drawn) -> Self {
        let slug = problem["type"].as_str().unwrap();
        let slug = slug.strip_prefix("urn:stopover:problem:").unwrap();
        let known = ProblemType::ALL.iter().find(|known| known.as_str() == slug);
        let known = known.unwrap_or_else(|| panic!("{slug} is not documented: {drawn:?}"));
        assert_eq!(known.status(), status, "{drawn:?}");
        assert_ne!(*known, ProblemType::Internal, "{problem}: {drawn:?}");
        Self::Refused(slug.to_owned())
    }
}

/// Number of inputs and seed: `STOPOVER_TEST_HANDLES=inputs:seed`.
fn inputs_and_seed() -> (usize, u64) {
    let given = std::env::var("STOPOVER_TEST_HANDLES").unwrap_or_default();
    let (inputs, seed) = given.split_once(':').unwrap_or((&given, ""));
    (inputs.parse().unwrap_or(240), seed.parse().unwrap_or(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_sealed_handle_is_refused_with_a_documented_problem_or_read_within_bounds() {
    let world = World::new().await;
    let (inputs, seed) = inputs_and_seed();
    let mut draws = Mutation::new(Random::seeded(seed), *world.identity.keys[0].secret());
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    for first in (0..inputs).step_by(AT_A_TIME) {
        let numbers = first..inputs.min(first + AT_A_TIME);
        let drawn: Vec<Drawn> = numbers.map(|n| draws.draw(n, world.fields(n))).collect();
        for (drawn, outcome) in drawn
            .iter()
            .zip(join_all(drawn.iter().map(|drawn| world.read(drawn))).await)
        {
            if let Outcome::Complete(pages) = &outcome {
                assert_eq!(Some(*pages), drawn.pages, "{drawn:?}");
            }
            let kind = match outcome {
                Outcome::Refused(slug) => slug,
                Outcome::Complete(_) => "complete".to_owned(),
                Outcome::Bounded => "bounded".to_owned(),
            };
            *outcomes
                .entry(format!("{}: {kind}", drawn.shape))
                .or_default() += 1;
        }
        world.expect_idle().await;
    }
    println!("{inputs} inputs of seed {seed}: {outcomes:#?}");
    let has = |kind: &str| outcomes.keys().any(|key| key.ends_with(kind));
    for kind in [
        "complete",
        "bounded",
        "invalid-handle",
        "data-corrupt",
        "data-lost",
    ] {
        assert!(has(kind), "no input was {kind}: {outcomes:?}");
    }
    world.server.shut_down().await;
    drop(world.base_folder);
}

#[test]
fn every_regression_input_of_a_read_ends_within_bounds() {
    inputs("read").iter().for_each(|input| read::read(input));
}

#[test]
fn mutated_inputs_of_a_read_end_within_bounds() {
    let (count, seed) = mutations();
    let (inputs, random) = (inputs("read"), Random::seeded(seed));
    for n in 0..count / 4 {
        let input = mutated(&inputs, &random);
        let checked = std::panic::catch_unwind(|| read::read(&input));
        assert!(checked.is_ok(), "input {n} of seed {seed}: {input:?}");
    }
}
