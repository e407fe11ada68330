//! Findings in lines: how sure, what rests on what, and what stands there on a calm host.

use stalltop_model::rules::{Finding, Severity, WINDOW_NS};
use stalltop_model::{Reason, printable};

use crate::action::{ActionId, Context};
use crate::cores::timeline;
use crate::pane::{PaneId, PaneInfo, Scene};
use crate::text;
use crate::theme::Role;

/// Lines of one finding at most.
const LINES_AT_MOST: usize = 4;

/// The role of a finding.
fn severity_role(severity: Severity) -> Role {
    match severity {
        Severity::Info => Role::Notice,
        Severity::Warning => Role::Warning,
        Severity::Critical => Role::Critical,
    }
}

/// One line of the list of findings.
pub(super) struct Line {
    pub id: &'static str,
    pub glyph: &'static str,
    pub incident: &'static str,
    pub role: Role,
    pub text: String,
    pub hint: String,
}

pub(super) fn lines(scene: &Scene<'_>, width: u16) -> Vec<Line> {
    let mut out = Vec::new();
    let wide = usize::from(width).saturating_sub(8).max(20);
    for finding in scene.model.findings() {
        let hint = hint(scene, finding);
        let mut parts = text::wrap(&printable(&finding.sentence), wide);
        // A host may give names of any length; the details have them in full.
        if parts.len() > LINES_AT_MOST {
            parts.truncate(LINES_AT_MOST);
            if let Some(last) = parts.last_mut() {
                *last = format!("{}…", text::cut(last, wide - 1).trim_end_matches('…'));
            }
        }
        let fits = hint.is_empty()
            || parts
                .last()
                .is_some_and(|p| text::width(p) + text::width(&hint) + 2 < wide);
        if !fits {
            parts.push(String::new());
        }
        let last = parts.len() - 1;
        for (i, part) in parts.into_iter().enumerate() {
            out.push(Line {
                id: finding.id,
                glyph: if i == 0 { finding.severity.glyph() } else { "" },
                incident: if i == 0 { finding.incident } else { "" },
                role: severity_role(finding.severity),
                text: part,
                hint: if i == last {
                    hint.clone()
                } else {
                    String::new()
                },
            });
        }
    }
    out
}

/// The key of the cure that a finding names, if there is one here.
fn hint(scene: &Scene<'_>, finding: &Finding) -> String {
    let stack = PaneId::Overview.info().stack;
    ActionId::from_name(finding.action)
        .filter(|id| scene.can(*id))
        .and_then(|id| {
            let key = scene.keymap.key(stack, id)?;
            let action = id.action();
            let what = if action.short.is_empty() {
                action.name
            } else {
                action.short
            };
            Some(format!("{key} {what} "))
        })
        .unwrap_or_default()
}

/// The evidence of a finding, for a dialog.
pub(super) fn evidence(scene: &Scene<'_>, finding: &Finding) -> Vec<String> {
    let mut out = vec![
        finding.id.to_owned(),
        printable(&finding.sentence).into_owned(),
        String::new(),
    ];
    if let Some(as_of) = scene.findings_as_of() {
        out.push(as_of);
    }
    out.extend(
        finding
            .evidence
            .iter()
            .map(|e| format!("  {}", printable(e))),
    );
    out.push(String::new());
    out.push(format!("confidence: {}", finding.confidence.as_str()));
    out.push(format!("it would be wrong if: {}", finding.disproof));
    if !finding.incident.is_empty() {
        out.push(match finding.incident {
            "I1" => "like incident I1: somebody's probes slow the whole host".to_owned(),
            "I2" => "like incident I2: packets and timers wait for a core that somebody holds"
                .to_owned(),
            other => format!("like incident {other}"),
        });
    }
    if let Some(pane) = PaneInfo::named(finding.pane) {
        let key = scene.key(&[Context::Pane], pane.open);
        out.push(format!("{key} shows more of it: {}", pane.title));
    }
    out
}

/// What the rules look at and cannot see, with the reasons. What a kernel does not have
/// cannot be on: that is known.
pub(super) fn blind<'a>(scene: &Scene<'a>) -> Vec<(&'static str, &'a Reason)> {
    let sample = scene.sample();
    let tracing = &sample.tracing;
    if !scene.started() {
        return Vec::new();
    }
    [
        ("softirq delays", sample.cores.bpf.reason()),
        // What an older recording does not have was not to be judged then.
        (
            "stalls",
            sample
                .stalls
                .reason()
                .filter(|r| !matches!(r, Reason::NotRecorded)),
        ),
        ("trace events", tracing.tracefs.reason()),
        ("kprobes", tracing.kprobes.reason()),
        ("BPF programs", tracing.bpf.reason()),
        ("memory cgroups", sample.cgroups.reason()),
    ]
    .into_iter()
    .filter_map(|(what, reason)| Some((what, reason?)))
    .filter(|(_, reason)| !matches!(reason, Reason::NotBuilt { .. }))
    .collect()
}

