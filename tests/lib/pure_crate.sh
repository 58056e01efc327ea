#!/usr/bin/env bash
# Makes a crate of the pure files alone, with their tests, so that a mutant costs seconds instead of a
# build of the daemon. Used by tests/mutants.sh --pure.
#
#   tests/lib/pure_crate.sh FOLDER
#
# The files keep their paths. What they need of the rest is declared here: errors of storage and of
# footers, which no pure test makes, spans, which record nothing, and the text of a size.

# shellcheck source=tests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

FILES="crc.rs id.rs human.rs segment fair catalog/error.rs catalog/handle.rs catalog/plan.rs catalog/plan
    catalog/prefetch_schedule.rs read/planner.rs read/density.rs ingest/seal_policy.rs ingest/overhead.rs
    ingest/commit_queue.rs ingest/error.rs ingest/exchange.rs ingest/exchange ingest/sink.rs
    ingest/sink_memory.rs ingest/stored.rs ingest/types.rs ingest/upload_outcome.rs
    exchange/bounds.rs exchange/descriptor.rs exchange/error.rs exchange/marker.rs
    exchange/unfinished.rs memory cache/chunks.rs cache/hot.rs cache/lru.rs
    storage/checked_text.rs storage/digest.rs storage/identity.rs storage/seals.rs
    storage/placement.rs storage/known_sets.rs storage/stored_marker.rs storage/membership.rs
    storage/roster.rs storage/health.rs storage/foreign.rs storage/uncertain.rs store/error.rs
    store/hash.rs store/interface.rs store/keys.rs store/latency.rs store/observed.rs
    store/upload_window.rs gc/handover.rs gc/lease_tracker.rs runtime.rs"

crate=$1
rm -rf "$crate/src" "$crate/tests"
mkdir -p "$crate/src" "$crate/tests" "$crate/.cargo"
for file in $FILES; do
    mkdir -p "$crate/src/$(dirname "$file")"
    cp -a "$ROOT/src/$file" "$crate/src/$(dirname "$file")/"
done
cp -a "$ROOT/tests/golden" "$crate/tests/"
cp "$ROOT/.cargo/mutants.toml" "$crate/.cargo/"
# With the dependencies, features and profiles of the daemon: what was built for it is used again, if
# it was built without debug information.
cp "$ROOT/Cargo.lock" "$crate/"
{
    printf '[package]\nname = "stopover"\nversion = "0.1.0"\nedition = "2024"\npublish = false\n'
    printf '[lib]\ndoctest = false\n[workspace]\n'
    awk '/^\[/ { copied = /^\[(features|dependencies|dev-dependencies|profile)/ } copied' \
        "$ROOT/Cargo.toml"
} >"$crate/Cargo.toml"

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
            pub mod chunks;
            pub mod hot;
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
            pub use crate::segment::footer::Totals;
        }

        pub mod config {
            pub mod units {
                pub fn format_size_like(bytes: u64, _: u64) -> String {
                    format!("{bytes}B")
                }
            }
        }

        pub mod exchange {
            pub mod bounds;
            pub mod descriptor;
            pub mod error;
            pub mod marker;
            pub mod unfinished;
            pub use self::error::ExchangeError;
        }

        pub mod gc {
            pub mod handover;
            pub mod lease_tracker;
        }

        pub mod ingest {
            pub mod commit_queue;
            pub mod error;
            pub mod exchange;
            pub mod overhead;
            pub mod seal_policy;
            pub mod sink;
            pub mod sink_memory;
            pub mod stored;
            pub mod types;
            pub mod upload_outcome;
        }

        pub mod read {
            mod density;
            mod planner;
        }

        pub mod storage {
            mod checked_text;
            mod digest;
            mod foreign;
            mod health;
            pub mod identity;
            mod known_sets;
            pub mod membership;
            mod placement;
            mod roster;
            pub mod seals;
            mod stored_marker;
            mod uncertain;

            pub use self::digest::{
                Digest, DigestEntry, DigestExchanges, DigestMarkers, exchange_hash,
            };
            pub use crate::store::StoreErrorKind;

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
            mod error;
            mod hash;
            mod interface;
            pub mod keys;
            mod latency;
            mod observed;
            mod upload_window;
            pub use self::error::{Remedy, Result, StoreError, StoreErrorKind, if_found};
            pub use self::hash::stable_hash;
            pub use self::interface::{MAX_VERSIONED_SIZE, Precondition, Store};
        }

        pub mod telemetry {
            pub mod traces {
                #[derive(Debug, Default)]
                pub struct Span;
                pub type SpanRef = ();

                impl Span {
                    pub fn child(_: &str) -> Self {
                        Self
                    }

                    pub fn handle(&self) -> SpanRef {}

                    pub fn set(&self, _: &str, _: impl std::fmt::Display) {}

                    pub fn set_number(&self, _: &str, _: u64) {}

                    pub fn fail(&self, _: impl std::fmt::Display) {}
                }
            }
        }
LIB
