//! Events wait a little for what comes after them: the sample that tells a paused virtual CPU
//! from a held one, the handler that empties a backlog, and the same stall on other CPUs.

use std::cmp::Reverse;

use stalltop_probes::wire::stall::{StallEvent, kind};

/// How long an event waits at least, ns: events of other CPUs come within this time.
const WAIT: u64 = 20_000_000;
/// How much longer one waits whose backlog is not empty yet, or for whose real-time task others may
/// have waited longer, ns: they run within the 50 ms that are left to them, and are told then.
const WAIT_MORE: u64 = 40_000_000;
/// How long the oldest of a group waits at most, ns: a ring of samples holds about 500 ms.
const LONGEST: u64 = 200_000_000;
/// Events that wait at once, at most.
const MOST: usize = 1024;

/// An event that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// The stall.
    pub(super) event: StallEvent,
    /// The handler that emptied the backlog, once it has ended.
    pub(super) drained: Option<StallEvent>,
    received_ns: u64,
    /// Not before then.
    ready_ns: u64,
}

impl Held {
    /// How long the stall took at least, ns.
    pub(super) fn delay_ns(&self) -> u64 {
        self.event.end_ns.saturating_sub(self.event.start_ns)
    }
}

/// All events that wait.
pub(super) struct Hold {
    held: Vec<Held>,
    wait_ns: u64,
    dropped: u64,
}

impl Hold {
    /// `tick_ns` is the time between two ticks of the scheduler: the next one after a stall,
    /// and the one after it, are waited for.
    pub(super) fn new(tick_ns: u64) -> Self {
        Self {
            held: Vec::new(),
            wait_ns: WAIT.max(2 * tick_ns + 5_000_000).min(LONGEST),
            dropped: 0,
        }
    }

    /// Takes an event that has just come.
    pub(super) fn take(&mut self, event: StallEvent, now_ns: u64) {
        if event.kind == kind::DRAINED {
            let same = |held: &&mut Held| {
                let e = &held.event;
                e.kind == kind::PENDING
                    && (e.cpu, e.vector, e.end_ns) == (event.cpu, event.vector, event.start_ns)
            };
            if let Some(held) = self.held.iter_mut().find(same) {
                held.drained = Some(event);
                held.ready_ns = held.received_ns + self.wait_ns;
            }
            return;
        }
        if event.kind == kind::REAL_TIME {
            // Who waited longer for the same tasks comes after who waited shorter.
            let same = |held: &&mut Held| {
                let e = &held.event;
                (e.kind, e.cpu, e.end_ns) == (event.kind, event.cpu, event.end_ns)
            };
            if let Some(held) = self.held.iter_mut().find(same) {
                held.event = event;
                return;
            }
        }
        if self.held.len() == MOST {
            self.dropped += 1;
            let shortest = (0..MOST).min_by_key(|i| self.held[*i].delay_ns());
            let delay_ns = event.end_ns.saturating_sub(event.start_ns);
            match shortest {
                Some(i) if self.held[i].delay_ns() < delay_ns => drop(self.held.swap_remove(i)),
                _ => return,
            }
        }
        let more = match event.kind {
            kind::PENDING | kind::REAL_TIME => WAIT_MORE,
            _ => 0,
        };
        self.held.push(Held {
            event,
            drained: None,
            received_ns: now_ns,
            ready_ns: now_ns + self.wait_ns + more,
        });
    }

    /// Moves the next group of overlapping stalls that have waited long enough to `out`, the
    /// earliest first; false when there is none.
    pub(super) fn due(&mut self, now_ns: u64, out: &mut Vec<Held>) -> bool {
        out.clear();
        self.held
            .sort_by_key(|h| (h.event.earliest_ns, h.event.cpu));
        let mut from = 0;
        while from < self.held.len() {
            let group = group(&self.held[from..]);
            let to = from + group.len();
            if ready_ns(group) <= now_ns {
                out.extend(self.held.drain(from..to));
                return true;
            }
            from = to;
        }
        false
    }

    /// When the next group will have waited long enough.
    pub(super) fn next_ns(&mut self) -> Option<u64> {
        self.held
            .sort_by_key(|h| (h.event.earliest_ns, h.event.cpu));
        let mut next = None;
        let mut rest = &self.held[..];
        while !rest.is_empty() {
            let group = group(rest);
            let ready = ready_ns(group);
            next = Some(next.map_or(ready, |next: u64| next.min(ready)));
            rest = &rest[group.len()..];
        }
        next
    }

