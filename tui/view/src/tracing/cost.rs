//! What the rows of the tree cost: figures with how they came about, sums, and what stands out.

use stalltop_model::sample::{BpfMap, BpfProgram, CostMethod, Costs, ProgramCost};
use stalltop_model::{Reading, printable};

use crate::pane::Scene;
use crate::text;

/// How a figure came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// Counted by the kernel all the time.
    #[default]
    Counted,
    /// Extrapolated from short windows.
    Windows,
    /// Worked out from what one hit costs elsewhere, or at another time.
    Estimate,
}

/// A figure of a column; a row without one has nothing to measure there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Figure {
    /// Measured or estimated.
    Value(f64, Source),
    /// It would have one, but it is not measured.
    Unknown,
}

/// What a row costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// Runs, hits or events a second.
    pub hits: Option<Figure>,
    /// Time of each, ns.
    pub ns: Option<Figure>,
    /// Share of one CPU.
    pub share: Option<Figure>,
    /// Standard deviation of `share` over the windows, where there are several.
    pub deviation: Option<f64>,
}

impl Cost {
    /// A row that would have figures, if there were any.
    pub(crate) const UNKNOWN: Self = Self {
        hits: Some(Figure::Unknown),
        ns: Some(Figure::Unknown),
        share: Some(Figure::Unknown),
        deviation: None,
    };

    /// What sorts by cost: 0 for what is not known.
    pub(crate) fn rank(&self) -> u64 {
        match self.share {
            // Shares are far below 10^6 CPUs.
            Some(Figure::Value(share, _)) if share > 0.0 => 1 + (share * 1e12) as u64,
            _ => 0,
        }
    }

    /// The sum of several rows' shares; not known where none is.
    pub(crate) fn sum<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut out = Self::default();
        let mut variance = None;
        for cost in all {
            match (cost.share, out.share) {
                (Some(Figure::Value(more, source)), Some(Figure::Value(sum, was))) => {
                    // An estimate in a sum makes it one.
                    let source = if was == Source::Counted { source } else { was };
                    out.share = Some(Figure::Value(sum + more, source));
                }
                (Some(figure @ Figure::Value(..)), _) => out.share = Some(figure),
                (Some(Figure::Unknown), None) => out.share = Some(Figure::Unknown),
                _ => {}
            }
            if let Some(deviation) = cost.deviation {
                variance = Some(variance.unwrap_or(0.0) + deviation * deviation);
            }
        }
        out.deviation = variance.map(f64::sqrt);
        out
    }
}

impl Figure {
    fn mark(self, text: String) -> String {
        match self {
            Self::Value(_, Source::Counted) => text,
            Self::Value(_, Source::Windows) => format!("~{text}"),
            Self::Value(_, Source::Estimate) => format!("est. {text}"),
            Self::Unknown => text::NONE.into(),
        }
    }

    /// As a rate: extrapolation is marked at the share alone.
    pub(crate) fn rate(self) -> String {
        match self {
            Self::Value(n, _) => text::rate(n),
            Self::Unknown => text::NONE.into(),
        }
    }

    /// As nanoseconds, a whole number.
    pub(crate) fn ns(self) -> String {
        match self {
            Self::Value(n, _) if n.is_finite() && n >= 0.0 => text::count(n.round() as u64),
            _ => text::NONE.into(),
        }
    }

    /// As a percentage of one CPU with its mark, whole from 100 on.
    pub(crate) fn percent(self) -> String {
        match self {
            // What is below the last digit, or did not run, is so however it was measured.
            Self::Value(share, Source::Windows) if share < 0.0005 => percent(share),
            Self::Value(share, _) => self.mark(percent(share)),
            Self::Unknown => text::NONE.into(),
        }
    }
}

/// A percentage of one CPU: whole from 100 on.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() && share >= 1.0 {
        text::count((share * 100.0).round() as u64)
    } else {
        text::percent(share)
    }
}

/// How BPF programs' run time was had.
fn source(costs: &Costs) -> Option<Source> {
    match costs.method.value()? {
        CostMethod::Windows { .. } => Some(Source::Windows),
        CostMethod::Sysctl => Some(Source::Counted),
    }
}

