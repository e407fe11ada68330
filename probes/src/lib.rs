//! Loads stalltop's eBPF object, reads its counters, and asks the kernel what BPF is loaded.
//!
//! - [`Probes::load`] attaches what the host allows. It never fails as a whole: [`Probes::health`]
//!   says of every program of [`PROGRAMS`] whether it is attached or why not.
//! - [`Cpus`] reads the counters from a shared mapping, without system calls or allocation.
//! - [`Stalls`] hands out what was a stall, and the samples of what the CPU ran meanwhile.
//! - [`Samples`] hands out every sample, to any number of readers.
//! - [`LockTracer`] measures the waits for the kernel's locks, while it is attached.
//! - [`Descriptors`] finds who holds what, by an iterator that runs only while it is read.
//! - [`sys`] is bpf(2) itself: ids, what is attached where, names as bpftool prints them.
//! - [`btf`] finds field offsets in the running kernel's types.
//!
//! The scalar-argument programs are attached as raw tracepoints, which need no BTF; only
//! `sched_switch`, which follows `task_struct`, is a `tp_btf` program. Both kinds cost the same:
//! the kernel calls them through the same function (`__bpf_trace_run`, kernel/trace/bpf_trace.c).
//!
//! Nothing is lost on the kernels tested (5.10, 6.1, 6.12: counts equal those of /proc/softirqs),
//! with one exception that no BPF tool can help: the kernel of a hosted machine may keep BPF
//! programs from running while a task of the host's agent is current, without counting a miss.
//! Comparing [`VectorStats::count`] with /proc/softirqs shows it.

mod ask;
pub mod btf;
mod cpus;
mod globals;
mod held;
mod host;
mod locks;
mod object;
mod probes;
mod programs;
mod ring;
mod samples;
mod stalls;
mod symbols;
pub mod sys;

pub use ask::{own_tgid, resched_bits};
pub use cpus::{CpuStats, Cpus, Events, HardirqStats, KsoftirqdStats, RunDelay, VectorStats};
pub use held::{Descriptors, HOLDERS, MAX_DESCRIPTORS};
pub use locks::{
    KindWaits, LOCK_CONTENTION, LockCounts, LockOptions, LockRuns, LockTracer, LockWaits, Waits,
};
pub use probes::{LoadTimes, Options, Probes};
pub use programs::{Failure, Health, Kind, PROGRAMS, Spec, Step};
pub use samples::Samples;
pub use stalls::{SAMPLES_PER_SECOND, Sampler, Stalls, Thresholds};
pub use stalltop_wire as wire;
pub use stalltop_wire::lock::LockWait;
pub use stalltop_wire::stall::{StackSample, StallEvent};
