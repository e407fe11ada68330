//! `stalltop audit`: what traces on this host, who holds it, and what it costs.

mod costs;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use stalltop_collectors::Env;
use stalltop_model::sample::{
    BpfLink, BpfObjects, BpfProgram, Costs, Event, Holder, Instance, KernelProbe, KernelProbeKind,
    KernelProbes, OwnerKind, PerfUse, Tracefs, Tracing,
};
use stalltop_model::units::{Age, Count};
use stalltop_model::{Reading, Reason, printable};

/// So many events of a subsystem are listed; more are summed up unless `--all` is given.
const MANY: usize = 12;

/// Windows in which costs are measured: a deviation needs two.
const WINDOWS: u32 = 3;

/// What is printed as JSON: the tracing state, and beside its parts what they cost and what is not
/// known of them.
#[derive(serde::Serialize)]
struct Audit<'a> {
    #[serde(flatten)]
    tracing: &'a Tracing,
    costs: &'a Costs,
    nowhere: Vec<Nowhere>,
}

/// A program of which it is not said what it is attached to.
#[derive(serde::Serialize)]
struct Nowhere {
    program: u32,
    why: &'static str,
}

impl Nowhere {
    fn all(tracing: &Tracing) -> Vec<Self> {
        let bpf = tracing.bpf.value().into_iter();
        let programs = bpf.flat_map(|bpf| &bpf.programs);
        let unknown = programs.filter_map(|program| {
            let why = program.nowhere()?;
            Some(Self {
                program: program.id,
                why,
            })
        });
        unknown.collect()
    }
}

