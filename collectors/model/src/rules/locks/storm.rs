//! Incident I1: somebody's probes make the host's CPUs wait for each other, or cost much.

use super::suspect::{Suspect, Suspects, Who, full, is_probe};
use super::{Recent, called};
use crate::change::{shell_word, ways};
use crate::model::Model;
use crate::model::locks::Over;
use crate::model::locks::frames::Probe;
use crate::model::verdict::short;
use crate::name::printable;
use crate::rules::{Confidence, Finding, Severity};
use crate::sample::{BpfProgram, Costs, Tracing};
use crate::units::{Count, Duration};

/// Seconds of waiting a second behind one's probes from which on they are told: a tenth of a
/// CPU lost by those who did nothing but pass a probe. A probe that is made well waits for
/// nobody at all: its maps are per CPU.
const WAIT: f64 = 0.1;
/// And as a part of all waiting, so that a few waits in a probe on a host whose locks wait
/// anyway are not blamed.
const WAIT_PART: f64 = 0.1;
/// Share of one CPU that one's probes cost, from which on that is told. What agents are known to
/// take in normal operation is below a twentieth.
const COST: f64 = 0.1;
/// Share of samples in locks behind probes: on two busy CPUs a twenty-fifth of one.
const SAMPLES: f64 = 0.02;
/// So many samples at least.
const LEAST_IN_LOCK: u64 = 20;
/// Share of samples behind probes that suspect a lock: interrupts come back on for other reasons
/// as well.
const SUSPECTED: f64 = 0.05;
/// So many samples at least.
const LEAST_SUSPECTED: u64 = 50;
/// From here on work is held up: a whole CPU is lost, or so much of the time of those busy.
const GRAVE: f64 = 1.0;
const GRAVE_SAMPLES: f64 = 0.2;
/// Lines of programs, of maps and of other suspects.
const LINES: usize = 6;

/// Costs of a window older than this say nothing of now, ns.
const STALE_NS: u64 = 60_000_000_000;

/// What one's probes are compared with.
struct Whole<'a> {
    recent: Recent,
    over: Over<'a>,
    costs: Option<&'a Costs>,
}

/// What a suspect's probes do, as far as it is an incident.
#[derive(Clone, Copy, Debug, Default)]
struct Harm {
    /// Seconds of waiting a second, and their part of all waiting.
    wait: Option<(f64, f64)>,
    /// Share of samples in locks.
    samples: Option<f64>,
    /// Share of samples that suspect a lock.
    suspected: Option<f64>,
    /// Share of one CPU.
    cost: Option<f64>,
}

impl Harm {
    fn of(suspect: &Suspect<'_>, whole: &Whole<'_>) -> Self {
        let recent = &whole.recent;
        let all = whole.over.total.wait_ns.max(1);
        let wait = recent
            .per_s(suspect.waits.wait_ns)
            .map(|wait| (wait, (suspect.waits.wait_ns as f64 / all as f64).min(1.0)))
            .filter(|(wait, part)| *wait >= WAIT && *part >= WAIT_PART);
        let part = |samples: u64, least: u64, share: f64| {
            recent
                .part(samples)
                .filter(|part| samples >= least && *part >= share)
        };
        Self {
            wait,
            samples: part(suspect.samples, LEAST_IN_LOCK, SAMPLES),
            suspected: part(suspect.suspected, LEAST_SUSPECTED, SUSPECTED),
            cost: suspect.cost.filter(|share| *share >= COST),
        }
    }

    fn is_any(&self) -> bool {
        self.wait.is_some()
            || self.samples.is_some()
            || self.suspected.is_some()
            || self.cost.is_some()
    }

    /// CPUs' worth of harm, for what is told first.
    fn weight(&self) -> f64 {
        let samples = self.samples.unwrap_or(0.0) + self.suspected.unwrap_or(0.0) / 2.0;
        self.wait.map_or(0.0, |(wait, _)| wait) + 4.0 * samples + self.cost.unwrap_or(0.0)
    }

    fn severity(&self) -> Severity {
        let grave = self.wait.is_some_and(|(wait, _)| wait >= GRAVE)
            || self.cost.is_some_and(|cost| cost >= GRAVE)
            || self.samples.is_some_and(|part| part >= GRAVE_SAMPLES)
            || self.suspected.is_some_and(|part| part >= GRAVE_SAMPLES);
        if grave {
            Severity::Critical
        } else {
            Severity::Warning
        }
    }

