//! Who is behind a probe: the process that holds its BPF program, or what is known instead.

use super::frames;
use crate::Name;
use crate::model::Model;
use crate::model::locks::frames::Probe;
use crate::name::printable;
use crate::sample::{
    AttachKind, BpfObjects, BpfProgram, Holder, KernelProbeKind, OwnerKind, Tracing, Waits,
};

/// What tells suspects apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who<'a> {
    /// stalltop's own programs.
    Ours,
    /// A process: the one with the lowest id, where several hold a program.
    Process(&'a Holder),
    /// A program that no process holds.
    Nobody(u32),
    /// A program that is not listed: gone, or not to be told from others. Its name.
    Gone(&'a str),
    /// Probes without a BPF program.
    Without(Probe),
}

impl Who<'_> {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            // The same process may hold one thing by a link and another by a perf event.
            (Self::Process(a), Self::Process(b)) => a.pid == b.pid,
            (a, b) => a == b,
        }
    }
}

/// Somebody with probes, and what they do to the host.
#[derive(Clone, Debug)]
pub(super) struct Suspect<'a> {
    pub(super) who: Who<'a>,
    /// Its programs, as far as they are probes; and those that were seen in stacks.
    pub(super) programs: Vec<&'a BpfProgram>,
    /// Waits for locks behind its probes.
    pub(super) waits: Waits,
    /// Samples in locks behind its probes.
    pub(super) samples: u64,
    /// Samples behind its probes that suspect a lock.
    pub(super) suspected: u64,
    /// What its probes cost, as a share of one CPU; `None` while not measured.
    pub(super) cost: Option<f64>,
    /// Whether that is an estimate.
    pub(super) estimated: bool,
    /// What ran its probes, by the stacks.
    pub(super) machinery: Option<Probe>,
    /// Its heaviest stack, and the weight of that.
    pub(super) stack: Option<(&'a [Name], u64)>,
    /// Programs seen in stacks.
    pub(super) seen: Vec<u32>,
}

impl<'a> Suspect<'a> {
    fn new(who: Who<'a>) -> Self {
        Self {
            who,
            programs: Vec::new(),
            waits: Waits::default(),
            samples: 0,
            suspected: 0,
            cost: None,
            estimated: false,
            machinery: None,
            stack: None,
            seen: Vec::new(),
        }
    }

    /// Adds to what its probes cost.
    pub(super) fn costs(&mut self, share: f64) {
        self.cost = Some(self.cost.unwrap_or(0.0) + share);
    }

    /// Takes a stack that runs through its probes.
    pub(super) fn stack(&mut self, frames: &'a [Name], weight: u64, machinery: Probe) {
        let least = self.machinery.map_or(machinery, |m| m.min(machinery));
        self.machinery = Some(least);
        if self.stack.is_none_or(|(_, most)| weight > most) {
            self.stack = Some((frames, weight));
        }
    }

