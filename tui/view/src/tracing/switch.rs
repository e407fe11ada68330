//! From a row and a key to the request of a change.

use stalltop_model::change::{Request, shell_word};
use stalltop_model::sample::{BpfProgram, Holder, Instance};
use stalltop_model::{Model, Name, Reason, printable};

use crate::action::ActionId;
use crate::pane::{PaneId, Scene};
use crate::text;

use super::tree::{Key, Orphans, Row, State};

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
            switch(row, is_on, (scene, &stop))
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
            Key::Holder(pid) | Key::Program(_, pid) | Key::Perf(pid, ..) if *pid != 0 => {
                Ok(Request::Stop {
                    pid: *pid,
                    signal: None,
                })
            }
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

fn switch(row: &Row, is_on: bool, (scene, stop): (&Scene<'_>, &str)) -> Result<Request, String> {
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
        Key::Program(id, 0) => return Err(detach(*id, scene)),
        Key::Program(_, pid) => {
            return Err(format!(
                "a BPF program cannot be switched from outside: stop the process {pid} that holds it ({stop})"
            ));
        }
        Key::Perf(pid, ..) => {
            return Err(format!(
                "a perf event cannot be switched from outside: stop the process {pid} that holds it ({stop})"
            ));
        }
        Key::Nobody(Orphans::Pinned) => return Err("select one: its pin is named then".into()),
        Key::Link(_) | Key::Nobody(_) => {
            return Err("nothing to switch here".into());
        }
    })
}

/// How a program that no process holds is detached, for a person to do.
fn detach(id: u32, scene: &Scene<'_>) -> String {
    let bpf = scene.tracing().bpf.value();
    let program = bpf.and_then(|b| b.programs.iter().find(|p| p.id == id));
    let pin = program.and_then(|p| p.pins.first());
    let at = program.and_then(|p| p.attached.first());
    let link = at.and_then(|a| a.link);
    match (pin, link, at) {
        (Some(pin), ..) => printable(&format!(
            "no process holds it: rm {} detaches it, unless a link or a device keeps it",
            shell_word(pin)
        ))
        .into_owned(),
        (None, Some(link), _) => format!("no process holds it: bpftool link detach id {link}"),
        (None, None, Some(at)) => printable(&format!(
            "no process holds it: detach it from {} (bpftool net, bpftool cgroup)",
            at.target
        ))
        .into_owned(),
        // A program of a socket, say: of the program itself the kernel says nothing more.
        (None, None, None) => {
            let why = program.and_then(BpfProgram::nowhere);
            format!("no process holds it; {}", why.unwrap_or("it is gone"))
        }
    }
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