    /// Waits that were measured, behind a program that is known: no doubt is left. Samples show
    /// where, not how long; and of interrupts that come back on nobody knows what they were off
    /// for.
    fn confidence(&self, suspect: &Suspect<'_>) -> Confidence {
        let known = !matches!(suspect.who, Who::Gone(_) | Who::Without(_));
        match (self.wait, self.cost, self.samples) {
            (Some(_), ..) if known => Confidence::High,
            (None, Some(_), None) if self.suspected.is_none() && !suspect.estimated => {
                Confidence::High
            }
            (Some(_), ..) | (_, Some(_), _) | (.., Some(_)) => Confidence::Medium,
            // So much of the time behind one's probes has no other reason.
            _ if known && self.suspected.is_some_and(|part| part >= GRAVE_SAMPLES) => {
                Confidence::Medium
            }
            _ => Confidence::Low,
        }
    }
}

/// Whether anything is worth a closer look: allocates nothing.
fn worth_it(model: &Model, recent: &Recent) -> bool {
    let waits = recent.per_s(recent.spun_ns.saturating_add(recent.slept_ns));
    let samples = &recent.samples;
    waits.is_some_and(|wait| wait >= WAIT)
        || recent
            .part(samples.in_lock)
            .is_some_and(|part| part >= SAMPLES && samples.in_lock >= LEAST_IN_LOCK)
        || recent
            .part(samples.suspected)
            .is_some_and(|part| part >= SUSPECTED && samples.suspected >= LEAST_SUSPECTED)
        || costs(model).is_some()
}

/// What probes cost now, if that is much together.
fn costs(model: &Model) -> Option<&Costs> {
    let point = model.costs.points().next_back()?;
    let together = point.foreign.unwrap_or(0.0) + point.estimated.unwrap_or(0.0);
    let fresh = model.now().at_ns.saturating_sub(point.window_ns) < STALE_NS;
    let costs = model.now().costs.value()?;
    (together >= COST && fresh).then_some(&**costs)
}

