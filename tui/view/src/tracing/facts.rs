//! What a row is in full.

use stalltop_model::change::shell_word;
use stalltop_model::sample::{BpfProgram, CostMethod};
use stalltop_model::{Name, Reading, printable};

use super::cost::{self, Figure};
use super::read_by;
use super::tree::{Key, Row, changed_text};
use crate::action::ActionId;
use crate::pane::{PaneId, Scene};
use crate::text;

/// Everything known of a row: the title, then its lines.
pub(super) fn of(row: &Row, scene: &Scene<'_>) -> Vec<String> {
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
    if !matches!(row.key, Key::Program(..)) {
        row_costs(row, scene, &mut fact);
    }
    match program {
        Some(program) => program_facts(program, scene, &mut fact),
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

fn program_facts(program: &BpfProgram, scene: &Scene<'_>, fact: &mut impl FnMut(&str, &str)) {
    fact(
        "program",
        &format!("{} {}, tag {}", program.id, program.name, program.tag),
    );
    let age = scene.until_ns().saturating_sub(program.loaded_at_ns);
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
    if let Some(why) = program.nowhere() {
        fact("attached", why);
    }
    cost_facts(program, scene, fact);
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
        fact("pinned at", pin);
        fact(
            "",
            &format!("             rm {} unpins it", shell_word(pin)),
        );
    }
    if program.holders.is_empty() && program.pins.is_empty() {
        fact(
            "held by",
            "no process that stalltop can see: who loaded it is not known",
        );
    }
    if let Some(first) = program.holders.first() {
        let key = scene.key(PaneId::Tracing.info().stack, ActionId::StopHolder);
        fact(
            "to stop it",
            &format!(
                "{key} stops {}[{}]; or stalltop stop {}",
                first.comm, first.pid, first.pid
            ),
        );
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

/// What a row other than a program's costs, and where the estimate is from.
fn row_costs(row: &Row, scene: &Scene<'_>, fact: &mut impl FnMut(&str, &str)) {
    let Some(share) = row.cost.share else {
        return;
    };
    if let Key::Perf(..) = row.key {
        fact(
            "cost",
            "not measured: the kernel counts neither hits nor time of perf events of others",
        );
        return;
    }
    match (share, scene.costs()) {
        (Figure::Value(..), Ok(costs)) => {
            let hits = row
                .cost
                .hits
                .map_or_else(String::new, |n| format!(", {} hits/s", n.rate()));
            fact("cost", &format!("{} % of one CPU{hits}", share.percent()));
            let known = costs.per_hit.iter().find(|p| *p.kind == *row.kind);
            if let Some(known) = known {
                fact(
                    "estimated",
                    &format!("from {:.0} ns a hit, {}", known.ns, known.from),
                );
            }
        }
        (_, Err(reason)) => fact("cost", &format!("not measured: {reason}")),
        (Figure::Unknown, Ok(_)) => fact("cost", "not measured: no figures of it yet"),
    }
}

/// What a program costs, with its windows, its maps, and what makes CPUs wait.
fn cost_facts(program: &BpfProgram, scene: &Scene<'_>, fact: &mut impl FnMut(&str, &str)) {
    let costs = match scene.costs() {
        Ok(costs) => costs,
        Err(reason) => {
            fact("cost", &format!("not measured: {reason}"));
            fact("fix", &reason.fix());
            if !program.maps.is_empty() {
                let maps: Vec<String> = program.maps.iter().map(ToString::to_string).collect();
                fact("maps", &maps.join(" "));
            }
            return;
        }
    };
    match (costs.method.as_ref(), costs.program(program.id)) {
        (Err(reason), _) => {
            fact("cost", &format!("not measured: {reason}"));
            fact("fix", &reason.fix());
        }
        (Ok(_), None) => fact("cost", "not measured yet: loaded after the newest window"),
        (Ok(method), Some(known)) => {
            let shown = cost::of_program(Some(costs), program.id);
            let share = shown.share.map_or_else(String::new, Figure::percent);
            let by = shown
                .deviation
                .map_or_else(String::new, |d| format!(" ± {}", cost::percent(d)));
            fact("cost", &format!("{share}{by} % of one CPU"));
            let by = |reading: &Reading<f64>, show: fn(f64) -> String| match reading.get() {
                Some(d) => format!(" ± {}", show(d)),
                None => String::new(),
            };
            fact(
                "runs",
                &format!(
                    "{}{} a second",
                    text::rate(known.runs_per_s),
                    by(&known.runs_deviation, text::rate)
                ),
            );
            let whole = |ns: f64| text::count(ns.max(0.0).round() as u64);
            match known.ns_per_run.as_ref() {
                Ok(ns) => fact(
                    "each",
                    &format!("{}{} ns", whole(*ns), by(&known.ns_deviation, whole)),
                ),
                Err(reason) => fact("each", &format!("not measured: {reason}")),
            }
            let how = match method {
                CostMethod::Windows {
                    window_ns, duty, ..
                } => format!(
                    "extrapolated from {} of {}, {} % of the time",
                    text::plural(known.windows.into(), "window"),
                    text::duration(*window_ns),
                    text::percent(*duty)
                ),
                CostMethod::Sysctl => {
                    "counted all the time: kernel.bpf_stats_enabled is on, not by stalltop".into()
                }
            };
            fact("measured", &how);
            match known.misses_per_s.as_ref() {
                Ok(0.0) => {}
                Ok(n) => fact(
                    "misses",
                    &format!("{} a second: it ran already on that CPU", text::rate(*n)),
                ),
                Err(reason) => fact("misses", &format!("not known: {reason}")),
            }
            if let Some(growth) = known.growth {
                fact(
                    "growth",
                    &format!(
                        "{} ns with {:.1} CPUs busy, {} ns with {:.1}: its runs wait for each other",
                        whole(growth.few_ns),
                        growth.few_cpus,
                        whole(growth.many_ns),
                        growth.many_cpus
                    ),
                );
            }
        }
    }
    for id in &program.maps {
        let Some(map) = costs.map(*id) else {
            fact("map", &id.to_string());
            continue;
        };
        let others: Vec<String> = map
            .programs
            .iter()
            .filter(|p| **p != program.id)
            .map(ToString::to_string)
            .collect();
        let mut line = format!(
            "{id} {} of {} + {}",
            cost::map_text(map),
            text::bytes(map.key_bytes.into()),
            text::bytes(map.value_bytes.into())
        );
        if !others.is_empty() {
            line = format!("{line}, also of prog {}", others.join(" "));
        }
        if map.contends {
            line.push_str("; CPUs that write to it can wait for each other");
        }
        fact("map", &line);
    }
}