/// The figures that are shown, if there are any.
pub(super) fn shown<'a>(scene: &Scene<'a>) -> Option<&'a Costs> {
    scene.costs().ok()
}

/// What a program costs.
pub(super) fn of_program(costs: Option<&Costs>, id: u32) -> Cost {
    let found = costs.and_then(|c| Some((source(c)?, c.program(id)?)));
    let Some((source, program)) = found else {
        return Cost::UNKNOWN;
    };
    let ns = program
        .ns_per_run
        .get()
        .map_or(Figure::Unknown, |ns| Figure::Value(ns, source));
    Cost {
        hits: Some(Figure::Value(program.runs_per_s, source)),
        // What did not run has no time per run: that is no lack.
        ns: (program.runs_per_s > 0.0).then_some(ns),
        share: Some(Figure::Value(program.share, source)),
        deviation: share_deviation(program),
    }
}

/// The standard deviation of runs times time, both taken as independent.
fn share_deviation(program: &ProgramCost) -> Option<f64> {
    let ns = program.ns_per_run.get()?;
    let (runs_by, ns_by) = (program.runs_deviation.get()?, program.ns_deviation.get()?);
    if program.runs_per_s <= 0.0 || ns <= 0.0 {
        return None;
    }
    let relative = (runs_by / program.runs_per_s).hypot(ns_by / ns);
    Some(program.share * relative)
}

fn estimate(reading: &Reading<f64>) -> Figure {
    reading.get().map_or(Figure::Unknown, |share| {
        Figure::Value(share, Source::Estimate)
    })
}

fn counted(reading: &Reading<f64>) -> Figure {
    reading
        .get()
        .map_or(Figure::Unknown, |n| Figure::Value(n, Source::Counted))
}

/// Time per hit, where the share is known; else what is taken for one.
fn per_hit(costs: &Costs, kind: &str) -> Option<Figure> {
    let known = costs.per_hit.iter().find(|p| &*p.kind == kind)?;
    Some(Figure::Value(known.ns, Source::Estimate))
}

/// What a dynamic event of a kind costs.
pub(super) fn of_dynamic(costs: Option<&Costs>, (group, name): (&str, &str), kind: &str) -> Cost {
    let found = costs.and_then(|c| {
        let all = c.dynamic.iter();
        let one = all
            .into_iter()
            .find(|d| &*d.group == group && &*d.name == name)?;
        Some((c, one))
    });
    let Some((costs, event)) = found else {
        return Cost::UNKNOWN;
    };
    Cost {
        hits: Some(counted(&event.hits_per_s)),
        ns: per_hit(costs, kind),
        share: Some(estimate(&event.share)),
        deviation: None,
    }
}

/// What an instance's events cost, and how many a second nobody reads.
pub(super) fn of_instance(costs: Option<&Costs>, name: &str) -> (Cost, Option<f64>) {
    let found = costs.and_then(|c| {
        let one = c.instances.iter().find(|i| &*i.name == name)?;
        Some((c, one))
    });
    let Some((costs, instance)) = found else {
        return (Cost::UNKNOWN, None);
    };
    let cost = Cost {
        hits: Some(counted(&instance.events_per_s)),
        ns: per_hit(costs, "ftrace event"),
        share: Some(estimate(&instance.share)),
        deviation: None,
    };
    (cost, instance.lost_per_s.get().filter(|n| *n > 0.0))
}

/// Maps of a program that CPUs wait for each other at.
pub(super) fn contended<'a>(
    costs: &'a Costs,
    program: &'a BpfProgram,
) -> impl Iterator<Item = &'a BpfMap> {
    program
        .maps
        .iter()
        .filter_map(|id| costs.map(*id))
        .filter(|map| map.contends)
}

/// `hash conns, 65,536 entries`.
pub(super) fn map_text(map: &BpfMap) -> String {
    let entries = match map.max_entries {
        1 => "1 entry".to_owned(),
        n => format!("{} entries", text::count(n.into())),
    };
    format!(
        "{} {}, {entries}",
        printable(&map.kind),
        printable(&map.name)
    )
}

