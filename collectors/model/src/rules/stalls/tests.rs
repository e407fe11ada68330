mod real_time;

use std::sync::Arc;

use super::super::{RULES, check_all};
use super::*;
use crate::change::{Effect, Entry, Outcome, Plan, Request, UndoClass};
use crate::model::verdict::StallVerdict;
use crate::sample::{
    Cgroup, CgroupLayout, Cgroups, CpuSample, Culprit, Host, Owner, OwnerKind, ReadTiming, Sample,
    Sampling, Seen, SoftirqTiming, StallWatch, Sweep,
};
use crate::{Frame, Header, Reading, Reason};

const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;
const WALL: u64 = 1_700_000_000 * S;

/// A host at second 100, its stalls watched from 10 ms on.
struct Case {
    model: Model,
    second: u64,
    zombies: u64,
    read_ns: u64,
    watched: bool,
    lost: u64,
}

impl Case {
    fn new() -> Self {
        let mut case = Self {
            model: Model::new(),
            second: 99,
            zombies: 3,
            read_ns: 40_000,
            watched: true,
            lost: 7,
        };
        let host = Host {
            release: "5.10.0-37-cloud-amd64".into(),
            ..Host::default()
        };
        case.model.set_header(Header::new("test", S, host));
        case.tick();
        case.tick();
        case
    }

    fn tick(&mut self) {
        self.second += 1;
        let cgroup = |path: &str, ns: u64| Cgroup {
            path: path.into(),
            parent: None,
            depth: 0,
            owner: Owner {
                kind: OwnerKind::Other,
                name: path.into(),
                cgroup: path.into(),
            },
            used_bytes: Reading::default(),
            processes: Reading::default(),
            zombies: Reading::default(),
            read: Reading::Value(ReadTiming {
                smoothed_ns: ns,
                ..ReadTiming::default()
            }),
            read_at_ns: self.second * S,
            backed_off: false,
        };
        let cgroups = Cgroups {
            layout: CgroupLayout::V1,
            mount: "/sys/fs/cgroup/memory".into(),
            zombies: Reading::Value(self.zombies),
            visible: 3,
            sweep: Sweep::default(),
            rows: vec![
                cgroup("/", self.read_ns),
                cgroup("/a", 40_000),
                cgroup("/b", 50_000),
            ],
        };
        let mut sample = Sample {
            at_ns: self.second * S,
            wall_ns: WALL + self.second * S,
            cgroups: Reading::Value(Arc::new(cgroups)),
            ..Sample::default()
        };
        sample.cpus = vec![CpuSample::default()];
        for softirq in &mut sample.cpus[0].softirqs {
            softirq.count = self.second;
            softirq.timing = Reading::Value(SoftirqTiming {
                tick_delay_max_ns: 200 * MS,
                tick_max_ns: 200 * MS,
                ..SoftirqTiming::default()
            });
        }
        if self.watched {
            sample.stalls = Reading::Value(StallWatch {
                kinds: StallKind::ALL.map(|kind| match kind {
                    StallKind::RealTime => Reading::Value(100 * MS),
                    _ => Reading::Value(10 * MS),
                }),
                lost: self.lost,
                ..StallWatch::default()
            });
        }
        self.model.advance(&mut sample);
    }

    fn ticks(&mut self, n: u64) {
        for _ in 0..n {
            self.tick();
        }
    }

    fn push(&mut self, stall: Stall) {
        self.model.apply(&mut Frame::Stall(Box::new(stall)));
    }

    /// `n` stalls of `delay_ms` on cpu 11, one after the other from now on, and a tick.
    fn stall(&mut self, n: u64, delay_ms: u64, comm: &str, function: &str) {
        for id in 0..n {
            let stall = self.one(id, delay_ms, comm, function);
            self.push(stall);
        }
        self.tick();
    }

