//! Memory cgroups: v1, v2 and hybrid hosts.
//!
//! [`CgroupCollector`] works on a thread of its own, because a read of memory.stat may
//! take seconds where zombies pile up (incident I2) and cannot be cut short. It publishes
//! whole states; a [`CgroupHandle`] on the ticking thread takes the newest by pointer and
//! never waits for the kernel.

pub mod charged;
mod files;
mod locate;
pub mod parse;
mod publish;
mod shared;
mod sweep;
#[cfg(test)]
mod tests;
mod tree;
mod visit;
mod walk;

use std::sync::Arc;
use std::time::Duration;

use stalltop_model::sample::Cgroups;
use stalltop_model::{Name, Reading, Reason};

use crate::env::Env;
use files::Kernel;
pub use locate::Place;
use publish::Publisher;
use shared::Shared;
use sweep::Sweeper;

/// What one sweep per second may take once all is found: 0.4 % of one CPU.
const BUDGET: Duration = Duration::from_millis(4);
/// The same at the start, so that thousands of cgroups are there within seconds.
const START_BUDGET: Duration = Duration::from_millis(12);

/// A hanging read is shown from this age on, ns.
const HANGING_NS: u64 = 100_000_000;

/// Sweeps the memory cgroups of a host. For a thread of its own.
#[derive(Debug)]
pub struct CgroupCollector {
    sweeper: Result<Sweeper<Kernel>, Reason>,
    publisher: Publisher,
    shared: Arc<Shared>,
}

impl CgroupCollector {
    /// Finds the host's memory cgroups. A host without any gives a collector that
    /// publishes why. Nothing slow is done here.
    pub fn new(env: &Env) -> Self {
        let shared = Arc::new(Shared::default());
        let sweeper = Place::find(env).and_then(|place| {
            let files = Kernel::open(&env.path(&place.mount), &env.path("/proc/cgroups"))
                .map_err(|e| Reason::from_io(&place.mount, &e))?;
            Ok(Sweeper::new(files, place, Arc::clone(&shared)))
        });
        Self {
            sweeper,
            publisher: Publisher::default(),
            shared,
        }
    }

    /// The ticking thread's end.
    pub fn handle(&self) -> CgroupHandle {
        CgroupHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The budget of the next sweep, if there is one sweep every `tick`.
    pub fn budget(&self, tick: Duration) -> Duration {
        match &self.sweeper {
            Ok(sweeper) if !sweeper.is_warm() => START_BUDGET,
            _ => BUDGET.mul_f64(tick.as_secs_f64()).min(START_BUDGET),
        }
    }

    /// One turn of about `budget`, then publishes, unless earlier states are not paid for yet.
    /// Meant to be called once per tick. It may take as long as the kernel takes for one read.
    pub fn sweep(&mut self, budget: Duration) {
        let state = match &mut self.sweeper {
            Ok(sweeper) => {
                sweeper.sweep(u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX));
                match &sweeper.root_fails {
                    None if !sweeper.may_publish() => return,
                    None => Reading::Value(self.publisher.state(sweeper)),
                    Some(reason) => Reading::Off(reason.clone()),
                }
            }
            Err(reason) => Reading::Off(reason.clone()),
        };
        self.shared.newest.publish(state);
    }
}

/// What the ticking thread holds of a [`CgroupCollector`].
#[derive(Clone, Debug)]
pub struct CgroupHandle {
    shared: Arc<Shared>,
}

impl CgroupHandle {
    /// The newest state. Copies a pointer; only for a read that has been hanging for
    /// 100 ms and more it makes, once, a copy of the rows with
    /// [`reading_since_ns`](stalltop_model::sample::Sweep::reading_since_ns) set.
    /// `now_ns` is `CLOCK_BOOTTIME`.
    pub fn newest(&self, now_ns: u64) -> Reading<Arc<Cgroups>> {
        self.shared.newest.get(now_ns, HANGING_NS)
    }

    /// There will be no more states, and why.
    pub(crate) fn end(&self, why: Reason) {
        self.shared.newest.publish(Reading::Off(why));
    }

    /// Asks for a read of one cgroup, by its [`path`](stalltop_model::sample::Cgroup::path),
    /// ahead of the rotation and whatever it may cost: a person wants to know.
    pub fn read_now(&self, path: Name) {
        self.shared.request(path);
    }

    /// Whether a request waits, so that the sweeping thread need not sleep out its tick.
    pub fn has_requests(&self) -> bool {
        self.shared.has_requests()
    }
}
