//! What cannot be switched from outside, and who to stop instead.

use stalltop_model::change::{ChangeError, shell_word, ways};
use stalltop_model::sample::{
    AttachKind, Attachment, BpfProgram, DynamicKind, EnableState, Holder, Owner, OwnerKind,
};
use stalltop_model::{Reason, printable};

use super::super::selector::{Selector, What};
use super::{Context, Draft};

/// BPF programs that are not ours.
fn programs<'a>(context: &Context<'a>) -> impl Iterator<Item = &'a BpfProgram> {
    let bpf = context.tracing.and_then(|t| t.bpf.value());
    bpf.into_iter()
        .flat_map(|bpf| &bpf.programs)
        .filter(|p| !p.ours)
}

/// Whether a program sits on a kprobe that `kprobes/enabled` stops.
pub(super) fn is_kprobe(attachment: &Attachment) -> bool {
    AttachKind::of(&attachment.kind) == AttachKind::Kprobe
}

/// An owner's name, where it says more than the process does.
pub(super) fn unit(owner: &Owner) -> Option<String> {
    match owner.kind {
        OwnerKind::Root | OwnerKind::Other => None,
        _ => Some(printable(&owner.name).into_owned()),
    }
}

/// A holder as `comm[pid], unit`.
pub(super) fn who(holder: &Holder) -> String {
    let name = format!("{}[{}]", printable(&holder.comm), holder.pid);
    match unit(&holder.owner) {
        None => name,
        Some(unit) => format!("{name}, {unit}"),
    }
}

/// The command that stops a holder.
fn stop(holder: &Holder) -> String {
    ways::of(&holder.owner).map_or_else(
        || format!("stalltop stop {}", holder.pid),
        |way| way.command,
    )
}

/// Who holds a program and how to stop them, in one line.
pub(super) fn held(program: &BpfProgram) -> String {
    if let [first, rest @ ..] = &program.holders[..] {
        let more = match rest.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        return format!("held by {}{more}: {}", who(first), stop(first));
    }
    match program.pins.first() {
        Some(pin) => format!(
            "pinned, held by no process: rm {} (detaches it where nothing else holds it)",
            shell_word(pin)
        ),
        None => "held by no process that stalltop can see (stalltop doctor)".to_owned(),
    }
}

fn name(program: &BpfProgram) -> String {
    format!("BPF program {} {}", program.id, printable(&program.name))
}

/// Names the BPF programs on the events that are switched: they run all the same.
pub(super) fn of_events(context: &Context<'_>, draft: &mut Draft, selector: &Selector) {
    for program in programs(context) {
        for at in program
            .attached
            .iter()
            .filter(|a| a.kind.ends_with("tracepoint") || &*a.kind == "tp_btf")
        {
            let named = match at.target.split_once(':') {
                Some((system, event)) => selector.what.matches(system, event),
                None => match &selector.what {
                    What::Either(e) | What::Event(_, Some(e)) => e.matches(&at.target),
                    _ => false,
                },
            };
            if named && selector.scope.matches("") {
                draft.leave(
                    format!("{} on {}", name(program), printable(&at.target)),
                    format!("an event's switch does not stop it; {}", held(program)),
                );
            }
        }
    }
}

/// For a selector that matches no event: a BPF program on a probe of that name.
pub(super) fn instead_of(context: &Context<'_>, selector: &Selector) -> Option<ChangeError> {
    let wanted = match &selector.what {
        What::Event(Some(group), Some(event))
            if [
                "kprobes",
                "kretprobes",
                "uprobes",
                "kprobe",
                "kretprobe",
                "uprobe",
            ]
            .contains(&group.text()) =>
        {
            event
        }
        What::Either(event) => event,
        _ => return None,
    };
    let mut holders = Vec::new();
    let mut master = false;
    for program in programs(context) {
        for at in program.attached.iter().filter(|a| a.kind.contains("probe")) {
            // `tcp_sendmsg+0x0`, `/bin/bash:0x1234`.
            let function = at.target.split(['+', ' ']).next().unwrap_or_default();
            if wanted.matches(function) {
                master |= is_kprobe(at);
                holders.push(format!("{} ({})", held(program), at.kind));
            }
        }
    }
    let first = holders.first()?.clone();
    holders.dedup();
    let mut instead = holders.join("; ");
    if master {
        instead.push_str("; or `stalltop off kprobes`, all kprobes of the host at once");
    }
    Some(ChangeError::Instead {
        reason: Reason::Busy {
            by: format!("a BPF program that only its holder can detach, {first}").into(),
        },
        instead: instead.into(),
    })
}

/// Attachments counted by kind, for one holder.
struct Tally<'a> {
    holder: String,
    /// How to stop it, or why that is not known.
    how: String,
    kinds: Vec<(&'a str, u32)>,
    programs: u32,
}

