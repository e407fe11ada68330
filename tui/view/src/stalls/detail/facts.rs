//! What is told of a stall, each under its label.

use stalltop_model::model::stalls::Filter;
use stalltop_model::rules::WINDOW_NS;
use stalltop_model::sample::{Culprit, Pause, Sampling, Stall, StallKind};
use stalltop_model::{Reading, Reason, printable};

use crate::action::{ActionId, Context};
use crate::cores::delay_role;
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::super::watch::{self, Part};
use super::super::{names, rows, strip};
use super::page::Page;

/// What happened, when, and how exactly that is known; why it is told, where the best estimate is
/// shorter than `from_ns`, from which on it counts.
pub(super) fn sentence(stall: &Stall, from_ns: Option<u64>) -> Vec<Part> {
    let begin = text::clock_part(stall.wall_ns.saturating_sub(stall.delay_ns), 3);
    let end = text::clock_part(stall.wall_ns, 3);
    let vector = names::vector(stall);
    let delay = (text::duration(stall.delay_ns), delay_role(stall.delay_ns));
    let plain = |text: String| (text, Role::Text);
    let (before, after, times) = match (stall.kind, stall.pause) {
        (_, Pause::Paused) => (
            "the hypervisor paused this virtual cpu for ".to_owned(),
            ": nothing in this host held it".to_owned(),
            format!("from {begin} to {end}"),
        ),
        (StallKind::SoftirqPending, _) => (
            format!("{vector} was pending for "),
            String::new(),
            format!("raised {begin}, entered {end}"),
        ),
        (StallKind::SoftirqHandler, _) => (
            format!("the {vector} handler ran for "),
            String::new(),
            format!("entered {begin}, left {end}"),
        ),
        (StallKind::KsoftirqdWaiting, _) => (
            format!("ksoftirqd/{} was runnable but did not run for ", stall.cpu),
            format!(", while {vector} was pending"),
            format!("from {begin} to {end}"),
        ),
        (StallKind::InterruptsOff, Pause::Either) => (
            "interrupts were off, or the hypervisor paused this virtual cpu, for ".to_owned(),
            ": nothing tells which".to_owned(),
            format!("from {begin} to {end}"),
        ),
        (StallKind::InterruptsOff, Pause::Held) => (
            "interrupts were off for ".to_owned(),
            String::new(),
            format!("from {begin} to {end}"),
        ),
        (StallKind::NoReschedule, _) => (
            "a task kept the cpu for ".to_owned(),
            format!(" although it was to leave it{}", waited(stall)),
            format!("from {begin} to {end}"),
        ),
        (StallKind::RealTime, _) => (
            "real-time tasks kept the cpu for ".to_owned(),
            waited(stall),
            format!("from {begin} to {end}"),
        ),
    };
    let mut out = vec![plain(before), delay, plain(after)];
    let exact = stall.least_ns == stall.most_ns
        || (stall.least_ns >= stall.delay_ns && stall.most_ns <= stall.delay_ns);
    if !exact {
        let (least, most) = (
            text::duration(stall.least_ns),
            text::duration(stall.most_ns),
        );
        let why = match from_ns {
            Some(from_ns) if names::may_count(stall, from_ns) => {
                format!(": told as it may have been {}", text::duration(from_ns))
            }
            _ => String::new(),
        };
        let range = format!(" (at least {least}, at most {most}{why})");
        out.push((range, Role::Dim));
    }
    out.push((format!(", {times}"), Role::Dim));
    if stall.ours {
        out.push((" · stalltop itself held the cpu".to_owned(), Role::Ours));
    }
    out
}

/// `; bash waited`: who got the CPU at last.
fn waited(stall: &Stall) -> String {
    match &stall.waited {
        Some(comm) => format!("; {} waited", text::name(comm, 24)),
        None => String::new(),
    }
}

/// Who held the CPU, where, and what else is known of it.
pub(super) fn held_by(out: &mut Page, stall: &Stall) {
    let culprit = match stall.culprit.as_ref() {
        Ok(culprit) => culprit,
        Err(reason) => {
            out.put("held by", &names::unknown(reason), Role::Faint);
            return;
        }
    };
    let mut who = vec![(names::who(culprit, 60), Role::Strong)];
    if culprit.tgid != culprit.pid && culprit.tgid != 0 {
        who.push((format!(" process {}", culprit.tgid), Role::Dim));
    }
    if let Some(sched) = &culprit.sched {
        who.push((
            format!(" {}", text::name(&sched.to_string(), 40)),
            Role::Warning,
        ));
    }
    if let Ok(owner) = culprit.owner.as_ref() {
        who.push((format!(" · {}", text::name(&owner.name, 80)), Role::Text));
    }
    who.push((" ·".to_owned(), Role::Line));
    if let Some(syscall) = &culprit.syscall {
        who.push((format!(" in {}(2)", text::name(syscall, 30)), Role::Text));
    }
    match culprit.function.as_ref() {
        Ok(function) => {
            who.push((" in".to_owned(), Role::Text));
            who.push((format!(" {}", text::name(function, 120)), Role::Warning));
        }
        Err(Reason::UserSpace) => who.push((" in user space".to_owned(), Role::Text)),
        Err(_) => {}
    }
    let (of, all) = culprit.samples;
    let lost = match stall.lost {
        0 => String::new(),
        n => format!(", {n} lost"),
    };
    who.push((
        format!(
            " · {:.0} % of the time, {of} of {all} samples say so{lost}",
            culprit.share * 100.0,
        ),
        Role::Dim,
    ));
    out.parts("held by", who);
    if let Ok(cgroup) = culprit.cgroup.as_ref() {
        out.put("cgroup", &printable(cgroup), Role::Text);
    }
    if let Some(file) = &culprit.file {
        let about = format!(
            "{} (best effort: from its descriptors, read after the fact)",
            printable(file)
        );
        out.put("file", &about, Role::Text);
    }
    match (&culprit.lock, culprit.lock_suspected) {
        (Some(lock), _) => out.put("lock", &printable(lock), Role::Warning),
        (None, true) => out.put(
            "lock",
            "suspected: the sample was taken just as interrupts reopened after an unlock",
            Role::Text,
        ),
        (None, false) => {}
    }
    if let Some(stack) = culprit.user_stack.value().filter(|s| !s.is_empty()) {
        let names: Vec<String> = stack
            .iter()
            .take(24)
            .map(|n| text::name(n, 120).into_owned())
            .collect();
        out.put("user", &names.join(" < "), Role::Text);
        out.put(
            "",
            "its user stack, innermost first, read after the fact",
            Role::Faint,
        );
    }
}

