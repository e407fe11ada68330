//! Whether a figure moved between two stretches of time, or only wavered.
//!
//! A figure moved when three things hold at once:
//! - what a person would be shown differs by the least that matters: absolutely, and as a part of
//!   the larger of both ([`Limits`]);
//! - the points differ, by one of two tests. *Ranks*: the Mann-Whitney U test with ties corrected
//!   (Mann and Whitney 1947) gives |z| of [`LEAST_Z`] or more, about one in a thousand of pure
//!   noise; as points that follow each other are alike, z is lessened by their autocorrelation
//!   (an effective sample size of n(1-r)/(1+r), Bayley and Hammersley 1946). *Deviations*: the
//!   medians lie [`LEAST_DEVIATIONS`] deviations of single points apart, a deviation being
//!   1.4826 times the median absolute deviation: a step that far is no wavering, however slow;
//! - both say the same direction.
//!
//! Ranks see what comes in bursts and has a median of 0; deviations see a clear step of a figure
//! that drifts slowly, which ranks with their correction would not trust.

/// Points of one side at most: the nearest to the change.
pub(super) const MOST: usize = 64;
/// Points of one side at least.
pub(super) const LEAST: usize = 5;
/// From which |z| on ranks differ.
const LEAST_Z: f64 = 3.3;
/// From how many deviations on medians differ.
const LEAST_DEVIATIONS: f64 = 5.0;
/// The median absolute deviation times this is the standard deviation of a normal distribution.
const MAD_TO_DEVIATION: f64 = 1.4826;
/// Autocorrelation is not taken for higher than this.
const MOST_ALIKE: f64 = 0.9;

/// The points of one side of a change, in the order of time.
#[derive(Clone, Debug)]
pub(super) struct Points {
    values: [f64; MOST],
    len: usize,
}

impl Default for Points {
    fn default() -> Self {
        Self {
            values: [0.0; MOST],
            len: 0,
        }
    }
}

impl Points {
    /// Adds one; `false` where there is no room.
    pub(super) fn push(&mut self, value: f64) -> bool {
        let Some(slot) = self.values.get_mut(self.len) else {
            return false;
        };
        *slot = value;
        self.len += 1;
        true
    }

    /// Turns the order round: they were taken backwards from the change.
    pub(super) fn reverse(&mut self) {
        self.values[..self.len].reverse();
    }

    pub(super) fn values(&self) -> &[f64] {
        &self.values[..self.len]
    }

    pub(super) fn mean(&self) -> Option<f64> {
        let sum: f64 = self.values().iter().sum();
        (self.len > 0).then(|| sum / self.len as f64)
    }

    /// Ascending.
    fn sorted(&self) -> Self {
        let mut sorted = self.clone();
        sorted.values[..sorted.len].sort_unstable_by(f64::total_cmp);
        sorted
    }

    /// The middle one, or the mean of the two in the middle.
    fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let values = sorted.values();
        let high = *values.get(values.len() / 2)?;
        let low = *values.get(values.len().checked_sub(1)? / 2)?;
        Some(f64::midpoint(low, high))
    }

    /// 1.4826 times the median of the distances from the median.
    fn deviation(&self) -> Option<f64> {
        let median = self.median()?;
        let mut off = self.clone();
        for value in &mut off.values[..off.len] {
            *value = (*value - median).abs();
        }
        Some(off.median()? * MAD_TO_DEVIATION)
    }
}

/// What matters of a figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The least difference that matters, in the figure's unit.
    pub(super) least: f64,
    /// The same as a part of the larger of both, 0 to 1.
    pub(super) part: f64,
}

impl Limits {
    /// Whether a difference matters.
    pub(super) fn matters(&self, before: f64, after: f64) -> bool {
        let off = (after - before).abs();
        off >= self.least && off >= self.part * before.abs().max(after.abs())
    }
}

/// How a figure went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    /// It is less now.
    Down,
    /// It is more now.
    Up,
}

/// Whether so many points can tell anything: whether ranks without any overlap would.
pub(super) fn can_tell(before: usize, after: usize) -> bool {
    let (b, a) = (before as f64, after as f64);
    before >= LEAST && after >= LEAST && (3.0 * b * a / (b + a + 1.0)).sqrt() >= LEAST_Z
}

