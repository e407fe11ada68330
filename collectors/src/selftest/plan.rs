//! What is injected: pure, and the same for the same seed.

use serde::{Deserialize, Serialize};
use stalltop_model::sample::StallKind;

/// Ways to make trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Injector {
    /// A process keeps bottom halves off while NET_RX is pending.
    Pending,
    /// A NET_RX handler takes long: in an eBPF socket filter.
    Handler,
    /// A NET_RX handler takes long: in nftables rules.
    HandlerNft,
    /// ksoftirqd was woken, and a process with real-time priority that keeps bottom halves off
    /// has its CPU.
    Ksoftirqd,
    /// A process keeps interrupts off: in an eBPF program on a tracepoint.
    IrqsOff,
    /// A process stays in the kernel although another is to run.
    NoResched,
    /// A process with real-time priority keeps the CPU while another waits.
    RealTime,
}

impl Injector {
    /// All, in the order in which they run.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Handler,
        Self::HandlerNft,
        Self::Ksoftirqd,
        Self::IrqsOff,
        Self::NoResched,
        Self::RealTime,
    ];

    /// Its name on a command line and in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Handler => "handler",
            Self::HandlerNft => "handler-nft",
            Self::Ksoftirqd => "ksoftirqd",
            Self::IrqsOff => "irqs-off",
            Self::NoResched => "no-resched",
            Self::RealTime => "real-time",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.as_str() == name)
    }

    /// What it does, in one line.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Pending => "a process keeps bottom halves off while NET_RX is pending",
            Self::Handler => "a NET_RX handler takes long in a socket filter",
            Self::HandlerNft => "a NET_RX handler takes long in 20,000 nftables rules",
            Self::Ksoftirqd => "ksoftirqd is woken and does not get its CPU",
            Self::IrqsOff => "a process keeps interrupts off in a program on a tracepoint",
            Self::NoResched => "a process stays in the kernel although another is to run",
            Self::RealTime => "a real-time process keeps the CPU while another one waits",
        }
    }

    /// The comm of the process that does it: 15 bytes at most.
    pub const fn comm(self) -> &'static str {
        match self {
            Self::Pending => "st-pending",
            Self::Handler => "st-handler",
            Self::HandlerNft => "st-handler-nft",
            Self::Ksoftirqd => "st-ksoftirqd",
            Self::IrqsOff => "st-irqs-off",
            Self::NoResched => "st-no-resched",
            Self::RealTime => "st-real-time",
        }
    }

    /// What the kernel function that a row names contains where it is right: functions of the
    /// operation, from the program that spins out to the system call's own.
    pub const fn functions(self) -> &'static [&'static str] {
        match self {
            Self::Pending => &["st_pending", "bpf_test_run", "bpf_prog_test_run"],
            Self::Handler => &["st_handler", "sk_filter_trim_cap", "udp_"],
            Self::HandlerNft => &["nft_"],
            Self::Ksoftirqd => &["st_ksoftirqd", "bpf_test_run", "bpf_prog_test_run"],
            Self::IrqsOff => &["st_irqs_off", "send_signal", "send_sig_info", "kill_"],
            Self::NoResched => &["st_no_resched", "bpf_prog_test_run"],
            // But for the call that wakes the one that waits it is in user space.
            Self::RealTime => &["futex"],
        }
    }

    /// The kinds of rows that tell of it, the proper one first.
    pub const fn kinds(self) -> &'static [StallKind] {
        match self {
            Self::Pending => &[StallKind::SoftirqPending],
            Self::Handler | Self::HandlerNft => &[StallKind::SoftirqHandler],
            Self::Ksoftirqd => &[StallKind::KsoftirqdWaiting, StallKind::SoftirqPending],
            Self::IrqsOff => &[StallKind::InterruptsOff],
            Self::NoResched => &[StallKind::NoReschedule],
            Self::RealTime => &[StallKind::RealTime],
        }
    }
}

