//! Hosts made by hand, second by second: for tests of what is derived from samples.

use std::sync::Arc;

use crate::change::{Entry, Outcome, Plan, Request, UndoClass};
use crate::sample::{
    Attachment, BpfObjects, BpfProgram, CostMethod, Costs, CpuSample, CpuTimes, HeldBy, Holder,
    Lasting, LockKind, LockShare, LockStack, LockWaits, Locks, Owner, OwnerKind, ProgramCost,
    RunDelay, Sample, SoftirqTiming, Softnet, StallWatch, Tracing, Vector, Waits,
};
use crate::{Model, Name, Reading, Reason};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1_000_000_000;
pub(crate) const WALL: u64 = 1_700_000_000 * S;

/// What one second of a host is like.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    /// Waits of the window; `None` where the tracepoints are not watched.
    pub(crate) stacks: Option<Vec<LockStack>>,
    /// The share of samples.
    pub(crate) share: Option<LockShare>,
    /// Waits that last.
    pub(crate) lasting: Vec<Lasting>,
    /// Shares of one CPU of programs by id; `None` while costs are not wanted.
    pub(crate) costs: Option<Costs>,
    /// The tracing state.
    pub(crate) tracing: Arc<Tracing>,
    /// Time in the kernel of each CPU, of 1000 ms.
    pub(crate) system_ms: u64,
    /// Time in user space of each CPU, of 1000 ms.
    pub(crate) user_ms: u64,
    /// The worst delay of a softirq.
    pub(crate) delay_ns: u64,
    /// Packets.
    pub(crate) packets: u64,
}

/// A host of four CPUs.
pub(crate) struct Made {
    pub(crate) model: Model,
    pub(crate) now: Second,
    pub(crate) second: u64,
    /// Whether stalls are watched.
    pub(crate) watch_stalls: bool,
    /// By how much the clock was set, ns.
    pub(crate) clock_ns: i64,
    cpus: Vec<CpuSample>,
}

impl Made {
    /// Calm, at second 100.
    pub(crate) fn new() -> Self {
        let cpus = (0..4).map(|cpu| CpuSample {
            cpu,
            online: true,
            times: Reading::Value(CpuTimes::default()),
            softnet: Reading::Value(Softnet::default()),
            run_delay: Reading::Value(RunDelay::default()),
            ..CpuSample::default()
        });
        let mut made = Self {
            model: Model::new(),
            now: Second {
                stacks: Some(Vec::new()),
                lasting: Vec::new(),
                share: None,
                costs: None,
                tracing: Arc::default(),
                system_ms: 20,
                user_ms: 10,
                delay_ns: 300_000,
                packets: 50_000,
            },
            second: 99,
            watch_stalls: false,
            clock_ns: 0,
            cpus: cpus.collect(),
        };
        made.tick();
        made
    }

    /// The time of day.
    pub(crate) fn wall_ns(&self) -> u64 {
        (WALL + self.second * S).saturating_add_signed(self.clock_ns)
    }

    /// A second passes.
    pub(crate) fn tick(&mut self) {
        self.second += 1;
        for cpu in &mut self.cpus {
            if let Some(times) = cpu.times.value_mut() {
                times.system_ns += self.now.system_ms * MS;
                times.user_ns += self.now.user_ms * MS;
                times.idle_ns += (1_000 - self.now.system_ms - self.now.user_ms) * MS;
            }
            if let Some(softnet) = cpu.softnet.value_mut() {
                softnet.processed += self.now.packets / 4;
            }
            if let Some(delay) = cpu.run_delay.value_mut() {
                delay.count += 1_000;
            }
            let softirq = &mut cpu.softirqs[Vector::NetRx as usize];
            softirq.count += 1_000;
            softirq.timing = Reading::Value(SoftirqTiming {
                tick_delay_max_ns: self.now.delay_ns,
                ..SoftirqTiming::default()
            });
        }
        let at_ns = self.second * S;
        let mut sample = Sample {
            at_ns,
            wall_ns: self.wall_ns(),
            cpus: self.cpus.clone(),
            tracing: Arc::clone(&self.now.tracing),
            locks: Reading::Value(Arc::new(self.locks(at_ns))),
            costs: match &self.now.costs {
                Some(costs) => Reading::Value(Arc::new(Costs {
                    at_ns,
                    ..costs.clone()
                })),
                None => Reading::Off(Reason::NotAsked),
            },
            ..Sample::default()
        };
        if self.watch_stalls {
            sample.stalls = Reading::Value(StallWatch {
                kinds: std::array::from_fn(|_| Reading::Value(10 * MS)),
                ..StallWatch::default()
            });
        }
        self.model.advance(&mut sample);
    }

    /// So many seconds pass.
    pub(crate) fn ticks(&mut self, n: u64) {
        for _ in 0..n {
            self.tick();
        }
    }

