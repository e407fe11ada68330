//! The stalls of the made-up host: incident I2 on CPU 1, and a few of other kinds.

use stalltop_model::sample::{
    Culprit, Drained, Owner, OwnerKind, Pause, Sampling, Seen, Stall, StallKind, StallWatch, Vector,
};
use stalltop_model::{Name, Reading, Reason};

use super::{BOOT_NS, Kind, S, WALL_NS, noise};

const MS: u64 = 1_000_000;

/// From the innermost function on, as the kernel unwinds it.
const STATS: [&str; 9] = [
    "mem_cgroup_flush_stats",
    "memory_stat_format",
    "memory_stat_show",
    "seq_read_iter",
    "vfs_read",
    "ksys_read",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
    "entry_SYSCALL_64",
];

pub(crate) fn watch(kind: Kind, told: u64) -> Reading<StallWatch> {
    if kind.bare {
        return Reading::Off(Reason::NoCapability {
            need: "CAP_BPF".into(),
        });
    }
    let from = Reading::Value(5 * MS);
    Reading::Value(StallWatch {
        kinds: [
            from.clone(),
            from.clone(),
            from.clone(),
            from,
            Reading::Off(Reason::NoTracepoint {
                name: "sched:sched_set_need_resched_tp".into(),
            }),
            Reading::Value(100 * MS),
        ],
        chosen: "default on bare metal".into(),
        tick_ns: 4 * MS,
        sampling: if kind.sick { vec![1, 3] } else { Vec::new() },
        nmi: false,
        told,
        paused: 0,
        ours: 0,
        lost: 0,
        symbols: Reading::Value(()),
    })
}

fn stack(names: &[&str]) -> Vec<Name> {
    names.iter().map(|n| (*n).into()).collect()
}

/// The stalls that end in a tick, and their numbers.
pub(crate) fn at(kind: Kind, tick: u64) -> Vec<Stall> {
    if !kind.sick || kind.bare || kind.cpus < 2 || tick == 0 {
        return Vec::new();
    }
    let mut out = Vec::new();
    let burst = tick % 9 < 3;
    if burst {
        out.push(pending(kind, tick));
    }
    match tick % 27 {
        5 => out.push(handler(tick)),
        8 => out.push(paused(tick)),
        13 => out.push(interrupts_off(tick)),
        17 => out.push(Stall {
            ours: true,
            ..pending(kind, tick)
        }),
        _ => {}
    }
    for (i, stall) in out.iter_mut().enumerate() {
        stall.id = tick * 4 + i as u64;
    }
    out
}

fn base(tick: u64, into_tick_ns: u64, delay_ns: u64) -> Stall {
    Stall {
        at_ns: BOOT_NS + (tick - 1) * S + into_tick_ns,
        wall_ns: WALL_NS + (tick - 1) * S + into_tick_ns,
        cpu: 1,
        delay_ns,
        least_ns: delay_ns,
        most_ns: delay_ns,
        ..Stall::default()
    }
}

