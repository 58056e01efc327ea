//! The number of concurrent large puts to one store. Pure.
//!
//! Does: halve the number when a put times out, raise it slowly while puts succeed. Does not: queue
//! puts (`limit`). Invariant: the number is between one and its upper bound, and puts that were
//! started together halve it once, however many of them time out.

/// The number of large puts at a time.
#[derive(Debug, Clone)]
pub(super) struct UploadWindow {
    most: u32,
    size: u32,
    /// Puts that succeeded since the size last changed.
    succeeded: u32,
    /// Counts the reductions.
    epoch: u32,
}

/// When a put was started, as far as the window cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Started(u32);

impl UploadWindow {
    /// A window that begins at its upper bound, at least one.
    pub(super) fn new(most: u32) -> Self {
        let most = most.max(1);
        Self {
            most,
            size: most,
            succeeded: 0,
            epoch: 0,
        }
    }

    /// Puts at a time.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// A put starts.
    pub(super) fn start(&self) -> Started {
        Started(self.epoch)
    }

    /// A put succeeded: the window grows by one after as many successes as it has places.
    pub(super) fn succeed(&mut self) {
        if self.size == self.most {
            return;
        }
        self.succeeded += 1;
        if self.succeeded >= self.size {
            (self.size, self.succeeded) = (self.size + 1, 0);
        }
    }

    /// Records that a put timed out while `in_flight` puts, including itself, shared the store:
    /// halves the window, unless the put was started before the last reduction.
    pub(super) fn time_out(&mut self, started: Started, in_flight: u32) {
        if started != self.start() {
            return;
        }
        self.size = (in_flight.min(self.size) / 2).max(1);
        self.succeeded = 0;
        self.epoch = self.epoch.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_that_time_out_together_halve_the_window_once() {
        let mut window = UploadWindow::new(64);
        let together: Vec<Started> = (0..4).map(|_| window.start()).collect();
        for (n, started) in (0..).zip(together) {
            window.time_out(started, 4 - n);
        }
        assert_eq!(window.size(), 2, "four shared the store");
        let later = window.start();
        window.time_out(later, 2);
        assert_eq!(window.size(), 1);
        let alone = window.start();
        window.time_out(alone, 1);
        assert_eq!(window.size(), 1, "never none");
    }

    #[test]
    fn the_window_grows_by_one_for_each_round_of_successes_up_to_its_bound() {
        let mut window = UploadWindow::new(4);
        let started = window.start();
        window.time_out(started, 2);
        let mut sizes = Vec::new();
        for _ in 0..8 {
            window.succeed();
            sizes.push(window.size());
        }
        assert_eq!(sizes, [2, 2, 3, 3, 3, 4, 4, 4]);
    }

    #[test]
    fn a_window_of_none_still_permits_one() {
        assert_eq!(UploadWindow::new(0).size(), 1);
    }
}
