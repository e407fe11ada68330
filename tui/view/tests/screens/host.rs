//! A made-up host, sample by sample: the same every time.

#[path = "host_costs.rs"]
pub(crate) mod costs;
#[path = "host_locks.rs"]
pub(crate) mod locks;
#[path = "host_stalls.rs"]
pub(crate) mod stalls;

use std::sync::Arc;

use stalltop_model::frame::SCHEMA;
use stalltop_model::sample::{
    Attachment, BpfObjects, BpfProgram, Cgroup, CgroupLayout, Cgroups, CoresSource, CpuSample,
    CpuTimes, CpuTopology, DynamicEvent, DynamicKind, EnableState, Event, Hardirq, HeldBy, Holder,
    Host, Instance, KernelProbe, KernelProbeKind, KernelProbes, Ksoftirqd, MemoryVersion, Owner,
    OwnerKind, Preemption, PressureLine, ReadTiming, RunDelay, Sample, Softirq, SoftirqTiming,
    Softnet, Sweep, Tracefs, Tracing, Vector,
};
use stalltop_model::{Frame, Header, Hist, Model, Name, Reading, Reason};

/// 2026-03-14 22:40:00 UTC.
const WALL_NS: u64 = 1_773_528_000_000_000_000;
pub(crate) const BOOT_NS: u64 = 1_051_200_000_000_000;
pub(crate) const S: u64 = 1_000_000_000;

/// What the host is like.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub cpus: u32,
    pub ticks: u64,
    /// Incident I2 on CPU 1: late packets, ksoftirqd, zombies, a slow memory.stat.
    pub sick: bool,
    /// No privilege: everything from /proc, tracing and cgroups missing.
    pub bare: bool,
    /// Names that attack the terminal.
    pub hostile: bool,
}

impl Kind {
    pub(crate) fn calm(cpus: u32) -> Self {
        Self {
            cpus,
            ticks: 130,
            sick: false,
            bare: false,
            hostile: false,
        }
    }

    pub(crate) fn sick(cpus: u32) -> Self {
        Self {
            sick: true,
            ..Self::calm(cpus)
        }
    }
}

/// The model of such a host after its ticks.
pub(crate) fn model(kind: Kind) -> Model {
    let mut model = Model::new();
    model.set_header(header(kind));
    let tracing = Arc::new(tracing(kind));
    for tick in 0..kind.ticks {
        for stall in stalls::at(kind, tick) {
            model.apply(&mut Frame::Stall(Box::new(stall)));
        }
        let mut sample = sample(kind, tick, &tracing);
        model.advance(&mut sample);
    }
    model
}

pub(crate) fn header(kind: Kind) -> Header {
    let topology = (0..kind.cpus)
        .map(|cpu| CpuTopology {
            cpu,
            core: cpu / 2,
            llc: cpu / 16 * 16,
            package: cpu / 128,
            node: cpu / 64,
        })
        .collect();
    Header {
        format: "stalltop".into(),
        schema: SCHEMA,
        version: "0.1.0".into(),
        tick_ns: S,
        host: Host {
            hostname: if kind.hostile {
                "nöde\x1b]0;pwn\x07".into()
            } else {
                "node-17".into()
            },
            release: "6.1.0-28-amd64".into(),
            machine: "x86_64".into(),
            possible_cpus: kind.cpus,
            topology,
            preemption: Reading::Value(Preemption::Voluntary),
            hz: Reading::Value(250),
            virtual_machine: Reading::Value(false),
            ..Host::default()
        },
    }
}

/// A number between 0 and `below` that depends on both arguments only.
fn noise(a: u64, b: u64, below: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 31;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 29)) % below.max(1)
}

/// Whether CPU `cpu` has a burst in a tick.
fn burst(kind: Kind, cpu: u32, tick: u64) -> bool {
    kind.sick && cpu == 1 && tick % 9 < 3
}