    fn one(&self, id: u64, delay_ms: u64, comm: &str, function: &str) -> Stall {
        // One ends where the next one begins: none tells of the hold that another told of.
        let at_ns = self.second * S + id * delay_ms * MS + id;
        Stall {
            id,
            at_ns,
            wall_ns: WALL + at_ns,
            cpu: 11,
            vector: Some(Vector::NetRx),
            delay_ns: delay_ms * MS,
            culprit: Reading::Value(Culprit {
                pid: 10_436,
                tgid: 10_137,
                comm: comm.into(),
                share: 0.96,
                samples: (171, 178),
                owner: Reading::Value(Owner {
                    kind: OwnerKind::Pod,
                    name: "pod 2f6e".into(),
                    cgroup: "/kubepods/pod2f6e".into(),
                }),
                cgroup: Reading::Value("/kubepods/pod2f6e".into()),
                syscall: Some("read".into()),
                function: match function {
                    "" => Reading::Off(Reason::NotAsked),
                    name => Reading::Value(name.into()),
                },
                file: Some("/sys/fs/cgroup/memory/memory.stat".into()),
                ..Culprit::default()
            }),
            sampling: Sampling::Clock,
            timeline: vec![Seen {
                weight_ns: 1,
                stack: Some(0),
                ..Seen::default()
            }],
            stacks: vec![vec![
                "mem_cgroup_nr_lru_pages".into(),
                "memcg_stat_show".into(),
                "seq_read".into(),
            ]],
            ..Stall::default()
        }
    }

    fn drop_caches(&mut self) {
        self.model.note_change(Entry {
            id: 5,
            wall_ns: WALL + self.second * S,
            by: "root".into(),
            boot: "b".into(),
            plan: Plan {
                request: Request::DropCaches { level: Some(2) },
                title: "drop".into(),
                writes: Vec::new(),
                undo: UndoClass::Never,
                notes: Vec::new(),
                left: Vec::new(),
                confirm_word: None,
            },
            outcome: Outcome::Done,
            undoes: None,
            effect: Some(Effect {
                rows: Vec::new(),
                took_ns: S / 2,
            }),
        });
    }

    fn found(&self, id: &str) -> Option<&Finding> {
        self.model.findings().iter().find(|f| f.id == id)
    }

    fn ids(&self) -> Vec<&str> {
        self.model.findings().iter().map(|f| f.id).collect()
    }
}

#[test]
fn a_healthy_host_has_no_finding() {
    let mut case = Case::new();
    // One lone stall, paused virtual CPUs, our own: no incident.
    case.stall(1, 12, "sh", "do_exit");
    for id in 10..40 {
        let mut paused = case.one(id, 300, "sh", "do_exit");
        paused.pause = Pause::Paused;
        case.push(paused);
        let mut ours = case.one(100 + id, 300, "stalltop", "memcg_stat_show");
        ours.ours = true;
        case.push(ours);
    }
    // A few that may be the hypervisor's.
    for id in 50..55 {
        let mut either = case.one(id, 200, "sh", "do_exit");
        either.pause = Pause::Either;
        case.push(either);
    }
    case.tick();
    assert_eq!(case.ids(), [] as [&str; 0]);
}

