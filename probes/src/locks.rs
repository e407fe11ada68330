//! Waits for the kernel's locks: the tracer, on demand and apart from the programs that always run.
//!
//! [`LockTracer::load`] has the program verified, which takes a few milliseconds; from then on
//! [`LockTracer::attach`] and [`LockTracer::detach`] switch it on and off, so that it can run all
//! the time or in windows. [`LockTracer::read`] gives what was added up since it was last called:
//! windows that follow each other without a gap, exactly, from shared memory.
//!
//! What it costs is said in `probes/ebpf/src/locks.rs`.

mod counts;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use stalltop_wire::lock::{
    LOCK_CPU_SIZE, LOCK_SLOTS, LOCK_STACKS_MAP, LOCKS_MAP, LONG, LockSlot, LockWait, MUTEX_OWNER,
    RINGS, RWSEM_OWNER, TABLE, TABLE_SLOTS, TABLES_MAP, WAITERS_MAP, Waiters,
};
use stalltop_wire::{NO_OFFSET, offset};

use crate::btf::{self, Btf};
use crate::globals::Globals;
use crate::host::possible_cpus;
use crate::object::{self, Array};
use crate::programs::{Failure, Step};
use crate::ring::Ring;
use crate::sys::mapping::{Access, Mapping};
use crate::sys::{info, load, monotonic_ns};

use counts::Tables;
pub use counts::{KindWaits, LockCounts, LockRuns, LockWaits, Waits};

/// Name of the tracer's program, in the object and in the kernel.
pub const LOCK_CONTENTION: &str = "lock_contention";

/// A program that does nothing, of the same type.
const EMPTY: &str = "empty_raise";

const BEGIN: &CStr = c"contention_begin";
const END: &CStr = c"contention_end";

/// Bytes that the stacks of all CPUs together may take, and how many a ring has at the least and at
/// the most.
const STACKS_BYTES: usize = 20 * 1024 * 1024;
const STACKS: (u64, u64) = (32, 512);

/// Bytes that the tables of locks of all CPUs together may take, and how many locks fit into one at
/// the least.
const TABLES_BYTES: usize = 16 * 1024 * 1024;
const LEAST_LOCKS: u64 = 64;

const WORDS: usize = size_of::<LockWait>() / size_of::<u64>();

/// How often, and how far apart, attaching is tried while the kernel still detaches us: kernels
/// before 6.10 refuse a program that is attached already, and end links in the background.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// What to measure, and where to look.
#[derive(Clone, Debug)]
pub struct LockOptions {
    /// Root of the file system in which sysfs is looked for; `/` but in tests.
    pub root: PathBuf,
    /// From when on a wait is long, ns: every long wait's stack is taken.
    pub long_ns: u64,
}

impl Default for LockOptions {
    /// 20 us.
    fn default() -> Self {
        Self {
            root: "/".into(),
            long_ns: 20_000,
        }
    }
}

/// The two links. Dropped in this order: no wait begins that is not seen to end.
#[derive(Debug)]
struct Links {
    _begin: OwnedFd,
    _end: OwnedFd,
}

/// Measures waits for the kernel's locks. Dropping it ends that.
#[derive(Debug)]
pub struct LockTracer {
    program: OwnedFd,
    id: u32,
    links: Option<Links>,
    tables: Tables,
    stacks: Ring<WORDS>,
    /// Numbers of the last entry that was handed out, of each ring of each CPU.
    seen: Vec<[u64; RINGS]>,
    lost_long: u64,
    long_ns: u64,
    owners: Option<Failure>,
}

