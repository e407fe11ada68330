//! Findings on what is switched on (I1).

use super::{Confidence, Finding, Severity};
use crate::model::Model;
use crate::units::Count;

pub(super) fn kprobes_on(model: &Model) -> Option<Finding> {
    let kprobes = model.now().tracing.kprobes.value()?;
    if kprobes.enabled.get() == Some(false) {
        return None;
    }
    let armed = kprobes
        .list
        .iter()
        .filter(|p| !p.disabled && !p.gone)
        .count();
    if armed == 0 {
        return None;
    }
    let evidence = kprobes
        .list
        .iter()
        .filter(|p| !p.disabled && !p.gone)
        .take(8)
        .map(|p| format!("{:?} {}+{:#x}", p.kind, p.symbol, p.offset).to_lowercase())
        .collect();
    Some(Finding {
        id: "kprobes-on",
        incident: "I1",
        severity: Severity::Info,
        confidence: Confidence::High,
        sentence: format!("{} kernel probes are armed", Count(armed as u64)),
        evidence,
        action: "kprobes",
        pane: "tracing",
        disproof: "the probed functions are not called often",
    })
}

pub(super) fn tracer_on(model: &Model) -> Option<Finding> {
    let tracing = model.now().tracing.tracefs.value()?;
    let active = tracing.instances.iter().find_map(|instance| {
        let tracer = instance.current_tracer.value()?;
        (&**tracer != "nop" && !instance.ours).then_some((instance, tracer))
    });
    let (instance, tracer) = active?;
    Some(Finding {
        id: "tracer-on",
        incident: "I1",
        severity: Severity::Warning,
        confidence: Confidence::High,
        sentence: format!(
            "the {tracer} tracer is on in {}",
            instance_name(&instance.name)
        ),
        evidence: vec![format!(
            "current_tracer of {}",
            instance_name(&instance.name)
        )],
        action: "current-tracer",
        pane: "tracing",
        disproof: "tracing_on is 0 and the tracer costs nothing while nothing is recorded",
    })
}

pub(super) fn unread_events(model: &Model) -> Option<Finding> {
    let tracing = model.now().tracing.tracefs.value()?;
    let mut on = 0usize;
    let mut names = Vec::new();
    let mut evidence = Vec::new();
    for instance in tracing.instances.iter().filter(|i| !i.ours) {
        let here = instance.events.iter().filter(|e| e.state.is_on()).count();
        let unread = instance.readers.value().is_some_and(Vec::is_empty);
        if here > 0 && unread && instance.tracing_on.get() == Some(true) {
            on += here;
            names.push(instance_name(&instance.name));
            let plural = if here == 1 { "" } else { "s" };
            evidence.push(format!(
                "{here} event{plural} on in {}",
                instance_name(&instance.name)
            ));
        }
    }
    let plural = if on == 1 { "" } else { "s" };
    let place = match names.as_slice() {
        [] => return None,
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [one, two, rest @ ..] => format!("{one}, {two} and {} more", rest.len()),
    };
    let buffers = if names.len() == 1 {
        "the buffer"
    } else {
        "the buffers"
    };
    Some(Finding {
        id: "unread-events",
        incident: "I1",
        severity: Severity::Info,
        confidence: Confidence::Medium,
        sentence: format!("{on} trace event{plural} on in {place}, and nobody reads {buffers}"),
        evidence,
        action: "clear-set-event",
        pane: "tracing",
        disproof: "somebody reads `trace` from time to time instead of holding `trace_pipe` open",
    })
}

fn instance_name(name: &str) -> String {
    if name.is_empty() {
        "the top-level instance".into()
    } else {
        format!("instance {name}")
    }
}
