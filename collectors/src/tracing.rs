//! What traces on this host, and who holds it.
//!
//! [`TracingCollector`] runs on the background thread: descriptors of other processes and files
//! of tracefs may block. Each [`scan`](TracingCollector::scan) takes the cheap parts; the costly
//! ones come at the start, when something changed, while somebody looks, or at their period.
//!
//! Measured on 6.18 (2 CPUs, 100 processes, 2,305 events, little on): 24 to 30 us for a scan when
//! nothing is due; 8 to 11 ms for everything at once. Each part states its own figure.

mod bpf;
pub mod dynamic;
pub mod holders;
mod instance;
mod kprobes;
mod perf;
mod schedule;
pub mod text;
mod tracefs;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use stalltop_model::sample::{BpfObjects, KernelProbes, PerfUse, Tracefs, Tracing};
use stalltop_model::{Reading, Reason};

use crate::duty::Duty;
use crate::own::nanoseconds;
use crate::{Env, env, file};
use bpf::BpfReader;
pub(crate) use bpf::refused as no_programs;
use holders::Found;
use holders::iterator::TaskFiles;
use schedule::Schedule;
use tracefs::{Parts, TracefsReader};

pub use instance::OUR_PREFIX;

/// Buffer entries, probe hits and the list of kernel probes are read this often.
const COUNTERS: Duration = Duration::from_secs(2);

/// The tree is compared with `set_event` this often, and mounts are looked for.
const VERIFY: Duration = Duration::from_secs(10);

/// Of the time of one CPU walks over the ids of BPF objects take one part in so many at most, and
/// so do readings of the list of kernel probes. With few of either that is no limit at all.
const SHARE: u32 = 1000;

/// The most time that one scan spends on the walk over all events.
const WALK_BUDGET: Duration = Duration::from_millis(5);

/// The most time that the first scan spends on it: nothing is shown of it before.
const FIRST_WALK_BUDGET: Duration = Duration::from_millis(50);

/// Reads everything that traces on the host.
pub struct TracingCollector {
    env: Env,
    tracefs: Option<TracefsReader>,
    tracefs_value: Reading<Tracefs>,
    kprobes: Reading<KernelProbes>,
    bpf: BpfReader,
    bpf_value: Reading<BpfObjects>,
    iterator: TaskFiles,
    perf: Reading<Vec<PerfUse>>,
    /// Whether the kernel lists ids.
    listed: Result<(), Reason>,
    holders: Schedule,
    walks: Duty<SHARE>,
    lists: Duty<SHARE>,
    now: Arc<Tracing>,
    counters_at: Option<Instant>,
    verify_at: Option<Instant>,
    wanted: bool,
    rates: bool,
    buf: Vec<u8>,
}

impl TracingCollector {
    /// Reads nothing yet.
    pub fn new(env: &Env) -> Self {
        Self {
            env: env.clone(),
            tracefs: None,
            tracefs_value: Reading::default(),
            kprobes: Reading::default(),
            bpf: BpfReader::default(),
            bpf_value: Reading::default(),
            iterator: TaskFiles::default(),
            perf: Reading::default(),
            listed: Err(Reason::Starting),
            holders: Schedule::default(),
            walks: Duty::default(),
            lists: Duty::default(),
            now: Arc::default(),
            counters_at: None,
            verify_at: None,
            wanted: false,
            rates: false,
            buf: Vec::new(),
        }
    }

    /// Loads no BPF program, and says why.
    #[must_use]
    pub fn without_bpf(mut self, why: Reason) -> Self {
        self.iterator = TaskFiles::Off(why);
        self
    }

    /// Says whether somebody looks at the tracing state: then the costly parts come more often.
    pub fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Says whether somebody wants rates: then the buffers of quiet instances are counted as often
    /// as those of others.
    pub fn want_rates(&mut self, wanted: bool) {
        self.rates = wanted;
    }

    /// When hits of dynamic events and entries of buffers were counted last.
    pub fn counted_at(&self) -> Option<Instant> {
        self.counters_at
    }

    /// Looks at the host; gives the same [`Arc`] while nothing changed.
    pub fn scan(&mut self) -> Arc<Tracing> {
        self.look(false)
    }

    /// Looks at everything at once, whatever it costs: for `stalltop audit` and before a change
    /// is planned.
    pub fn scan_all(&mut self) -> Arc<Tracing> {
        self.look(true)
    }

    fn look(&mut self, all: bool) -> Arc<Tracing> {
        let now = Instant::now();
        let first = self.verify_at.is_none();
        let verify = due(&mut self.verify_at, VERIFY, now, all);
        let counters = due(&mut self.counters_at, COUNTERS, now, all);
        if verify {
            self.find_mounts();
        }
        let parts = Parts {
            counters,
            quiet: self.rates,
            verify,
            walk: all || first || (verify && self.wanted),
            budget: match (all, first) {
                (true, _) => None,
                (false, true) => Some(FIRST_WALK_BUDGET),
                (false, false) => Some(WALK_BUDGET),
            },
        };
        let mut changed = self.poll_tracefs(parts);
        if all || (counters && self.lists.is_paid(now)) {
            let before = cpu();
            let kprobes = kprobes::read(&self.env, &mut self.buf).into();
            changed |= kprobes != self.kprobes;
            self.kprobes = kprobes;
            self.lists.took(now, cpu() - before, 1);
        }
        changed |= self.poll_holders(now, all);
        if changed {
            self.now = Arc::new(Tracing {
                at_ns: nanoseconds(ClockId::Boottime),
                tracefs: self.tracefs_value.clone(),
                kprobes: self.kprobes.clone(),
                bpf: self.bpf_value.clone(),
                perf: self.perf.clone(),
                reading_since_ns: 0,
            });
        }
        Arc::clone(&self.now)
    }