impl LockTracer {
    /// Loads the program; nothing is measured yet.
    ///
    /// # Errors
    /// What it needs and the host lacks: Linux 5.19 with the tracepoints ([`Step::Attach`] with
    /// `ENOENT`), CAP_BPF and CAP_PERFMON.
    pub fn load(options: &LockOptions) -> Result<Self, Failure> {
        has_tracepoints()?;
        let possible = possible_cpus(&options.root);
        let slots = stacks(possible);
        let (mut globals, owners) = owners(options);
        globals.push((LOCK_SLOTS, slots));
        let locks = locks(possible);
        globals.push((TABLE_SLOTS, locks));
        let tables = 2 * locks as u32 * possible;
        let arrays = [
            array(LOCKS_MAP, LOCK_CPU_SIZE, possible),
            array(TABLES_MAP, size_of::<LockSlot>(), tables),
            array(WAITERS_MAP, size_of::<Waiters>(), 1),
            array(
                LOCK_STACKS_MAP,
                size_of::<LockWait>(),
                slots as u32 * RINGS as u32 * possible,
            ),
        ];
        let mut prepared = object::prepare_one(LOCK_CONTENTION, &arrays, &globals)?;
        let program = prepared.verify(LOCK_CONTENTION)?;
        let mut take = |name: &str| {
            prepared.maps.remove(name).ok_or_else(|| Failure {
                step: Step::Object,
                errno: None,
                detail: format!("no map {name}"),
            })
        };
        let (cpus, waiters, ring) = (take(LOCKS_MAP)?, take(WAITERS_MAP)?, take(LOCK_STACKS_MAP)?);
        let tables_map = take(TABLES_MAP)?;
        let map = |fd: &OwnedFd, len| {
            Mapping::new(fd.as_fd(), 0, len, Access::ReadWrite).map_err(|e| Failure {
                step: Step::Map,
                errno: e.raw_os_error(),
                detail: "mapping the counters".into(),
            })
        };
        let mut tables = Tables::new(
            map(&cpus, possible as usize * LOCK_CPU_SIZE)?,
            map(&tables_map, tables as usize * size_of::<LockSlot>())?,
            map(&waiters, size_of::<Waiters>())?,
            possible,
        );
        tables.set_long_ns(options.long_ns);
        let id = info::program_id(program.as_fd()).map_err(|e| Failure {
            step: Step::Load,
            errno: e.raw_os_error(),
            detail: "asking for the program's id".into(),
        })?;
        Ok(Self {
            program,
            id,
            links: None,
            tables,
            stacks: Ring::new(ring, slots, RINGS as u32 * possible),
            seen: vec![[0; RINGS]; possible as usize],
            lost_long: 0,
            long_ns: options.long_ns,
            owners,
        })
    }

    /// Begins to measure, if it does not do so already. Waits that last already are not measured.
    ///
    /// Takes 2 ms on 6.18, as does detaching; up to 100 ms where the kernel is still busy with detaching us.
    ///
    /// # Errors
    /// The tracepoint does not exist or refused the program.
    pub fn attach(&mut self) -> Result<(), Failure> {
        if self.links.is_some() {
            return Ok(());
        }
        self.tables.start();
        // The end first: a wait that is seen to begin is seen to end.
        let end = self.link(END)?;
        let begin = self.link(BEGIN)?;
        self.tables.started();
        self.links = Some(Links {
            _begin: begin,
            _end: end,
        });
        Ok(())
    }

