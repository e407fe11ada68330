//! Which kinds of stalls can be seen on this host, from how our programs fare.

use stalltop_model::sample::StallKind;
use stalltop_model::{Reading, Reason};
use stalltop_probes::Health;

use super::threshold::Thresholds;
use crate::cores::why;
use crate::env::Env;

/// The programs that each kind needs, in the order of [`StallKind::ALL`]. A late tick and the
/// flag of a task that should go are both seen by the tick's hook.
const PROGRAMS: [&[&str]; 5] = [
    &["softirq_raise", "softirq_entry"],
    &["softirq_entry", "softirq_exit"],
    &["sched_switch", "softirq_raise"],
    &["hrtimer_expire_entry"],
    &["hrtimer_expire_entry", "sched_switch"],
];

/// From when on each kind is a stall, or why it is not watched.
pub(crate) fn watched(env: &Env, health: &[Health], thresholds: &Thresholds) -> [Reading<u64>; 5] {
    std::array::from_fn(|kind| {
        let lack = PROGRAMS[kind]
            .iter()
            .find_map(|program| lack(env, health, program));
        match (&thresholds.kinds[kind], lack) {
            // What was switched off is not missing.
            (Reading::Value(_), Some(reason)) => Reading::Off(reason),
            (threshold, _) => threshold.clone(),
        }
    })
}

/// Why a program does not do all that it should.
fn lack(env: &Env, health: &[Health], program: &str) -> Option<Reason> {
    let Some(health) = health.iter().find(|h| h.spec.name == program) else {
        return Some(Reason::NotAsked);
    };
    let failure = match &health.attached {
        Ok(_) => health.partial.as_ref()?,
        Err(failure) => failure,
    };
    Some(why::refused(env, health.spec, failure))
}

/// Nothing is watched, for one reason; what was switched off says so.
pub(crate) fn none(thresholds: &Thresholds, why: &Reason) -> [Reading<u64>; 5] {
    std::array::from_fn(|kind| match &thresholds.kinds[kind] {
        Reading::Value(_) => Reading::Off(why.clone()),
        off => off.clone(),
    })
}

/// What a stall of this kind is, in a few words.
pub(crate) fn means(kind: StallKind) -> &'static str {
    match kind {
        StallKind::SoftirqPending => "a softirq waited: raise to entry",
        StallKind::SoftirqHandler => "a softirq handler ran: entry to exit",
        StallKind::KsoftirqdWaiting => "ksoftirqd waited for the CPU with work pending",
        StallKind::InterruptsOff => "the tick or a sample came late: interrupts off",
        StallKind::NoReschedule => "a task kept the CPU although another was to run",
    }
}