    fn locks(&self, at_ns: u64) -> Locks {
        let mut locks = Locks {
            window: self.second,
            at_ns,
            span_ns: S,
            share: match &self.now.share {
                Some(share) => Reading::Value(share.clone()),
                None => Reading::default(),
            },
            ..Locks::default()
        };
        locks.lasting.clone_from(&self.now.lasting);
        let Some(stacks) = &self.now.stacks else {
            return locks;
        };
        locks.watch.tracer = Reading::Value(crate::sample::LockTracer::Always);
        locks.measured_ns = S;
        for stack in stacks {
            match locks.kinds.iter_mut().find(|k| k.kind == stack.kind) {
                Some(kind) => kind.waits.add(&stack.waits),
                None => locks.kinds.push(LockWaits {
                    kind: stack.kind,
                    waits: stack.waits,
                    hist: Vec::new(),
                }),
            }
        }
        if !stacks.is_empty() {
            let waits = stacks[0].waits;
            locks.cpus = (0..4).map(|cpu| (cpu, waits)).collect();
        }
        locks.stacks.clone_from(stacks);
        locks
    }

    /// Journals a change that is made now.
    pub(crate) fn change(&mut self, id: u64, request: Request) {
        let at = self.wall_ns();
        self.model.note_change(entry(id, at, request));
    }
}

/// Numbers from 0 to 1, without either: always the same ones for a seed (xorshift64*, Vigna 2016).
pub(crate) fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        (bits as f64 + 0.5) / (1u64 << 53) as f64
    }
}

/// A change that was made.
pub(crate) fn entry(id: u64, wall_ns: u64, request: Request) -> Entry {
    Entry {
        id,
        wall_ns,
        by: "test".into(),
        boot: "b".into(),
        plan: Plan {
            undo: UndoClass::Exact,
            title: "switch off all kprobes of this host".into(),
            request,
            writes: Vec::new(),
            notes: Vec::new(),
            left: Vec::new(),
            confirm_word: None,
        },
        outcome: Outcome::Done,
        undoes: None,
        effect: None,
    }
}

/// Everything off.
pub(crate) fn kprobes_off() -> Request {
    Request::Off {
        selector: "kprobes".into(),
    }
}

pub(crate) fn names(names: &[&str]) -> Vec<Name> {
    names.iter().map(|name| Name::from(*name)).collect()
}

/// Waits of one second behind one stack, innermost first.
pub(crate) fn stack(kind: LockKind, wait_ms: u64, frames: &[&str]) -> LockStack {
    let waits = Waits {
        count: wait_ms * 10,
        wait_ns: wait_ms * MS,
        longest_ns: wait_ms * MS / 100,
    };
    LockStack {
        kind,
        lock: 0,
        name: Reading::default(),
        frames: names(frames),
        programs: Vec::new(),
        tgid: 4_000,
        comm: "proxy".into(),
        waits,
        long: Waits::default(),
        sampled: 10,
        owners: Vec::new(),
    }
}

/// A process that holds something.
pub(crate) fn holder(pid: u32, comm: &str) -> Holder {
    Holder {
        pid,
        comm: comm.into(),
        cmdline: comm.into(),
        owner: Owner {
            kind: OwnerKind::Unit,
            name: format!("{comm}.service").into(),
            cgroup: format!("/system.slice/{comm}.service").into(),
        },
        by: HeldBy::PerfEvent,
    }
}

/// A program attached by `kind` (`kretprobe`) to `target`.
pub(crate) fn program(id: u32, kind: &str, target: &str, holders: Vec<Holder>) -> BpfProgram {
    let class = match kind {
        "kretprobe" | "uprobe" | "uretprobe" | "kprobe_multi" => "kprobe",
        "fentry" | "fexit" => "tracing",
        "tc" => "sched_cls",
        other => other,
    };
    BpfProgram {
        id,
        kind: class.into(),
        name: "nd_probe".into(),
        tag: "0123456789abcdef".into(),
        loaded_at_ns: 0,
        uid: 0,
        maps: vec![7],
        attached: vec![Attachment {
            kind: kind.into(),
            target: target.into(),
            link: None,
        }],
        holders,
        pins: Vec::new(),
        ours: false,
    }
}

/// A tracing state with these programs.
pub(crate) fn tracing(programs: Vec<BpfProgram>) -> Arc<Tracing> {
    Arc::new(Tracing {
        bpf: Reading::Value(BpfObjects {
            programs,
            links: Vec::new(),
            holders: Reading::Value(()),
        }),
        ..Tracing::default()
    })
}

/// What programs cost, by id, as shares of one CPU.
pub(crate) fn costs(shares: &[(u32, f64)]) -> Costs {
    let programs = shares.iter().map(|(id, share)| ProgramCost {
        id: *id,
        runs_per_s: share * 1e6,
        ns_per_run: Reading::Value(1_000.0),
        share: *share,
        ..ProgramCost::default()
    });
    Costs {
        method: Reading::Value(CostMethod::Windows {
            windows: 1,
            window_ns: 100 * MS,
            duty: 0.05,
        }),
        programs: programs.collect(),
        ..Costs::default()
    }
}
