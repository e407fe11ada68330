use stalltop_probes::wire::stall::NONE;

use super::*;
use crate::stalls::kallsyms::Table;

const MS: u64 = 1_000_000;
const CONTEXT: Context = Context {
    tick_ns: 4 * MS,
    sampler_ns: MS,
    own_tgid: 1,
};

/// Functions of the stacks below, each 4 kB apart.
const TEXT: u64 = 0xffff_ffff_8100_0000;
const FUNCTIONS: &[&str] = &[
    "entry_SYSCALL_64_after_hwframe",
    "do_syscall_64",
    "ksys_read",
    "vfs_read",
    "seq_read_iter",
    "cgroup_seqfile_show",
    "memory_stat_show",
    "cgroup_rstat_flush",
    "handle_softirqs",
    "net_rx_action",
    "nft_do_chain",
    "_raw_spin_unlock_irq",
    "pagetypeinfo_show",
    "hrtimer_interrupt",
    "asm_sysvec_apic_timer_interrupt",
    "irq_exit_rcu",
    "_etext",
];

fn symbols() -> Symbols {
    let rows = FUNCTIONS.iter().enumerate();
    let text: String = rows
        .map(|(n, name)| format!("{:x} T {name}\n", TEXT + n as u64 * 4096))
        .collect();
    Symbols::of(Table::read(text.as_bytes()).unwrap())
}

fn at(function: &str) -> u64 {
    let n = FUNCTIONS.iter().position(|f| *f == function).unwrap();
    TEXT + n as u64 * 4096 + 16
}

fn words(comm: &str) -> [u64; 2] {
    let mut bytes = [0; 16];
    bytes[..comm.len()].copy_from_slice(comm.as_bytes());
    [
        u64::from_ne_bytes(bytes[..8].try_into().unwrap()),
        u64::from_ne_bytes(bytes[8..].try_into().unwrap()),
    ]
}

/// A sample in the kernel, its stack outermost first.
fn sample(seq: u64, at_ns: u64, pid: u32, comm: &str, stack: &str) -> StackSample {
    let mut sample = StackSample {
        seq,
        at_ns,
        pid_tgid: u64::from(pid) << 32 | u64::from(pid),
        comm: words(comm),
        flags: flag::REGS,
        steal_ns: 0,
        ..StackSample::ZERO
    };
    for (n, function) in stack.split_whitespace().rev().enumerate() {
        sample.stack[n] = at(function);
        sample.frames = n as u64 + 1;
    }
    sample
}

fn event(kind: u64, start_ns: u64, end_ns: u64) -> StallEvent {
    StallEvent {
        kind,
        cpu: 3,
        vector: NONE,
        start_ns,
        earliest_ns: start_ns,
        end_ns,
        pid_tgid: 77 << 32 | 77,
        comm: words("at the end"),
        next_pid: NONE,
        sample: 0,
    }
}

fn told(event: &StallEvent, samples: &[StackSample]) -> Told {
    let evidence = Evidence {
        event,
        samples,
        drained: None,
    };
    attribute(evidence, &mut symbols(), &CONTEXT).unwrap()
}

const READ: &str = "entry_SYSCALL_64_after_hwframe do_syscall_64 ksys_read vfs_read \
                    seq_read_iter cgroup_seqfile_show memory_stat_show cgroup_rstat_flush";

#[test]
fn a_first_stall_is_named_by_its_two_tick_samples() {
    let pending = StallEvent {
        vector: 3,
        ..event(kind::PENDING, 100 * MS, 109 * MS)
    };
    let mut samples = [
        sample(1, 98 * MS, 9, "other", ""),
        sample(2, 102 * MS, 42, "cadvisor", READ),
        sample(3, 106 * MS, 42, "cadvisor", READ),
        sample(4, 110 * MS, 13, "ksoftirqd/3", ""),
    ];
    for s in &mut samples[1..3] {
        s.on_cpu_ns = 99 * MS;
    }
    samples[3].on_cpu_ns = 108 * MS + MS / 2;
    let stall = told(&pending, &samples).stall;
    assert_eq!((stall.delay_ns, stall.cpu), (9 * MS, 3));
    let culprit = stall.culprit.value().unwrap();
    assert_eq!((culprit.pid, &*culprit.comm), (42, "cadvisor"));
    assert_eq!(culprit.syscall.as_deref(), Some("read"));
    assert_eq!(&**culprit.function.value().unwrap(), "memory_stat_show");
    assert_eq!(culprit.samples, (2, 2));
    assert!(
        (culprit.share - 8.5 / 9.0).abs() < 0.01,
        "{}",
        culprit.share
    );
}
