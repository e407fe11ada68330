//! Stopping who holds what cannot be switched from outside: a signal to one process, after a
//! word that was typed.

use stalltop_model::change::{
    ChangeError, Left, OpenMode, Outcome, Plan, Request, StopSignal, UndoClass, Write, ways,
};
use stalltop_model::sample::{
    AttachKind, Attachment, BpfLink, BpfProgram, Holder, Instance, Owner, PerfUse,
};
use stalltop_model::{Name, Reason, printable, units};

use super::super::process::{Process, status};
use super::{Context, holders, restart};
use crate::owner;

/// Things named in a sentence before the rest is counted.
const NAMED: usize = 3;
/// Characters of a command line that are shown.
const CMDLINE: usize = 120;
/// SIGTERM is 15: its bit in the masks of `/proc/PID/status`.
const TERM_BIT: u64 = 1 << 14;

pub(super) fn plan(
    context: &Context<'_>,
    pid: u32,
    signal: Option<StopSignal>,
) -> Result<Plan, ChangeError> {
    let env = context.env;
    let path = format!("/proc/{pid}/stat");
    let process = Process::read(env, pid).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => ChangeError::NothingMatches {
            selector: format!("process {pid}").into(),
            hint: "".into(),
        },
        _ => super::super::host::missing(env, &path, &e),
    })?;
    let who = format!("{}[{pid}]", printable(&process.comm));
    if process.has_exited() {
        return Err(ChangeError::NothingToDo {
            why: format!("{who} has exited already").into(),
        });
    }
    let before: Name = process.identity().into();
    let asked = context.journal.entries().iter().any(|e| {
        let sent = e.plan.writes.first().is_some_and(|w| {
            *w.path == *path && w.before.as_ref() == Some(&before) && &*w.value == "TERM"
        });
        sent && context.journal.is_current(e) && matches!(e.outcome, Outcome::Done)
    });
    let signal = signal.unwrap_or(if asked {
        StopSignal::Kill
    } else {
        StopSignal::Term
    });
    let write = Write {
        path: path.into(),
        mode: OpenMode::Signal,
        value: signal.as_str().into(),
        item: None,
        before: Some(before),
        after: None,
        kept: Vec::new(),
        undo: Vec::new(),
    };
    let refused = |why: String| ChangeError::Refused {
        command: write.command().into(),
        why: why.into(),
    };
    if let Some(why) = process.refusal(env) {
        return Err(refused(why));
    }
    if signal == StopSignal::Kill && !asked {
        return Err(refused(format!(
            "KILL is the second step: stalltop stop {pid} sends TERM first, which lets it clean up"
        )));
    }
    context.journal.may_write()?;
    let held = match Held::of(context, pid) {
        Ok(held) if !held.is_nothing() => held,
        Ok(_) => {
            return Err(ChangeError::NothingToDo {
                why: format!(
                    "{who} holds no probe, BPF object or trace buffer that stalltop knows of \
                     (if you mean it all the same: kill {pid})"
                )
                .into(),
            });
        }
        Err(why) => {
            return Err(refused(format!(
                "whether {who} holds any probe is not known: {why} (if you mean it all the same: \
                 kill {pid})"
            )));
        }
    };
    let owner = owner::of_proc_cgroup(
        &std::fs::read(env.path(&format!("/proc/{pid}/cgroup"))).unwrap_or_default(),
    );
    let mut notes = vec![
        identity(context, pid, &owner),
        "the signal goes to this very process, told by its start time, and to no other that may \
         have its number by then"
            .to_owned(),
    ];
    let mut left = Vec::new();
    held.tell(pid, &mut notes, &mut left);
    notes.extend(consequences(context, pid, signal, &owner));
    Ok(Plan {
        request: Request::Stop {
            pid,
            signal: Some(signal),
        },
        title: format!("stop {who}{} by {}", place(&owner), signal.as_str()).into(),
        writes: vec![write],
        undo: UndoClass::Never,
        notes: notes.into_iter().map(Into::into).collect(),
        left,
        confirm_word: Some(word(&process)),
    })
}