    /// Events that found no room, since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The stalls at the start of `held` that overlap each other, one after the other.
fn group(held: &[Held]) -> &[Held] {
    let mut end_ns = 0;
    let overlapping = held.iter().enumerate().take_while(|(i, h)| {
        let overlaps = *i == 0 || h.event.earliest_ns <= end_ns;
        end_ns = end_ns.max(h.event.end_ns);
        overlaps
    });
    &held[..overlapping.count()]
}

/// When a group has waited long enough: once each of its stalls has, and in any case before
/// the samples of the oldest are overwritten.
fn ready_ns(group: &[Held]) -> u64 {
    let last = group.iter().map(|h| h.ready_ns).max().unwrap_or(0);
    let oldest = group.iter().map(|h| h.received_ns).min().unwrap_or(0);
    last.min(oldest + LONGEST)
}

/// How much is understood of what comes: 200 stalls a second, and 5 % of one CPU.
pub(super) struct Budget {
    stalls: f64,
    cpu_ns: f64,
    /// What one stall costs.
    mean_ns: f64,
    at_ns: u64,
}

impl Budget {
    /// Stalls a second, and at once.
    const STALLS: f64 = 200.0;
    /// Share of one CPU.
    const CPU: f64 = 0.05;
    /// CPU time that may be spent at once, and owed at most, ns.
    const CPU_AT_ONCE: f64 = 100e6;

