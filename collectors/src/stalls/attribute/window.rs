//! The window of a stall, and how much of it each sample stands for.

use stalltop_model::sample::{StallKind, Vector};
use stalltop_probes::wire::stall::{NONE, StackSample, StallEvent, flag};

use super::{Context, Who, ids, vector};

/// How far a late sample may be from the end of the gap that it ended: the rest of the
/// interrupt it was taken in.
const AT_ONCE: u64 = 200_000;

/// When a stall was. `earliest <= start <= latest <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) earliest: u64,
    /// Its best-estimated start: the middle of what is possible.
    pub(super) start: u64,
    pub(super) latest: u64,
    pub(super) end: u64,
}

/// A sample, as far as its weight goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Where it is among the samples given.
    pub(super) index: usize,
    pub(super) seq: u64,
    pub(super) at: u64,
    pub(super) who: Who,
    pub(super) pid: u32,
    pub(super) flags: u64,
    /// When its task came to the CPU; 0 before all samples.
    pub(super) on_cpu: u64,
    /// Its distinct stack.
    pub(super) stack: Option<usize>,
    /// How much of the window it stands for, ns.
    pub(super) weight: u64,
}

impl View {
    pub(super) fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Whether it interrupted user space.
    pub(super) fn user(&self) -> bool {
        self.has(flag::REGS) && self.has(flag::USER)
    }

    pub(super) fn inside(&self, span: &Span) -> bool {
        self.at > span.start && self.at <= span.end
    }
}

/// The samples in the order of time, without those that were being written.
pub(super) fn views(samples: &[StackSample]) -> Vec<View> {
    let mut views: Vec<View> = samples
        .iter()
        .enumerate()
        .filter(|(_, sample)| sample.seq != 0)
        .map(|(index, sample)| {
            let (pid, _) = ids(sample.pid_tgid);
            View {
                index,
                seq: sample.seq,
                at: sample.at_ns,
                who: match running_vector(sample) {
                    Some(vector) => Who::Vector(vector),
                    None => Who::Task(pid),
                },
                pid,
                flags: sample.flags,
                on_cpu: sample.on_cpu_ns,
                stack: None,
                weight: 0,
            }
        })
        .collect();
    views.sort_by_key(|view| (view.at, view.seq));
    views
}

fn running_vector(sample: &StackSample) -> Option<Vector> {
    (sample.flags & flag::IN_SOFTIRQ != 0)
        .then(|| vector(sample.flags >> flag::VECTOR_SHIFT & 0xff))
        .flatten()
}

