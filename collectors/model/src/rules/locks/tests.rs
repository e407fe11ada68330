mod contention;

use std::sync::Arc;

use super::super::{RULES, check_all};
use super::*;
use crate::Reading;
use crate::made::{self, Made};
use crate::sample::{
    BpfMap, Costs, DynamicCost, Growth, InstanceCost, KernelProbes, Lasting, LockOwner, LockShare,
    LockStack, PerfUse, ShareStack, Tracing,
};

/// Behind a kretprobe, on 5.10.
const PROBED: &[&str] = &[
    "native_queued_spin_lock_slowpath",
    "_raw_spin_lock_irqsave",
    "__pcpu_freelist_pop",
    "htab_map_update_elem",
    "bpf_prog_0123456789abcdef_nd_probe [bpf]",
    "trace_call_bpf",
    "kretprobe_perf_func",
    "kretprobe_dispatcher",
    "trampoline_handler",
    "kretprobe_trampoline",
    "sock_sendmsg",
];
const EPOLL: &[&str] = &[
    "native_queued_spin_lock_slowpath",
    "_raw_write_lock_irq",
    "ep_send_events",
    "do_epoll_wait",
];

fn found(made: &Made, id: &str) -> Option<Finding> {
    let mut out = Vec::new();
    check_all(&made.model, &mut out);
    out.into_iter().find(|f| f.id == id)
}

fn ids(made: &Made) -> Vec<&'static str> {
    let mut out = Vec::new();
    check_all(&made.model, &mut out);
    out.iter().map(|f| f.id).collect()
}

fn probed(wait_ms: u64) -> LockStack {
    let mut stack = made::stack(LockKind::Spin, wait_ms, PROBED);
    stack.programs = vec![41];
    stack
}

/// netdata's kretprobes; the master switch is on.
fn netdata(programs: u32, kind: &str) -> Tracing {
    let programs = (0..programs).map(|n| {
        let holders = vec![made::holder(812, "netdata")];
        made::program(41 + n, kind, "tcp_sendmsg", holders)
    });
    let mut tracing = Tracing::clone(&made::tracing(programs.collect()));
    tracing.kprobes = Reading::Value(KernelProbes {
        enabled: Reading::Value(true),
        list: Vec::new(),
    });
    tracing
}

fn storm(tracing: Tracing) -> Made {
    let mut made = Made::new();
    made.now.tracing = Arc::new(tracing);
    made.now.stacks = Some(vec![
        probed(1_900),
        made::stack(LockKind::Mutex, 1_200, &["x"]),
    ]);
    made
}

fn share(stacks: Vec<ShareStack>) -> LockShare {
    let of = |suspected| {
        let of = stacks.iter().filter(|s| s.suspected == suspected);
        of.map(|s| s.samples).sum()
    };
    let (in_lock, suspected): (u64, u64) = (of(false), of(true));
    LockShare {
        source: "the scheduler's tick (250 Hz)".into(),
        nmi: false,
        samples: 800,
        kernel: 700,
        in_lock,
        suspected,
        stacks,
        cpus: (0..4)
            .map(|cpu| (cpu, 200, in_lock / 4, suspected / 4))
            .collect(),
    }
}

fn sampled(frames: &[&str], suspected: bool, samples: u64) -> ShareStack {
    ShareStack {
        function: frames[0].into(),
        suspected,
        frames: made::names(frames),
        programs: Vec::new(),
        tgid: 4_000,
        comm: "proxy".into(),
        samples,
    }
}

