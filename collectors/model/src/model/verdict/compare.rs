//! Whether a figure moved between two stretches of time, or only wavered.
//!
//! A figure moved when three things hold at once:
//! - what a person would be shown differs by the least that matters: absolutely, and as a part of
//!   the larger of both ([`Limits`]);
//! - the points differ, by one of three tests. *Ranks*: the Mann-Whitney U test with ties corrected
//!   (Mann and Whitney 1947) gives |z| of [`LEAST_Z`] or more, one in 40,000 of pure noise:
//!   many figures are compared, again with every point that comes, and all together must not
//!   raise a false alarm in more than one change of two hundred; as points that follow each other are alike, z is lessened by their autocorrelation
//!   (an effective sample size of n(1-r)/(1+r), Bayley and Hammersley 1946), which few points
//!   show as too small, by (1+3r)/n of each side (Kendall 1954). *Deviations*: the medians lie
//!   [`LEAST_DEVIATIONS`] deviations of single points apart, a deviation being the larger of
//!   1.4826 times the median absolute deviation and the width of the middle eight tenths over
//!   2.563 (both are one standard deviation of a normal distribution): a step that far is no
//!   wavering, however slow. *Far apart*: every point of one side is [`FAR`] times every one of
//!   the other, and so many that this is no chance ([`far_apart`]);
//! - both say the same direction.
//!
//! Ranks see what comes in bursts and has a median of 0; deviations see a clear step of a figure
//! that drifts slowly, which ranks with their correction would not trust.

use super::budget::{
    APART_CHANCE, FAR, FAR_CHANCE, LEAST, LEAST_DEVIATIONS, LEAST_Z, MOST, MOST_ALIKE,
};

