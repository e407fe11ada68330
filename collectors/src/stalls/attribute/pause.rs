//! Was the kernel on this CPU held, or was the virtual CPU paused by its hypervisor?

use stalltop_model::sample::{Pause, StallKind};
use stalltop_probes::wire::stall::{NONE, StackSample, flag};

use super::Context;
use super::timeline::Stacks;
use super::window::{Span, View, late_sample, period};
use crate::stalls::stack::lets_interrupts_in;

/// Decides, in this order: (1) the steal clock grew by half the gap or more: paused; (2) the
/// late sample interrupted user space, where interrupts are never off: paused; (3) it was taken
/// just behind an instruction or function that lets interrupts in: held; (4) either.
///
/// A stall whose window was sampled all along was held.
pub(super) fn judge(
    kind: StallKind,
    views: &[View],
    samples: &[StackSample],
    span: &Span,
    stacks: &Stacks,
    context: &Context,
) -> Pause {
    if stolen(views, samples, span, context) >= (span.len() / 2).max(1) {
        return Pause::Paused;
    }
    let late = if kind == StallKind::InterruptsOff {
        let seen_inside = views
            .iter()
            .any(|v| v.has(flag::NMI) && v.at > span.latest && v.at < span.end);
        if seen_inside {
            return Pause::Held;
        }
        late_sample(views, span)
    } else {
        match hole(views, span, context) {
            Some(late) => Some(late),
            None => return Pause::Held,
        }
    };
    let Some(late) = late.map(|at| &views[at]) else {
        return Pause::Either;
    };
    if late.user() {
        return Pause::Paused;
    }
    // Idle code lets interrupts in as its last step, whoever kept it waiting.
    if late.pid == 0 {
        return Pause::Either;
    }
    let reopens = late.stack.is_some_and(|at| stacks.stack(at).reopens);
    if reopens || late.has(flag::REGS) && lets_interrupts_in(samples[late.index].code) {
        Pause::Held
    } else {
        Pause::Either
    }
}

/// How much the steal clock grew over the window, ns. The kernel brings it up to date after a
/// sample, so the growth shows in the samples behind the window.
fn stolen(views: &[View], samples: &[StackSample], span: &Span, context: &Context) -> u64 {
    let steal = |view: &View| Some(samples[view.index].steal_ns).filter(|steal| *steal != NONE);
    // The one before the window has not seen a pause that it ended itself: then the first one
    // inside, which has.
    let first_inside = views.partition_point(|v| v.at <= span.start);
    let before = first_inside.checked_sub(1).filter(|at| {
        at.checked_sub(1).is_some_and(|earlier| {
            // What was read while it was overwritten may be in any order.
            let gap = views[*at].at.saturating_sub(views[earlier].at);
            gap <= 2 * period(&views[*at], context)
        })
    });
    let base = before.or(Some(first_inside)).and_then(|at| views.get(at));
    let near = span
        .end
        .saturating_add(context.tick_ns + context.tick_ns / 2);
    let behind = views.partition_point(|v| v.at <= span.end);
    let after = views[behind..]
        .iter()
        .take_while(|v| v.at <= near)
        .last()
        .or(views.get(behind));
    match (base.and_then(steal), after.and_then(steal)) {
        (Some(base), Some(after)) => after.saturating_sub(base),
        _ => 0,
    }
}

/// The sample that ended a hole over half the window or more, in which ticks should have been.
fn hole(views: &[View], span: &Span, context: &Context) -> Option<usize> {
    views.windows(2).enumerate().find_map(|(at, pair)| {
        let [before, after] = pair else { return None };
        let within = after
            .at
            .min(span.end)
            .saturating_sub(before.at.max(span.start));
        let gap = after.at - before.at;
        let is_hole = within >= (span.len() / 2).max(1)
            && gap > 3 * period(after, context)
            && after.seq == before.seq.wrapping_add(1)
            // An idle CPU stops its tick.
            && before.pid != 0
            && after.at <= span.end.saturating_add(period(after, context));
        is_hole.then_some(at + 1)
    })
}
