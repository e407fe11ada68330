//! What was injected against what was detected: pure.

use serde::Serialize;
use stalltop_model::sample::{Pause, Stall, StallKind, Vector};
use stalltop_model::{Reading, Reason};

use super::inject::Injected;
use super::plan::{Class, Injector};
use super::trace::Span;

/// How far the ends of a row and of an injection may lie apart and still be the same thing, ns.
const SLACK_NS: u64 = 1_000_000;

/// What holds for an injector, besides the injections.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What was injected how.
    pub injector: Injector,
    /// On which CPU.
    pub cpu: u32,
    /// By which process.
    pub pid: u32,
    /// The injections, by time.
    pub injected: &'a [Injected],
    /// What was told meanwhile and shortly after.
    pub rows: &'a [Stall],
    /// How far a delay may be off that is not within a tenth, ns.
    pub tolerance_ns: u64,
}

/// The figures of one class of lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Injections.
    pub injected: u32,
    /// Of these, with a row of the right kind on the right CPU.
    pub detected: u32,
    /// Of the detected, with the right process (of a handler: the right vector).
    pub process: u32,
    /// Of the detected, with the right process and the right function.
    pub attributed: u32,
    /// Of the detected, with a delay within a tenth or the tolerance.
    pub close: u32,
    /// Of the detected, said to be a pause of the virtual CPU, or perhaps one.
    pub not_held: u32,
    /// Error of the delay, ns: the median.
    pub error_p50_ns: u64,
    /// 95th percentile.
    pub error_p95_ns: u64,
    /// The largest.
    pub error_max_ns: u64,
}

impl Figures {
    /// Detected of injected, 0 to 1.
    pub fn recall(&self) -> f64 {
        share(self.detected, self.injected)
    }

    /// Attributed of detected, 0 to 1.
    pub fn attribution(&self) -> f64 {
        share(self.attributed, self.detected)
    }

    /// Delays close enough of detected, 0 to 1.
    pub fn closeness(&self) -> f64 {
        share(self.close, self.detected)
    }
}

fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 {
        return 1.0;
    }
    f64::from(part) / f64::from(whole)
}

/// The figures of one injector.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// Of 5 to 10 ms, and of 10 ms and more: see [`Class::ALL`].
    pub classes: [Figures; 2],
    /// Rows of its kinds on its CPU that no injection explains; paused ones left out.
    pub false_rows: u32,
    /// Rows on its CPU that say that the hypervisor paused it.
    pub paused_rows: u32,
    /// Rows of other kinds on its CPU during injections: what else they brought about.
    pub other_rows: u32,
    /// Of the detected, those whose row was of each of the injector's kinds.
    pub told_as: Vec<(StallKind, u32)>,
    /// Injections that were shorter than the shortest class: not judged.
    pub too_short: u32,
    /// Injections without a row, by when they began, ns; the first few.
    pub missed_at_ns: Vec<u64>,
    /// What was named in the place of the right process or function, and how often.
    pub named_instead: Vec<(String, u32)>,
}

/// The most of [`Score::missed_at_ns`] and [`Score::named_instead`].
const LISTED: usize = 8;

/// Compares.
pub fn score(run: &Run<'_>) -> Score {
    let mut score = Score {
        told_as: run.injector.kinds().iter().map(|kind| (*kind, 0)).collect(),
        ..Score::default()
    };
    let mut errors: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
    for injected in run.injected {
        let duration_ns = injected.duration_ns();
        let Some(class) = Class::of(duration_ns) else {
            score.too_short += 1;
            continue;
        };
        let figures = &mut score.classes[class as usize];
        figures.injected += 1;
        let Some(row) = best(run, injected) else {
            if score.missed_at_ns.len() < LISTED {
                score.missed_at_ns.push(injected.begin_ns);
            }
            continue;
        };
        figures.detected += 1;
        for (kind, told) in &mut score.told_as {
            *told += u32::from(*kind == row.kind);
        }
        figures.not_held += u32::from(row.pause != Pause::Held);
        let error_ns = error(run.injector, injected, row);
        errors[class as usize].push(error_ns);
        figures.close += u32::from(error_ns <= run.tolerance_ns.max(duration_ns / 10));
        let process = right_process(run, row);
        figures.process += u32::from(process);
        if process && right_function(run.injector, row) {
            figures.attributed += 1;
        } else {
            note(&mut score.named_instead, named(row));
        }
    }
    for (figures, errors) in score.classes.iter_mut().zip(&mut errors) {
        errors.sort_unstable();
        figures.error_p50_ns = quantile(errors, 50);
        figures.error_p95_ns = quantile(errors, 95);
        figures.error_max_ns = quantile(errors, 100);
    }
    for row in run.rows.iter().filter(|row| is_on(row, run.cpu)) {
        let explained = run
            .injected
            .iter()
            .any(|i| overlaps(row, i.from_ns, i.end_ns));
        let of_kind = run.injector.kinds().contains(&row.kind);
        match (row.pause, explained, of_kind) {
            (Pause::Paused, false, _) => score.paused_rows += 1,
            (_, true, false) => score.other_rows += 1,
            (_, false, true) if !row.ours => score.false_rows += 1,
            _ => {}
        }
    }
    score
}