    /// Full at `now_ns`.
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            stalls: Self::STALLS,
            cpu_ns: Self::CPU_AT_ONCE,
            mean_ns: 0.0,
            at_ns: now_ns,
        }
    }

    /// Keeps those of `group` that the budget allows, the longest ones; gives how many it let go. One
    /// is allowed on credit, as long as not too much is owed: on a quiet host each stall is told.
    pub(super) fn choose(&mut self, now_ns: u64, group: &mut Vec<Held>) -> u64 {
        let passed = now_ns.saturating_sub(self.at_ns) as f64;
        self.at_ns = self.at_ns.max(now_ns);
        self.stalls = (self.stalls + passed * Self::STALLS / 1e9).min(Self::STALLS);
        self.cpu_ns = (self.cpu_ns + passed * Self::CPU).min(Self::CPU_AT_ONCE);
        let by_cpu = if self.mean_ns > 0.0 {
            self.cpu_ns / self.mean_ns
        } else {
            Self::STALLS
        };
        let allowed = self.stalls.min(by_cpu) as usize;
        let allowed = if allowed == 0 && self.has_credit() {
            1
        } else {
            allowed.min(group.len())
        };
        let over = group.len() - allowed;
        if over > 0 {
            group.sort_by_key(|held| Reverse(held.delay_ns()));
            group.truncate(allowed);
            group.sort_by_key(|held| (held.event.earliest_ns, held.event.cpu));
        }
        self.stalls -= allowed as f64;
        over as u64
    }

    /// Whether one more stall leaves no more owed than what may be spent at once.
    fn has_credit(&self) -> bool {
        // However dear one is.
        let full = self.cpu_ns >= Self::CPU_AT_ONCE;
        let stalls = self.stalls - 1.0 >= -Self::STALLS;
        stalls && (full || self.cpu_ns - self.mean_ns >= -Self::CPU_AT_ONCE)
    }

    /// Says what understanding that many stalls took.
    pub(super) fn spent(&mut self, stalls: usize, cpu_ns: u64) {
        self.cpu_ns = (self.cpu_ns - cpu_ns as f64).max(-Self::CPU_AT_ONCE);
        let each = cpu_ns as f64 / stalls.max(1) as f64;
        self.mean_ns = if self.mean_ns > 0.0 {
            (self.mean_ns * 7.0 + each) / 8.0
        } else {
            each
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{MS, event};
    use super::*;

    fn due(hold: &mut Hold, at_ms: u64) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        hold.due(at_ms * MS, &mut out);
        out.iter()
            .map(|h| (h.event.cpu, h.delay_ns() / MS))
            .collect()
    }

    #[test]
    fn overlapping_stalls_are_told_together() {
        let mut hold = Hold::new(4 * MS);
        hold.take(event(kind::IRQS_OFF, 1, 100, 120), 120 * MS);
        hold.take(event(kind::HANDLER, 0, 105, 125), 126 * MS);
        hold.take(event(kind::HANDLER, 0, 130, 140), 141 * MS);
        assert_eq!(hold.next_ns(), Some(146 * MS));
        // The first alone has waited long enough, the one that it overlaps has not.
        assert_eq!(due(&mut hold, 145), []);
        assert_eq!(due(&mut hold, 146), [(1, 20), (0, 20)]);
        assert_eq!(hold.next_ns(), Some(161 * MS));
        assert_eq!(due(&mut hold, 161), [(0, 10)]);
        assert_eq!(hold.next_ns(), None);
    }

    #[test]
    fn a_backlog_is_awaited_but_not_for_ever() {
        let mut hold = Hold::new(4 * MS);
        hold.take(event(kind::PENDING, 0, 100, 120), 120 * MS);
        hold.take(event(kind::PENDING, 1, 200, 220), 220 * MS);
        assert_eq!(hold.next_ns(), Some(180 * MS));
        hold.take(event(kind::DRAINED, 0, 120, 130), 130 * MS);
        // Of another vector's end.
        hold.take(event(kind::DRAINED, 1, 219, 230), 230 * MS);
        assert_eq!(hold.next_ns(), Some(140 * MS));
        let mut out = Vec::new();
        assert!(hold.due(140 * MS, &mut out));
        assert_eq!(out[0].drained.map(|d| d.end_ns), Some(130 * MS));
        assert!(!hold.due(279 * MS, &mut out));
        assert!(hold.due(280 * MS, &mut out));
        assert!(out[0].drained.is_none());
    }

    #[test]
    fn of_who_waited_for_a_real_time_task_the_longest_counts() {
        let mut hold = Hold::new(4 * MS);
        hold.take(event(kind::REAL_TIME, 1, 700, 950), 952 * MS);
        hold.take(event(kind::REAL_TIME, 1, 0, 950), 960 * MS);
        // Of another CPU, and of the next second.
        hold.take(event(kind::REAL_TIME, 0, 700, 950), 960 * MS);
        hold.take(event(kind::REAL_TIME, 1, 1_000, 1_950), 1_952 * MS);
        assert_eq!(due(&mut hold, 1_020), [(1, 950), (0, 250)]);
        assert_eq!(due(&mut hold, 2_012), [(1, 950)]);
    }

    #[test]
    fn a_chain_of_stalls_does_not_wait_until_it_is_overwritten() {
        let mut hold = Hold::new(4 * MS);
        for at in (100..400).step_by(10) {
            hold.take(event(kind::HANDLER, 0, at - 11, at), at * MS);
            if at >= 310 {
                assert_eq!(hold.next_ns(), Some(300 * MS));
            }
        }
        assert_eq!(due(&mut hold, 300).len(), 30);
    }

    #[test]
    fn a_slow_tick_is_waited_for() {
        let mut hold = Hold::new(10 * MS);
        hold.take(event(kind::HANDLER, 0, 80, 100), 100 * MS);
        assert_eq!(hold.next_ns(), Some(125 * MS));
    }

    #[test]
    fn a_flood_keeps_the_longest() {
        let mut hold = Hold::new(4 * MS);
        for i in 0..1_030 {
            hold.take(event(kind::HANDLER, i, 100, 110 + i), 120 * MS);
        }
        assert_eq!(hold.dropped(), 6);
        let mut group = Vec::new();
        assert!(hold.due(140 * MS, &mut group));
        assert_eq!((group.len(), group[0].event.cpu), (1024, 6));

        let mut budget = Budget::new(140 * MS);
        assert_eq!(budget.choose(140 * MS, &mut group), 824);
        assert_eq!((group.len(), group[0].event.cpu), (200, 830));
        // At once, nothing but the longest; half a second later, half as many.
        let mut again = group.clone();
        assert_eq!(budget.choose(140 * MS, &mut again), 199);
        assert_eq!(again[0].event.cpu, 1029);
        let mut again = group.clone();
        assert_eq!(budget.choose(645 * MS, &mut again), 100);
    }

    /// So many that overlap, each longer than the one before.
    fn group(stalls: u64) -> Vec<Held> {
        let mut hold = Hold::new(4 * MS);
        for i in 0..stalls {
            hold.take(event(kind::HANDLER, i, 100, 110 + i), 0);
        }
        let mut group = Vec::new();
        assert!(hold.due(200 * MS, &mut group));
        group
    }

    #[test]
    fn understanding_takes_a_twentieth_of_a_cpu_at_most() {
        let mut budget = Budget::new(0);
        let group = group(100);
        assert_eq!(budget.choose(0, &mut group.clone()), 0);
        budget.spent(100, 200 * MS);
        // 100 ms in debt; 2 ms each; 5 % of 3 s are 150 ms, so 25 stalls.
        assert_eq!(budget.choose(3_000 * MS, &mut group.clone()), 75);
    }

    /// Stalls one by one, each of which takes `each_ns`, every 10 ms for a minute: gives how many are
    /// understood.
    fn one_by_one(budget: &mut Budget, from_ms: u64, each_ns: u64) -> u64 {
        let mut understood = 0;
        for at in (0..60_000).step_by(10) {
            let mut group = group(1);
            let over = budget.choose((from_ms + at) * MS, &mut group);
            assert_eq!(over + group.len() as u64, 1);
            if !group.is_empty() {
                budget.spent(1, each_ns);
                understood += 1;
            }
        }
        understood
    }

    #[test]
    fn stalls_one_by_one_have_the_same_bound_as_groups() {
        let mut budget = Budget::new(0);
        let understood = one_by_one(&mut budget, 0, 10 * MS);
        // 5 % of a minute are 3 s; 0.1 s at once and 0.1 s on credit.
        assert!((300..=325).contains(&understood), "{understood}");
        // Cheap ones are all understood.
        assert_eq!(one_by_one(&mut Budget::new(0), 0, MS / 5), 6_000);
    }

    #[test]
    fn debt_is_bounded_and_soon_paid() {
        let mut budget = Budget::new(0);
        budget.spent(1, 3_600_000 * MS);
        let group = group(10);
        budget.mean_ns = MS as f64;
        assert_eq!(
            budget.choose(0, &mut group.clone()),
            10,
            "nothing at the floor"
        );
        assert_eq!(budget.choose(100 * MS, &mut group.clone()), 9);
        assert_eq!(budget.choose(2_300 * MS, &mut group.clone()), 0);
        // Dearer than all that may be spent at once: told all the same, once it is paid for.
        budget.mean_ns = 500.0 * MS as f64;
        assert_eq!(budget.choose(9_000 * MS, &mut group.clone()), 9);
    }
}
