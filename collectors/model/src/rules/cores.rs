//! Findings on softirqs, from the last minute of every CPU.
//!
//! Where stalls are watched they tell more, and these rules are silent: they are for `/proc` alone
//! and for recordings that are older than stalls.

use super::stalls::watched;
use super::{Confidence, Finding, Severity, WINDOW_NS};
use crate::change::caches;
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

/// Ticks with drops in a minute from which on it is no single event, such as a device that went
/// down.
const DROPPING_TICKS: usize = 3;
/// Packets dropped in a minute from which on that is one, however short it was: what a backlog
/// holds by default (net.core.netdev_max_backlog).
const DROPPED: u64 = 1_000;
/// Until this kernel, packets to a device that is not running were counted as well
/// (net/core/dev.c, `enqueue_to_backlog`).
const COUNTS_DEVICES_DOWN_UNTIL: (u16, u16) = (6, 9);

pub(super) fn dropped_packets(model: &Model) -> Option<Finding> {
    let ticks = model.cores.recent(WINDOW_NS);
    let rows = model.cores.numbers().len();
    let dropped = |row: usize, seq: u64| model.cores.cpu(row, seq)?.dropped.map(u64::from);
    let mut total = 0u64;
    let mut worst: Option<(u32, u64)> = None;
    for (row, cpu) in model.cores.numbers().iter().enumerate() {
        let here: u64 = ticks.clone().filter_map(|seq| dropped(row, seq)).sum();
        total += here;
        if here > 0 && worst.is_none_or(|(_, most)| here > most) {
            worst = Some((*cpu, here));
        }
    }
    let (cpu, here) = worst?;
    let any = |seq: &u64| (0..rows).any(|row| dropped(row, *seq).is_some_and(|n| n > 0));
    let dropping = ticks.filter(any).count();
    if dropping < DROPPING_TICKS && total < DROPPED {
        return None;
    }
    let plural = if dropping == 1 { "" } else { "s" };
    let mut evidence = vec![
        format!("in {dropping} tick{plural} of the last 60 s"),
        "/proc/net/softnet_stat, second column; limit: net.core.netdev_max_backlog".into(),
        "it also counts drops by the flow limit (net.core.flow_limit_cpu_bitmap), where one is set"
            .into(),
    ];
    let release = model.header().map(|header| &header.host.release);
    if release
        .and_then(|release| caches::kernel_of(release))
        .is_none_or(|kernel| kernel <= COUNTS_DEVICES_DOWN_UNTIL)
    {
        evidence.push("until kernel 6.9 it also counts packets to devices that went down".into());
    }
    Some(Finding {
        id: "dropped-packets",
        incident: "",
        severity: Severity::Warning,
        // The counter does not say why; that packets were dropped is certain.
        confidence: Confidence::Medium,
        sentence: format!(
            "{} packets dropped before the stack in 60 s, {} on cpu {cpu}: \
             its backlog was likely full",
            Count(total),
            Count(here),
        ),
        evidence,
        action: "",
        pane: "cores",
        disproof: "the eleventh column (flow limit) grows as well, or a device went down then",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{CpuSample, Host, Sample, Softnet};
    use crate::{Header, Reading};

    /// What is found after these ticks of a second, of as many packets dropped on two CPUs.
    fn found(release: &str, ticks: &[[u64; 2]]) -> Option<Finding> {
        let mut model = Model::new();
        let host = Host {
            release: release.into(),
            ..Host::default()
        };
        model.set_header(Header::new("test", 1_000_000_000, host));
        let mut sums = [0; 2];
        for (second, dropped) in (1..).zip([[0; 2]].iter().chain(ticks)) {
            let mut sample = Sample {
                at_ns: second * 1_000_000_000,
                ..Sample::default()
            };
            for (cpu, (sum, more)) in (0..).zip(sums.iter_mut().zip(dropped)) {
                *sum += more;
                sample.cpus.push(CpuSample {
                    cpu,
                    softnet: Reading::Value(Softnet {
                        dropped: *sum,
                        ..Softnet::default()
                    }),
                    ..CpuSample::default()
                });
            }
            model.advance(&mut sample);
        }
        dropped_packets(&model)
    }

    #[test]
    fn a_packet_or_two_dropped_are_no_finding_and_ever_more_are_one() {
        assert_eq!(found("6.1.0", &[[1, 0], [0, 0], [0, 0]]), None);
        assert_eq!(found("6.1.0", &[[900, 0], [0, 0], [0, 90]]), None);
        let few = found("6.1.0", &[[1, 0], [0, 2], [0, 0], [0, 1]]).unwrap();
        assert_eq!(
            few.sentence,
            "4 packets dropped before the stack in 60 s, 3 on cpu 1: its backlog was likely full"
        );
        assert_eq!(few.confidence, Confidence::Medium);
        let evidence = few.evidence.join("; ");
        assert!(evidence.starts_with("in 3 ticks of"), "{evidence}");
        assert!(evidence.contains("devices that went down"), "{evidence}");
        let burst = found("6.12.1", &[[1_000, 0]]).unwrap();
        assert!(burst.evidence[0].starts_with("in 1 tick of"));
        assert!(!burst.evidence.join("; ").contains("devices"));
    }
}
