//! All integration tests, in one program.
#![allow(clippy::disallowed_methods, missing_docs)]

mod process;
mod semantics;
