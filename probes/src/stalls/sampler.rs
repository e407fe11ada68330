//! The sampler: a perf event per CPU that runs the program `sample` 1,000 times a second.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stalltop_wire::{CPU_SIZE, Cpu};

use crate::sys::mapping::Mapping;
use crate::sys::perf::{self, Clock};

/// How often the sampler looks at each CPU that it runs on.
pub const SAMPLES_PER_SECOND: u64 = 1_000;

/// How many samples the scheduler's tick takes of a busy CPU, without one of the sampler's, until
/// the sampler has stopped: it looks at least once between two ticks, throttled or not.
const MISSED: u64 = 8;

/// A CPU that is sampled.
struct Session {
    /// Closed with the session, which ends it.
    _event: OwnedFd,
    /// The counters of its CPU when the sampler was last seen to run.
    seen: Counters,
}

/// How many samples there are of a CPU, the tick's included, and how often the sampler looked at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    samples: u64,
    runs: u64,
}

impl Counters {
    fn read(cpus: &Mapping, cpu: u32) -> Self {
        let get = |field| cpus.get(cpu as usize * CPU_SIZE + field);
        Self {
            samples: get(offset_of!(Cpu, samples)),
            runs: get(offset_of!(Cpu, sampler_runs)),
        }
    }

    /// Takes later counters; gives whether the sampler missed what the tick saw.
    fn missed(&mut self, now: Self) -> bool {
        if self.runs != now.runs {
            *self = now;
        }
        now.samples.wrapping_sub(self.samples) >= MISSED
    }
}

/// Starts and stops sampling, CPU by CPU.
///
/// Each sample is an interrupt, and that, not the program, is what it costs: about 2 % of a CPU on
/// a virtual machine. So it runs only while it is needed.
pub struct Sampler {
    program: Result<OwnedFd, String>,
    nmi: bool,
    sessions: Vec<Option<Session>>,
    cpus: Arc<Mapping>,
}

impl Sampler {
    pub(super) fn new(
        program: Result<OwnedFd, String>,
        nmi: bool,
        possible: u32,
        cpus: Arc<Mapping>,
    ) -> Self {
        Self {
            program,
            nmi,
            sessions: (0..possible).map(|_| None).collect(),
            cpus,
        }
    }

    /// A sampler for another thread. They know nothing of each other: a CPU that both sample is sampled
    /// twice as often.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn another(&self) -> io::Result<Self> {
        let program = match &self.program {
            Ok(program) => Ok(program.try_clone()?),
            Err(why) => Err(why.clone()),
        };
        let possible = self.sessions.len() as u32;
        Ok(Self::new(
            program,
            self.nmi,
            possible,
            Arc::clone(&self.cpus),
        ))
    }

    /// Starts sampling a CPU: who is on another one spins in the kernel for as long as that one has
    /// interrupts off, as for [`Sampler::stop`]. Nothing happens where it runs already. A CPU that goes offline takes
    /// its event with it, and does not bring it back: see [`Sampler::has_stopped`].
    ///
    /// # Errors
    /// The kernel's answer: `ENODEV` for a CPU that is not online; `Unsupported` with the reason
    /// where the program could not be loaded.
    pub fn start(&mut self, cpu: u32) -> io::Result<()> {
        let program = self
            .program
            .as_ref()
            .map_err(|why| io::Error::new(io::ErrorKind::Unsupported, why.clone()))?;
        let Some(slot) = self.sessions.get_mut(cpu as usize) else {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        };
        if slot.is_some() {
            return Ok(());
        }
        let clock = if self.nmi { Clock::Cycles } else { Clock::Cpu };
        let event = perf::open(clock, cpu, SAMPLES_PER_SECOND)?;
        // What the last session left says nothing about when the first sample of this one is due.
        // The program does not run on this CPU now, so nobody else writes the word.
        self.cpus
            .word(cpu as usize * CPU_SIZE + offset_of!(Cpu, sampled_ns))
            .store(0, Ordering::Relaxed);
        let seen = Counters::read(&self.cpus, cpu);
        perf::run(event.as_fd(), program.as_fd())?;
        *slot = Some(Session {
            _event: event,
            seen,
        });
        Ok(())
    }

    /// Stops sampling a CPU.
    pub fn stop(&mut self, cpu: u32) {
        if let Some(session) = self.sessions.get_mut(cpu as usize) {
            *session = None;
        }
    }

    /// Whether a CPU was started and not stopped.
    #[must_use]
    pub fn running(&self, cpu: u32) -> bool {
        self.sessions.get(cpu as usize).is_some_and(Option::is_some)
    }

    /// Whether the event of a CPU that is [`running`](Self::running) samples it no longer, although
    /// something runs there: it was offline for a moment. The kernel takes the event off a CPU that
    /// goes offline and leaves its descriptor as it was (`perf_event_exit_cpu`, kernel/events/core.c);
    /// asking the descriptor would interrupt that CPU, which may have interrupts off. Found out from
    /// shared memory instead: the tick's samples go on. Where the tick takes none
    /// (`hrtimer_expire_entry` could not be attached), this stays false.
    pub fn has_stopped(&mut self, cpu: u32) -> bool {
        let Some(Some(session)) = self.sessions.get_mut(cpu as usize) else {
            return false;
        };
        session.seen.missed(Counters::read(&self.cpus, cpu))
    }

    /// Whether the samples are non-maskable interrupts: they see what runs while interrupts are
    /// off, and say nothing about whether they are.
    #[must_use]
    pub fn nmi(&self) -> bool {
        self.nmi
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_has_stopped_where_the_tick_alone_sees_what_runs() {
        let mut seen = Counters {
            samples: 100,
            runs: 40,
        };
        let mut missed = |samples, runs| seen.missed(Counters { samples, runs });
        // Idle, then busy for less than it takes.
        assert!(!missed(100, 40));
        assert!(!missed(107, 40));
        // The sampler was late, not gone; and it also looks at the idle task.
        assert!(!missed(150, 41));
        assert!(!missed(150, 1_041));
        assert!(!missed(157, 1_041));
        assert!(missed(158, 1_041));
        assert!(missed(158, 1_041));
        // Counters of a CPU are never set back; where they are, they say nothing.
        assert!(!missed(158, 0));
    }
}
