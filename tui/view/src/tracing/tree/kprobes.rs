//! The kernel's own list of probes, and their master switch.

use stalltop_model::model::tracing::Thing;
use stalltop_model::printable;
use stalltop_model::sample::{KernelProbe, KernelProbeKind, KernelProbes, Tracing};

use super::{Key, Marks, Node, Row, State};
use crate::text;

pub(super) fn nodes(tracing: &Tracing, marks: &Marks<'_>, listed: bool, out: &mut Vec<Node>) {
    let kprobes = match tracing.kprobes.as_ref() {
        Ok(kprobes) => kprobes,
        Err(reason) => return out.push(Node::missing("kernel probes", reason)),
    };
    let children = if listed {
        let list = kprobes.list.iter();
        list.map(|p| Node::leaf(probe_row(p, marks))).collect()
    } else {
        Vec::new()
    };
    out.push(Node::open(switch_row(kprobes, marks, listed), children));
}

fn switch_row(kprobes: &KernelProbes, marks: &Marks<'_>, shown: bool) -> Row {
    let mut row = Row::new(Key::Kprobes, 0, "kernel probes", "");
    row.changed = marks.changed(&Thing::KprobesSwitch);
    let armed = kprobes
        .list
        .iter()
        .filter(|p| !p.disabled && !p.gone)
        .count() as u64;
    let listed = kprobes.list.len() as u64;
    row.state = match kprobes.enabled.get() {
        Some(false) => State::Off,
        _ if armed > 0 => State::On,
        _ => State::None,
    };
    let counts = format!("{} of {} armed", text::count(armed), text::count(listed));
    row.note = match kprobes.enabled.as_ref() {
        Ok(true) => format!("{counts} · master switch 1"),
        Ok(false) => format!(
            "{} listed · master switch 0: all stopped",
            text::count(listed)
        ),
        Err(reason) => format!("{counts} · master switch: {reason}"),
    };
    if listed > 0 && !shown {
        row.note.push_str(" · v lists them");
    }
    row
}

fn probe_row(probe: &KernelProbe, marks: &Marks<'_>) -> Row {
    let ret = probe.kind == KernelProbeKind::Kretprobe;
    let key = Key::Kprobe(ret, probe.symbol.clone(), probe.offset);
    let mut what = printable(&probe.symbol).into_owned();
    if probe.offset > 0 {
        what = format!("{what}+{:#x}", probe.offset);
    }
    let mut row = Row::new(key, 1, what, if ret { "kretprobe" } else { "kprobe" });
    row.state = if probe.disabled || probe.gone {
        State::Off
    } else {
        State::On
    };
    let flags = [
        (probe.disabled, "disabled"),
        (probe.ftrace, "by ftrace"),
        (probe.optimized, "optimized"),
        (probe.gone, "gone"),
    ];
    let mut note: Vec<String> = flags
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| (*name).to_owned())
        .collect();
    if let Some(module) = &probe.module {
        note.push(format!("module {}", printable(module)));
    }
    row.note = note.join(", ");
    row.changed = marks.changed(&Thing::KernelProbe {
        ret,
        symbol: probe.symbol.clone(),
        offset: probe.offset,
    });
    row
}
