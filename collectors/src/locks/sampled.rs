//! What CPUs do in locks by their samples, read in turns while nobody looks.

use stalltop_model::sample::LockShare;
use stalltop_model::{Reading, Reason};
use stalltop_probes::{Samples, StackSample};

use super::closer::Closer;
use super::names::Code;
use super::share::{Counting, Known};
use crate::host;
use crate::stalls::CloserLook;
use crate::stalls::kallsyms::Symbols;

/// Samples that are looked at in one go while nobody looks, of all CPUs together: 2 % is then told
/// from 4 %.
const UNWATCHED: usize = 600;
/// Of one CPU at the least: fewer would be of one moment.
const LEAST: usize = 8;

/// Reads samples, and counts those of a window.
pub(super) struct Sampled {
    samples: Result<Samples, Reason>,
    known: Known,
    counting: Counting,
    closer: Closer,
    look: CloserLook,
    /// Number of the newest sample of each CPU that was read.
    seen: Vec<u64>,
    turns: Turns,
    buf: Vec<StackSample>,
    tick_hz: Option<u32>,
}

impl Sampled {
    /// `own` is where stalltop's own programs lie.
    pub(super) fn new(samples: Result<Samples, Reason>, own: Code) -> Self {
        let cpus = samples.as_ref().map_or(0, Samples::possible);
        // What was sampled before is not of our first window.
        let newest = |cpu| samples.as_ref().map_or(0, |samples| samples.newest(cpu));
        let mut known = Known::default();
        known.own(own);
        Self {
            seen: (0..cpus).map(newest).collect(),
            samples,
            known,
            counting: Counting::default(),
            closer: Closer::default(),
            look: CloserLook::default(),
            turns: Turns::default(),
            buf: Vec::new(),
            tick_hz: host::tick_hz(),
        }
    }

    /// Whether there are samples at all.
    pub(super) fn is_on(&self) -> bool {
        self.samples.is_ok()
    }

    /// Where the sampler is to look closer, and until when.
    pub(super) fn closer(&self) -> CloserLook {
        self.look
    }

    /// Counts what was sampled since the last time: all while a person looks, else the newest of
    /// each CPU, and of so many CPUs in turns that it is not much.
    pub(super) fn drain(&mut self, looked_at: bool, symbols: &mut Symbols) {
        let Ok(samples) = &mut self.samples else {
            return;
        };
        let (each, cpus) = if looked_at {
            (samples.slots() as usize, self.seen.len())
        } else {
            share_out(self.seen.len())
        };
        let seen = &mut self.seen;
        self.turns.take(seen.len(), cpus, |at, its_turn| {
            let cpu = at as u32;
            let newest = samples.newest(cpu);
            if newest == seen[at] {
                return false;
            }
            if !its_turn {
                // When its turn comes, what it does then is looked at.
                seen[at] = newest;
                return false;
            }
            seen[at] = seen[at].max(newest.saturating_sub(each as u64));
            self.buf.clear();
            samples.newer(cpu, &mut seen[at], &mut self.buf);
            self.counting
                .count(cpu, &self.buf, &mut self.known, symbols);
            true
        });
    }

    /// Ends a window, and decides where to look closer in the next one.
    pub(super) fn finish(&mut self, now_ns: u64, looked_at: bool) -> Reading<LockShare> {
        let busy = self.counting.busy();
        let share: Reading<LockShare> = match &self.samples {
            Ok(_) => Reading::Value(self.counting.finish(self.tick_hz, &self.known)),
            Err(why) => Reading::Off(why.clone()),
        };
        self.look = self.closer.next(now_ns, looked_at, share.value(), &busy);
        share
    }
}

/// Samples of a CPU, and of how many CPUs that have new ones.
fn share_out(cpus: usize) -> (usize, usize) {
    let each = (UNWATCHED / cpus.max(1)).max(LEAST);
    (each, (UNWATCHED / each).max(1))
}

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turns {
    first: usize,
}

impl Turns {
    /// Visits all of `of`, from where it stopped the last time. `visit` is told whether it is that
    /// one's turn and says whether it took it; `most` take one.
    fn take(&mut self, of: usize, most: usize, mut visit: impl FnMut(usize, bool) -> bool) {
        let (mut taken, first) = (0, self.first);
        for at in 0..of {
            let one = (first + at) % of;
            if visit(one, taken < most) {
                taken += 1;
                self.first = (one + 1) % of;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_machine_has_more_samples_to_name_than_a_small_one() {
        assert_eq!(share_out(2), (300, 2));
        assert_eq!(share_out(64), (9, 66));
        assert_eq!(share_out(512), (8, 75));
        for cpus in 1..5_000 {
            let (each, of) = share_out(cpus);
            assert!(each * of.min(cpus) <= UNWATCHED && of > 0, "{cpus}");
        }
        assert_eq!(share_out(0).0, UNWATCHED);
    }

    #[test]
    fn every_cpu_that_works_has_its_turn() {
        let mut turns = Turns::default();
        let mut round = |most, idle: usize| {
            let mut took = Vec::new();
            turns.take(6, most, |one, its_turn| {
                let takes = its_turn && one != idle;
                if takes {
                    took.push(one);
                }
                takes
            });
            took
        };
        assert_eq!(round(4, 6), [0, 1, 2, 3]);
        assert_eq!(round(4, 6), [4, 5, 0, 1]);
        assert_eq!(round(4, 3), [2, 4, 5, 0]);
        assert_eq!(round(6, 6), [1, 2, 3, 4, 5, 0]);
        assert_eq!(round(0, 6), [0; 0]);
        turns.take(0, 4, |_, _| true);
    }
}
