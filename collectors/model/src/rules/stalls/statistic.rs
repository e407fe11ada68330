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
use crate::sample::{OwnerKind, Stall};
use crate::units::{Count, Duration};

/// Statistics of the kernel that may take long to read, by the functions that print them.
struct Statistic {
    /// What a person calls it.
    what: &'static str,
    /// Whether memory cgroups that are gone make it slow.
    of_memory_cgroups: bool,
    functions: &'static [&'static str],
}

const STATISTICS: &[Statistic] = &[
    // mm/memcontrol.c, mm/memcontrol-v1.c (6.11+), the latter also before as memcg_*.
    Statistic {
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
    Statistic {
        what: "memory.numa_stat",
        of_memory_cgroups: true,
        functions: &["memory_numa_stat_show", "memcg_numa_stat_show"],
    },
    // kernel/cgroup/*.c, block/blk-cgroup.c.
    Statistic {
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
    Statistic {
        what: "/proc/pagetypeinfo",
        of_memory_cgroups: false,
        functions: &[
            "pagetypeinfo_show",
            "pagetypeinfo_showfree_print",
            "pagetypeinfo_showblockcount_print",
            "pagetypeinfo_showmixedcount_print",
        ],
    },
    Statistic {
        what: "/proc/zoneinfo",
        of_memory_cgroups: false,
        functions: &["zoneinfo_show", "zoneinfo_show_print"],
    },
    Statistic {
        what: "/proc/buddyinfo",
        of_memory_cgroups: false,
        functions: &["frag_show", "frag_show_print"],
    },
    Statistic {
        what: "/proc/vmstat",
        of_memory_cgroups: false,
        functions: &["vmstat_start", "vmstat_show"],
    },
    // mm/slab_common.c, mm/slub.c.
    Statistic {
        what: "/proc/slabinfo",
        of_memory_cgroups: false,
        functions: &["slab_show", "get_slabinfo", "cache_show", "memcg_slab_show"],
    },
    // fs/proc.
    Statistic {
        what: "/proc/meminfo",
        of_memory_cgroups: false,
        functions: &["meminfo_proc_show"],
    },
    Statistic {
        what: "/proc/PID/smaps",
        of_memory_cgroups: false,
        functions: &["show_smap", "show_smaps_rollup", "show_numa_map"],
    },
    Statistic {
        what: "/proc/stat",
        of_memory_cgroups: false,
        functions: &["show_stat", "show_interrupts", "show_softirqs"],
    },
    // kernel/sched, kernel/time.
    Statistic {
        what: "scheduler statistics",
        of_memory_cgroups: false,
        functions: &["show_schedstat", "sched_debug_show", "timer_list_show"],
    },
    // net.
    Statistic {
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

/// What a stall's culprit read, where that was a statistic.
pub(super) fn of(stall: &Stall) -> Option<usize> {
    let function = stall.culprit.value()?.function.value()?;
    // A compiler's copy of a function: `slab_show.part.0`, `.isra.0`, `.constprop.0`, `.cold`.
    let plain = function.split('.').next()?;
    STATISTICS.iter().position(|s| s.functions.contains(&plain))
}

/// Whether a stall's culprit read statistics that memory cgroups make slow.
pub(crate) fn reads_memory_cgroups(stall: &Stall) -> bool {
    of(stall).is_some_and(|i| STATISTICS[i].of_memory_cgroups)
}

/// One process that stalls CPUs by reading statistics.
pub(super) struct Reader {
    comm: Name,
    statistic: usize,
}

/// The one whose stalls add up to most, if they are an incident. Allocates only then.
pub(super) fn reader(model: &Model) -> Option<Reader> {
    let reads = || recent(model).filter(|s| of(s).is_some());
    if !Harm::of(model, reads()).is_incident() {
        return None;
    }
    let mut totals: Vec<(&Name, usize, u64)> = Vec::new();
    for stall in reads() {
        let (Some(culprit), Some(statistic)) = (stall.culprit.value(), of(stall)) else {
            continue;
        };
        match totals
            .iter_mut()
            .find(|(comm, s, _)| **comm == culprit.comm && *s == statistic)
        {
            Some((.., ns)) => *ns = ns.saturating_add(stall.delay_ns),
            None => totals.push((&culprit.comm, statistic, stall.delay_ns)),
        }
    }
    let (comm, statistic, _) = totals.into_iter().max_by_key(|(.., ns)| *ns)?;
    let reader = Reader {
        comm: comm.clone(),
        statistic,
    };
    Harm::of(model, reads().filter(|s| reader.did(s)))
        .is_incident()
        .then_some(reader)
}

impl Reader {
    /// Whether a stall is one of its.
    pub(super) fn did(&self, stall: &Stall) -> bool {
        of(stall) == Some(self.statistic)
            && stall.culprit.value().is_some_and(|c| c.comm == self.comm)
    }
}

/// Whether the other rule on memory.stat has nothing to add: what it knows is in this one.
pub(in super::super) fn reads_of_memory_stat(model: &Model) -> bool {
    reader(model).is_some_and(|r| STATISTICS[r.statistic].of_memory_cgroups)
}

/// One process's reads of statistics stall CPUs.
pub(in super::super) fn statistics(model: &Model) -> Option<Finding> {
    let reader = reader(model)?;
    let statistic = &STATISTICS[reader.statistic];
    let stalls = recent(model).filter(|s| reader.did(s));
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

    let mut evidence = vec![process(&stalls)];
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
    statistic: &Statistic,
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

/// Who it is, and how long it held CPUs.
fn process<'a>(stalls: &(impl DoubleEndedIterator<Item = &'a Arc<Stall>> + Clone)) -> String {
    let culprits = stalls.clone().filter_map(|s| s.culprit.value());
    let mut tgids: Vec<u32> = culprits.clone().map(|c| c.tgid).collect();
    tgids.sort_unstable();
    tgids.dedup();
    let Some(newest) = culprits.clone().next_back() else {
        return String::new();
    };
    let cgroup = match (newest.owner.value(), newest.cgroup.value()) {
        (Some(owner), _) if owner.kind != OwnerKind::Root => String::new(),
        (_, Some(path)) => format!(", cgroup {}", printable(path)),
        (_, None) => String::new(),
    };
    match tgids.len() {
        0 | 1 => format!("it is {}{cgroup}", evidence::who(newest)),
        n => format!(
            "{n} processes of that name, the newest {}",
            evidence::who(newest)
        ),
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
    let there = recent(model).filter(|s| stalls.clone().any(|own| own.cpu == s.cpu));
    let all = Harm::of(model, there);
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
    let age = model.now().wall_ns.checked_sub(effect.wall_ns)?;
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
