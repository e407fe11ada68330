//! Findings on contention of the kernel's locks, and on probes (I1).
//!
//! Two rules share the waits: those behind somebody's probes are [`probe_storm`]'s, all others
//! [`mod@contention`]'s. Both look at the last ten seconds, and never back past a change: what was
//! switched off is not held against anybody.

mod contention;
mod frames;
mod storm;
mod suspect;
#[cfg(test)]
mod tests;

use super::{Confidence, Finding, Severity};
use crate::change::Request;
use crate::model::Model;
use crate::model::locks::SharePoint;
use crate::model::verdict::{Came, short};
use crate::sample::LockKind;

pub(super) use contention::contention;
pub(super) use storm::probe_storm;

/// How far rules look back, ns: long enough for ten windows, short enough that what ended is
/// soon over here as well.
const WINDOW_NS: u64 = 10_000_000_000;
/// How much must have been watched before anything is said, ns.
const LEAST_NS: u64 = 2_500_000_000;
/// Samples of busy CPUs before shares of them mean anything.
const LEAST_SAMPLES: u64 = 200;
/// Frames of a stack that evidence shows.
const FRAMES: usize = 8;

/// What waited of late, without a word of who: allocates nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    /// `(from, to]` of `CLOCK_BOOTTIME`, ns.
    from_ns: u64,
    to_ns: u64,
    /// For how long the tracepoints were watched, ns.
    measured_ns: u64,
    /// Waits that burnt their CPU, ns.
    spun_ns: u64,
    /// Waits that slept, ns.
    slept_ns: u64,
    /// For how long there were samples, ns.
    sampled_ns: u64,
    samples: SharePoint,
    /// Whether spinning shows in the tracepoints of this host.
    spins_show: bool,
}

impl Recent {
    fn of(model: &Model) -> Self {
        let to_ns = model.now().at_ns;
        let changed = model.newest_verdict().map_or(0, |(_, verdict)| {
            to_ns.saturating_sub(model.now().at_ns.saturating_sub(verdict.at_ns))
        });
        let mut recent = Self {
            from_ns: to_ns.saturating_sub(WINDOW_NS).max(changed),
            to_ns,
            ..Self::default()
        };
        let of_late = model
            .locks
            .history()
            .rev()
            .take_while(|p| p.at_ns.saturating_sub(p.span_ns) >= recent.from_ns)
            .filter(|p| p.at_ns <= to_ns);
        for point in of_late {
            recent.measured_ns += point.measured_ns;
            if point.measured_ns > 0 {
                for (kind, waits) in LockKind::ALL.iter().zip(&point.kinds) {
                    let sum = if kind.spins() {
                        &mut recent.spun_ns
                    } else {
                        &mut recent.slept_ns
                    };
                    // A wait ends in one window and may have begun long before it: what one wait
                    // can have taken of this window is at most its length.
                    let most = waits.count.saturating_mul(point.span_ns);
                    *sum = sum.saturating_add(waits.wait_ns.min(most));
                }
            }
            if let Some(share) = &point.share {
                recent.sampled_ns += point.span_ns;
                recent.samples.add(share);
            }
        }
        let watch = model.now().locks.value().map(|locks| &locks.watch);
        let hidden = watch.and_then(|w| w.hidden.value());
        recent.spins_show = recent.measured_ns >= LEAST_NS
            && hidden.is_none_or(|h| h.iter().all(|h| !h.kinds.contains(&LockKind::Spin)));
        recent
    }

    /// Waits as seconds a second; `None` where too little was watched.
    fn per_s(&self, wait_ns: u64) -> Option<f64> {
        (self.measured_ns >= LEAST_NS).then(|| wait_ns as f64 / self.measured_ns as f64)
    }

    /// Samples as a share of those of busy CPUs; `None` where there are too few.
    fn part(&self, samples: u64) -> Option<f64> {
        let enough = self.sampled_ns >= LEAST_NS && self.samples.samples >= LEAST_SAMPLES;
        enough.then(|| samples as f64 / self.samples.samples as f64)
    }
}

/// How many CPUs the host has.
fn cpus(model: &Model) -> f64 {
    model
        .now()
        .cpus
        .iter()
        .filter(|cpu| cpu.online)
        .count()
        .max(1) as f64
}

/// A stack as it was called, outermost function first, the innermost ones only.
fn called(frames: &[crate::Name]) -> String {
    let shown = frames.iter().take(FRAMES).rev();
    let names: Vec<_> = shown.map(|name| crate::name::printable(name)).collect();
    let more = if frames.len() > FRAMES { "... > " } else { "" };
    format!("{more}{}", names.join(" > "))
}

/// After a change that moved something: what, for as long as that is news; what moved nothing
/// is said in the list of changes alone. A drop of caches has a rule of its
/// own.
pub(super) fn changed(model: &Model) -> Option<Finding> {
    let (entry, verdict) = model.newest_verdict()?;
    if matches!(entry.plan.request, Request::DropCaches { .. }) || verdict.came() != Came::Moved {
        return None;
    }
    let age = model.now().wall_ns.saturating_sub(verdict.wall_ns) / 1_000_000_000;
    let mut evidence = verdict.lines();
    evidence.push(format!("change {} of the journal", verdict.entry));
    Some(Finding {
        id: "change-effect",
        incident: "",
        severity: Severity::Info,
        confidence: match verdict.came() {
            Came::Moved if verdict.less_work().is_none() && verdict.others == 0 => Confidence::High,
            _ => Confidence::Medium,
        },
        sentence: format!("{}, {age} s ago: {verdict}", short(entry)),
        evidence,
        action: if entry.standing().can_undo() {
            "undo"
        } else {
            ""
        },
        pane: "tracing",
        disproof: "something else changed at the same time, such as the load",
    })
}