pub(crate) fn sample(kind: Kind, tick: u64, tracing: &Arc<Tracing>) -> Sample {
    let mut sample = Sample {
        at_ns: BOOT_NS + tick * S,
        wall_ns: WALL_NS + tick * S,
        tracing: Arc::clone(tracing),
        ..Sample::default()
    };
    let off = |need: &str| Reason::NoCapability { need: need.into() };
    sample.cores.source = if kind.bare {
        CoresSource::Proc
    } else {
        CoresSource::Bpf
    };
    sample.cores.bpf = if kind.bare {
        Reading::Off(off("CAP_BPF"))
    } else {
        Reading::Value(())
    };
    let told = (0..=tick).map(|t| stalls::at(kind, t).len() as u64).sum();
    sample.stalls = stalls::watch(kind, told);
    sample.locks = locks::at(kind, tick);
    sample.cores.since_ns = if kind.bare { 0 } else { BOOT_NS - 60 * S };
    sample.system.uptime_ns = Reading::Value(sample.at_ns);
    sample.system.load = Reading::Value([1.5, 1.2, 0.9]);
    let line = |avg10: f32| {
        Reading::Value(PressureLine {
            avg10,
            ..PressureLine::default()
        })
    };
    sample.system.pressure.cpu = line(if kind.sick { 31.0 } else { 1.0 });
    sample.system.pressure.memory = line(2.0);
    sample.system.pressure.io = line(0.0);
    sample.cpus = (0..kind.cpus)
        .map(|cpu| cpu_sample(kind, cpu, tick))
        .collect();
    sample.cgroups = if kind.bare {
        Reading::Off(Reason::NoFile {
            path: "/sys/fs/cgroup/memory".into(),
        })
    } else {
        Reading::Value(Arc::new(cgroups(kind, tick, sample.at_ns)))
    };
    sample.costs = costs::at(kind, tick);
    sample.own.cpu_ns = tick * 1_400_000;
    sample.own.rss_bytes = 13 << 20;
    sample.own.probe_ns = if kind.bare {
        Reading::Off(off("CAP_BPF"))
    } else {
        Reading::Value(tick * 2_600_000)
    };
    sample.own.drops = if kind.bare {
        Reading::Off(off("CAP_BPF"))
    } else {
        Reading::Value(0)
    };
    sample
}

fn cpu_sample(kind: Kind, cpu: u32, tick: u64) -> CpuSample {
    let mut out = CpuSample {
        cpu,
        // The last CPU of a larger host is offline.
        online: !(kind.cpus >= 8 && cpu == kind.cpus - 1),
        ..CpuSample::default()
    };
    let mut softirq_ns = 0;
    for vector in Vector::ALL {
        let (rate, each) = match vector {
            Vector::Timer => (250, 1_800),
            Vector::NetRx => (900 + noise(u64::from(cpu), 1, 400), 6_500),
            Vector::Sched => (180, 2_100),
            Vector::Rcu => (240, 900),
            Vector::Tasklet => (3, 1_000),
            _ => (0, 0),
        };
        let mut count = 0;
        let mut time = 0;
        let mut last_each = each;
        for t in 0..=tick {
            let heavy = vector == Vector::NetRx && burst(kind, cpu, t);
            let n = if heavy {
                60_000
            } else {
                rate + noise(u64::from(cpu) * 7 + t, vector as u64, rate / 4)
            };
            last_each = if heavy { 12_000 } else { each };
            count += n;
            time += n * last_each;
        }
        softirq_ns += time;
        let busy = burst(kind, cpu, tick) && vector == Vector::NetRx;
        let longest = if busy {
            9_700_000
        } else {
            last_each * 9 + noise(tick, u64::from(cpu), 9_000)
        };
        let ever = if kind.sick && cpu == 1 && vector == Vector::NetRx {
            178_200_000
        } else {
            longest
        };
        let delay = match (busy, tick % 9) {
            (true, 1) => 178_200_000,
            (true, _) => 41_000_000,
            _ => 22_000 + noise(tick + 3, u64::from(cpu), 380_000),
        };
        let mut service = Hist::default();
        let mut delays = Hist::default();
        let center = (63 - each.max(2).leading_zeros()) as usize;
        for (i, part) in [(0, 2), (1, 10), (2, 5), (3, 3)] {
            service.0[(center + i).min(31)] += count * part / 20;
            delays.0[8 + i * 2] += count * part / 20;
        }
        if ever > 100_000_000 {
            service.0[23] = 14;
            delays.0[25] = 9;
            delays.0[27] = 4;
        }
        out.softirqs[vector as usize] = Softirq {
            count,
            timing: if kind.bare {
                Reading::Off(Reason::NoCapability {
                    need: "CAP_BPF".into(),
                })
            } else {
                Reading::Value(SoftirqTiming {
                    time_ns: time,
                    max_ns: ever,
                    tick_max_ns: if rate == 0 { 0 } else { longest },
                    delay_count: count,
                    delay_ns: count * 3_000,
                    delay_max_ns: if rate == 0 { 0 } else { ever.max(delay) },
                    tick_delay_max_ns: if rate == 0 { 0 } else { delay },
                    service: if rate == 0 { Hist::default() } else { service },
                    delay: if rate == 0 { Hist::default() } else { delays },
                })
            },
        };
    }
    out.run_delay = if kind.bare {
        Reading::Off(Reason::NoCapability {
            need: "CAP_BPF".into(),
        })
    } else {
        let late = burst(kind, cpu, tick);
        Reading::Value(RunDelay {
            count: tick * 400,
            delay_ns: tick * 400 * 21_000,
            tick_max_ns: if late { 161_000_000 } else { 310_000 },
        })
    };
    let bursts: u64 = (0..=tick).map(|t| u64::from(burst(kind, cpu, t))).sum();
    out.hardirq = Hardirq {
        count: Reading::Value(tick * 1_100),
        time_ns: if kind.bare {
            Reading::Off(Reason::NotAsked)
        } else {
            Reading::Value(tick * 3_400_000)
        },
    };
    out.ksoftirqd = Reading::Value(Ksoftirqd {
        pid: 16 + cpu * 6,
        run_ns: bursts * 430_000_000,
        runs: bursts * 52,
        wait_ns: bursts * 120_000_000,
    });
    out.softnet = Reading::Value(Softnet {
        processed: out.softirqs[Vector::NetRx as usize].count * 3,
        dropped: bursts / 4,
        time_squeeze: bursts * 7,
        backlog: 0,
        backlog_known: true,
    });
    out.times = Reading::Value(CpuTimes {
        user_ns: tick * 120_000_000,
        system_ns: tick * 40_000_000,
        idle_ns: tick * 830_000_000,
        softirq_ns,
        ..CpuTimes::default()
    });
    out
}

