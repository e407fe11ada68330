//! What is wrong on this host, in one sentence with numbers.
//!
//! Rules are pure functions over the [`Model`]. A healthy host has no finding.

mod cores;
mod locks;
mod memory;
mod stalls;
mod tracing;

pub(crate) use stalls::{Reader, Statistic, reader, statistic_of};

use serde::{Deserialize, Serialize};

use crate::model::Model;

/// The window over which rules look back, ns.
pub const WINDOW_NS: u64 = 60_000_000_000;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing, no harm measured.
    Info,
    /// Harm measured.
    Warning,
    /// Work is being held up now.
    Critical,
}

impl Severity {
    /// The glyph that goes with its colour.
    pub fn glyph(self) -> &'static str {
        match self {
            Self::Info => "·",
            Self::Warning => "▲",
            Self::Critical => "✖",
        }
    }
}

/// How sure a finding is of what it names as the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The figures fit, and so do other causes.
    Low,
    /// The cause was seen, but not all that would prove it.
    Medium,
    /// Cause and harm were both measured.
    High,
}

impl Confidence {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Something wrong on this host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The rule that found it.
    pub id: &'static str,
    /// The incident of the project's list that it resembles: `I1`, `I2`; empty for none.
    pub incident: &'static str,
    /// How grave.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// One sentence with the numbers.
    pub sentence: String,
    /// What it rests on, a line each.
    pub evidence: Vec<String>,
    /// The action, by its id in the action table, that a person may want; empty for none.
    pub action: &'static str,
    /// The pane that shows the evidence.
    pub pane: &'static str,
    /// What would show that this finding is wrong.
    pub disproof: &'static str,
}

/// A rule: an id for the table, what its finding leads to, and its check.
pub struct Rule {
    /// Its id, the same as its finding's.
    pub id: &'static str,
    /// What it looks for.
    pub doc: &'static str,
    /// The panes that its finding may name, as the screen titles them, in small letters.
    pub panes: &'static [&'static str],
    /// The actions that its finding may name.
    pub actions: &'static [&'static str],
    /// Looks for it.
    pub check: fn(&Model) -> Option<Finding>,
}

impl Rule {
    /// Whether a finding names nothing that the table does not: the screen looks up panes and
    /// actions by what stands there.
    fn may_say(&self, finding: &Finding) -> bool {
        let action = finding.action.is_empty() || self.actions.contains(&finding.action);
        action && self.panes.contains(&finding.pane) && finding.id == self.id
    }
}

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        id: "probe-storm",
        doc: "somebody's probes make CPUs wait for locks, or cost much",
        panes: &["locks", "tracing"],
        actions: &[
            "kprobes",
            "clear-set-event",
            "current-tracer",
            "stop-holder",
        ],
        check: locks::probe_storm,
    },
    Rule {
        id: "statistics-stalls",
        doc: "one process's reads of kernel statistics stall CPUs",
        panes: &["stalls"],
        actions: &["drop-caches"],
        check: stalls::statistics,
    },
    Rule {
        id: "real-time-task",
        doc: "one process's real-time tasks keep CPUs while other tasks wait",
        panes: &["stalls"],
        actions: &[],
        check: stalls::real_time,
    },
    Rule {
        id: "stalls",
        doc: "stalls, and the CPU, culprit, vector or handler that they have in common",
        panes: &["stalls"],
        actions: &[],
        check: stalls::concentrated,
    },
    Rule {
        id: "caches-dropped",
        doc: "what the last drop of caches did to stalls",
        panes: &["stalls"],
        actions: &[],
        check: stalls::caches_dropped,
    },
    Rule {
        id: "lock-contention",
        doc: "CPUs or tasks wait for the kernel's locks",
        panes: &["locks"],
        actions: &[],
        check: locks::contention,
    },
    Rule {
        id: "change-effect",
        doc: "what the last change did",
        panes: &["tracing"],
        actions: &["undo"],
        check: locks::changed,
    },
    Rule {
        id: "late-softirqs",
        doc: "softirqs enter long after they were raised",
        panes: &["cores"],
        actions: &[],
        check: cores::late_softirqs,
    },
    Rule {
        id: "long-handlers",
        doc: "softirq handlers run for long",
        panes: &["cores"],
        actions: &[],
        check: cores::long_handlers,
    },
    Rule {
        id: "starved-ksoftirqd",
        doc: "ksoftirqd is runnable but does not get its CPU",
        panes: &["cores"],
        actions: &[],
        check: cores::starved_ksoftirqd,
    },
    Rule {
        id: "dropped-packets",
        doc: "a CPU's packet backlog overflows",
        panes: &["cores"],
        actions: &[],
        check: cores::dropped_packets,
    },
    Rule {
        id: "slow-memory-stat",
        doc: "reads of memory.stat are slow, or zombie cgroups many",
        panes: &["cgroups"],
        actions: &["drop-caches"],
        check: memory::slow_memory_stat,
    },
    Rule {
        id: "kprobes-on",
        doc: "kernel probes are armed",
        panes: &["tracing"],
        actions: &["kprobes"],
        check: tracing::kprobes_on,
    },
    Rule {
        id: "tracer-on",
        doc: "a tracer other than nop is active",
        panes: &["tracing"],
        actions: &["current-tracer"],
        check: tracing::tracer_on,
    },
    Rule {
        id: "unread-events",
        doc: "trace events are on and nobody reads their buffer",
        panes: &["tracing"],
        actions: &["clear-set-event"],
        check: tracing::unread_events,
    },
];

/// Fills `out` with the findings of all rules, gravest first, in table order within.
pub fn check_all(model: &Model, out: &mut Vec<Finding>) {
    let found = |rule: &Rule| {
        let finding = (rule.check)(model)?;
        debug_assert!(rule.may_say(&finding), "{finding:?}");
        Some(finding)
    };
    out.extend(RULES.iter().filter_map(found));
    out.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_model_has_no_finding() {
        let mut out = Vec::new();
        check_all(&Model::new(), &mut out);
        assert_eq!(out, []);
    }

    #[test]
    fn ids_are_unique_and_documented() {
        for (i, rule) in RULES.iter().enumerate() {
            assert!(!rule.doc.is_empty());
            assert!(
                RULES[..i].iter().all(|other| other.id != rule.id),
                "{}",
                rule.id
            );
        }
    }
}
