//! Which kinds of stalls can be seen on this host, from how our programs fare.

use stalltop_model::sample::StallKind;
use stalltop_model::{Reading, Reason};
use stalltop_probes::Health;

use super::threshold::Thresholds;
use crate::cores::why;
use crate::env::Env;

/// The programs that each kind needs, in the order of [`StallKind::ALL`]. A late tick and the
/// flag of a task that should go are both seen by the tick's hook.
const PROGRAMS: [&[&str]; StallKind::ALL.len()] = [
    &["softirq_raise", "softirq_entry"],
    &["softirq_entry", "softirq_exit"],
    &["sched_switch", "softirq_raise"],
    &["hrtimer_expire_entry"],
    &["hrtimer_expire_entry", "sched_switch"],
    &["sched_switch"],
];

/// From when on each kind is a stall, or why it is not watched.
pub(crate) fn watched(
    env: &Env,
    health: &[Health],
    thresholds: &Thresholds,
) -> [Reading<u64>; StallKind::ALL.len()] {
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
pub(crate) fn none(thresholds: &Thresholds, why: &Reason) -> [Reading<u64>; StallKind::ALL.len()] {
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
        StallKind::RealTime => "a task waited while real-time tasks kept its CPU",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stalltop_probes::{Failure, PROGRAMS, Step};

    use super::super::threshold::{Ask, Asked};
    use super::*;

    fn health(missing: &str) -> Vec<Health> {
        let attached = |name: &str| match name == missing {
            false => Ok(7),
            true => Err(Failure {
                step: Step::Btf,
                errno: Some(2),
                detail: String::new(),
            }),
        };
        let rows = PROGRAMS.iter();
        rows.map(|spec| Health {
            spec,
            attached: attached(spec.name),
            partial: None,
        })
        .collect()
    }

    fn on(missing: &str, asked: &Asked) -> [Option<u64>; StallKind::ALL.len()] {
        let env = Env::at(tempfile::tempdir().unwrap().path());
        let thresholds = Thresholds::choose(asked, &Reading::Value(false));
        watched(&env, &health(missing), &thresholds).map(|kind| kind.get())
    }

    #[test]
    fn each_kind_needs_its_programs() {
        const MS: Option<u64> = Some(5_000_000);
        let default = Asked::default();
        const LONG: Option<u64> = Some(100_000_000);
        for missing in ["", "sample", "irq_handler_exit"] {
            assert_eq!(on(missing, &default), [MS, MS, MS, MS, MS, LONG]);
        }
        let no_switch = on("sched_switch", &default);
        assert_eq!(no_switch, [MS, MS, None, MS, None, None]);
        let no_tick = on("hrtimer_expire_entry", &default);
        assert_eq!(no_tick, [MS, MS, MS, None, None, LONG]);
        // What the tick and switches see does not depend on softirqs.
        let no_raise = on("softirq_raise", &default);
        assert_eq!(no_raise, [None, MS, None, MS, MS, LONG]);
    }

    #[test]
    fn what_was_switched_off_says_so_whatever_is_missing() {
        let mut asked = Asked {
            all: Some(Ask::Off),
            words: "--stall off,handler=7ms".into(),
            ..Asked::default()
        };
        asked.kinds[1] = Some(Ask::From(Duration::from_millis(7)));
        let handler = Some(7_000_000);
        assert_eq!(on("", &asked), [None, handler, None, None, None, None]);
        let thresholds = Thresholds::choose(&asked, &Reading::Value(false));
        let env = Env::at(tempfile::tempdir().unwrap().path());
        let kinds = watched(&env, &health("softirq_exit"), &thresholds);
        let why = kinds.map(|kind| kind.reason().cloned());
        assert!(matches!(why[0], Some(Reason::SwitchedOff { .. })));
        assert_eq!(why[1], Some(Reason::NoBtf));
    }
}
