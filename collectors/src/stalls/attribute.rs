//! Who held a CPU, from the samples around a stall.
//!
//! The window is the stall itself, from its best-estimated start to its end. Each sample stands
//! for the part of the window that is nearest to it; time inside a softirq belongs
//! to the vector and not to the task that it interrupted. A sample that came late because
//! interrupts were off stands for the whole gap before it: it was taken in the function that
//! let them in again.
//!
//! Measured (`benches/stalls.rs`, a busy virtual machine): a window of 3 samples takes 16 us, one
//! of 200 takes 0.4 ms, most of it for names.

mod culprit;
mod pause;
#[cfg(test)]
mod tests;
mod timeline;
mod window;

use stalltop_model::sample::{Drained, Sampling, Sched, Stall, StallKind, Vector};
use stalltop_model::{Name, Reading, Reason};
use stalltop_probes::wire::stall::{NONE, StackSample, StallEvent, flag, kind};

use super::kallsyms::Symbols;
use culprit::Doing;
use timeline::{Comms, Stacks};
use window::{Span, View};

/// Most rows of a timeline; a longer one is thinned out evenly.
pub const MAX_TIMELINE: usize = 600;
/// Most distinct stacks of a stall; samples of the rarest ones keep none.
pub const MAX_STACKS: usize = 64;

/// What holds for all stalls of this host.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Between two ticks of the scheduler, ns.
    pub tick_ns: u64,
    /// Between two samples of the sampler, ns.
    pub sampler_ns: u64,
    /// stalltop's own process id.
    pub own_tgid: u32,
}

/// What the kernel told about one stall.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The event that tells of it; of any kind but [`kind::DRAINED`].
    pub event: &'a StallEvent,
    /// Samples of its CPU in the order of their numbers: from at least one before
    /// [`StallEvent::earliest_ns`] (where the ring still has it) to a few after the end, since
    /// the steal clock is read one sample late.
    pub samples: &'a [StackSample],
    /// The event [`kind::DRAINED`] whose `start_ns` is this one's `end_ns`, of its CPU.
    pub drained: Option<&'a StallEvent>,
}

/// A stall, and what its merging with those of other CPUs needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The stall. Its `id` and `wall_ns` are 0, its `at_ns` is on the clock of the event
    /// (`CLOCK_MONOTONIC`), and the culprit's process facts are not looked up.
    pub stall: Stall,
    /// Whether the culprit waited for a lock through most of its share.
    pub waits: bool,
    /// Who called the lock function.
    pub site: Option<Name>,
}

impl Told {
    /// The best estimate of its start, on the clock of the event.
    pub fn start_ns(&self) -> u64 {
        self.stall.at_ns.saturating_sub(self.stall.delay_ns)
    }
}

/// The kind of an event; none for those that tell of no stall.
pub fn kind_of(event: &StallEvent) -> Option<StallKind> {
    Some(match event.kind {
        kind::PENDING => StallKind::SoftirqPending,
        kind::HANDLER => StallKind::SoftirqHandler,
        kind::KSOFTIRQD => StallKind::KsoftirqdWaiting,
        kind::IRQS_OFF => StallKind::InterruptsOff,
        kind::RESCHED => StallKind::NoReschedule,
        kind::REAL_TIME => StallKind::RealTime,
        _ => return None,
    })
}

/// The comm in two words of the kernel's memory.
pub fn comm(words: [u64; 2]) -> Name {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(16);
    String::from_utf8_lossy(&bytes[..end]).into()
}

/// pid and tgid of a task, as `bpf_get_current_pid_tgid` packs them.
pub fn ids(pid_tgid: u64) -> (u32, u32) {
    (pid_tgid as u32, (pid_tgid >> 32) as u32)
}