/// Whether points moved, and how; `shown` is what a person sees of both.
pub(super) fn moved(
    before: &Points,
    after: &Points,
    shown: (f64, f64),
    limits: Limits,
) -> Option<Went> {
    if !limits.matters(shown.0, shown.1) || !can_tell(before.len, after.len) {
        return None;
    }
    let of = |off: f64| if off < 0.0 { Went::Down } else { Went::Up };
    let said = of(shown.1 - shown.0);
    let steps = || {
        let off = after.median()? - before.median()?;
        let deviation = before.deviation()?.max(after.deviation()?);
        (off != 0.0 && off.abs() >= LEAST_DEVIATIONS * deviation).then(|| of(off))
    };
    let z = rank_z(before, after);
    let ranks = || (z.abs() >= LEAST_Z).then(|| of(z));
    (steps() == Some(said) || ranks() == Some(said)).then_some(said)
}

/// z of the Mann-Whitney U of `after` over `before`: above 0 where `after` is the larger one.
fn rank_z(before: &Points, after: &Points) -> f64 {
    let (b, a) = (before.len, after.len);
    let n = b + a;
    let mut ranked = [(0.0f64, 0usize, 0.0f64); 2 * MOST];
    let all = before.values().iter().chain(after.values());
    for (at, (slot, value)) in ranked.iter_mut().zip(all).enumerate() {
        *slot = (*value, at, 0.0);
    }
    let ranked = &mut ranked[..n];
    ranked.sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
    let mut ties = 0.0;
    let mut from = 0;
    while from < n {
        let equal = ranked[from..]
            .iter()
            .take_while(|r| r.0 == ranked[from].0)
            .count()
            .max(1);
        let rank = from as f64 + (equal as f64 + 1.0) / 2.0;
        ranked[from..from + equal]
            .iter_mut()
            .for_each(|r| r.2 = rank);
        ties += (equal as f64).powi(3) - equal as f64;
        from += equal;
    }
    ranked.sort_unstable_by_key(|r| r.1);
    let sum: f64 = ranked[b..].iter().map(|r| r.2).sum();
    let (bf, af, nf) = (b as f64, a as f64, n as f64);
    let u = sum - af * (af + 1.0) / 2.0 - af * bf / 2.0;
    let variance = af * bf / 12.0 * (nf + 1.0 - ties / (nf * (nf - 1.0)));
    if variance <= 0.0 {
        return 0.0;
    }
    let (before, after) = ranked.split_at(b);
    let alike = alike(before, after);
    u / variance.sqrt() * ((1.0 - alike) / (1.0 + alike)).sqrt()
}

