//! What a row of windows says of one program: means, deviations, and whether a run takes longer
//! the more CPUs are busy. Pure arithmetic.

use std::collections::VecDeque;

use stalltop_model::sample::Growth;

/// Windows kept of each program: more than a minute's.
const KEPT: usize = 32;

/// Windows that the shown figures are made of, the newest: twelve seconds' worth. Fewer would jump
/// about, more would hide for long that something was switched off.
const RECENT: usize = 5;

/// A window older than this says nothing about now.
const MAX_AGE_NS: u64 = 120_000_000_000;

/// Growth is looked for in windows with at least so many runs: a mean of few is noise.
const GROWTH_RUNS: u64 = 50;

/// Windows of each half that growth needs.
const GROWTH_WINDOWS: usize = 4;

/// How far the halves must lie apart to be called few and many CPUs: in CPUs, and as a ratio.
const GROWTH_CPUS: (f64, f64) = (0.5, 1.25);

/// The least growth worth a word. Two threads that share a core slow each other by about as much
/// without waiting for anything.
const GROWTH_LEAST: f64 = 1.25;

/// By how many standard errors the halves must differ.
const GROWTH_ERRORS: f64 = 3.0;

/// One program in one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    /// End of the window, `CLOCK_BOOTTIME`.
    pub(super) at_ns: u64,
    /// How long it was.
    pub(super) window_ns: u64,
    /// Runs within it.
    pub(super) runs: u64,
    /// Time of these, summed over CPUs.
    pub(super) run_ns: u64,
    /// CPUs of the host that were busy meanwhile.
    pub(super) busy: f64,
}

/// Mean and standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) mean: f64,
    /// None of a single value.
    pub(super) deviation: Option<f64>,
}

/// What the newest windows say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) runs_per_s: Spread,
    /// None where there was no run.
    pub(super) ns_per_run: Option<Spread>,
    /// Of one CPU.
    pub(super) share: f64,
}

/// The newest windows of one program.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    seen: VecDeque<Seen>,
    /// So many of the newest belong to now: a change of the host starts anew.
    recent: usize,
}

impl Series {
    /// Adds a window. A program that never ran keeps nothing: most do not.
    pub(super) fn push(&mut self, seen: Seen) {
        let oldest = seen.at_ns.saturating_sub(MAX_AGE_NS);
        while self.seen.front().is_some_and(|s| s.at_ns < oldest) || self.seen.len() == KEPT {
            self.seen.pop_front();
        }
        if seen.runs > 0 || self.seen.iter().any(|s| s.runs > 0) {
            self.seen.push_back(seen);
        } else {
            self.seen.clear();
        }
        self.recent = (self.recent + 1).min(RECENT).min(self.seen.len());
    }

    /// The host was changed: what comes now is not to be mixed with what was.
    pub(super) fn restart(&mut self) {
        self.recent = 0;
    }

    /// Means over the newest windows, each by its length; deviations of the windows' own figures.
    pub(super) fn figures(&self) -> Figures {
        let recent = || self.seen.iter().rev().take(self.recent);
        let seconds = |ns: u64| ns as f64 / 1e9;
        let time: f64 = recent().map(|s| seconds(s.window_ns)).sum();
        let runs: u64 = recent().map(|s| s.runs).sum();
        let run_ns: u64 = recent().map(|s| s.run_ns).sum();
        let per_second = |n: f64| if time > 0.0 { n / time } else { 0.0 };
        let rates = recent()
            .filter(|s| s.window_ns > 0)
            .map(|s| s.runs as f64 / seconds(s.window_ns));
        let times = recent().filter(|s| s.runs > 0).map(ns_per_run);
        Figures {
            runs_per_s: Spread {
                mean: per_second(runs as f64),
                deviation: deviation(rates),
            },
            ns_per_run: (runs > 0).then(|| Spread {
                mean: run_ns as f64 / runs as f64,
                deviation: deviation(times),
            }),
            share: per_second(seconds(run_ns)),
        }
    }

    /// Whether a run takes longer in the busier half of the kept windows, by more than the windows
    /// differ among themselves (Welch's test, unequal variances).
    pub(super) fn growth(&self) -> Option<Growth> {
        let mut windows: Vec<Seen> = self.seen.iter().copied().collect();
        windows.retain(|s| s.runs >= GROWTH_RUNS);
        if windows.len() < 2 * GROWTH_WINDOWS {
            return None;
        }
        windows.sort_by(|a, b| a.busy.total_cmp(&b.busy));
        let (few, many) = windows.split_at(windows.len() / 2);
        let busy = |half: &[Seen]| half.iter().map(|s| s.busy).sum::<f64>() / half.len() as f64;
        let (few_cpus, many_cpus) = (busy(few), busy(many));
        if many_cpus < few_cpus + GROWTH_CPUS.0 || many_cpus < few_cpus * GROWTH_CPUS.1 {
            return None;
        }
        let (few_ns, few_error) = mean_and_error(few)?;
        let (many_ns, many_error) = mean_and_error(many)?;
        let significant = many_ns - few_ns > GROWTH_ERRORS * few_error.hypot(many_error);
        (significant && many_ns >= few_ns * GROWTH_LEAST).then_some(Growth {
            few_cpus,
            few_ns,
            many_cpus,
            many_ns,
        })
    }
}

fn ns_per_run(seen: &Seen) -> f64 {
    seen.run_ns as f64 / seen.runs as f64
}