#[test]
fn a_storm_of_probes_is_named_with_its_holder_and_its_switch() {
    let mut made = storm(netdata(18, "kretprobe"));
    let mut costs = made::costs(&[(41, 1.57), (42, 0.16)]);
    costs.programs[0].growth = Some(Growth {
        few_cpus: 1.0,
        few_ns: 317.0,
        many_cpus: 3.9,
        many_ns: 708.0,
    });
    costs.maps = vec![BpfMap {
        id: 7,
        kind: "hash".into(),
        name: "nd_conn".into(),
        key_bytes: 4,
        value_bytes: 8,
        max_entries: 1_024,
        programs: (41..59).collect(),
        contends: true,
    }];
    made.now.costs = Some(costs);
    made.ticks(12);
    let finding = found(&made, "probe-storm").unwrap();
    assert_eq!(
        finding.sentence,
        "netdata[812]'s 18 kprobes cost 173 % of one CPU and 61 % of lock wait time (1.9 s/s on 4 CPUs)"
    );
    assert_eq!(
        (finding.incident, finding.action, finding.pane),
        ("I1", "kprobes", "locks")
    );
    assert_eq!(
        (finding.severity, finding.confidence),
        (Severity::Critical, Confidence::High)
    );
    let evidence = finding.evidence.join("\n");
    for part in [
        "> trace_call_bpf > bpf_prog_0123456789abcdef_nd_probe [bpf] > \
         htab_map_update_elem",
        "held by netdata[812] of netdata.service",
        "program 41 nd_probe, kretprobe on tcp_sendmsg: 157.0 % of one CPU, 1,570,000 runs/s of \
         1.0 us",
        "a run of program 41 takes 317 ns with 1.0 CPUs busy and 708 ns with 3.9",
        "map 7 nd_conn (hash, 1,024 entries) is shared by all CPUs, and used by 18 of these \
         programs",
    ] {
        assert!(evidence.contains(part), "{part}\n{evidence}");
    }
    // What waits behind probes is not told twice; the mutex alone is below what is told.
    assert!(found(&made, "lock-contention").is_none());
    // Off: what ends is over at once, and what it did is told.
    made.change(1, made::kprobes_off());
    made.now.stacks = Some(Vec::new());
    made.now.costs = Some(made::costs(&[]));
    made.ticks(4);
    assert!(found(&made, "probe-storm").is_none());
    assert!(found(&made, "change-effect").is_none(), "too early to tell");
    made.ticks(6);
    let effect = found(&made, "change-effect").unwrap();
    assert_eq!(
        effect.sentence,
        "kprobes off, 10 s ago: lock wait 2.9 -> 0.0 s/s, probe cost 173 -> 0 % of one CPU"
    );
    assert_eq!((effect.action, effect.incident), ("undo", ""));
    made.ticks(130);
    assert!(found(&made, "change-effect").is_none());
}

#[test]
fn probes_that_no_switch_stops_lead_to_their_holder() {
    for kind in ["fentry", "kprobe_multi", "uprobe", "raw_tracepoint"] {
        let mut made = storm(netdata(2, kind));
        made.ticks(6);
        let finding = found(&made, "probe-storm").unwrap();
        assert_eq!(finding.action, "stop-holder", "{kind}");
        assert!(
            finding
                .sentence
                .starts_with(&format!("netdata[812]'s 2 {kind}s cost 61 % of lock wait")),
            "{}",
            finding.sentence
        );
        assert!(
            finding.evidence.contains(
                &"no switch stops these: stop netdata[812] of netdata.service \
                  (systemctl stop netdata.service)"
                    .to_owned()
            ),
            "{:?}",
            finding.evidence
        );
    }
    // The switch is there, but lockdown keeps it out of reach.
    let mut tracing = netdata(1, "kprobe");
    tracing.kprobes = Reading::default();
    let mut made = storm(tracing);
    made.ticks(6);
    let finding = found(&made, "probe-storm").unwrap();
    assert_eq!(finding.action, "stop-holder");
    assert!(
        finding
            .sentence
            .starts_with("netdata[812]'s kprobe on tcp_sendmsg costs 61 %")
    );
}