/// The row that tells of an injection: of those that overlap it, one of the proper kind if there
/// is any, and of these the one whose delay is closest.
fn best<'a>(run: &Run<'a>, injected: &Injected) -> Option<&'a Stall> {
    run.rows
        .iter()
        .filter(|row| run.injector.kinds().contains(&row.kind) && is_on(row, run.cpu))
        .filter(|row| overlaps(row, injected.begin_ns, injected.end_ns))
        .min_by_key(|row| {
            let kinds = run.injector.kinds();
            let rank = kinds.iter().position(|kind| *kind == row.kind);
            (rank, error(run.injector, injected, row))
        })
}

/// How far a row's delay is off, ns.
///
/// How long ksoftirqd waited with work to do depends on the vector: some are raised in the handler
/// that wakes it, one after it. Any length from the one to the other is right.
fn error(injector: Injector, injected: &Injected, row: &Stall) -> u64 {
    let shortest_ns = injected.duration_ns();
    let longest_ns = if injector == Injector::Ksoftirqd {
        injected.end_ns.saturating_sub(injected.from_ns)
    } else {
        shortest_ns
    };
    let nearest_ns = row.delay_ns.clamp(shortest_ns, longest_ns.max(shortest_ns));
    row.delay_ns.abs_diff(nearest_ns)
}

fn is_on(row: &Stall, cpu: u32) -> bool {
    row.cpu == cpu || row.victims.contains(&cpu)
}

fn overlaps(row: &Stall, begin_ns: u64, end_ns: u64) -> bool {
    let start_ns = row.at_ns.saturating_sub(row.delay_ns);
    start_ns <= end_ns + SLACK_NS && row.at_ns + SLACK_NS >= begin_ns
}

/// Whether the row names the process that did it; of a long handler the vector, whoever it
/// interrupted.
fn right_process(run: &Run<'_>, row: &Stall) -> bool {
    row.culprit.value().is_some_and(|culprit| {
        if run.injector.kinds()[0] == StallKind::SoftirqHandler {
            culprit.vector == Some(Vector::NetRx)
        } else {
            culprit.tgid == run.pid && culprit.vector.is_none()
        }
    })
}

/// Whether the row names a function of the operation that did it, or user space where that did.
fn right_function(injector: Injector, row: &Stall) -> bool {
    row.culprit.value().is_some_and(|c| match &c.function {
        Reading::Value(name) => injector.functions().iter().any(|f| name.contains(f)),
        Reading::Off(Reason::UserSpace) => injector == Injector::RealTime,
        Reading::Off(_) => false,
    })
}

/// Who and what a row names.
fn named(row: &Stall) -> String {
    match &row.culprit {
        Reading::Value(culprit) => match &culprit.function {
            Reading::Value(function) => format!("{} in {function}", culprit.comm),
            Reading::Off(reason) => format!("{}: {reason}", culprit.comm),
        },
        Reading::Off(reason) => format!("nobody: {reason}"),
    }
}

fn note(list: &mut Vec<(String, u32)>, what: String) {
    if let Some((_, times)) = list.iter_mut().find(|(listed, _)| *listed == what) {
        *times += 1;
    } else if list.len() < LISTED {
        list.push((what, 1));
    }
}

/// The smallest value that at least so many percent do not exceed; 0 of none.
pub fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// What the kernel's own trace says of the injections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Second {
    /// Injections that were judged.
    pub injected: u32,
    /// Of these, those that the trace has as well.
    pub seen: u32,
    /// How far its length and the injector's own clock lie apart, ns: the median.
    pub apart_p50_ns: u64,
    /// The largest.
    pub apart_max_ns: u64,
}

