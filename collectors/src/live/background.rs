//! The background threads: what may block is read there, so that no tick waits for it.
//!
//! One attaches eBPF and then looks at the tracing state, another sweeps memory cgroups: a read of
//! one's that hangs (memory.stat where zombies pile up, incident I2) does not hold up the other's,
//! and shows its age. A thread that fails says so in place of its figures.

mod load;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use stalltop_model::sample::{Cgroups, Tracing};
use stalltop_model::{Name, Reading, Reason};

use super::Options;
use crate::cgroups::{CgroupCollector, CgroupHandle};
use crate::costs::{CostHandle, CostThread, EventRates};
use crate::newest::{Aged, Newest, changed};
use crate::own::nanoseconds;
use crate::shared::{Alive, Shared, failed, no_thread};
use crate::tracing::TracingCollector;
use load::Loaded;
pub(super) use load::News;

/// How often the threads look for work at most, and at least.
const PERIOD: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// A look at the tracing state that takes so long already is shown as one that hangs, ns.
const HANGING_NS: u64 = 2_000_000_000;

/// What a person looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The tracing state.
    pub tracing: bool,
    /// Memory cgroups.
    pub cgroups: bool,
    /// What probes cost: it is measured while somebody wants to know.
    pub costs: bool,
    /// Contention of the kernel's locks: watched whatever it costs.
    pub locks: bool,
    /// The CPU whose stalls are looked at: it is sampled as long.
    pub sample: Option<u32>,
}

/// What is asked of a thread.
#[derive(Default)]
struct Asked {
    wants: Wants,
    /// Look at everything at once.
    rescan: bool,
    /// Rest no longer: something else is asked than before.
    kick: bool,
    stop: bool,
}

impl Shared<Asked> {
    /// Waits for `time`, or until something is asked for; true when it is time to end.
    fn rest(&self, time: Duration) -> bool {
        self.wait_while(time, |asked| !asked.stop && !asked.kick)
            .stop
    }

    /// What to do in this round.
    fn round(&self) -> (Wants, bool) {
        let mut asked = self.lock();
        asked.kick = false;
        (asked.wants, std::mem::take(&mut asked.rescan))
    }

    fn want(&self, wants: Wants) {
        self.change(|asked| {
            let changed = std::mem::replace(&mut asked.wants, wants) != wants;
            asked.kick |= changed;
            changed
        });
    }
}

/// The newest tracing state.
type Traced = Newest<Arc<Tracing>>;

impl Aged for Arc<Tracing> {
    fn late(&self, since_ns: u64) -> Option<Self> {
        (self.reading_since_ns != since_ns)
            .then(|| changed(&**self, |late| late.reading_since_ns = since_ns))
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }
}

/// The handle that the ticking thread holds.
pub(super) struct Background {
    loaded: Arc<Shared<Loaded>>,
    traced: Arc<Traced>,
    cgroups: CgroupHandle,
    costs: CostThread,
    /// Of the thread that looks at the tracing state, and of the one that sweeps cgroups.
    asked: [Arc<Shared<Asked>>; 2],
}

impl Background {
    pub(super) fn start(options: &Options) -> Self {
        let collector = CgroupCollector::new(&options.env);
        let this = Self {
            loaded: Arc::default(),
            traced: Arc::default(),
            cgroups: collector.handle(),
            costs: CostThread::start(&options.env),
            asked: Default::default(),
        };
        let period = options.tick.clamp(PERIOD.0, PERIOD.1);
        let (loaded, traced, asked) = (&this.loaded, &this.traced, &this.asked[0]);
        let (loaded, traced, asked) = (Arc::clone(loaded), Arc::clone(traced), Arc::clone(asked));
        let (theirs, costs) = (options.clone(), this.costs.handle());
        let started = spawn("stalltop-traces", move || {
            let _alive = Alive::new(|| trace_ends(&traced, &failed("the tracing state")));
            load::run(&loaded, &theirs, &costs);
            trace(&traced, &asked, period, &theirs, &costs);
        });
        if let Err(error) = started {
            let why = no_thread("the tracing state", &error);
            trace_ends(&this.traced, &why);
            load::ends(&this.loaded, options, &why);
        }
        let (handle, asked) = (this.cgroups.clone(), Arc::clone(&this.asked[1]));
        let started = spawn("stalltop-reads", move || {
            let _alive = Alive::new(|| handle.end(failed("memory cgroups")));
            sweep(collector, &asked, period);
        });
        if let Err(error) = started {
            this.cgroups.end(no_thread("memory cgroups", &error));
        }
        this
    }

    /// The newest tracing state. Never waits. `now_ns` is `CLOCK_BOOTTIME`.
    pub(super) fn tracing(&self, now_ns: u64) -> Arc<Tracing> {
        self.traced.get(now_ns, HANGING_NS)
    }

    /// The newest state of the memory cgroups.
    pub(super) fn cgroups(&self, now_ns: u64) -> Reading<Arc<Cgroups>> {
        self.cgroups.newest(now_ns)
    }

    /// Where what probes cost is.
    pub(super) fn costs(&self) -> &CostThread {
        &self.costs
    }

    pub(super) fn read_cgroup(&self, path: Name) {
        self.cgroups.read_now(path);
        self.asked[1].tell(|asked| asked.kick = true);
    }

    pub(super) fn wants(&self, wants: Wants) {
        self.costs.want(wants.costs);
        for asked in &self.asked {
            asked.want(wants);
        }
    }

    pub(super) fn rescan(&self) {
        self.costs.restart();
        self.asked[0].tell(|asked| (asked.rescan, asked.kick) = (true, true));
    }

