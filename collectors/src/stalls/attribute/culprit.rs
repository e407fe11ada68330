//! What the holder of a CPU was doing.

use stalltop_model::sample::{Culprit, StallKind, Vector};
use stalltop_model::{Name, Reading, Reason};
use stalltop_probes::wire::stall::{StackSample, StallEvent, USER_FRAMES};

use super::timeline::{Comms, Stacks};
use super::window::{Span, View};
use super::{Who, ids, sched, vector};

/// Who held the CPU: what the event itself says, else who stands for most of the window.
pub(super) fn holder(kind: StallKind, event: &StallEvent, views: &[View]) -> Option<Who> {
    let (pid, _) = ids(event.pid_tgid);
    if kind == StallKind::SoftirqHandler {
        return vector(event.vector).map(Who::Vector);
    }
    let sums = sums(views.iter().map(|view| (view.who, view.weight)));
    if kind == StallKind::NoReschedule {
        // It is the task that was to leave; but time that softirqs took on top of it is not its
        // own.
        let on_top = heaviest(sums).map(|(who, _)| who);
        return match on_top {
            Some(vector @ Who::Vector(_)) => Some(vector),
            _ => Some(Who::Task(pid)),
        };
    }
    match heaviest(sums) {
        Some((who, _)) => Some(who),
        // No task can have come in between; of real-time tasks it is the one that ran longest.
        None if matches!(kind, StallKind::InterruptsOff | StallKind::RealTime) => {
            Some(Who::Task(pid))
        }
        None => None,
    }
}

/// What the samples of `who` say it did.
#[derive(Debug, Default)]
pub(super) struct Doing {
    pub(super) syscall: Option<Name>,
    pub(super) function: Option<Name>,
    pub(super) lock: Option<Name>,
    pub(super) waits: bool,
    pub(super) reopens: bool,
    pub(super) site: Option<Name>,
    user: bool,
    stack: bool,
}

impl Doing {
    /// From the samples inside the window; from those beside it that speak for it where there
    /// are none.
    pub(super) fn of(who: Who, views: &[View], span: &Span, stacks: &Stacks) -> Self {
        let own = || views.iter().filter(move |v| v.who == who && v.weight > 0);
        let stack = |view: &View| Some((stacks.stack(view.stack?), view.weight));
        let mut seen: Vec<_> = own().filter(|v| v.inside(span)).filter_map(stack).collect();
        if seen.is_empty() {
            seen = own().filter_map(stack).collect();
        }
        let total: u64 = own().map(|v| v.weight).sum();
        let in_user = own().filter(|v| v.user()).map(|v| v.weight).sum::<u64>();
        if in_user > 0 && in_user >= total / 4 * 3 {
            // What it did in the kernel for the rest is not what kept it busy.
            return Self {
                user: true,
                ..Self::default()
            };
        }
        let function = heaviest(sums(
            seen.iter()
                .filter_map(|(s, w)| Some((s.function.clone()?, *w))),
        ));
        let function = function.map(|(function, _)| function);
        let of_function = || seen.iter().filter(|(s, _)| s.function == function);
        let syscalls = of_function().filter_map(|(s, w)| Some((s.syscall.clone()?, *w)));
        // A lock counts if it is what most of the time went to.
        let locks = seen
            .iter()
            .filter_map(|(s, w)| Some(((s.lock.clone()?, s.waits, s.reopens, s.site.clone()), *w)));
        let lock = heaviest(sums(locks)).filter(|(_, weight)| weight.saturating_mul(2) >= total);
        let (lock, waits, reopens, site) = match lock {
            Some(((lock, waits, reopens, site), _)) => (Some(lock), waits, reopens, site),
            None => (None, false, false, None),
        };
        Self {
            syscall: heaviest(sums(syscalls)).map(|(syscall, _)| syscall),
            function,
            lock,
            waits,
            reopens,
            site,
            user: false,
            stack: !seen.is_empty(),
        }
    }
}

/// The culprit, without the facts about its process.
pub(super) fn culprit(
    who: Who,
    doing: &Doing,
    event: &StallEvent,
    (views, samples): (&[View], &[StackSample]),
    span: &Span,
    symbols: &Reading<()>,
    names: &mut Comms,
) -> Culprit {
    let own = || views.iter().filter(|v| v.who == who && v.weight > 0);
    let inside = || views.iter().filter(|v| v.inside(span));
    let weight: u64 = own().map(|v| v.weight).sum();
    let known = own().next().map(|view| &samples[view.index]);
    // Without a sample of its own: what the event says of itself.
    let share = match known {
        Some(_) => weight as f64 / span.len().max(1) as f64,
        None => 1.0,
    };
    let (pid_tgid, words) = known.map_or((event.pid_tgid, event.comm), |s| (s.pid_tgid, s.comm));
    let (pid, tgid) = ids(pid_tgid);
    let (pid, tgid, name, vector): (_, _, _, Option<Vector>) = match who {
        Who::Task(_) => (pid, tgid, names.name(words), None),
        Who::Vector(vector) => (0, 0, vector.as_str().into(), Some(vector)),
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Culprit {
        pid,
        tgid,
        comm: name,
        vector,
        sched: match who {
            Who::Task(pid) if pid == ids(event.pid_tgid).0 => sched(event),
            _ => None,
        },
        share: (share as f32).clamp(0.0, 1.0),
        samples: (
            count(inside().filter(|v| v.who == who).count()),
            count(inside().count()),
        ),
        syscall: doing.syscall.clone(),
        function: match &doing.function {
            Some(function) => Reading::Value(Name::clone(function)),
            None if doing.user => Reading::Off(Reason::UserSpace),
            None if doing.stack => match symbols {
                Reading::Off(reason) => Reading::Off(reason.clone()),
                Reading::Value(()) => not_sampled("a function with a name"),
            },
            None => not_sampled("its kernel stack"),
        },
        lock: doing.lock.clone(),
        lock_suspected: doing.reopens,
        user_stack: own()
            .rev()
            .find_map(|view| user_stack(&samples[view.index]))
            .filter(|_| vector.is_none())
            .map_or_else(|| not_sampled("its user stack"), Reading::Value),
        ..Culprit::default()
    }
}

/// The addresses of a sample's user stack, as text: they are named where the process is looked up.
fn user_stack(sample: &StackSample) -> Option<Vec<Name>> {
    let frames = usize::try_from(sample.user_frames).ok()?.min(USER_FRAMES);
    let stack = &sample.user[..frames];
    let hex = |address: &u64| format!("{address:#x}").into();
    (frames > 0).then(|| stack.iter().map(hex).collect())
}

pub(super) fn not_sampled<T>(what: &str) -> Reading<T> {
    Reading::Off(Reason::NotSampled { what: what.into() })
}

/// Sums by key, in the order in which the keys came.
fn sums<K: PartialEq>(items: impl Iterator<Item = (K, u64)>) -> Vec<(K, u64)> {
    let mut sums: Vec<(K, u64)> = Vec::new();
    for (key, weight) in items.filter(|(_, weight)| *weight > 0) {
        match sums.iter_mut().find(|(known, _)| *known == key) {
            Some((_, sum)) => *sum = sum.saturating_add(weight),
            None => sums.push((key, weight)),
        }
    }
    sums
}

/// Of equals the earlier one: the other may only have followed.
fn heaviest<K>(sums: Vec<(K, u64)>) -> Option<(K, u64)> {
    sums.into_iter()
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
}
