//! What a finding on stalls rests on, a line each.

use std::fmt::Write as _;
use std::sync::Arc;

use super::Harm;
use crate::model::Model;
use crate::model::stalls::main_stack;
use crate::name::printable;
use crate::sample::{Culprit, OwnerKind, Sampling, Stall, StallKind};
use crate::units::Duration;

/// Functions of a stack that are shown.
const FRAMES: usize = 8;

/// Counts by kind, what they add up to, what may be the hypervisor's, and how long ago.
pub(super) fn lines<'a>(
    model: &Model,
    stalls: &(impl DoubleEndedIterator<Item = &'a Arc<Stall>> + Clone),
    harm: &Harm,
) -> Vec<String> {
    let mut kinds = String::new();
    for kind in StallKind::ALL {
        let of = stalls.clone().filter(|s| s.kind == kind).count();
        if of > 0 {
            let comma = if kinds.is_empty() { "" } else { ", " };
            let _ = write!(kinds, "{comma}{of} {}", kind.as_str());
        }
    }
    let mut delays: Vec<u64> = stalls.clone().map(|s| s.delay_ns).collect();
    delays.sort_unstable();
    let typical = delays.get(delays.len() / 2).copied().unwrap_or(0);
    let last = stalls.clone().map(|s| s.at_ns).max().unwrap_or(0);
    let ago = match model.now().at_ns.saturating_sub(last) / 1_000_000_000 {
        0 => "just now".to_owned(),
        seconds => format!("{seconds} s ago"),
    };
    if harm.rows > harm.count {
        kinds += " (one hold may be seen as several)";
    }
    let mut lines = vec![format!(
        "by kind: {kinds}; {} together, typically {}, the last {ago}",
        Duration(harm.total_ns),
        Duration(typical),
    )];
    if harm.either > 0 {
        lines.push(format!(
            "{} of {}: interrupts were off or the hypervisor paused the virtual CPU, nothing tells which",
            harm.either, harm.count
        ));
    }
    lines
}

/// The longest one: who, where, how much of it was seen.
pub(super) fn worst(stall: &Stall) -> Vec<String> {
    let mut lines = Vec::new();
    let what = match stall.vector {
        Some(vector) => format!("{} {}", vector.as_str(), stall.kind.as_str()),
        None => stall.kind.as_str().to_owned(),
    };
    let head = format!(
        "the worst, on cpu {}, {what} {}",
        stall.cpu,
        Duration(stall.delay_ns)
    );
    match stall.culprit.as_ref() {
        Ok(culprit) => {
            let (of, all) = culprit.samples;
            let how = match stall.sampling {
                Sampling::Tick => "tick samples",
                Sampling::Clock | Sampling::Nmi => "samples",
            };
            let call = culprit.syscall.as_ref();
            let call = call.map_or(String::new(), |call| format!(" in {}(2)", printable(call)));
            lines.push(format!(
                "{head}: held by {}{call}, {of} of {all} {how}",
                who(culprit)
            ));
        }
        Err(reason) => lines.push(format!("{head}: culprit not known: {reason}")),
    }
    let main = main_stack(stall).and_then(|i| stall.stacks.get(i as usize));
    if let Some(stack) = main.filter(|stack| !stack.is_empty()) {
        // Outermost first, as it was called.
        let shown = stack.iter().take(FRAMES).rev();
        let names: Vec<_> = shown.map(|name| printable(name)).collect();
        let more = if stack.len() > FRAMES { "... > " } else { "" };
        lines.push(format!("its stack: {more}{}", names.join(" > ")));
    }
    lines
}

/// Who it is: `it is cadvisor[10436] of pod x`.
pub(super) fn process<'a>(
    stalls: &(impl DoubleEndedIterator<Item = &'a Arc<Stall>> + Clone),
) -> String {
    let culprits = stalls.clone().filter_map(|s| s.culprit.value());
    let mut tgids: Vec<u32> = culprits.clone().map(|c| c.tgid).collect();
    tgids.sort_unstable();
    tgids.dedup();
    let Some(newest) = culprits.clone().next_back() else {
        return String::new();
    };
    let cgroup = match (newest.owner.value(), newest.cgroup.value()) {
        (Some(owner), _) if owner.kind != OwnerKind::Root => String::new(),
        (_, Some(path)) => format!(", cgroup {}", printable(path)),
        (_, None) => String::new(),
    };
    match tgids.len() {
        0 | 1 => format!("it is {}{cgroup}", who(newest)),
        n => format!("{n} processes of that name, the newest {}", who(newest)),
    }
}

/// `cadvisor[10436] of pod x`.
pub(super) fn who(culprit: &Culprit) -> String {
    let mut name = printable(&culprit.comm).into_owned();
    if culprit.tgid != 0 {
        let _ = write!(name, "[{}]", culprit.tgid);
    }
    match culprit.owner.value() {
        Some(owner) if owner.kind != OwnerKind::Root && !owner.name.is_empty() => {
            format!("{name} of {}", printable(&owner.name))
        }
        _ => name,
    }
}
