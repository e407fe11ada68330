//! Takes windows: one owner of the kernel's run-time statistics for all who want to know.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::time::ClockId;
use stalltop_model::sample::{CostMethod, Costs};
use stalltop_model::{Reading, Reason};

use super::events::EventCosts;
use super::kernel::{Kernel, ThisHost};
use super::maps::Maps;
use super::ours::{OwnPrograms, ProbeCosts};
use super::per_hit;
use super::programs::{Programs, Read, Span};
use super::schedule::DUTY;
use crate::Env;
use crate::file::{self, KeptFile};
use crate::own::nanoseconds;

/// How long the kernel's statistics stay on.
pub(super) const WINDOW: Duration = Duration::from_millis(100);

/// Programs that one window looks at; where there are more, windows take turns.
const LOOKED_AT: usize = 1_024;

/// Takes windows and remembers what they showed.
pub(super) struct Meter<K = ThisHost> {
    kernel: K,
    closed: Option<Reason>,
    kernel_text: String,
    sysctl: KeptFile,
    stat: KeptFile,
    tick_ns: u64,
    programs: Programs,
    maps: Maps,
    ours: Option<OwnPrograms>,
    ids: Vec<u32>,
    /// The first id of the next turn, where windows take turns.
    turn: u32,
    /// Counters have run on since the last reading: of ours, and of all.
    on_since: (bool, bool),
    /// Time that CPUs were busy at the end of the last window, and when that was, ns.
    stat_last: Option<(u64, u64)>,
    duty: f64,
    method: Reading<CostMethod>,
    windows: u32,
    at_ns: u64,
}

impl Meter<ThisHost> {
    /// A meter of this host; nothing is read yet.
    pub(super) fn new(env: &Env) -> Self {
        Self {
            // What is below another root is no live host.
            closed: (env.root() != Path::new("/")).then_some(Reason::NotRecorded),
            ..Self::with(ThisHost, env)
        }
    }

    /// Whether there is a kernel to measure.
    pub(super) fn is_live(&self) -> bool {
        self.closed.is_none()
    }

    /// Takes charge of our own programs as well.
    pub(super) fn own(&mut self, ours: OwnPrograms) {
        self.ours = (!ours.is_empty()).then_some(ours);
    }
}

impl<K: Kernel> Meter<K> {
    pub(super) fn with(kernel: K, env: &Env) -> Self {
        Self {
            kernel,
            closed: None,
            kernel_text: env.kernel.to_string(),
            sysctl: KeptFile::new(env.path("/proc/sys/kernel/bpf_stats_enabled")),
            stat: KeptFile::new(env.path("/proc/stat")),
            tick_ns: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            programs: Programs::default(),
            maps: Maps::default(),
            ours: None,
            ids: Vec::new(),
            turn: 0,
            on_since: (false, false),
            stat_last: None,
            duty: DUTY,
            method: Reading::default(),
            windows: 0,
            at_ns: 0,
        }
    }

    /// The host was changed, or nobody looked for a while: figures begin anew.
    pub(super) fn restart(&mut self) {
        self.programs.restart();
        self.on_since.1 = false;
    }

    /// The part of the time that windows take from now on.
    pub(super) fn set_duty(&mut self, duty: f64) {
        self.duty = duty;
    }

    /// Nobody wants to know of others' programs: what is known of them is forgotten.
    pub(super) fn forget(&mut self) {
        self.programs = Programs::default();
        self.maps = Maps::default();
        self.windows = 0;
    }

    pub(super) fn has_own(&self) -> bool {
        self.ours.is_some()
    }

    /// Takes one window, over all programs or over ours only. `rest` waits for a time.
    ///
    /// The readings are taken outside of it, while counters stand still, so that however many
    /// programs there are, each was timed for the same while. Gives what is new of ours; where there
    /// can be no window, [`Meter::costs`] says why.
    pub(super) fn window(
        &mut self,
        all: bool,
        mut rest: impl FnMut(Duration),
    ) -> Option<ProbeCosts> {
        match self.try_window(all, &mut rest) {
            Ok(ours) => ours,
            Err(why) => {
                self.forget();
                self.at_ns = nanoseconds(ClockId::Boottime);
                self.method = Reading::Off(why.clone());
                self.ours.as_ref().map(|ours| ours.failed(why))
            }
        }
    }

    fn try_window(
        &mut self,
        all: bool,
        rest: &mut dyn FnMut(Duration),
    ) -> Result<Option<ProbeCosts>, Reason> {
        if let Some(why) = &self.closed {
            return Err(why.clone());
        }
        let always_on = self.always_on();
        if all {
            self.choose()?;
        }
        // Always on, the window is the time since the one before.
        let (ours_kept, all_kept) = match self.on_since {
            (ours, all) if always_on => (ours, all),
            _ => (false, false),
        };
        let mut busy = self.stat_last.filter(|_| all_kept);
        if all && !all_kept {
            busy = self.busy();
            self.read(Programs::begin);
        }
        if !ours_kept && let Some(ours) = &mut self.ours {
            ours.begin();
        }
        let span = if always_on {
            if (all && !all_kept) || (self.ours.is_some() && !ours_kept) {
                rest(WINDOW);
            }
            Span::BetweenReads
        } else {
            // The switch takes effect somewhere within the calls.
            let before = nanoseconds(ClockId::Monotonic);
            let statistics = match self.kernel.enable() {
                Ok(statistics) => statistics,
                Err(error) => return Err(self.refused(&error)),
            };
            let on = nanoseconds(ClockId::Monotonic);
            rest(WINDOW);
            let closing = nanoseconds(ClockId::Monotonic);
            drop(statistics);
            let after = nanoseconds(ClockId::Monotonic);
            Span::Window((closing + after).saturating_sub(before + on) / 2)
        };
        self.on_since = (always_on, always_on && (all || all_kept));
        if all {
            self.stat_last = self.busy();
            let busy = busy_between(busy, self.stat_last);
            self.read(|programs, read| programs.end(read, span, busy));
            self.took_all(always_on);
        }
        Ok(self.ours.as_mut().map(OwnPrograms::end))
    }

