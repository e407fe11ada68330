//! Values of the object's read-only globals: what the programs must know of the running kernel.

use std::path::Path;

use stalltop_wire::stall::{self, StackSample, threshold};
use stalltop_wire::{address, arch, offset};

use crate::btf::{self, Btf};
use crate::programs::{Failure, Step};
use crate::stalls::Thresholds;
use crate::symbols::Symbols;

/// Names and values.
pub(crate) type Globals = Vec<(&'static str, u64)>;

/// Bytes that the samples of all CPUs together may take, and how many samples a CPU has at the
/// least and at the most.
const SAMPLES_BYTES: usize = 20 * 1024 * 1024;
const SLOTS: (u64, u64) = (64, 512);

/// Offsets of fields by the kernel's BTF, and what is missing.
pub(crate) struct Offsets {
    pub(crate) globals: Globals,
    /// Why there is no run-queue delay, and nobody is known to have waited for whom.
    pub(crate) clock: Option<Failure>,
    /// Why the tick cannot be told from other timers.
    pub(crate) timer: Result<(), Failure>,
    /// Why nobody can be seen to keep the CPU.
    pub(crate) resched: Option<Failure>,
}

const CLOCK: &[(&str, &str, &str)] = &[
    (
        offset::TASK_LAST_QUEUED,
        "task_struct",
        "sched_info.last_queued",
    ),
    (offset::TASK_CFS_RQ, "task_struct", "se.cfs_rq"),
    (offset::CFS_RQ_RQ, "cfs_rq", "rq"),
    (offset::RQ_CLOCK, "rq", "clock"),
    (offset::TASK_PRIO, "task_struct", "prio"),
    (offset::TASK_POLICY, "task_struct", "policy"),
];
const TIMER: &[(&str, &str, &str)] = &[
    (offset::HRTIMER_FUNCTION, "hrtimer", "function"),
    (offset::HRTIMER_EXPIRES, "hrtimer", "node.expires"),
];
const RESCHED: &[(&str, &str, &str)] =
    &[(offset::TASK_TI_FLAGS, "task_struct", "thread_info.flags")];
/// Only with CONFIG_PARAVIRT_TIME_ACCOUNTING.
const STEAL: &[(&str, &str, &str)] = &[(offset::RQ_STEAL, "rq", "prev_steal_time_rq")];

impl Offsets {
    /// Finds the offsets. A group of which one is missing is left out as a whole.
    ///
    /// # Errors
    /// `task_struct.pid` is missing: nothing works without it.
    pub(crate) fn find(btf: &Btf<'_>) -> Result<Self, Failure> {
        let failure = |e: btf::Error| Failure {
            step: Step::Btf,
            errno: None,
            detail: e.to_string(),
        };
        let pid = btf.field("task_struct", "pid").map_err(failure)?;
        let mut globals = vec![(offset::TASK_PID, pid)];
        let mut group = |fields: &[(&'static str, &str, &str)]| {
            let found = fields
                .iter()
                .map(|(global, structure, path)| Ok((*global, btf.field(structure, path)?)))
                .collect::<Result<Globals, _>>()
                .map_err(failure)?;
            globals.extend(found);
            Ok(())
        };
        let clock = group(CLOCK).err();
        let timer = group(TIMER);
        let resched = group(RESCHED).err();
        // Where it is missing, the samples say so.
        let _ = group(STEAL);
        Ok(Self {
            globals,
            clock,
            timer,
            resched,
        })
    }
}

/// Samples per CPU.
pub(crate) fn slots(possible_cpus: u32) -> u64 {
    let fit = SAMPLES_BYTES / size_of::<StackSample>() / possible_cpus.max(1) as usize;
    // The greatest power of two that is not greater.
    (1 << fit.max(1).ilog2()).clamp(SLOTS.0, SLOTS.1)
}

/// What the programs need to find stalls.
pub(crate) fn stalls(
    thresholds: &Thresholds,
    symbols: Option<&Symbols>,
    slots: u64,
    nmi: bool,
    need_resched: u64,
) -> Globals {
    let or_never = |ns| if ns == 0 { u64::MAX } else { ns };
    let symbols = symbols.copied().unwrap_or_default();
    let arch = std::env::consts::ARCH;
    vec![
        (threshold::PENDING, or_never(thresholds.pending_ns)),
        (
            threshold::DELAY,
            or_never(thresholds.pending_ns).min(or_never(thresholds.ksoftirqd_ns)),
        ),
        (threshold::HANDLER, or_never(thresholds.handler_ns)),
        (threshold::KSOFTIRQD, or_never(thresholds.ksoftirqd_ns)),
        (threshold::IRQS_OFF, or_never(thresholds.irqs_off_ns)),
        (threshold::RESCHED, or_never(thresholds.resched_ns)),
        (threshold::REAL_TIME, or_never(thresholds.real_time_ns)),
        (stall::SAMPLE_SLOTS, slots),
        (stall::SAMPLER_NMI, u64::from(nmi)),
        (stall::NEED_RESCHED, need_resched),
        (address::TICK_NOHZ_HANDLER, symbols.tick_nohz_handler),
        (address::TICK_SCHED_TIMER, symbols.tick_sched_timer),
        (address::ENTRY_START, symbols.entry[0]),
        (address::ENTRY_END, symbols.entry[1]),
        (
            arch::GLOBAL,
            match arch {
                "x86_64" => arch::X86_64,
                "aarch64" => arch::ARM64,
                _ => arch::OTHER,
            },
        ),
    ]
}

/// The two first numbers of a kernel release such as `6.1.0-56-cloud-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or_default());
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    )
}

