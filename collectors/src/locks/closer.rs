//! When the 1 kHz sampler looks at what CPUs do in locks, and where.
//!
//! The scheduler's tick alone gives 250 samples a second of a busy CPU, and what is in a lock for a
//! fiftieth of the time shows in five of them. So for [`BURST`] the sampler looks closer while a
//! person looks at locks, or where the ticks suspect one; never all the time, as its interrupt is
//! what costs (`stalls::sampling`). Samples of different rates are not added up: where more CPUs are
//! busy than it may run on, it only helps if its interrupts are not maskable, and is not asked for
//! again where they are.

use std::time::Duration;

use stalltop_model::sample::LockShare;

use crate::stalls::{AT_ONCE, CloserLook};

/// For how long at a time.
const BURST: Duration = Duration::from_secs(10);
/// From one end to the next beginning while a person looks.
const REST: Duration = Duration::from_secs(20);
/// The same while nobody does: 4 CPUs at 2 % each, a thirty-second of the time, is 0.25 % of one.
const REST_UNWATCHED: Duration = Duration::from_secs(310);
/// Samples of a window, in or behind a lock, that are no accident.
const LEAST: u64 = 10;
/// One in so many samples in a lock, and as interrupts came back on, is a suspicion. The latter are
/// one in a hundred on a host that compiles, and one in twenty where `dd` and pipes keep it busy.
const IN_LOCK: u64 = 50;
const SUSPECTED: u64 = 10;

/// Decides.
#[derive(Debug, Default)]
pub(super) struct Closer {
    look: CloserLook,
    /// Whether the sampler's interrupts are maskable, once it has run.
    maskable: Option<bool>,
}

impl Closer {
    /// Where to look closer from now on. `share` is what the newest window shows, `busy` are its
    /// CPUs, the most interesting first.
    pub(super) fn next(
        &mut self,
        now_ns: u64,
        looked_at: bool,
        share: Option<&LockShare>,
        busy: &[u32],
    ) -> CloserLook {
        if now_ns < self.look.until_ns {
            return self.look;
        }
        if self.look.until_ns > 0 && self.maskable.is_none() {
            self.maskable = Some(!share.is_some_and(|share| share.nmi));
        }
        let rest = if looked_at { REST } else { REST_UNWATCHED };
        let rested = self.look.until_ns == 0 || now_ns >= self.look.until_ns + ns(rest);
        let suspicion = share.is_some_and(suspicion);
        let useful = busy.len() <= AT_ONCE || self.maskable != Some(true);
        if rested && useful && !busy.is_empty() && (looked_at || suspicion) {
            let mut cpus = [None; AT_ONCE];
            for (at, cpu) in cpus.iter_mut().zip(busy) {
                *at = Some(*cpu);
            }
            let until_ns = now_ns + ns(BURST);
            self.look = CloserLook { cpus, until_ns };
        }
        self.look
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn suspicion(share: &LockShare) -> bool {
    let one_in = |part: u64, most: u64| part >= LEAST && part.saturating_mul(most) >= share.samples;
    one_in(share.in_lock, IN_LOCK) || one_in(share.suspected, SUSPECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn share(samples: u64, in_lock: u64, suspected: u64) -> LockShare {
        LockShare {
            samples,
            in_lock,
            suspected,
            ..LockShare::default()
        }
    }

    fn runs(closer: &mut Closer, at_s: u64, looked_at: bool, share: &LockShare) -> bool {
        let at_ns = at_s * SECOND;
        closer.next(at_ns, looked_at, Some(share), &[3, 1]).until_ns > at_ns
    }

    #[test]
    fn a_quiet_host_is_never_looked_at_closer() {
        let mut closer = Closer::default();
        for (at, quiet) in [(1, share(500, 9, 0)), (2, share(500, 9, 49))] {
            assert!(!runs(&mut closer, at, false, &quiet), "{quiet:?}");
        }
        assert_eq!(
            closer.next(3 * SECOND, true, None, &[]),
            CloserLook::default()
        );
    }

    #[test]
    fn a_suspicion_is_looked_at_once_in_a_while_and_for_a_person_more_often() {
        let mut closer = Closer::default();
        let storm = share(500, 100, 0);
        let mut seconds = 0;
        for at in 100..740 {
            seconds += u64::from(runs(&mut closer, at, false, &storm));
        }
        assert_eq!(seconds, 20);
        let mut closer = Closer::default();
        let calm = share(500, 0, 0);
        let looked: Vec<u64> = (1..60)
            .filter(|at| runs(&mut closer, *at, true, &calm))
            .collect();
        let expected: Vec<u64> = (1..11).chain(31..41).collect();
        assert_eq!(looked, expected);
        assert_eq!(closer.look.cpus, [Some(3), Some(1), None, None]);
    }

    #[test]
    fn more_cpus_than_it_runs_on_need_interrupts_that_are_not_maskable() {
        let busy = [0, 1, 2, 3, 4];
        for (nmi, again) in [(false, false), (true, true)] {
            let mut closer = Closer::default();
            let seen = LockShare {
                nmi,
                ..share(500, 100, 0)
            };
            let first = closer.next(SECOND, true, Some(&seen), &busy);
            assert_eq!(first.cpus, [0, 1, 2, 3].map(Some));
            let later = closer.next(60 * SECOND, true, Some(&seen), &busy);
            assert_eq!(later.until_ns > 60 * SECOND, again);
        }
    }
}
