//! What fuzzing the decoders found, sent to a daemon by every route that takes a body.

use std::path::Path;

use super::target::{BATCH, JSON, TEXT, Target};
use crate::support::sink;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_that_fuzzing_found_are_answered_by_every_route() {
    let target = Target::start(64, &[]).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    let mut sent = 0;
    for decoder in ["batch", "handle", "footer", "scan", "segment", "trailer"] {
        for (number, file) in std::fs::read_dir(folder.join(decoder)).unwrap().enumerate() {
            let input = std::fs::read(file.unwrap().path()).unwrap();
            let task = 100 + u32::try_from(number).unwrap();
            let pages = format!("POST {}/pages?batch=0", sink("kept", task, 0));
            let finish = format!("POST {}/finish", sink("kept", task, 0));
            for (line, kind) in [
                (pages.as_str(), BATCH),
                (&finish, JSON),
                ("POST /v1/read", TEXT),
                ("POST /v1/exchanges/kept/chosen", JSON),
                ("POST /v1/exchanges/kept/handles", JSON),
                ("PUT /v1/exchanges/fuzzed", JSON),
            ] {
                let answer = target.send(line, &[kind], &input).await;
                // A handle may name a base directory that this daemon lacks.
                let refused =
                    answer.status < 500 || answer.problem_type() == "unknown-base-directory";
                assert!(refused, "{line} {decoder}: {answer:?}");
                sent += 1;
            }
        }
    }
    assert!(sent > 100, "{sent} requests");
    target.assert_unharmed().await;
}
