//! BPF programs and perf events below the processes that hold them, and what nobody holds.

use std::collections::HashSet;

use stalltop_model::model::tracing::Thing;
use stalltop_model::sample::{
    Attachment, BpfLink, BpfObjects, BpfProgram, Costs, Holder, OwnerKind, PerfUse, Tracing,
};
use stalltop_model::{Reason, printable};

use super::super::cost::{self, Cost};
use super::{Key, Marks, Node, Orphans, Row, State};
use crate::text;

/// What one process holds.
#[derive(Default)]
struct Group<'a> {
    programs: Vec<&'a BpfProgram>,
    perf: Vec<&'a PerfUse>,
}

/// Holders, the costliest first, then what no process holds.
pub(super) fn nodes(
    tracing: &Tracing,
    (costs, at_ns): (Option<&Costs>, u64),
    marks: &Marks<'_>,
    show_ours: bool,
    out: &mut Vec<Node>,
) {
    let mut holders: Vec<(&Holder, Group<'_>)> = Vec::new();
    let mut orphans: Vec<&BpfProgram> = Vec::new();
    let programs = tracing.bpf.value().into_iter().flat_map(|b| &b.programs);
    for program in programs.filter(|p| show_ours || !p.ours) {
        // A forked child inherits descriptors: the program stands below each process once.
        let mut pids: Vec<u32> = Vec::new();
        for holder in &program.holders {
            if pids.contains(&holder.pid) {
                continue;
            }
            pids.push(holder.pid);
            group(&mut holders, holder).programs.push(program);
        }
        if pids.is_empty() {
            orphans.push(program);
        }
    }
    for user in tracing.perf.value().into_iter().flatten() {
        group(&mut holders, &user.holder).perf.push(user);
    }
    let mut nodes: Vec<Node> = holders
        .iter()
        .map(|(holder, group)| holder_node(holder, group, costs, marks))
        .collect();
    nodes.sort_by_key(|n| {
        let count = std::cmp::Reverse(n.children.len());
        let pid = match n.row.key {
            Key::Holder(pid) => pid,
            _ => 0,
        };
        (std::cmp::Reverse(n.row.cost.rank()), count, pid)
    });
    out.append(&mut nodes);
    match tracing.bpf.as_ref() {
        Ok(bpf) => {
            nobody(bpf, &orphans, (costs, at_ns), marks, out);
            links(bpf, marks, out);
        }
        Err(reason) => out.push(Node::missing("BPF programs", reason)),
    }
    match tracing.perf.as_ref() {
        Ok(_) | Err(Reason::Starting | Reason::NotAsked | Reason::NotRecorded) => {}
        Err(reason) => out.push(Node::missing("perf users without BPF", reason)),
    }
}

fn group<'a, 'b>(
    all: &'b mut Vec<(&'a Holder, Group<'a>)>,
    holder: &'a Holder,
) -> &'b mut Group<'a> {
    let at = all.iter().position(|(h, _)| h.pid == holder.pid);
    let at = at.unwrap_or_else(|| {
        all.push((holder, Group::default()));
        all.len() - 1
    });
    &mut all[at].1
}

fn holder_node(
    holder: &Holder,
    group: &Group<'_>,
    costs: Option<&Costs>,
    marks: &Marks<'_>,
) -> Node {
    let mut what = format!("{}[{}]", printable(&holder.comm), holder.pid);
    if !matches!(holder.owner.kind, OwnerKind::Root | OwnerKind::Other) {
        what = format!("{what}  {}", printable(&holder.owner.name));
    }
    let mut row = Row::new(Key::Holder(holder.pid), 0, what, "process");
    row.note = summary(group);
    row.ours = !group.programs.is_empty() && group.programs.iter().all(|p| p.ours);
    let programs = group.programs.iter();
    let mut children: Vec<Row> = programs
        .map(|p| program_row(p, holder.pid, costs, marks))
        .collect();
    children.extend(group.perf.iter().map(|p| perf_row(p)));
    row.cost = Cost::sum(children.iter().map(|r| &r.cost));
    Node::open(row, children.into_iter().map(Node::leaf).collect())
}

/// `16 kretprobes, 2 kprobes, 9 programs`.
fn summary(group: &Group<'_>) -> String {
    let mut kinds: Vec<(&str, u64)> = Vec::new();
    for at in group.programs.iter().flat_map(|p| &p.attached) {
        match kinds.iter_mut().find(|(kind, _)| *kind == &*at.kind) {
            Some((_, n)) => *n += 1,
            None => kinds.push((&at.kind, 1)),
        }
    }
    kinds.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let mut parts: Vec<String> = kinds
        .into_iter()
        .map(|(kind, n)| text::plural(n, &printable(kind)))
        .collect();
    if !group.programs.is_empty() {
        parts.push(text::plural(group.programs.len() as u64, "program"));
    }
    if !group.perf.is_empty() {
        parts.push(format!(
            "{} by perf",
            text::plural(group.perf.len() as u64, "event")
        ));
    }
    parts.join(", ")
}

/// Programs without a process: by what keeps them.
fn nobody(
    bpf: &BpfObjects,
    orphans: &[&BpfProgram],
    (costs, at_ns): (Option<&Costs>, u64),
    marks: &Marks<'_>,
    out: &mut Vec<Node>,
) {
    for (kind, title, says) in [
        (
            Orphans::Pinned,
            "pinned in bpffs",
            "held by no process: removing the pin detaches them",
        ),
        (
            Orphans::Attached,
            "attached, held by no process",
            "device or cgroup keeps them; who loaded them is not known",
        ),
        (
            Orphans::Unknown,
            "loader not known",
            "no process, pin or place that stalltop can see",
        ),
    ] {
        let of_kind = orphans.iter().filter(|p| Orphans::of(p) == kind);
        let children: Vec<Row> = of_kind
            .map(|p| {
                let mut row = program_row(p, 0, costs, marks);
                if kind != Orphans::Pinned {
                    let age = at_ns.saturating_sub(p.loaded_at_ns);
                    let by = format!("loaded by uid {}, {} ago", p.uid, text::ago(age));
                    row.note = format!("{by}, {}", row.note);
                }
                row
            })
            .collect();
        if children.is_empty() {
            continue;
        }
        // Whose descriptors cannot be read may well hold them.
        let (title, note) = match bpf.holders.as_ref() {
            Ok(()) => (title, says.to_owned()),
            Err(reason) => {
                let title = match kind {
                    Orphans::Attached => "attached, holders not known",
                    _ => title,
                };
                let reason = format!("holders not known: {reason}; fix: {}", reason.fix());
                (title, reason)
            }
        };
        let mut row = Row::new(Key::Nobody(kind), 0, title, "BPF");
        row.note = note;
        row.cost = Cost::sum(children.iter().map(|r| &r.cost));
        out.push(Node::open(
            row,
            children.into_iter().map(Node::leaf).collect(),
        ));
    }
}

/// Links whose programs are not listed.
fn links(bpf: &BpfObjects, marks: &Marks<'_>, out: &mut Vec<Node>) {
    let programs: HashSet<u32> = bpf.programs.iter().map(|p| p.id).collect();
    let attached = bpf.programs.iter().flat_map(|p| &p.attached);
    // Links of struct_ops name a map in place of a program.
    let named: HashSet<u32> = attached.filter_map(|a| a.link).collect();
    let listed = |l: &BpfLink| programs.contains(&l.program) || named.contains(&l.id);
    for link in bpf.links.iter().filter(|l| !listed(l)) {
        let what = format!("link {} of program {}", link.id, link.program);
        let mut row = Row::new(Key::Link(link.id), 0, what, printable(&link.kind));
        row.note = printable(&link.target).into_owned();
        row.changed = marks.changed(&Thing::Link(link.id));
        out.push(Node::leaf(row));
    }
}

fn program_row(program: &BpfProgram, holder: u32, costs: Option<&Costs>, marks: &Marks<'_>) -> Row {
    let named = |a: &Attachment| match (a.kind.is_empty(), a.target.is_empty()) {
        (_, true) => printable(&a.kind).into_owned(),
        (true, _) => printable(&a.target).into_owned(),
        _ => format!("{}:{}", printable(&a.kind), printable(&a.target)),
    };
    let mut what = program.attached.first().map_or_else(
        || format!("{} (where is not known)", printable(&program.name)),
        named,
    );
    if program.attached.len() > 1 {
        what = format!("{what} and {} more", program.attached.len() - 1);
    }
    let key = Key::Program(program.id, holder);
    let mut row = Row::new(key, 1, what, printable(&program.kind));
    if !program.attached.is_empty() {
        row.state = State::On;
    }
    row.cost = cost::of_program(costs, program.id);
    row.warn = cost::suspicion(costs, program);
    row.note = format!("prog {} {}", program.id, printable(&program.name));
    let others = program.holders.iter().filter(|h| h.pid != holder).count();
    if others > 0 && holder != 0 {
        row.note = format!("{}, {others} more hold it", row.note);
    }
    if let Some(pin) = program.pins.first() {
        row.note = format!("{}, pinned at {}", row.note, printable(pin));
    }
    row.changed = marks.changed(&Thing::Program(program.id));
    row.ours = program.ours;
    row
}

/// A perf event without BPF: neither hits nor time are the kernel's to tell.
fn perf_row(user: &PerfUse) -> Row {
    let what = format!("{} (perf)", printable(&user.event));
    let key = Key::Perf(user.holder.pid, user.kind.clone(), user.event.clone());
    let mut row = Row::new(key, 1, what, printable(&user.kind));
    row.state = if user.on > 0 { State::On } else { State::Off };
    row.cost = Cost::UNKNOWN;
    row.note = format!(
        "no BPF, {}, {} on",
        text::plural(user.descriptors.into(), "descriptor"),
        text::count(user.on.into())
    );
    row
}
