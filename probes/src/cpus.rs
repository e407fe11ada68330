//! The programs' counters, read from the mapped array: no system call, no allocation.
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use stalltop_wire::{BUCKETS, CPU_SIZE, Cpu, VECTORS, Vector};

use crate::sys::mapping::{Access, Mapping};

/// What one CPU measured of one softirq vector. Counters are cumulative since attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorStats {
    /// Completed handlers: never falls. /proc/softirqs also counts the one in progress.
    pub count: u64,
    /// Time in completed handlers, nanoseconds.
    pub time_ns: u64,
    /// Longest completed handler since attach, nanoseconds.
    pub max_ns: u64,
    /// Longest completed handler of the last tick (see [`Cpus::flip_epoch`]), nanoseconds.
    pub tick_max_ns: u64,
    /// Completed handlers by duration: bucket `i` holds those of `[2^i, 2^(i+1))` ns.
    pub hist: [u64; BUCKETS],
    /// Raise-to-entry delays measured. Fewer than handlers where a vector was raised again between
    /// the kernel's picking it up and its entry: it runs twice for one measured delay.
    pub delays: u64,
    /// Sum of these delays, nanoseconds.
    pub delay_ns: u64,
    /// Longest of them since attach, nanoseconds.
    pub delay_max_ns: u64,
    /// Longest of them in the last tick, nanoseconds.
    pub delay_tick_max_ns: u64,
    /// Delays by duration.
    pub delay_hist: [u64; BUCKETS],
    /// When the handler that runs now was entered (CLOCK_MONOTONIC, nanoseconds); 0 when none runs.
    pub entered_ns: u64,
    /// Since when the vector is pending (CLOCK_MONOTONIC, nanoseconds); 0 when it is not.
    pub raised_ns: u64,
}

/// Hard interrupt handlers of one CPU. Only what goes through an `irqaction`: the timer interrupt
/// and inter-processor interrupts are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardirqStats {
    /// Completed handlers. A shared line counts one per handler.
    pub count: u64,
    /// Time in them, nested ones counted once, nanoseconds.
    pub time_ns: u64,
    /// Longest outermost handler since attach, nanoseconds.
    pub max_ns: u64,
    /// Longest outermost handler of the last tick, nanoseconds.
    pub tick_max_ns: u64,
}

/// ksoftirqd of one CPU; all zero until its pid is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KsoftirqdStats {
    /// Its pid; 0 while not set.
    pub pid: u32,
    /// How often it was switched in.
    pub runs: u64,
    /// Time it ran, the run in progress included, nanoseconds.
    pub time_ns: u64,
    /// Since when it runs (CLOCK_MONOTONIC, nanoseconds); 0 when it does not.
    pub since_ns: u64,
    /// Time it was runnable but did not run, up to its last run, nanoseconds.
    pub wait_ns: u64,
    /// Longest such wait since attach, nanoseconds.
    pub wait_max_ns: u64,
    /// Longest such wait that ended in the last tick, nanoseconds.
    pub wait_tick_max_ns: u64,
}

/// How often each program ran on one CPU; entries without the one in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// `softirq_raise`.
    pub raise: u64,
    /// `softirq_entry`.
    pub entry: u64,
    /// `softirq_exit`.
    pub exit: u64,
    /// `irq_handler_entry`.
    pub irq_entry: u64,
    /// `irq_handler_exit`.
    pub irq_exit: u64,
    /// `sched_switch`.
    pub switch: u64,
    /// `hrtimer_expire_entry`: once for every timer that expires, whatever it is for.
    pub hrtimer: u64,
    /// `sample`.
    pub sample: u64,
}

/// How long the tasks that were switched in had waited for the CPU (run-queue delay): woken or
/// preempted until switched in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunDelay {
    /// Waits; a task that was switched in without one is not counted.
    pub count: u64,
    /// Their sum, nanoseconds.
    pub delay_ns: u64,
    /// Longest wait that ended in the last tick, nanoseconds.
    pub tick_max_ns: u64,
}

