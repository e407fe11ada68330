//! Lock contention of the made-up host: incident I1 under netdata's kretprobe, and a few
//! mutexes and semaphores.

use std::sync::Arc;

use stalltop_model::sample::{
    Hidden, Lock, LockKind, LockOwner, LockShare, LockStack, LockTracer, LockWaits, LockWatch,
    Locks, ShareStack, Waits,
};
use stalltop_model::{Name, Reading, Reason};

use super::{BOOT_NS, Kind, S, noise};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// Innermost first. The program is the kretprobe of `tcp_sendmsg` in `host::tracing`.
const STORM: [&str; 14] = [
    "native_queued_spin_lock_slowpath",
    "_raw_spin_lock_irqsave",
    "htab_lock_bucket",
    "htab_map_update_elem",
    "bpf_prog_8f3b0c5511d20a77_tcp_sendmsg [bpf]",
    "trace_call_bpf",
    "kretprobe_perf_func",
    "__kretprobe_trampoline_handler",
    "trampoline_handler",
    "__kretprobe_trampoline",
    "sock_sendmsg",
    "__sys_sendto",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
];
/// The same map under the kprobe of `tcp_cleanup_rbuf`.
const RECEIVE: [&str; 13] = [
    "native_queued_spin_lock_slowpath",
    "_raw_spin_lock_irqsave",
    "htab_lock_bucket",
    "htab_map_update_elem",
    "bpf_prog_8f3b0c5511d20a77_tcp_cleanup_rbuf [bpf]",
    "trace_call_bpf",
    "kprobe_perf_func",
    "kprobe_ftrace_handler",
    "tcp_cleanup_rbuf",
    "tcp_recvmsg",
    "__sys_recvfrom",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
];
/// The agent itself, which empties the map.
const EMPTIES: [&str; 8] = [
    "native_queued_spin_lock_slowpath",
    "_raw_spin_lock_irqsave",
    "htab_lock_bucket",
    "htab_map_delete_elem",
    "__sys_bpf",
    "__x64_sys_bpf",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
];
const EPOLL: [&str; 9] = [
    "__mutex_lock",
    "mutex_lock",
    "ep_send_events",
    "ep_poll",
    "do_epoll_wait",
    "__x64_sys_epoll_wait",
    "x64_sys_call",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
];
const MMAP: [&str; 8] = [
    "rwsem_down_write_slowpath",
    "down_write_killable",
    "vm_mmap_pgoff",
    "ksys_mmap_pgoff",
    "__x64_sys_mmap",
    "x64_sys_call",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
];

fn frames(names: &[&str]) -> Vec<Name> {
    names.iter().map(|n| (*n).into()).collect()
}

fn waits(count: u64, mean_ns: u64, longest_ns: u64) -> Waits {
    Waits {
        count,
        wait_ns: count * mean_ns,
        longest_ns,
    }
}

/// The window that ends with a tick.
pub(crate) fn at(kind: Kind, tick: u64) -> Reading<Arc<Locks>> {
    if kind.bare {
        return Reading::Off(Reason::NoCapability {
            need: "CAP_BPF".into(),
        });
    }
    if tick == 0 {
        return Reading::Off(Reason::Starting);
    }
    Reading::Value(Arc::new(window(kind, tick)))
}

fn watch() -> LockWatch {
    LockWatch {
        tracer: Reading::Value(LockTracer::Always),
        hidden: Reading::Value(vec![Hidden {
            what: "the first waiter of a spinlock".into(),
            kinds: Vec::new(),
            why: Reason::KernelDoesNotSay {
                what: "when the first waiter of a queued spinlock begins to wait".into(),
            },
        }]),
        unpaired: 2,
        overflowed: 0,
        missed: Reading::Value(0),
        owners: Reading::Value(()),
        long_ns: 20 * US,
        every: 64,
        ns_per_wait: Reading::Value(184),
    }
}