    /// The programs to be named: those in the stacks, else all.
    pub(super) fn named(&self) -> Vec<&'a BpfProgram> {
        let seen = |p: &&&BpfProgram| self.seen.contains(&p.id);
        let named: Vec<_> = self.programs.iter().filter(seen).copied().collect();
        if named.is_empty() {
            self.programs.clone()
        } else {
            named
        }
    }

    /// Whether the master switch of kprobes stops what harms here; the sample must show it on.
    pub(super) fn ends_with_kprobes(&self, tracing: &Tracing) -> bool {
        let can = tracing
            .kprobes
            .value()
            .is_some_and(|k| k.enabled.get() == Some(true));
        let mut kinds = self
            .named()
            .into_iter()
            .flat_map(|p| &p.attached)
            .peekable();
        let all = match kinds.peek() {
            Some(_) => kinds.all(|a| AttachKind::of(&a.kind) == AttachKind::Kprobe),
            None => matches!(self.machinery, Some(Probe::Kprobe | Probe::Kretprobe)),
        };
        can && all
    }

    /// `netdata[812]'s 18 kprobes`, and whether that is more than one.
    pub(super) fn subject(&self) -> (String, bool) {
        let n = self.programs.len();
        let kind = self.kind();
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        match (&self.who, self.programs.first()) {
            (Who::Ours, _) => ("stalltop's own probes".to_owned(), true),
            (Who::Process(holder), None) => (format!("{}'s {kind}s", named(holder)), true),
            (Who::Process(holder), Some(first)) => {
                let who = named(holder);
                let (count, at) = match n {
                    1 => (String::new(), target(first)),
                    n => (format!("{n} "), String::new()),
                };
                (format!("{who}'s {count}{kind}{}{at}", plural(n)), n != 1)
            }
            (Who::Nobody(_), Some(program)) => {
                let by = match program.pins.first() {
                    Some(pin) => format!("pinned at {}", printable(pin)),
                    None => format!("held by no process, loaded by uid {}", program.uid),
                };
                let name = printable(&program.name);
                let at = target(program);
                (
                    format!("{kind}{at}, program {} ({name}), {by},", program.id),
                    false,
                )
            }
            (Who::Nobody(id), None) => (format!("BPF program {id}"), false),
            (Who::Gone(name), _) => (
                format!("BPF program {}, not listed,", printable(name)),
                false,
            ),
            (Who::Without(machinery), _) => {
                (format!("{}s without a BPF program", machinery.name()), true)
            }
        }
    }

    /// What its probes are, in one word: `kprobe`, `fentry`, `probe` where they differ.
    fn kind(&self) -> String {
        let kinds: Vec<&str> = self
            .programs
            .iter()
            .flat_map(|p| &p.attached)
            .map(|a| &*a.kind)
            .collect();
        // What one switch stops is one thing.
        let kprobe = |kind: &&str| AttachKind::of(kind) == AttachKind::Kprobe;
        match (&kinds[..], self.machinery) {
            ([one], _) => printable(one).into_owned(),
            ([_, ..], _) if kinds.iter().all(kprobe) => "kprobe".to_owned(),
            ([first, rest @ ..], _) if rest.iter().all(|kind| kind == first) => {
                printable(first).into_owned()
            }
            ([], Some(machinery)) if machinery != Probe::Bpf => machinery.name().to_owned(),
            _ => "probe".to_owned(),
        }
    }
}

/// ` on tcp_sendmsg`.
fn target(program: &BpfProgram) -> String {
    match &program.attached[..] {
        [at] if !at.target.is_empty() => format!(" on {}", printable(&at.target)),
        _ => String::new(),
    }
}

/// `netdata[812]`.
fn named(holder: &Holder) -> String {
    format!("{}[{}]", printable(&holder.comm), holder.pid)
}

/// `netdata[812] of netdata.service`.
pub(super) fn full(holder: &Holder) -> String {
    let name = named(holder);
    if holder.owner.kind == OwnerKind::Root || holder.owner.name.is_empty() {
        name
    } else {
        format!("{name} of {}", printable(&holder.owner.name))
    }
}

/// Whether a program is there to observe, and not to do the host's work as those of XDP, tc,
/// cgroups and sockets do.
pub(super) fn is_probe(program: &BpfProgram) -> bool {
    matches!(
        &*program.kind,
        "kprobe"
            | "tracepoint"
            | "raw_tracepoint"
            | "raw_tracepoint_writable"
            | "perf_event"
            | "tracing"
            | "lsm"
    )
}

/// Who holds a program.
fn who_holds(program: &BpfProgram) -> Who<'_> {
    if program.ours {
        return Who::Ours;
    }
    match program.holders.iter().min_by_key(|h| h.pid) {
        Some(holder) => Who::Process(holder),
        None => Who::Nobody(program.id),
    }
}

/// Suspects, told apart.
#[derive(Debug)]
pub(super) struct Suspects<'a> {
    tracing: &'a Tracing,
    pub(super) all: Vec<Suspect<'a>>,
}

impl<'a> Suspects<'a> {
    pub(super) fn new(model: &'a Model) -> Self {
        Self {
            tracing: &model.now().tracing,
            all: Vec::new(),
        }
    }