/// Everything measured on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// Per softirq vector, in the order of [`stalltop_wire::SOFTIRQS`].
    pub vectors: [VectorStats; VECTORS],
    /// Hard interrupt handlers.
    pub hardirq: HardirqStats,
    /// ksoftirqd of this CPU.
    pub ksoftirqd: KsoftirqdStats,
    /// Waits of all tasks for this CPU.
    pub run_delay: RunDelay,
    /// Runs of our own programs.
    pub events: Events,
}

/// How many longest values are kept per CPU: two per vector, hard interrupts, ksoftirqd's wait,
/// any task's wait.
const MAXIMA: usize = 2 * VECTORS + 3;
const HARDIRQ_MAX: usize = 2 * VECTORS;
const WAIT_MAX: usize = 2 * VECTORS + 1;
const RUN_DELAY_MAX: usize = 2 * VECTORS + 2;

/// Byte offset in a slot of the pair of words for each longest value.
const MAX_OFFSETS: [usize; MAXIMA] = {
    let mut at = [0; MAXIMA];
    let mut v = 0;
    while v < VECTORS {
        let base = offset_of!(Cpu, vectors) + v * size_of::<Vector>();
        at[2 * v] = base + offset_of!(Vector, max_ns);
        at[2 * v + 1] = base + offset_of!(Vector, delay_max_ns);
        v += 1;
    }
    at[HARDIRQ_MAX] = offset_of!(Cpu, hardirq_max_ns);
    at[WAIT_MAX] = offset_of!(Cpu, ksoftirqd_wait_max_ns);
    at[RUN_DELAY_MAX] = offset_of!(Cpu, run_delay_max_ns);
    at
};

/// One longest value as user space follows it over the ticks.
#[derive(Clone, Copy, Default)]
struct Longest {
    /// Of the last tick.
    tick: u64,
    /// Since attach.
    ever: u64,
    /// The retired word as it was read when the tick ended.
    read: u64,
}

/// The mapped array of one slot per possible CPU.
pub struct Cpus {
    words: Mapping,
    count: u32,
    epoch: u64,
    longest: Vec<[Longest; MAXIMA]>,
    /// The greatest running time of ksoftirqd reported so far.
    ksoftirqd_ns: Vec<u64>,
}

