//! The one background thread: attaches eBPF, then reads what may block, one thing at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stalltop_model::sample::Tracing;
use stalltop_model::{Name, Reason};
use stalltop_probes::{Options as ProbeOptions, Probes};

use super::Options;
use crate::cgroups::{CgroupCollector, CgroupHandle};
use crate::cores::why;
use crate::costs::{CostHandle, CostThread, EventRates, OwnPrograms};
use crate::env::Env;
use crate::locks::{LockHandle, Setup};
use crate::shared::Shared;
use crate::stalls::kallsyms::Symbols;
use crate::stalls::{self, StallHandle};
use crate::tracing::TracingCollector;

/// How often the thread looks for work at most, and at least.
const PERIOD: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

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

/// What the thread has found since it was last asked.
#[derive(Default)]
pub(super) struct News {
    pub(super) probes: Option<Box<Probes>>,
    pub(super) stalls: Option<StallHandle>,
    pub(super) locks: Option<LockHandle>,
    pub(super) tracing: Option<Arc<Tracing>>,
}

#[derive(Default)]
struct State {
    news: News,
    any: bool,
    /// Loading eBPF is over, one way or the other.
    loaded: bool,
    wants: Wants,
    /// Look at everything at once.
    rescan: bool,
    /// Rest no longer: `wants` or `rescan` changed.
    kick: bool,
    stop: bool,
}

impl Shared<State> {
    fn publish(&self, put: impl FnOnce(&mut News)) {
        let mut state = self.lock();
        put(&mut state.news);
        state.any = true;
    }

    /// Waits for `time`, or until something is asked for; true when it is time to end.
    fn rest(&self, time: Duration) -> bool {
        self.wait_while(time, |state| !state.stop && !state.kick)
            .stop
    }

    /// What to do in this round.
    fn round(&self) -> (Wants, bool) {
        let mut state = self.lock();
        state.kick = false;
        (state.wants, std::mem::take(&mut state.rescan))
    }
}

/// The handle that the ticking thread holds.
pub(super) struct Background {
    shared: Arc<Shared<State>>,
    cgroups: CgroupHandle,
    costs: CostThread,
}

impl Background {
    pub(super) fn start(options: &Options) -> Self {
        let shared = Arc::new(Shared::<State>::default());
        let (theirs, options) = (Arc::clone(&shared), options.clone());
        let collector = CgroupCollector::new(&options.env);
        let cgroups = collector.handle();
        let costs = CostThread::start(&options.env);
        let measure = costs.handle();
        // The name shows in stalls that a read of ours causes.
        let started = std::thread::Builder::new()
            .name("stalltop-reads".into())
            .spawn(move || run(&theirs, &options, collector, &measure));
        if started.is_err() {
            shared.lock().loaded = true;
        }
        Self {
            shared,
            cgroups,
            costs,
        }
    }

    /// Where the newest state of the memory cgroups is.
    pub(super) fn cgroups(&self) -> &CgroupHandle {
        &self.cgroups
    }

    /// Where what probes cost is.
    pub(super) fn costs(&self) -> &CostThread {
        &self.costs
    }

    pub(super) fn read_cgroup(&self, path: Name) {
        self.cgroups.read_now(path);
        self.shared.tell(|state| state.kick = true);
    }

    pub(super) fn wants(&self, wants: Wants) {
        self.costs.want(wants.costs);
        self.shared.change(|state| {
            let changed = std::mem::replace(&mut state.wants, wants) != wants;
            state.kick |= changed;
            changed
        });
    }

    pub(super) fn rescan(&self) {
        self.costs.restart();
        self.shared
            .tell(|state| (state.rescan, state.kick) = (true, true));
    }

    /// What is new. Never waits for the thread, but with `until` for eBPF to be loaded.
    pub(super) fn news(&self, until: Option<Instant>) -> Option<News> {
        let mut state = match until {
            Some(until) => {
                let time = until.saturating_duration_since(Instant::now());
                self.shared.wait_while(time, |state| !state.loaded)
            }
            None => self.shared.try_lock()?,
        };
        std::mem::take(&mut state.any).then(|| std::mem::take(&mut state.news))
    }
}

impl Drop for Background {
    /// Does not wait: a read that blocks cannot be cut short, and the thread holds nothing
    /// that outlives the process.
    fn drop(&mut self) {
        self.shared.tell(|state| state.stop = true);
    }
}

/// Why there are no samples: what takes them is not attached, or nobody asked for stalls.
fn no_samples(probes: &Probes, env: &Env) -> Reason {
    let failed = probes.health().iter().find_map(|health| {
        let failure = health.attached.as_ref().err()?;
        Some(why::refused(env, health.spec, failure))
    });
    failed.unwrap_or(Reason::SwitchedOff {
        option: "--stall off".into(),
    })
}

fn run(
    shared: &Shared<State>,
    options: &Options,
    mut cgroups: CgroupCollector,
    costs: &CostHandle,
) {
    let env = &options.env;
    let symbols = Symbols::new(env);
    let watch = stalls::Watch::new(env, &options.stalls, options.sample)
        .naming_with(options.program.clone());
    let stalls = if options.no_bpf {
        let why = Reason::SwitchedOff {
            option: "--no-bpf".into(),
        };
        let locks = LockHandle::off(&why);
        shared.publish(|news| news.locks = Some(locks));
        watch.off(&why)
    } else {
        let mut probes = Box::new(Probes::load(&ProbeOptions {
            root: env.root().to_owned(),
            thresholds: watch.thresholds(),
            ..ProbeOptions::default()
        }));
        costs.measure(OwnPrograms::new(&probes));
        let locks = LockHandle::start(Setup {
            env: env.clone(),
            mode: options.locks,
            tick: options.tick,
            samples: probes.samples().ok_or_else(|| no_samples(&probes, env)),
            own: probes.code(),
            symbols: symbols.share(),
        });
        shared.publish(|news| news.locks = Some(locks));
        let stalls = watch.start(&mut probes, symbols.share());
        shared.publish(|news| news.probes = Some(probes));
        stalls
    };
    shared.publish(|news| news.stalls = Some(stalls));
    shared.tell(|state| state.loaded = true);

    let period = options.tick.clamp(PERIOD.0, PERIOD.1);
    let mut tracing = TracingCollector::new(env);
    let mut rates = EventRates::default();
    if options.no_bpf {
        tracing = tracing.without_bpf(Reason::SwitchedOff {
            option: "--no-bpf".into(),
        });
    }
    let mut published = None;
    loop {
        let (wants, rescan) = shared.round();
        tracing.want(wants.tracing);
        tracing.want_rates(wants.costs);
        let state = if rescan {
            tracing.scan_all()
        } else {
            tracing.scan()
        };
        if !wants.costs {
            rates = EventRates::default();
        } else if let Some(events) = rates.advance(&state, tracing.counted_at()) {
            costs.events(events);
        }
        if published.as_ref().is_none_or(|p| !Arc::ptr_eq(p, &state)) {
            published = Some(Arc::clone(&state));
            shared.publish(|news| news.tracing = Some(state));
        }
        // Unwatched, a quarter of the budget keeps the figures fresh enough.
        let share = if wants.cgroups { period } else { period / 4 };
        cgroups.sweep(cgroups.budget(share));
        if shared.rest(period) {
            return;
        }
    }
}
