//! Findings on zombie memory cgroups and slow reads of their statistics (I2).

use super::stalls::reads_of_memory_stat;
use super::{Confidence, Finding, Severity};
use crate::Reason;
use crate::model::Model;
use crate::name::printable;
use crate::sample::Cgroup;
use crate::units::{Count, Duration, Window};

/// A read of memory.stat that takes this long holds its CPU long enough to be felt, ns.
const SLOW_READ_NS: u64 = 5_000_000;
/// From how many zombies on they are worth a line even while reads are fast.
const MANY_ZOMBIES: u64 = 1_000;
/// The same where they multiply: so many, and so many more a minute.
const GROWING: (u64, f64) = (100, 60.0);

/// What is known of zombies, and of how long reads of memory.stat take.
pub(super) struct Zombies<'a> {
    /// Dying memory cgroups of the host; `None` where not measured.
    pub(super) count: Option<u64>,
    growing: bool,
    /// The cgroup that takes longest to read, and how long, smoothed, ns.
    slowest: Option<(&'a Cgroup, u64)>,
    rows: &'a [Cgroup],
}

impl<'a> Zombies<'a> {
    pub(super) fn of(model: &'a Model) -> Self {
        let cgroups = model.now().cgroups.value();
        let count = cgroups.and_then(|c| c.zombies.get());
        let rows = cgroups.map_or(&[][..], |c| &c.rows);
        let rate = model.cgroups.zombies_per_minute();
        Self {
            count,
            growing: count.is_some_and(|z| z >= GROWING.0)
                && rate.is_some_and(|rate| rate.per_minute >= GROWING.1),
            slowest: timings(rows).max_by_key(|(_, ns)| *ns),
            rows,
        }
    }

    /// Whether there are many, or ever more.
    pub(super) fn many(&self) -> bool {
        self.growing || self.count.is_some_and(|z| z >= MANY_ZOMBIES)
    }

    /// The slowest read of our own, if it is slow.
    pub(super) fn slow(&self) -> Option<(&'a Cgroup, u64)> {
        self.slowest.filter(|(_, ns)| *ns >= SLOW_READ_NS)
    }

    /// That no read was timed, and why where that is known.
    fn unmeasured(&self) -> String {
        let why = self.rows.iter().filter_map(|row| row.read.reason());
        let mut why = why.filter(|why| !matches!(why, Reason::Starting | Reason::NotAsked));
        match why.next() {
            Some(why) => {
                format!(
                    "how long reads of memory.stat take is not known: {}",
                    printable(&why.to_string())
                )
            }
            None => "how long reads of memory.stat take is not known yet".to_owned(),
        }
    }

    /// The figures, a line each. Zombies alone do not make reads slow on newer kernels: what was
    /// measured is told, whichever way it points.
    pub(super) fn lines(&self, model: &Model) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(count) = self.count {
            lines.push(format!(
                "{} zombie memory cgroups{}",
                Count(count),
                trend(model)
            ));
        }
        let Some((row, ns)) = self.slowest else {
            return lines;
        };
        let mut others: Vec<u64> = timings(self.rows)
            .filter(|(other, _)| other.path != row.path)
            .map(|(_, ns)| ns)
            .collect();
        others.sort_unstable();
        let mut line = format!(
            "our own read of memory.stat of {} takes {}{}",
            printable(&row.path),
            Duration(ns),
            stale(model.now().at_ns, row)
        );
        if let Some(typical) = others.get(others.len() / 2) {
            line += &format!(
                " ({} others: typically {})",
                others.len(),
                Duration(*typical)
            );
        }
        lines.push(line);
        if self.many() && self.slow().is_none() {
            lines.push("our own reads are fast: zombies alone do not make them slow here".into());
        }
        lines
    }
}

/// The timing of every cgroup that was read, smoothed, ns.
fn timings(rows: &[Cgroup]) -> impl Iterator<Item = (&Cgroup, u64)> {
    rows.iter()
        .filter_map(|row| Some((row, row.read.value()?.smoothed_ns)))
}