/// Compares the injector's clock with the trace's.
pub fn second(injector: Injector, pid: u32, injected: &[Injected], spans: &[Span]) -> Second {
    let mut second = Second::default();
    let mut apart = Vec::new();
    for injected in injected {
        let duration_ns = injected.duration_ns();
        if Class::of(duration_ns).is_none() {
            continue;
        }
        second.injected += 1;
        let nearest = spans
            .iter()
            .filter(|s| s.is_of(injector, pid))
            .filter(|s| s.from_ns <= injected.end_ns && s.to_ns >= injected.begin_ns)
            .map(|s| (s.to_ns - s.from_ns).abs_diff(duration_ns))
            .min();
        apart.extend(nearest);
    }
    apart.sort_unstable();
    second.seen = apart.len() as u32;
    second.apart_p50_ns = quantile(&apart, 50);
    second.apart_max_ns = quantile(&apart, 100);
    second
}

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Promise {
    /// Least recall, by class.
    pub recall: [f64; 2],
    /// Least share of the detected that name the right process and function.
    pub attribution: f64,
    /// Least share of the detected whose delay is within a tenth or the tolerance.
    pub close: f64,
}

impl Promise {
    /// With the 1 kHz sampler on.
    pub const SAMPLER: Self = Self {
        recall: [0.95, 0.98],
        attribution: 0.98,
        close: 0.95,
    };
    /// With the tick alone, as for the first stall on a CPU.
    pub const TICK: Self = Self {
        attribution: 0.95,
        ..Self::SAMPLER
    };

