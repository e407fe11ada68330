//! Understanding with the kernel's own symbols.

use std::time::Instant;

use stalltop_model::Reading;
use stalltop_model::sample::Stall;
use stalltop_probes::wire::stall::kind;
use stalltop_probes::{SAMPLES_PER_SECOND, own_tgid};

use super::attribute::{Context, Evidence, attribute};
use super::kallsyms::Symbols;
use super::merge::merge;
use super::threshold::Thresholds;
use super::watch::{Seen, Understand};

/// Names culprits by `/proc/kallsyms`, asked for at the start.
pub(super) struct Names {
    symbols: Symbols,
    context: Context,
    thresholds: Thresholds,
}

impl Names {
    /// `tick_ns` is the time between two ticks of the scheduler.
    pub(super) fn new(symbols: Symbols, tick_ns: u64, thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            symbols,
            context: Context {
                tick_ns,
                sampler_ns: 1_000_000_000 / SAMPLES_PER_SECOND,
                // Events have the kernel's number, which in a PID namespace of its own is another:
                // there number 1 is this process to itself, and the host's init to the kernel.
                own_tgid: own_tgid().unwrap_or_else(|_| std::process::id()),
            },
        }
    }
}

impl Understand for Names {
    fn is_ready(&mut self) -> bool {
        !self.symbols.poll(Instant::now())
    }

    fn symbols(&self) -> &Reading<()> {
        self.symbols.state()
    }

    fn understand(&mut self, group: &[Seen], out: &mut Vec<Stall>) {
        let told = group.iter().filter(|seen| !is_told_otherwise(seen, group));
        let told = told.filter_map(|seen| {
            let evidence = Evidence {
                event: &seen.event,
                samples: &seen.window,
                drained: seen.drained.as_ref(),
            };
            let mut told = attribute(evidence, &mut self.symbols, &self.context)?;
            told.stall.lost = told.stall.lost.max(seen.lost);
            Some(told)
        });
        let first = out.len();
        merge(told.collect(), out);
        let mut at = 0;
        out.retain(|stall| {
            at += 1;
            at <= first || may_count(stall, &self.thresholds)
        });
    }
}

/// Whether another event tells of the same: a real-time task that kept the CPU although it was asked to
/// leave it, for half of the time or more, is told as that.
fn is_told_otherwise(seen: &Seen, group: &[Seen]) -> bool {
    let event = &seen.event;
    event.kind == kind::REAL_TIME
        && group.iter().any(|other| {
            let other = &other.event;
            let from = other.start_ns.max(event.start_ns);
            let both = other.end_ns.min(event.end_ns).saturating_sub(from);
            (other.kind, other.cpu) == (kind::RESCHED, event.cpu)
                && other.pid_tgid == event.pid_tgid
                && both >= event.end_ns.saturating_sub(event.start_ns) / 2
        })
}

/// Whether a stall may have been as long as its threshold. The programs tell of what may have been,
/// as far as they know; the samples narrow it down, sometimes to less than that. What may still
/// have been is told, with its best estimate, which may be less.
fn may_count(stall: &Stall, thresholds: &Thresholds) -> bool {
    stall.most_ns >= thresholds.ns(stall.kind) || !stall.victims.is_empty()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stalltop_model::sample::StallKind;

    use super::super::made::event;
    use super::super::threshold::{Ask, Asked};
    use super::*;

    #[test]
    fn a_real_time_task_that_does_not_yield_is_told_once() {
        let seen = |kind, cpu, from_ms, to_ms| Seen {
            event: event(kind, cpu, from_ms, to_ms),
            drained: None,
            window: Vec::new(),
            lost: 0,
        };
        let mut group = vec![
            seen(kind::REAL_TIME, 1, 100, 300),
            seen(kind::RESCHED, 1, 200, 300),
            seen(kind::HANDLER, 1, 100, 300),
            seen(kind::RESCHED, 0, 100, 300),
        ];
        let told = |group: &[Seen]| {
            let twice = group.iter().map(|seen| is_told_otherwise(seen, group));
            twice.collect::<Vec<_>>()
        };
        assert_eq!(told(&group), [true, false, false, false]);
        group[1].event.start_ns += 1;
        assert_eq!(told(&group), [false; 4]);
        group[1].event.start_ns -= 1;
        group[1].event.pid_tgid += 1;
        assert_eq!(told(&group), [false; 4]);
    }

    #[test]
    fn what_was_certainly_shorter_is_no_stall() {
        const MS: u64 = 1_000_000;
        let mut asked = Asked {
            all: Some(Ask::From(Duration::from_millis(10))),
            ..Asked::default()
        };
        asked.kinds[StallKind::NoReschedule as usize] = Some(Ask::From(Duration::from_millis(20)));
        let thresholds = Thresholds::choose(&asked, &Reading::Value(false));
        let counts = |kind, most_ms: u64, victims: &[u32]| {
            let stall = Stall {
                kind,
                delay_ns: most_ms * MS / 2,
                most_ns: most_ms * MS,
                victims: victims.to_vec(),
                ..Stall::default()
            };
            may_count(&stall, &thresholds)
        };
        assert!(counts(StallKind::InterruptsOff, 10, &[]));
        assert!(!counts(StallKind::InterruptsOff, 9, &[]));
        assert!(!counts(StallKind::NoReschedule, 19, &[]));
        // Others stalled for as long as it takes because of it.
        assert!(counts(StallKind::InterruptsOff, 9, &[3]));
    }
}
