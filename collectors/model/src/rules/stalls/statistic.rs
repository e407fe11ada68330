//! Incident I2: one process reads statistics of the kernel, and its CPU stalls meanwhile.

use std::sync::Arc;

use super::super::memory::Zombies;
use super::super::{Confidence, Finding, Severity};
use super::{Harm, cpus, evidence, many, recent};
use crate::Name;
use crate::change::caches;
use crate::model::Model;
use crate::model::verdict::StallVerdict;
use crate::name::printable;
use crate::sample::Stall;
use crate::units::{Count, Duration};

/// Statistics of the kernel that may take long to read, by the functions that print them.
struct Row {
    /// What a person calls it.
    what: &'static str,
    /// Whether memory cgroups that are gone make it slow.
    of_memory_cgroups: bool,
    functions: &'static [&'static str],
}

const STATISTICS: &[Row] = &[
    // mm/memcontrol.c, mm/memcontrol-v1.c (6.11+), the latter also before as memcg_*.
    Row {
        what: "memory.stat",
        of_memory_cgroups: true,
        functions: &[
            "memory_stat_show",
            "memcg_stat_show",
            "memory_stat_format",
            "memcg_stat_format",
            "memcg1_stat_format",
            "mem_cgroup_flush_stats",
            "do_flush_stats",
        ],
    },
    Row {
        what: "memory.numa_stat",
        of_memory_cgroups: true,
        functions: &["memory_numa_stat_show", "memcg_numa_stat_show"],
    },
    // kernel/cgroup/*.c, block/blk-cgroup.c.
    Row {
        what: "cgroup statistics",
        of_memory_cgroups: true,
        functions: &[
            "cgroup_stat_show",
            "cpu_stat_show",
            "cgroup_base_stat_cputime_show",
            "proc_cgroupstats_show",
            "cpuacct_all_seq_show",
            "cpuacct_stats_show",
            "cpuacct_percpu_seq_show",
            "blkcg_print_stat",
        ],
    },
    // mm/vmstat.c.
    Row {
        what: "/proc/pagetypeinfo",
        of_memory_cgroups: false,
        functions: &[
            "pagetypeinfo_show",
            "pagetypeinfo_showfree_print",
            "pagetypeinfo_showblockcount_print",
            "pagetypeinfo_showmixedcount_print",
        ],
    },
    Row {
        what: "/proc/zoneinfo",
        of_memory_cgroups: false,
        functions: &["zoneinfo_show", "zoneinfo_show_print"],
    },
    Row {
        what: "/proc/buddyinfo",
        of_memory_cgroups: false,
        functions: &["frag_show", "frag_show_print"],
    },
    Row {
        what: "/proc/vmstat",
        of_memory_cgroups: false,
        functions: &["vmstat_start", "vmstat_show"],
    },
    // mm/slab_common.c, mm/slub.c.
    Row {
        what: "/proc/slabinfo",
        of_memory_cgroups: false,
        functions: &["slab_show", "get_slabinfo", "cache_show", "memcg_slab_show"],
    },
    // fs/proc.
    Row {
        what: "/proc/meminfo",
        of_memory_cgroups: false,
        functions: &["meminfo_proc_show"],
    },
    Row {
        what: "/proc/PID/smaps",
        of_memory_cgroups: false,
        functions: &["show_smap", "show_smaps_rollup", "show_numa_map"],
    },
    Row {
        what: "/proc/stat",
        of_memory_cgroups: false,
        functions: &["show_stat", "show_interrupts", "show_softirqs"],
    },
    // kernel/sched, kernel/time.
    Row {
        what: "scheduler statistics",
        of_memory_cgroups: false,
        functions: &["show_schedstat", "sched_debug_show", "timer_list_show"],
    },
    // net.
    Row {
        what: "/proc/net socket lists",
        of_memory_cgroups: false,
        functions: &[
            "tcp4_seq_show",
            "tcp6_seq_show",
            "tcp_seq_next",
            "udp4_seq_show",
            "udp6_seq_show",
            "unix_seq_show",
            "ct_seq_show",
        ],
    },
];

/// A statistic of the kernel, as its place among [`STATISTICS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Statistic(u8);

impl Statistic {
    fn row(self) -> &'static Row {
        &STATISTICS[usize::from(self.0)]
    }

    /// Whether memory cgroups that are gone make it slow.
    pub(crate) fn is_of_memory_cgroups(self) -> bool {
        self.row().of_memory_cgroups
    }
}