impl Span {
    /// The window of an event, its start narrowed down by what the samples show.
    pub(super) fn of(kind: StallKind, event: &StallEvent, views: &[View]) -> Self {
        let end = event.end_ns;
        let mut latest = event.start_ns.min(end);
        let mut earliest = match event.earliest_ns {
            NONE => latest,
            earliest => earliest.min(latest),
        };
        let (pid, _) = ids(event.pid_tgid);
        // Backwards from what the event knows to what contradicts it.
        for view in views.iter().rev().filter(|view| view.at < end) {
            match kind {
                // An ordinary interrupt was taken then: they were not off.
                StallKind::InterruptsOff if view.at <= latest && !view.has(flag::NMI) => {}
                StallKind::InterruptsOff => continue,
                // Requested already.
                StallKind::NoReschedule if view.pid == pid && view.has(flag::NEED_RESCHED) => {
                    if view.at >= earliest {
                        latest = latest.min(view.at);
                    }
                    continue;
                }
                StallKind::NoReschedule if view.at <= latest => {}
                _ => break,
            }
            earliest = earliest.max(view.at);
            break;
        }
        if matches!(kind, StallKind::InterruptsOff | StallKind::NoReschedule) {
            // When the task was switched in neither was so.
            let late = views.iter().find(|v| v.at >= latest && v.pid == pid);
            if let Some(on_cpu) = late.map(|v| v.on_cpu).filter(|at| *at <= latest) {
                earliest = earliest.max(on_cpu);
            }
        }
        Self {
            earliest,
            start: earliest + (latest - earliest) / 2,
            latest,
            end,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.end - self.start
    }
}

/// The sample that ended a gap without interrupts: taken at its end, in the function that let
/// them in again.
pub(super) fn late_sample(views: &[View], span: &Span) -> Option<usize> {
    views
        .iter()
        .enumerate()
        .filter(|(_, v)| !v.has(flag::NMI) && v.at.abs_diff(span.end) <= AT_ONCE)
        .min_by_key(|(_, v)| v.at.abs_diff(span.end))
        .map(|(at, _)| at)
}

/// Gives each sample the part of the window that it stands for.
pub(super) fn weigh(views: &mut [View], kind: StallKind, span: &Span, context: &Context) {
    if kind == StallKind::InterruptsOff {
        let seen_inside = views
            .iter()
            .any(|v| v.has(flag::NMI) && v.at > span.latest && v.at < span.end);
        if !seen_inside {
            if let Some(late) = late_sample(views, span) {
                // It belongs to the end that it was taken at.
                views[late].at = views[late].at.min(span.end);
                views[late].weight = span.len();
            }
            return;
        }
    }
    // A handler's window holds nothing but the handler.
    let outside_counts = kind != StallKind::SoftirqHandler;
    let counted: Vec<usize> = (0..views.len())
        .filter(|at| outside_counts || views[*at].inside(span))
        .collect();
    let mut from = match counted.first() {
        Some(first) if outside_counts => reaches_back(&views[*first], context),
        _ => span.start,
    };
    for (n, at) in counted.iter().enumerate() {
        let view = views[*at];
        let (to, next_from) = match counted.get(n + 1) {
            Some(next) => boundary(&view, &views[*next], span, context),
            None if outside_counts => (reaches_on(&view, context), u64::MAX),
            None => (span.end, u64::MAX),
        };
        views[*at].weight = to.min(span.end).saturating_sub(from.max(span.start));
        from = from.max(next_from);
    }
}

/// How far back the first sample speaks for its task or vector.
fn reaches_back(view: &View, context: &Context) -> u64 {
    match view.who {
        // 0: since before all samples.
        Who::Task(_) => view.on_cpu.min(view.at),
        Who::Vector(_) => view.at.saturating_sub(period(view, context)),
    }
}

/// How far a sample speaks for what came after it.
fn reaches_on(view: &View, context: &Context) -> u64 {
    view.at.saturating_add(2 * period(view, context))
}

/// Where the part of one sample ends, and where that of the next one begins.
fn boundary(before: &View, after: &View, span: &Span, context: &Context) -> (u64, u64) {
    let gap = after.at - before.at;
    if let Who::Task(_) = after.who
        && before.who != after.who
        && after.on_cpu > before.at
        && after.on_cpu <= after.at
    {
        // It is known when it came.
        return (after.on_cpu, after.on_cpu);
    }
    // What is only seen behind the window need not have begun within it.
    if after.at > span.end && before.who != after.who {
        return (reaches_on(before, context), span.end);
    }
    let period = period(after, context);
    let whole = after.seq == before.seq.wrapping_add(1);
    let boundary = if whole && gap > 2 * period {
        // It came late: interrupts were off, and this is where they were let in again.
        before.at.saturating_add(period / 2)
    } else {
        before.at + gap / 2
    };
    (boundary, boundary)
}

pub(super) fn period(view: &View, context: &Context) -> u64 {
    if view.has(flag::SAMPLER) {
        context.sampler_ns
    } else {
        context.tick_ns
    }
}

/// Samples that should be in the window but are not: holes in their numbers, and what the ring
/// had already overwritten.
pub(super) fn lost(views: &[View], span: &Span, context: &Context) -> u32 {
    let mut lost = 0u64;
    for pair in views.windows(2) {
        let [before, after] = pair else { continue };
        if after.at > span.start && before.at < span.end {
            lost = lost.saturating_add(after.seq.saturating_sub(before.seq).saturating_sub(1));
        }
    }
    if let Some(first) = views.first()
        && first.at > span.earliest
        && first.at <= span.end
    {
        // Those before it are gone: at most as many as were numbered.
        let missing = (first.at - span.start.min(first.at)) / period(first, context).max(1);
        lost = lost.saturating_add(missing.min(first.seq.saturating_sub(1)));
    }
    u32::try_from(lost).unwrap_or(u32::MAX)
}
