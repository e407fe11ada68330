//! From when on something is a stall: what was asked for, or what fits the machine.

use std::time::Duration;

use stalltop_model::sample::StallKind;
use stalltop_model::{Name, Reading, Reason};

/// The shortest threshold: below it, ordinary work of a healthy kernel would be told.
pub const LEAST: Duration = Duration::from_millis(1);
/// The longest threshold: the kernel's own watchdogs speak up at about this time
/// (`watchdog_thresh`, kernel/watchdog.c).
pub const MOST: Duration = Duration::from_secs(10);

/// The default on bare metal.
const BARE_METAL: Duration = Duration::from_millis(5);
/// The default on a virtual machine: its host's scheduler takes the CPU away for a few
/// milliseconds at a time, which would be told otherwise.
const VIRTUAL: Duration = Duration::from_millis(10);
/// The shortest for [`StallKind::RealTime`] that holds without being named: real-time tasks are meant
/// to go first, and for some ten milliseconds many of them ordinarily do.
const REAL_TIME: Duration = Duration::from_millis(100);

/// What a person asked for, of one kind or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A stall from this time on, [`LEAST`] to [`MOST`].
    From(Duration),
    /// Not watched.
    Off,
}

/// Everything that a person asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Of all kinds that [`kinds`](Self::kinds) leaves open.
    pub all: Option<Ask>,
    /// Of each kind, in the order of [`StallKind::ALL`].
    pub kinds: [Option<Ask>; StallKind::ALL.len()],
    /// The words that said so, as in `--stall 5ms`.
    pub words: String,
}

/// The thresholds in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// From when on each kind is a stall, ns, in the order of [`StallKind::ALL`]; or that it
    /// was switched off.
    pub kinds: [Reading<u64>; StallKind::ALL.len()],
    /// Where they come from, in words.
    pub chosen: Name,
}

impl Thresholds {
    /// What was asked for, and for the rest what fits: 5 ms on bare metal, 10 ms on a virtual
    /// machine. A machine that does not tell counts as bare metal. What waits for real-time tasks is
    /// a stall from 100 ms on at the earliest, unless a time is given for that kind.
    pub fn choose(asked: &Asked, virtual_machine: &Reading<bool>) -> Self {
        let (default, why) = match virtual_machine {
            Reading::Value(true) => (VIRTUAL, "default on a virtual machine"),
            Reading::Value(false) => (BARE_METAL, "default on bare metal"),
            Reading::Off(_) => (
                BARE_METAL,
                "default where it is not known whether the machine is virtual",
            ),
        };
        let asks = asked.kinds.map(|kind| kind.or(asked.all));
        let chosen = if asks.iter().all(Option::is_none) {
            why.into()
        } else if asks.iter().all(Option::is_some) {
            asked.words.as_str().into()
        } else {
            format!("{}; else the {why}", asked.words).into()
        };
        Self {
            kinds: StallKind::ALL.map(|kind| {
                let least = match (kind, asked.kinds[kind as usize]) {
                    (StallKind::RealTime, None) => REAL_TIME,
                    _ => LEAST,
                };
                match asks[kind as usize].unwrap_or(Ask::From(default)) {
                    Ask::From(time) => {
                        let ns = time.max(least).as_nanos();
                        Reading::Value(u64::try_from(ns).unwrap_or(u64::MAX))
                    }
                    Ask::Off => Reading::Off(Reason::SwitchedOff {
                        option: asked.words.as_str().into(),
                    }),
                }
            }),
            chosen,
        }
    }

    /// The threshold of a kind as the eBPF programs take it: 0 for one that is not watched.
    pub fn ns(&self, kind: StallKind) -> u64 {
        self.kinds[kind as usize].get().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_machine_decides_where_nobody_does() {
        let of = |vm| Thresholds::choose(&Asked::default(), &vm);
        let metal = of(Reading::Value(false));
        assert_eq!(
            metal.kinds,
            [5, 5, 5, 5, 5, 100].map(|ms| Reading::Value(ms * MS))
        );
        assert_eq!(&*metal.chosen, "default on bare metal");
        let vm = of(Reading::Value(true));
        assert_eq!(vm.ns(StallKind::InterruptsOff), 10 * MS);
        assert_eq!(&*vm.chosen, "default on a virtual machine");
        let unknown = of(Reading::Off(Reason::Starting));
        assert_eq!(unknown.ns(StallKind::NoReschedule), 5 * MS);
    }

    #[test]
    fn waiting_for_real_time_tasks_is_no_stall_at_once_unless_it_is_named() {
        let of = |all, real_time| {
            let mut asked = Asked {
                all: Some(all),
                ..Asked::default()
            };
            asked.kinds[StallKind::RealTime as usize] = real_time;
            Thresholds::choose(&asked, &Reading::Value(false)).ns(StallKind::RealTime)
        };
        let from = |ms| Ask::From(Duration::from_millis(ms));
        assert_eq!(of(from(5), None), 100 * MS);
        assert_eq!(of(from(1_000), None), 1_000 * MS);
        assert_eq!(of(from(5), Some(from(20))), 20 * MS);
        assert_eq!(of(Ask::Off, None), 0);
    }

    #[test]
    fn a_kind_goes_before_all_and_both_before_the_default() {
        let mut asked = Asked {
            words: "--stall handler=7ms".into(),
            ..Asked::default()
        };
        let handler = StallKind::SoftirqHandler;
        asked.kinds[handler as usize] = Some(Ask::From(Duration::from_millis(7)));
        let chosen = Thresholds::choose(&asked, &Reading::Value(true));
        assert_eq!(chosen.ns(handler), 7 * MS);
        assert_eq!(chosen.ns(StallKind::SoftirqPending), 10 * MS);
        assert_eq!(
            &*chosen.chosen,
            "--stall handler=7ms; else the default on a virtual machine"
        );

        asked.all = Some(Ask::Off);
        asked.words = "--stall handler=7ms --stall off".into();
        let chosen = Thresholds::choose(&asked, &Reading::Value(true));
        assert_eq!(chosen.ns(handler), 7 * MS);
        assert_eq!(chosen.ns(StallKind::SoftirqPending), 0);
        assert_eq!(
            chosen.kinds[0].reason().map(ToString::to_string).as_deref(),
            Some("switched off by --stall handler=7ms --stall off")
        );
        assert_eq!(&*chosen.chosen, "--stall handler=7ms --stall off");
    }
}