impl<'a> Tally<'a> {
    /// Counts an attachment for a holder, once per program that has any.
    fn count(all: &mut Vec<Self>, (holder, how): (String, String), kind: &'a str, first: bool) {
        let at = all.iter().position(|t| t.holder == holder);
        let at = at.unwrap_or_else(|| {
            all.push(Tally {
                holder,
                how,
                kinds: Vec::new(),
                programs: 0,
            });
            all.len() - 1
        });
        let tally = &mut all[at];
        tally.programs += u32::from(first);
        match tally.kinds.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, n)) => *n += 1,
            None => tally.kinds.push((kind, 1)),
        }
    }

    /// `2 kprobes, 16 kretprobes`.
    fn kinds(&self) -> String {
        let kinds = self.kinds.iter().map(|(kind, n)| match (n, *kind) {
            (1, kind) => format!("1 {kind}"),
            (n, kind) if kind.ends_with("probe") || kind.ends_with("point") => {
                format!("{n} {kind}s")
            }
            (n, kind) => format!("{n} {kind}"),
        });
        kinds.collect::<Vec<_>>().join(", ")
    }
}

/// What `kprobes/enabled` stops and what it does not, a line per holder.
pub(super) fn of_kprobes(context: &Context<'_>, draft: &mut Draft) {
    let (mut stopped, mut deaf) = (Vec::new(), Vec::new());
    for program in programs(context) {
        // A forked child inherits descriptors: the first stands for all.
        let holder = match (program.holders.first(), program.pins.first()) {
            (Some(first), _) => (who(first), stop(first)),
            (None, Some(pin)) => (
                format!("pinned at {}", printable(pin)),
                format!("rm {}", shell_word(pin)),
            ),
            (None, None) => (
                "held by no process".to_owned(),
                "bpftool prog show tells more".to_owned(),
            ),
        };
        let (mut first_stopped, mut first_deaf) = (true, true);
        for at in &program.attached {
            if is_kprobe(at) {
                Tally::count(&mut stopped, holder.clone(), &at.kind, first_stopped);
                first_stopped = false;
            } else if AttachKind::of(&at.kind) == AttachKind::Deaf {
                Tally::count(&mut deaf, holder.clone(), &at.kind, first_deaf);
                first_deaf = false;
            }
        }
    }
    let perf = context.tracing.and_then(|t| t.perf.value());
    for user in perf.into_iter().flatten() {
        let holder = (who(&user.holder), stop(&user.holder));
        match &*user.kind {
            kind @ ("kprobe" | "kretprobe") => {
                Tally::count(&mut stopped, holder, kind, false);
            }
            kind @ ("uprobe" | "uretprobe") => Tally::count(&mut deaf, holder, kind, false),
            _ => {}
        }
    }
    for tally in &stopped {
        let programs = match tally.programs {
            0 => "no BPF".to_owned(),
            1 => "1 BPF program".to_owned(),
            n => format!("{n} BPF programs"),
        };
        draft.note(format!(
            "stops {}: {} ({programs})",
            tally.holder,
            tally.kinds()
        ));
    }
    for tally in &deaf {
        draft.leave(
            format!("{}: {}", tally.holder, tally.kinds()),
            format!("stays on; {}", tally.how),
        );
    }
    let known = context.tracing.and_then(|t| t.bpf.as_ref().err());
    if let Some(reason) = known {
        draft.note(format!("whose they are is not known: {reason}"));
    }
    draft.note("does not stop kprobe.multi, fentry, fexit, uprobes or tracepoints");
}

/// The kprobes of tracefs among those that are stopped.
pub(super) fn of_tracefs(context: &Context<'_>, draft: &mut Draft) {
    let tracefs = context.tracing.and_then(|t| t.tracefs.value());
    let on = tracefs.into_iter().flat_map(|t| &t.dynamic).filter(|e| {
        matches!(e.kind, DynamicKind::Kprobe | DynamicKind::Kretprobe)
            && e.state.get().is_some_and(EnableState::is_on)
    });
    let names: Vec<String> = on
        .map(|e| format!("{}:{}", printable(&e.group), printable(&e.name)))
        .collect();
    match names.as_slice() {
        [] => {}
        [one] => draft.note(format!("stops {one} of tracefs")),
        [one, rest @ ..] => {
            draft.note(format!("stops {one} and {} more of tracefs", rest.len()));
        }
    }
}

/// How to stop kprobes one holder at a time, where the master switch cannot be had.
pub(super) fn stop_kprobe_holders(context: &Context<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for program in programs(context).filter(|p| p.attached.iter().any(is_kprobe)) {
        for holder in &program.holders {
            let line = format!("stop {} ({})", who(holder), stop(holder));
            if !all.contains(&line) {
                all.push(line);
            }
        }
    }
    all
}
