//! Where stalls were on the timelines, per CPU.

use std::collections::HashMap;
use std::ops::Range;

use stalltop_model::model::cores::CoresModel;
use stalltop_model::model::stalls::counts;

use crate::pane::Scene;

/// A stall on a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The tick in which it ended.
    pub seq: u64,
    /// How long it took, ns.
    pub ns: u64,
}

/// The stalls of some ticks by CPU number, those of victims included; without paused virtual
/// CPUs and our own. Worked out once a tick: a timeline asks cell by cell.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    by_cpu: HashMap<u32, Vec<Mark>>,
}

impl Marks {
    /// The stalls that ended in some ticks, and in the time that is shown.
    pub(crate) fn of(scene: &Scene<'_>, ticks: &Range<u64>) -> Self {
        let cores = &scene.model.cores;
        let kept = cores.ticks();
        let ticks = ticks.start.max(kept.start)..ticks.end.min(kept.end);
        let Some(first) = cores.time(ticks.start).filter(|_| !ticks.is_empty()) else {
            return Self::default();
        };
        let from = first.at_ns.saturating_sub(first.span_ns);
        let to = cores.time(ticks.end - 1).map_or(0, |t| t.at_ns);
        let mut out = Self::default();
        for stall in scene.model.stalls.between(from, to).filter(|s| counts(s)) {
            let mark = Mark {
                seq: tick_of(cores, &ticks, stall.at_ns),
                ns: stall.delay_ns,
            };
            for cpu in std::iter::once(&stall.cpu).chain(&stall.victims) {
                out.by_cpu.entry(*cpu).or_default().push(mark);
            }
        }
        out
    }

    /// Those of one CPU, oldest first.
    pub(crate) fn cpu(&self, cpu: u32) -> &[Mark] {
        self.by_cpu.get(&cpu).map_or(&[], Vec::as_slice)
    }

    /// How many there are on a CPU in some ticks, and the longest, ns; `None` for none.
    pub(crate) fn count(&self, cpu: u32, ticks: &Range<u64>) -> Option<(u64, u64)> {
        let there = self.cpu(cpu).iter().filter(|m| ticks.contains(&m.seq));
        let (n, worst) = there.fold((0, 0), |(n, worst), m| (n + 1, m.ns.max(worst)));
        (n > 0).then_some((n, worst))
    }
}

/// The first of some ticks that ended at or after a moment.
fn tick_of(cores: &CoresModel, ticks: &Range<u64>, at_ns: u64) -> u64 {
    let (mut low, mut high) = (ticks.start, ticks.end - 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if cores.time(middle).is_some_and(|t| t.at_ns < at_ns) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