pub(super) fn slow_memory_stat(model: &Model) -> Option<Finding> {
    let known = Zombies::of(model);
    let (slow, slowest) = (known.slow(), known.slowest);
    if slow.is_none() && !known.many() {
        return None;
    }
    // Told there, with the process that reads and the stalls that come of it.
    if reads_of_memory_stat(model) {
        return None;
    }
    let mut sentence = match (slow, slowest) {
        (Some((row, ns)), _) => format!(
            "reading memory.stat of {} takes {}{}",
            printable(&row.owner.name),
            Duration(ns),
            stale(model.now().at_ns, row)
        ),
        (None, Some((_, ns))) => {
            format!("reads of memory.stat are fast (slowest {})", Duration(ns))
        }
        (None, None) => known.unmeasured(),
    };
    if let Some(zombies) = known.count {
        sentence = format!(
            "{} zombie memory cgroups{}; {sentence}",
            Count(zombies),
            trend(model)
        );
    }
    let evidence = slowest.map(|(row, ns)| {
        format!(
            "{}: our own reads take {}, smoothed over the last ones",
            printable(&row.path),
            Duration(ns)
        )
    });
    Some(Finding {
        id: "slow-memory-stat",
        incident: "I2",
        severity: match slow {
            Some((_, ns)) if ns >= 10 * SLOW_READ_NS => Severity::Critical,
            Some(_) => Severity::Warning,
            None => Severity::Info,
        },
        confidence: Confidence::Medium,
        sentence,
        evidence: evidence.into_iter().collect(),
        action: "drop-caches",
        pane: "cgroups",
        disproof: "the read stays slow after the zombies are gone",
    })
}

/// From this age on a figure's age is told, ns.
const STALE_NS: u64 = 10_000_000_000;

/// ` as of 25 s ago`, for a row that was not read lately.
fn stale(now_ns: u64, row: &Cgroup) -> String {
    let age_ns = now_ns.saturating_sub(row.read_at_ns);
    if row.read_at_ns == 0 || age_ns < STALE_NS {
        return String::new();
    }
    format!(" as of {} ago", Window(age_ns))
}

fn trend(model: &Model) -> String {
    match model.cgroups.zombies_per_minute() {
        Some(trend) if !trend.is_steady() => format!(" ({trend})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Reading;
    use crate::sample::{CgroupLayout, Cgroups, ReadTiming, Sample};

    fn model(zombies: impl Fn(u64) -> u64) -> Model {
        let mut model = Model::new();
        for second in 1..=30 {
            let cgroups = Cgroups {
                layout: CgroupLayout::V2,
                mount: "/sys/fs/cgroup".into(),
                zombies: Reading::Value(zombies(second)),
                visible: 1,
                sweep: crate::sample::Sweep::default(),
                rows: Vec::new(),
            };
            model.advance(&mut Sample {
                at_ns: second * 1_000_000_000,
                cgroups: Reading::Value(Arc::new(cgroups)),
                ..Sample::default()
            });
        }
        model
    }

    #[test]
    fn reads_that_were_not_timed_are_not_called_fast() {
        let told = |read: Reading<ReadTiming>| {
            let mut model = model(|_| 4_812);
            let mut cgroups = (**model.now().cgroups.value().unwrap()).clone();
            cgroups.rows.push(Cgroup {
                path: "/a\x1b".into(),
                parent: None,
                depth: 0,
                owner: crate::sample::Owner {
                    kind: crate::sample::OwnerKind::Other,
                    name: "a\x1b".into(),
                    cgroup: "/a\x1b".into(),
                },
                used_bytes: Reading::default(),
                processes: Reading::default(),
                zombies: Reading::default(),
                read,
                read_at_ns: 0,
                backed_off: false,
            });
            model.advance(&mut Sample {
                at_ns: 31_000_000_000,
                cgroups: Reading::Value(Arc::new(cgroups)),
                ..Sample::default()
            });
            let sentence = slow_memory_stat(&model).unwrap().sentence;
            let (_, told) = sentence.split_once("; ").unwrap();
            told.to_owned()
        };
        assert_eq!(
            told(Reading::Off(Reason::Starting)),
            "how long reads of memory.stat take is not known yet"
        );
        assert_eq!(
            told(Reading::Off(Reason::Busy { by: "x".into() })),
            "how long reads of memory.stat take is not known: in use by x"
        );
        let timed = |smoothed_ns| {
            Reading::Value(ReadTiming {
                smoothed_ns,
                ..ReadTiming::default()
            })
        };
        assert_eq!(
            told(timed(40_000)),
            "reads of memory.stat are fast (slowest 40.0 us)"
        );
        assert_eq!(
            told(timed(40_000_000)),
            "reading memory.stat of a^[ takes 40.0 ms"
        );
    }

    #[test]
    fn many_zombies_or_ever_more_are_a_finding_and_few_are_none() {
        assert_eq!(slow_memory_stat(&model(|_| 999)), None);
        assert_eq!(slow_memory_stat(&model(|second| second * 3)), None);
        let many = slow_memory_stat(&model(|_| 4_812)).unwrap();
        assert_eq!(many.severity, Severity::Info);
        // Not one read was timed.
        assert_eq!(
            many.sentence,
            "4,812 zombie memory cgroups; how long reads of memory.stat take is not known yet"
        );
        let growing = slow_memory_stat(&model(|second| 100 + second * 2)).unwrap();
        assert!(
            growing
                .sentence
                .starts_with("160 zombie memory cgroups (+120/min"),
            "{}",
            growing.sentence
        );
    }
}
