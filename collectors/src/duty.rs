//! Work that may take a part of one CPU's time, paid for over the time that follows it.

use std::time::{Duration, Instant};

/// Keeps account of work that may take one part in `SHARE` of one CPU's time.
#[derive(Debug, Default)]
pub(crate) struct Duty<const SHARE: u32> {
    /// When all of it is paid for.
    paid: Option<Instant>,
    /// What the last piece of work is to be paid with.
    price: Duration,
}

impl<const SHARE: u32> Duty<SHARE> {
    /// Notes a piece of work that ended, and its CPU time. `most` such pieces are owed at most: who
    /// was forced to more does not wait for it.
    pub(crate) fn took(&mut self, now: Instant, cost: Duration, most: u32) {
        self.price = cost.saturating_mul(SHARE);
        let owed = self.owed(now).min(self.price.saturating_mul(most - 1));
        self.paid = Some(now + owed + self.price);
    }

    /// Whether all is paid for.
    pub(crate) fn is_paid(&self, now: Instant) -> bool {
        self.owed(now).is_zero()
    }

    /// Whether less is owed than `pieces` of work like the last one.
    pub(crate) fn owes_less(&self, now: Instant, pieces: u32) -> bool {
        self.is_paid(now) || self.owed(now) < self.price.saturating_mul(pieces)
    }

    fn owed(&self, now: Instant) -> Duration {
        let paid = self.paid.unwrap_or(now);
        paid.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_paid_for_by_the_time_that_follows() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut duty = Duty::<100>::default();
        assert!(duty.is_paid(at(0)) && duty.owes_less(at(0), 1));
        let cost = Duration::from_millis(50);
        duty.took(at(0), cost, 3);
        assert!(!duty.is_paid(at(4)) && duty.is_paid(at(5)));
        assert!(!duty.owes_less(at(0), 1) && duty.owes_less(at(1), 1));
        for _ in 0..100 {
            duty.took(at(1), cost, 3);
        }
        assert!(!duty.owes_less(at(5), 2), "three are owed at most");
        assert!(duty.owes_less(at(7), 2) && duty.is_paid(at(16)));
    }
}