fn owner(kind: OwnerKind, name: &str, cgroup: &str) -> Owner {
    Owner {
        kind,
        name: name.into(),
        cgroup: cgroup.into(),
    }
}

fn event(system: &str, name: &str, state: EnableState) -> Event {
    Event {
        system: system.into(),
        name: name.into(),
        state,
        filter: None,
        triggers: Vec::new(),
    }
}

pub(crate) fn tracing(kind: Kind) -> Tracing {
    if kind.bare {
        return Tracing {
            at_ns: 1,
            tracefs: Reading::Off(Reason::NotMounted {
                fs: "tracefs".into(),
                at: "/sys/kernel/tracing".into(),
            }),
            kprobes: Reading::Off(Reason::Lockdown {
                level: "integrity".into(),
                what: "/sys/kernel/debug/kprobes/enabled".into(),
            }),
            bpf: Reading::Off(Reason::NoCapability {
                need: "CAP_BPF".into(),
            }),
            ..Tracing::default()
        };
    }
    let netdata: Name = if kind.hostile {
        "net\x1b[31m\u{202e}data".into()
    } else {
        "netdata".into()
    };
    let holder = Holder {
        pid: 812,
        comm: netdata,
        cmdline: "/usr/sbin/netdata -D".into(),
        owner: owner(
            OwnerKind::Unit,
            "netdata.service",
            "/system.slice/netdata.service",
        ),
        by: HeldBy::PerfEvent,
    };
    let program = |id: u32, kind: &str, target: &str, ours: bool| BpfProgram {
        id,
        // The kernel has one type for both.
        kind: if kind == "kretprobe" { "kprobe" } else { kind }.into(),
        name: target.chars().take(15).collect::<String>().into(),
        tag: "8f3b0c5511d20a77".into(),
        loaded_at_ns: BOOT_NS - 40_000 * S,
        uid: 0,
        maps: vec![id + 100, id + 101],
        attached: vec![Attachment {
            kind: kind.into(),
            target: target.into(),
            link: Some(id + 30),
        }],
        holders: if ours {
            Vec::new()
        } else {
            vec![holder.clone()]
        },
        pins: Vec::new(),
        ours,
    };
    let mut programs = vec![program(7, "raw_tracepoint", "softirq_entry", true)];
    let mut list = Vec::new();
    let mut dynamic = Vec::new();
    let mut events = Vec::new();
    if kind.sick {
        for (i, symbol) in [
            "tcp_sendmsg",
            "tcp_cleanup_rbuf",
            "udp_recvmsg",
            "inet_csk_accept",
        ]
        .iter()
        .enumerate()
        {
            programs.push(program(
                41 + i as u32,
                if i % 2 == 0 { "kretprobe" } else { "kprobe" },
                symbol,
                false,
            ));
            list.push(KernelProbe {
                kind: if i % 2 == 0 {
                    KernelProbeKind::Kretprobe
                } else {
                    KernelProbeKind::Kprobe
                },
                address: 0,
                symbol: (*symbol).into(),
                offset: 0,
                module: None,
                disabled: false,
                ftrace: true,
                optimized: false,
                gone: false,
            });
        }
        events.push(event("irq", "softirq_entry", EnableState::On));
        events.push(event("irq", "softirq_exit", EnableState::On));
        events.push(Event {
            filter: Some("prev_pid != 0".into()),
            triggers: vec!["stacktrace:unlimited".into()],
            ..event("sched", "sched_switch", EnableState::OnSoftArmed)
        });
        events.push(event("sched", "sched_waking", EnableState::SoftArmed));
        dynamic.push(DynamicEvent {
            kind: DynamicKind::Kprobe,
            group: "kprobes".into(),
            name: "openat".into(),
            definition: "p:kprobes/openat do_sys_openat2 dfd=%di".into(),
            state: Reading::Value(EnableState::On),
            hits: Reading::Value(1_204_551),
            misses: Reading::Value(3),
        });
    }
    Tracing {
        at_ns: 1,
        reading_since_ns: 0,
        perf: Reading::Value(Vec::new()),
        tracefs: Reading::Value(Tracefs {
            mount: "/sys/kernel/tracing".into(),
            instances: vec![Instance {
                current_tracer: Reading::Value("nop".into()),
                tracing_on: Reading::Value(true),
                set_event_pid: Reading::Value("".into()),
                events,
                events_available: 1_622,
                readers: Reading::Value(Vec::new()),
                ..Instance::default()
            }],
            dynamic,
        }),
        kprobes: Reading::Value(KernelProbes {
            enabled: Reading::Value(true),
            list,
        }),
        bpf: Reading::Value(BpfObjects {
            programs,
            links: Vec::new(),
            holders: Reading::Value(()),
        }),
    }
}

