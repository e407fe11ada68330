//! When the next window is due.

use std::time::{Duration, Instant};

use super::meter::WINDOW;

/// From one window's end to the next while somebody wants costs: with the window a twenty-fifth
/// of the time, so that with its two flips it costs less than a twentieth of what statistics do
/// that are always on. Windows of 200 ms agree with those to a fraction of a percent; those of 100 ms
/// do within 5 %.
const PERIOD: Duration = Duration::from_millis(2_400);

/// The part of the time that windows take.
pub(super) const DUTY: f64 =
    WINDOW.as_millis() as f64 / (PERIOD.as_millis() + WINDOW.as_millis()) as f64;

/// From one window to the next at the start: a mean and a deviation are wanted soon.
const FIRST: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(800)];

/// The CPU time that windows take, reading all programs included, is at most one part in so many.
const OWN_SHARE: u32 = 400;

/// Time from the start to each of the first windows for our own programs, then from one to the
/// next, when nobody wants costs.
const OURS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(15),
    Duration::from_secs(60),
];

/// Nobody looked for so long: what was measured before is not mixed with what comes.
const STALE: Duration = Duration::from_secs(10);

/// What is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A window over all programs.
    All,
    /// A window over ours.
    Ours,
    /// Nothing for that long, or until somebody asks.
    Rest(Option<Duration>),
}

/// Decides when windows are taken.
#[derive(Debug)]
pub(super) struct Schedule {
    started: Instant,
    wanted: bool,
    /// Windows since somebody wants them.
    run: usize,
    last_all: Option<Instant>,
    next_all: Instant,
    /// Windows that our own programs were in.
    ours: usize,
    last_ours: Instant,
    /// State of the generator of jitter.
    random: u64,
}

impl Schedule {
    /// `seed` makes one host's windows fall other than another's.
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        Self {
            started: now,
            wanted: false,
            run: 0,
            last_all: None,
            next_all: now,
            ours: 0,
            last_ours: now,
            random: seed,
        }
    }

    /// Somebody wants costs, or no longer. Says whether figures begin anew.
    pub(super) fn want(&mut self, wanted: bool, now: Instant) -> bool {
        let begins = wanted && !self.wanted;
        self.wanted = wanted;
        let fresh = |last: Instant| now.duration_since(last) < STALE;
        if !begins || self.last_all.is_some_and(fresh) {
            return false;
        }
        self.restart(now);
        true
    }

    /// The host was changed: a window at once.
    pub(super) fn restart(&mut self, now: Instant) {
        self.run = 0;
        self.next_all = now;
    }

    /// What is due.
    pub(super) fn due(&self, now: Instant, has_own: bool) -> Due {
        let ours = match OURS.get(self.ours) {
            Some(after) => self.started + *after,
            None => self.last_ours + OURS[OURS.len() - 1],
        };
        let next = |at: Instant| at.saturating_duration_since(now);
        match (self.wanted, has_own) {
            (true, _) if now >= self.next_all => Due::All,
            (true, _) => Due::Rest(Some(next(self.next_all))),
            (false, true) if now >= ours => Due::Ours,
            (false, true) => Due::Rest(Some(next(ours))),
            (false, false) => Due::Rest(None),
        }
    }

    /// A window was taken; `cpu` is what it cost. A window over all is one over ours, too.
    pub(super) fn took(&mut self, due: Due, now: Instant, cpu: Duration) {
        self.ours = (self.ours + 1).min(OURS.len());
        self.last_ours = now;
        if due != Due::All {
            return;
        }
        self.last_all = Some(now);
        let gap = match FIRST.get(self.run) {
            Some(gap) => *gap,
            None => {
                // A load that comes at a fixed period must not meet every window, or none.
                let least = PERIOD.max(cpu.saturating_mul(OWN_SHARE));
                least.mul_f64(0.75 + 0.5 * self.fraction())
            }
        };
        self.run += 1;
        self.next_all = now + gap;
    }

    /// The part of the time that windows take from the last one to the next.
    pub(super) fn duty(&self) -> f64 {
        let gap = |last: Instant| self.next_all.duration_since(last) + WINDOW;
        match self.last_all {
            Some(last) if self.run > FIRST.len() && gap(last) > PERIOD * 2 => {
                WINDOW.as_secs_f64() / gap(last).as_secs_f64()
            }
            _ => DUTY,
        }
    }

    /// Between 0 and 1 (Vigna's SplitMix64).
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Duration = Duration::from_micros(100);

    #[test]
    fn nothing_is_measured_that_nobody_wants() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 1);
        assert_eq!(schedule.due(start, false), Due::Rest(None));
        assert_eq!(
            schedule.due(start, true),
            Due::Rest(Some(Duration::from_secs(1)))
        );
        let later = start + Duration::from_secs(2);
        assert_eq!(schedule.due(later, true), Due::Ours);
        schedule.took(Due::Ours, later, CHEAP);
        assert_eq!(
            schedule.due(later, true),
            Due::Rest(Some(Duration::from_secs(13)))
        );
    }

    #[test]
    fn a_window_at_once_then_a_twenty_fifth_of_the_time_unevenly() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now, 1);
        assert!(schedule.want(true, now));
        assert_eq!(schedule.due(now, true), Due::All);
        let mut gaps = Vec::new();
        for _ in 0..200 {
            schedule.took(Due::All, now, CHEAP);
            let Due::Rest(Some(gap)) = schedule.due(now, true) else {
                panic!("a window follows at once");
            };
            gaps.push(gap);
            now += gap;
        }
        assert_eq!(gaps[..2], FIRST);
        let (least, most) = (gaps[2..].iter().min(), gaps[2..].iter().max());
        assert!(least.unwrap() < &Duration::from_millis(1_920), "{least:?}");
        assert!(most.unwrap() > &Duration::from_millis(2_880), "{most:?}");
        let mean = gaps[2..].iter().sum::<Duration>() / 198;
        assert!(
            mean.abs_diff(PERIOD) < Duration::from_millis(100),
            "{mean:?}"
        );
    }

    #[test]
    fn dear_windows_come_less_often() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, 1);
        schedule.want(true, now);
        for _ in 0..4 {
            schedule.took(Due::All, now, Duration::from_millis(20));
        }
        let Due::Rest(Some(gap)) = schedule.due(now, false) else {
            panic!("a window follows at once");
        };
        assert!(gap >= Duration::from_secs(6), "{gap:?}");
        assert!(schedule.duty() < 0.02, "{}", schedule.duty());
    }

    #[test]
    fn looking_away_for_a_moment_begins_nothing_anew() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut schedule = Schedule::new(start, 1);
        assert!(schedule.want(true, at(0)));
        schedule.took(Due::All, at(0), CHEAP);
        schedule.want(false, at(1));
        assert!(!schedule.want(true, at(5)));
        schedule.want(false, at(6));
        assert!(schedule.want(true, at(60)));
        assert_eq!(schedule.due(at(60), false), Due::All);
    }
}