    /// BPF objects and who holds what, where that is due: all of it is one look, or a program that
    /// is new would seem to be held by nobody.
    fn poll_holders(&mut self, now: Instant, all: bool) -> bool {
        let live = self.env.root() == Path::new("/");
        let moved = self.walk_ids(live, now, all);
        let stirred = self.tracefs.as_ref().is_some_and(TracefsReader::moved);
        let mut changed = false;
        if let Err(reason) = &self.listed {
            changed = self.bpf_value.reason() != Some(reason);
            self.bpf_value = Reading::Off(reason.clone());
        }
        if !(self.holders).is_due(now, moved || stirred, self.wanted, all) {
            return changed;
        }
        let before = cpu();
        let found = self.find_holders(live);
        if let Some(reader) = &mut self.tracefs {
            let readers = reader.put_readers(|instance| match &found {
                Ok(found) => Reading::Value(holders::readers(found, instance)),
                Err(reason) => Reading::Off(reason.clone()),
            });
            if readers && self.tracefs_value.value().is_some() {
                self.tracefs_value = Reading::Value(reader.snapshot());
                changed = true;
            }
        }
        let found = found.unwrap_or_else(|reason| Found::none(&reason));
        let perf = perf::users(&self.env, &found);
        changed |= perf != self.perf;
        self.perf = perf;
        if self.listed.is_ok() {
            let value = Reading::Value(self.bpf.look(&self.env, &found, &mut self.buf));
            changed |= value != self.bpf_value;
            self.bpf_value = value;
        }
        self.holders.took(now, cpu() - before);
        changed
    }

    /// Says whether BPF objects came or went since ids were walked last.
    fn walk_ids(&mut self, live: bool, now: Instant, all: bool) -> bool {
        if !live {
            self.listed = Err(Reason::NotRecorded);
            return false;
        }
        if !all && !self.walks.is_paid(now) {
            return false;
        }
        // First, or its own program would be news.
        self.iterator.prepare(&self.env);
        let before = cpu();
        let moved = self.bpf.poll();
        self.walks.took(now, cpu() - before, 1);
        let moved = moved.map(|moved| moved || self.listed.is_err());
        self.listed = moved.as_ref().map(|_| ()).map_err(Clone::clone);
        moved.unwrap_or(false)
    }

    /// By the iterator; by `/proc` where it cannot be had.
    fn find_holders(&mut self, live: bool) -> Result<Found, Reason> {
        let missing = if live {
            match self.iterator.scan(&self.env) {
                Ok(found) => return Ok(found),
                Err(reason) => reason,
            }
        } else {
            Reason::NotRecorded
        };
        holders::scan(&self.env, &mut self.buf).map(|found| Found {
            users: Reading::Off(missing),
            ..found
        })
    }

    /// Somebody may mount tracefs, debugfs or bpffs while stalltop runs.
    fn find_mounts(&mut self) {
        let path = self.env.path("/proc/self/mountinfo");
        if let Ok(bytes) = file::read(&path) {
            self.env.mounts = env::parse_mountinfo(&bytes);
        }
    }

    fn poll_tracefs(&mut self, parts: Parts) -> bool {
        if self.tracefs.is_none() {
            match self.env.tracefs() {
                Ok(at) => self.tracefs = Some(TracefsReader::new(&at, self.env.path(&at))),
                Err(reason) => {
                    let value = Reading::Off(self.without_tracefs(reason));
                    let changed = value != self.tracefs_value;
                    self.tracefs_value = value;
                    return changed;
                }
            }
        }
        let Some(reader) = &mut self.tracefs else {
            return false;
        };
        match reader.poll(parts) {
            Ok(changed) => {
                let changed = changed || self.tracefs_value.reason().is_some();
                if changed {
                    self.tracefs_value = Reading::Value(reader.snapshot());
                }
                changed
            }
            Err(reason) => {
                // It may be unmounted by now: the next scan looks anew.
                self.tracefs = None;
                let value = Reading::Off(reason);
                let changed = value != self.tracefs_value;
                self.tracefs_value = value;
                changed
            }
        }
    }

    /// A kernel without tracefs cannot be helped by mounting it.
    fn without_tracefs(&self, reason: Reason) -> Reason {
        let known = file::read(&self.env.path("/proc/filesystems")).ok();
        match known {
            Some(text) if !file::lines(&text).any(|l| l.ends_with(b"\ttracefs")) => {
                Reason::NotBuilt {
                    config: "CONFIG_TRACING".into(),
                }
            }
            _ => reason,
        }
    }
}

/// Whether a part is due, and notes that it is taken.
fn due(at: &mut Option<Instant>, period: Duration, now: Instant, force: bool) -> bool {
    let is = force || at.is_none_or(|last| now.duration_since(last) >= period);
    if is {
        *at = Some(now);
    }
    is
}

/// CPU time of this thread.
fn cpu() -> Duration {
    Duration::from_nanos(nanoseconds(ClockId::ThreadCPUTime))
}
