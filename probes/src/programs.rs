//! The programs of the object: one row each, and how each of them fares on this host.

use std::fmt;

use crate::btf;

/// How a program is loaded and attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `raw_tracepoint`: its arguments are scalars, so it needs no BTF.
    RawTp,
    /// `tp_btf`: follows typed pointers, needs the kernel's BTF.
    TpBtf,
    /// `perf_event`: loaded with the others, and run by the events that
    /// [`Sampler`](crate::Sampler) opens.
    PerfEvent,
}

/// One row of [`PROGRAMS`].
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Name of the program, in the object and (cut to 15 bytes) in the kernel.
    pub name: &'static str,
    /// The tracepoint it is attached to; of a `perf_event` program the event.
    pub tracepoint: &'static str,
    /// How it is attached.
    pub kind: Kind,
    /// What it measures.
    pub measures: &'static str,
    /// What it needs of the kernel.
    pub needs: &'static str,
    /// Programs without which this one would measure nothing, or something false.
    pub with: &'static [&'static str],
    /// What is shown in its place when it is not attached.
    pub replaced_by: &'static str,
    /// Whether it does nothing but find stalls: left out where no thresholds are given.
    pub only_stalls: bool,
}

/// Every program that runs on a live host, in the order of attaching: exit before entry before
/// raise, because a stamp that nobody clears would later show as a delay of seconds.
pub const PROGRAMS: &[Spec] = &[
    Spec {
        name: "softirq_exit",
        tracepoint: "softirq_exit",
        kind: Kind::RawTp,
        measures: "softirq count, service time, longest and histogram per vector",
        needs: "Linux 5.10, CAP_BPF and CAP_PERFMON",
        with: &["softirq_entry"],
        replaced_by: "counts from /proc/softirqs, time from the softirq column of /proc/stat",
        only_stalls: false,
    },
    Spec {
        name: "softirq_entry",
        tracepoint: "softirq_entry",
        kind: Kind::RawTp,
        measures: "start of a handler; raise-to-entry delay, longest and histogram per vector",
        needs: "Linux 5.10, CAP_BPF and CAP_PERFMON",
        with: &["softirq_exit"],
        replaced_by: "counts from /proc/softirqs, time from the softirq column of /proc/stat",
        only_stalls: false,
    },
    Spec {
        name: "softirq_raise",
        tracepoint: "softirq_raise",
        kind: Kind::RawTp,
        measures: "start of the raise-to-entry delay",
        needs: "Linux 5.10, CAP_BPF and CAP_PERFMON",
        with: &["softirq_entry"],
        replaced_by: "ksoftirqd's run-queue delay from /proc/PID/schedstat",
        only_stalls: false,
    },
    Spec {
        name: "irq_handler_exit",
        tracepoint: "irq_handler_exit",
        kind: Kind::RawTp,
        measures: "hard interrupt handlers: count, time and longest, without timers and IPIs",
        needs: "Linux 5.10, CAP_BPF and CAP_PERFMON",
        with: &["irq_handler_entry"],
        replaced_by: "counts from /proc/interrupts, time from the irq column of /proc/stat",
        only_stalls: false,
    },
    Spec {
        name: "irq_handler_entry",
        tracepoint: "irq_handler_entry",
        kind: Kind::RawTp,
        measures: "start of a hard interrupt handler",
        needs: "Linux 5.10, CAP_BPF and CAP_PERFMON",
        with: &["irq_handler_exit"],
        replaced_by: "counts from /proc/interrupts, time from the irq column of /proc/stat",
        only_stalls: false,
    },
    Spec {
        name: "sched_switch",
        tracepoint: "sched_switch",
        kind: Kind::TpBtf,
        measures: "run-queue delay of every task; ksoftirqd: time running, runs, time runnable but \
                   not running; tasks that keep the CPU",
        needs: "Linux 5.10, CAP_BPF and CAP_PERFMON, /sys/kernel/btf/vmlinux",
        with: &[],
        replaced_by: "ksoftirqd's /proc/PID/schedstat",
        only_stalls: false,
    },
    Spec {
        name: "hrtimer_expire_entry",
        tracepoint: "hrtimer_expire_entry",
        kind: Kind::TpBtf,
        measures: "what each CPU runs, at the scheduler's tick; interrupts that were off",
        needs: "Linux 5.10, CAP_BPF and CAP_PERFMON, /sys/kernel/btf/vmlinux, /proc/kallsyms with \
                addresses (CAP_SYSLOG, kernel.kptr_restrict below 2)",
        with: &["sched_switch"],
        replaced_by: "stalls without a culprit; interrupts off only while the sampler runs",
        only_stalls: true,
    },
    Spec {
        name: "sample",
        tracepoint: "cpu-clock",
        kind: Kind::PerfEvent,
        measures: "what a CPU runs, 1,000 times a second, while somebody looks",
        needs: "Linux 5.10, CAP_BPF and CAP_PERFMON",
        with: &["sched_switch"],
        replaced_by: "what each CPU runs at the scheduler's tick only",
        only_stalls: true,
    },
];

/// At which step a program failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The committed object could not be parsed or relocated.
    Object,
    /// The map could not be created or mapped.
    Map,
    /// The kernel's BTF is missing or lacks a type.
    Btf,
    /// An address is missing in /proc/kallsyms, or hidden.
    Symbols,
    /// The kernel or its verifier refused the program.
    Load,
    /// The tracepoint does not exist or refused the program.
    Attach,
    /// A program that this one needs beside it is not attached.
    With,
}

/// Why a program is not attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step that failed.
    pub step: Step,
    /// The kernel's errno, where there is one.
    pub errno: Option<i32>,
    /// The verifier's last line, the missing type, the missing program.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Object => "object",
            Step::Map => "map",
            Step::Btf => "BTF",
            Step::Symbols => "kallsyms",
            Step::Load => "load",
            Step::Attach => "attach",
            Step::With => "needs",
        };
        write!(f, "{step}: {}", self.detail)?;
        if let Some(errno) = self.errno {
            write!(f, " ({})", std::io::Error::from_raw_os_error(errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<btf::Error> for Failure {
    fn from(error: btf::Error) -> Self {
        Self {
            step: Step::Btf,
            errno: None,
            detail: error.to_string(),
        }
    }
}

/// How one program fares.
#[derive(Clone, Debug)]
pub struct Health {
    /// Its row in the table.
    pub spec: &'static Spec,
    /// The kernel's id of the program while it is attached; of a `perf_event` program while it is
    /// loaded.
    pub attached: Result<u32, Failure>,
    /// A part of it that is left out although it is attached, and why.
    pub partial: Option<Failure>,
}
