//! The live host: all collectors behind one `tick`.
//!
//! What is cheap (cores, system, own cost) is read on the caller's thread. What may block
//! is done on background threads, one for the tracing state and one for memory cgroups, which
//! publish whole states; a tick takes the newest pointers and never waits. Stalls have threads of their own (`stalls`),
//! as what the kernel keeps of them is overwritten after half a second, and so have the
//! kernel's locks (`locks`). Only the first one does, briefly, for
//! our eBPF programs: so the first frame has their figures wherever they load in time.

mod background;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use stalltop_model::change::ChangeError;
use stalltop_model::sample::{Host, Sample};
use stalltop_model::{Frame, Name, Reading, Reason};

use crate::Collector;
use crate::change::Writer;
use crate::cores::CoresCollector;
use crate::env::Env;
use crate::host;
use crate::locks::{LockHandle, LocksMode};
use crate::own::{OwnCollector, nanoseconds};
use crate::stalls::{Asked, SampleMode, StallHandle};
use crate::system::SystemCollector;
use background::Background;
pub use background::Wants;

/// How long after the start the first tick waits for our eBPF programs at most.
const FIRST_FRAME: Duration = Duration::from_millis(100);

/// How to look at the host.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time between ticks.
    pub tick: Duration,
    /// Use `/proc` even where eBPF would work.
    pub no_bpf: bool,
    /// Never change the host.
    pub read_only: bool,
    /// From when on what is a stall.
    pub stalls: Asked,
    /// When the 1 kHz sampler runs.
    pub sample: SampleMode,
    /// When the kernel's locks are watched.
    pub locks: LocksMode,
    /// stalltop's own binary, which names user stacks in a process of its own; none leaves
    /// their addresses.
    pub program: Option<PathBuf>,
    /// The host.
    pub env: Env,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            no_bpf: false,
            read_only: false,
            stalls: Asked::default(),
            sample: SampleMode::default(),
            locks: LocksMode::default(),
            program: None,
            env: Env::live(),
        }
    }
}

/// A live host. Dropping it detaches our eBPF programs and ends the sampler.
pub struct Live {
    env: Env,
    host: Arc<Host>,
    cores: CoresCollector,
    system: SystemCollector,
    own: OwnCollector,
    background: Background,
    stalls: Option<StallHandle>,
    locks: Option<LockHandle>,
    /// What a person looks at.
    wants: Wants,
    wait_until: Option<Instant>,
}

impl Live {
    /// Leave to change the host, which only a live host gives: a replay or a read-only
    /// session has no other way to a [`Writer`]. Starts nothing. Changes are written down
    /// in `journal`, [`DEFAULT_PATH`](crate::change::journal::DEFAULT_PATH) unless given.
    ///
    /// # Errors
    /// [`ChangeError::ReadOnly`].
    pub fn writer(options: &Options, journal: Option<&Path>) -> Result<Writer, ChangeError> {
        if options.read_only {
            return Err(ChangeError::ReadOnly {
                why: "started with --read-only".into(),
            });
        }
        Ok(Writer::new(&options.env, journal))
    }

    /// Starts. Does not wait for anything slow: what is not there yet reads
    /// [`Reason::Starting`].
    ///
    /// Locks this process's memory and raises the calling thread's priority where that is
    /// allowed: stalltop must answer on a host that is short of both.
    pub fn start(options: &Options) -> Self {
        let started = Instant::now();
        let env = &options.env;
        process::raise_file_limit();
        let background = Background::start(options);
        // After the background threads, which would inherit the priority.
        process::raise_priority();
        process::lock_memory(env);
        let mut cores = CoresCollector::new(env, options.tick);
        if options.no_bpf {
            cores.without_bpf(&Reason::SwitchedOff {
                option: "--no-bpf".into(),
            });
        }
        Self {
            host: Arc::new(host::gather(env)),
            cores,
            system: SystemCollector::new(env),
            own: OwnCollector::new(env),
            background,
            stalls: None,
            locks: None,
            wants: Wants::default(),
            wait_until: (!options.no_bpf).then(|| started + FIRST_FRAME),
            env: env.clone(),
        }
    }

    /// Facts about the host.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Says what a person looks at, so that costly readings come as often as they are worth.
    pub fn wants(&mut self, wants: Wants) {
        self.wants = wants;
        if let Some(stalls) = &mut self.stalls {
            stalls.look_at(wants.sample);
        }
        if let Some(locks) = &self.locks {
            locks.look(wants.locks);
        }
        self.background.wants(wants);
    }

    /// Moves the stalls that were understood since the last call to `out`, the oldest first.
    /// A stall is understood within a tenth of a second or so of its end. Never waits.
    pub fn stalls(&mut self, out: &mut Vec<Frame>) {
        if let Some(stalls) = &self.stalls {
            stalls.take(out);
        }
    }

    /// Looks at the whole tracing state again, soon: after a change.
    pub fn rescan(&self) {
        self.background.rescan();
    }

    /// Reads one cgroup (by its [`path`](stalltop_model::sample::Cgroup::path)) soon,
    /// ahead of the others and whatever it costs: a person asks.
    pub fn read_cgroup(&self, path: Name) {
        self.background.read_cgroup(path);
    }

    /// Fills `out` with the present state. Missing sources leave their reason in their
    /// part of `out`. Allocates nothing once warm, if `out` is reused.
    pub fn tick(&mut self, out: &mut Sample) {
        if let Some(news) = self.background.news(self.wait_until.take()) {
            if let Some(probes) = news.probes {
                self.cores.use_bpf(&self.env, *probes);
            }
            if let Some(mut stalls) = news.stalls {
                stalls.look_at(self.wants.sample);
                self.stalls = Some(stalls);
            }
            if let Some(locks) = news.locks {
                locks.look(self.wants.locks);
                self.locks = Some(locks);
            }
        }
        if let Some(own) = self.background.costs().own() {
            self.own.set_costs(own);
        }
        if let Some(costs) = self.background.costs().newest() {
            out.costs = costs;
        }
        out.at_ns = nanoseconds(ClockId::Boottime);
        out.wall_ns = nanoseconds(ClockId::Realtime);
        let start = nanoseconds(ClockId::Monotonic);
        let collectors: [&mut dyn Collector; 3] =
            [&mut self.cores, &mut self.system, &mut self.own];
        for collector in collectors {
            // The reason is in the part of the sample that is off.
            let _ = collector.collect(out);
        }
        match &mut self.stalls {
            Some(stalls) => stalls.fill(out),
            None => out.stalls = Reading::Off(Reason::Starting),
        }
        match &mut self.locks {
            Some(locks) => locks.fill(out),
            None => out.locks = Reading::Off(Reason::Starting),
        }
        if let (Some(locks), Some(stalls)) = (&self.locks, &mut self.stalls) {
            stalls.look_closer(locks.closer());
        }
        out.tracing = self.background.tracing(out.at_ns);
        out.cgroups = self.background.cgroups(out.at_ns);
        out.own.tick_ns = nanoseconds(ClockId::Monotonic).saturating_sub(start);
    }
}