/// The samples in their order.
pub(super) fn timeline(out: &mut Page, scene: &Scene<'_>, stall: &Stall) {
    out.blank();
    if stall.timeline.is_empty() {
        let about = if scene.model.stalls.is_trimmed(stall.id) {
            "not kept: newer stalls needed the room; its heaviest stack is below"
        } else {
            "no sample was taken"
        };
        out.put("timeline", about, Role::Faint);
        return;
    }
    let how = match stall.sampling {
        Sampling::Tick => "ticks of the scheduler",
        Sampling::Clock => "1 kHz samples",
        Sampling::Nmi => "1 kHz samples, NMI",
    };
    let lines = strip::lines(stall, out.room());
    for (i, mut line) in lines.into_iter().enumerate() {
        let label = if i == 0 { "timeline" } else { "" };
        if i == 0 {
            line.push((format!(" · {how}"), Role::Faint));
        }
        out.line(label, line);
    }
}

/// What came of it, and how often that was so.
pub(super) fn then(out: &mut Page, scene: &Scene<'_>, stall: &Stall) {
    out.blank();
    if let Some(drained) = &stall.drained {
        let who = format!("{}[{}]", text::name(&drained.comm, 24), drained.pid);
        let about = match drained.time_ns.as_ref() {
            Ok(ns) => format!("{who} emptied the backlog in {}", text::duration(*ns)),
            Err(reason) => format!(
                "{who} emptied the backlog; for how long is {}",
                names::unknown(reason)
            ),
        };
        out.put("then", &about, Role::Text);
    }
    if !stall.victims.is_empty() {
        let about = format!(
            "cpu {} stalled at the same time for the same reason: counted here",
            names::cpus(&stall.victims)
        );
        out.put("victims", &about, Role::Text);
    }
    let like = rows::like(stall);
    let count = |from_ns| before(scene, &like, from_ns, stall);
    let (minute, all) = (count(stall.at_ns.saturating_sub(WINDOW_NS)), count(0));
    let key = scene.key(&[Context::StallDetail], ActionId::LikeThis);
    let since = match scene.model.stalls.dropped() {
        0 => "since the start",
        _ => "of those kept",
    };
    let about = format!(
        "{} like it in the 60 s before, {} {since}   {key} lists them",
        text::count(minute),
        text::count(all)
    );
    out.put("before", &about, Role::Text);
}

/// How many stalls like this one ended before it.
fn before(scene: &Scene<'_>, like: &Filter, from_ns: u64, stall: &Stall) -> u64 {
    let until = stall.at_ns.saturating_sub(1);
    let filter = Filter {
        paused: stall.pause == Pause::Paused,
        ours: stall.ours,
        ..like.clone()
    };
    scene.model.stalls.tally(&filter, from_ns, until).shown
}

/// What is not known, and why.
pub(super) fn not_known(out: &mut Page, scene: &Scene<'_>, stall: &Stall) {
    fn reason<T>(lines: &mut Vec<String>, what: &str, reading: &Reading<T>) {
        if let Some(reason) = reading.reason() {
            let fix = reason.fix();
            lines.push(format!(
                "{what}: {} · fix: {}",
                text::name(&reason.to_string(), 300),
                text::name(&fix, 300)
            ));
        }
    }
    let mut lines = Vec::new();
    if let Some(culprit) = stall.culprit.value() {
        let Culprit {
            owner,
            cgroup,
            function,
            user_stack,
            ..
        } = culprit;
        if culprit.vector.is_none() {
            reason(&mut lines, "unit or container", owner);
            reason(&mut lines, "cgroup", cgroup);
            reason(&mut lines, "user stack", user_stack);
        }
        reason(&mut lines, "function", function);
    } else {
        reason(&mut lines, "who held the cpu", &stall.culprit);
    }
    if let Some(watch) = scene.sample().stalls.value()
        && watch::names_missing(watch).is_some()
    {
        reason(&mut lines, "names of kernel functions", &watch.symbols);
    }
    if stall.sampling == Sampling::Tick {
        lines.push(
            "between two ticks: the 1 kHz sampler was not on yet; it runs on this cpu while these details are open".into(),
        );
    }
    if stall.pause == Pause::Either {
        lines.push("interrupts off or paused from outside: no steal time was counted, and the code at the next tick fits both".into());
    }
    for (i, line) in lines.iter().enumerate() {
        out.put(if i == 0 { "not known" } else { "" }, line, Role::Dim);
    }
}
