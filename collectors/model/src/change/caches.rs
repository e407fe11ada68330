//! Which value of `/proc/sys/vm/drop_caches` frees zombie memory cgroups.
//!
//! Measured (5,000 zombies, files on ext4 and on tmpfs): on 5.10 `2` frees most and `1` the
//! rest; on 6.1 and 6.12 `2` has no effect on them and `1` frees nearly all, within 2 s; on 6.18
//! `1` does. Those charged with tmpfs pages stay until the files are removed.

use crate::units;

/// What may hold zombie cgroups, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Droppable {
    /// Clean page cache that is backed by files: what `1` frees.
    pub cache: u64,
    /// Dentries and inodes: what `2` frees.
    pub slab: u64,
}

/// The value that fits a kernel, given as the first two numbers of its release, and why.
/// Without figures of what is charged, the kernel alone decides.
pub fn fitting(kernel: (u16, u16), charged: Option<Droppable>) -> (u8, String) {
    let version = format!("{}.{}", kernel.0, kernel.1);
    if kernel >= (6, 1) {
        return (
            1,
            format!(
                "on kernel {version} it is page cache that holds zombie cgroups; 2 has no effect on them"
            ),
        );
    }
    match charged {
        Some(charged) if charged.slab < charged.cache / 20 => (
            3,
            format!(
                "on kernel {version} with little reclaimable slab ({}) page cache holds zombie cgroups as well",
                units::Bytes(charged.slab)
            ),
        ),
        _ => (
            2,
            format!(
                "on kernel {version} dentries and inodes hold most zombie cgroups, and the page cache stays"
            ),
        ),
    }
}

/// The first two numbers of a release such as `6.1.0-37-cloud-amd64`.
pub fn kernel_of(release: &str) -> Option<(u16, u16)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_follows_the_kernel_and_what_is_charged() {
        let charged = |cache, slab| Some(Droppable { cache, slab });
        assert_eq!(fitting((6, 18), charged(0, 1 << 30)).0, 1);
        assert_eq!(fitting((6, 1), None).0, 1);
        assert_eq!(fitting((5, 10), charged(1 << 30, 1 << 28)).0, 2);
        assert_eq!(fitting((5, 10), charged(1 << 30, 1 << 20)).0, 3);
        assert_eq!(fitting((4, 18), None).0, 2);
        // As the old code had it: nothing charged is no reason for page cache.
        assert_eq!(fitting((5, 4), charged(0, 0)).0, 2);
    }

    #[test]
    fn releases_have_two_numbers() {
        assert_eq!(kernel_of("5.10.0-28-cloud-amd64"), Some((5, 10)));
        assert_eq!(kernel_of("7.2"), Some((7, 2)));
        assert_eq!(kernel_of("weird"), None);
        assert_eq!(kernel_of(""), None);
        assert_eq!(kernel_of("6"), None);
        assert_eq!(kernel_of("99999999.1"), None);
    }
}