impl Cpus {
    /// Maps the array.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn map(fd: BorrowedFd<'_>, count: u32) -> io::Result<Self> {
        let len = count as usize * CPU_SIZE;
        Ok(Self {
            words: Mapping::new(fd, 0, len, Access::ReadWrite)?,
            count,
            epoch: 0,
            longest: vec![[Longest::default(); MAXIMA]; count as usize],
            ksoftirqd_ns: vec![0; count as usize],
        })
    }

    /// How many CPUs have a slot: ids `0..possible()`. Slots of CPUs that are not online stay as
    /// they are.
    #[must_use]
    pub fn possible(&self) -> u32 {
        self.count
    }

    /// One word of a slot.
    fn word(&self, cpu: u32, offset: usize) -> &AtomicU64 {
        debug_assert!(cpu < self.count && offset + size_of::<u64>() <= CPU_SIZE);
        self.words.word(cpu as usize * CPU_SIZE + offset)
    }

    fn get(&self, cpu: u32, offset: usize) -> u64 {
        self.word(cpu, offset).load(Ordering::Relaxed)
    }

    /// Says which task is ksoftirqd of a CPU; 0 for none. Safe to call at any time, also when it
    /// has not changed.
    pub fn set_ksoftirqd(&self, cpu: u32, pid: u32) {
        if cpu < self.count {
            self.word(cpu, offset_of!(Cpu, ksoftirqd_pid))
                .store(u64::from(pid), Ordering::Relaxed);
        }
    }

    /// Forgets what is pending or running on a CPU that is offline now, so that no delay of hours
    /// shows when it comes back. Only for a CPU that is offline: an online one writes these words.
    pub fn forget_pending(&self, cpu: u32) {
        if cpu >= self.count {
            return;
        }
        for v in 0..VECTORS {
            let base = offset_of!(Cpu, vectors) + v * size_of::<Vector>();
            for field in [
                offset_of!(Vector, raised_ns),
                offset_of!(Vector, entered_ns),
            ] {
                self.word(cpu, base + field).store(0, Ordering::Relaxed);
            }
        }
        for field in [
            offset_of!(Cpu, hardirq_depth),
            offset_of!(Cpu, ksoftirqd_since_ns),
            offset_of!(Cpu, draining),
            offset_of!(Cpu, sampled_ns),
            offset_of!(Cpu, resched_seen_ns),
        ] {
            self.word(cpu, field).store(0, Ordering::Relaxed);
        }
    }

    /// Ends a tick: from here on `tick_max_ns` and its like tell of the tick that ended.
    ///
    /// The programs keep each longest value in one of two words, picked by the epoch. This reads
    /// the word that has been out of use since the last call once more, takes along what a program
    /// that was running at that moment has still put there, clears it, switches the programs over
    /// to it, and reads the other one. So no value is lost or counted twice; one that a program
    /// was writing in the very moment of the switch counts for the next tick.
    pub fn flip_epoch(&mut self) {
        let used = (self.epoch & 1) as usize * size_of::<u64>();
        let retired = size_of::<u64>() - used;
        self.epoch += 1;
        for cpu in 0..self.count {
            for (i, at) in MAX_OFFSETS.iter().enumerate() {
                let late = self.word(cpu, at + retired).swap(0, Ordering::Relaxed);
                let longest = &mut self.longest[cpu as usize][i];
                // Carried over into the tick that ends now.
                longest.tick = if late > longest.read { late } else { 0 };
            }
            self.word(cpu, offset_of!(Cpu, epoch))
                .store(self.epoch, Ordering::SeqCst);
            for (i, at) in MAX_OFFSETS.iter().enumerate() {
                let read = self.word(cpu, at + used).load(Ordering::SeqCst);
                let longest = &mut self.longest[cpu as usize][i];
                longest.read = read;
                longest.tick = longest.tick.max(read);
                longest.ever = longest.ever.max(longest.tick);
            }
        }
    }

    /// Longest of the last tick and since attach; the latter includes the tick in progress.
    fn longest(&self, cpu: u32, i: usize) -> (u64, u64) {
        let seen = self.longest[cpu as usize][i];
        let now = self
            .get(cpu, MAX_OFFSETS[i])
            .max(self.get(cpu, MAX_OFFSETS[i] + size_of::<u64>()));
        (seen.tick, seen.ever.max(now))
    }

    /// Reads everything of one CPU. `now_ns` is CLOCK_MONOTONIC, for the run of ksoftirqd in
    /// progress. False, and `out` untouched, when there is no such CPU.
    pub fn read(&mut self, cpu: u32, now_ns: u64, out: &mut CpuStats) -> bool {
        if cpu >= self.count {
            return false;
        }
        let mut handlers = 0;
        for (v, stats) in out.vectors.iter_mut().enumerate() {
            self.read_vector(cpu, v, stats);
            handlers += stats.count;
        }
        let (tick_max_ns, max_ns) = self.longest(cpu, HARDIRQ_MAX);
        out.hardirq = HardirqStats {
            count: self.get(cpu, offset_of!(Cpu, hardirqs)),
            time_ns: self.get(cpu, offset_of!(Cpu, hardirq_ns)),
            max_ns,
            tick_max_ns,
        };
        out.ksoftirqd = self.read_ksoftirqd(cpu, now_ns);
        out.run_delay = RunDelay {
            count: self.get(cpu, offset_of!(Cpu, run_delays)),
            delay_ns: self.get(cpu, offset_of!(Cpu, run_delay_ns)),
            tick_max_ns: self.longest(cpu, RUN_DELAY_MAX).0,
        };
        out.events = Events {
            raise: self.get(cpu, offset_of!(Cpu, raises)),
            entry: handlers,
            exit: handlers,
            irq_entry: out.hardirq.count,
            irq_exit: out.hardirq.count,
            switch: self.get(cpu, offset_of!(Cpu, switches)),
            hrtimer: self.get(cpu, offset_of!(Cpu, hrtimers)),
            sample: self.get(cpu, offset_of!(Cpu, sampler_runs)),
        };
        true
    }

    fn read_vector(&self, cpu: u32, v: usize, out: &mut VectorStats) {
        let base = offset_of!(Cpu, vectors) + v * size_of::<Vector>();
        let get = |field| self.get(cpu, base + field);
        out.entered_ns = get(offset_of!(Vector, entered_ns));
        out.raised_ns = get(offset_of!(Vector, raised_ns));
        out.time_ns = get(offset_of!(Vector, time_ns));
        out.delay_ns = get(offset_of!(Vector, delay_ns));
        for i in 0..BUCKETS {
            out.hist[i] = get(offset_of!(Vector, hist) + i * 8);
            out.delay_hist[i] = get(offset_of!(Vector, delay_hist) + i * 8);
        }
        out.count = out.hist.iter().sum();
        out.delays = out.delay_hist.iter().sum();
        (out.tick_max_ns, out.max_ns) = self.longest(cpu, 2 * v);
        (out.delay_tick_max_ns, out.delay_max_ns) = self.longest(cpu, 2 * v + 1);
    }

    fn read_ksoftirqd(&mut self, cpu: u32, now_ns: u64) -> KsoftirqdStats {
        let since_at = offset_of!(Cpu, ksoftirqd_since_ns);
        let mut since_ns = self.get(cpu, since_at);
        let mut done = self.get(cpu, offset_of!(Cpu, ksoftirqd_ns));
        // The program clears `since` before it adds the run: read until both belong together.
        for _ in 0..4 {
            let again = self.get(cpu, since_at);
            if again == since_ns {
                break;
            }
            since_ns = again;
            done = self.get(cpu, offset_of!(Cpu, ksoftirqd_ns));
        }
        let in_progress = match since_ns {
            0 => 0,
            since => now_ns.saturating_sub(since),
        };
        // Between the program's two stores the run in progress is in neither word.
        let reported = &mut self.ksoftirqd_ns[cpu as usize];
        *reported = (*reported).max(done + in_progress);
        let time_ns = *reported;
        let (wait_tick_max_ns, wait_max_ns) = self.longest(cpu, WAIT_MAX);
        KsoftirqdStats {
            pid: self.get(cpu, offset_of!(Cpu, ksoftirqd_pid)) as u32,
            runs: self.get(cpu, offset_of!(Cpu, ksoftirqd_runs)),
            time_ns,
            since_ns,
            wait_ns: self.get(cpu, offset_of!(Cpu, ksoftirqd_wait_ns)),
            wait_max_ns,
            wait_tick_max_ns,
        }
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "plays the programs on memory of its own")]
mod tests {
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    use super::*;