#[test]
fn where_no_tracepoint_sees_it_samples_do() {
    // Incident I1's own kernel had no lock tracepoints.
    let mut made = storm(netdata(9, "kretprobe"));
    made.now.stacks = None;
    made.now.share = Some(share(vec![sampled(PROBED, false, 360)]));
    made.ticks(6);
    let finding = found(&made, "probe-storm").unwrap();
    assert_eq!(
        finding.sentence,
        "netdata[812]'s 9 kprobes cost 45 % of busy CPUs' time in locks, by samples"
    );
    assert_eq!(
        (finding.severity, finding.confidence, finding.action),
        (Severity::Critical, Confidence::Medium, "kprobes")
    );
    // Without NMI the same lock hides until interrupts come back on.
    let reopened = &[
        "_raw_spin_unlock_irqrestore",
        "htab_map_update_elem",
        "bpf_prog_0123456789abcdef_nd_probe [bpf]",
        "kprobe_ftrace_handler",
    ];
    made.now.share = Some(share(vec![
        sampled(reopened, true, 90),
        sampled(&["_raw_spin_unlock_irqrestore", "virtqueue_kick"], true, 30),
    ]));
    made.ticks(12);
    let finding = found(&made, "probe-storm").unwrap();
    assert_eq!(
        finding.sentence,
        "netdata[812]'s 9 kprobes cost 11 % of busy CPUs' time with interrupts off, where a lock is \
         suspected"
    );
    assert_eq!(
        (finding.severity, finding.confidence),
        (Severity::Warning, Confidence::Low)
    );
    assert!(found(&made, "lock-contention").is_none());
}

#[test]
fn where_the_stack_ends_in_the_kretprobe_it_is_that_of_the_only_one_who_has_some() {
    // 5.10: interrupts are off for as long as the program runs.
    let reopened = &[
        "_raw_spin_unlock_irqrestore",
        "__kretprobe_trampoline_handler",
        "trampoline_handler",
        "kretprobe_trampoline",
    ];
    let mut tracing = netdata(9, "kretprobe");
    let mut made = storm(tracing.clone());
    made.now.stacks = None;
    made.now.share = Some(share(vec![sampled(reopened, true, 400)]));
    made.ticks(6);
    let finding = found(&made, "probe-storm").unwrap();
    assert!(
        finding
            .sentence
            .starts_with("netdata[812]'s 9 kprobes cost 50 %"),
        "{finding:?}"
    );
    assert_eq!(
        (finding.action, finding.confidence),
        ("kprobes", Confidence::Medium)
    );
    // Somebody else has one: it may be theirs.
    let Reading::Value(bpf) = &mut tracing.bpf else {
        panic!("programs");
    };
    let other = vec![made::holder(90, "bcc")];
    bpf.programs
        .push(made::program(90, "kretprobe", "tcp_close", other));
    made.now.tracing = Arc::new(tracing);
    made.ticks(3);
    let finding = found(&made, "probe-storm").unwrap();
    assert!(
        finding.sentence.starts_with("kretprobes without"),
        "{finding:?}"
    );
}

#[test]
fn cost_alone_is_told_by_holder() {
    let mut made = Made::new();
    let mut programs = vec![
        made::program(3, "tc", "eth0", Vec::new()),
        made::program(
            41,
            "kprobe",
            "tcp_sendmsg",
            vec![made::holder(812, "netdata")],
        ),
        made::program(
            42,
            "tracepoint",
            "sched:sched_switch",
            vec![made::holder(812, "netdata")],
        ),
        made::program(50, "raw_tracepoint", "sys_enter", Vec::new()),
    ];
    programs[3].pins = vec!["/sys/fs/bpf/watch".into()];
    made.now.tracing = made::tracing(programs);
    // What the network's own programs take is the host's work.
    made.now.costs = Some(made::costs(&[(3, 1.5), (41, 0.08), (42, 0.09), (50, 0.11)]));
    made.ticks(3);
    let finding = found(&made, "probe-storm").unwrap();
    assert_eq!(
        finding.sentence,
        "netdata[812]'s 2 probes cost 17 % of one CPU"
    );
    assert_eq!(
        (finding.severity, finding.confidence, finding.pane),
        (Severity::Warning, Confidence::High, "tracing")
    );
    let evidence = finding.evidence.join("\n");
    assert!(
        evidence.contains(
            "also: raw_tracepoint on sys_enter, program 50 (nd_probe), pinned at \
             /sys/fs/bpf/watch, 11 % of one CPU"
        ),
        "{evidence}"
    );
    // Below a tenth each nobody is told of.
    made.now.costs = Some(made::costs(&[(3, 1.5), (41, 0.05), (42, 0.04), (50, 0.09)]));
    made.ticks(3);
    assert_eq!(ids(&made), [] as [&str; 0]);
}

