//! Findings on softirqs, from the last minute of every CPU.
//!
//! Where stalls are watched they tell more, and these rules are silent: they are for `/proc` alone
//! and for recordings that are older than stalls.

use super::stalls::watched;
use super::{Confidence, Finding, Severity, WINDOW_NS};
use crate::model::Model;
use crate::model::cores::CpuTick;
use crate::sample::{StallKind, Vector};
use crate::units::{Count, Duration};

/// From when on a delay counts, ns. A hypervisor may pause a virtual CPU for a few
/// milliseconds at any time, hence the higher one.
fn threshold_ns(model: &Model) -> u64 {
    if model.is_virtual() {
        10_000_000
    } else {
        5_000_000
    }
}

/// Ticks in which something took too long, of all CPUs.
struct Late {
    ticks: u64,
    worst_ns: u64,
    cpu: u32,
    vector: Vector,
    /// Ticks on the worst CPU.
    there: u64,
    stolen: bool,
}

fn late(model: &Model, pick: impl Fn(&CpuTick) -> Option<(u64, Vector)>) -> Option<Late> {
    let limit = threshold_ns(model);
    let window = model.cores.recent(WINDOW_NS);
    let mut all: Option<Late> = None;
    let mut total = 0;
    for (row, cpu) in model.cores.numbers().iter().enumerate() {
        let mut there = 0;
        let mut worst: Option<(u64, Vector, bool)> = None;
        for seq in window.clone() {
            let Some(tick) = model.cores.cpu(row, seq) else {
                continue;
            };
            let Some((ns, vector)) = pick(tick).filter(|(ns, _)| *ns >= limit) else {
                continue;
            };
            there += 1;
            if worst.is_none_or(|(most, ..)| ns > most) {
                worst = Some((ns, vector, tick.steal.is_some_and(|s| s > 0.0)));
            }
        }
        total += there;
        if let Some((worst_ns, vector, stolen)) = worst
            && all.as_ref().is_none_or(|a| worst_ns > a.worst_ns)
        {
            all = Some(Late {
                ticks: 0,
                worst_ns,
                cpu: *cpu,
                vector,
                there,
                stolen,
            });
        }
    }
    let mut all = all?;
    all.ticks = total;
    // One late moment in a minute is no incident, unless it was a long one.
    (all.ticks >= 3 || all.worst_ns >= 10 * limit).then_some(all)
}

fn evidence(late: &Late) -> Vec<String> {
    let mut lines = vec![format!(
        "cpu {}: worst {} ({}), {} of its ticks in the last 60 s over the limit",
        late.cpu,
        Duration(late.worst_ns),
        late.vector.as_str(),
        late.there,
    )];
    if late.stolen {
        lines.push("the hypervisor took time from this CPU in that tick (steal)".into());
    }
    lines
}

pub(super) fn late_softirqs(model: &Model) -> Option<Finding> {
    if watched(model, StallKind::SoftirqPending) {
        return None;
    }
    let late = late(model, |tick| tick.delay_max)?;
    Some(Finding {
        id: "late-softirqs",
        incident: "I2",
        severity: severity(&late, threshold_ns(model)),
        confidence: Confidence::Medium,
        sentence: format!(
            "softirqs enter late on cpu {}: worst {} after the raise ({}), in {} ticks of the last 60 s on all cpus",
            late.cpu,
            Duration(late.worst_ns),
            late.vector.as_str(),
            late.ticks,
        ),
        evidence: evidence(&late),
        action: "",
        pane: "cores",
        disproof: "steal on that CPU explains it, or other hosts of the same load show the same",
    })
}

pub(super) fn long_handlers(model: &Model) -> Option<Finding> {
    if watched(model, StallKind::SoftirqHandler) {
        return None;
    }
    let late = late(model, |tick| tick.service_max)?;
    Some(Finding {
        id: "long-handlers",
        incident: "",
        severity: severity(&late, threshold_ns(model)),
        confidence: Confidence::Medium,
        sentence: format!(
            "softirq handlers hold cpu {}: {} ran {} at the longest, in {} ticks of the last 60 s on all cpus",
            late.cpu,
            late.vector.as_str(),
            Duration(late.worst_ns),
            late.ticks,
        ),
        evidence: evidence(&late),
        action: "",
        pane: "cores",
        disproof: "steal on that CPU explains it",
    })
}

fn severity(late: &Late, limit: u64) -> Severity {
    if late.worst_ns >= 10 * limit {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

pub(super) fn starved_ksoftirqd(model: &Model) -> Option<Finding> {
    const LOOK_BACK_NS: u64 = 10_000_000_000;
    if watched(model, StallKind::KsoftirqdWaiting) {
        return None;
    }
    let ticks = model.cores.recent(LOOK_BACK_NS);
    let mut worst: Option<(u32, f32)> = None;
    for (row, cpu) in model.cores.numbers().iter().enumerate() {
        let waits = ticks
            .clone()
            .filter_map(|seq| model.cores.cpu(row, seq)?.ksoftirqd_wait);
        let (sum, n) = waits.fold((0.0f32, 0u32), |(sum, n), wait| (sum + wait, n + 1));
        let mean = if n >= 3 { sum / n as f32 } else { continue };
        if mean >= 0.1 && worst.is_none_or(|(_, most)| mean > most) {
            worst = Some((*cpu, mean));
        }
    }
    let (cpu, mean) = worst?;
    Some(Finding {
        id: "starved-ksoftirqd",
        incident: "I2",
        severity: if mean >= 0.5 {
            Severity::Critical
        } else {
            Severity::Warning
        },
        confidence: Confidence::Low,
        sentence: format!(
            "ksoftirqd/{cpu} was runnable but waited for its CPU {:.0} % of the last 10 s",
            mean * 100.0
        ),
        evidence: vec![format!(
            "run-queue delay of ksoftirqd/{cpu}, summed over the ticks"
        )],
        action: "",
        pane: "cores",
        disproof: "no vector stays pending meanwhile: a waiting ksoftirqd alone holds up nothing",
    })
}

pub(super) fn dropped_packets(model: &Model) -> Option<Finding> {
    let ticks = model.cores.recent(WINDOW_NS);
    let mut total = 0u64;
    let mut worst: Option<(u32, u64)> = None;
    for (row, cpu) in model.cores.numbers().iter().enumerate() {
        let drops = ticks
            .clone()
            .filter_map(|seq| model.cores.cpu(row, seq)?.dropped);
        let here: u64 = drops.map(u64::from).sum();
        total += here;
        if here > 0 && worst.is_none_or(|(_, most)| here > most) {
            worst = Some((*cpu, here));
        }
    }
    let (cpu, here) = worst?;
    Some(Finding {
        id: "dropped-packets",
        incident: "",
        severity: Severity::Warning,
        confidence: Confidence::High,
        sentence: format!(
            "{} packets dropped before the stack in 60 s, {} of them on cpu {cpu}: its backlog was full",
            Count(total),
            Count(here),
        ),
        evidence: vec![
            "/proc/net/softnet_stat, second column; limit: net.core.netdev_max_backlog".into(),
        ],
        action: "",
        pane: "cores",
        disproof: "the counter also counts flow-limit drops (net.core.flow_limit_cpu_bitmap)",
    })
}
