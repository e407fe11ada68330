//! What the programs must be told of this host, found before they are loaded.

use std::io;
use std::path::Path;

use stalltop_wire::stall::STALLS_BYTES;

use crate::ask;
use crate::btf::{self, Btf};
use crate::globals::{self, Globals, Offsets};
use crate::object::Sizes;
use crate::probes::Options;
use crate::programs::{Failure, Kind, Spec, Step};
use crate::symbols::Symbols;
use crate::sys::mapping::page_size;
use crate::sys::perf::{self, Clock};

/// The program that must tell the tick from other timers.
const TICK: &str = "hrtimer_expire_entry";

/// This host.
pub(crate) struct Host {
    /// One more than the highest possible CPU id.
    pub(crate) possible: u32,
    /// Samples per CPU; 1 where no stalls are looked for.
    pub(crate) slots: u64,
    /// Whether the sampler can have non-maskable interrupts.
    pub(crate) nmi: bool,
    stalls: bool,
    /// The bits that ask for a reschedule; 0 where they are not known.
    resched: u64,
    types: Option<Result<Types, Failure>>,
    symbols: Option<Result<Symbols, Failure>>,
}

impl Host {
    /// Looks for what these programs need and no more.
    pub(crate) fn look(options: &Options, programs: &[&'static Spec]) -> Self {
        let any = |what: &dyn Fn(&Spec) -> bool| programs.iter().any(|spec| what(spec));
        let stalls = options.thresholds.is_some();
        // Two files of several megabytes, each made by the kernel as it is read, and a look at what
        // the scheduler does.
        let (types, symbols, resched) = std::thread::scope(|scope| {
            let resched = stalls.then(|| scope.spawn(ask::resched_bits));
            let symbols = any(&|spec| spec.name == TICK)
                .then(|| scope.spawn(|| Symbols::read(&options.root)));
            let types =
                any(&|spec| spec.kind == Kind::TpBtf).then(|| Types::read(options, programs));
            let symbols = symbols.map(|thread| {
                let panicked = |_| Failure {
                    step: Step::Symbols,
                    errno: None,
                    detail: "reading them panicked".into(),
                };
                thread.join().map_err(panicked).and_then(|read| read)
            });
            let resched = resched.and_then(|thread| thread.join().ok().flatten());
            (types, symbols, resched)
        });
        let possible = possible_cpus(&options.root);
        Self {
            resched: globals::need_resched(&options.root, resched).unwrap_or(0),
            possible,
            slots: if stalls { globals::slots(possible) } else { 1 },
            nmi: any(&|spec| spec.kind == Kind::PerfEvent) && has_nmi(possible),
            stalls,
            types,
            symbols,
        }
    }

    /// How large the maps are.
    pub(crate) fn sizes(&self) -> Sizes {
        let page = page_size() as u32;
        Sizes {
            possible_cpus: self.possible,
            samples: if self.stalls {
                self.slots * u64::from(self.possible)
            } else {
                1
            },
            events: if self.stalls {
                STALLS_BYTES.max(page)
            } else {
                page
            },
        }
    }

    /// The values of the programs' read-only globals.
    pub(crate) fn globals(&self, options: &Options) -> Globals {
        let mut all = match &self.types {
            Some(Ok(types)) => types.offsets.globals.clone(),
            _ => Vec::new(),
        };
        if let Some(thresholds) = &options.thresholds {
            let symbols = self.symbols.as_ref().and_then(|read| read.as_ref().ok());
            all.extend(globals::stalls(
                thresholds,
                symbols,
                self.slots,
                self.nmi,
                self.resched,
            ));
        }
        all
    }

    /// What a `tp_btf` program attaches to.
    ///
    /// # Errors
    /// What it needs and this host lacks.
    pub(crate) fn tracepoint(&self, spec: &Spec) -> Result<u32, Failure> {
        let types = match &self.types {
            Some(Ok(types)) => types,
            Some(Err(failure)) => return Err(failure.clone()),
            None => return Ok(0),
        };
        if spec.name == TICK {
            types.offsets.timer.clone()?;
            if let Some(Err(failure)) = &self.symbols {
                return Err(failure.clone());
            }
        }
        types
            .tracepoints
            .iter()
            .find(|(tracepoint, _)| *tracepoint == spec.tracepoint)
            .map_or(Ok(0), |(_, id)| id.clone())
    }

    /// What a program leaves out.
    pub(crate) fn partial(&self, spec: &Spec) -> Option<Failure> {
        let Some(Ok(types)) = &self.types else {
            return None;
        };
        let offsets = &types.offsets;
        match spec.name {
            "sched_switch" => offsets.clock.clone(),
            _ => None,
        }
    }

    /// Why nobody can be seen to keep the CPU.
    pub(crate) fn no_resched(&self) -> Option<Failure> {
        let types = self.types.as_ref()?.as_ref().ok()?;
        let unknown = || Failure {
            step: Step::Btf,
            errno: None,
            detail: "the bit of thread_info.flags that asks for a reschedule".into(),
        };
        let unknown = (self.resched == 0).then(unknown);
        types.offsets.resched.clone().or(unknown)
    }
}

/// What was found in the kernel's BTF.
struct Types {
    offsets: Offsets,
    tracepoints: Vec<(&'static str, Result<u32, Failure>)>,
}

impl Types {
    fn read(options: &Options, programs: &[&'static Spec]) -> Result<Self, Failure> {
        let bytes = btf::read(&options.root)?;
        let types = Btf::parse(&bytes)?;
        let tracepoints = programs
            .iter()
            .filter(|spec| spec.kind == Kind::TpBtf)
            .map(|spec| {
                let id = types.tracepoint(spec.tracepoint).map_err(Failure::from);
                (spec.tracepoint, id)
            })
            .collect();
        Ok(Self {
            offsets: Offsets::find(&types)?,
            tracepoints,
        })
    }
}

/// Whether there is a cycle counter whose interrupt is not maskable: on x86 (elsewhere it is an
/// ordinary interrupt, or not known to be another). Asked of the first CPU that answers.
fn has_nmi(possible: u32) -> bool {
    std::env::consts::ARCH == "x86_64"
        && counts_cycles(possible, |cpu| {
            perf::open(Clock::Cycles, cpu, crate::SAMPLES_PER_SECOND).map(drop)
        })
}

/// Whether a cycle counter opens on the first CPU that is online: all have one, or none has.
fn counts_cycles(possible: u32, open: impl Fn(u32) -> io::Result<()>) -> bool {
    let offline = |e: &io::Error| e.raw_os_error() == Some(libc::ENODEV);
    (0..possible)
        .map(open)
        .find(|opened| !opened.as_ref().is_err_and(offline))
        .is_some_and(|opened| opened.is_ok())
}

/// One more than the highest possible CPU id: the masks need not be contiguous. Where sysfs is
/// missing, what sysconf(3) says.
pub(crate) fn possible_cpus(root: &Path) -> u32 {
    std::fs::read_to_string(root.join("sys/devices/system/cpu/possible"))
        .ok()
        .and_then(|list| highest_cpu(&list))
        .map_or_else(
            || std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            |highest| highest + 1,
        )
}

/// The highest id in a CPU list such as `0-3,8-11`.
fn highest_cpu(list: &str) -> Option<u32> {
    list.trim()
        .split([',', '-'])
        .map(|id| id.parse().ok())
        .collect::<Option<Vec<u32>>>()?
        .into_iter()
        .max()
        .filter(|&id| id < 1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cpu_that_is_online_tells_whether_cycles_are_counted() {
        let with = |answers: &[i32]| {
            let asked = std::cell::Cell::new(0);
            let found = counts_cycles(answers.len() as u32, |cpu| {
                asked.set(asked.get() + 1);
                match answers[cpu as usize] {
                    0 => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                }
            });
            (found, asked.get())
        };
        assert_eq!(with(&[0, libc::ENOENT]), (true, 1));
        // No PMU, as in most virtual machines; or none for us.
        assert_eq!(with(&[libc::ENOENT, 0]), (false, 1));
        assert_eq!(with(&[libc::EACCES, 0]), (false, 1));
        assert_eq!(with(&[libc::ENODEV, libc::ENODEV, 0]), (true, 3));
        assert_eq!(with(&[libc::ENODEV]), (false, 1));
        assert_eq!(with(&[]), (false, 0));
    }

    #[test]
    fn possible_masks_may_have_holes() {
        assert_eq!(highest_cpu("0-1\n"), Some(1));
        assert_eq!(highest_cpu("0"), Some(0));
        assert_eq!(highest_cpu("0-3,8-11,32"), Some(32));
        assert_eq!(highest_cpu(""), None);
        assert_eq!(highest_cpu("0-x"), None);
        assert_eq!(highest_cpu("0-4294967295"), None);
    }
}