/// The median absolute deviation times this is the standard deviation of a normal distribution.
const MAD_TO_DEVIATION: f64 = 1.4826;
/// The width of the middle eight tenths of a normal distribution, in standard deviations.
const MIDDLE_DEVIATIONS: f64 = 2.563;

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

    /// The value under which the part `part` of such points lies, in the middle of what is
    /// likely however many there are and whatever they are like (definition 8 of Hyndman and Fan
    /// 1996): sides of unequal length compare.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        let sorted = self.sorted();
        let values = sorted.values();
        let last = values.len().checked_sub(1)?;
        let at = (values.len() as f64 + 1.0 / 3.0) * part - 2.0 / 3.0;
        let at = at.clamp(0.0, last as f64);
        let low = at as usize;
        let (low, high) = (*values.get(low)?, *values.get((low + 1).min(last))?);
        Some(low + (high - low) * at.fract())
    }

    fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// How far single points are from the middle: see the module.
    fn deviation(&self) -> Option<f64> {
        let median = self.median()?;
        let mut off = self.clone();
        for value in &mut off.values[..off.len] {
            *value = (*value - median).abs();
        }
        let width = self.quantile(0.9)? - self.quantile(0.1)?;
        let deviation = off.median()? * MAD_TO_DEVIATION;
        Some(deviation.max(width / MIDDLE_DEVIATIONS))
    }

    /// The least and the largest.
    fn ends(&self) -> Option<(f64, f64)> {
        let values = self.values().iter().copied();
        Some((values.clone().reduce(f64::min)?, values.reduce(f64::max)?))
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

/// How likely it is that all points of one side lie above all of the other by chance: two of all
/// the ways to choose them.
pub(super) fn chance_apart(before: usize, after: usize) -> f64 {
    let ways = (1..=before).map(|n| (after + n) as f64 / n as f64);
    2.0 / ways.product::<f64>()
}

/// Whether points moved, and how; `shown` is what a person sees of both.
pub(super) fn moved(
    before: &Points,
    after: &Points,
    shown: (f64, f64),
    limits: Limits,
) -> Option<Went> {
    if !limits.matters(shown.0, shown.1) || before.len < LEAST || after.len < LEAST {
        return None;
    }
    let of = |off: f64| if off < 0.0 { Went::Down } else { Went::Up };
    let said = of(shown.1 - shown.0);
    let steps = || {
        if chance_apart(before.len, after.len) > APART_CHANCE {
            return None;
        }
        let off = after.median()? - before.median()?;
        let deviation = before.deviation()?.max(after.deviation()?);
        (off != 0.0 && off.abs() >= LEAST_DEVIATIONS * deviation).then(|| of(off))
    };
    let ranks = || {
        let z = rank_z(before, after);
        (z.abs() >= LEAST_Z).then(|| of(z))
    };
    let far = far_apart(before, after) && chance_apart(before.len, after.len) <= FAR_CHANCE;
    (far || steps() == Some(said) || ranks() == Some(said)).then_some(said)
}

/// Whether every point of one side is [`FAR`] times every one of the other.
pub(super) fn far_apart(before: &Points, after: &Points) -> bool {
    match (before.ends(), after.ends()) {
        (Some(was), Some(is)) => was.0 > FAR * is.1 || is.0 > FAR * was.1,
        _ => false,
    }
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
        let seen = with_next / squares;
        let hidden = 2.0 * (1.0 + 3.0 * seen.max(0.0)) / (before.len() + after.len()) as f64;
        (seen + hidden).clamp(0.0, MOST_ALIKE)
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

    /// What wavers.
    struct Noise<F>(F);

    fn noise(seed: u64) -> Noise<impl FnMut() -> f64> {
        Noise(crate::made::noise(seed))
    }

    impl<F: FnMut() -> f64> Noise<F> {
        /// From 0 to 1, without either.
        fn uniform(&mut self) -> f64 {
            (self.0)()
        }

        /// Of the standard normal distribution (Box and Muller).
        fn normal(&mut self) -> f64 {
            let (r, turn) = (self.uniform(), self.uniform());
            (-2.0 * r.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
        }
    }

    /// What wavers, and how: a figure each, that no change touches.
    fn waver(noise: &mut Noise<impl FnMut() -> f64>, kind: usize, level: &mut f64) -> f64 {
        match kind % 12 {
            0..3 => 3.0 + noise.normal(),
            3 | 4 => noise.normal().exp(),
            // Rare peaks, a hundred times the rest.
            5 => noise.uniform().powf(-1.5),
            // Nothing at all for most of the time, or for half of it.
            6 | 7 if noise.uniform() < 0.8 => 0.0,
            8 if noise.uniform() < 0.5 => 0.0,
            6..9 => noise.uniform(),
            kind => {
                let alike = if kind == 11 { 0.6 } else { 0.3 };
                *level = alike * *level + noise.normal();
                6.0 + *level
            }
        }
    }

    /// What is stated: no more than one change in two hundred that did nothing is said to have
    /// moved something, all figures and holders together, at any of the seconds after it.
    #[test]
    fn noise_moves_nothing_in_all_figures_at_all_times() {
        const RUNS: u32 = 400;
        const FIGURES: usize = 18;
        let mut noise = noise(0x9e37_79b9_7f4a_7c15);
        for sides in [10, 20, 60] {
            let alarms = (0..RUNS)
                .filter(|_| {
                    (0..FIGURES).any(|kind| {
                        let mut level = 0.0;
                        let mut next = || waver(&mut noise, kind, &mut level);
                        let before = points((0..sides).map(|_| next()));
                        let mut after = Points::default();
                        // Every third second: neighbours differ by little.
                        (0..60).any(|n| {
                            after.push(next());
                            n % 3 == 0 && verdict(&before, &after).is_some()
                        })
                    })
                })
                .count();
            assert!(alarms <= RUNS as usize / 200, "{sides}: {alarms} of {RUNS}");
        }
    }

    #[test]
    fn a_quantile_is_the_same_of_few_and_of_many() {
        let mut noise = noise(5);
        let mut mean = |n: usize| {
            let runs = 0..2_000;
            let sum: f64 = runs
                .map(|_| {
                    let one = points((0..n).map(|_| noise.uniform()));
                    one.quantile(0.9).unwrap()
                })
                .sum();
            sum / 2_000.0
        };
        let (few, some, many) = (mean(6), mean(20), mean(60));
        // The longest of six is 0.857 in the mean, of sixty 0.984.
        for part in [few, some, many] {
            assert!((0.85..0.91).contains(&part), "{few} {some} {many}");
        }
        assert_eq!(points([]).quantile(0.9), None);
        assert_eq!(points([4.0]).quantile(0.9), Some(4.0));
        assert_eq!(points([1.0, 2.0]).quantile(0.5), Some(1.5));
    }

    #[test]
    fn a_step_is_found_soon() {
        let mut noise = noise(7);
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
            found >= 490 && at_once == 500,
            "{found} and {at_once} of 500"
        );
    }

    #[test]
    fn a_step_of_what_comes_in_bursts_is_found() {
        let mut noise = noise(11);
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
        assert!(found >= 440, "{found} of 500");
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
        assert!(can_tell(60, 7) && can_tell(20, 9) && can_tell(13, 13));
        assert!(!can_tell(60, 4) && !can_tell(5, 5) && !can_tell(0, 60) && !can_tell(3, 60));
        assert!((chance_apart(5, 5) - 2.0 / 252.0).abs() < 1e-12);
        assert!((chance_apart(2, 30) - 2.0 / 496.0).abs() < 1e-12);
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
