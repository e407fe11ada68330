//! Instances with their events, and dynamic events.

use std::collections::BTreeMap;

use stalltop_model::model::tracing::{ChangeKind, ChangedAt, Thing};
use stalltop_model::sample::{
    Costs, DynamicEvent, DynamicKind, EnableState, Event, Instance, Tracefs, Tracing,
};
use stalltop_model::{Name, Reading, printable};

use super::super::cost::{self, Cost};
use super::super::read_by;
use super::{Key, Marks, Node, Row, State};
use crate::text;

pub(super) fn nodes(
    tracing: &Tracing,
    costs: Option<&Costs>,
    marks: &Marks<'_>,
    show_ours: bool,
    out: &mut Vec<Node>,
) {
    match tracing.tracefs.as_ref() {
        Ok(tracefs) => {
            let instances = tracefs.instances.iter();
            let shown = instances.filter(|i| show_ours || !i.ours);
            out.extend(shown.map(|i| instance_node(i, costs, marks)));
            dynamics(tracefs, costs, marks, out);
        }
        Err(reason) => out.push(Node::missing("trace events", reason)),
    }
}

fn instance_node(instance: &Instance, costs: Option<&Costs>, marks: &Marks<'_>) -> Node {
    let name = if instance.name.is_empty() {
        "ftrace, top level".to_owned()
    } else {
        format!("ftrace, instance {}", printable(&instance.name))
    };
    let mut row = Row::new(Key::Instance(instance.name.clone()), 0, name, "instance");
    row.ours = instance.ours;
    row.changed = marks.changed(&Thing::Instance(instance.name.clone()));
    let on = instance.events.iter().filter(|e| e.state.is_on()).count() as u64;
    if on > 0 {
        row.state = State::On;
    }
    row.note = instance_note(instance, on).join(" · ");
    if on > 0 {
        let (cost, lost) = cost::of_instance(costs, &instance.name);
        row.cost = cost;
        if let Some(lost) = lost {
            row.warn = format!("{} events/s lost", text::rate(lost));
        }
    }
    Node::open(row, systems(instance, marks))
}

fn instance_note(instance: &Instance, on: u64) -> Vec<String> {
    // A buffer that nobody reads is what a person looks for: it comes first.
    let mut note = Vec::new();
    match instance.readers.as_ref() {
        Ok(readers) if readers.is_empty() && on == 0 => {}
        readers => note.push(read_by(readers)),
    }
    note.push(match instance.events_available {
        // How many exist is not known yet on a fresh instance.
        n if n < on => format!("{} on", text::count(on)),
        0 => "0 on".into(),
        n => format!("{} of {} on", text::count(on), text::plural(n, "event")),
    });
    if let Reading::Value(tracer) = &instance.current_tracer
        && &**tracer != "nop"
    {
        note.push(format!("tracer {}", printable(tracer)));
    }
    if instance.tracing_on.get() == Some(false) {
        note.push("tracing_on 0: records nothing".into());
    }
    if let Reading::Value(pids) = &instance.set_event_pid
        && !pids.is_empty()
    {
        note.push(format!("only pids {}", text::name(pids, 40)));
    }
    if !instance.disagreement.is_empty() {
        let differ = text::plural(instance.disagreement.len() as u64, "event");
        note.push(format!("set_event and enable files differ on {differ}"));
    }
    note
}

/// Subsystems of an instance that have anything on, or had at the start.
fn systems(instance: &Instance, marks: &Marks<'_>) -> Vec<Node> {
    let mut all: BTreeMap<&Name, Vec<Row>> = BTreeMap::new();
    for event in &instance.events {
        let row = event_row(&instance.name, event, marks);
        all.entry(&event.system).or_default().push(row);
    }
    for (thing, changed) in marks.gone() {
        if let Thing::Event {
            instance: of,
            system,
            name,
        } = thing
            && *of == instance.name
            && !instance
                .events
                .iter()
                .any(|e| e.system == *system && e.name == *name)
        {
            let row = gone_row(of, system, name, (changed, marks));
            all.entry(system).or_default().push(row);
        }
    }
    all.into_iter()
        .map(|(system, mut events)| {
            events.sort_by(|a, b| a.what.cmp(&b.what));
            let on = events.iter().filter(|e| e.state == State::On).count();
            let key = Key::System(instance.name.clone(), system.clone());
            let mut row = Row::new(key, 1, printable(system), "subsystem");
            row.state = match on {
                0 if events.iter().any(|e| e.state == State::Armed) => State::Armed,
                0 => State::Off,
                _ => State::On,
            };
            row.note = format!("{on} on");
            let off = events.iter().filter(|e| e.state == State::Off).count();
            if off > 0 {
                row.note = format!("{on} on · {off} off");
            }
            // What is off must not bury what is on.
            let open = row.state != State::Off;
            let children = events.into_iter().map(Node::leaf).collect();
            Node {
                row,
                children,
                open,
            }
        })
        .collect()
}

