//! How long one run of each of our own eBPF programs takes. Their runs are counted exactly all the
//! time, by themselves; windows give the time of one.

use std::os::fd::{AsFd, OwnedFd};

use stalltop_model::{Reading, Reason};
use stalltop_probes::Probes;
use stalltop_probes::sys::{ids, info};

/// What the windows say so far of our own programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeCosts {
    /// Time per run, ns, for each program in the order of [`Probes::health`]; 0 for a
    /// program that has not run within a window yet.
    pub ns_per_run: Reading<Vec<u64>>,
    /// Runs that the kernel skipped: a program does not interrupt itself on one CPU
    /// (`recursion_misses`, 5.12+). That is all our programs can lose.
    pub drops: Reading<u64>,
}

/// Our own programs, whose descriptors are kept: they are ours.
#[derive(Debug)]
pub(crate) struct OwnPrograms {
    programs: Vec<Option<OwnedFd>>,
    /// Time and runs when the window began.
    before: Vec<Option<(u64, u64)>>,
    /// Runs and time, each window counting half of the one after it.
    weighed: Vec<(f64, f64)>,
}

impl OwnPrograms {
    /// Opens the attached programs of `probes` a second time.
    pub(crate) fn new(probes: &Probes) -> Self {
        let open = |id: u32| ids::open(ids::Object::Program, id).ok();
        let programs: Vec<_> = probes
            .health()
            .iter()
            .map(|health| health.attached.as_ref().ok().and_then(|id| open(*id)))
            .collect();
        Self {
            before: Vec::new(),
            weighed: vec![(0.0, 0.0); programs.len()],
            programs,
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.programs.iter().all(Option::is_none)
    }

    /// Reads what a window begins with.
    pub(super) fn begin(&mut self) {
        let read = |fd: &Option<OwnedFd>| {
            let counters = info::program_counters(fd.as_ref()?.as_fd()).ok()?;
            Some((counters.run_time_ns, counters.run_cnt))
        };
        self.before.clear();
        self.before.extend(self.programs.iter().map(read));
    }

    /// Reads what it ended with.
    pub(super) fn end(&mut self) -> ProbeCosts {
        let before = std::mem::take(&mut self.before);
        self.begin();
        let windows = before.iter().zip(&self.before);
        for ((before, now), weighed) in windows.zip(&mut self.weighed) {
            let (Some((ns_before, runs_before)), Some((ns, runs))) = (before, now) else {
                continue;
            };
            let runs = runs.saturating_sub(*runs_before);
            if runs > 0 {
                weighed.0 = weighed.0 / 2.0 + runs as f64;
                weighed.1 = weighed.1 / 2.0 + ns.saturating_sub(*ns_before) as f64;
            }
        }
        let per_run = |(runs, ns): &(f64, f64)| {
            if *runs > 0.0 {
                (ns / runs).round() as u64
            } else {
                0
            }
        };
        ProbeCosts {
            ns_per_run: Reading::Value(self.weighed.iter().map(per_run).collect()),
            drops: self.drops(),
        }
    }

    /// No window could be opened.
    pub(super) fn failed(&self, why: Reason) -> ProbeCosts {
        ProbeCosts {
            ns_per_run: Reading::Off(why),
            drops: self.drops(),
        }
    }

    fn drops(&self) -> Reading<u64> {
        let mut sum = 0;
        for fd in self.programs.iter().flatten() {
            match info::program_counters(fd.as_fd()).map(|counters| counters.recursion_misses) {
                Ok(Some(misses)) => sum += misses,
                Ok(None) => {
                    return Reading::Off(Reason::KernelTooOld {
                        need: "5.12".into(),
                        have: "an older one".into(),
                    });
                }
                Err(e) => {
                    return Reading::Off(Reason::Refused {
                        what: "BPF_OBJ_GET_INFO_BY_FD".into(),
                        why: e.to_string().into(),
                    });
                }
            }
        }
        Reading::Value(sum)
    }
}