/// The comm where it can be typed, else the number.
fn word(process: &Process) -> Name {
    let typed = !process.comm.is_empty() && process.comm.bytes().all(|b| b.is_ascii_graphic());
    if typed {
        process.comm.as_str().into()
    } else {
        process.pid.to_string().into()
    }
}

fn place(owner: &Owner) -> String {
    match holders::unit(owner) {
        Some(unit) => format!(" of {unit}"),
        None => String::new(),
    }
}

/// `/usr/sbin/netdata -D, uid 201, of netdata.service`.
fn identity(context: &Context<'_>, pid: u32, owner: &Owner) -> String {
    let mut command =
        std::fs::read(context.env.path(&format!("/proc/{pid}/cmdline"))).unwrap_or_default();
    while command.last() == Some(&0) {
        command.pop();
    }
    command.truncate(4 * CMDLINE);
    for byte in &mut command {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    let command: String = String::from_utf8_lossy(&command)
        .chars()
        .take(CMDLINE)
        .collect();
    let mut parts = Vec::new();
    if !command.is_empty() {
        parts.push(printable(&command).into_owned());
    }
    if let Some(uid) = status(context.env, pid, "Uid:")
        && let Some(uid) = uid.split_whitespace().nth(1)
    {
        parts.push(format!("uid {}", printable(uid)));
    }
    if let Some(unit) = holders::unit(owner) {
        parts.push(unit);
    }
    format!("it is {}", parts.join(", "))
}

/// What a signal does, what brings the process back, and the other way.
fn consequences(context: &Context<'_>, pid: u32, signal: StopSignal, owner: &Owner) -> Vec<String> {
    let mut out = Vec::new();
    let has_term = |key: &str| {
        status(context.env, pid, key)
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & TERM_BIT != 0)
    };
    out.push(match signal {
        StopSignal::Kill => "KILL ends it at once: what it has not written is lost".to_owned(),
        StopSignal::Term if has_term("SigIgn:") => {
            "it ignores TERM: KILL, the second step, is likely to be needed".to_owned()
        }
        StopSignal::Term if has_term("SigBlk:") => {
            "it holds TERM back now, and may end later or not at all".to_owned()
        }
        StopSignal::Term => {
            "TERM asks it to end: it may clean up first, or refuse (KILL is the second step)"
                .to_owned()
        }
    });
    if let Some((value, path)) = restart::of(context.env, owner) {
        out.push(format!(
            "systemd may start it again, with its probes: Restart={} in {}",
            printable(&value),
            printable(&path)
        ));
    }
    if let Some(way) = ways::of(owner) {
        out.push(format!(
            "by hand instead: {} ({})",
            way.command, way.consequence
        ));
    }
    out
}

/// What a process holds.
struct Held<'a> {
    programs: Vec<&'a BpfProgram>,
    /// Links to programs that are not among these.
    links: Vec<&'a BpfLink>,
    perf: Vec<&'a PerfUse>,
    /// Instances whose buffers it reads.
    reads: Vec<&'a Instance>,
}

impl<'a> Held<'a> {
    /// Nothing is known only where everything was looked at; else why not, where nothing was
    /// found.
    fn of(context: &Context<'a>, pid: u32) -> Result<Self, String> {
        let Some(tracing) = context.tracing else {
            return Err("nobody looked".into());
        };
        let why = |reason: &Reason| printable(&reason.to_string()).into_owned();
        let bpf = tracing.bpf.as_ref().map_err(why)?;
        let is = |h: &Holder| h.pid == pid;
        let instances = tracing
            .tracefs
            .value()
            .into_iter()
            .flat_map(|t| &t.instances);
        let reads: Vec<&Instance> = instances
            .filter(|i| i.readers.value().is_some_and(|all| all.iter().any(is)))
            .collect();
        let perf = tracing.perf.value().into_iter().flatten();
        let programs: Vec<&BpfProgram> = bpf
            .programs
            .iter()
            .filter(|p| p.holders.iter().any(is))
            .collect();
        let links = bpf
            .links
            .iter()
            .filter(|l| l.holders.iter().any(is) && programs.iter().all(|p| p.id != l.program))
            .collect();
        let held = Self {
            programs,
            links,
            perf: perf.filter(|p| is(&p.holder)).collect(),
            reads,
        };
        if held.is_nothing() {
            bpf.holders.as_ref().map_err(why)?;
            tracing.perf.as_ref().map_err(why)?;
        }
        Ok(held)
    }