    /// What was loaded since it was last asked. Never waits for the thread, but with `until` for
    /// eBPF to be loaded.
    pub(super) fn news(&self, until: Option<Instant>) -> Option<News> {
        load::news(&self.loaded, until)
    }
}

impl Drop for Background {
    /// Does not wait: a read that blocks cannot be cut short, and the threads hold nothing
    /// that outlives the process.
    fn drop(&mut self) {
        for asked in &self.asked {
            asked.tell(|asked| asked.stop = true);
        }
    }
}

/// The name shows in stalls that a read of ours causes: 15 bytes at most.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(run).map(drop)
}

/// There will be no more tracing states, and why.
fn trace_ends(traced: &Traced, why: &Reason) {
    traced.publish(Arc::new(Tracing::off(why)));
}

/// Looks at the tracing state, round by round.
fn trace(
    traced: &Traced,
    asked: &Shared<Asked>,
    period: Duration,
    options: &Options,
    costs: &CostHandle,
) {
    let mut tracing = TracingCollector::new(&options.env);
    let mut rates = EventRates::default();
    if options.no_bpf {
        tracing = tracing.without_bpf(Reason::SwitchedOff {
            option: "--no-bpf".into(),
        });
    }
    loop {
        let (wants, rescan) = asked.round();
        tracing.want(wants.tracing);
        tracing.want_rates(wants.costs);
        traced.reading(nanoseconds(ClockId::Boottime));
        let state = match rescan {
            true => tracing.scan_all(),
            false => tracing.scan(),
        };
        traced.reading(0);
        if !wants.costs {
            rates = EventRates::default();
        } else if let Some(events) = rates.advance(&state, tracing.counted_at()) {
            costs.events(events);
        }
        traced.publish(state);
        if asked.rest(period) {
            return;
        }
    }
}

/// Sweeps the memory cgroups, round by round.
fn sweep(mut cgroups: CgroupCollector, asked: &Shared<Asked>, period: Duration) {
    loop {
        let (wants, _) = asked.round();
        // Unwatched, a quarter of the budget keeps the figures fresh enough.
        let share = if wants.cgroups { period } else { period / 4 };
        cgroups.sweep(cgroups.budget(share));
        if asked.rest(period) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

    use super::*;
    use crate::env::Env;

    #[test]
    fn a_thread_that_fails_leaves_no_state_that_seems_to_be_of_now() {
        let traced = Arc::new(Traced::default());
        traced.publish(Arc::new(Tracing {
            at_ns: 7,
            kprobes: Reading::Off(Reason::NotAsked),
            ..Tracing::default()
        }));
        let theirs = Arc::clone(&traced);
        let thread = std::thread::spawn(move || {
            let _alive = Alive::new(|| trace_ends(&theirs, &failed("the tracing state")));
            std::panic::resume_unwind(Box::new("no word of it on standard error"));
        });
        assert!(thread.join().is_err());
        let state = traced.get(0, HANGING_NS);
        let why = state.bpf.reason().cloned();
        assert_eq!(why, Some(failed("the tracing state")));
        assert_eq!(state.tracefs.reason(), why.as_ref());
        assert_eq!(state.kprobes.reason(), why.as_ref());
        assert_eq!(state.perf.reason(), why.as_ref());
    }

    #[test]
    fn a_look_that_hangs_shows_since_when() {
        const SECOND: u64 = 1_000_000_000;
        let traced = Traced::default();
        let before = Arc::new(Tracing {
            at_ns: 3,
            ..Tracing::default()
        });
        traced.publish(Arc::clone(&before));
        traced.reading(10 * SECOND);
        assert!(Arc::ptr_eq(&traced.get(11 * SECOND, HANGING_NS), &before));
        let late = traced.get(13 * SECOND, HANGING_NS);
        assert_eq!((late.reading_since_ns, late.at_ns), (10 * SECOND, 3));
        // One copy, however long it hangs.
        assert!(Arc::ptr_eq(&traced.get(60 * SECOND, HANGING_NS), &late));
        traced.reading(0);
        traced.publish(Arc::clone(&before));
        assert!(Arc::ptr_eq(&traced.get(61 * SECOND, HANGING_NS), &before));
    }

    /// Waits until something `is`: on a busy host that can take.
    fn until(is: impl Fn() -> bool) {
        let start = Instant::now();
        while !is() {
            assert!(start.elapsed() < Duration::from_secs(60), "never");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_read_of_memory_stat_that_hangs_does_not_hold_up_the_tracing_state() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path.trim_start_matches('/'));
        let memory = "1 0 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let mounted = at("/proc/self/mountinfo");
        for dir in ["/proc/self", "/sys/fs/cgroup/memory", "/sys/kernel/debug"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        fs::write(&mounted, memory).unwrap();
        fs::write(at("/proc/cgroups"), "memory\t4\t1\t1\n").unwrap();
        // Nobody writes to it: who opens it waits.
        let stat = at("/sys/fs/cgroup/memory/memory.stat");
        mknodat(CWD, &stat, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let background = Background::start(&Options {
            no_bpf: true,
            env: Env::at(root.path()),
            ..Options::default()
        });
        let kprobes = || background.tracing(0).kprobes.reason().cloned();
        let not_mounted = || matches!(kprobes(), Some(Reason::NotMounted { .. }));
        until(not_mounted);
        let debugfs = "2 0 0:2 / /sys/kernel/debug rw - debugfs debugfs rw\n";
        fs::write(&mounted, format!("{memory}{debugfs}")).unwrap();
        background.rescan();
        until(|| !not_mounted());
        // No sweep can have ended.
        assert_eq!(background.cgroups(0), Reading::Off(Reason::Starting));
        // It ends.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        until(|| rustix::fs::open(&stat, flags, Mode::empty()).is_ok());
    }
}
