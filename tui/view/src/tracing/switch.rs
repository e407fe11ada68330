//! From a row and a key to the request of a change; what a row is in full.

use stalltop_model::change::Request;
use stalltop_model::sample::{BpfProgram, Holder, Instance};
use stalltop_model::{Model, Name, Reason, printable};

use crate::action::ActionId;
use crate::pane::{PaneId, Scene};
use crate::text;

use super::tree::{Key, Row, State, changed_text};

/// Every event off where any is on: at the top level, in the one instance, or in all.
///
/// # Errors
/// That no event is on, in words.
pub(crate) fn clear_events(scene: &Scene<'_>) -> Result<Request, String> {
    let Some(tracefs) = scene.sample().tracing.tracefs.value() else {
        // The plan says what is missing, and the fix.
        return Ok(toggle("set_event".into(), true));
    };
    let others = tracefs.instances.iter().filter(|i| !i.ours);
    let on: Vec<&Name> = others
        .filter(|i| i.events.iter().any(|e| e.state.is_on()))
        .map(|i| &i.name)
        .collect();
    match on.as_slice() {
        [] => Err("no trace event is on: nothing to clear".into()),
        [one] => Ok(toggle(of(one, "set_event"), true)),
        _ => Ok(toggle("*/set_event".into(), true)),
    }
}

/// Who reads a buffer, in words.
pub(crate) fn read_by(readers: Result<&Vec<Holder>, &Reason>) -> String {
    match readers {
        Ok(readers) if readers.is_empty() => "nobody reads the buffer".into(),
        Ok(readers) => {
            let mut names: Vec<String> = readers
                .iter()
                .take(3)
                .map(|h| format!("{}[{}]", text::name(&h.comm, 16), h.pid))
                .collect();
            if readers.len() > 3 {
                names.push(format!("{} more", readers.len() - 3));
            }
            format!("read by {}", names.join(", "))
        }
        Err(reason) => format!("readers: {reason}"),
    }
}

/// The master switch of kprobes, the other way.
pub(crate) fn kprobes_master(scene: &Scene<'_>) -> Request {
    let off = scene
        .sample()
        .tracing
        .kprobes
        .value()
        .and_then(|k| k.enabled.get())
        == Some(false);
    toggle("kprobes".into(), !off)
}

fn toggle(selector: Name, is_on: bool) -> Request {
    if is_on {
        Request::Off { selector }
    } else {
        Request::On {
            selector,
            force: false,
        }
    }
}

/// The change that an action means on a row, or why there is none.
pub(super) fn request(
    action: ActionId,
    row: Option<&Row>,
    scene: &Scene<'_>,
) -> Result<Request, String> {
    let model = scene.model;
    let row = row.ok_or("nothing is selected")?;
    let is_on = row.state != State::Off;
    match action {
        ActionId::Switch => {
            let stop = scene.key(PaneId::Tracing.info().stack, ActionId::StopHolder);
            switch(row, is_on, &stop)
        }
        ActionId::SwitchSystem => match &row.key {
            Key::Event(instance, system, _) | Key::System(instance, system) => {
                Ok(toggle(of(instance, &format!("{system}:*")), is_on))
            }
            Key::Dynamic(group, _) => Ok(toggle(format!("{group}:*").into(), is_on)),
            _ => Err("only events have a subsystem".into()),
        },
        ActionId::Remove => match &row.key {
            Key::Dynamic(group, name) => Ok(Request::Remove {
                selector: format!("{group}:{name}").into(),
            }),
            _ => Err("only dynamic events can be removed".into()),
        },
        ActionId::StopHolder => match &row.key {
            Key::Holder(pid) | Key::Program(_, pid) if *pid != 0 => Ok(Request::Stop {
                pid: *pid,
                signal: None,
            }),
            _ => Err("select a process, or something that it holds".into()),
        },
        ActionId::TracingOn => {
            let instance = instance(row, model)?;
            let is_on = instance.tracing_on.get() != Some(false);
            Ok(toggle(of(&instance.name, "tracing_on"), is_on))
        }
        ActionId::Tracer => {
            let instance = instance(row, model)?;
            let is_on = instance
                .current_tracer
                .value()
                .is_none_or(|t| &**t != "nop");
            Ok(toggle(of(&instance.name, "current_tracer"), is_on))
        }
        _ => Err("nothing to switch".into()),
    }
}

fn switch(row: &Row, is_on: bool, stop: &str) -> Result<Request, String> {
    Ok(match &row.key {
        Key::Event(instance, system, name) => {
            toggle(of(instance, &format!("{system}:{name}")), is_on)
        }
        Key::System(instance, system) => toggle(of(instance, &format!("{system}:*")), is_on),
        Key::Instance(instance) => toggle(of(instance, "set_event"), row.state == State::On),
        Key::Dynamic(group, name) => toggle(format!("{group}:{name}").into(), is_on),
        Key::Kprobes | Key::Kprobe(..) => toggle("kprobes".into(), is_on),
        // What is only not mounted can be mounted from here.
        Key::Missing(_) => match &row.missing {
            Some(Reason::NotMounted { fs, .. }) => toggle(fs.clone(), false),
            Some(reason) => {
                return Err(printable(&format!("{reason}; fix: {}", reason.fix())).into_owned());
            }
            None => return Err("nothing to switch here".into()),
        },
        Key::Dynamics => return Err("select one dynamic event, or X for its group".into()),
        Key::Holder(_) => {
            return Err(format!(
                "BPF programs cannot be switched from outside: stop {} ({stop})",
                row.what
            ));
        }
        Key::Program(_, 0) => {
            return Err(
                "no process holds it: remove its pin, or detach it with bpftool link detach".into(),
            );
        }
        Key::Program(_, pid) => {
            return Err(format!(
                "a BPF program cannot be switched from outside: stop the process {pid} that holds it ({stop})"
            ));
        }
        Key::Link(_) | Key::Pinned => {
            return Err("nothing to switch here".into());
        }
    })
}