    fn is_nothing(&self) -> bool {
        self.programs.is_empty()
            && self.links.is_empty()
            && self.perf.is_empty()
            && self.reads.is_empty()
    }

    fn tell(&self, pid: u32, notes: &mut Vec<String>, left: &mut Vec<Left>) {
        let (mut goes, mut stays) = (Vec::new(), Vec::new());
        for program in &self.programs {
            match keeps(program, pid) {
                None => goes.push(*program),
                Some(why) => stays.push((*program, why)),
            }
        }
        if !goes.is_empty() {
            let names: Vec<String> = goes.iter().map(|p| attached(p)).collect();
            notes.push(format!(
                "with it go {}: {}",
                plural(goes.len(), "BPF program"),
                list(&names)
            ));
        }
        for link in &self.links {
            let other = link.holders.iter().find(|h| h.pid != pid);
            let what = format!("link {} of BPF program {}", link.id, link.program);
            match (link.pins.first(), other) {
                (Some(pin), _) => left.push(Left {
                    what: what.into(),
                    why: format!("pinned at {}", printable(pin)).into(),
                }),
                (None, Some(other)) => left.push(Left {
                    what: what.into(),
                    why: format!("{} holds it as well", holders::who(other)).into(),
                }),
                (None, None) => notes.push(format!("with it goes {what}")),
            }
        }
        let perf: Vec<String> = self
            .perf
            .iter()
            .map(|p| printable(&p.event).into_owned())
            .collect();
        if !perf.is_empty() {
            notes.push(format!("with it go its perf events: {}", list(&perf)));
        }
        for instance in &self.reads {
            let name = match &*instance.name {
                "" => "the top level".to_owned(),
                name => format!("instance {}", printable(name)),
            };
            notes.push(format!(
                "it reads the trace buffer of {name}, whose events stay on"
            ));
        }
        // One line for all that stays for the same reason.
        while let Some((first, why)) = stays.first().cloned() {
            let same = |(_, w): &(&BpfProgram, String)| *w == why;
            let n = stays.iter().filter(|s| same(s)).count();
            stays.retain(|s| !same(s));
            let what = match n {
                1 => format!("BPF program {} {}", first.id, attached(first)),
                n => plural(n, "BPF program"),
            };
            left.push(Left {
                what: what.into(),
                why: why.into(),
            });
        }
    }
}

/// What keeps a program loaded when one of its holders ends.
fn keeps(program: &BpfProgram, pid: u32) -> Option<String> {
    if let Some(pin) = program.pins.first() {
        return Some(format!("pinned at {}", printable(pin)));
    }
    if let Some(other) = program.holders.iter().find(|h| h.pid != pid) {
        return Some(format!("{} holds it as well", holders::who(other)));
    }
    // Without a link these belong to what they are attached to (bpf(2), BPF_PROG_ATTACH).
    let owned = |a: &&Attachment| AttachKind::of(&a.kind) == AttachKind::Owned;
    let own = program
        .attached
        .iter()
        .find(|a| a.link.is_none() && owned(a));
    own.map(|at| format!("attached to {} without a link", printable(&at.target)))
}

fn attached(program: &BpfProgram) -> String {
    let Some(first) = program.attached.first() else {
        return printable(&program.name).into_owned();
    };
    match (&*first.kind, &*first.target) {
        (kind, "") => printable(kind).into_owned(),
        (kind, target) => format!("{}:{}", printable(kind), printable(target)),
    }
}

fn list(names: &[String]) -> String {
    let mut shown: Vec<String> = names.iter().take(NAMED).cloned().collect();
    if names.len() > NAMED {
        shown.push(format!("{} more", names.len() - NAMED));
    }
    shown.join(", ")
}

fn plural(n: usize, one: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{} {one}{s}", units::Count(n as u64))
}
