//! What dynamic events and trace buffers cost: rates of what the tracing collector counts, times
//! what one hit was measured to take elsewhere. All shares here are estimates.

use std::collections::HashMap;
use std::time::Instant;

use stalltop_model::sample::{
    DynamicCost, DynamicEvent, DynamicKind, Instance, InstanceCost, Tracefs, Tracing,
};
use stalltop_model::{Name, Reading, Reason};

use super::per_hit::{self, FTRACE_EVENT};

/// The newest rates.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EventCosts {
    pub(super) dynamic: Vec<DynamicCost>,
    pub(super) instances: Vec<InstanceCost>,
}

/// Two counts that go up together.
type Counts = (Reading<u64>, Reading<u64>);

/// Turns counts into rates.
#[derive(Debug, Default)]
pub(crate) struct EventRates {
    at: Option<Instant>,
    dynamic: HashMap<(Name, Name), Counts>,
    instances: HashMap<Name, Counts>,
}

impl EventRates {
    /// Takes a state whose counts were read at `at`; nothing if that is no news.
    pub(crate) fn advance(&mut self, tracing: &Tracing, at: Option<Instant>) -> Option<EventCosts> {
        let at = at.filter(|at| self.at != Some(*at))?;
        let seconds = self.at.map(|last| at.duration_since(last).as_secs_f64());
        self.at = Some(at);
        let Some(tracefs) = tracing.tracefs.value() else {
            self.dynamic.clear();
            self.instances.clear();
            return Some(EventCosts::default());
        };
        let counts = |e: &DynamicEvent| (e.hits.clone(), e.misses.clone());
        let dynamic: Vec<_> = (tracefs.dynamic.iter())
            .map(|event| {
                let before = self.dynamic.get(&(event.group.clone(), event.name.clone()));
                let (hits, misses) = rates(before, &counts(event), seconds);
                DynamicCost {
                    group: event.group.clone(),
                    name: event.name.clone(),
                    share: share_of(event.kind, &hits),
                    hits_per_s: hits,
                    misses_per_s: misses,
                }
            })
            .collect();
        let filled = |i: &Instance| (i.buffer_entries.clone(), i.buffer_lost.clone());
        let instances = (tracefs.instances.iter())
            .map(|instance| {
                let before = self.instances.get(&instance.name);
                let (events, lost) = rates(before, &filled(instance), seconds);
                let own = events.clone().map(|events| {
                    (events - dynamic_in(instance, tracefs, &dynamic)).max(0.0)
                        * per_hit::ns(FTRACE_EVENT)
                        / 1e9
                });
                InstanceCost {
                    name: instance.name.clone(),
                    events_per_s: events,
                    lost_per_s: lost,
                    share: own,
                }
            })
            .collect();
        self.dynamic = (tracefs.dynamic.iter())
            .map(|e| ((e.group.clone(), e.name.clone()), counts(e)))
            .collect();
        self.instances = (tracefs.instances.iter())
            .map(|i| (i.name.clone(), filled(i)))
            .collect();
        Some(EventCosts { dynamic, instances })
    }
}

/// Records a second that dynamic events make in an instance: their cost is counted as theirs.
fn dynamic_in(instance: &Instance, tracefs: &Tracefs, costs: &[DynamicCost]) -> f64 {
    if tracefs.dynamic.is_empty() {
        return 0.0;
    }
    let on = instance.events.iter().filter(|e| e.state.is_on());
    on.filter_map(|event| {
        let is = |c: &&DynamicCost| c.group == event.system && c.name == event.name;
        costs.iter().find(is)?.hits_per_s.get()
    })
    .sum()
}

fn rates(
    before: Option<&Counts>,
    now: &Counts,
    seconds: Option<f64>,
) -> (Reading<f64>, Reading<f64>) {
    (
        rate(before.map(|b| &b.0), &now.0, seconds),
        rate(before.map(|b| &b.1), &now.1, seconds),
    )
}

/// A count that went back belongs to something new under an old name, or was reset: it has no
/// rate until it was read twice.
fn rate(before: Option<&Reading<u64>>, now: &Reading<u64>, seconds: Option<f64>) -> Reading<f64> {
    let now = match now {
        Reading::Value(now) => *now,
        Reading::Off(why) => return Reading::Off(why.clone()),
    };
    match (before.and_then(Reading::get), seconds) {
        (Some(before), Some(seconds)) if before <= now && seconds > 0.0 => {
            Reading::Value((now - before) as f64 / seconds)
        }
        _ => Reading::Off(Reason::Starting),
    }
}

fn share_of(kind: DynamicKind, hits: &Reading<f64>) -> Reading<f64> {
    match per_hit::of_kind(kind) {
        Some(ns) => hits.clone().map(|hits| hits * ns / 1e9),
        None => Reading::Off(Reason::KernelDoesNotSay {
            what: "how often events of this kind are hit".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stalltop_model::sample::{EnableState, Event};

    use super::*;

    fn state(hits: u64, entries: u64, lost: u64) -> Tracing {
        let event = DynamicEvent {
            kind: DynamicKind::Uprobe,
            group: "uprobes".into(),
            name: "p".into(),
            definition: "p:uprobes/p /bin/true:0x10".into(),
            state: Reading::Value(EnableState::On),
            hits: Reading::Value(hits),
            misses: Reading::Off(Reason::KernelDoesNotSay { what: "it".into() }),
        };
        let on = |system: &str, name: &str| Event {
            system: system.into(),
            name: name.into(),
            state: EnableState::On,
            filter: None,
            triggers: Vec::new(),
        };
        let instance = Instance {
            events: vec![on("sched", "sched_switch"), on("uprobes", "p")],
            buffer_entries: Reading::Value(entries),
            buffer_lost: Reading::Value(lost),
            ..Instance::default()
        };
        Tracing {
            tracefs: Reading::Value(Tracefs {
                mount: "/t".into(),
                instances: vec![instance],
                dynamic: vec![event],
            }),
            ..Tracing::default()
        }
    }

    #[test]
    fn rates_need_two_readings_and_new_ones() {
        let start = Instant::now();
        let at = |s| Some(start + Duration::from_secs(s));
        let mut rates = EventRates::default();
        let first = rates.advance(&state(100, 1_000, 10), at(0)).unwrap();
        assert_eq!(first.dynamic[0].hits_per_s, Reading::Off(Reason::Starting));
        assert_eq!(rates.advance(&state(100, 1_000, 10), at(0)), None);
        let costs = rates.advance(&state(2_100, 21_000, 30), at(2)).unwrap();
        let event = &costs.dynamic[0];
        assert_eq!(event.hits_per_s.get(), Some(1_000.0));
        assert_eq!(event.misses_per_s.get(), None);
        let share = 1_000.0 * per_hit::of_kind(DynamicKind::Uprobe).unwrap() / 1e9;
        assert_eq!(event.share.get(), Some(share));
        let instance = &costs.instances[0];
        assert_eq!(instance.events_per_s.get(), Some(10_000.0));
        assert_eq!(instance.lost_per_s.get(), Some(10.0));
        // A tenth of what it records are the uprobe's hits, which are counted there.
        let share = 9_000.0 * per_hit::ns(FTRACE_EVENT) / 1e9;
        assert_eq!(instance.share.get(), Some(share));
        // Reset, or made anew under the same name.
        let costs = rates.advance(&state(5, 7, 0), at(4)).unwrap();
        assert_eq!(costs.dynamic[0].hits_per_s, Reading::Off(Reason::Starting));
        assert_eq!(costs.instances[0].share, Reading::Off(Reason::Starting));
    }
}