fn pending(kind: Kind, tick: u64) -> Stall {
    let delay_ns = match tick % 9 {
        1 => 178_200_000,
        _ => 20 * MS + noise(tick, 5, 30) * MS,
    };
    let comm: Name = match (kind.hostile, tick % 2) {
        (true, 0) => "cadv\x1b[2Jisor\u{202e}".into(),
        (true, _) => "日本語".repeat(3_333).into(),
        (false, _) => "cadvisor".into(),
    };
    let seen = |offset_ms: i64, weight_ms: u64, pid, comm: &Name, stack| Seen {
        offset_ns: offset_ms * MS as i64,
        weight_ns: weight_ms * MS,
        pid,
        comm: comm.clone(),
        stack,
        ..Seen::default()
    };
    let idle: Name = "swapper/1".into();
    let ksoftirqd: Name = "ksoftirqd/1".into();
    let mut timeline = vec![
        seen(-4, 0, 0, &idle, None),
        seen(-1, 0, 10_436, &comm, Some(0)),
    ];
    let ms = delay_ns / MS;
    for at in (2..=ms).step_by(2) {
        let stack = if at % 30 == 0 { 1 } else { 0 };
        timeline.push(seen(at as i64, 2, 10_436, &comm, Some(stack)));
    }
    for at in 1..=10 {
        timeline.push(Seen {
            vector: Some(Vector::NetRx),
            ..seen((ms + at) as i64, 0, 22, &ksoftirqd, None)
        });
    }
    timeline.push(seen(ms as i64 + 12, 0, 0, &idle, None));
    Stall {
        kind: StallKind::SoftirqPending,
        vector: Some(Vector::NetRx),
        culprit: Reading::Value(Culprit {
            pid: 10_436,
            tgid: 10_137,
            comm,
            share: 0.96,
            samples: ((ms / 2) as u32 - 3, (ms / 2) as u32),
            owner: Reading::Value(Owner {
                kind: OwnerKind::Pod,
                name: if kind.hostile {
                    "pod \x07\x1b]0;x\x07".into()
                } else {
                    "kubepods/burstable/cadvisor-x7k2".into()
                },
                cgroup: "/kubepods/burstable/cadvisor-x7k2".into(),
            }),
            cgroup: Reading::Value("/kubepods/burstable/cadvisor-x7k2".into()),
            syscall: Some("read".into()),
            function: Reading::Value("memory_stat_show".into()),
            file: Some("/sys/fs/cgroup/memory/memory.stat".into()),
            user_stack: Reading::Off(Reason::KernelDoesNotSay {
                what: "frames of a program built without frame pointers".into(),
            }),
            ..Culprit::default()
        }),
        sampling: Sampling::Clock,
        timeline,
        stacks: vec![
            stack(&STATS),
            stack(&[&["mem_cgroup_iter"], &STATS[1..]].concat()),
        ],
        lost: 2,
        drained: Some(Drained {
            pid: 22,
            comm: ksoftirqd,
            time_ns: Reading::Value(10_300_000),
        }),
        ..base(tick, 204 * MS + noise(tick, 9, 700) * MS, delay_ns)
    }
}

fn handler(tick: u64) -> Stall {
    Stall {
        cpu: 0,
        kind: StallKind::SoftirqHandler,
        vector: Some(Vector::NetRx),
        culprit: Reading::Value(Culprit {
            comm: "NET_RX".into(),
            vector: Some(Vector::NetRx),
            share: 1.0,
            samples: (2, 2),
            function: Reading::Value("nft_do_chain".into()),
            ..Culprit::default()
        }),
        timeline: vec![4, 8]
            .into_iter()
            .map(|at| Seen {
                offset_ns: at * MS as i64,
                weight_ns: 4 * MS,
                pid: 900,
                comm: "iperf3".into(),
                vector: Some(Vector::NetRx),
                stack: Some(0),
                ..Seen::default()
            })
            .collect(),
        stacks: vec![stack(&[
            "nft_do_chain",
            "nf_hook_slow",
            "ip_local_deliver",
            "net_rx_action",
        ])],
        ..base(tick, 512 * MS, 8_400_000)
    }
}

fn interrupts_off(tick: u64) -> Stall {
    Stall {
        cpu: 0,
        kind: StallKind::InterruptsOff,
        pause: Pause::Either,
        culprit: Reading::Off(Reason::KernelDoesNotSay {
            what: "who held a cpu whose interrupts are off".into(),
        }),
        least_ns: 7 * MS,
        most_ns: 11 * MS,
        victims: vec![1],
        ..base(tick, 731 * MS, 9 * MS)
    }
}

fn paused(tick: u64) -> Stall {
    Stall {
        cpu: 0,
        kind: StallKind::InterruptsOff,
        pause: Pause::Paused,
        ..base(tick, 90 * MS, 21 * MS)
    }
}