/// Classes of length, as the promises have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// 5 to 10 ms.
    #[serde(rename = "5 to 10 ms")]
    Short,
    /// 10 ms and more.
    #[serde(rename = "10 ms and more")]
    Long,
}

impl Class {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Short, Self::Long];

    /// The class of a length; none below the shortest.
    pub const fn of(duration_ns: u64) -> Option<Self> {
        match duration_ns {
            0..5_000_000 => None,
            5_000_000..10_000_000 => Some(Self::Short),
            _ => Some(Self::Long),
        }
    }

    /// As in a table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "5-10 ms",
            Self::Long => ">=10 ms",
        }
    }

    /// From and to what length is asked for, ns. A little off the edges: what is injected
    /// is a little longer than what is asked for.
    pub const fn range(self) -> (u64, u64) {
        match self {
            Self::Short => (5_300_000, 9_700_000),
            Self::Long => (10_100_000, 40_000_000),
        }
    }
}

/// One injection to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Idle time before it, ns.
    pub gap_ns: u64,
    /// How long it is to be, ns.
    pub duration_ns: u64,
}

/// The shortest and longest idle time between two injections, ns: longer than a tick and
/// than a 1 kHz sampler needs, not a multiple of either.
const GAP: (u64, u64) = (30_000_000, 90_000_000);

/// `count` injections of each class, mixed, with random lengths and gaps.
pub fn plan(seed: u64, count: u32, longest_ns: u64) -> Vec<Planned> {
    let mut random = Random(seed);
    let mut classes: Vec<Class> = Class::ALL
        .into_iter()
        .flat_map(|class| std::iter::repeat_n(class, count as usize))
        .collect();
    for i in (1..classes.len()).rev() {
        classes.swap(i, random.between(0, i as u64) as usize);
    }
    classes
        .into_iter()
        .map(|class| {
            let (least, most) = class.range();
            Planned {
                gap_ns: random.between(GAP.0, GAP.1),
                duration_ns: random.between(least, most.min(longest_ns).max(least)),
            }
        })
        .collect()
}

/// How long a plan takes, ns.
pub fn length_ns(plan: &[Planned]) -> u64 {
    plan.iter().map(|p| p.gap_ns + p.duration_ns).sum()
}

/// splitmix64 (Steele, Lea and Flood, 2014): good enough for gaps, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Both ends included; the bias of the remainder does not matter here.
    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_both_classes_and_is_the_same_for_the_same_seed() {
        let one = plan(7, 50, u64::MAX);
        assert_eq!(one, plan(7, 50, u64::MAX));
        assert_ne!(one, plan(8, 50, u64::MAX));
        for class in Class::ALL {
            let of_class = one
                .iter()
                .filter(|p| Class::of(p.duration_ns) == Some(class));
            assert_eq!(of_class.count(), 50, "{class:?}");
        }
        assert!(one.iter().all(|p| (GAP.0..=GAP.1).contains(&p.gap_ns)));
        // Mixed: the first half is not all of one class.
        let first = Class::of(one[0].duration_ns);
        assert!(one[..50].iter().any(|p| Class::of(p.duration_ns) != first));
    }

    #[test]
    fn no_injection_is_longer_than_the_injector_can_make() {
        let bounded = plan(1, 20, 18_000_000);
        assert!(bounded.iter().all(|p| p.duration_ns <= 18_000_000));
        // A bound below the class keeps the class's shortest: what is made is measured.
        assert!(plan(1, 5, 0).iter().all(|p| p.duration_ns >= 5_300_000));
    }

    #[test]
    fn names_are_distinct_and_fit_a_comm() {
        for injector in Injector::ALL {
            assert!(injector.comm().len() <= 15);
            assert_eq!(Injector::from_name(injector.as_str()), Some(injector));
            let same = Injector::ALL.iter().filter(|i| i.comm() == injector.comm());
            assert_eq!(same.count(), 1);
        }
        assert_eq!(Injector::from_name("x"), None);
        assert_eq!(Class::of(4_999_999), None);
    }
}