#[test]
fn probes_without_bpf_are_told_by_estimate() {
    let mut made = Made::new();
    let dynamic = |share| DynamicCost {
        group: "kprobes".into(),
        name: "p".into(),
        hits_per_s: Reading::Value(1e6),
        misses_per_s: Reading::default(),
        share: Reading::Value(share),
    };
    let instance = |share| InstanceCost {
        name: "".into(),
        events_per_s: Reading::Value(1e6),
        lost_per_s: Reading::default(),
        share: Reading::Value(share),
    };
    made.now.costs = Some(Costs {
        dynamic: vec![dynamic(0.2), dynamic(0.1)],
        instances: vec![instance(0.15)],
        ..made::costs(&[])
    });
    made.now.tracing = Arc::new(netdata(0, "kprobe"));
    made.ticks(3);
    let finding = found(&made, "probe-storm").unwrap();
    assert_eq!(
        (&*finding.sentence, finding.action, finding.confidence),
        (
            "kprobes without a BPF program cost about 30 % of one CPU",
            "kprobes",
            Confidence::Medium
        )
    );
    assert!(
        finding.evidence[0].starts_with("also: trace events without a BPF program about 15 %"),
        "{:?}",
        finding.evidence
    );
    // perf record, where it is the only one.
    let tracing = Tracing {
        perf: Reading::Value(vec![PerfUse {
            kind: "tracepoint".into(),
            event: "sched:sched_switch".into(),
            descriptors: 4,
            on: 4,
            holder: made::holder(99, "perf"),
            ours: false,
        }]),
        ..Tracing::default()
    };
    made.now.costs = None;
    made.now.tracing = Arc::new(tracing);
    let frames = &[
        "_raw_spin_lock",
        "perf_tp_event",
        "perf_trace_sched_switch",
        "__schedule",
    ];
    made.now.stacks = Some(vec![made::stack(LockKind::Spin, 300, frames)]);
    made.ticks(12);
    let finding = found(&made, "probe-storm").unwrap();
    assert_eq!(
        finding.sentence,
        "perf[99]'s perf events cost 100 % of lock wait time (0.3 s/s on 4 CPUs)"
    );
    assert_eq!(finding.action, "stop-holder");
}

#[test]
fn a_healthy_host_has_no_finding() {
    let mut made = Made::new();
    let mut ours = made::program(9, "raw_tracepoint", "contention_begin", Vec::new());
    ours.ours = true;
    let quiet = made::program(41, "kprobe", "do_exit", vec![made::holder(7, "agent")]);
    made.now.tracing = made::tracing(vec![ours, quiet]);
    made.now.costs = Some(made::costs(&[(9, 0.3), (41, 0.02)]));
    // A build: some spinning, some sleeping, a little behind a probe; drivers reopen interrupts.
    let mut behind = probed(20);
    behind.programs = vec![41];
    made.now.stacks = Some(vec![
        made::stack(LockKind::Spin, 60, EPOLL),
        made::stack(
            LockKind::RwsemWrite,
            900,
            &["rwsem_down_write_slowpath", "vm_mmap_pgoff"],
        ),
        behind,
    ]);
    made.now.share = Some(share(vec![
        sampled(EPOLL, false, 12),
        sampled(&["_raw_spin_unlock_irqrestore", "virtqueue_kick"], true, 80),
    ]));
    for _ in 0..30 {
        made.tick();
        assert_eq!(ids(&made), [] as [&str; 0]);
    }
    // One second of trouble among ten is not told.
    made.now.stacks = Some(vec![made::stack(LockKind::Spin, 1_500, EPOLL)]);
    made.tick();
    made.now.stacks = Some(Vec::new());
    made.tick();
    assert_eq!(ids(&made), [] as [&str; 0]);
}

