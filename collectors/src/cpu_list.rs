//! CPU lists as the kernel prints them: `0-3,8,10-11` (lib/bitmap.c, `bitmap_list_string`).

use crate::file;

/// CPU numbers from here on are not believed: the kernel's largest `CONFIG_NR_CPUS` is 8,192.
pub const CPU_LIMIT: u32 = 1 << 14;

/// Puts the CPUs of a list into `out`, ascending. Leaves out what is not understood or
/// beyond [`CPU_LIMIT`]; an empty list, or `(null)` as older kernels print, gives none.
pub fn parse(bytes: &[u8], out: &mut Vec<u32>) {
    out.clear();
    for range in bytes.trim_ascii().split(|b| *b == b',') {
        let Some((first, rest)) = file::number(range) else {
            continue;
        };
        let last = match rest.strip_prefix(b"-").and_then(file::number) {
            Some((last, _)) => last,
            None => first,
        };
        let first = first.min(CPU_LIMIT.into()) as u32;
        let last = last.min(u64::from(CPU_LIMIT) - 1) as u32;
        // Hostile text could repeat a range without end.
        if out.len() <= CPU_LIMIT as usize {
            out.extend(first..=last);
        }
    }
    if !out.is_sorted_by(|a, b| a < b) {
        out.sort_unstable();
        out.dedup();
    }
}

/// The CPUs of a list, ascending.
pub fn cpus(bytes: &[u8]) -> Vec<u32> {
    let mut out = Vec::new();
    parse(bytes, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(cpus(b"0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(cpus(b"0\n"), [0]);
        assert!(cpus(b"\n").is_empty());
        assert!(cpus(b"(null)\n").is_empty());
        assert_eq!(cpus(b"3,1-2,2"), [1, 2, 3]);
        assert!(cpus(b"5-3").is_empty());
        assert_eq!(cpus(b"0-4294967295,99999999999").len(), CPU_LIMIT as usize);
    }

    proptest! {
        #[test]
        fn any_bytes_give_ascending_numbers(bytes: Vec<u8>) {
            let cpus = cpus(&bytes);
            prop_assert!(cpus.is_sorted_by(|a, b| a < b));
            prop_assert!(cpus.iter().all(|c| *c < CPU_LIMIT));
        }

        #[test]
        fn what_the_kernel_prints_comes_back(set in proptest::collection::btree_set(0..200u32, 0..50)) {
            let text = set.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            prop_assert_eq!(cpus(text.as_bytes()), set.into_iter().collect::<Vec<_>>());
        }
    }
}