/// Everything that waited in one second.
pub(crate) fn window(kind: Kind, tick: u64) -> Locks {
    let name = |name: &str| Reading::Value(Name::from(name));
    let no_symbol = || {
        Reading::Off(Reason::KernelDoesNotSay {
            what: "the names of locks in data (kallsyms holds functions only)".into(),
        })
    };
    let storm = if kind.sick {
        waits(48_000 + noise(tick, 3, 9_000), 62 * US, 1_060 * US)
    } else {
        waits(3, 4 * US, 9 * US)
    };
    let epoll = waits(900 + noise(tick, 4, 300), 31 * US, 4 * MS);
    let mmap = waits(40 + noise(tick, 5, 20), 110 * US, 9 * MS);
    let netdata: Name = if kind.hostile {
        "net\x1b[31m\u{202e}data".into()
    } else {
        "netdata".into()
    };
    let proxy: Name = if kind.hostile {
        "日本語".repeat(2_000).into()
    } else {
        "envoy".into()
    };
    let epoll_name = if kind.hostile {
        name("ep\x1b]0;pwn\x07_lock;x")
    } else {
        name("of do_epoll_wait")
    };
    let part = |of: &Waits, n: u64, d: u64| Waits {
        count: of.count * n / d,
        wait_ns: of.wait_ns * n / d,
        longest_ns: of.longest_ns * n / d,
    };
    let stack =
        |kind: LockKind, lock: u64, of: &[&str], comm: &Name, tgid: u32, waits: Waits| LockStack {
            kind,
            lock,
            name: Reading::Off(Reason::NotAsked),
            frames: frames(of),
            programs: Vec::new(),
            tgid,
            comm: comm.clone(),
            waits,
            long: part(&waits, 1, 3),
            sampled: waits.count / 64,
            owners: Vec::new(),
        };
    let mut stacks = Vec::new();
    if kind.sick {
        let storms: [(_, _, u64, &[&str], &[u32]); 3] = [
            (&proxy, 2_201, 4, &STORM, &[41]),
            (&proxy, 2_201, 2, &RECEIVE, &[42]),
            (&netdata, 812, 1, &EMPTIES, &[]),
        ];
        for (comm, tgid, n, frames, programs) in storms {
            let mut of = stack(
                LockKind::Spin,
                0xffff_8881_0a2b_4c00,
                frames,
                comm,
                tgid,
                part(&storm, n, 8),
            );
            of.programs = programs.to_vec();
            of.name = no_symbol();
            stacks.push(of);
        }
    }
    stacks.push(LockStack {
        name: epoll_name.clone(),
        long: epoll,
        sampled: 0,
        owners: vec![
            LockOwner {
                pid: 2_207,
                comm: "envoy:wrk_3".into(),
                count: 700,
                frames: frames(&["ep_send_events", "ep_poll", "do_epoll_wait"]),
            },
            LockOwner {
                pid: 2_209,
                comm: "".into(),
                count: 41,
                frames: Vec::new(),
            },
        ],
        ..stack(
            LockKind::Mutex,
            0xffff_8881_0444_1008,
            &EPOLL,
            &proxy,
            2_201,
            epoll,
        )
    });
    stacks.push(LockStack {
        name: name("init_mm.mmap_lock"),
        ..stack(
            LockKind::RwsemWrite,
            0xffff_ffff_9b4e_1178,
            &MMAP,
            &"postgres".into(),
            3_310,
            part(&mmap, 3, 4),
        )
    });
    let lock = |kind, address, name, waits| Lock {
        kind,
        address,
        name,
        waits,
    };
    let hist = |center: usize, n: u64| {
        let mut hist = vec![0; center + 5];
        for (i, part) in [(0, 10), (1, 60), (2, 25), (3, 4), (4, 1)] {
            hist[center + i] = n * part / 100;
        }
        hist
    };
    let of_kind = |kind, waits: Waits, center| LockWaits {
        kind,
        waits,
        hist: hist(center, waits.count),
    };
    let cpus = (0..kind.cpus)
        .map(|cpu| {
            let part = part(&storm, 1 + u64::from(cpu % 3), u64::from(kind.cpus) * 2);
            (cpu, part)
        })
        .filter(|(_, waits)| waits.count > 0)
        .collect();
    Locks {
        watch: watch(),
        window: tick,
        at_ns: BOOT_NS + tick * S,
        span_ns: S,
        measured_ns: S,
        kinds: vec![
            of_kind(LockKind::Spin, storm, 14),
            of_kind(LockKind::Mutex, epoll, 13),
            of_kind(LockKind::RwsemWrite, mmap, 15),
        ],
        locks: vec![
            lock(LockKind::Spin, 0xffff_8881_0a2b_4c00, no_symbol(), storm),
            lock(LockKind::Mutex, 0xffff_8881_0444_1008, epoll_name, epoll),
            lock(
                LockKind::RwsemWrite,
                0xffff_ffff_9b4e_1178,
                name("init_mm.mmap_lock"),
                mmap,
            ),
        ],
        rest: Waits::default(),
        cpus,
        stacks,
        lasting: Vec::new(),
        unseen: part(&storm, 1, 8),
        share: Reading::Value(share(kind, &netdata, &proxy)),
    }
}

fn share(kind: Kind, netdata: &Name, proxy: &Name) -> LockShare {
    let samples = u64::from(kind.cpus) * 240;
    let (in_lock, suspected) = if kind.sick {
        (samples / 10, samples / 3)
    } else {
        (0, 0)
    };
    let reopened: Vec<&str> = ["_raw_spin_unlock_irqrestore"]
        .into_iter()
        .chain(STORM[3..].iter().copied())
        .collect();
    let stack = |function: &str, suspected, of: &[&str], comm: &Name, tgid, samples| ShareStack {
        function: function.into(),
        suspected,
        frames: frames(of),
        programs: if tgid == 812 { Vec::new() } else { vec![41] },
        tgid,
        comm: comm.clone(),
        samples,
    };
    let mut stacks = Vec::new();
    if kind.sick {
        stacks.push(stack(
            "_raw_spin_unlock_irqrestore",
            true,
            &reopened,
            proxy,
            2_201,
            suspected,
        ));
        stacks.push(stack(
            STORM[0],
            false,
            &STORM,
            proxy,
            2_201,
            in_lock - in_lock / 4,
        ));
        stacks.push(stack(STORM[0], false, &EMPTIES, netdata, 812, in_lock / 4));
    }
    LockShare {
        source: "the scheduler's tick (250 Hz)".into(),
        nmi: false,
        samples,
        kernel: samples * 3 / 4,
        in_lock,
        suspected,
        stacks,
        cpus: (0..kind.cpus)
            .filter(|_| kind.sick)
            .map(|cpu| (cpu, 240, 24, 80))
            .collect(),
    }
}