#[test]
fn stalltops_own_probes_are_told_as_such() {
    let mut tracing = netdata(1, "raw_tracepoint");
    if let Some(bpf) = tracing.bpf.value_mut() {
        bpf.programs[0].ours = true;
    }
    let mut made = storm(tracing);
    made.ticks(6);
    let finding = found(&made, "probe-storm").unwrap();
    assert!(
        finding
            .sentence
            .starts_with("stalltop's own probes cost 61 %")
    );
    assert_eq!(finding.action, "");
}

#[test]
fn a_program_is_found_by_its_name_only_where_that_tells() {
    let mut made = storm(netdata(1, "kretprobe"));
    let without_id = |made: &mut Made| {
        let mut stack = probed(2_000);
        stack.programs.clear();
        made.now.stacks = Some(vec![stack]);
        made.ticks(12);
        found(made, "probe-storm").unwrap()
    };
    let finding = without_id(&mut made);
    assert!(
        finding
            .sentence
            .starts_with("netdata[812]'s kretprobe on tcp_sendmsg costs 100 %")
    );
    // Several with one tag and name: whose they are is known as long as all are one's.
    let mut tracing = netdata(2, "kretprobe");
    made.now.tracing = Arc::new(tracing.clone());
    let finding = without_id(&mut made);
    assert!(
        finding
            .sentence
            .starts_with("netdata[812]'s 2 kprobes cost 100 %")
    );
    if let Some(bpf) = tracing.bpf.value_mut() {
        bpf.programs[0].holders = vec![made::holder(813, "other")];
    }
    made.now.tracing = Arc::new(tracing);
    let finding = without_id(&mut made);
    assert!(
        finding
            .sentence
            .starts_with("BPF program nd_probe, not listed, costs 100 %"),
        "{}",
        finding.sentence
    );
    // The stack alone tells that a kretprobe ran it.
    assert_eq!(
        (finding.action, finding.confidence),
        ("kprobes", Confidence::Medium)
    );
}

#[test]
fn hostile_names_stay_harmless() {
    let mut made = Made::new();
    let evil = "\x1b[2J\u{202e}\r\nx".to_owned() + &"y".repeat(10_000);
    let mut program = made::program(41, "kretprobe", &evil, vec![made::holder(812, &evil)]);
    program.name = evil.as_str().into();
    program.pins = vec![evil.as_str().into()];
    program.attached[0].kind = evil.as_str().into();
    made.now.tracing = made::tracing(vec![program]);
    let mut costs = made::costs(&[(41, 1.0)]);
    costs.maps = vec![BpfMap {
        id: 7,
        kind: evil.as_str().into(),
        name: evil.as_str().into(),
        key_bytes: 0,
        value_bytes: 0,
        max_entries: u32::MAX,
        programs: vec![41],
        contends: true,
    }];
    made.now.costs = Some(costs);
    let mut frames: Vec<&str> = PROBED.to_vec();
    frames.push(&evil);
    frames.insert(0, &evil);
    let mut probed = made::stack(LockKind::Spin, 2_000, &frames);
    probed.programs = vec![41];
    let mut gone = made::stack(
        LockKind::Spin,
        2_000,
        &["bpf_prog_0123456789abcdef_\x1b[2J", "trampoline_handler"],
    );
    gone.comm = evil.as_str().into();
    let mut plain = made::stack(LockKind::Spin, 2_000, &[&evil]);
    plain.comm = evil.as_str().into();
    plain.name = Reading::Value(evil.as_str().into());
    made.now.stacks = Some(vec![probed, gone, plain]);
    made.now.share = Some(share(vec![sampled(&[&evil], false, 300)]));
    made.ticks(8);
    made.change(
        1,
        crate::change::Request::Off {
            selector: evil.as_str().into(),
        },
    );
    made.ticks(4);
    let mut out = Vec::new();
    check_all(&made.model, &mut out);
    assert!(out.len() >= 2 && out.len() <= RULES.len(), "{out:#?}");
    for finding in out {
        let all = finding.sentence + &finding.evidence.join(" ");
        assert!(!all.contains(|c: char| c.is_control()), "{all:?}");
        assert!(!all.contains('\u{202e}'));
    }
}
