//! Object stores, through the crate `object_store`: S3, Google Cloud Storage, Azure, and memory.
//!
//! Does: open the clients of the clouds, translate operations, keys and errors, fail requests that
//! make no progress. Does not: retry (`retry`, `storage`). Invariant: no error or log line that
//! leaves here holds a secret that was configured or issued.

mod advice;
mod answers;
pub mod az;
mod backend;
mod bucket_settings;
mod causes;
pub mod client;
mod client_messages;
mod conditional;
mod deleting;
mod entity_tag;
mod error;
mod exchange;
mod form;
mod google_file;
pub mod gs;
mod guard;
pub mod issued;
mod issuer_advice;
mod known;
mod pod;
pub mod progress;
pub mod redact;
mod remedy;
mod renewed;
mod renewing;
mod role;
pub mod s3;
mod sas;
mod tls;
mod token_file;
mod versions;

pub use answers::Seen;
pub use backend::ObjectBackend;
