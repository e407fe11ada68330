//! From when on a wait is long, so that its stack is always taken.
//!
//! A stack takes about 1 us, a twentieth of the 20 us that are long by default. Where it takes
//! more (an emulated machine: 15 to 60 us), nearly every wait would be long because of the stacks
//! of the others, and watching would change what is watched: there long waits begin later.

/// A long wait is at least so many times as long as what it takes to watch one.
const TIMES: u64 = 20;
/// From here on a wait is long however dear stacks are, ns.
const MOST_NS: u64 = 1_000_000;
/// Rounded up to a multiple of this, ns.
const STEP_NS: u64 = 10_000;

/// From when on a wait is long: only ever raised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Long {
    ns: u64,
    /// What was measured once.
    once: Option<u64>,
}

impl Long {
    pub(super) fn new(ns: u64) -> Self {
        Self { ns, once: None }
    }

    pub(super) fn ns(&self) -> u64 {
        self.ns
    }

    /// Takes in what it was measured to take to watch a wait, ns, stacks included. Gives whether
    /// it should be measured again soon: what is dear is measured twice, as a program that was held
    /// up once is not.
    pub(super) fn measured(&mut self, ns_per_wait: u64) -> bool {
        let wanted = ns_per_wait.saturating_mul(TIMES).min(MOST_NS);
        let wanted = wanted.next_multiple_of(STEP_NS);
        if wanted <= self.ns {
            self.once = None;
            return false;
        }
        match self.once.take() {
            Some(once) => self.ns = once.min(wanted),
            None => self.once = Some(wanted),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_as_expected_changes_nothing() {
        let mut long = Long::new(20_000);
        for ns in [0, 165, 240, 1_000] {
            assert!(!long.measured(ns));
            assert_eq!(long.ns(), 20_000);
        }
    }

    #[test]
    fn dear_stacks_are_taken_of_longer_waits_once_that_is_sure() {
        let mut long = Long::new(20_000);
        assert!(long.measured(13_000));
        assert_eq!(long.ns(), 20_000);
        assert!(long.measured(15_100));
        assert_eq!(long.ns(), 260_000);
        // Without the stacks it costs less, and stays so.
        assert!(!long.measured(2_000));
        assert_eq!(long.ns(), 260_000);
    }

    #[test]
    fn a_program_that_was_held_up_once_is_not_dear() {
        let mut long = Long::new(20_000);
        assert!(long.measured(400_000));
        assert!(!long.measured(240));
        assert!(long.measured(400_000));
        assert!(!long.measured(240));
        assert_eq!(long.ns(), 20_000);
    }

    #[test]
    fn very_long_waits_always_have_a_stack() {
        let mut long = Long::new(20_000);
        assert!(long.measured(u64::MAX) && long.measured(u64::MAX));
        assert_eq!(long.ns(), 1_000_000);
    }
}