fn cgroups(kind: Kind, tick: u64, at_ns: u64) -> Cgroups {
    let pod = if kind.hostile {
        "/kubepods/\x1b[2Jpod\u{7}日本語"
    } else {
        "/kubepods/burstable/pod2f6e/9b1c"
    };
    let rows = [
        ("/", None, OwnerKind::Root, "/", 41_000, 0),
        (
            "/kubepods",
            Some(0),
            OwnerKind::Other,
            "/kubepods",
            52_000,
            0,
        ),
        (
            pod,
            Some(1),
            OwnerKind::Pod,
            "pod 2f6e…/container 9b1c…",
            61_000,
            38,
        ),
        (
            "/system.slice",
            Some(0),
            OwnerKind::Slice,
            "system.slice",
            38_000,
            0,
        ),
        (
            "/system.slice/netdata.service",
            Some(3),
            OwnerKind::Unit,
            "netdata.service",
            36_000,
            12,
        ),
        (
            "/system.slice/sshd.service",
            Some(3),
            OwnerKind::Unit,
            "sshd.service",
            33_500,
            3,
        ),
    ];
    let zombies = if kind.sick { 4_700 + tick / 5 } else { 14 };
    Cgroups {
        layout: CgroupLayout::Hybrid {
            memory: MemoryVersion::V1,
        },
        mount: "/sys/fs/cgroup/memory".into(),
        zombies: Reading::Value(zombies),
        visible: rows.len() as u64,
        sweep: Sweep {
            reads: 6 * tick,
            read_ns: tick * 300_000,
            unread: 0,
            backed_off: u64::from(kind.sick),
            vanished: 2,
            reading_since_ns: 0,
        },
        rows: rows
            .into_iter()
            .map(|(path, parent, owner_kind, name, ns, processes)| {
                let slow = kind.sick && path == "/";
                let ns = if slow { 153_000_000 } else { ns };
                Cgroup {
                    path: path.into(),
                    parent,
                    depth: path.matches('/').count() as u16,
                    owner: owner(owner_kind, name, path),
                    used_bytes: Reading::Value((ns % 97_000) * 7_331),
                    processes: Reading::Value(processes),
                    zombies: Reading::Off(Reason::KernelDoesNotSay {
                        what: "dying cgroups of a v1 subtree".into(),
                    }),
                    read: Reading::Value(ReadTiming {
                        last_ns: ns,
                        longest_ns: ns * 3 / 2,
                        smoothed_ns: ns,
                        count: tick,
                    }),
                    read_at_ns: at_ns - if slow { 31 * S } else { 2 * S },
                    backed_off: slow,
                }
            })
            .collect(),
    }
}