/// What a stall's culprit read, where that was a statistic. The model asks once a stall.
pub(crate) fn statistic_of(stall: &Stall) -> Option<Statistic> {
    let function = stall.culprit.value()?.function.value()?;
    // A compiler's copy of a function: `slab_show.part.0`, `.isra.0`, `.constprop.0`, `.cold`.
    let plain = function.split('.').next()?;
    let at = STATISTICS
        .iter()
        .position(|s| s.functions.contains(&plain))?;
    Some(Statistic(u8::try_from(at).ok()?))
}

/// One process that stalls CPUs by reading statistics.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    comm: Name,
    statistic: Statistic,
}

/// The one whose stalls add up to most, if they are an incident. Allocates only then.
pub(crate) fn reader(model: &Model) -> Option<Reader> {
    let reads = || recent(model).filter_map(|(stall, statistic)| Some((stall, statistic?)));
    if !Harm::of(model, reads().map(|(stall, _)| stall)).is_incident() {
        return None;
    }
    let mut all: Vec<(Statistic, &Name, u64)> = reads()
        .filter_map(|(stall, of)| Some((of, &stall.culprit.value()?.comm, stall.delay_ns)))
        .collect();
    all.sort_unstable();
    let total = |of: &&[(Statistic, &Name, u64)]| {
        let each = of.iter().map(|(.., ns)| *ns);
        each.fold(0, u64::saturating_add)
    };
    let (statistic, comm, _) = all
        .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
        .max_by_key(total)?[0];
    let reader = Reader {
        comm: comm.clone(),
        statistic,
    };
    let its = recent(model).filter(|s| reader.did(s));
    let harm = Harm::of(model, its.map(|(stall, _)| stall));
    harm.is_incident().then_some(reader)
}

impl Reader {
    /// Whether a stall is one of its.
    pub(super) fn did(&self, (stall, statistic): &(&Arc<Stall>, Option<Statistic>)) -> bool {
        *statistic == Some(self.statistic)
            && stall.culprit.value().is_some_and(|c| c.comm == self.comm)
    }
}

/// Whether the other rule on memory.stat has nothing to add: what it knows is in this one.
pub(in super::super) fn reads_of_memory_stat(model: &Model) -> bool {
    let reader = model.reader();
    reader.is_some_and(|r| r.statistic.is_of_memory_cgroups())
}

/// One process's reads of statistics stall CPUs.
pub(in super::super) fn statistics(model: &Model) -> Option<Finding> {
    let reader = model.reader()?;
    let statistic = reader.statistic.row();
    let its = recent(model).filter(|s| reader.did(s));
    let stalls = its.map(|(stall, _)| stall);
    let harm = Harm::of(model, stalls.clone());
    let worst = stalls.clone().max_by_key(|s| s.delay_ns)?;
    let culprit = worst.culprit.value()?;
    let function = culprit.function.value()?;
    let zombies = Zombies::of(model);
    let by_zombies = statistic.of_memory_cgroups && (zombies.many() || zombies.slow().is_some());

    let mut sentence = format!(
        "{}'s reads of {} stall {}: {} in 60 s, worst {}, in {}",
        printable(&reader.comm),
        statistic.what,
        cpus(stalls.clone()),
        many(harm.count),
        Duration(harm.worst_ns),
        printable(function),
    );
    if statistic.of_memory_cgroups
        && let Some(count) = zombies.count
    {
        sentence += &format!("; {} zombie cgroups", Count(count));
    }

    let mut evidence = vec![evidence::process(&stalls)];
    evidence.extend(others_there(model, &stalls, &harm));
    evidence.extend(evidence::lines(model, &stalls, &harm));
    evidence.extend(evidence::worst(worst));
    evidence.extend(files(&stalls));
    if statistic.of_memory_cgroups {
        evidence.extend(zombies.lines(model));
    }
    let effect = model.drop_effect();
    let cures =
        effect.is_none_or(|e| !matches!(e.verdict(), StallVerdict::NoEffect | StallVerdict::Worse));
    if by_zombies {
        evidence.extend(fitting(model));
    }
    evidence.extend(effect.map(|e| format!("since the last drop of caches: {e}")));

    Some(Finding {
        id: "statistics-stalls",
        incident: "I2",
        severity: harm.severity(),
        confidence: confidence(statistic, by_zombies, &stalls, &harm),
        sentence,
        evidence,
        // A cure that was tried in vain is not offered again.
        action: if by_zombies && cures {
            "drop-caches"
        } else {
            ""
        },
        pane: "stalls",
        disproof: "the stalls go on while that process is stopped, or after the zombies are gone",
    })
}

