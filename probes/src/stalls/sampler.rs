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

/// Starts and stops sampling, CPU by CPU.
///
/// Each sample is an interrupt, and that, not the program, is what it costs: about 2 % of a CPU on
/// a virtual machine. So it runs only while it is needed.
pub struct Sampler {
    program: Result<OwnedFd, String>,
    nmi: bool,
    events: Vec<Option<OwnedFd>>,
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
            events: (0..possible).map(|_| None).collect(),
            cpus,
        }
    }

    /// Starts sampling a CPU; nothing happens where it runs already. A CPU that goes offline takes
    /// its event with it: stop it then, and start it when it is back.
    ///
    /// # Errors
    /// The kernel's answer: `ENODEV` for a CPU that is not online; `Unsupported` with the reason
    /// where the program could not be loaded.
    pub fn start(&mut self, cpu: u32) -> io::Result<()> {
        let program = self
            .program
            .as_ref()
            .map_err(|why| io::Error::new(io::ErrorKind::Unsupported, why.clone()))?;
        let Some(slot) = self.events.get_mut(cpu as usize) else {
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
        perf::run(event.as_fd(), program.as_fd())?;
        *slot = Some(event);
        Ok(())
    }

    /// Stops sampling a CPU.
    pub fn stop(&mut self, cpu: u32) {
        if let Some(event) = self.events.get_mut(cpu as usize) {
            *event = None;
        }
    }

    /// Whether a CPU is being sampled.
    #[must_use]
    pub fn running(&self, cpu: u32) -> bool {
        self.events.get(cpu as usize).is_some_and(Option::is_some)
    }

    /// Whether the samples are non-maskable interrupts: they see what runs while interrupts are
    /// off, and say nothing about whether they are.
    #[must_use]
    pub fn nmi(&self) -> bool {
        self.nmi
    }
}
