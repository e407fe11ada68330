//! What every probe of this host costs, whoever's it is.
//!
//! The kernel times BPF programs only while somebody asks (`BPF_ENABLE_STATS` or the sysctl
//! `kernel.bpf_stats_enabled`), at 20 to 30 ns a run for *every* program of the host, and the
//! switch patches code on all CPUs. So there is one owner of it, a thread that switches it on for a
//! tenth of a second every two and a half seconds or so while somebody wants to know, for others'
//! programs and ours alike. It has the switch by a descriptor: whatever becomes of us, it is off
//! again. A thread of its own, for a read that blocks must not leave it on.
//!
//! Measured on 6.18 in a virtual machine of 2 CPUs that others kept busy (the ignored tests of
//! `tests/tests/live_costs.rs`): under a flood of packets ten seconds of windows gave ns/run within
//! 4.3 % of ten seconds of statistics that were always on, the median of six rounds 1.9 % off;
//! runs/s differed by more, as the flood itself was not steady. With four programs on a packet's way
//! statistics that are always on made it 36.3 % dearer, windows 1.37 % (quartiles of 40 rounds in
//! turns 1.16 and 1.71), flips included: 1/26.6 of it. A window over 1,000 programs takes 10 to
//! 14 ms of CPU unoptimized, and comes the less often for it (`schedule::OWN_SHARE`).
//!
//! `run_time_ns` is the time within a program. Dispatch (27 ns and more), the breakpoint or the
//! trampoline that leads there, and interrupts are not in it: shares are the least that it costs.
//! Two readers of the statistics do not disturb each other: with somebody else's descriptor open
//! as well, runs between our two readings are counted, which makes rates too high by the time that
//! reading takes: under 1 % for a few hundred programs.

mod events;
mod kernel;
mod maps;
mod meter;
mod ours;
mod per_hit;
mod programs;
mod schedule;
mod series;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use stalltop_model::sample::{Costs, Tracing};
use stalltop_model::{Reading, Reason};

use crate::Env;
use crate::own::nanoseconds;
use crate::shared::{Alive, Shared, failed, no_thread};
use crate::tracing::TracingCollector;
pub(crate) use events::{EventCosts, EventRates};
use meter::Meter;
pub(crate) use ours::OwnPrograms;
pub use ours::ProbeCosts;
use schedule::{Due, Schedule};

#[derive(Default)]
struct State {
    wanted: bool,
    /// Begin anew, at once: the host was changed.
    restart: bool,
    stop: bool,
    /// Our programs, handed over once.
    ours: Option<OwnPrograms>,
    events: EventCosts,
    costs: Reading<Arc<Costs>>,
    own: Option<ProbeCosts>,
    /// The thread has failed: nothing comes any more.
    failed: bool,
}

impl Shared<State> {
    /// There will be no more figures, and why.
    fn end(&self, why: &Reason) {
        let mut state = self.lock();
        state.failed = true;
        state.costs = Reading::Off(why.clone());
        state.own = Some(ProbeCosts {
            ns_per_run: Reading::Off(why.clone()),
            drops: Reading::Off(why.clone()),
        });
    }
}

/// The thread that measures. Dropping this ends it.
pub(crate) struct CostThread {
    shared: Arc<Shared<State>>,
}

impl CostThread {
    /// Starts it; it sleeps until somebody wants something.
    pub(crate) fn start(env: &Env) -> Self {
        let shared = Arc::new(Shared::new(State {
            costs: Reading::Off(Reason::NotAsked),
            ..State::default()
        }));
        let (theirs, env) = (Arc::clone(&shared), env.clone());
        let started = std::thread::Builder::new()
            .name("stalltop-costs".into())
            .spawn(move || run(&theirs, &env));
        if let Err(error) = started {
            shared.end(&no_thread("what probes cost", &error));
        }
        Self { shared }
    }

    /// Gives another handle to the same thread, which does not end it.
    pub(crate) fn handle(&self) -> CostHandle {
        CostHandle(Arc::clone(&self.shared))
    }

    /// The newest figures; nothing while the thread is just putting them there.
    pub(crate) fn newest(&self) -> Option<Reading<Arc<Costs>>> {
        Some(self.shared.try_lock()?.costs.clone())
    }