/// How sure: the samples must agree on the function, and for reads that zombies slow down
/// there must be such.
fn confidence<'a>(
    statistic: &Row,
    by_zombies: bool,
    stalls: &(impl Iterator<Item = &'a Arc<Stall>> + Clone),
    harm: &Harm,
) -> Confidence {
    let clear = stalls
        .clone()
        .filter_map(|s| s.culprit.value())
        .filter(|c| c.share >= 0.5)
        .count() as u64;
    match (clear * 2 > harm.rows, harm.either * 2 > harm.count) {
        (_, true) | (false, _) => Confidence::Low,
        (true, false) if statistic.of_memory_cgroups && !by_zombies => Confidence::Medium,
        (true, false) => Confidence::High,
    }
}

/// What it read: the newest of the files, and how many others.
fn files<'a>(stalls: &(impl DoubleEndedIterator<Item = &'a Arc<Stall>> + Clone)) -> Option<String> {
    let of = |stall: &'a Arc<Stall>| stall.culprit.value()?.file.as_ref();
    let mut all: Vec<&Name> = stalls.clone().filter_map(of).collect();
    let newest = *all.last()?;
    all.sort_unstable();
    all.dedup();
    let others = match all.len() - 1 {
        0 => String::new(),
        1 => ", and another one".to_owned(),
        n => format!(", and {n} others"),
    };
    Some(format!(
        "file: {}{others} (from its descriptors, after the fact)",
        printable(newest)
    ))
}

/// What else stalls the same CPUs: `41 stalls there in all, 88 % are these`.
fn others_there<'a>(
    model: &'a Model,
    stalls: &(impl Iterator<Item = &'a Arc<Stall>> + Clone),
    own: &Harm,
) -> Option<String> {
    let mut cpus: Vec<u32> = stalls.clone().map(|own| own.cpu).collect();
    cpus.sort_unstable();
    cpus.dedup();
    let all = recent(model).map(|(stall, _)| stall);
    let all = Harm::of(model, all.filter(|s| cpus.binary_search(&s.cpu).is_ok()));
    (all.rows > own.rows).then(|| {
        format!(
            "{} on the same CPUs in all; these are {:.0} % of them",
            many(all.count),
            own.count as f64 * 100.0 / all.count.max(1) as f64
        )
    })
}

/// Which value of drop_caches would help on this kernel.
fn fitting(model: &Model) -> Option<String> {
    let release = &model.header()?.host.release;
    let (level, why) = caches::fitting(caches::kernel_of(release)?, None);
    Some(format!(
        "drop_caches: {level} fits here: {why}; zombies that tmpfs files hold stay"
    ))
}

/// After a drop of caches: what it did to stalls, for as long as that is news.
pub(in super::super) fn caches_dropped(model: &Model) -> Option<Finding> {
    const NEWS_NS: u64 = 120_000_000_000;
    let effect = model.drop_effect()?;
    let age = model.now().at_ns.checked_sub(effect.at_ns)?;
    if age > NEWS_NS || effect.before.count == 0 {
        return None;
    }
    Some(Finding {
        id: "caches-dropped",
        incident: "I2",
        severity: Severity::Info,
        confidence: match effect.verdict() {
            StallVerdict::TooEarly | StallVerdict::TooFew | StallVerdict::Lost => Confidence::Low,
            StallVerdict::Better | StallVerdict::NoEffect | StallVerdict::Worse => {
                Confidence::Medium
            }
            StallVerdict::Ended => Confidence::High,
        },
        sentence: format!(
            "since caches were dropped {} s ago, {effect}",
            age / 1_000_000_000
        ),
        evidence: vec![
            format!(
                "before: {}, worst {}",
                effect.before,
                Duration(effect.before.worst_ns)
            ),
            format!(
                "after: {}, worst {}",
                effect.after,
                Duration(effect.after.worst_ns)
            ),
            format!("change {} of the journal", effect.entry),
        ],
        action: "",
        pane: "stalls",
        disproof: "something else changed at the same time, such as the load",
    })
}
