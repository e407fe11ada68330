//! The process that makes trouble: a child of the self-test, so that stalltop judges somebody
//! else. Everything that it makes (sockets, network namespace, eBPF programs) ends with it, and
//! it ends with its parent.

mod irqs_off;
mod ksoftirqd;
mod network;
mod nft;
mod no_resched;
mod pending;
mod real_time;
mod waiter;

use std::ffi::CString;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity, set_name};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::plan::{self, Injector, Planned};

/// What a child is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// How.
    pub injector: Injector,
    /// On which CPU.
    pub cpu: u32,
    /// Injections of each class.
    pub count: u32,
    /// Of lengths and gaps.
    pub seed: u64,
}

impl Order {
    /// What it comes to.
    pub fn plan(&self) -> Vec<Planned> {
        plan::plan(self.seed, self.count, u64::MAX)
    }
}

/// A line of a child's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// All is loaded and set up; from now on there is trouble.
    Ready {
        /// The process.
        pid: u32,
    },
    /// Something was injected.
    Injected(Injected),
}

/// What was injected, by the injector's own clock. Times are `CLOCK_BOOTTIME`, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// From when on the CPU was disturbed at all; not after `begin_ns`.
    pub from_ns: u64,
    /// From when on it was what is to be detected.
    pub begin_ns: u64,
    /// Until when.
    pub end_ns: u64,
}

impl Injected {
    /// How long, ns.
    pub const fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.begin_ns)
    }
}

/// Makes trouble of one kind; one call is one injection of about that length.
trait Trouble {
    /// None where it did not come about: that is not counted.
    fn make(&mut self, duration_ns: u64) -> io::Result<Option<Injected>>;
}

/// Whether this host has the program that an injector needs, if any.
pub fn is_possible(injector: Injector) -> bool {
    injector != Injector::HandlerNft || nft::program().is_some()
}

/// Carries out an order in this process, which is to be a child made for nothing else.
///
/// # Errors
/// What the kernel refuses, with what it was about; a broken pipe where the parent went away.
pub fn run(order: &Order, out: &mut impl Write) -> io::Result<()> {
    // First: from here on this process ends with its parent, whatever happens to that.
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != parent {
        return Err(io::Error::other("the parent ended"));
    }
    set_name(&CString::new(order.injector.comm())?)?;
    let mut cpus = CpuSet::new();
    cpus.set(order.cpu as usize);
    sched_setaffinity(None, &cpus).map_err(about(format!("to run on CPU {}", order.cpu)))?;
    let mut trouble: Box<dyn Trouble> = match order.injector {
        Injector::Pending => Box::new(pending::Pending::new()?),
        Injector::Handler => Box::new(network::Handler::new()?),
        Injector::HandlerNft => Box::new(nft::Nft::new()?),
        Injector::Ksoftirqd => Box::new(ksoftirqd::Ksoftirqd::new()?),
        Injector::IrqsOff => Box::new(irqs_off::IrqsOff::new()?),
        Injector::NoResched => Box::new(no_resched::NoResched::new()?),
        Injector::RealTime => Box::new(real_time::RealTime::new()?),
    };
    say(
        out,
        &Line::Ready {
            pid: std::process::id(),
        },
    )?;
    for planned in order.plan() {
        std::thread::sleep(Duration::from_nanos(planned.gap_ns));
        if let Some(injected) = trouble.make(planned.duration_ns)? {
            say(out, &Line::Injected(injected))?;
        }
    }
    Ok(())
}

fn say(out: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Adds what was tried to an error.
pub(super) fn about<E: Into<io::Error>>(what: impl Display) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let error = error.into();
        io::Error::new(error.kind(), format!("{what}: {error}"))
    }
}

/// Now, ns.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
