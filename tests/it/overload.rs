//! Promise 7 under more than the daemon can hold: it gets slower, and nothing stops for good.

use std::time::Duration;

use crate::support::frames::batch;
use crate::support::{Bases, Door, ok_json, sink};

/// Story: a read that waited for the rest of a page held the part which it had. Sixteen such reads
/// held all memory for reading, each waiting for the next, and none ever went on.
#[tokio::test]
async fn many_reads_of_pages_that_lie_across_chunks_all_end_in_little_memory() {
    let bases = Bases::new();
    let writer = Door::open(&bases.config()).await;
    writer.announce("w", 4).await;
    let pages: Vec<Vec<u8>> = (0..4u8)
        .map(|p| vec![p; 100_000 + usize::from(p)])
        .collect();
    for task in 0..4 {
        let sink = sink("w", task, 0);
        for number in 0..8 {
            let frames: Vec<(u32, &[u8])> = (0..4).map(|p| (p, &pages[p as usize][..])).collect();
            writer.add(&sink, number, batch(&frames)).await;
        }
        ok_json(writer.post_nothing(&format!("{sink}/finish")).await).await;
    }
    let mut config = bases.config();
    config.memory.budget = Some(2 << 20);
    let reader = Door::open(&config).await;
    assert_eq!(reader.daemon.read_pool.capacity(), 1 << 20);
    let reads = (0..60usize).map(|n| {
        let (reader, pages) = (&reader, &pages);
        async move {
            let path = format!("/v1/exchanges/w/partitions/{}", n % 4);
            let read = reader.get(&path).await.bytes().await.unwrap();
            assert_eq!(read, pages[n % 4].repeat(4 * 8));
        }
    });
    let all = futures::future::join_all(reads);
    let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
    let pool = &reader.daemon.read_pool;
    assert!(
        ended.is_ok(),
        "{} bytes held, {} waited for",
        pool.used(),
        pool.waiting()
    );
    reader.shut_down().await;
    writer.shut_down().await;
}