fn event_row(instance: &Name, event: &Event, marks: &Marks<'_>) -> Row {
    let key = Key::Event(instance.clone(), event.system.clone(), event.name.clone());
    let what = format!("{}:{}", printable(&event.system), printable(&event.name));
    let mut row = Row::new(key, 2, what, "event");
    row.state = state(event.state);
    let mut note = Vec::new();
    match event.state {
        EnableState::OnSoftArmed => note.push("on, and soft-armed by a trigger (1*)".to_owned()),
        EnableState::SoftArmed => note.push("soft-armed, not recording (0*)".to_owned()),
        EnableState::Off | EnableState::On => {}
    }
    if let Some(filter) = &event.filter {
        note.push(format!("filter {}", printable(filter)));
    }
    for trigger in &event.triggers {
        note.push(format!("trigger {}", printable(trigger)));
    }
    row.changed = marks.changed(&Thing::Event {
        instance: instance.clone(),
        system: event.system.clone(),
        name: event.name.clone(),
    });
    if let Some(off) = row.changed.filter(|c| c.kind == ChangeKind::Gone) {
        let who = marks.who([instance, &event.system, &event.name], off);
        if !who.is_empty() {
            note.insert(0, who);
        }
    }
    row.note = note.join(" · ");
    row
}

/// An event that was on at the start and is plainly off now: it can be switched on again.
fn gone_row(
    instance: &Name,
    system: &Name,
    name: &Name,
    (changed, marks): (ChangedAt, &Marks<'_>),
) -> Row {
    let key = Key::Event(instance.clone(), system.clone(), name.clone());
    let what = format!("{}:{}", printable(system), printable(name));
    let mut row = Row::new(key, 2, what, "event");
    row.state = State::Off;
    row.note = marks.who([instance, system, name], changed);
    row.changed = Some(changed);
    row
}

fn state(state: EnableState) -> State {
    match state {
        EnableState::Off => State::Off,
        EnableState::On | EnableState::OnSoftArmed => State::On,
        EnableState::SoftArmed => State::Armed,
    }
}

fn dynamics(tracefs: &Tracefs, costs: Option<&Costs>, marks: &Marks<'_>, out: &mut Vec<Node>) {
    let dynamic = tracefs.dynamic.iter();
    let mut rows: Vec<Row> = dynamic.map(|e| dynamic_row(e, costs, marks)).collect();
    for (thing, changed) in marks.gone() {
        if let Thing::Dynamic { group, name } = thing {
            let key = Key::Dynamic(group.clone(), name.clone());
            let what = format!("{}:{}", printable(group), printable(name));
            let mut row = Row::new(key, 1, what, "removed");
            row.changed = Some(changed);
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return;
    }
    let mut row = Row::new(Key::Dynamics, 0, "dynamic events", "");
    let on = rows.iter().filter(|r| r.state == State::On).count();
    row.note = format!("{on} of {} on at the top level", rows.len());
    if on > 0 {
        row.state = State::On;
    }
    row.cost = Cost::sum(rows.iter().map(|r| &r.cost));
    out.push(Node::open(row, rows.into_iter().map(Node::leaf).collect()));
}

fn dynamic_row(event: &DynamicEvent, costs: Option<&Costs>, marks: &Marks<'_>) -> Row {
    let kind = match event.kind {
        DynamicKind::Kprobe => "kprobe",
        DynamicKind::Kretprobe => "kretprobe",
        DynamicKind::Uprobe => "uprobe",
        DynamicKind::Uretprobe => "uretprobe",
        DynamicKind::Eprobe => "eprobe",
        DynamicKind::Fprobe => "fprobe",
        DynamicKind::Tprobe => "tprobe",
        DynamicKind::Synthetic => "synthetic",
        DynamicKind::Other => "dynamic",
    };
    let key = Key::Dynamic(event.group.clone(), event.name.clone());
    let what = format!("{}:{}", printable(&event.group), printable(&event.name));
    let mut row = Row::new(key, 1, what, kind);
    row.state = event.state.get().map_or(State::None, state);
    row.hits = event.hits.get();
    if row.state == State::On {
        row.cost = cost::of_dynamic(costs, (&event.group, &event.name), kind);
    }
    row.note = printable(&event.definition).into_owned();
    if let Some(misses) = event.misses.get().filter(|m| *m > 0) {
        row.note = format!("{} missed · {}", text::count(misses), row.note);
    }
    row.changed = marks.changed(&Thing::Dynamic {
        group: event.group.clone(),
        name: event.name.clone(),
    });
    row
}
