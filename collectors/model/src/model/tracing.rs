//! What changed in the tracing state since the first sample.

mod weigh;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::kept::Kept;
use crate::Name;
use crate::sample::{EnableState, Sample, Tracing};

/// The identity of one traced thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Thing {
    /// An event of an instance.
    Event {
        /// Instance; empty for the top level.
        instance: Name,
        /// System.
        system: Name,
        /// Event.
        name: Name,
    },
    /// An instance.
    Instance(Name),
    /// A dynamic event.
    Dynamic {
        /// Group.
        group: Name,
        /// Event.
        name: Name,
    },
    /// A line of `kprobes/list`.
    KernelProbe {
        /// Whether it is a kretprobe.
        ret: bool,
        /// Symbol.
        symbol: Name,
        /// Offset.
        offset: u64,
    },
    /// The master switch `kprobes/enabled`.
    KprobesSwitch,
    /// A BPF program by id.
    Program(u32),
    /// A BPF link by id.
    Link(u32),
}

/// How a thing differs from the first sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there.
    Appeared,
    /// It was there in another state.
    Differs,
    /// It is gone, or an event that is off.
    Gone,
}

/// Bytes that the states for going back in time may take: a program and its holder take about
/// 600 of them, so that with 1,000 programs there are some.
const STATES_BYTES: usize = 4 << 20;

/// A thing that changed, and when that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedAt {
    /// How.
    pub kind: ChangeKind,
    /// `CLOCK_REALTIME` of the sample that showed it, ns since 1970.
    pub wall_ns: u64,
}

/// Differences between the first tracing state and the present one.
#[derive(Clone, Debug, Default)]
pub struct TracingModel {
    current: Option<Arc<Tracing>>,
    first: HashMap<Thing, u64>,
    seeded: Seeded,
    changed: HashMap<Thing, ChangedAt>,
    states: Kept<Tracing, STATES_BYTES>,
    /// Stands for the newest of `states`, without what only counts.
    state: u64,
}

/// Which parts of the tracing state the first sample already had.
#[derive(Clone, Debug, Default)]
struct Seeded {
    tracefs: bool,
    kprobes: bool,
    bpf: bool,
}

impl TracingModel {
    /// `seq` is the tick of the sample; a first sample, which makes no tick, has that of the
    /// next one.
    pub(super) fn advance(&mut self, now: &Sample, seq: u64) {
        if self
            .current
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, &now.tracing))
        {
            return;
        }
        if self.current.as_deref() != Some(&*now.tracing) {
            self.compare(&now.tracing, now.wall_ns);
            self.keep(&now.tracing, seq);
        }
        self.current = Some(Arc::clone(&now.tracing));
    }

    /// Keeps a state for going back in time, unless only counters went on.
    fn keep(&mut self, tracing: &Arc<Tracing>, seq: u64) {
        let state = state_of(tracing);
        if state == self.state && !self.states.is_empty() {
            return;
        }
        self.state = state;
        self.states.push(seq, tracing, weigh::weigh(tracing));
    }

    /// The tracing state of a tick; the counters in it are those of when the state began.
    /// `None` before the first sample, and for ticks older than the states kept.
    pub fn at(&self, seq: u64) -> Option<&Tracing> {
        self.states.at(seq)
    }

    fn compare(&mut self, tracing: &Tracing, wall_ns: u64) {
        let mut present = HashMap::new();
        let mut off = HashSet::new();
        each(tracing, |thing, state, is_off| {
            if is_off {
                off.insert(thing.clone());
            }
            present.insert(thing, state);
        });
        let ready = Seeded {
            tracefs: tracing.tracefs.value().is_some(),
            kprobes: tracing.kprobes.value().is_some(),
            bpf: tracing.bpf.value().is_some(),
        };
        let is_ready = |s: &Seeded, thing: &Thing| match thing {
            Thing::Event { .. } | Thing::Instance(_) | Thing::Dynamic { .. } => s.tracefs,
            Thing::KernelProbe { .. } | Thing::KprobesSwitch => s.kprobes,
            Thing::Program(_) | Thing::Link(_) => s.bpf,
        };
        let mut note = |thing: &Thing, kind: ChangeKind| {
            let known = self.changed.get(thing).filter(|c| c.kind == kind);
            let at = known.copied().unwrap_or(ChangedAt { kind, wall_ns });
            self.changed.insert(thing.clone(), at);
        };
        let mut unchanged = Vec::new();
        for (thing, state) in &present {
            if !is_ready(&self.seeded, thing) {
                self.first.insert(thing.clone(), *state);
                continue;
            }
            match self.first.get(thing) {
                Some(first) if first == state => unchanged.push(thing.clone()),
                _ if off.contains(thing) => note(thing, ChangeKind::Gone),
                None => note(thing, ChangeKind::Appeared),
                Some(_) => note(thing, ChangeKind::Differs),
            }
        }
        for thing in self.first.keys() {
            if !present.contains_key(thing) && is_ready(&ready, thing) {
                note(thing, ChangeKind::Gone);
            }
        }
        for thing in unchanged {
            self.changed.remove(&thing);
        }
        // What appeared after the start and went again is of no more interest.
        let first = &self.first;
        self.changed
            .retain(|thing, _| present.contains_key(thing) || first.contains_key(thing));
        self.seeded.tracefs |= ready.tracefs;
        self.seeded.kprobes |= ready.kprobes;
        self.seeded.bpf |= ready.bpf;
    }

    /// How a thing differs from the first sample; `None` if it does not.
    pub fn changed(&self, thing: &Thing) -> Option<ChangedAt> {
        self.changed.get(thing).copied()
    }

    /// Everything that differs from the first sample, in no order.
    pub fn changes(&self) -> impl Iterator<Item = (&Thing, &ChangedAt)> {
        self.changed.iter()
    }
}

