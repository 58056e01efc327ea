#!/usr/bin/env bash
# Makes a crate of the pure files alone, with their tests, so that a mutant costs seconds instead of a
# build of the daemon. Used by tests/mutants.sh --pure.
#
#   tests/lib/pure_crate.sh FOLDER
#
# The files keep their paths. What they need of the rest is declared here: errors of stores and of
# footers, which no pure test makes.

# shellcheck source=tests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

FILES="crc.rs id.rs human.rs segment fair catalog/error.rs catalog/handle.rs catalog/plan.rs catalog/plan
    catalog/prefetch_schedule.rs read/planner.rs read/density.rs ingest/seal_policy.rs ingest/overhead.rs
    ingest/commit_queue.rs exchange/descriptor.rs exchange/marker.rs memory cache/lru.rs
    storage/checked_text.rs storage/identity.rs storage/seals.rs storage/placement.rs
    storage/known_sets.rs storage/stored_marker.rs storage/membership.rs storage/roster.rs
    storage/health.rs storage/foreign.rs store/hash.rs store/keys.rs store/latency.rs
    store/upload_window.rs gc/lease_tracker.rs runtime.rs"

crate=$1
rm -rf "$crate/src" "$crate/tests"
mkdir -p "$crate/src" "$crate/tests" "$crate/.cargo"
for file in $FILES; do
    mkdir -p "$crate/src/$(dirname "$file")"
    cp -a "$ROOT/src/$file" "$crate/src/$(dirname "$file")/"
done
cp -a "$ROOT/tests/golden" "$crate/tests/"
cp "$ROOT/.cargo/mutants.toml" "$crate/.cargo/"
# The versions of the daemon.
cp "$ROOT/Cargo.lock" "$crate/"

# shellcheck disable=SC2016
sed 's/^        //' >"$crate/Cargo.toml" <<'MANIFEST'
        [package]
        name = "pure"
        version = "0.0.0"
        edition = "2024"
        publish = false

        [lib]
        name = "stopover"
        doctest = false

        [dependencies]
        aws-lc-rs = { version = "1", default-features = false, features = ["aws-lc-sys"] }
        base64 = "0.22"
        bytes = "1"
        bytesize = "2"
        crc-fast = { version = "1", default-features = false, features = ["std"] }
        futures = "0.3"
        humantime = "2"
        lru = "0.18.2"
        parking_lot = "0.12"
        serde = { version = "1", features = ["derive"] }
        serde_json = "1"
        subtle = "2"
        thiserror = "2"
        tokio = { version = "1", features = ["macros", "rt-multi-thread", "sync", "test-util", "time"] }
        tokio-util = { version = "0.7", features = ["rt"] }
        uuid = { version = "1", features = ["v4"] }

        [dev-dependencies]
        proptest = "1"
        tempfile = "3"

        [profile.dev.package."*"]
        opt-level = 1

        [workspace]
MANIFEST

sed 's/^        //' >"$crate/src/lib.rs" <<'LIB'
        #![allow(dead_code, missing_docs, unused_imports)]

        pub mod crc;
        pub mod id;
        pub mod human;
        pub mod fair;
        pub mod memory;
        pub mod runtime;
        pub mod segment;

        pub mod cache {
            mod lru;
            pub mod footers {
                #[derive(Debug, Clone, thiserror::Error)]
                pub enum FooterError {
                    #[error(transparent)]
                    Storage(crate::storage::StorageError),
                    #[error("damaged")]
                    Damaged,
                }
            }
        }

        pub mod catalog {
            pub mod error;
            pub mod handle;
            pub mod plan;
            mod prefetch_schedule;
            pub use self::error::CatalogError;
        }

        pub mod exchange {
            pub mod descriptor;
            pub mod marker;
        }

        pub mod gc {
            pub mod lease_tracker;
        }

        pub mod ingest {
            pub mod commit_queue;
            pub mod overhead;
            pub mod seal_policy;
        }

        pub mod read {
            mod density;
            mod planner;
        }

        pub mod storage {
            mod checked_text;
            mod foreign;
            mod health;
            pub mod identity;
            mod known_sets;
            pub mod membership;
            mod placement;
            mod roster;
            pub mod seals;
            mod stored_marker;

            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum StoreErrorKind {
                NotFound,
                Unavailable,
                Refused,
                Corrupt,
            }

            #[derive(Debug, Clone, thiserror::Error)]
            #[error("{0:?}")]
            pub struct StorageError(StoreErrorKind);

            impl StorageError {
                pub fn kind(&self) -> StoreErrorKind {
                    self.0
                }
            }
        }

        pub mod store {
            mod hash;
            pub mod keys;
            mod latency;
            mod upload_window;
            pub use self::hash::stable_hash;
        }
LIB
