//! Requests to ingest and their results; no behaviour.

/// The counts that a client claims to have sent, to be compared with what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTotals {
    pub batches: u64,
    pub pages: u64,
    /// Page bytes, without frame headers.
    pub bytes: u64,
    /// CRC-32C over the frames' `crc` fields, in the order in which the pages were sent.
    pub checksum: Option<u32>,
}

/// The result of appending a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The number of this batch.
    pub batch: u32,
    /// The number that the next batch must have.
    pub next: u64,
    /// Whether the batch had been appended before; then nothing changed.
    pub repeated: bool,
}

/// The result of an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aborted {
    Aborted,
    /// The attempt had finished before: nothing changed.
    AlreadyFinished,
}