/// Somebody's probes make CPUs wait, or cost much.
pub(in super::super) fn probe_storm(model: &Model) -> Option<Finding> {
    let recent = Recent::of(model);
    if !worth_it(model, &recent) {
        return None;
    }
    let whole = Whole {
        recent,
        over: model.locks.over(recent.from_ns, recent.to_ns),
        costs: costs(model),
    };
    let suspects = suspects(model, &whole);
    let mut harmful: Vec<(Harm, &Suspect<'_>)> = suspects
        .all
        .iter()
        .map(|suspect| (Harm::of(suspect, &whole), suspect))
        .filter(|(harm, _)| harm.is_any())
        .collect();
    harmful.sort_by(|(a, _), (b, _)| b.weight().total_cmp(&a.weight()));
    let ((harm, worst), others) = harmful.split_first()?;
    let tracing = &model.now().tracing;
    let (subject, plural) = worst.subject();
    let mut sentence = format!("{subject} {} ", if plural { "cost" } else { "costs" });
    sentence += &parts(worst, harm, &whole);
    let locks = harm.wait.is_some() || harm.samples.is_some() || harm.suspected.is_some();
    Some(Finding {
        id: "probe-storm",
        incident: "I1",
        severity: harm.severity(),
        confidence: harm.confidence(worst),
        sentence,
        evidence: evidence(model, worst, others, &whole),
        action: action(worst, tracing),
        pane: if locks { "locks" } else { "tracing" },
        disproof: "it is the same while these probes are off",
    })
}

/// How much of the waits and samples of this host are behind probes, so that the other rule
/// does not tell of them again.
pub(super) fn behind_probes<'a>(model: &'a Model, over: &Over<'a>) -> Suspects<'a> {
    let mut suspects = Suspects::new(model);
    for sum in &over.stacks {
        let ids = &sum.stack.programs;
        if let Some(suspect) = suspects.behind(&sum.stack.frames, ids, sum.waits.wait_ns) {
            suspect.waits.add(&sum.waits);
        }
    }
    for sum in over.share.value().map_or(&[][..], |share| &share.stacks) {
        let ids = &sum.stack.programs;
        if let Some(suspect) = suspects.behind(&sum.stack.frames, ids, sum.samples) {
            let of = if sum.stack.suspected {
                &mut suspect.suspected
            } else {
                &mut suspect.samples
            };
            *of = of.saturating_add(sum.samples);
        }
    }
    suspects
}

fn suspects<'a>(model: &'a Model, whole: &Whole<'a>) -> Suspects<'a> {
    let mut suspects = behind_probes(model, &whole.over);
    let tracing: &Tracing = &model.now().tracing;
    // All of one's probes are named with those that were seen to wait.
    let programs = tracing.bpf.value().map_or(&[][..], |bpf| &bpf.programs);
    for program in programs.iter().filter(|p| !p.ours && is_probe(p)) {
        let cost = whole
            .costs
            .and_then(|costs| costs.programs.iter().find(|c| c.id == program.id));
        if let Some(cost) = cost {
            suspects.holding(program).costs(cost.share);
        } else if let Some(holder) = program.holders.iter().min_by_key(|h| h.pid)
            && suspects.all.iter().any(|s| match s.who {
                Who::Process(known) => known.pid == holder.pid,
                _ => false,
            })
        {
            suspects.holding(program);
        }
    }
    let Some(costs) = whole.costs else {
        return suspects;
    };
    let dynamic: f64 = costs.dynamic.iter().filter_map(|d| d.share.get()).sum();
    let ours = |name: &str| {
        let tracefs = tracing.tracefs.value();
        tracefs.is_some_and(|t| t.instances.iter().any(|i| i.ours && *i.name == *name))
    };
    let foreign = costs.instances.iter().filter(|i| !ours(&i.name));
    let events: f64 = foreign.filter_map(|i| i.share.get()).sum();
    for (machinery, share) in [(Probe::Kprobe, dynamic), (Probe::TraceEvent, events)] {
        if share >= COST {
            let suspect = suspects.of(Who::Without(machinery));
            suspect.costs(share);
            suspect.estimated = true;
            suspect.machinery.get_or_insert(machinery);
        }
    }
    suspects
}

/// `173 % of one CPU and 61 % of lock wait time (3.1 s/s on 4 CPUs)`.
fn parts(suspect: &Suspect<'_>, harm: &Harm, whole: &Whole<'_>) -> String {
    let mut parts = Vec::new();
    if let Some(cost) = harm.cost {
        let about = if suspect.estimated { "about " } else { "" };
        parts.push(format!("{about}{:.0} % of one CPU", cost * 100.0));
    }
    if let Some((wait, part)) = harm.wait {
        let cpus = whole.over.cpus.iter().filter(|(_, w)| w.count > 0).count();
        let on = match cpus {
            0 => String::new(),
            1 => " on 1 CPU".to_owned(),
            n => format!(" on {n} CPUs"),
        };
        parts.push(format!(
            "{:.0} % of lock wait time ({wait:.1} s/s{on})",
            part * 100.0
        ));
    }
    // Where waits were measured, samples only say the same again.
    if harm.wait.is_none() || !whole.recent.spins_show {
        if let Some(part) = harm.samples {
            parts.push(format!(
                "{:.0} % of busy CPUs' time in locks, by samples",
                part * 100.0
            ));
        }
        if let Some(part) = harm.suspected {
            parts.push(format!(
                "{:.0} % of busy CPUs' time with interrupts off, where a lock is suspected",
                part * 100.0
            ));
        }
    }
    match &parts[..] {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        other => other.concat(),
    }
}

/// The switch that ends it. Of what only its holder can detach, the evidence says how.
fn action(suspect: &Suspect<'_>, tracing: &Tracing) -> &'static str {
    if matches!(suspect.who, Who::Ours) {
        return "";
    }
    if suspect.ends_with_kprobes(tracing) {
        return "kprobes";
    }
    match (suspect.who, suspect.machinery) {
        (Who::Without(_), Some(Probe::TraceEvent)) => "clear-set-event",
        (Who::Without(_), Some(Probe::Ftrace)) => "current-tracer",
        (Who::Process(_), _) => "stop-holder",
        _ => "",
    }
}

fn evidence(
    model: &Model,
    suspect: &Suspect<'_>,
    others: &[(Harm, &Suspect<'_>)],
    whole: &Whole<'_>,
) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((frames, weight)) = suspect.stack {
        let all = match suspect.waits.wait_ns {
            0 => suspect.samples + suspect.suspected,
            ns => ns,
        };
        let part = weight as f64 * 100.0 / all.max(1) as f64;
        lines.push(format!("{part:.0} % of that in {}", called(frames)));
    }
    if suspect.waits.count > 0 {
        lines.push(format!(
            "{} waits in {:.0} s behind these probes, the longest {}",
            Count(suspect.waits.count),
            whole.recent.measured_ns as f64 / 1e9,
            Duration(suspect.waits.longest_ns),
        ));
    }
    if !whole.recent.spins_show && suspect.samples + suspect.suspected > 0 {
        lines.push(format!(
            "spin waits are not visible on this host: {} samples of {} behind these probes in \
             locks, {} more as interrupts came back on",
            Count(suspect.samples),
            Count(whole.recent.samples.samples),
            Count(suspect.suspected),
        ));
    }
    let named = suspect.named();
    let mut holders: Vec<_> = named.iter().flat_map(|p| &p.holders).collect();
    holders.sort_by_key(|h| h.pid);
    holders.dedup_by_key(|h| h.pid);
    if !holders.is_empty() {
        let names: Vec<String> = holders.iter().take(LINES).map(|h| full(h)).collect();
        lines.push(format!("held by {}", names.join(", ")));
    }
    lines.extend(programs(&named, whole.costs));
    lines.extend(shared_maps(suspect, whole.costs));
    let ends = suspect.ends_with_kprobes(&model.now().tracing);
    if !ends && !matches!(suspect.who, Who::Ours) {
        lines.extend(how_to_stop(suspect));
    }
    for (harm, other) in others.iter().take(LINES) {
        lines.push(format!(
            "also: {} {}",
            other.subject().0,
            parts(other, harm, whole)
        ));
    }
    if let Some((entry, verdict)) = model.newest_verdict() {
        lines.push(format!("since {}: {verdict}", short(entry)));
    }
    lines
}

/// `program 41 nd_sendmsg, kretprobe on tcp_sendmsg: 157 % of one CPU, 812,004 runs/s of 1.9 us`.
fn programs(named: &[&BpfProgram], costs: Option<&Costs>) -> Vec<String> {
    let cost = |p: &BpfProgram| costs?.programs.iter().find(|c| c.id == p.id);
    let mut sorted: Vec<_> = named.iter().map(|p| (*p, cost(p))).collect();
    sorted.sort_by(|(_, a), (_, b)| {
        let share = |c: &Option<&crate::sample::ProgramCost>| c.map_or(0.0, |c| c.share);
        share(b).total_cmp(&share(a))
    });
    let mut lines = Vec::new();
    for (program, cost) in sorted.iter().take(LINES) {
        let mut line = format!("program {} {}", program.id, printable(&program.name));
        if let Some(at) = program.attached.first() {
            line += &format!(", {}", printable(&at.kind));
            if !at.target.is_empty() {
                line += &format!(" on {}", printable(&at.target));
            }
        }
        let Some(cost) = cost else {
            lines.push(line);
            continue;
        };
        line += &format!(": {:.1} % of one CPU", cost.share * 100.0);
        if let Some(ns) = cost.ns_per_run.get() {
            let runs = Count(cost.runs_per_s as u64);
            line += &format!(", {runs} runs/s of {}", Duration(ns as u64));
        }
        lines.push(line);
        if let Some(growth) = &cost.growth {
            lines.push(format!(
                "a run of program {} takes {} with {:.1} CPUs busy and {} with {:.1}: they wait \
                 for each other",
                program.id,
                Duration(growth.few_ns as u64),
                growth.few_cpus,
                Duration(growth.many_ns as u64),
                growth.many_cpus,
            ));
        }
    }
    let more = sorted.len().saturating_sub(LINES);
    if more > 0 {
        lines.push(format!("and {more} more programs"));
    }
    lines
}

/// `map 7 nd_conn (hash, 65,536 entries) is shared by all CPUs, and used by 18 of these programs`.
fn shared_maps(suspect: &Suspect<'_>, costs: Option<&Costs>) -> Vec<String> {
    let maps = costs.map_or(&[][..], |costs| &costs.maps);
    let mut shared: Vec<_> = maps
        .iter()
        .filter(|map| map.contends)
        .map(|map| {
            let uses = |p: &&&BpfProgram| map.programs.contains(&p.id);
            (map, suspect.programs.iter().filter(uses).count())
        })
        .filter(|(_, users)| *users > 0)
        .collect();
    shared.sort_by_key(|(map, users)| (std::cmp::Reverse(*users), map.id));
    let line = |(map, users): &(&crate::sample::BpfMap, usize)| {
        format!(
            "map {} {} ({}, {} entries) is shared by all CPUs, and used by {users} of these programs",
            map.id,
            printable(&map.name),
            printable(&map.kind),
            Count(map.max_entries.into()),
        )
    };
    shared.iter().take(LINES).map(line).collect()
}

/// How probes are stopped that no switch stops: their holder is.
fn how_to_stop(suspect: &Suspect<'_>) -> Option<String> {
    match suspect.who {
        Who::Process(holder) => {
            let command = match ways::of(&holder.owner) {
                Some(way) => way.command,
                None => format!("stalltop stop {}", holder.pid),
            };
            Some(format!(
                "no switch stops these: stop {} ({command})",
                full(holder)
            ))
        }
        Who::Nobody(_) => {
            let pin = suspect.programs.iter().find_map(|p| p.pins.first())?;
            Some(format!("no switch stops it: rm {}", shell_word(pin)))
        }
        Who::Ours | Who::Gone(_) | Who::Without(_) => None,
    }
}