/// How much ranks resemble those before them, each side around its own mean: the lag-1
/// autocorrelation, 0 to [`MOST_ALIKE`].
fn alike(before: &[(f64, usize, f64)], after: &[(f64, usize, f64)]) -> f64 {
    let (mut with_next, mut squares) = (0.0, 0.0);
    for side in [before, after] {
        let mean = side.iter().map(|r| r.2).sum::<f64>() / side.len().max(1) as f64;
        squares += side.iter().map(|r| (r.2 - mean).powi(2)).sum::<f64>();
        with_next += side
            .windows(2)
            .map(|pair| (pair[0].2 - mean) * (pair[1].2 - mean))
            .sum::<f64>();
    }
    if squares > 0.0 {
        (with_next / squares).clamp(0.0, MOST_ALIKE)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        least: 0.01,
        part: 0.25,
    };

    fn points(values: impl IntoIterator<Item = f64>) -> Points {
        let mut points = Points::default();
        for value in values {
            assert!(points.push(value));
        }
        points
    }

    fn verdict(before: &Points, after: &Points) -> Option<Went> {
        let shown = (before.mean().unwrap(), after.mean().unwrap());
        moved(before, after, shown, LIMITS)
    }

    /// A generator of its own, so that what a test sees is always the same (xorshift64*,
    /// Vigna 2016).
    struct Noise(u64);

    impl Noise {
        /// From 0 to 1, without either.
        fn uniform(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
            (bits as f64 + 0.5) / (1u64 << 53) as f64
        }

        /// Of the standard normal distribution (Box and Muller).
        fn normal(&mut self) -> f64 {
            let (r, turn) = (self.uniform(), self.uniform());
            (-2.0 * r.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
        }
    }

    /// How many of `runs` pairs of sides, without any step between them, are said to differ.
    fn false_alarms(
        runs: u32,
        sides: (usize, usize),
        mut next: impl FnMut(&mut Noise) -> f64,
    ) -> u32 {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let mut alarms = 0;
        for _ in 0..runs {
            let before = points((0..sides.0).map(|_| next(&mut noise)));
            let after = points((0..sides.1).map(|_| next(&mut noise)));
            alarms += u32::from(verdict(&before, &after).is_some());
        }
        alarms
    }

    #[test]
    fn pure_noise_has_no_effect() {
        const RUNS: u32 = 1_000;
        // What is stated: no more than one in two hundred, whatever the distribution.
        let most = RUNS / 200;
        for sides in [(60, 60), (60, 5), (10, 10), (20, 60)] {
            for (name, alarms) in [
                ("normal", false_alarms(RUNS, sides, |n| 3.0 + n.normal())),
                // Rare peaks, a hundred times the rest.
                (
                    "heavy tails",
                    false_alarms(RUNS, sides, |n| n.uniform().powf(-1.5)),
                ),
                // Nothing at all for most of the time.
                (
                    "bursts",
                    false_alarms(RUNS, sides, |n| {
                        if n.uniform() < 0.2 { n.uniform() } else { 0.0 }
                    }),
                ),
            ] {
                assert!(alarms <= most, "{name} {sides:?}: {alarms} of {RUNS}");
            }
        }
    }

    #[test]
    fn noise_that_drifts_has_no_effect_either() {
        const RUNS: u32 = 1_000;
        for alike in [0.3, 0.6] {
            let mut level = 0.0;
            let alarms = false_alarms(RUNS, (60, 60), |n| {
                level = alike * level + n.normal();
                6.0 + level
            });
            assert!(alarms <= RUNS / 100, "{alike}: {alarms} of {RUNS}");
        }
    }

    #[test]
    fn a_step_is_found_soon() {
        let mut noise = Noise(7);
        let (mut found, mut at_once) = (0, 0);
        for _ in 0..500 {
            let before = points((0..60).map(|_| 3.0 + 0.5 * noise.normal()));
            // From 3 down to 2, two deviations of what is seen in a second.
            let after = points((0..30).map(|_| 2.0 + 0.5 * noise.normal()));
            found += u32::from(verdict(&before, &after) == Some(Went::Down));
            // What a probe storm does when it ends.
            let after = points((0..8).map(|_| 0.002 * noise.uniform()));
            at_once += u32::from(verdict(&before, &after) == Some(Went::Down));
        }
        assert!(
            found >= 495 && at_once == 500,
            "{found} and {at_once} of 500"
        );
    }

    #[test]
    fn a_step_of_what_comes_in_bursts_is_found() {
        let mut noise = Noise(11);
        let mut found = 0;
        for _ in 0..500 {
            // The median is 0 before and after.
            let before = points((0..60).map(|_| {
                if noise.uniform() < 0.4 {
                    1.0 + noise.uniform()
                } else {
                    0.0
                }
            }));
            let after = points(std::iter::repeat_n(0.0, 60));
            found += u32::from(verdict(&before, &after) == Some(Went::Down));
        }
        assert!(found >= 495, "{found} of 500");
    }

    #[test]
    fn a_clear_step_of_what_drifts_is_found() {
        let before = points((0..60).map(|i| 3.0 + 0.1 * (f64::from(i) / 20.0).sin()));
        let after = points((0..10).map(|i| 0.1 + 0.01 * f64::from(i)));
        assert_eq!(verdict(&before, &after), Some(Went::Down));
        assert_eq!(verdict(&after, &before), Some(Went::Up));
    }

    #[test]
    fn a_small_difference_is_none_however_sure() {
        let before = points((0..60).map(|i| 100.0 + f64::from(i % 3)));
        let after = points((0..60).map(|i| 90.0 + f64::from(i % 3)));
        assert_eq!(verdict(&before, &after), None);
        // And a large part of nearly nothing is nothing.
        let before = points(std::iter::repeat_n(0.006, 60));
        let after = points(std::iter::repeat_n(0.0, 60));
        assert_eq!(verdict(&before, &after), None);
    }

    #[test]
    fn too_few_points_tell_nothing() {
        assert!(can_tell(60, 5) && can_tell(10, 7) && can_tell(8, 8));
        assert!(!can_tell(60, 4) && !can_tell(5, 5) && !can_tell(0, 60) && !can_tell(3, 60));
        let before = points([3.0; 5]);
        let after = points([0.0; 5]);
        assert_eq!(verdict(&before, &after), None);
    }

    #[test]
    fn what_is_not_a_number_does_no_harm() {
        let before = points([f64::NAN; 20]);
        let after = points([0.0; 20]);
        let _ = verdict(&before, &after);
        let _ = verdict(&after, &before);
        let wild = points([
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            0.0,
            1.0,
            -1.0,
            0.0,
        ]);
        let _ = verdict(&wild, &after);
        assert_eq!(Points::default().median(), None);
    }
}
