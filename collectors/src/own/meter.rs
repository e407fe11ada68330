//! How long one run of each of our eBPF programs takes, measured in short windows.
//!
//! `BPF_ENABLE_STATS` makes the kernel time every BPF program of the host, at 20 to 30 ns a
//! run, and switching it patches code on all CPUs (0.2 ms). So it is on for a tenth of a
//! second now and then; runs are counted exactly all the time.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use stalltop_model::{Reading, Reason};
use stalltop_probes::Probes;
use stalltop_probes::sys::{ids, info, load};

use crate::cores::why;

/// How long the kernel's statistics stay on.
const WINDOW: Duration = Duration::from_millis(100);
/// Time from the start to each of the first windows, then from one to the next.
const AFTER: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(15),
    Duration::from_secs(60),
];

/// What the windows say so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeCosts {
    /// Time per run, ns, for each program in the order of [`Probes::health`]; 0 for a
    /// program that has not run within a window yet.
    pub ns_per_run: Reading<Vec<u64>>,
    /// Runs that the kernel skipped: a program does not interrupt itself on one CPU
    /// (`recursion_misses`, 5.12+). That is all our programs can lose.
    pub drops: Reading<u64>,
}

/// Measures in windows. Lives on the background thread: a window takes a tenth of a second.
pub struct CostMeter {
    programs: Vec<Option<OwnedFd>>,
    /// Runs and time, each window counting half of the one after it.
    weighed: Vec<(f64, f64)>,
    started: Instant,
    windows: u32,
    last: Instant,
}

impl CostMeter {
    /// Opens the attached programs of `probes` a second time.
    pub fn new(probes: &Probes) -> Self {
        let open = |id: u32| ids::open(ids::Object::Program, id).ok();
        let programs: Vec<_> = probes
            .health()
            .iter()
            .map(|health| health.attached.as_ref().ok().and_then(|id| open(*id)))
            .collect();
        Self {
            weighed: vec![(0.0, 0.0); programs.len()],
            programs,
            started: Instant::now(),
            windows: 0,
            last: Instant::now(),
        }
    }

    /// Measures if it is time to. `rest` waits and says whether to end.
    pub fn step(&mut self, rest: impl FnMut(Duration) -> bool) -> Option<ProbeCosts> {
        let due = match AFTER.get(self.windows as usize) {
            Some(after) => self.started + *after,
            None => self.last + AFTER[AFTER.len() - 1],
        };
        if Instant::now() < due || self.programs.iter().all(Option::is_none) {
            return None;
        }
        self.windows = self.windows.saturating_add(1);
        self.last = Instant::now();
        Some(ProbeCosts {
            ns_per_run: self.window(rest).into(),
            drops: self.drops(),
        })
    }

    fn window(&mut self, mut rest: impl FnMut(Duration) -> bool) -> Result<Vec<u64>, Reason> {
        let read = |fd: &Option<OwnedFd>| {
            fd.as_ref()
                .and_then(|fd| info::program_runs(fd.as_fd()).ok())
        };
        let before: Vec<_> = self.programs.iter().map(read).collect();
        let statistics = load::enable_run_time_stats().map_err(|e| why::no_statistics(&e))?;
        rest(WINDOW);
        drop(statistics);
        for ((fd, before), weighed) in self.programs.iter().zip(before).zip(&mut self.weighed) {
            let (Some((ns, runs)), Some((ns_before, runs_before))) = (read(fd), before) else {
                continue;
            };
            let runs = runs.saturating_sub(runs_before);
            if runs > 0 {
                weighed.0 = weighed.0 / 2.0 + runs as f64;
                weighed.1 = weighed.1 / 2.0 + ns.saturating_sub(ns_before) as f64;
            }
        }
        let per_run = |(runs, ns): &(f64, f64)| {
            if *runs > 0.0 {
                (ns / runs).round() as u64
            } else {
                0
            }
        };
        Ok(self.weighed.iter().map(per_run).collect())
    }

    fn drops(&self) -> Reading<u64> {
        let mut sum = 0;
        for fd in self.programs.iter().flatten() {
            match info::program(fd.as_fd()).map(|info| info.recursion_misses) {
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
