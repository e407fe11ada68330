//! Stalls of several CPUs with one cause become one row.
//!
//! A CPU whose task waits for a lock stalls as well, but it is a victim. Its stall is merged
//! into the one of the CPU that held the lock, where the evidence names it: they overlap by
//! most of the victim's length, and end together, since the victim goes on when the holder lets
//! go. Everything else stays apart.

use stalltop_model::Reading;
use stalltop_model::sample::{Culprit, Pause, Stall};

use super::attribute::Told;

/// How much later than its holder a victim that was seen waiting may end, ns: it still has to
/// do what it wanted the lock for.
const AFTER: u64 = 2_000_000;
/// The same where waiting is only suspected, or the places where they took it differ.
const AT_ONCE: u64 = 300_000;
/// The same where both are so. Measured on readers of /proc/pagetypeinfo, which hold the lock of
/// a zone, and on who allocated pages meanwhile: most ended 1 to 71 us later. By chance one in a
/// hundred that overlap would.
const NEXT: u64 = 100_000;
/// How much earlier the clocks of two CPUs and the taking of a sample may make it look, ns.
const EARLIER: u64 = 100_000;

/// Makes rows of stalls that overlap each other, in their order: each is one, but those that
/// waited for exactly one other.
pub fn merge(told: Vec<Told>, out: &mut Vec<Stall>) {
    let holders: Vec<Option<usize>> = (0..told.len()).map(|at| holder_of(at, &told)).collect();
    let mut victims: Vec<Vec<u32>> = vec![Vec::new(); told.len()];
    for (victim, holder) in holders.iter().enumerate() {
        if let Some(holder) = holder {
            victims[*holder].push(told[victim].stall.cpu);
        }
    }
    let rows = told.into_iter().zip(holders).zip(victims);
    out.extend(rows.filter_map(|((told, holder), mut victims)| {
        if holder.is_some() {
            return None;
        }
        let mut stall = told.stall;
        victims.sort_unstable();
        victims.dedup();
        stall.victims = victims;
        Some(stall)
    }));
}

/// The one stall that explains why the one at `victim` waited, if exactly one does, and did not
/// wait itself.
fn holder_of(victim: usize, told: &[Told]) -> Option<usize> {
    let explains = |victim: usize| {
        let mut holders = (0..told.len()).filter(move |at| is_victim_of(&told[victim], &told[*at]));
        let holder = holders.next()?;
        holders.next().is_none().then_some(holder)
    };
    let holder = explains(victim)?;
    explains(holder).is_none().then_some(holder)
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
        (false, false) => NEXT,
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
