//! BPF programs below the processes that hold them.

use stalltop_model::model::tracing::Thing;
use stalltop_model::printable;
use stalltop_model::sample::{Attachment, BpfProgram, Holder, Tracing};

use super::{Key, Marks, Node, Row, State};
use crate::text;

/// Holders with most programs first, then what no process holds.
pub(super) fn nodes(tracing: &Tracing, marks: &Marks<'_>, show_ours: bool, out: &mut Vec<Node>) {
    let bpf = match tracing.bpf.as_ref() {
        Ok(bpf) => bpf,
        Err(reason) => return out.push(Node::missing("BPF programs", reason)),
    };
    let mut holders: Vec<(&Holder, Vec<&BpfProgram>)> = Vec::new();
    let mut orphans: Vec<&BpfProgram> = Vec::new();
    for program in bpf.programs.iter().filter(|p| show_ours || !p.ours) {
        // A forked child inherits descriptors: the program stands below each process once.
        let mut pids: Vec<u32> = Vec::new();
        for holder in &program.holders {
            if pids.contains(&holder.pid) {
                continue;
            }
            pids.push(holder.pid);
            match holders.iter_mut().find(|(h, _)| h.pid == holder.pid) {
                Some((_, programs)) => programs.push(program),
                None => holders.push((holder, vec![program])),
            }
        }
        if pids.is_empty() {
            orphans.push(program);
        }
    }
    holders.sort_by_key(|(h, programs)| (std::cmp::Reverse(programs.len()), h.pid));
    for (holder, programs) in holders {
        let what = format!("{}[{}]", printable(&holder.comm), holder.pid);
        let mut row = Row::new(Key::Holder(holder.pid), 0, what, "process");
        row.note = format!(
            "{} · {}",
            printable(&holder.owner.name),
            text::plural(programs.len() as u64, "BPF program")
        );
        row.ours = programs.iter().all(|p| p.ours);
        let children = programs.iter().map(|p| program_row(p, holder.pid, marks));
        out.push(Node::open(row, children.map(Node::leaf).collect()));
    }
    if !orphans.is_empty() {
        let mut row = Row::new(Key::Pinned, 0, "held by no process", "BPF");
        row.note = match bpf.holders.as_ref() {
            Ok(()) => "attached, or pinned in bpffs".into(),
            Err(reason) => format!("holders not known: {reason}; fix: {}", reason.fix()),
        };
        let children = orphans.iter().map(|p| program_row(p, 0, marks));
        out.push(Node::open(row, children.map(Node::leaf).collect()));
    }
    let listed = |id: u32| bpf.programs.iter().any(|p| p.id == id);
    for link in bpf.links.iter().filter(|l| !listed(l.program)) {
        let what = format!("link {} of program {}", link.id, link.program);
        let mut row = Row::new(Key::Link(link.id), 0, what, printable(&link.kind));
        row.note = printable(&link.target).into_owned();
        row.changed = marks.changed(&Thing::Link(link.id));
        out.push(Node::leaf(row));
    }
}

fn program_row(program: &BpfProgram, holder: u32, marks: &Marks<'_>) -> Row {
    let named = |a: &Attachment| match (a.kind.is_empty(), a.target.is_empty()) {
        (_, true) => printable(&a.kind).into_owned(),
        (true, _) => printable(&a.target).into_owned(),
        _ => format!("{}:{}", printable(&a.kind), printable(&a.target)),
    };
    let mut what = program.attached.first().map_or_else(
        || format!("{} (attached to nothing)", printable(&program.name)),
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
    row.note = format!("prog {} {}", program.id, printable(&program.name));
    let others = program.holders.iter().filter(|h| h.pid != holder).count();
    if others > 0 && holder != 0 {
        row.note = format!("{}, {others} more hold it", row.note);
    }
    if let Some(pin) = program.pins.first() {
        row.note = format!("{}, pinned {}", row.note, printable(pin));
    }
    row.changed = marks.changed(&Thing::Program(program.id));
    row.ours = program.ours;
    row
}