    /// What of it a score does not keep, one line each.
    pub fn broken_by(&self, score: &Score) -> Vec<String> {
        let mut broken = Vec::new();
        for class in Class::ALL {
            let figures = &score.classes[class as usize];
            let at_least = [
                ("detected", figures.recall(), self.recall[class as usize]),
                ("attributed", figures.attribution(), self.attribution),
                ("delays close enough", figures.closeness(), self.close),
            ];
            for (what, is, least) in at_least {
                if is < least {
                    broken.push(format!(
                        "{}: {what} {:.1} %, promised {:.0} %",
                        class.as_str(),
                        is * 100.0,
                        least * 100.0
                    ));
                }
            }
            if figures.injected == 0 {
                broken.push(format!("{}: nothing was injected", class.as_str()));
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stalltop_model::sample::Culprit;

    const MS: u64 = 1_000_000;

    fn injected(begin: u64, length: u64) -> Injected {
        Injected {
            from_ns: begin * MS,
            begin_ns: begin * MS,
            end_ns: (begin + length) * MS,
        }
    }

    fn row(begin: u64, length: u64) -> Stall {
        Stall {
            at_ns: (begin + length) * MS,
            delay_ns: length * MS,
            cpu: 1,
            kind: StallKind::InterruptsOff,
            culprit: Reading::Value(Culprit {
                pid: 77,
                tgid: 77,
                comm: "st-irqs-off".into(),
                function: Reading::Value("do_send_sig_info".into()),
                ..Culprit::default()
            }),
            ..Stall::default()
        }
    }

    fn judged(injected: &[Injected], rows: &[Stall]) -> Score {
        score(&Run {
            injector: Injector::IrqsOff,
            cpu: 1,
            pid: 77,
            injected,
            rows,
            tolerance_ns: MS,
        })
    }

    #[test]
    fn a_perfect_run() {
        let score = judged(
            &[injected(100, 20), injected(200, 6)],
            &[row(100, 21), row(200, 6)],
        );
        let [short, long] = score.classes;
        assert_eq!(
            (short.injected, short.detected, short.attributed),
            (1, 1, 1)
        );
        assert_eq!((long.injected, long.detected, long.close), (1, 1, 1));
        assert_eq!(long.error_max_ns, MS);
        assert_eq!((score.false_rows, score.paused_rows), (0, 0));
        assert!(Promise::SAMPLER.broken_by(&score).is_empty());
    }

    #[test]
    fn misses_false_rows_and_pauses_are_told_apart() {
        let mut paused = row(400, 9);
        paused.pause = Pause::Paused;
        let mut elsewhere = row(300, 9);
        elsewhere.cpu = 0;
        let mut other = row(105, 9);
        other.kind = StallKind::NoReschedule;
        let mut ours = row(600, 9);
        ours.ours = true;
        let rows = [paused, elsewhere, other, ours, row(500, 9)];
        let score = judged(&[injected(100, 20), injected(200, 2)], &rows);
        assert_eq!(score.classes[1].detected, 0);
        assert_eq!(score.missed_at_ns, [100 * MS]);
        assert_eq!(score.too_short, 1);
        assert_eq!(score.false_rows, 1);
        assert_eq!(score.paused_rows, 1);
        assert_eq!(score.other_rows, 1);
        let broken = Promise::SAMPLER.broken_by(&score);
        assert!(
            broken
                .iter()
                .any(|b| b.starts_with(">=10 ms: detected 0.0 %"))
        );
        assert!(broken.iter().any(|b| b == "5-10 ms: nothing was injected"));
    }

    #[test]
    fn a_row_that_names_somebody_else_is_not_attributed() {
        let mut wrong = row(100, 20);
        if let Reading::Value(culprit) = &mut wrong.culprit {
            culprit.tgid = 5;
            culprit.comm = "bystander".into();
        }
        let mut function = row(200, 20);
        if let Reading::Value(culprit) = &mut function.culprit {
            culprit.function = Reading::Value("memory_stat_show".into());
        }
        let score = judged(&[injected(100, 20), injected(200, 20)], &[wrong, function]);
        let long = score.classes[1];
        assert_eq!((long.detected, long.process, long.attributed), (2, 1, 0));
        assert_eq!(
            score.named_instead,
            [
                ("bystander in do_send_sig_info".to_owned(), 1),
                ("st-irqs-off in memory_stat_show".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn of_several_rows_the_closest_counts_and_victims_do() {
        let mut merged = row(101, 19);
        merged.cpu = 0;
        merged.victims = vec![1];
        let score = judged(&[injected(100, 20)], &[row(100, 6), merged]);
        assert_eq!(score.classes[1].detected, 1);
        assert_eq!(score.classes[1].error_max_ns, MS);
        // Neither is false: the injection explains both.
        assert_eq!(score.false_rows, 0);
    }

    #[test]
    fn a_delay_that_is_far_off_is_detected_but_not_close() {
        let score = judged(&[injected(100, 20)], &[row(100, 26)]);
        assert_eq!((score.classes[1].detected, score.classes[1].close), (1, 0));
    }

    #[test]
    fn of_ksoftirqd_the_proper_kind_counts_and_both_its_lengths_do() {
        let injected = Injected {
            from_ns: 91 * MS,
            begin_ns: 100 * MS,
            end_ns: 120 * MS,
        };
        let told = |kind, length: u64| Stall {
            kind,
            at_ns: 120 * MS,
            delay_ns: length * MS,
            ..row(100, 20)
        };
        let judged = |rows: &[Stall]| {
            score(&Run {
                injector: Injector::Ksoftirqd,
                cpu: 1,
                pid: 77,
                injected: &[injected],
                rows,
                tolerance_ns: MS,
            })
        };
        let pending = told(StallKind::SoftirqPending, 20);
        let both = judged(&[pending.clone(), told(StallKind::KsoftirqdWaiting, 29)]);
        assert_eq!(both.told_as[0], (StallKind::KsoftirqdWaiting, 1));
        assert_eq!(
            (both.classes[1].close, both.classes[1].error_max_ns),
            (1, 0)
        );
        let longer = judged(&[told(StallKind::KsoftirqdWaiting, 34)]);
        assert_eq!(
            (longer.classes[1].close, longer.classes[1].error_max_ns),
            (0, 5 * MS)
        );
        assert_eq!(
            judged(&[pending]).told_as[1],
            (StallKind::SoftirqPending, 1)
        );
    }

    #[test]
    fn of_a_handler_the_vector_is_the_culprit() {
        let mut row = row(100, 20);
        row.kind = StallKind::SoftirqHandler;
        if let Reading::Value(culprit) = &mut row.culprit {
            culprit.pid = 0;
            culprit.tgid = 0;
            culprit.vector = Some(Vector::NetRx);
            culprit.function = Reading::Value("sk_filter_trim_cap".into());
        }
        let score = score(&Run {
            injector: Injector::Handler,
            cpu: 1,
            pid: 77,
            injected: &[injected(100, 20)],
            rows: &[row],
            tolerance_ns: MS,
        });
        assert_eq!(score.classes[1].attributed, 1);
    }

    #[test]
    fn the_trace_confirms_what_it_has() {
        use super::super::trace::What;
        let span = |begin: u64, length: u64, pid: u32| Span {
            what: What::Kill(pid),
            from_ns: begin * MS,
            to_ns: (begin + length) * MS,
        };
        let second = second(
            Injector::IrqsOff,
            77,
            &[injected(100, 20), injected(200, 20), injected(300, 1)],
            &[span(99, 22, 77), span(200, 20, 78)],
        );
        assert_eq!((second.injected, second.seen), (2, 1));
        assert_eq!((second.apart_p50_ns, second.apart_max_ns), (2 * MS, 2 * MS));
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=20).collect();
        assert_eq!(quantile(&values, 50), 10);
        assert_eq!(quantile(&values, 95), 19);
        assert_eq!(quantile(&values, 100), 20);
        assert_eq!(quantile(&[], 50), 0);
        assert_eq!(quantile(&[3], 95), 3);
    }
}