/// Mean time per run over windows, and the standard error of that mean.
fn mean_and_error(windows: &[Seen]) -> Option<(f64, f64)> {
    let times = windows.iter().map(ns_per_run);
    let mean = times.clone().sum::<f64>() / windows.len() as f64;
    Some((mean, deviation(times)? / (windows.len() as f64).sqrt()))
}

/// Sample standard deviation.
fn deviation(values: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let n = values.clone().count();
    if n < 2 {
        return None;
    }
    let mean = values.clone().sum::<f64>() / n as f64;
    let squares: f64 = values.map(|v| (v - mean).powi(2)).sum();
    Some((squares / (n - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window of 100 ms.
    fn seen(n: u64, runs: u64, ns: u64, busy: f64) -> Seen {
        Seen {
            at_ns: n * 2_000_000_000,
            window_ns: 100_000_000,
            runs,
            run_ns: runs * ns,
            busy,
        }
    }

    fn series(windows: impl IntoIterator<Item = Seen>) -> Series {
        let mut series = Series::default();
        windows.into_iter().for_each(|s| series.push(s));
        series
    }

    #[test]
    fn one_window_has_no_deviation_and_no_run_has_no_time() {
        let figures = series([seen(1, 1_000, 80, 1.0)]).figures();
        assert_eq!(figures.runs_per_s.mean, 10_000.0);
        assert_eq!(figures.runs_per_s.deviation, None);
        let ns = figures.ns_per_run.unwrap();
        assert_eq!((ns.mean, ns.deviation), (80.0, None));
        assert!((figures.share - 0.0008).abs() < 1e-9);

        let figures = series([seen(1, 0, 0, 1.0)]).figures();
        assert_eq!(figures.ns_per_run, None);
        assert_eq!((figures.runs_per_s.mean, figures.share), (0.0, 0.0));
    }

    #[test]
    fn deviations_are_of_the_windows_and_means_weigh_runs() {
        let figures = series([seen(1, 100, 100, 1.0), seen(2, 300, 60, 1.0)]).figures();
        assert_eq!(figures.runs_per_s.mean, 2_000.0);
        let deviation = figures.runs_per_s.deviation.unwrap();
        assert!((deviation - 1_414.2).abs() < 0.1, "{deviation}");
        let ns = figures.ns_per_run.unwrap();
        assert_eq!(ns.mean, 70.0);
        assert!((ns.deviation.unwrap() - 28.28).abs() < 0.01);
    }

    #[test]
    fn what_stopped_is_gone_after_the_newest_windows_or_at_once_after_a_change() {
        let mut stopped = series((1..=10).map(|n| seen(n, 1_000, 80, 1.0)));
        let mut changed = stopped.clone();
        stopped.push(seen(11, 0, 0, 1.0));
        assert_eq!(stopped.figures().runs_per_s.mean, 8_000.0);
        (12..=15).for_each(|n| stopped.push(seen(n, 0, 0, 1.0)));
        assert_eq!(stopped.figures().runs_per_s.mean, 0.0);
        changed.restart();
        changed.push(seen(11, 0, 0, 1.0));
        assert_eq!(changed.figures().runs_per_s.mean, 0.0);
        assert_eq!(changed.figures().ns_per_run, None);
    }

    #[test]
    fn growth_needs_to_stand_out() {
        // 317 and 708 ns on one and on two CPUs, each window a little off.
        let wave = |n: u64| [0, 9, 3, 12][(n % 4) as usize];
        let grows = |n: u64| match n % 2 {
            0 => seen(n, 5_000, 310 + wave(n / 2), 1.0),
            _ => seen(n, 5_000, 700 + wave(n / 2), 2.0),
        };
        let growth = series((1..=20).map(grows)).growth().unwrap();
        assert_eq!((growth.few_cpus, growth.many_cpus), (1.0, 2.0));
        assert!((growth.few_ns - 316.0).abs() < 3.0, "{growth:?}");
        assert!((growth.many_ns - 706.0).abs() < 3.0, "{growth:?}");

        // The same times, but the CPUs were as busy: nothing is said of CPUs.
        let same = |n| Seen {
            busy: 2.0,
            ..grows(n)
        };
        assert_eq!(series((1..=20).map(same)).growth(), None);
        // Too few windows, and too few runs.
        assert_eq!(series((1..=6).map(grows)).growth(), None);
        let rare = |n| seen(n, 10, 300 + 400 * (n % 2), 1.0 + (n % 2) as f64);
        assert_eq!(series((1..=20).map(rare)).growth(), None);
        // Windows that differ among themselves by more than the halves do.
        let noisy = |n: u64| {
            let ns = [100, 900, 1_500, 200, 400, 1_300][(n % 6) as usize];
            seen(n, 5_000, ns, 1.0 + (n % 2) as f64)
        };
        assert_eq!(series((1..=24).map(noisy)).growth(), None);
        // A run that gets shorter as caches are warm is no contention.
        let warm = |n: u64| seen(n, 5_000, 400 - 300 * (n % 2), 1.0 + (n % 2) as f64);
        assert_eq!(series((1..=20).map(warm)).growth(), None);
    }

    #[test]
    fn old_windows_are_forgotten() {
        let mut series = series((1..=40).map(|n| seen(n, 1_000, 80, 1.0)));
        assert_eq!(series.seen.len(), KEPT);
        series.push(seen(200, 0, 0, 1.0));
        assert_eq!(series.seen.len(), 0);
    }
}
