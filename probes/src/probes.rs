//! Loading and attaching.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cpus::Cpus;
use crate::host::Host;
use crate::object::{self, Prepared};
use crate::programs::{Failure, Health, Kind, PROGRAMS, Spec, Step};
use crate::samples::Samples;
use crate::stalls::{Parts, Stalls, Thresholds};
use crate::sys::{info, load};

/// What to load and where to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// Root of the file system in which sysfs is looked for; `/` but in tests.
    pub root: PathBuf,
    /// The programs to attach, in this order.
    pub programs: Vec<&'static Spec>,
    /// From when on what is a stall. `None`: no stalls are looked for, and programs that do nothing
    /// else are left out.
    pub thresholds: Option<Thresholds>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root: "/".into(),
            programs: PROGRAMS.iter().collect(),
            thresholds: None,
        }
    }
}

/// How long the steps of loading took.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadTimes {
    /// Looking at the host: searching the kernel's BTF and symbols.
    pub btf: Duration,
    /// Parsing the object and creating the maps.
    pub object: Duration,
    /// Verifying and compiling the programs in the kernel.
    pub load: Duration,
    /// Attaching them.
    pub attach: Duration,
}

impl LoadTimes {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.btf + self.object + self.load + self.attach
    }
}

/// One program in the kernel.
struct Loaded {
    program: OwnedFd,
    /// Closing it detaches the program.
    link: Option<OwnedFd>,
}

/// What readers of samples map.
struct SampleMaps {
    samples: OwnedFd,
    slots: u64,
    cpus: OwnedFd,
    possible: u32,
}

impl SampleMaps {
    fn new(prepared: &Prepared, host: &Host) -> io::Result<Self> {
        Ok(Self {
            samples: prepared.samples.try_clone()?,
            slots: host.slots,
            cpus: prepared.cpus.try_clone()?,
            possible: host.possible,
        })
    }
}

/// Our programs on this host. Dropping it detaches them all.
pub struct Probes {
    health: Vec<Health>,
    loaded: Vec<Option<Loaded>>,
    cpus: Option<Cpus>,
    stalls: Option<Stalls>,
    samples: Option<SampleMaps>,
    no_resched: Option<Failure>,
    times: LoadTimes,
}

impl Probes {
    /// Attaches what the host allows. Never fails as a whole: see [`Probes::health`].
    #[must_use]
    pub fn load(options: &Options) -> Self {
        let mut times = LoadTimes::default();
        let started = Instant::now();
        let programs: Vec<&'static Spec> = options
            .programs
            .iter()
            .copied()
            .filter(|spec| options.thresholds.is_some() || !spec.only_stalls)
            .collect();
        let host = Host::look(options, &programs);
        times.btf = started.elapsed();

        let started = Instant::now();
        let prepared =
            object::prepare(&host.sizes(), &host.globals(options)).and_then(|prepared| {
                let cpus =
                    Cpus::map(prepared.cpus.as_fd(), host.possible).map_err(|e| Failure {
                        step: Step::Map,
                        errno: e.raw_os_error(),
                        detail: "mapping the counters".into(),
                    })?;
                Ok((prepared, cpus))
            });
        times.object = started.elapsed();

        let mut this = Self {
            health: Vec::with_capacity(programs.len()),
            loaded: Vec::with_capacity(programs.len()),
            cpus: None,
            stalls: None,
            samples: None,
            no_resched: host.no_resched(),
            times,
        };
        for spec in programs {
            let loaded = match &prepared {
                Ok((prepared, _)) => this.load_one(spec, prepared, &host),
                Err(failure) => Err(failure.clone()),
            };
            let (loaded, attached) = match loaded {
                Ok((loaded, id)) => (Some(loaded), Ok(id)),
                Err(failure) => (None, Err(failure)),
            };
            this.loaded.push(loaded);
            this.health.push(Health {
                spec,
                partial: host.partial(spec).filter(|_| attached.is_ok()),
                attached,
            });
        }
        // All are verified before the first is attached: what is attached one by one would count
        // exits without entries for as long as the verifier takes.
        let started = Instant::now();
        for i in 0..this.health.len() {
            this.attach_one(i);
        }
        this.detach_useless();
        this.times.attach = started.elapsed();
        if let Ok((prepared, cpus)) = prepared {
            if options.thresholds.is_some() {
                this.samples = SampleMaps::new(&prepared, &host).ok();
                this.stalls = this.stalls(prepared, &host);
            }
            this.cpus = Some(cpus);
        }
        this
    }

