//! Credentials, certificates and headers of base directories, at servers that check them.
//!
//! Servers that give credentials out (STS, instance metadata, containers, pods) and stores that
//! refuse old ones are played: no emulator has them. The store behind is `fake_s3`.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own

mod addresses;
mod azure;
mod certificates;
mod check;
mod denials;
mod fake_azure;
mod fake_gcs;
#[path = "../../src/store/tests/fake_s3.rs"]
#[allow(dead_code)] // not all of it is used here
mod fake_s3;
#[path = "../it/support/frames.rs"]
#[allow(dead_code)] // not all of it is used here
mod frames;
mod gate;
mod google;
mod headers;
mod issuer;
mod ledger;
mod metadata;
#[path = "../it/support/process.rs"]
#[allow(dead_code)]
mod process;
mod rotation;
#[path = "../it/support/tls.rs"]
#[allow(dead_code)] // not all of it is used here
mod tls;
mod token_rotation;
mod tokens;

use std::collections::BTreeMap;

use stopover::config::{self, BaseDirectoryConfig};
use stopover::runtime::Runtime;
use stopover::storage::Storage;
use stopover::store;

/// A base directory with these options.
fn base(uri: &str, options: &[(&str, &str)]) -> BaseDirectoryConfig {
    let options = options.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    BaseDirectoryConfig {
        uri: uri.into(),
        name: "tried".into(),
        options: options.collect::<BTreeMap<_, _>>(),
    }
}

/// What a probe finds wrong with a base directory; nothing if it works.
async fn fault(base: BaseDirectoryConfig) -> Option<String> {
    let storage = Storage::open(&[base], &Runtime::seeded(7)).unwrap();
    let status = storage.probe().await.remove(0);
    assert_eq!(status.healthy, status.error.is_none());
    status.error
}