    fn bpf(&self) -> Option<&'a BpfObjects> {
        self.tracing.bpf.value()
    }

    /// The suspect of that identity.
    pub(super) fn of(&mut self, who: Who<'a>) -> &mut Suspect<'a> {
        let at = match self.all.iter().position(|s| s.who.is(&who)) {
            Some(at) => at,
            None => {
                self.all.push(Suspect::new(who));
                self.all.len() - 1
            }
        };
        &mut self.all[at]
    }

    /// The suspect that holds a program, with the program among its own.
    pub(super) fn holding(&mut self, program: &'a BpfProgram) -> &mut Suspect<'a> {
        let suspect = self.of(who_holds(program));
        if suspect.programs.iter().all(|p| p.id != program.id) {
            suspect.programs.push(program);
        }
        suspect
    }

    /// The suspect behind a stack; `None` where the stack runs through no probe.
    pub(super) fn behind(
        &mut self,
        frames: &'a [Name],
        ids: &[u32],
        weight: u64,
    ) -> Option<&mut Suspect<'a>> {
        let through = frames::through(frames);
        let named = frames::program(frames);
        let machinery = through.or((!ids.is_empty()).then_some(Probe::Bpf))?;
        let programs = self.bpf().map_or(&[][..], |bpf| &bpf.programs);
        let by_id = ids
            .iter()
            .find_map(|id| programs.iter().find(|p| p.id == *id));
        // Tag and name may be those of several: of one holder's it does not matter which.
        let by_name = || {
            let (tag, name) = named?;
            let same = |p: &&BpfProgram| &*p.tag == tag && name.starts_with(&*p.name);
            let mut same = programs.iter().filter(same);
            let first = same.next()?;
            same.all(|other| who_holds(other).is(&who_holds(first)))
                .then_some(first)
        };
        let suspect = match (by_id, by_name(), named) {
            (Some(program), ..) => {
                let suspect = self.holding(program);
                if !suspect.seen.contains(&program.id) {
                    suspect.seen.push(program.id);
                }
                suspect
            }
            (None, Some(program), _) => self.holding(program),
            (None, None, Some((_, name))) => self.of(Who::Gone(name)),
            (None, None, None) if machinery == Probe::Perf => {
                let who = self.perf_user();
                self.of(who)
            }
            (None, None, None) => match self.only_user(machinery) {
                Some(program) => self.holding(program),
                None => self.of(Who::Without(machinery)),
            },
        };
        suspect.stack(frames, weight, machinery);
        Some(suspect)
    }

    /// A program of the only one who has probes of that machinery: interrupts come back on when
    /// the program is over, in what had called it (before 5.11 a kretprobe's runs under a lock of
    /// its own, kernel/kprobes.c, `kretprobe_hash_lock`). None where there are several, or some
    /// that nobody is known to have.
    fn only_user(&self, machinery: Probe) -> Option<&'a BpfProgram> {
        let (kind, listed) = match machinery {
            Probe::Kretprobe => ("kretprobe", KernelProbeKind::Kretprobe),
            Probe::Kprobe => ("kprobe", KernelProbeKind::Kprobe),
            _ => return None,
        };
        let of_kind = |p: &&BpfProgram| p.attached.iter().any(|a| &*a.kind == kind);
        let programs = self.bpf().map_or(&[][..], |bpf| &bpf.programs);
        let mut users = programs.iter().filter(of_kind);
        let first = users.next()?;
        let targets = |p: &BpfProgram| p.attached.iter().filter(|a| &*a.kind == kind).count();
        let mut known = targets(first);
        for other in users {
            if !who_holds(other).is(&who_holds(first)) {
                return None;
            }
            known += targets(other);
        }
        let probes = self.tracing.kprobes.value()?;
        let live = probes.list.iter().filter(|p| p.kind == listed && !p.gone);
        (live.count() <= known).then_some(first)
    }

    /// Who uses perf events, where it is one process alone.
    fn perf_user(&self) -> Who<'a> {
        let uses = self.tracing.perf.value().into_iter().flatten();
        let mut on = uses.filter(|u| u.on > 0 && matches!(&*u.kind, "tracepoint" | "kprobe"));
        match on.next() {
            Some(first) if on.all(|other| other.holder.pid == first.holder.pid) => {
                Who::Process(&first.holder)
            }
            _ => Who::Without(Probe::Perf),
        }
    }
}