/// What makes a program suspect, in few words; empty where nothing does.
pub(super) fn suspicion(costs: Option<&Costs>, program: &BpfProgram) -> String {
    let Some(costs) = costs else {
        return String::new();
    };
    let mut parts = Vec::new();
    let growth = costs.program(program.id).and_then(|c| c.growth);
    if let Some(growth) = growth {
        parts.push(format!(
            "{} → {} ns as more CPUs are busy",
            text::count(growth.few_ns.max(0.0).round() as u64),
            text::count(growth.many_ns.max(0.0).round() as u64)
        ));
    }
    // A map of its own is worth a word only where runs grow longer.
    let shared = contended(costs, program).find(|m| m.programs.len() > 1 || growth.is_some());
    if let Some(map) = shared {
        parts.push(match map.programs.len() {
            0 | 1 => format!(
                "CPUs wait at its {} {}",
                printable(&map.kind),
                printable(&map.name)
            ),
            n => format!(
                "{} {} shared by {n} programs",
                printable(&map.kind),
                printable(&map.name)
            ),
        });
    }
    parts.join(", ")
}

/// What all of others' probes cost, for the pane's title.
pub(super) fn total(scene: &Scene<'_>) -> String {
    let costs = match scene.costs() {
        Ok(costs) => costs,
        Err(reason) => {
            return match reason {
                stalltop_model::Reason::Starting | stalltop_model::Reason::NotAsked => {
                    "costs: first window under way".into()
                }
                _ => "costs: not measured".into(),
            };
        }
    };
    let tracing = scene.tracing();
    let mut parts = Vec::new();
    if let (Some(source), Some(bpf)) = (source(costs), tracing.bpf.value()) {
        let others = bpf.programs.iter().filter(|p| !p.ours);
        let share: f64 = others
            .filter_map(|p| costs.program(p.id))
            .map(|c| c.share)
            .sum();
        let share = Figure::Value(share, source).percent();
        parts.push(format!("others' BPF {share} % of one CPU"));
    }
    let ours = |name: &str| {
        let instances = tracing
            .tracefs
            .value()
            .into_iter()
            .flat_map(|t| &t.instances);
        instances.into_iter().any(|i| i.ours && &*i.name == name)
    };
    let dynamic = costs.dynamic.iter().filter_map(|d| d.share.get());
    let instances = costs.instances.iter().filter(|i| !ours(&i.name));
    let rest: Vec<f64> = dynamic
        .chain(instances.filter_map(|i| i.share.get()))
        .collect();
    if !rest.is_empty() {
        let share = Figure::Value(rest.iter().sum(), Source::Estimate).percent();
        parts.push(format!("ftrace {share} %"));
    }
    let sample = scene.sample();
    if scene.past().is_none() && sample.costs.value().is_none() {
        let age = sample.at_ns.saturating_sub(costs.at_ns) / 1_000_000_000;
        parts.push(format!("{age} s ago"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_measured_is_never_a_zero() {
        assert_eq!(Figure::Unknown.percent(), "–");
        assert_eq!(Figure::Value(0.0, Source::Counted).percent(), "0.0");
        assert_eq!(Figure::Value(1.73, Source::Windows).percent(), "~173");
        assert_eq!(Figure::Value(0.006, Source::Estimate).percent(), "est. 0.6");
        assert_eq!(Figure::Value(f64::NAN, Source::Windows).ns(), "–");
        assert_eq!(of_program(None, 1), Cost::UNKNOWN);
        let known = Cost {
            share: Some(Figure::Value(0.5, Source::Windows)),
            deviation: Some(0.3),
            ..Cost::default()
        };
        let more = Cost {
            deviation: Some(0.4),
            ..known
        };
        let sum = Cost::sum([known, Cost::UNKNOWN, more].iter());
        assert_eq!(sum.share, Some(Figure::Value(1.0, Source::Windows)));
        assert!((sum.deviation.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(
            Cost::sum([Cost::UNKNOWN].iter()).share,
            Some(Figure::Unknown)
        );
        assert_eq!(Cost::sum([].iter()).share, None);
        assert!(known.rank() > Cost::UNKNOWN.rank());
    }
}