    /// Counters of two CPUs over plain memory: the test plays the programs.
    fn cpus() -> Cpus {
        // SAFETY: a new descriptor of an anonymous file, sized before it is mapped.
        let fd = unsafe {
            let fd = libc::memfd_create(c"cpus".as_ptr(), 0);
            assert!(fd >= 0);
            assert_eq!(libc::ftruncate(fd, 2 * CPU_SIZE as i64), 0);
            OwnedFd::from_raw_fd(fd)
        };
        Cpus::map(fd.as_fd(), 2).unwrap()
    }

    const NET_RX: usize = 3;
    const MAX: usize =
        offset_of!(Cpu, vectors) + NET_RX * size_of::<Vector>() + offset_of!(Vector, max_ns);

    /// What the exit program does with a longest value, for the epoch it has read.
    fn run(cpus: &Cpus, epoch: u64, ns: u64) {
        let word = cpus.word(1, MAX + (epoch & 1) as usize * 8);
        word.fetch_max(ns, Ordering::Relaxed);
    }

    fn epoch(cpus: &Cpus) -> u64 {
        cpus.get(1, offset_of!(Cpu, epoch))
    }

    fn net_rx(cpus: &mut Cpus) -> VectorStats {
        let mut out = CpuStats::default();
        assert!(cpus.read(1, 0, &mut out));
        out.vectors[NET_RX]
    }