/// Prints the state, as text or as one JSON object. Fails, with the reasons printed, only where
/// nothing at all is known.
pub(crate) fn run(json: bool, all: bool, root: &Path) -> anyhow::Result<ExitCode> {
    let (tracing, costs) = stalltop_collectors::costs::once(&Env::at(root), WINDOWS);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = if json {
        let audit = Audit {
            tracing: &tracing,
            costs: &costs,
            nowhere: Nowhere::all(&tracing),
        };
        serde_json::to_writer_pretty(&mut out, &audit)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        print(&mut out, &tracing, &costs, all)
    };
    printed
        .and_then(|()| out.flush())
        .context("cannot write to standard output")?;
    let known = tracing.tracefs.value().is_some()
        || tracing.kprobes.value().is_some()
        || tracing.bpf.value().is_some();
    Ok(if known {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(out: &mut impl Write, tracing: &Tracing, costs: &Costs, all: bool) -> io::Result<()> {
    let many = if all { usize::MAX } else { MANY };
    part(out, "EVENTS (tracefs)", &tracing.tracefs, |out, tracefs| {
        events(out, tracefs, costs, many)
    })?;
    part(
        out,
        "DYNAMIC EVENTS (tracefs)",
        &tracing.tracefs,
        |out, t| dynamic(out, t, costs),
    )?;
    costs::estimates(out, costs)?;
    part(out, "KERNEL PROBES (debugfs)", &tracing.kprobes, kprobes)?;
    part(out, "BPF PROGRAMS", &tracing.bpf, |out, b| {
        bpf(out, b, tracing.at_ns, costs, many)
    })?;
    part(
        out,
        "PERF EVENTS WITHOUT A PROGRAM",
        &tracing.perf,
        |out, uses| perf(out, uses),
    )?;
    costs::maps(out, costs, all)?;
    costs::holders(out, tracing, costs)?;
    totals(out, tracing)
}

/// One line of figures; what is not known is no zero.
fn totals(out: &mut impl Write, tracing: &Tracing) -> io::Result<()> {
    let on = |i: &Instance| i.events.iter().filter(|e| e.state.is_on()).count();
    let tracefs = tracing.tracefs.value();
    let events = tracefs.map(|t| t.instances.iter().map(on).sum());
    let busy = tracefs.map(|t| t.instances.iter().filter(|i| on(i) > 0).count());
    let figure = |n: Option<usize>| {
        n.map_or("unknown".to_owned(), |n| {
            Count(u64::try_from(n).unwrap_or(u64::MAX)).to_string()
        })
    };
    writeln!(out, "TOTAL")?;
    writeln!(
        out,
        "  events on: {} (in {} of {} instances, top level included)",
        figure(events),
        figure(busy),
        figure(tracefs.map(|t| t.instances.len())),
    )?;
    writeln!(
        out,
        "  dynamic events: {}, kernel probes: {}, BPF programs: {}, users of perf events: {}",
        figure(tracefs.map(|t| t.dynamic.len())),
        figure(tracing.kprobes.value().map(|k| k.list.len())),
        figure(tracing.bpf.value().map(|b| b.programs.len())),
        figure(tracing.perf.value().map(Vec::len)),
    )
}

/// A heading and what was read, or why it was not.
fn part<T, W: Write>(
    out: &mut W,
    heading: &str,
    reading: &Reading<T>,
    print: impl FnOnce(&mut W, &T) -> io::Result<()>,
) -> io::Result<()> {
    writeln!(out, "{heading}")?;
    match reading {
        Reading::Value(value) => print(out, value),
        Reading::Off(reason) => not_known(out, "", reason),
    }
}

fn not_known(out: &mut impl Write, what: &str, reason: &Reason) -> io::Result<()> {
    writeln!(
        out,
        "  {what}not known: {}; to mend it: {}",
        printable(&reason.to_string()),
        printable(&reason.fix())
    )
}

fn events(out: &mut impl Write, tracefs: &Tracefs, costs: &Costs, many: usize) -> io::Result<()> {
    for instance in &tracefs.instances {
        let on = instance.events.iter().filter(|e| e.state.is_on()).count();
        write!(out, "  {}: ", place(instance))?;
        if on > 0 {
            write!(
                out,
                "{on} of {} events on",
                Count(instance.events_available)
            )?;
        } else {
            write!(out, "all events off")?;
        }
        let ours = if instance.ours {
            ", made by stalltop"
        } else {
            ""
        };
        let cost = costs::of_instance(costs, &instance.name);
        writeln!(out, "{}{ours}{cost}", state(instance))?;
        let mut systems: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        for event in &instance.events {
            systems.entry(&event.system).or_default().push(event);
        }
        for (system, events) in systems {
            subsystem(out, &instance.name, system, &events, many)?;
        }
        if !instance.disagreement.is_empty() {
            writeln!(
                out,
                "    set_event and the enable files differ: {}{}",
                list(&instance.disagreement[..instance.disagreement.len().min(many)]),
                match instance.disagreement.len().saturating_sub(many) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                }
            )?;
        }
    }
    Ok(())
}

/// The events of one subsystem that are not plainly off, named as selectors; one line for all
/// of them where more than `many` are on.
fn subsystem(
    out: &mut impl Write,
    instance: &str,
    system: &str,
    events: &[&Event],
    many: usize,
) -> io::Result<()> {
    let selector = |event: &str| {
        let name = format!("{system}:{event}");
        let full = match instance {
            "" => name,
            instance => format!("{instance}/{name}"),
        };
        printable(&full).into_owned()
    };
    let on = events.iter().filter(|e| e.state.is_on()).count();
    if on > many {
        write!(out, "    {}  {on} on", selector("*"))?;
        if events.len() > on {
            write!(out, ", {} not on but armed or set up", events.len() - on)?;
        }
        let set_up = |e: &&&Event| e.filter.is_some() || !e.triggers.is_empty();
        let with = events.iter().filter(set_up).count();
        if with > 0 {
            write!(out, ", {with} with a filter or trigger")?;
        }
        return writeln!(out, " (--all lists them)");
    }
    for event in events {
        write!(
            out,
            "    {:<2} {}",
            event.state.as_str(),
            selector(&event.name)
        )?;
        if let Some(filter) = &event.filter {
            write!(out, "   if {}", printable(filter))?;
        }
        for trigger in &event.triggers {
            write!(out, "   trigger {}", printable(trigger))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn place(instance: &Instance) -> String {
    if instance.name.is_empty() {
        "top level".to_owned()
    } else {
        format!("instance {}", printable(&instance.name))
    }
}

/// What of an instance is not as it is on a quiet host.
fn state(instance: &Instance) -> String {
    let mut text = String::new();
    if let Some(false) = instance.tracing_on.value() {
        text.push_str(", recording is off");
    }
    if let Some(tracer) = instance.current_tracer.value().filter(|t| &***t != "nop") {
        text.push_str(&format!(", tracer {}", printable(tracer)));
    }
    if let Some(pids) = instance.set_event_pid.value().filter(|p| !p.is_empty()) {
        text.push_str(&format!(", only pids {}", printable(pids)));
    }
    match &instance.readers {
        Reading::Value(readers) if !readers.is_empty() => {
            text.push_str(&format!(", read by {}", holders(readers)));
        }
        Reading::Value(_) if instance.events.iter().any(|e| e.state.is_on()) => {
            text.push_str(", nobody reads the buffer");
        }
        _ => {}
    }
    text
}

fn dynamic(out: &mut impl Write, tracefs: &Tracefs, costs: &Costs) -> io::Result<()> {
    if tracefs.dynamic.is_empty() {
        return writeln!(out, "  none");
    }
    for event in &tracefs.dynamic {
        let on = event.state.value().map_or("?", |s| s.as_str());
        write!(
            out,
            "  {on:<2} {}   {}",
            printable(&format!("{}:{}", event.group, event.name)),
            printable(&event.definition)
        )?;
        if let Some(hits) = event.hits.get() {
            write!(out, "   {} hits", Count(hits))?;
        }
        if let Some(misses) = event.misses.get().filter(|n| *n > 0) {
            write!(out, ", {} missed", Count(misses))?;
        }
        writeln!(
            out,
            "{}",
            costs::of_dynamic(costs, &event.group, &event.name)
        )?;
    }
    Ok(())
}

fn kprobes(out: &mut impl Write, kprobes: &KernelProbes) -> io::Result<()> {
    match &kprobes.enabled {
        Reading::Value(true) => writeln!(out, "  kprobes/enabled is 1")?,
        Reading::Value(false) => writeln!(out, "  kprobes/enabled is 0: none of these fires")?,
        Reading::Off(reason) => not_known(out, "kprobes/enabled ", reason)?,
    }
    for probe in &kprobes.list {
        writeln!(out, "  {}", kprobe(probe))?;
    }
    Ok(())
}

fn kprobe(probe: &KernelProbe) -> String {
    let kind = match probe.kind {
        KernelProbeKind::Kprobe => "kprobe",
        KernelProbeKind::Kretprobe => "kretprobe",
    };
    let mut text = format!("{kind:<9} {}+{:#x}", printable(&probe.symbol), probe.offset);
    if let Some(module) = &probe.module {
        text.push_str(&format!(" [{}]", printable(module)));
    }
    for (is, flag) in [
        (probe.disabled, "disabled"),
        (probe.gone, "gone"),
        (probe.optimized, "optimized"),
        (probe.ftrace, "ftrace"),
    ] {
        if is {
            text.push_str("  ");
            text.push_str(flag);
        }
    }
    text
}

/// `at_ns` is when they were looked at; of one program at most `many` places are named.
fn bpf(
    out: &mut impl Write,
    bpf: &BpfObjects,
    at_ns: u64,
    costs: &Costs,
    many: usize,
) -> io::Result<()> {
    if let Reading::Off(reason) = &bpf.holders {
        not_known(out, "who holds them is ", reason)?;
    }
    if bpf.programs.is_empty() {
        writeln!(out, "  none")?;
    }
    for program in &bpf.programs {
        writeln!(
            out,
            "  {}{}",
            bpf_program(program, bpf.holders.value().is_some(), at_ns, many),
            costs::of_program(costs, program.id),
        )?;
    }
    let programs: HashSet<u32> = bpf.programs.iter().map(|p| p.id).collect();
    let attached = bpf.programs.iter().flat_map(|p| &p.attached);
    let named: HashSet<u32> = attached.filter_map(|a| a.link).collect();
    let known = |l: &BpfLink| programs.contains(&l.program) || named.contains(&l.id);
    for link in bpf.links.iter().filter(|l| !known(l)) {
        writeln!(
            out,
            "  link {} {} {} of program {}, {}",
            link.id,
            printable(&link.kind),
            printable(&link.target),
            link.program,
            held(&link.holders, &link.pins, bpf.holders.value().is_some())
        )?;
    }
    Ok(())
}

fn perf(out: &mut impl Write, uses: &[PerfUse]) -> io::Result<()> {
    if uses.is_empty() {
        writeln!(out, "  none")?;
    }
    for used in uses {
        let off = match used.descriptors - used.on.min(used.descriptors) {
            0 => String::new(),
            off => format!(", {} of them off", Count(u64::from(off))),
        };
        writeln!(
            out,
            "  {:<10} {}  {} {}{off}  held by {}{}",
            printable(&used.kind),
            printable(&used.event),
            Count(u64::from(used.descriptors)),
            if used.descriptors == 1 {
                "event"
            } else {
                "events"
            },
            holders(std::slice::from_ref(&used.holder)),
            if used.ours { ", ours" } else { "" },
        )?;
    }
    Ok(())
}

fn bpf_program(program: &BpfProgram, holders_known: bool, at_ns: u64, many: usize) -> String {
    let mut at: Vec<String> = program
        .attached
        .iter()
        .take(many)
        .map(|a| match (&*a.kind, &*a.target) {
            (kind, "") => printable(kind).into_owned(),
            // The program's own kind says it already.
            (kind, target) if *kind == *program.kind => shortened(target),
            (kind, target) => shortened(&format!("{kind}:{target}")),
        })
        .collect();
    if let more @ 1.. = program.attached.len().saturating_sub(many) {
        at.push(format!("and {} more", Count(more as u64)));
    }
    let mut held = held(&program.holders, &program.pins, holders_known);
    if program.holders.is_empty() {
        // All that is left of who loaded it.
        let age = Age(at_ns.saturating_sub(program.loaded_at_ns));
        held.push_str(&format!(
            "; loader not known: uid {}, loaded {age} ago",
            program.uid
        ));
    }
    format!(
        "{:>5} {} {}  {}  {}{}",
        program.id,
        printable(&program.kind),
        printable(&program.name),
        if at.is_empty() {
            program.nowhere().unwrap_or_default().to_owned()
        } else {
            format!("attached to {}", at.join(", "))
        },
        held,
        if program.ours { ", ours" } else { "" },
    )
}

fn held(by: &[Holder], pins: &[stalltop_model::Name], known: bool) -> String {
    let mut parts = Vec::new();
    if !by.is_empty() {
        parts.push(format!("held by {}", holders(by)));
    }
    if !pins.is_empty() {
        parts.push(format!("pinned at {}", list(pins)));
    }
    if parts.is_empty() {
        parts.push(
            if known {
                "held by no process"
            } else {
                "holder not known"
            }
            .to_owned(),
        );
    }
    parts.join(", ")
}

/// `netdata[812] (netdata.service)`, once per process.
fn holders(all: &[Holder]) -> String {
    let mut seen: Vec<u32> = Vec::new();
    let mut parts = Vec::new();
    for holder in all {
        if seen.contains(&holder.pid) {
            continue;
        }
        seen.push(holder.pid);
        let mut text = format!("{}[{}]", printable(&holder.comm), holder.pid);
        if !matches!(holder.owner.kind, OwnerKind::Root) {
            text.push_str(&format!(" ({})", shortened(&holder.owner.name)));
        }
        parts.push(text);
    }
    parts.join(", ")
}

/// Characters of a name of the host's that are shown.
const NAME: usize = 64;

/// A name of the host's, cut in its middle where it is very long: units, containers and cgroups are
/// told apart by how they end. `--json` has all of it.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME {
        return printable(name).into_owned();
    }
    let head: String = name.chars().take(NAME / 4).collect();
    let tail = name.chars().skip(count - (NAME - NAME / 4 - 3));
    printable(&format!("{head}...{}", tail.collect::<String>())).into_owned()
}

fn list(names: &[stalltop_model::Name]) -> String {
    let names: Vec<_> = names.iter().map(|n| printable(n)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_how_it_begins_and_how_it_ends() {
        assert_eq!(shortened("netdata.service"), "netdata.service");
        let long = format!("/kubepods/burst{}/cadvisor-x7k2", "/pod\u{e4}".repeat(100));
        let short = shortened(&long);
        assert_eq!(short.chars().count(), NAME);
        assert!(
            short.starts_with("/kubepods/burst") && short.ends_with("/cadvisor-x7k2"),
            "{short}"
        );
        assert_eq!(shortened("a\x1b[2J"), "a^[[2J");
    }
}
