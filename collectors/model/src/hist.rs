//! Logarithmic histograms of durations.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Number of buckets of a [`Hist`].
pub const BUCKETS: usize = 32;

/// Counts of durations by power of two: bucket `i` holds `2^i <= ns < 2^(i+1)`.
///
/// Bucket 0 also holds 0 ns, and the last bucket everything from `2^31` ns
/// (2.1 s) on. Serialised as an array without its trailing zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hist(pub [u64; BUCKETS]);

impl Default for Hist {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Hist {
    /// The lower bound of bucket `i`, in ns.
    pub fn floor_ns(i: usize) -> u64 {
        if i == 0 { 0 } else { 1u64 << i.min(63) }
    }

    /// How many durations were counted.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// What was counted since `earlier`; a counter that went back counts as restarted.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut out = Self::default();
        for (o, (now, then)) in out.0.iter_mut().zip(self.0.iter().zip(&earlier.0)) {
            *o = if now >= then { now - then } else { *now };
        }
        out
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = a.saturating_add(*b);
        }
    }

    /// The upper bound, in ns, of the bucket in which quantile `q` (0 to 1) lies;
    /// `None` while nothing was counted.
    pub fn quantile_below_ns(&self, q: f64) -> Option<u64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let want = ((total as f64) * q.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0u64;
        for (i, n) in self.0.iter().enumerate() {
            seen = seen.saturating_add(*n);
            if seen >= want {
                return Some(1u64 << (i + 1));
            }
        }
        None
    }
}

impl Serialize for Hist {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let used = self.0.iter().rposition(|n| *n != 0).map_or(0, |i| i + 1);
        serializer.collect_seq(&self.0[..used])
    }
}

impl<'de> Deserialize<'de> for Hist {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Buckets;
        impl<'de> serde::de::Visitor<'de> for Buckets {
            type Value = Hist;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "an array of at most {BUCKETS} counts")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Hist, A::Error> {
                let mut hist = Hist::default();
                let mut i = 0;
                while let Some(n) = seq.next_element()? {
                    *hist
                        .0
                        .get_mut(i)
                        .ok_or_else(|| A::Error::invalid_length(i + 1, &self))? = n;
                    i += 1;
                }
                Ok(hist)
            }
        }
        deserializer.deserialize_seq(Buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_zeros_are_not_written() {
        let mut hist = Hist::default();
        hist.0[3] = 7;
        let text = serde_json::to_string(&hist).unwrap();
        assert_eq!(text, "[0,0,0,7]");
        assert_eq!(serde_json::from_str::<Hist>(&text).unwrap(), hist);
        assert!(serde_json::from_str::<Hist>(&format!("[{}0]", "0,".repeat(BUCKETS))).is_err());
    }

    #[test]
    fn quantiles_bound_from_above() {
        let mut hist = Hist::default();
        assert_eq!(hist.quantile_below_ns(0.5), None);
        hist.0[10] = 99;
        hist.0[20] = 1;
        assert_eq!(hist.quantile_below_ns(0.5), Some(1 << 11));
        assert_eq!(hist.quantile_below_ns(1.0), Some(1 << 21));
    }
}