    #[test]
    fn a_tick_has_its_own_longest() {
        let mut cpus = cpus();
        for (ns, tick, ever) in [(50, 50, 50), (90, 90, 90), (20, 20, 90), (0, 0, 90)] {
            let now = epoch(&cpus);
            run(&cpus, now, ns);
            assert_eq!(net_rx(&mut cpus).max_ns, ever, "before the tick ends");
            cpus.flip_epoch();
            assert_eq!(net_rx(&mut cpus).tick_max_ns, tick);
            assert_eq!(net_rx(&mut cpus).max_ns, ever);
        }
        assert_eq!(net_rx(&mut cpus).delay_max_ns, 0);
    }

    #[test]
    fn a_program_caught_by_the_switch_counts_for_the_next_tick() {
        let mut cpus = cpus();
        let old = epoch(&cpus);
        run(&cpus, old, 10);
        cpus.flip_epoch();
        // Read the epoch before the switch, writes after it.
        run(&cpus, old, 70);
        let new = epoch(&cpus);
        run(&cpus, new, 30);
        assert_eq!(net_rx(&mut cpus).tick_max_ns, 10);
        cpus.flip_epoch();
        assert_eq!(net_rx(&mut cpus).tick_max_ns, 70);
        cpus.flip_epoch();
        assert_eq!(
            net_rx(&mut cpus).tick_max_ns,
            0,
            "and not for the one after it"
        );
        assert_eq!(net_rx(&mut cpus).max_ns, 70);
    }

    #[test]
    fn a_late_value_that_is_no_longer_than_the_one_read_is_not_told_twice() {
        let mut cpus = cpus();
        let old = epoch(&cpus);
        run(&cpus, old, 40);
        cpus.flip_epoch();
        run(&cpus, old, 40);
        cpus.flip_epoch();
        assert_eq!(net_rx(&mut cpus).tick_max_ns, 0);
    }

    #[test]
    fn ksoftirqd_counts_its_run_in_progress_and_never_falls() {
        let mut cpus = cpus();
        let mut out = CpuStats::default();
        cpus.set_ksoftirqd(1, 17);
        let set = |cpus: &Cpus, at, value| cpus.word(1, at).store(value, Ordering::Relaxed);
        let (since, done) = (
            offset_of!(Cpu, ksoftirqd_since_ns),
            offset_of!(Cpu, ksoftirqd_ns),
        );
        set(&cpus, since, 1_000);
        set(&cpus, done, 500);
        cpus.read(1, 1_300, &mut out);
        assert_eq!((out.ksoftirqd.time_ns, out.ksoftirqd.pid), (800, 17));
        // Switched out: the program has cleared `since` and not yet added the run.
        set(&cpus, since, 0);
        cpus.read(1, 1_350, &mut out);
        assert_eq!(out.ksoftirqd.time_ns, 800);
        set(&cpus, done, 850);
        cpus.read(1, 1_400, &mut out);
        assert_eq!(out.ksoftirqd.time_ns, 850);
        // A clock read before the run began takes nothing away.
        set(&cpus, since, 2_000);
        cpus.read(1, 1_900, &mut out);
        assert_eq!(out.ksoftirqd.time_ns, 850);
    }

    #[test]
    fn an_offline_cpu_forgets_what_was_pending_and_keeps_what_was_counted() {
        let mut cpus = cpus();
        let base = offset_of!(Cpu, vectors) + NET_RX * size_of::<Vector>();
        let set = |cpus: &Cpus, at, value| cpus.word(1, at).store(value, Ordering::Relaxed);
        set(&cpus, base + offset_of!(Vector, raised_ns), 5);
        set(&cpus, base + offset_of!(Vector, entered_ns), 6);
        set(&cpus, base + offset_of!(Vector, hist) + 8 * 10, 7);
        cpus.forget_pending(1);
        let vector = net_rx(&mut cpus);
        assert_eq!((vector.raised_ns, vector.entered_ns), (0, 0));
        assert_eq!((vector.count, vector.hist[10]), (7, 7));
    }

    #[test]
    fn there_is_no_cpu_beyond_the_last() {
        let mut cpus = cpus();
        let mut out = CpuStats::default();
        out.hardirq.count = 3;
        assert!(!cpus.read(2, 0, &mut out));
        assert_eq!(out.hardirq.count, 3);
        cpus.set_ksoftirqd(2, 1);
        cpus.forget_pending(u32::MAX);
    }
}