/// A selector in an instance.
fn of(instance: &str, what: &str) -> Name {
    if instance.is_empty() {
        what.into()
    } else {
        format!("{instance}/{what}").into()
    }
}

/// The instance that a row belongs to.
fn instance<'a>(row: &Row, model: &'a Model) -> Result<&'a Instance, String> {
    let (Key::Instance(name) | Key::System(name, _) | Key::Event(name, ..)) = &row.key else {
        return Err("select an instance, or one of its events".into());
    };
    let tracefs = model.now().tracing.tracefs.value();
    tracefs
        .and_then(|t| t.instances.iter().find(|i| i.name == *name))
        .ok_or_else(|| "this instance is gone".into())
}

/// Everything known of a row: the title, then its lines.
pub(super) fn facts(row: &Row, scene: &Scene<'_>) -> Vec<String> {
    let model = scene.model;
    let mut out = vec![row.what.clone()];
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            out.push(format!("{} {}", text::left(name, 12), printable(value)));
        }
    };
    fact("kind", &row.kind);
    if let Some(changed) = row.changed {
        fact("since start", &changed_text(changed));
    }
    if let Some(hits) = row.hits {
        fact("hits", &text::count(hits));
    }
    if let Some(reason) = &row.missing {
        fact("missing", &reason.to_string());
        fact("fix", &reason.fix());
    }
    let program = match &row.key {
        Key::Program(id, _) => scene
            .tracing()
            .bpf
            .value()
            .and_then(|b| b.programs.iter().find(|p| p.id == *id)),
        _ => None,
    };
    if let Key::Event(instance, system, name) = &row.key {
        event_facts(scene, [instance, system, name], &mut fact);
    }
    match program {
        Some(program) => program_facts(program, model, &mut fact),
        None => fact("state", &row.note),
    }
    out
}

/// Where an event is, what it records, and which keys switch it.
fn event_facts(
    scene: &Scene<'_>,
    [instance, system, name]: [&Name; 3],
    fact: &mut impl FnMut(&str, &str),
) {
    let Some(tracefs) = scene.tracing().tracefs.value() else {
        return;
    };
    let (title, dir) = if instance.is_empty() {
        ("top level", String::new())
    } else {
        (&**instance, format!("/instances/{instance}"))
    };
    fact("instance", title);
    let mount = &tracefs.mount;
    fact(
        "enable",
        &format!("{mount}{dir}/events/{system}/{name}/enable"),
    );
    let here = tracefs.instances.iter().find(|i| i.name == *instance);
    if let Some(here) = here {
        fact("buffer", &read_by(here.readers.as_ref()));
        let event = here
            .events
            .iter()
            .find(|e| e.system == *system && e.name == *name);
        fact("enable reads", event.map_or("0", |e| e.state.as_str()));
        let filter = event.and_then(|e| e.filter.as_deref());
        fact("filter", filter.unwrap_or("none"));
    }
    let stack = PaneId::Tracing.info().stack;
    let keys = [
        (ActionId::Switch, "this event"),
        (ActionId::SwitchSystem, "its subsystem"),
        (ActionId::ClearSetEvent, "every event"),
    ];
    let keys = keys.map(|(id, what)| format!("{} {what}", scene.key(stack, id)));
    fact("off, or on", &keys.join(" · "));
}

fn program_facts(program: &BpfProgram, model: &Model, fact: &mut impl FnMut(&str, &str)) {
    fact(
        "program",
        &format!("{} {}, tag {}", program.id, program.name, program.tag),
    );
    let age = model.now().at_ns.saturating_sub(program.loaded_at_ns);
    fact(
        "loaded",
        &format!("{} ago by uid {}", text::ago(age), program.uid),
    );
    for attached in &program.attached {
        let link = attached
            .link
            .map_or_else(String::new, |l| format!(" (link {l})"));
        fact(
            "attached",
            &format!("{} {}{link}", attached.kind, attached.target),
        );
    }
    if !program.maps.is_empty() {
        let maps: Vec<String> = program.maps.iter().map(ToString::to_string).collect();
        fact("maps", &maps.join(" "));
    }
    for holder in &program.holders {
        fact(
            "held by",
            &format!(
                "{}[{}] {} through a {}",
                holder.comm,
                holder.pid,
                holder.owner.name,
                by(holder.by)
            ),
        );
        fact("", &format!("             {}", holder.cmdline));
    }
    for pin in &program.pins {
        fact("pinned", pin);
    }
    if program.ours {
        fact("ours", "stalltop loaded it");
    }
}

fn by(by: stalltop_model::sample::HeldBy) -> &'static str {
    use stalltop_model::sample::HeldBy;
    match by {
        HeldBy::PerfEvent => "perf event",
        HeldBy::Link => "BPF link",
        HeldBy::Program => "program descriptor",
        HeldBy::Map => "map",
        HeldBy::TracefsFile => "tracefs file",
    }
}