/// Understands one stall; none for an event that tells of no stall.
pub fn attribute(evidence: Evidence<'_>, symbols: &mut Symbols, context: &Context) -> Option<Told> {
    let (event, samples) = (evidence.event, evidence.samples);
    let kind = kind_of(event)?;
    let mut views = window::views(samples);
    let span = Span::of(kind, event, &views);
    let mut stacks = Stacks::read(&mut views, samples, symbols);
    window::weigh(&mut views, kind, &span, context);
    let mut names = Comms::default();
    let pause = pause::judge(kind, &views, samples, &span, &stacks, context);
    let who = culprit::holder(kind, event, &views);
    let doing = who.map(|who| Doing::of(who, &views, &span, &stacks));
    let culprit = match (who, &doing) {
        (Some(who), Some(doing)) => Reading::Value(culprit::culprit(
            who,
            doing,
            event,
            (&views, samples),
            &span,
            symbols.state(),
            &mut names,
        )),
        _ => culprit::not_sampled("this window"),
    };
    let doing = doing.unwrap_or_default();
    let timeline = timeline::rows(&views, samples, &span, &mut stacks, &mut names);
    let stall = Stall {
        at_ns: span.end,
        cpu: u32::try_from(event.cpu).unwrap_or(u32::MAX),
        kind,
        pause,
        vector: vector(event.vector),
        delay_ns: span.len(),
        least_ns: span.end - span.latest,
        most_ns: span.end - span.earliest,
        ours: culprit
            .value()
            .is_some_and(|c| c.vector.is_none() && c.tgid == context.own_tgid),
        culprit,
        sampling: sampling(&views, &span),
        timeline,
        stacks: stacks.into_frames(),
        lost: window::lost(&views, &span, context),
        drained: (kind == StallKind::SoftirqPending).then(|| drained(&evidence)),
        waited: waited(kind, event, samples),
        ..Stall::default()
    };
    Some(Told {
        stall,
        waits: doing.waits,
        site: doing.site,
    })
}

/// Whom a sample speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Task(u32),
    Vector(Vector),
}

fn vector(number: u64) -> Option<Vector> {
    Vector::ALL.get(usize::try_from(number).ok()?).copied()
}

fn sampling(views: &[View], span: &Span) -> Sampling {
    let mut sampling = Sampling::Tick;
    for view in views
        .iter()
        .filter(|v| v.at > span.start && v.at <= span.end)
    {
        if view.flags & flag::NMI != 0 {
            return Sampling::Nmi;
        }
        if view.flags & flag::SAMPLER != 0 {
            sampling = Sampling::Clock;
        }
    }
    sampling
}

fn drained(evidence: &Evidence<'_>) -> Drained {
    let by = evidence.drained.unwrap_or(evidence.event);
    Drained {
        pid: ids(by.pid_tgid).0,
        comm: comm(by.comm),
        time_ns: match evidence.drained {
            Some(event) => Reading::Value(event.end_ns.saturating_sub(event.start_ns)),
            None => Reading::Off(Reason::NotSampled {
                what: "the end of its handler".into(),
            }),
        },
    }
}

/// How the task of an event of kind [`kind::REAL_TIME`] was scheduled. Numbers of policies are those of
/// include/uapi/linux/sched.h; a priority is 99 less what the kernel has (`MAX_RT_PRIO` - 1 - `prio`).
fn sched(event: &StallEvent) -> Option<Sched> {
    const POLICIES: [&str; 8] = [
        "SCHED_OTHER",
        "SCHED_FIFO",
        "SCHED_RR",
        "SCHED_BATCH",
        "SCHED_ISO",
        "SCHED_IDLE",
        "SCHED_DEADLINE",
        "SCHED_EXT",
    ];
    if event.kind != kind::REAL_TIME || event.sched == NONE {
        return None;
    }
    let (policy, prio) = ((event.sched >> 32) as u32, event.sched as u32 as i32);
    let policy = match POLICIES.get(policy as usize) {
        Some(policy) => Name::from(*policy),
        None => format!("policy {policy}").into(),
    };
    let priority = 99_i32.checked_sub(prio).and_then(|p| u32::try_from(p).ok());
    Some(Sched {
        policy,
        // Those of SCHED_DEADLINE are all at -1.
        priority: priority.filter(|p| (1..=99).contains(p)),
    })
}

/// The task that got the CPU at last.
fn waited(kind: StallKind, event: &StallEvent, samples: &[StackSample]) -> Option<Name> {
    if !matches!(kind, StallKind::NoReschedule | StallKind::RealTime) {
        return None;
    }
    let pid = u32::try_from(event.next_pid).ok()?;
    let seen = samples
        .iter()
        .find(|s| s.at_ns >= event.end_ns && ids(s.pid_tgid).0 == pid);
    Some(match seen {
        Some(sample) => comm(sample.comm),
        None if pid == 0 => "swapper".into(),
        None => format!("pid {pid}").into(),
    })
}