    /// What tells of stalls, where anything does.
    fn stalls(&self, prepared: Prepared, host: &Host) -> Option<Stalls> {
        self.health.iter().find(|health| health.attached.is_ok())?;
        let (sizes, sample) = (host.sizes(), self.loaded("sample"));
        Stalls::new(Parts {
            events: prepared.events,
            events_bytes: sizes.events as usize,
            samples: prepared.samples,
            slots: host.slots,
            cpus: prepared.cpus,
            possible: host.possible,
            sample: sample.and_then(|program| program.try_clone().map_err(|e| e.to_string())),
            nmi: host.nmi,
        })
        .ok()
    }

    /// The loaded program of that name, or why there is none.
    fn loaded(&self, name: &str) -> Result<&OwnedFd, String> {
        let found = self.health.iter().zip(&self.loaded);
        for (health, loaded) in found.filter(|(health, _)| health.spec.name == name) {
            match (loaded, &health.attached) {
                (Some(loaded), _) => return Ok(&loaded.program),
                (None, Err(failure)) => return Err(failure.to_string()),
                (None, Ok(_)) => {}
            }
        }
        Err(format!("the program {name} was not asked for"))
    }

    fn load_one(
        &mut self,
        spec: &Spec,
        prepared: &Prepared,
        host: &Host,
    ) -> Result<(Loaded, u32), Failure> {
        let started = Instant::now();
        let (kind, attach_type, attach_btf_id) = match spec.kind {
            Kind::RawTp => (load::PROG_TYPE_RAW_TRACEPOINT, 0, 0),
            Kind::PerfEvent => (load::PROG_TYPE_PERF_EVENT, 0, 0),
            Kind::TpBtf => {
                let id = host.tracepoint(spec)?;
                (load::PROG_TYPE_TRACING, load::TRACE_RAW_TP, id)
            }
        };
        let insns = prepared.programs.get(spec.name).ok_or_else(|| Failure {
            step: Step::Object,
            errno: None,
            detail: format!("no program {}", spec.name),
        })?;
        let program = load::Program {
            name: spec.name,
            kind,
            attach_type,
            attach_btf_id,
            license: &prepared.license,
            insns,
        };
        let loaded = load_or_why(&program)?;
        let id = info::program_id(loaded.as_fd()).map_err(|e| Failure {
            step: Step::Load,
            errno: e.raw_os_error(),
            detail: "asking for the program's id".into(),
        })?;
        self.times.load += started.elapsed();
        Ok((
            Loaded {
                program: loaded,
                link: None,
            },
            id,
        ))
    }

    fn attach_one(&mut self, i: usize) {
        let spec = self.health[i].spec;
        if spec.kind == Kind::PerfEvent {
            return;
        }
        let Some(loaded) = &mut self.loaded[i] else {
            return;
        };
        let name = CString::new(spec.tracepoint).ok();
        let name = name.as_deref().filter(|_| spec.kind == Kind::RawTp);
        match load::attach_raw_tracepoint(loaded.program.as_fd(), name) {
            Ok(link) => loaded.link = Some(link),
            Err(e) => {
                self.loaded[i] = None;
                self.health[i].attached = Err(Failure {
                    step: Step::Attach,
                    errno: e.raw_os_error(),
                    detail: format!("tracepoint {}", spec.tracepoint),
                });
            }
        }
    }

    /// Detaches programs whose counterpart is not attached, until none is left.
    fn detach_useless(&mut self) {
        loop {
            let missing = self.health.iter().enumerate().find_map(|(i, health)| {
                health.attached.as_ref().ok()?;
                let with = health.spec.with.iter().find(|name| {
                    !self
                        .health
                        .iter()
                        .any(|other| other.spec.name == **name && other.attached.is_ok())
                })?;
                Some((i, *with))
            });
            let Some((i, with)) = missing else { return };
            self.loaded[i] = None;
            self.health[i].attached = Err(Failure {
                step: Step::With,
                errno: None,
                detail: format!("{with} is not attached"),
            });
        }
    }

    /// How each program fares, in the order of [`Options::programs`].
    #[must_use]
    pub fn health(&self) -> &[Health] {
        &self.health
    }

