//! One sink: the state machine of one attempt of one task. Synchronous, no I/O.
//!
//! Open → Finishing → Finished, or Open → Aborted, or (Open, Finishing) → Failed. Invariant: what
//! was answered once stays true: a decided sink never changes again.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Appended, Claim, IngestError};
use crate::catalog::Totals;
use crate::crc::Checksum;
use crate::id::{BaseName, SinkId};
use crate::segment::frame::VerifiedBatch;

/// Result of an upload that others wait for: where the segment lies, or why it does not.
pub type Uploaded = Option<Result<BaseName, Arc<str>>>;

/// An earlier segment that holds blocks of a sink.
#[derive(Debug, Clone)]
pub struct UploadSlot {
    /// Its sequence number.
    pub sequence: u64,
    /// Where it ended up, once known.
    pub uploaded: watch::Receiver<Uploaded>,
}

/// Where a sink stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkState {
    /// Takes pages.
    Open,
    /// Asked to finish, not yet decided.
    Finishing,
    /// Durable and decided.
    Finished,
    /// Dropped.
    Aborted,
    /// Its bytes could not be written.
    Failed(Arc<str>),
}

/// A sink of an exchange that this daemon writes.
#[derive(Debug)]
pub struct Sink {
    id: SinkId,
    state: watch::Sender<SinkState>,
    totals: Totals,
    crc: Checksum,
    doubtful: bool,
    /// Segments sealed so far that hold blocks of it, in order.
    pub slots: Vec<UploadSlot>,
}

impl Sink {
    /// A sink that takes pages from now on.
    pub fn open(id: SinkId) -> Self {
        Self {
            id,
            state: watch::Sender::new(SinkState::Open),
            totals: Totals::default(),
            crc: Checksum::default(),
            doubtful: false,
            slots: Vec::new(),
        }
    }

    /// A sink that this daemon never held and refuses from now on.
    pub fn aborted(id: SinkId) -> Self {
        let sink = Self::open(id);
        sink.state.send_replace(SinkState::Aborted);
        sink
    }

    /// Where it stands.
    pub fn state(&self) -> SinkState {
        self.state.borrow().clone()
    }

    /// To wait for a decision.
    pub fn watch(&self) -> watch::Receiver<SinkState> {
        self.state.subscribe()
    }

    /// The put of its commit record failed, which does not mean that it did not take place.
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// Whether it may be committed although it failed.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// What arrived.
    pub fn totals(&self) -> Totals {
        Totals {
            checksum: self.crc.value(),
            ..self.totals
        }
    }

    /// Whether pages may come.
    ///
    /// # Errors
    /// Why not.
    pub fn check_open(&self) -> Result<(), IngestError> {
        let sink = self.id.clone();
        match self.state() {
            SinkState::Open => Ok(()),
            SinkState::Finishing | SinkState::Finished => Err(IngestError::SinkFinished { sink }),
            SinkState::Aborted => Err(IngestError::SinkAborted { sink }),
            SinkState::Failed(reason) => Err(IngestError::SinkFailed { sink, reason }),
        }
    }

    /// Counts a batch in, or tells that it was taken before. The caller keeps its runs if not.
    ///
    /// # Errors
    /// A missing batch, or a sink that takes none.
    pub fn append(
        &mut self,
        number: Option<u32>,
        batch: &VerifiedBatch,
    ) -> Result<Appended, IngestError> {
        let next = self.totals.batches;
        let given = number.map_or(next, u64::from);
        let repeated = Appended {
            batch: given as u32,
            next,
            repeated: true,
        };
        if given < next && !matches!(self.state(), SinkState::Aborted | SinkState::Failed(_)) {
            return Ok(repeated);
        }
        self.check_open()?;
        if given > next || next > u64::from(u32::MAX) {
            let (sink, given) = (self.id.clone(), given as u32);
            return Err(IngestError::BatchOutOfOrder {
                sink,
                given,
                expected: next,
            });
        }
        self.totals.batches += 1;
        self.totals.pages += batch.pages;
        self.totals.bytes += batch.page_bytes;
        batch.runs.iter().for_each(|run| self.crc.update(&run.crcs));
        Ok(Appended {
            batch: given as u32,
            next: next + 1,
            repeated: false,
        })
    }

    /// Asks it to finish. `true` if it was open until now, `false` if that was asked before.
    ///
    /// # Errors
    /// Counts that are not what arrived, or a sink that cannot finish any more.
    pub fn finish(&mut self, claim: Option<Claim>) -> Result<bool, IngestError> {
        let sink = self.id.clone();
        match self.state() {
            SinkState::Aborted => return Err(IngestError::SinkAborted { sink }),
            SinkState::Failed(reason) => return Err(IngestError::SinkFailed { sink, reason }),
            SinkState::Open | SinkState::Finishing | SinkState::Finished => {}
        }
        check_claim(&self.id, claim, self.totals())?;
        let first = self.state() == SinkState::Open;
        if first {
            self.state.send_replace(SinkState::Finishing);
        }
        Ok(first)
    }

    /// Drops it if it is open; `true` if it was.
    pub fn abort(&mut self) -> bool {
        let open = self.state() == SinkState::Open;
        if open {
            self.decide(SinkState::Aborted);
        }
        open
    }

    /// Decides it, unless it was decided before; `true` if this decided it.
    pub fn decide(&mut self, to: SinkState) -> bool {
        let undecided = matches!(self.state(), SinkState::Open | SinkState::Finishing);
        if undecided {
            self.slots = Vec::new();
            self.state.send_replace(to);
        }
        undecided
    }
}

/// Compares what a client says it sent with what is held.
///
/// # Errors
/// [`IngestError::CountMismatch`].
pub fn check_claim(sink: &SinkId, claim: Option<Claim>, held: Totals) -> Result<(), IngestError> {
    let Some(claim) = claim else { return Ok(()) };
    let same = claim.batches == held.batches
        && claim.pages == held.pages
        && claim.bytes == held.bytes
        && claim.checksum.is_none_or(|crc| crc == held.checksum);
    if same {
        Ok(())
    } else {
        Err(IngestError::CountMismatch {
            sink: sink.clone(),
            claim,
            held,
        })
    }
}