/// A number for all that is on and who reads it, whatever was counted meanwhile.
fn state_of(tracing: &Tracing) -> u64 {
    // A sum: the order in which things are listed does not matter.
    let mut sum = 0u64;
    each(tracing, |thing, state, _| {
        sum = sum.wrapping_add(digest(&(thing, state)));
    });
    if let Some(tracefs) = tracing.tracefs.value() {
        for instance in &tracefs.instances {
            let readers = instance.readers.value().into_iter().flatten();
            for reader in readers {
                sum = sum.wrapping_add(digest(&(&instance.name, reader.pid)));
            }
        }
    }
    let known = (
        tracing.tracefs.value().is_some(),
        tracing.kprobes.value().is_some(),
        tracing.bpf.value().is_some(),
    );
    sum.wrapping_add(digest(&known))
}

/// Walks all things with a number that stands for their state, and whether it is off.
fn each(tracing: &Tracing, mut f: impl FnMut(Thing, u64, bool)) {
    if let Some(tracefs) = tracing.tracefs.value() {
        for instance in &tracefs.instances {
            let state = (instance.tracing_on.get(), instance.current_tracer.value());
            f(
                Thing::Instance(instance.name.clone()),
                digest(&state),
                false,
            );
            for event in &instance.events {
                let thing = Thing::Event {
                    instance: instance.name.clone(),
                    system: event.system.clone(),
                    name: event.name.clone(),
                };
                f(
                    thing,
                    digest(&(event.state.as_str(), &event.filter, &event.triggers)),
                    event.state == EnableState::Off,
                );
            }
        }
        for event in &tracefs.dynamic {
            let thing = Thing::Dynamic {
                group: event.group.clone(),
                name: event.name.clone(),
            };
            f(
                thing,
                digest(&(
                    &event.definition,
                    event.state.get().map(EnableState::as_str),
                )),
                event.state.get() == Some(EnableState::Off),
            );
        }
    }
    if let Some(kprobes) = tracing.kprobes.value() {
        f(
            Thing::KprobesSwitch,
            digest(&kprobes.enabled.get()),
            kprobes.enabled.get() == Some(false),
        );
        for probe in &kprobes.list {
            let thing = Thing::KernelProbe {
                ret: probe.kind == crate::sample::KernelProbeKind::Kretprobe,
                symbol: probe.symbol.clone(),
                offset: probe.offset,
            };
            f(thing, digest(&(probe.disabled, probe.gone)), false);
        }
    }
    if let Some(bpf) = tracing.bpf.value() {
        for program in &bpf.programs {
            f(
                Thing::Program(program.id),
                digest(&program.attached.len()),
                false,
            );
        }
        for link in &bpf.links {
            f(Thing::Link(link.id), digest(&link.program), false);
        }
    }
}