/// `trace events, kprobes`.
pub(super) fn names(blind: &[(&'static str, &Reason)]) -> String {
    let names: Vec<&str> = blind.iter().map(|(what, _)| *what).collect();
    names.join(", ")
}

/// What mends it as lines, whole: each once and no more than two; what needs root comes first.
pub(super) fn fixes(blind: &[(&'static str, &Reason)], width: u16) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let root = |r: &Reason| !matches!(r, Reason::NoCapability { .. } | Reason::Io { .. });
    let mut sorted: Vec<&Reason> = blind.iter().map(|(_, r)| *r).collect();
    sorted.sort_by_key(|r| root(r));
    for reason in sorted {
        let fix = reason.fix().to_string();
        if !all.contains(&fix) && all.len() < 2 {
            all.push(fix);
        }
    }
    let max = usize::from(width).saturating_sub(9);
    let lines = |fix: &String| {
        let lines = text::wrap(&text::name(fix, 400), max)
            .into_iter()
            .enumerate();
        lines.map(|(i, line)| match i {
            0 => format!("fix: {line}"),
            _ => format!("     {line}"),
        })
    };
    all.iter().flat_map(lines).collect()
}

/// One calm line, or what is still awaited.
pub(super) fn calm(scene: &Scene<'_>) -> Result<String, String> {
    if !scene.started() {
        return Err("waiting for the first sample".into());
    }
    let cores = &scene.model.cores;
    let window = timeline::since(scene, scene.of_late().0);
    let worst = (0..cores.numbers().len())
        .filter_map(|row| Some((cores.worst_delay(row, window.clone())?.0, row)))
        .max();
    let Some(shown) = scene.tick().and_then(|seq| cores.time(seq)) else {
        return Err("one sample so far: rates begin with the next tick".into());
    };
    let oldest = cores
        .time(window.start)
        .map_or(shown.at_ns, |t| t.at_ns - t.span_ns);
    let span = match (scene.span, shown.at_ns.saturating_sub(oldest)) {
        (Some(_), _) => "the marked time".to_owned(),
        (None, ns) if ns.abs_diff(WINDOW_NS) < 2_000_000_000 => "60 s".to_owned(),
        (None, ns) => text::ago(ns),
    };
    let delays = match worst {
        Some((ns, row)) => format!(
            "worst delay {} on cpu {} in {span}",
            text::duration(ns),
            cores.numbers().get(row).copied().unwrap_or(0)
        ),
        None => "delays are not measured".to_owned(),
    };
    let waits = waits_for_a_cpu(scene, window);
    let stalls = stalls_of_late(scene);
    let now = scene.findings_as_of().unwrap_or("now".to_owned());
    Ok(format!("no finding {now}; {delays}{stalls}{waits}"))
}

/// From when on a task's wait for a CPU is worth a word, ns: nobody's stall, but latency that a
/// person feels, behind more tasks than CPUs or one of real-time priority.
const LONG_WAIT_NS: u64 = 100_000_000;

/// `; tasks waited up to 2.1 s for cpu 1`, for the calm line: the kernel is well, the host is busy.
fn waits_for_a_cpu(scene: &Scene<'_>, ticks: std::ops::Range<u64>) -> String {
    let cores = &scene.model.cores;
    let longest = |row| {
        let waits = ticks
            .clone()
            .filter_map(|seq| cores.cpu(row, seq)?.run_delay);
        waits.map(|wait| wait.max_ns).max()
    };
    let numbers = cores.numbers().iter().enumerate();
    let worst = numbers.filter_map(|(row, cpu)| Some((longest(row)?, *cpu)));
    match worst.max_by_key(|(ns, _)| *ns) {
        Some((ns, cpu)) if ns >= LONG_WAIT_NS => {
            format!("; tasks waited up to {} for cpu {cpu}", text::duration(ns))
        }
        _ => String::new(),
    }
}

/// `; no stall of 5.0 ms or more`, for the calm line.
fn stalls_of_late(scene: &Scene<'_>) -> String {
    let Some(watch) = scene.sample().stalls.value() else {
        return String::new();
    };
    let least = watch.kinds.iter().filter_map(stalltop_model::Reading::get);
    match (crate::stalls::recent(scene), least.min()) {
        (_, None) => String::new(),
        (0, Some(ns)) => format!("; no stall over {}", text::duration(ns)),
        (n, Some(_)) => format!("; {}", text::plural(n, "stall")),
    }
}
