//! Stalls of several CPUs with one cause become one row.
//!
//! A CPU whose task waits for a lock stalls as well, but it is a victim. Its stall is merged
//! into the one of the CPU that held the lock, where the evidence names it: they overlap by
//! most of the victim's length, and end together, since the victim goes on when the holder lets
//! go. Everything else stays apart.

use std::collections::VecDeque;

use stalltop_model::Reading;
use stalltop_model::sample::{Culprit, Pause, Stall};

use super::attribute::Told;

/// How long a stall is held back for others to be told, ns.
pub const HOLD: u64 = 30_000_000;
/// How much later than its holder a victim that was seen waiting may end, ns: it still has to
/// do what it wanted the lock for.
const AFTER: u64 = 2_000_000;
/// The same where waiting is only suspected.
const AT_ONCE: u64 = 300_000;
/// How much earlier the clocks of two CPUs and the taking of a sample may make it look, ns.
const EARLIER: u64 = 100_000;
/// Most stalls held back; when there are more the oldest goes at once.
const MOST: usize = 256;

/// Stalls that wait for those of other CPUs.
#[derive(Debug, Default)]
pub struct HoldBack {
    held: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    since: u64,
    told: Told,
    /// Whether more than one may have held the lock it waited for: it stays a row, also when
    /// all but one of those are gone from here.
    apart: bool,
}

impl HoldBack {
    /// Takes a stall that was told at `now` (the clock of the events). Gives the oldest one
    /// if there are too many.
    pub fn push(&mut self, now: u64, told: Told) -> Option<Stall> {
        self.held.push_back(Held {
            since: now,
            told,
            apart: false,
        });
        if self.held.len() > MOST {
            return self.first();
        }
        None
    }

    /// The next stall that was held back long enough, its victims merged into it.
    pub fn pop(&mut self, now: u64) -> Option<Stall> {
        self.merge();
        let oldest = self.held.front()?;
        if now.saturating_sub(oldest.since) < HOLD {
            return None;
        }
        self.first()
    }

    /// The next stall, however young: when the watch ends.
    pub fn flush(&mut self) -> Option<Stall> {
        self.merge();
        self.first()
    }

    /// Whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn first(&mut self) -> Option<Stall> {
        self.held.pop_front().map(|held| held.told.stall)
    }

    fn merge(&mut self) {
        let mut at = 0;
        while at < self.held.len() {
            match self.holder_of(at) {
                Some(holder) => {
                    let Some(victim) = self.held.remove(at) else {
                        return;
                    };
                    let victim = victim.told.stall;
                    let holder = if holder > at { holder - 1 } else { holder };
                    let stall = &mut self.held[holder].told.stall;
                    stall.victims.push(victim.cpu);
                    stall.victims.extend(victim.victims);
                    stall.victims.sort_unstable();
                    stall.victims.dedup();
                }
                None => at += 1,
            }
        }
    }

    /// The one stall that explains why the one at `victim` waited, if exactly one does.
    fn holder_of(&mut self, victim: usize) -> Option<usize> {
        let waiting = &self.held[victim];
        if waiting.apart {
            return None;
        }
        let mut holders = (0..self.held.len())
            .filter(|at| *at != victim && is_victim_of(&waiting.told, &self.held[*at].told));
        let holder = holders.next()?;
        if holders.next().is_some() {
            self.held[victim].apart = true;
            return None;
        }
        Some(holder)
    }
}

/// Whether `victim` waited for the lock that `holder` held.
pub fn is_victim_of(victim: &Told, holder: &Told) -> bool {
    let (Some(waiting), Some(holding)) = (culprit(victim), culprit(holder)) else {
        return false;
    };
    let (v, h) = (&victim.stall, &holder.stall);
    if v.cpu == h.cpu || waiting.pid == holding.pid && waiting.pid != 0 {
        return false;
    }
    // A pause of the whole virtual machine ends together as well.
    if v.pause != Pause::Held || h.pause != Pause::Held {
        return false;
    }
    // One that waits holds nothing up by itself; one without a lock has nothing to wait for.
    if holder.waits || holding.lock.is_none() || waiting.lock.is_none() {
        return false;
    }
    let same_site = victim.site.is_some() && victim.site == holder.site;
    let after = match (victim.waits, same_site) {
        (true, true) => AFTER,
        (true, false) => AT_ONCE,
        // Both were only seen letting interrupts in.
        (false, true) => AT_ONCE,
        (false, false) => return false,
    };
    let ends_together = if victim.waits {
        v.at_ns.saturating_add(EARLIER) >= h.at_ns && v.at_ns <= h.at_ns.saturating_add(after)
    } else {
        // The order tells which one held it.
        v.at_ns > h.at_ns && v.at_ns - h.at_ns <= after
    };
    ends_together && overlaps(victim, holder)
}

fn culprit(told: &Told) -> Option<&Culprit> {
    match &told.stall.culprit {
        Reading::Value(culprit) => Some(culprit),
        Reading::Off(_) => None,
    }
}

/// Whether most of the victim's stall lies in the holder's, and it began no earlier, as far as
/// the starts are known.
fn overlaps(victim: &Told, holder: &Told) -> bool {
    let (v, h) = (&victim.stall, &holder.stall);
    let from = victim.start_ns().max(holder.start_ns());
    let to = v.at_ns.min(h.at_ns);
    let shared = to.saturating_sub(from);
    let began_before =
        v.at_ns.saturating_sub(v.least_ns) + EARLIER < h.at_ns.saturating_sub(h.most_ns);
    shared >= v.delay_ns / 4 * 3 && shared > 0 && !began_before
}

#[cfg(test)]
mod tests;