    /// Whether the program of that name is attached.
    #[must_use]
    pub fn is_attached(&self, name: &str) -> bool {
        self.health
            .iter()
            .any(|health| health.spec.name == name && health.attached.is_ok())
    }

    /// Kernel ids of our own attached programs.
    pub fn program_ids(&self) -> impl Iterator<Item = u32> {
        self.health
            .iter()
            .filter_map(|health| health.attached.as_ref().ok().copied())
    }

    /// Where our programs lie in the kernel: address and length of each of their functions. Those
    /// are left out that are interpreted, or whose addresses are hidden.
    #[must_use]
    pub fn code(&self) -> Vec<(u64, u32)> {
        let loaded = self.loaded.iter().flatten();
        let code = loaded.filter_map(|one| info::program_code(one.program.as_fd()).ok());
        code.flatten().collect()
    }

    /// The counters; `None` when the map could not be created (the reason is in every program's
    /// health).
    #[must_use]
    pub fn cpus(&self) -> Option<&Cpus> {
        self.cpus.as_ref()
    }

    /// The counters, to read and to end ticks.
    pub fn cpus_mut(&mut self) -> Option<&mut Cpus> {
        self.cpus.as_mut()
    }

    /// Stall events and samples, to be moved to a thread of their own: once, and only where
    /// [`Options::thresholds`] were given and a program that tells of stalls is attached.
    pub fn take_stalls(&mut self) -> Option<Stalls> {
        self.stalls.take()
    }

    /// A reader of every sample, with mappings of its own: for any thread, any number of times, and
    /// also after [`Probes::take_stalls`]. `None` where no [`Options::thresholds`] were given, as no
    /// samples are taken then, or where the memory cannot be mapped.
    #[must_use]
    pub fn samples(&self) -> Option<Samples> {
        let maps = self.samples.as_ref()?;
        let samples = maps.samples.try_clone().ok()?;
        Samples::new(samples, maps.slots, maps.cpus.as_fd(), maps.possible).ok()
    }

    /// Why tasks that keep the CPU cannot be seen although all programs run, where they cannot.
    #[must_use]
    pub fn no_resched(&self) -> Option<&Failure> {
        self.no_resched.as_ref()
    }

    /// How long loading took.
    #[must_use]
    pub fn times(&self) -> LoadTimes {
        self.times
    }
}

/// Loads a program; where it is refused, once more with a log for the verifier's last word. It may be
/// accepted then, where what was in the way has passed.
///
/// # Errors
/// The first refusal's errno, and the verifier's last line.
pub(crate) fn load_or_why(program: &load::Program<'_>) -> Result<OwnedFd, Failure> {
    twice(|log| load::load_program(program, log))
}

fn twice<T>(mut load: impl FnMut(Option<&mut [u8]>) -> io::Result<T>) -> Result<T, Failure> {
    let error = match load(None) {
        Ok(loaded) => return Ok(loaded),
        Err(error) => error,
    };
    let mut log = vec![0; 256 * 1024];
    load(Some(&mut log)).map_err(|_| Failure {
        step: Step::Load,
        errno: error.raw_os_error(),
        detail: last_line(&log).unwrap_or_else(|| "refused without a word".into()),
    })
}

/// The last line of a verifier log that is about the program and not about the verifier's work.
fn last_line(log: &[u8]) -> Option<String> {
    let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end])
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("processed "))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_the_second_time_is_not_thrown_away() {
        let refused = || io::Error::from_raw_os_error(libc::EACCES);
        let first = twice(|log| log.is_none().then_some(1).ok_or_else(refused));
        assert_eq!(first, Ok(1));
        let second = twice(|log| log.map(|_| 2).ok_or_else(refused));
        assert_eq!(second, Ok(2));
        let never: Result<(), _> = twice(|log| {
            if let Some(log) = log {
                log[..5].copy_from_slice(b"no go");
            }
            Err(refused())
        });
        let failure = never.unwrap_err();
        assert_eq!(
            (failure.errno, failure.detail.as_str()),
            (Some(libc::EACCES), "no go")
        );
    }

    #[test]
    fn the_verifiers_last_word_is_not_its_statistics() {
        let log =
            b"0: R1=ctx()\nR1 invalid mem access 'scalar'\nprocessed 2 insns (limit 1000000)\n\0\0";
        assert_eq!(
            last_line(log).as_deref(),
            Some("R1 invalid mem access 'scalar'")
        );
        assert_eq!(last_line(b"\0"), None);
    }
}
