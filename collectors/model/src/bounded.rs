//! Lists of bounded length, read from a recording that anybody may have written: a few hundred
//! bytes of zstd hold millions of items, each of which would take thousands of bytes here.
//!
//! Bounds are far above what any host has, and hold while a line is read: nothing is put
//! aside first. What exceeds them is an error with its place in the line ([`cpus`], [`many`],
//! [`some`]), or is read over where stalltop itself leaves out what is too much ([`rows`],
//! [`first_some`], [`frames`]).

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};

use crate::Reading;

/// CPUs that a kernel can be built for (arch/x86/Kconfig, `NR_CPUS_RANGE_END` with `MAXSMP`; no
/// other architecture has more).
const CPUS: usize = 8_192;
/// Things of a host of which there are many: cgroups, events, probes, programs.
const MANY: usize = 1 << 18;
/// Things of which each of those has some: holders, pins, triggers; also samples of a stall.
const SOME: usize = 1 << 14;
/// Locks, and stacks, that a window has at most.
const ROWS: usize = 1_024;
/// Functions of a stack at most, and what belongs to one.
const FRAMES: usize = 512;

/// Reads a list of `most` items at most.
struct Items<T> {
    most: usize,
    /// What they are, where more of them are an error.
    what: Option<&'static str>,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while items.len() < self.most {
            match seq.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(items),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            if let Some(what) = self.what {
                let most = self.most;
                return Err(A::Error::custom(format_args!(
                    "more than {most} {what}: no host has so many"
                )));
            }
        }
        Ok(items)
    }
}

fn at_most<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
    most: usize,
    what: Option<&'static str>,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Items {
        most,
        what,
        item: PhantomData,
    })
}

/// What belongs to a CPU each.
pub(crate) fn cpus<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    at_most(deserializer, CPUS, Some("CPUs"))
}

/// What a host has many of.
pub(crate) fn many<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    at_most(deserializer, MANY, Some("things of one kind"))
}

/// What each of those has some of.
pub(crate) fn some<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    at_most(deserializer, SOME, Some("things of one"))
}

/// The same where it may not have been measured.
pub(crate) fn measured_some<'de, T, D>(deserializer: D) -> Result<Reading<Vec<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct List<T>(Vec<T>);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            some(deserializer).map(Self)
        }
    }

    let list = Reading::<List<T>>::deserialize(deserializer)?;
    Ok(list.map(|list| list.0))
}

/// The first rows of a table that is cut to a sane length.
pub(crate) fn rows<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    at_most(deserializer, ROWS, None)
}

/// The first of some, of a table that is cut to a sane length.
pub(crate) fn first_some<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    at_most(deserializer, SOME, None)
}

/// The innermost functions of a stack, and what belongs to one.
pub(crate) fn frames<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    at_most(deserializer, FRAMES, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_an_error_or_read_over() {
        let list = |n: usize| format!("[{}1]", "1,".repeat(n - 1));
        let read = |text: &str| cpus::<u8, _>(&mut serde_json::Deserializer::from_str(text));
        assert_eq!(read(&list(CPUS)).unwrap().len(), CPUS);
        let error = read(&list(CPUS + 1)).unwrap_err().to_string();
        assert!(
            error.starts_with("more than 8192 CPUs: no host has so many at line 1 column"),
            "{error}"
        );
        let read = |text: &str| rows::<u8, _>(&mut serde_json::Deserializer::from_str(text));
        assert_eq!(read(&list(ROWS + 7)).unwrap().len(), ROWS);
        let read =
            |text: &str| measured_some::<u8, _>(&mut serde_json::Deserializer::from_str(text));
        assert_eq!(read("[1]").unwrap(), Reading::Value(vec![1]));
        assert!(read(&list(SOME + 1)).is_err());
    }
}
