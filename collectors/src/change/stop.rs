//! What came of a signal: whether the process exited, and what it held.

use std::thread;
use std::time::{Duration, Instant};

use stalltop_model::Reading;
use stalltop_model::change::stop::RUNS;
use stalltop_model::change::{Effect, EffectRow, Plan, Request, StopSignal};
use stalltop_model::sample::{Holder, OwnerKind, Tracing};

use crate::Env;
use crate::tracing::TracingCollector;

use super::process::Process;

/// How long a process is waited for: TERM lets it clean up.
const TERM_WAIT: Duration = Duration::from_secs(5);
/// KILL does not; what it waits for in the kernel may take as long as it likes.
const KILL_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// After the exit: the kernel frees programs and probes asynchronously, and who starts the
/// process again does so about now.
const SETTLE: Duration = Duration::from_secs(1);
/// And for how much longer what is at no place any more is waited for: a grace period of RCU takes
/// its time on a busy host, and who lists programs holds each for a moment.
const FREE: Duration = Duration::from_secs(4);

/// What was there before the signal.
pub(super) struct Before {
    pid: u32,
    identity: String,
    wait: Duration,
    programs: Vec<u32>,
    counts: Counts,
    /// Its unit or container, where it has one.
    owner: Option<(OwnerKind, stalltop_model::Name)>,
}

/// What is counted before and after.
struct Counts {
    kprobes: Reading<u64>,
    perf: Reading<u64>,
    of_owner: Reading<u64>,
}

impl Before {
    /// Looks at what the process of a plan holds; `None` for a plan that stops none.
    pub(super) fn look(env: &Env, plan: &Plan) -> Option<Self> {
        let Request::Stop { pid, .. } = plan.request else {
            return None;
        };
        let write = plan.writes.first()?;
        let tracing = TracingCollector::new(env).scan_all();
        let bpf = tracing.bpf.value();
        let holders = bpf
            .into_iter()
            .flat_map(|b| &b.programs)
            .flat_map(|p| &p.holders);
        let owner = holders
            .filter(|h| h.pid == pid)
            .map(|h| (h.owner.kind, h.owner.name.clone()))
            .find(|(kind, _)| !matches!(kind, OwnerKind::Root | OwnerKind::Other));
        let programs = bpf.into_iter().flat_map(|b| &b.programs);
        Some(Self {
            pid,
            identity: write.before.as_deref().unwrap_or_default().to_owned(),
            wait: match StopSignal::parse(&write.value) {
                Some(StopSignal::Kill) => KILL_WAIT,
                _ => TERM_WAIT,
            },
            programs: programs
                .filter(|p| p.holders.iter().any(|h| h.pid == pid))
                .map(|p| p.id)
                .collect(),
            counts: Counts::of(&tracing, pid, owner.as_ref()),
            owner,
        })
    }

    /// Waits for the end of the process, and says what else ended with it.
    pub(super) fn compare(self, env: &Env) -> Effect {
        let sent = Instant::now();
        let runs = || {
            Process::read(env, self.pid).is_ok_and(|process| process.identity() == self.identity)
        };
        while runs() && sent.elapsed() < self.wait {
            thread::sleep(LOOK);
        }
        let took = sent.elapsed();
        let still = runs();
        if !still {
            thread::sleep(SETTLE);
        }
        let mut tracing = TracingCollector::new(env).scan_all();
        let settled = Instant::now();
        while !still && self.is_freeing(&tracing) && settled.elapsed() < FREE {
            thread::sleep(LOOK);
            tracing = TracingCollector::new(env).scan_all();
        }
        let after = Counts::of(&tracing, self.pid, self.owner.as_ref());
        let loaded = tracing.bpf.as_ref().map(|bpf| {
            let left = bpf
                .programs
                .iter()
                .filter(|p| self.programs.contains(&p.id));
            left.count() as u64
        });
        let row = |what: &str, before, after| EffectRow {
            what: what.into(),
            unit: "count".into(),
            before,
            after,
        };
        let mut rows = vec![
            row(RUNS, Reading::Value(1), Reading::Value(still.into())),
            row(
                "BPF programs that it held",
                Reading::Value(self.programs.len() as u64),
                loaded.map_err(Clone::clone).into(),
            ),
            row("kprobes of the host", self.counts.kprobes, after.kprobes),
        ];
        if self.counts.perf.get() != Some(0) {
            rows.push(row(
                "perf events that it held",
                self.counts.perf,
                after.perf,
            ));
        }
        if let Some((_, name)) = &self.owner {
            // More than 0 after the exit: it was started again, or is not the only one.
            let what = format!("BPF programs held in {name}");
            rows.push(row(&what, self.counts.of_owner, after.of_owner));
        }
        Effect {
            rows,
            took_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

impl Before {
    /// Whether one of its programs is loaded, though neither attached nor pinned.
    fn is_freeing(&self, tracing: &Tracing) -> bool {
        let programs = tracing.bpf.value().into_iter().flat_map(|b| &b.programs);
        let mut its = programs.filter(|p| self.programs.contains(&p.id));
        its.any(|p| p.attached.is_empty() && p.pins.is_empty())
    }
}

impl Counts {
    fn of(tracing: &Tracing, pid: u32, owner: Option<&(OwnerKind, stalltop_model::Name)>) -> Self {
        let in_owner = |h: &Holder| {
            owner.is_some_and(|(kind, name)| h.owner.kind == *kind && h.owner.name == *name)
        };
        let count = |reading: Result<u64, &stalltop_model::Reason>| {
            Reading::from(reading.map_err(Clone::clone))
        };
        Self {
            kprobes: count(tracing.kprobes.as_ref().map(|k| k.list.len() as u64)),
            perf: count(tracing.perf.as_ref().map(|all| {
                let held = all.iter().filter(|p| p.holder.pid == pid);
                held.map(|p| u64::from(p.descriptors)).sum()
            })),
            of_owner: count(tracing.bpf.as_ref().map(|bpf| {
                let held = bpf.programs.iter();
                held.filter(|p| p.holders.iter().any(in_owner)).count() as u64
            })),
        }
    }
}