    /// What is new of our own programs.
    pub(crate) fn own(&self) -> Option<ProbeCosts> {
        self.shared.try_lock()?.own.take()
    }

    /// Says whether anybody wants to know what probes cost.
    pub(crate) fn want(&self, wanted: bool) {
        self.shared.change(|state| {
            let changed = std::mem::replace(&mut state.wanted, wanted) != wanted;
            if changed && !state.failed {
                state.costs = Reading::Off(if wanted {
                    Reason::Starting
                } else {
                    Reason::NotAsked
                });
            }
            changed
        });
    }

    /// The host was changed: figures begin anew, at once.
    pub(crate) fn restart(&self) {
        self.shared.tell(|state| state.restart = true);
    }
}

impl Drop for CostThread {
    /// Does not wait: a window ends at once, and nothing of it outlives the process.
    fn drop(&mut self) {
        self.shared.tell(|state| state.stop = true);
    }
}

/// Gives the thread what others find out.
#[derive(Clone)]
pub(crate) struct CostHandle(Arc<Shared<State>>);

impl CostHandle {
    /// Hands over our own programs, which are measured from now on.
    pub(crate) fn measure(&self, ours: OwnPrograms) {
        self.0.tell(|state| state.ours = Some(ours));
    }

    /// The newest rates of what is not BPF; they are shown with the next window.
    pub(crate) fn events(&self, events: EventCosts) {
        self.0.lock().events = events;
    }
}

fn run(shared: &Shared<State>, env: &Env) {
    let _alive = Alive::new(|| shared.end(&failed("what probes cost")));
    let mut meter = Meter::new(env);
    let seed = nanoseconds(ClockId::Realtime) ^ u64::from(std::process::id());
    let mut schedule = Schedule::new(Instant::now(), seed);
    while let Some(due) = next(shared, &mut meter, &mut schedule) {
        let cpu = nanoseconds(ClockId::ThreadCPUTime);
        meter.set_duty(schedule.duty());
        let all = due == Due::All;
        // Whatever is asked for meanwhile but the end.
        let own = meter.window(all, |time| {
            drop(shared.wait_while(time, |state| !state.stop));
        });
        let cpu = nanoseconds(ClockId::ThreadCPUTime).saturating_sub(cpu);
        schedule.took(due, Instant::now(), Duration::from_nanos(cpu));
        if !all {
            meter.forget();
        }
        let events = shared.lock().events.clone();
        let costs = all.then(|| Arc::new(meter.costs(&events)));
        let mut state = shared.lock();
        if own.is_some() {
            state.own = own;
        }
        if let Some(costs) = costs
            && state.wanted
        {
            state.costs = Reading::Value(costs);
        }
    }
}

/// Waits for the next window; none when it is time to end.
fn next(shared: &Shared<State>, meter: &mut Meter, schedule: &mut Schedule) -> Option<Due> {
    let mut state = shared.lock();
    loop {
        if state.stop {
            return None;
        }
        let now = Instant::now();
        if let Some(ours) = state.ours.take() {
            meter.own(ours);
        }
        let mut anew = schedule.want(state.wanted, now);
        if std::mem::take(&mut state.restart) {
            schedule.restart(now);
            anew = true;
        }
        if anew {
            meter.restart();
        }
        state = match schedule.due(now, meter.has_own()) {
            Due::Rest(time) => shared.wait(state, time),
            due => return Some(due),
        };
    }
}

/// The tracing state and what it costs, from `windows` windows taken now: for `stalltop audit`.
pub fn once(env: &Env, windows: u32) -> (Arc<Tracing>, Costs) {
    let mut collector = TracingCollector::new(env);
    collector.want_rates(true);
    let mut rates = EventRates::default();
    let mut tracing = collector.scan_all();
    rates.advance(&tracing, collector.counted_at());
    let mut meter = Meter::new(env);
    meter.set_duty(1.0);
    for _ in 0..windows {
        meter.window(true, std::thread::sleep);
    }
    let mut events = EventCosts::default();
    if windows > 0 && meter.is_live() {
        tracing = collector.scan_all();
        events = rates
            .advance(&tracing, collector.counted_at())
            .unwrap_or_default();
    }
    (tracing, meter.costs(&events))
}

#[cfg(test)]
mod tests;
