//! Counts of what happened: a soak proves nothing if its faults had no effect.

use std::cell::Cell;

/// Counts of one world.
#[derive(Debug, Default)]
pub struct Tally {
    pub exchanges: Cell<u64>,
    pub left_open: Cell<u64>,
    pub attempts: Cell<u64>,
    pub committed: Cell<u64>,
    pub lost: Cell<u64>,
    pub abandoned: Cell<u64>,
    pub aborted: Cell<u64>,
    pub speculative: Cell<u64>,
    pub at_home: Cell<u64>,
    pub plans_from_memory: Cell<u64>,
    pub batches_repeated: Cell<u64>,
    pub batches_accepted_before: Cell<u64>,
    pub finishes_repeated: Cell<u64>,
    pub finishes_elsewhere: Cell<u64>,
    pub reads: Cell<u64>,
    pub reads_resumed: Cell<u64>,
    pub resumed_elsewhere: Cell<u64>,
    pub pages: Cell<u64>,
    pub bytes: Cell<u64>,
    pub retries: Cell<u64>,
    pub late_writes: Cell<u64>,
    pub leases_expired: Cell<u64>,
    pub kills: Cell<u64>,
    pub stops: Cell<u64>,
    pub freezes: Cell<u64>,
    pub store_kills: Cell<u64>,
    pub store_faults: Cell<u64>,
    pub taken_away: Cell<u64>,
    pub cuts: Cell<u64>,
    pub file_times_changed: Cell<u64>,
}

/// Adds one.
pub fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl Tally {
    pub fn retried(&self) {
        count(&self.retries);
    }

    pub fn report(&self, name: &str) {
        let n = |cell: &Cell<u64>| cell.get();
        println!(
            "{name}: {} kill -9 of daemons, {} SIGTERM, {} frozen, {} kill -9 of the S3 server, \
             {} faults of base directories, {} taken away, {} cuts of all connections, {} file \
             times changed",
            n(&self.kills),
            n(&self.stops),
            n(&self.freezes),
            n(&self.store_kills),
            n(&self.store_faults),
            n(&self.taken_away),
            n(&self.cuts),
            n(&self.file_times_changed),
        );
        println!(
            "{name}: {} exchanges ({} never closed), {} attempts: {} committed, {} lost, {} \
             abandoned, {} aborted; {} tasks with two attempts at once; {} small ones at their \
             home, {} plans from memory",
            n(&self.exchanges),
            n(&self.left_open),
            n(&self.attempts),
            n(&self.committed),
            n(&self.lost),
            n(&self.abandoned),
            n(&self.aborted),
            n(&self.speculative),
            n(&self.at_home),
            n(&self.plans_from_memory),
        );
        println!(
            "{name}: {} batches sent again ({} had been accepted), {} finishes sent again, {} \
             answered by another daemon; {} reads, resumed {} times, {} of them at another \
             daemon; {} late writes, {} leases expired",
            n(&self.batches_repeated),
            n(&self.batches_accepted_before),
            n(&self.finishes_repeated),
            n(&self.finishes_elsewhere),
            n(&self.reads),
            n(&self.reads_resumed),
            n(&self.resumed_elsewhere),
            n(&self.late_writes),
            n(&self.leases_expired),
        );
        println!(
            "{name}: {} pages, {} MiB read back, each checked byte for byte; 0 lost, 0 wrong",
            n(&self.pages),
            n(&self.bytes) >> 20,
        );
    }
}
