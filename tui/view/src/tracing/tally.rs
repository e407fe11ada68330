//! How much traces this host, in one line.

use stalltop_model::Reason;
use stalltop_model::sample::Tracing;

use crate::draw::Pen;
use crate::text;
use crate::theme::Role;

/// Counts of what is on; `None` where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Events that record, of instances that are not ours.
    pub events: Option<u64>,
    /// Instances, top level included, in which any event is on.
    pub instances: u64,
    /// Kernel probes that are armed.
    pub kprobes: Option<u64>,
    /// Whether the master switch is off.
    pub kprobes_off: bool,
    /// BPF programs of others.
    pub programs: Option<u64>,
    /// BPF programs of ours.
    pub ours: u64,
    /// Events of perf users without BPF.
    pub perf: Option<u64>,
}

impl Tally {
    pub(crate) fn of(tracing: &Tracing) -> Self {
        let mut out = Self::default();
        if let Some(tracefs) = tracing.tracefs.value() {
            let mut events = 0;
            for instance in tracefs.instances.iter().filter(|i| !i.ours) {
                let on = instance.events.iter().filter(|e| e.state.is_on()).count() as u64;
                events += on;
                out.instances += u64::from(on > 0);
            }
            out.events = Some(events);
        }
        match tracing.kprobes.as_ref() {
            Ok(kprobes) => {
                let armed = kprobes.list.iter().filter(|p| !p.disabled && !p.gone);
                out.kprobes = Some(armed.count() as u64);
                out.kprobes_off = kprobes.enabled.get() == Some(false);
            }
            // What this kernel does not have, nobody has on.
            Err(Reason::NotBuilt { .. }) => out.kprobes = Some(0),
            Err(_) => {}
        }
        if let Some(bpf) = tracing.bpf.value() {
            out.ours = bpf.programs.iter().filter(|p| p.ours).count() as u64;
            out.programs = Some(bpf.programs.len() as u64 - out.ours);
        }
        out.perf = tracing.perf.value().map(|all| all.len() as u64);
        out
    }

    /// All things of others that are on.
    pub(crate) fn total(&self) -> u64 {
        self.events.unwrap_or(0) + self.programs.unwrap_or(0) + self.perf.unwrap_or(0)
    }

    /// Writes it.
    pub(crate) fn draw(&self, pen: &mut Pen<'_>) {
        let part = |pen: &mut Pen<'_>, n: Option<u64>, one: &str| match n {
            Some(n) => {
                let role = if n > 0 { Role::Strong } else { Role::Dim };
                pen.put(&text::plural(n, one), role);
            }
            None => {
                pen.put(&format!("{one}s: not known"), Role::Faint);
            }
        };
        part(pen, self.events, "event");
        if self.events.is_some() {
            pen.put(" on", Role::Text);
        }
        if self.instances > 1 {
            pen.put(&format!(" in {} instances", self.instances), Role::Text);
        }
        pen.put(" · ", Role::Dim);
        part(pen, self.kprobes, "kprobe");
        if self.kprobes_off {
            pen.put(" (all off by the master switch)", Role::Warning);
        }
        pen.put(" · ", Role::Dim);
        part(pen, self.programs, "BPF program");
        if self.programs.is_some() {
            pen.put(" of others", Role::Text);
        }
        if self.ours > 0 {
            pen.put(&format!(" ({} ours)", self.ours), Role::Dim);
        }
        // perf record and perf stat use tracepoints without any of the above.
        let (perf, short) = match self.perf {
            Some(0) => (" · no perf users".to_owned(), " · perf: 0".to_owned()),
            Some(n) => (
                format!(" · {} by perf, without BPF", text::plural(n, "event")),
                format!(" · perf: {}", text::count(n)),
            ),
            None => (
                " · perf users without BPF: not known".to_owned(),
                " · perf: unknown".to_owned(),
            ),
        };
        let role = match self.perf {
            Some(n) if n > 0 => Role::Text,
            _ => Role::Faint,
        };
        let fits = |t: &&String| text::width(t) <= pen.room();
        if let Some(perf) = [&perf, &short].into_iter().find(fits) {
            pen.put(perf, role);
        }
    }
}