    fn took_all(&mut self, always_on: bool) {
        self.windows = self.windows.saturating_add(1);
        self.at_ns = nanoseconds(ClockId::Boottime);
        self.method = Reading::Value(if always_on {
            CostMethod::Sysctl
        } else {
            CostMethod::Windows {
                windows: self.windows,
                window_ns: WINDOW.as_nanos() as u64,
                duty: self.duty,
            }
        });
        self.maps.update(&mut self.kernel, &mut self.programs);
    }

    /// What is known now.
    pub(super) fn costs(&self, events: &EventCosts) -> Costs {
        let (maps, maps_left_out) = self.maps.list(&self.programs);
        Costs {
            at_ns: self.at_ns,
            method: self.method.clone(),
            programs: self.programs.costs(),
            maps,
            maps_left_out,
            dynamic: events.dynamic.clone(),
            instances: events.instances.clone(),
            per_hit: per_hit::list(),
        }
    }

    /// Whether somebody has set the sysctl.
    fn always_on(&mut self) -> bool {
        self.sysctl
            .read()
            .is_ok_and(|text| text.trim_ascii() == b"1")
    }

    /// Lists what there is, forgets what went, and leaves in `ids` those that this window looks at.
    fn choose(&mut self) -> Result<(), Reason> {
        if let Err(error) = self.kernel.programs(&mut self.ids) {
            return Err(crate::tracing::no_programs(&error));
        }
        self.programs.keep(&self.ids);
        if self.ids.len() > LOOKED_AT {
            let turn = self.turn;
            let start = self.ids.partition_point(|id| *id < turn);
            self.ids.rotate_left(start);
            self.turn = self.ids[LOOKED_AT];
            self.ids.truncate(LOOKED_AT);
        }
        Ok(())
    }

    fn read(&mut self, mut take: impl FnMut(&mut Programs, Read)) {
        for id in &self.ids {
            // One that is gone since it was listed is forgotten by the next window.
            if let Some(counters) = self.kernel.counters(*id) {
                let at_ns = nanoseconds(ClockId::Boottime);
                take(&mut self.programs, Read { at_ns, counters });
            }
        }
    }

    /// Time that this host's CPUs were busy so far, ns, and when that was read.
    fn busy(&mut self) -> Option<(u64, u64)> {
        let tick_ns = self.tick_ns;
        let ticks = self
            .stat
            .parse(|bytes| busy_ticks(bytes).ok_or(bytes))
            .ok()?;
        Some((
            ticks.saturating_mul(tick_ns),
            nanoseconds(ClockId::Boottime),
        ))
    }

    /// Why statistics could not be switched on.
    fn refused(&mut self, error: &io::Error) -> Reason {
        match error.raw_os_error() {
            Some(libc::EPERM) => Reason::NoCapability {
                need: "CAP_SYS_ADMIN".into(),
            },
            // The command came with 5.8, the sysctl with 5.1.
            Some(libc::EINVAL) if self.sysctl.read().is_err() => Reason::KernelTooOld {
                need: "5.1".into(),
                have: self.kernel_text.as_str().into(),
            },
            Some(libc::EINVAL) => Reason::Setting {
                name: "kernel.bpf_stats_enabled".into(),
                have: "0".into(),
                need: "1".into(),
            },
            _ => Reason::Refused {
                what: "BPF_ENABLE_STATS".into(),
                why: error.to_string().into(),
            },
        }
    }
}

/// CPUs' worth of time between two readings of `/proc/stat`; 0 where there is none.
fn busy_between(from: Option<(u64, u64)>, to: Option<(u64, u64)>) -> f64 {
    match (from, to) {
        (Some((busy_from, from)), Some((busy_to, to))) if to > from => {
            busy_to.saturating_sub(busy_from) as f64 / (to - from) as f64
        }
        _ => 0.0,
    }
}

/// Ticks that all CPUs were not idle, from the first line of `/proc/stat` (proc_stat(5)). Guests'
/// time is in user time already.
fn busy_ticks(bytes: &[u8]) -> Option<u64> {
    let mut words = file::words(file::lines(bytes).next()?);
    (words.next()? == b"cpu").then_some(())?;
    let mut fields = words.map(|word| file::number(word).map(|(n, _)| n));
    let mut field = || fields.next().flatten();
    let (user, nice, system) = (field()?, field()?, field()?);
    let (_idle, _iowait) = (field()?, field()?);
    let (irq, softirq, steal) = (field()?, field()?, field().unwrap_or(0));
    Some(user + nice + system + irq + softirq + steal)
}