#[test]
fn incident_2_names_process_function_core_and_zombies() {
    let mut case = Case::new();
    (case.zombies, case.read_ns) = (4_812, 153 * MS);
    for _ in 0..12 {
        case.stall(3, 150, "cadvisor", "memcg_stat_show");
    }
    case.stall(1, 178, "cadvisor", "memcg_stat_show");
    assert_eq!(case.ids(), ["statistics-stalls"]);
    let finding = case.found("statistics-stalls").unwrap();
    assert_eq!(
        finding.sentence,
        "cadvisor's reads of memory.stat stall cpu 11: 37 stalls in 60 s, worst 178.0 ms, \
         in memcg_stat_show; 4,812 zombie cgroups"
    );
    assert_eq!(
        (finding.severity, finding.confidence, finding.action),
        (Severity::Critical, Confidence::High, "drop-caches")
    );
    let evidence = finding.evidence.join("\n");
    for part in [
        "it is cadvisor[10137] of pod 2f6e",
        "by kind: 37 pending; 5.6 s together, typically 150.0 ms, the last 1 s ago",
        "the worst, on cpu 11, NET_RX pending 178.0 ms: held by cadvisor[10137] of pod 2f6e in \
         read(2), 171 of 178 samples",
        "its stack: seq_read > memcg_stat_show > mem_cgroup_nr_lru_pages",
        "file: /sys/fs/cgroup/memory/memory.stat (from its descriptors",
        "4,812 zombie memory cgroups",
        "our own read of memory.stat of / takes 153.0 ms (2 others: typically 50.0 us)",
        "drop_caches: 2 fits here: on kernel 5.10 dentries and inodes hold most",
    ] {
        assert!(evidence.contains(part), "no {part:?} in {evidence}");
    }
}

#[test]
fn several_files_are_counted() {
    let mut case = Case::new();
    case.stall(4, 30, "agent", "memory_stat_show");
    let mut other = case.one(60, 30, "agent", "memory_stat_show");
    let culprit = other.culprit.value_mut().unwrap();
    culprit.file = Some("/sys/fs/cgroup/memory/pod/memory.stat".into());
    case.push(other);
    case.tick();
    let evidence = case.found("statistics-stalls").unwrap().evidence.join("\n");
    assert!(
        evidence.contains("/memory.stat, and another one (from its descriptors"),
        "{evidence}"
    );
}

#[test]
fn without_zombies_the_reads_are_told_but_no_drop_of_caches() {
    let mut case = Case::new();
    case.stall(4, 30, "agent", "memory_stat_show.cold");
    let finding = case.found("statistics-stalls").unwrap();
    assert_eq!(
        (finding.confidence, finding.action),
        (Confidence::Medium, "")
    );
    case.zombies = 5_000;
    case.tick();
    let finding = case.found("statistics-stalls").unwrap();
    let evidence = finding.evidence.join("\n");
    // What was measured is said.
    assert!(
        evidence.contains("our own reads are fast: zombies alone do not make them slow here"),
        "{evidence}"
    );
    assert_eq!(case.ids(), ["statistics-stalls"]);
}

#[test]
fn other_statistics_have_nothing_to_do_with_zombies() {
    let mut case = Case::new();
    case.zombies = 5_000;
    case.stall(4, 30, "slabtop", "slab_show.part.0");
    // Both are told: they are two things.
    assert_eq!(case.ids(), ["statistics-stalls", "slow-memory-stat"]);
    let finding = case.found("statistics-stalls").unwrap();
    assert_eq!(
        finding.sentence,
        "slabtop's reads of /proc/slabinfo stall cpu 11: 4 stalls in 60 s, worst 30.0 ms, \
         in slab_show.part.0"
    );
    assert_eq!((finding.confidence, finding.action), (Confidence::High, ""));
    assert_eq!(finding.severity, Severity::Warning);
}

#[test]
fn the_reader_with_most_is_named_and_the_rest_is_not_lost() {
    let mut case = Case::new();
    case.stall(4, 30, "a", "slab_show");
    case.stall(8, 30, "b", "zoneinfo_show");
    case.stall(5, 20, "nft", "nft_do_chain");
    assert!(
        case.found("statistics-stalls")
            .unwrap()
            .sentence
            .starts_with("b's reads of /proc/zoneinfo")
    );
    let rest = case.found("stalls").unwrap();
    assert!(
        rest.sentence.starts_with("9 stalls on cpu 11 in 60 s"),
        "{}",
        rest.sentence
    );
    let evidence = case.found("statistics-stalls").unwrap().evidence.join("\n");
    assert!(
        evidence.contains("17 stalls on the same CPUs in all; these are 47 % of them"),
        "{evidence}"
    );
}