/// A number for a state; equal states give equal numbers within one run.
fn digest(state: &impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reading;
    use crate::sample::{BpfObjects, BpfProgram, Event, Holder, Instance, Tracefs};

    fn with(events: &[(&str, EnableState)]) -> Sample {
        let events = events
            .iter()
            .map(|(name, state)| Event {
                system: "sched".into(),
                name: (*name).into(),
                state: *state,
                filter: None,
                triggers: Vec::new(),
            })
            .collect();
        let tracefs = Tracefs {
            instances: vec![Instance {
                events,
                ..Instance::default()
            }],
            ..Tracefs::default()
        };
        let tracing = Tracing {
            tracefs: Reading::Value(tracefs),
            ..Tracing::default()
        };
        Sample {
            tracing: Arc::new(tracing),
            wall_ns: 7,
            ..Sample::default()
        }
    }

    fn thing(name: &str) -> Thing {
        Thing::Event {
            instance: "".into(),
            system: "sched".into(),
            name: name.into(),
        }
    }

    #[test]
    fn only_differences_from_the_first_state_are_marked() {
        let mut model = TracingModel::default();
        model.advance(&Sample::default(), 0);
        model.advance(&with(&[("a", EnableState::On), ("b", EnableState::On)]), 1);
        assert_eq!(model.changes().count(), 0);
        model.advance(
            &with(&[("b", EnableState::SoftArmed), ("c", EnableState::On)]),
            1,
        );
        let kind = |name: &str| model.changed(&thing(name)).map(|c| c.kind);
        assert_eq!(kind("a"), Some(ChangeKind::Gone));
        assert_eq!(kind("b"), Some(ChangeKind::Differs));
        assert_eq!(kind("c"), Some(ChangeKind::Appeared));
        model.advance(&with(&[("a", EnableState::On), ("b", EnableState::On)]), 1);
        assert_eq!(model.changes().count(), 0);
    }

    #[test]
    fn programs_that_come_and_go_keep_no_more_memory() {
        let holder = Holder {
            pid: 1,
            comm: "agent".into(),
            cmdline: "c".repeat(256).into(),
            owner: crate::sample::Owner::default(),
            by: crate::sample::HeldBy::Program,
        };
        let mut model = TracingModel::default();
        for round in 0..300_u32 {
            let program = |id| BpfProgram {
                id,
                kind: "kprobe".into(),
                name: "probe".into(),
                tag: "0123456789abcdef".into(),
                loaded_at_ns: 0,
                uid: 0,
                maps: vec![1, 2],
                attached: Vec::new(),
                holders: vec![holder.clone()],
                pins: Vec::new(),
                ours: false,
            };
            let bpf = BpfObjects {
                programs: (round..round + 1_000).map(program).collect(),
                ..BpfObjects::default()
            };
            let sample = Sample {
                tracing: Arc::new(Tracing {
                    bpf: Reading::Value(bpf),
                    ..Tracing::default()
                }),
                ..Sample::default()
            };
            model.advance(&sample, u64::from(round));
        }
        let kept = model.states.bytes();
        assert!((STATES_BYTES / 2..=STATES_BYTES).contains(&kept), "{kept}");
        assert!(model.at(299).is_some() && model.at(290).is_some());
        assert!(model.at(100).is_none());
    }

    #[test]
    fn an_event_switched_off_is_off_since_then_and_the_past_stays() {
        let mut model = TracingModel::default();
        model.advance(&with(&[("a", EnableState::On)]), 0);
        model.advance(&with(&[("a", EnableState::On), ("b", EnableState::On)]), 3);
        model.advance(
            &with(&[("a", EnableState::Off), ("b", EnableState::Off)]),
            7,
        );
        let kind = |name: &str| model.changed(&thing(name)).map(|c| c.kind);
        assert_eq!(kind("a"), Some(ChangeKind::Gone));
        assert_eq!(kind("b"), Some(ChangeKind::Gone));
        let on = |seq| {
            let tracefs = model.at(seq)?.tracefs.value()?;
            let events = tracefs.instances.iter().flat_map(|i| &i.events);
            Some(events.filter(|e| e.state.is_on()).count())
        };
        assert_eq!(
            [on(0), on(2), on(3), on(6)],
            [Some(1), Some(1), Some(2), Some(2)]
        );
        assert_eq!([on(7), on(90)], [Some(0), Some(0)]);
    }
}