    fn link(&self, tracepoint: &CStr) -> Result<OwnedFd, Failure> {
        let mut tries = 0;
        loop {
            match load::attach_raw_tracepoint(self.program.as_fd(), Some(tracepoint)) {
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) && tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                other => return other.map_err(|e| attach_failure(tracepoint, &e)),
            }
        }
    }

    /// Stops measuring. What was measured can still be read; the waits that last are dropped.
    pub fn detach(&mut self) {
        if self.links.take().is_some() {
            self.tables.stopped();
        }
    }

    /// Whether it measures.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.links.is_some()
    }

    /// Ends a window and reads what was added up in it, of all CPUs together: everything that ended
    /// since this was last called. `out` is overwritten. Makes no system call but for the time,
    /// and allocates nothing once `out` has had as many locks.
    ///
    /// What a run of the program that is going on just now adds, counts for the next window.
    pub fn read(&mut self, out: &mut LockCounts) {
        self.tables.read(out);
    }

    /// Adds the waits whose stacks were taken to `out`: all that ended since this was last called,
    /// of each CPU the long ones and then the short ones. Gives how many of them were overwritten by
    /// later ones before they could be read ([`LockTracer::ring`] of both fit per CPU).
    ///
    /// Those of [`LockTracer::long_ns`] and more are all there, but for
    /// [`LockTracer::lost_long`]. Shorter ones are there because they
    /// were [`SAMPLED`](stalltop_wire::lock::what::SAMPLED): of all waits every
    /// [`EVERY`](stalltop_wire::lock::EVERY)-th on average is, also of the long ones.
    ///
    /// A stack begins with the tracer's own frames: up to and with the tracepoint's
    /// (`__traceiter_contention_begin`, `__traceiter_contention_end`), where it has a symbol, and
    /// `bpf_trace_run2`; then comes the function that waits.
    pub fn stacks(&mut self, out: &mut Vec<LockWait>) -> u64 {
        let mut lost = 0;
        for (cpu, seen) in self.seen.iter_mut().enumerate() {
            for (ring, seen) in seen.iter_mut().enumerate() {
                let newest = self.tables.newest(cpu, ring);
                if newest == *seen {
                    continue;
                }
                let Some(part) = self.stacks.part((cpu * RINGS + ring) as u32) else {
                    continue;
                };
                let missing = part.newer(newest, seen, |words| out.push(counts::wait(words)));
                lost += missing;
                if ring == LONG {
                    self.lost_long += missing;
                }
            }
        }
        lost
    }

    /// Adds the waits that last for `least` at least: those of kinds that sleep, which began while
    /// this measured. Their `end_ns` says nothing, and they have a stack only where one was taken when
    /// they began; who waits ([`LockWait::pid_tgid`]) is always told. Makes no system call but for
    /// the time, and reads 32 KB.
    pub fn lasting(&self, least: Duration, out: &mut Vec<LockWait>) {
        if self.is_attached() {
            let least = u64::try_from(least.as_nanos()).unwrap_or(u64::MAX);
            let until_ns = monotonic_ns().saturating_sub(least);
            self.tables.lasting(until_ns, out);
        }
    }

    /// Long waits that [`LockTracer::stacks`] could not read, since the program was loaded.
    #[must_use]
    pub fn lost_long(&self) -> u64 {
        self.lost_long
    }

    /// How many long waits, and how many short ones, are kept of each CPU.
    #[must_use]
    pub fn ring(&self) -> u64 {
        self.stacks.slots()
    }

    /// How many CPUs there may be: ids `0..possible()`.
    #[must_use]
    pub fn possible(&self) -> u32 {
        self.seen.len() as u32
    }

    /// From when on a wait is long, ns.
    #[must_use]
    pub fn long_ns(&self) -> u64 {
        self.long_ns
    }

    /// Changes from when on a wait is long, ns; from the next wait that ends on. Those that were
    /// kept as long ones before and would not be now, are no samples of short ones either
    /// ([`SAMPLED`](stalltop_wire::lock::what::SAMPLED) tells).
    pub fn set_long_ns(&mut self, long_ns: u64) {
        self.long_ns = long_ns;
        self.tables.set_long_ns(long_ns);
    }

    /// The kernel's id of the program: one of ours.
    #[must_use]
    pub fn program_id(&self) -> u32 {
        self.id
    }

    /// Why waits do not tell who held the lock, where they do not.
    #[must_use]
    pub fn no_owners(&self) -> Option<&Failure> {
        self.owners.as_ref()
    }

    /// Where the program lies in the kernel: address and length of each of its functions. Empty
    /// where it is interpreted or addresses are hidden.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn code(&self) -> io::Result<Vec<(u64, u32)>> {
        info::program_code(self.program.as_fd())
    }

    /// How often and how long the program ran while statistics were on
    /// ([`load::enable_run_time_stats`]): a wait is two runs. And how many runs the kernel left out,
    /// as the program was running on that CPU already: an interrupt's, in pairs. Allocates nothing.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn counters(&self) -> io::Result<info::ProgramCounters> {
        info::program_counters(self.program.as_fd())
    }
}

fn array(name: &'static str, value_size: usize, entries: u32) -> Array {
    Array {
        name,
        value_size,
        entries,
        flags: load::F_MMAPABLE,
    }
}

fn attach_failure(tracepoint: &CStr, error: &io::Error) -> Failure {
    let name = tracepoint.to_string_lossy();
    Failure {
        step: Step::Attach,
        errno: error.raw_os_error(),
        detail: format!("tracepoint {name}"),
    }
}