#[test]
fn stalls_are_told_by_what_they_have_in_common() {
    let mut case = Case::new();
    case.stall(8, 20, "nft", "nft_do_chain");
    let mut elsewhere = case.one(90, 45, "sh", "");
    elsewhere.cpu = 2;
    elsewhere.kind = StallKind::NoReschedule;
    elsewhere.vector = None;
    case.push(elsewhere);
    case.tick();
    let finding = case.found("stalls").unwrap();
    assert_eq!(
        finding.sentence,
        "9 stalls in 60 s, 89 % of them on cpu 11, worst 45.0 ms (NET_RX pending); \
         89 % by nft in nft_do_chain"
    );
    assert_eq!(
        (finding.severity, finding.confidence),
        (Severity::Warning, Confidence::High)
    );
    assert_eq!(case.ids(), ["stalls"]);
}

#[test]
fn a_culprit_and_a_function_are_joined_only_where_one_stall_has_both() {
    let mut case = Case::new();
    case.stall(4, 20, "cadvisor", "nft_do_chain");
    case.stall(1, 20, "cadvisor", "do_exit");
    case.stall(1, 20, "cadvisor", "do_wait");
    case.stall(1, 20, "cadvisor", "do_fork");
    case.stall(3, 20, "nft", "nft_do_chain");
    let sentence = &case.found("stalls").unwrap().sentence;
    assert!(
        sentence.ends_with("; 70 % by cadvisor, 70 % in nft_do_chain"),
        "{sentence}"
    );
    // Most are both, though fewer than are either.
    case.stall(6, 20, "cadvisor", "nft_do_chain");
    let sentence = &case.found("stalls").unwrap().sentence;
    assert!(
        sentence.ends_with("; 62 % by cadvisor in nft_do_chain"),
        "{sentence}"
    );
}

#[test]
fn stalls_of_several_culprits_name_the_first_two() {
    let mut case = Case::new();
    for id in 0..9 {
        let comm = ["a", "b", "c"][id as usize % 3];
        let mut stall = case.one(id, 15, comm, "");
        stall.cpu = id as u32 % 3;
        stall.kind = StallKind::ALL[id as usize % 3];
        case.push(stall);
    }
    case.tick();
    let finding = case.found("stalls").unwrap();
    assert_eq!(
        finding.sentence,
        "9 stalls on cpus 0, 1 and 2 in 60 s, worst 15.0 ms; 33 % by a, 33 % by b"
    );
    assert_eq!(finding.confidence, Confidence::Low);
}

#[test]
fn one_very_long_stall_is_told_alone_and_forgotten_after_a_minute() {
    let mut case = Case::new();
    case.stall(1, 450, "x", "");
    let finding = case.found("stalls").unwrap();
    assert_eq!(
        finding.sentence,
        "1 stall on cpu 11 in 60 s, worst 450.0 ms (NET_RX pending); by x"
    );
    assert_eq!(finding.confidence, Confidence::Medium);
    case.ticks(62);
    assert_eq!(case.ids(), [] as [&str; 0]);
}

#[test]
fn stalls_that_may_be_the_hypervisors_are_told_with_little_confidence() {
    let mut case = Case::new();
    for id in 0..12 {
        let mut stall = case.one(id, 20, "x", "f");
        stall.pause = Pause::Either;
        stall.kind = StallKind::InterruptsOff;
        stall.vector = None;
        case.push(stall);
    }
    case.tick();
    let finding = case.found("stalls").unwrap();
    assert_eq!(finding.confidence, Confidence::Low);
    assert!(
        finding.evidence[1].starts_with("12 of 12: interrupts were off or the hypervisor"),
        "{:?}",
        finding.evidence
    );
}

#[test]
fn where_stalls_are_not_watched_the_old_rules_speak() {
    let mut case = Case::new();
    case.watched = false;
    case.ticks(5);
    assert_eq!(case.ids(), ["late-softirqs", "long-handlers"]);
    case.watched = true;
    case.ticks(1);
    assert_eq!(case.ids(), [] as [&str; 0]);
}

