//! Every program of the host, window by window.

use std::collections::BTreeMap;

use stalltop_model::sample::ProgramCost;
use stalltop_model::{Reading, Reason};
use stalltop_probes::sys::info::ProgramCounters;

use super::series::{Seen, Series};

/// A program's counters at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// `CLOCK_BOOTTIME`.
    pub(super) at_ns: u64,
    pub(super) counters: ProgramCounters,
}

impl Read {
    /// Whether both are of the same program: ids are given out anew once they run out.
    fn is_same(&self, other: &Self) -> bool {
        let identity = |r: &Self| (r.counters.id, r.counters.load_time_ns, r.counters.tag);
        identity(self) == identity(other)
    }
}

/// How long a window was for a program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Span {
    /// Statistics were on for this long, ns; counters stood still before and after.
    Window(u64),
    /// They are always on: it is the time between the two readings.
    BetweenReads,
}

/// What is known of one program.
#[derive(Debug)]
pub(super) struct Program {
    last: Read,
    /// The reading that ended the last window, or the first one.
    missed_at: Read,
    windows: u32,
    series: Series,
    misses_per_s: Reading<f64>,
    /// Ids of its maps, once asked for.
    pub(super) maps: Option<Vec<u32>>,
}

/// All programs, by id.
#[derive(Debug, Default)]
pub(super) struct Programs(pub(super) BTreeMap<u32, Program>);

impl Programs {
    /// Forgets programs that are not among `ids`, which ascend.
    pub(super) fn keep(&mut self, ids: &[u32]) {
        self.0.retain(|id, _| ids.binary_search(id).is_ok());
    }

    /// Takes a reading that begins a window, or is the first of a program.
    pub(super) fn begin(&mut self, read: Read) {
        match self.0.get_mut(&read.counters.id) {
            Some(program) if program.last.is_same(&read) => {
                program.last = read;
            }
            _ => {
                self.0.insert(read.counters.id, Program::new(read));
            }
        }
    }

    /// Takes the reading that ends a window; `busy` is the number of CPUs busy in it. A program
    /// that came since the window began is left for the next one.
    pub(super) fn end(&mut self, read: Read, span: Span, busy: f64) {
        let Some(program) = self.0.get_mut(&read.counters.id) else {
            self.begin(read);
            return;
        };
        let before = program.last.counters;
        let back = read.counters.run_cnt < before.run_cnt
            || read.counters.run_time_ns < before.run_time_ns;
        if !program.last.is_same(&read) || back {
            *program = Program::new(read);
            return;
        }
        let window_ns = match span {
            Span::Window(ns) => ns,
            Span::BetweenReads => read.at_ns.saturating_sub(program.last.at_ns),
        };
        program.misses(&read);
        program.last = read;
        if window_ns == 0 {
            return;
        }
        program.windows = program.windows.saturating_add(1);
        program.series.push(Seen {
            at_ns: read.at_ns,
            window_ns,
            runs: read.counters.run_cnt - before.run_cnt,
            run_ns: read.counters.run_time_ns - before.run_time_ns,
            busy,
        });
    }

    /// The host was changed: what comes now is not to be mixed with what was.
    pub(super) fn restart(&mut self) {
        for program in self.0.values_mut() {
            program.series.restart();
        }
    }

    /// What each costs; those that were in no window yet are left out.
    pub(super) fn costs(&self) -> Vec<ProgramCost> {
        let looked_at = self.0.iter().filter(|(_, p)| p.windows > 0);
        looked_at.map(|(id, p)| p.cost(*id)).collect()
    }
}

impl Program {
    fn new(read: Read) -> Self {
        Self {
            last: read,
            missed_at: read,
            windows: 0,
            series: Series::default(),
            misses_per_s: Reading::Off(Reason::Starting),
            maps: None,
        }
    }

    /// Misses are counted all the time, statistics or not: over the time since the window before.
    fn misses(&mut self, read: &Read) {
        let from = std::mem::replace(&mut self.missed_at, *read);
        let time = read.at_ns.saturating_sub(from.at_ns);
        let (before, now) = (
            from.counters.recursion_misses,
            read.counters.recursion_misses,
        );
        self.misses_per_s = match (before, now) {
            (Some(_), Some(_)) if time == 0 => return,
            (Some(before), Some(now)) => {
                Reading::Value(now.saturating_sub(before) as f64 * 1e9 / time as f64)
            }
            _ => Reading::Off(Reason::KernelTooOld {
                need: "5.12".into(),
                have: "an older one".into(),
            }),
        };
    }

    /// How many maps it uses, by its newest reading.
    pub(super) fn map_count(&self) -> usize {
        self.last.counters.maps as usize
    }

    fn cost(&self, id: u32) -> ProgramCost {
        let figures = self.series.figures();
        let of = |deviation: Option<f64>| {
            deviation.map_or(Reading::Off(Reason::Starting), Reading::Value)
        };
        let never = || Reason::NotSampled {
            what: "a run of this program".into(),
        };
        let ns = figures.ns_per_run;
        ProgramCost {
            id,
            windows: self.windows,
            runs_per_s: figures.runs_per_s.mean,
            // A program that does not run is kept no windows of: it does not vary.
            runs_deviation: match figures.runs_per_s {
                spread if spread.mean == 0.0 && self.windows > 1 => Reading::Value(0.0),
                spread => of(spread.deviation),
            },
            ns_per_run: ns.map_or_else(|| Reading::Off(never()), |ns| Reading::Value(ns.mean)),
            ns_deviation: ns.map_or_else(|| Reading::Off(never()), |ns| of(ns.deviation)),
            share: figures.share,
            misses_per_s: self.misses_per_s.clone(),
            growth: self.series.growth(),
        }
    }
}
