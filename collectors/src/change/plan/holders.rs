//! What cannot be switched from outside, and who to stop instead.

use stalltop_model::change::ChangeError;
use stalltop_model::sample::{Attachment, BpfProgram, Holder, OwnerKind};
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
    matches!(&*attachment.kind, "kprobe" | "kretprobe")
}

/// A holder as `comm[pid], unit`.
pub(super) fn who(holder: &Holder) -> String {
    let name = format!("{}[{}]", printable(&holder.comm), holder.pid);
    match holder.owner.kind {
        OwnerKind::Root | OwnerKind::Other => name,
        _ => format!("{name}, {}", printable(&holder.owner.name)),
    }
}

/// The command that stops a holder.
fn stop(holder: &Holder) -> String {
    let name = printable(&holder.owner.name);
    let last = name.rsplit([' ', '/']).next().unwrap_or_default();
    match holder.owner.kind {
        OwnerKind::Unit => format!("systemctl stop {name}"),
        OwnerKind::Docker => format!("docker stop {last}"),
        OwnerKind::Podman => format!("podman stop {last}"),
        OwnerKind::Containerd | OwnerKind::CriO => format!("crictl stop {last}"),
        OwnerKind::Lxc => format!("lxc-stop {last}"),
        _ => format!("kill {}", holder.pid),
    }
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
        Some(pin) => format!("pinned, held by no process: rm {}", printable(pin)),
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

/// What `kprobes/enabled` stops and what it does not, from the state of the host.
pub(super) fn of_kprobes(context: &Context<'_>, draft: &mut Draft) {
    let mut stopped: Vec<String> = Vec::new();
    for program in programs(context) {
        if program.attached.iter().any(is_kprobe) {
            for holder in &program.holders {
                let who = who(holder);
                if !stopped.contains(&who) {
                    stopped.push(who);
                }
            }
        }
        let deaf = program.attached.iter().find(|a| {
            matches!(
                &*a.kind,
                "kprobe_multi" | "kretprobe_multi" | "fentry" | "fexit" | "uprobe" | "uretprobe"
            )
        });
        if let Some(at) = deaf {
            draft.leave(
                format!("{} ({} {})", name(program), at.kind, printable(&at.target)),
                format!("kprobes/enabled does not stop it; {}", held(program)),
            );
        }
    }
    if !stopped.is_empty() {
        draft.note(format!("stops the BPF kprobes of {}", stopped.join(", ")));
    }
    draft.note("does not stop kprobe.multi, fentry, fexit or uprobes");
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