#[test]
fn a_drop_of_caches_is_judged_by_the_stalls_after_it() {
    let mut case = Case::new();
    (case.zombies, case.read_ns) = (4_812, 153 * MS);
    for _ in 0..30 {
        case.stall(1, 150, "cadvisor", "memcg_stat_show");
    }
    case.drop_caches();
    (case.zombies, case.read_ns) = (10, 40_000);
    // Others go on, whatever is dropped.
    case.stall(5, 30, "nft", "nft_do_chain");
    case.ticks(2);
    let finding = case.found("caches-dropped").unwrap();
    assert!(
        finding.sentence.ends_with("(too early to tell)"),
        "{}",
        finding.sentence
    );
    case.ticks(20);
    let effect = case.model.drop_effect().unwrap();
    assert_eq!(
        (effect.verdict(), effect.reads),
        (StallVerdict::Ended, true)
    );
    assert_eq!(
        case.found("caches-dropped").unwrap().sentence,
        "since caches were dropped 22 s ago, stalls in reads of memory statistics: 30 in 31 s, \
         p99 150.0 ms -> none in 22 s"
    );
    // Nothing stays for ever.
    case.ticks(120);
    assert_eq!(case.ids(), [] as [&str; 0]);
}

#[test]
fn a_drop_in_vain_says_so_and_is_not_offered_again() {
    let mut case = Case::new();
    (case.zombies, case.read_ns) = (4_812, 153 * MS);
    for _ in 0..30 {
        case.stall(1, 150, "cadvisor", "memcg_stat_show");
    }
    case.drop_caches();
    for _ in 0..20 {
        case.stall(1, 140, "cadvisor", "memcg_stat_show");
    }
    assert_eq!(
        case.model.drop_effect().unwrap().verdict(),
        StallVerdict::NoEffect
    );
    assert!(
        case.found("caches-dropped")
            .unwrap()
            .sentence
            .ends_with("p99 140.0 ms: no effect seen")
    );
    let finding = case.found("statistics-stalls").unwrap();
    assert_eq!(finding.action, "");
    assert!(
        finding
            .evidence
            .iter()
            .any(|l| l.ends_with("no effect seen"))
    );
}

#[test]
fn stalls_that_were_lost_are_not_taken_for_none() {
    let mut case = Case::new();
    for _ in 0..30 {
        case.stall(1, 150, "cadvisor", "memcg_stat_show");
    }
    case.drop_caches();
    case.lost += 20;
    case.ticks(20);
    let effect = case.model.drop_effect().unwrap();
    assert_eq!((effect.verdict(), effect.lost), (StallVerdict::Lost, 20));
    let told = effect.to_string();
    assert!(told.ends_with("(20 more were lost: not known)"), "{told}");
}

#[test]
fn a_majority_is_found_in_two_passes() {
    assert_eq!(majority([1, 2, 1, 3, 1].into_iter()), Some((1, 3)));
    assert_eq!(majority([2, 1, 1, 2].into_iter()), None);
    assert_eq!(majority([3, 3, 1, 1, 1].into_iter()), Some((1, 3)));
    assert_eq!(majority([0; 0].into_iter()), None);
    assert_eq!(majority([7].into_iter()), Some((7, 1)));
}

#[test]
fn hostile_names_stay_harmless() {
    let mut case = Case::new();
    case.zombies = 5_000;
    case.stall(5, 20, "\x1b[2Jx", "memcg_stat_show.\x07");
    case.stall(5, 20, "\u{202e}y", "f\r\n");
    let mut out = Vec::new();
    check_all(&case.model, &mut out);
    assert!(out.len() >= 2 && out.len() <= RULES.len());
    for finding in out {
        let all = finding.sentence + &finding.evidence.join(" ");
        assert!(!all.contains(|c: char| c.is_control()), "{all:?}");
    }
}