/// Looks for the tracepoints with a program that does nothing: a kernel without them may not know
/// the tracer's instructions, and would say something about those.
fn has_tracepoints() -> Result<(), Failure> {
    let prepared = object::prepare_one(EMPTY, &[], &Vec::new())?;
    let program = prepared.verify(EMPTY)?;
    for tracepoint in [END, BEGIN] {
        load::attach_raw_tracepoint(program.as_fd(), Some(tracepoint))
            .map_err(|e| attach_failure(tracepoint, &e))?;
    }
    Ok(())
}

/// Where the kernel's types say that a lock's owner is; or why that is not known.
fn owners(options: &LockOptions) -> (Globals, Option<Failure>) {
    let find = || -> Result<Globals, Failure> {
        let bytes = btf::read(&options.root)?;
        let types = Btf::parse(&bytes)?;
        let pid = types.field("task_struct", "pid")?;
        let of = |structure| types.field(structure, "owner").unwrap_or(NO_OFFSET);
        Ok(vec![
            (offset::TASK_PID, pid),
            (MUTEX_OWNER, of("mutex")),
            // With PREEMPT_RT it has none.
            (RWSEM_OWNER, of("rw_semaphore")),
        ])
    };
    match find() {
        Ok(globals) => (globals, None),
        Err(failure) => (Vec::new(), Some(failure)),
    }
}

/// Waits with stacks that are kept in each of a CPU's rings.
fn stacks(possible_cpus: u32) -> u64 {
    let rings = RINGS * possible_cpus.max(1) as usize;
    let fit = STACKS_BYTES / size_of::<LockWait>() / rings;
    // The greatest power of two that is not greater.
    (1 << fit.max(1).ilog2()).clamp(STACKS.0, STACKS.1)
}

/// Locks that fit into each of a CPU's two tables.
fn locks(possible_cpus: u32) -> u64 {
    let fit = TABLES_BYTES / size_of::<LockSlot>() / 2 / possible_cpus.max(1) as usize;
    (1 << fit.max(1).ilog2()).clamp(LEAST_LOCKS, TABLE as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::run::run_raw;

    #[test]
    fn the_stacks_of_all_cpus_together_stay_within_the_memory() {
        for (cpus, expected) in [(1, 512), (40, 512), (48, 256), (512, 32), (4096, 32)] {
            assert_eq!(stacks(cpus), expected, "{cpus} CPUs");
        }
    }

    #[test]
    fn the_tables_of_all_cpus_together_stay_within_the_memory() {
        for (cpus, expected) in [(2, 1024), (256, 1024), (257, 512), (512, 512), (4096, 64)] {
            assert_eq!(locks(cpus), expected, "{cpus} CPUs");
            assert!(locks(cpus) as usize * 64 * cpus as usize <= TABLES_BYTES);
        }
        assert_eq!(locks(65_536), 64);
    }

    #[test]
    fn a_run_that_interrupts_another_one_is_left_out() {
        let mut tracer = match LockTracer::load(&LockOptions::default()) {
            Ok(tracer) => tracer,
            Err(why) => {
                eprintln!("skipped: {why}");
                return;
            }
        };
        let mut run = |busy: u64, flags: u64| {
            for cpu in 0..tracer.possible() {
                tracer.tables.set_busy(cpu as usize, busy);
            }
            // A lock that nobody else has; the run is this thread's own.
            let lock = 0xffff_ffff_0000_1230;
            let ran = run_raw(tracer.program.as_fd(), &[lock, flags]);
            let mut counts = LockCounts::default();
            tracer.read(&mut counts);
            ran.map(|_| {
                (
                    counts.runs.begins,
                    counts.runs.ends_unpaired,
                    counts.runs.nested,
                )
            })
        };
        let mutex = stalltop_wire::lock::lcb::MUTEX;
        assert_eq!(run(1, mutex).ok(), Some((0, 0, 1)));
        assert_eq!(run(1, 0).ok(), Some((0, 0, 2)));
        assert_eq!(run(0, mutex).ok(), Some((1, 0, 2)));
    }

    #[test]
    fn a_host_without_types_has_no_owners() {
        let options = LockOptions {
            root: "/nonexistent".into(),
            ..LockOptions::default()
        };
        let (globals, why) = owners(&options);
        assert!(globals.is_empty());
        assert_eq!(why.map(|failure| failure.step), Some(Step::Btf));
    }
}