/// The bits of `thread_info.flags` that ask for a reschedule: `TIF_NEED_RESCHED`, and where there is
/// one `TIF_NEED_RESCHED_LAZY`; `None` where unknown. They are macros, so BTF does not have them.
/// `seen` are those that the kernel was seen to set, one of the two or both.
pub(crate) fn need_resched(root: &Path, seen: Option<u64>) -> Option<u64> {
    let release = std::fs::read_to_string(root.join("proc/sys/kernel/osrelease"));
    let version = version(release.as_deref().unwrap_or_default());
    bits(std::env::consts::ARCH, version, seen)
}

fn bits(arch: &str, version: (u32, u32), seen: Option<u64>) -> Option<u64> {
    /// include/asm-generic/thread_info_tif.h, which the architectures move to one by one.
    const GENERIC: u64 = 1 << 4 | 1 << 5;
    /// arch/x86/include/asm/thread_info.h; before 6.13 bit 4 is TIF_SINGLESTEP.
    const X86: u64 = 1 << 3 | 1 << 4;
    /// arch/arm64/include/asm/thread_info.h; before 6.16 bit 2 is TIF_NOTIFY_RESUME.
    const ARM64: u64 = 1 << 1 | 1 << 2;
    let (expected, own) = match arch {
        "x86_64" if version >= (6, 18) => (Some(GENERIC), X86),
        "x86_64" if version >= (6, 13) => (Some(X86), X86),
        "x86_64" => (Some(1 << 3), X86),
        "aarch64" if version >= (6, 16) => (Some(ARM64), ARM64),
        "aarch64" => (Some(1 << 1), ARM64),
        _ => (None, GENERIC),
    };
    let Some(seen) = seen else { return expected };
    let fits = |bits: &u64| seen & !bits == 0;
    // A distribution's kernel may have another layout than its version says. Where two are possible,
    // what was seen is certain.
    let other = || match (fits(&GENERIC), fits(&own)) {
        (true, false) => GENERIC,
        (false, true) => own,
        (true, true) if own == GENERIC => GENERIC,
        _ => seen,
    };
    Some(expected.filter(fits).unwrap_or_else(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cpus_together_stay_within_the_memory() {
        for (cpus, expected) in [
            (1, 512),
            (2, 512),
            (64, 512),
            (65, 256),
            (96, 256),
            (256, 128),
            (512, 64),
            (4096, 64),
        ] {
            assert_eq!(slots(cpus), expected, "{cpus} CPUs");
        }
    }

    #[test]
    fn the_bits_follow_the_version() {
        assert_eq!(version("6.18.44-fc-v657\n"), (6, 18));
        assert_eq!(version("5.10.0-46-cloud-amd64"), (5, 10));
        assert_eq!(version("7.2-rc1"), (7, 2));
        assert_eq!(version(""), (0, 0));
        assert_eq!(bits("x86_64", (6, 18), None), Some(0x30));
        assert_eq!(bits("x86_64", (6, 17), None), Some(0x18));
        assert_eq!(bits("x86_64", (6, 12), None), Some(0x08));
        assert_eq!(bits("aarch64", (6, 1), None), Some(0x02));
        assert_eq!(bits("riscv64", (6, 18), None), None);
    }

    #[test]
    fn what_the_kernel_was_seen_to_set_goes_before_its_version() {
        // As expected: the bit that was not seen belongs to it.
        assert_eq!(bits("x86_64", (6, 18), Some(0x10)), Some(0x30));
        assert_eq!(bits("x86_64", (6, 17), Some(0x10)), Some(0x18));
        // A backport of the generic bits, and one that was undone.
        assert_eq!(bits("x86_64", (6, 17), Some(0x20)), Some(0x30));
        assert_eq!(bits("x86_64", (6, 18), Some(0x08)), Some(0x18));
        // The generic one, or the lazy one of x86's own.
        assert_eq!(bits("x86_64", (6, 12), Some(0x10)), Some(0x10));
        // arm64 once it has moved.
        assert_eq!(bits("aarch64", (7, 4), Some(0x10)), Some(0x30));
        assert_eq!(bits("aarch64", (7, 4), Some(0x02)), Some(0x06));
        // Nothing known: what was seen, and no more.
        assert_eq!(bits("riscv64", (6, 18), Some(0x20)), Some(0x30));
        assert_eq!(bits("x86_64", (6, 18), Some(0x82)), Some(0x82));
    }

    #[test]
    fn off_is_never() {
        let thresholds = Thresholds {
            pending_ns: 0,
            handler_ns: 7,
            ..Thresholds::default()
        };
        let globals = stalls(&thresholds, None, 64, false, 0);
        assert!(globals.contains(&(threshold::PENDING, u64::MAX)));
        assert!(globals.contains(&(threshold::HANDLER, 7)));
    }
}
