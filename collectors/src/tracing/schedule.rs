//! When the descriptors of all processes are looked through.

use std::time::{Duration, Instant};

use crate::duty::Duty;

/// From one look to the next, and while somebody looks at what is found.
const PERIOD: Duration = Duration::from_secs(30);
const PERIOD_WANTED: Duration = Duration::from_secs(5);

/// After programs came or went the descriptors are looked through once more: before links (5.7)
/// a program is loaded first and attached to its perf event a little later, unseen by ids.
const SETTLE: Duration = Duration::from_secs(2);

/// Of the time of one CPU looks take one part in so many at most, and while nobody looks at what
/// is found and nothing comes or goes.
const SHARE: u32 = 500;
const SHARE_UNWANTED: u32 = 1000;

/// Looks that may be owed for objects that come or go: the periodic one of just before, and the one
/// at once.
const OWED: u32 = 2;

/// Decides when the descriptors are looked through, by what that costs.
///
/// A look is paid for over the time that follows it, at 2 ms a second. One at a period waits until
/// all before it are paid for. One for objects that came or went is taken as long as less than
/// [`OWED`] are owed: at once, then, and once more when that has settled; where objects come and go
/// all the time they come as fast as they are paid for. So any stretch of time has three looks more
/// than its share at most.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    last: Option<Instant>,
    /// CPU time of the last look.
    cost: Duration,
    duty: Duty<SHARE>,
    again: Option<Instant>,
}

impl Schedule {
    /// Whether a look is due: at the start, when objects came or went (`moved`), and periodically,
    /// more often while `wanted`. With `force` it is.
    pub(super) fn is_due(&mut self, now: Instant, moved: bool, wanted: bool, force: bool) -> bool {
        if moved {
            self.again = Some(now + SETTLE);
        }
        let Some(last) = self.last else {
            return true;
        };
        let age = now.duration_since(last);
        let settled = self.again.is_some_and(|at| now >= at);
        let period = if wanted {
            PERIOD_WANTED
        } else {
            PERIOD.max(self.cost.saturating_mul(SHARE_UNWANTED))
        };
        let stirred = moved || settled;
        let due = force
            || (age >= period && self.duty.is_paid(now))
            || (stirred && self.duty.owes_less(now, OWED));
        if due && settled {
            self.again = None;
        }
        due
    }

    /// A look was taken; `cost` is its CPU time.
    pub(super) fn took(&mut self, now: Instant, cost: Duration) {
        self.last = Some(now);
        self.cost = cost;
        // Those that a person forced are not to keep others off for long.
        self.duty.took(now, cost, OWED + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2,101 processes with 60,656 descriptors.
    const MANY: Duration = Duration::from_micros(18_500);

    /// Looks taken in so many seconds of four rounds each, and the rounds that took them. Objects
    /// move when `moved` says so of a round.
    fn looks(
        schedule: &mut Schedule,
        seconds: u64,
        wanted: bool,
        moved: impl Fn(u64) -> bool,
    ) -> Vec<u64> {
        let start = Instant::now();
        (0..seconds * 4)
            .filter(|round| {
                let now = start + Duration::from_millis(250 * round);
                let due = schedule.is_due(now, moved(*round), wanted, false);
                if due {
                    schedule.took(now, MANY);
                }
                due
            })
            .collect()
    }

    #[test]
    fn a_dear_look_is_taken_less_often() {
        let wanted = looks(&mut Schedule::default(), 600, true, |_| false);
        let apart = wanted.windows(2).map(|w| w[1] - w[0]);
        // 9.25 s are 500 times 18.5 ms.
        assert!(apart.clone().all(|rounds| rounds == 37), "{wanted:?}");
        let unwanted = looks(&mut Schedule::default(), 600, false, |_| false);
        assert_eq!(unwanted.len(), 20, "each 30 s");
        let mut cheap = Schedule::default();
        let start = Instant::now();
        cheap.took(start, Duration::from_micros(200));
        assert!(!cheap.is_due(start + Duration::from_secs(4), false, true, false));
        assert!(cheap.is_due(start + Duration::from_secs(5), false, true, false));
    }

    #[test]
    fn whatever_comes_and_goes_it_keeps_within_its_share() {
        let loads: [fn(u64) -> bool; 4] = [
            |_| true,
            |round| round % 4 == 0,
            |round| round % 13 == 0,
            |round| round / 200 % 2 == 0,
        ];
        for (n, moved) in loads.into_iter().enumerate() {
            for wanted in [false, true] {
                let looks = looks(&mut Schedule::default(), 600, wanted, moved);
                let spent = MANY * looks.len() as u32;
                let share = Duration::from_secs(600) / SHARE + MANY * (OWED + 1);
                assert!(spent <= share, "load {n}, {wanted}: {spent:?} of {share:?}");
            }
        }
    }

    #[test]
    fn objects_that_come_are_looked_at_now_and_when_settled() {
        // After a minute of quiet something comes; 2 s later it has settled.
        for wanted in [false, true] {
            let looks = looks(&mut Schedule::default(), 70, wanted, |round| round == 241);
            assert!(looks.contains(&241), "{looks:?}");
            assert!(looks.contains(&249), "{looks:?}");
        }
        // One more that comes right after waits until that is paid for, and is not forgotten.
        let looks = looks(&mut Schedule::default(), 100, false, |round| {
            matches!(round, 241 | 251)
        });
        let late = looks.into_iter().find(|round| *round > 249);
        assert!(
            late.is_some_and(|at| (251 + 8..251 + 60).contains(&at)),
            "{late:?}"
        );
    }

    #[test]
    fn who_asks_for_all_does_not_keep_others_waiting() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        for ms in 0..50 {
            let now = start + Duration::from_millis(ms);
            assert!(schedule.is_due(now, false, false, true));
            schedule.took(now, MANY);
        }
        assert!(schedule.is_due(start + Duration::from_secs(30), true, false, false));
    }
}
