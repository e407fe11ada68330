//! Parsers of the cgroup files that a sweep reads. Bytes in, no allocation.

use crate::file::{lines, number, words};

/// A file that holds one number: `memory.current`, `memory.usage_in_bytes`.
pub fn single(bytes: &[u8]) -> Option<u64> {
    let (value, rest) = number(bytes.trim_ascii_start())?;
    rest.trim_ascii().is_empty().then_some(value)
}

/// The value of `key` in a flat keyed file (`KEY VALUE` lines: memory.stat, cgroup.stat;
/// Documentation/admin-guide/cgroup-v2.rst, "Flat keyed").
pub fn keyed(bytes: &[u8], key: &str) -> Option<u64> {
    lines(bytes).find_map(|line| {
        let rest = line.strip_prefix(key.as_bytes())?.strip_prefix(b" ")?;
        single(rest)
    })
}

/// Dying memory cgroups below a v2 cgroup, from its `cgroup.stat`: `nr_dying_subsys_memory`
/// where the kernel has it (6.12+), else `nr_dying_descendants`, which counts removed
/// cgroups that any controller still holds (in practice memory).
pub fn dying(cgroup_stat: &[u8]) -> Option<u64> {
    keyed(cgroup_stat, "nr_dying_subsys_memory")
        .or_else(|| keyed(cgroup_stat, "nr_dying_descendants"))
}

/// `num_cgroups` of the memory controller in `/proc/cgroups`: the cgroups of its hierarchy,
/// dying ones included (kernel/cgroup/cgroup-v1.c, `proc_cgroupstats_show`). `None` where
/// the controller is not listed or disabled.
pub fn num_cgroups(proc_cgroups: &[u8]) -> Option<u64> {
    lines(proc_cgroups).find_map(|line| {
        let mut fields = words(line);
        if fields.next()? != b"memory" {
            return None;
        }
        let num = single(fields.nth(1)?)?;
        (single(fields.next()?)? != 0).then_some(num)
    })
}

/// The number of processes in a `cgroup.procs`: one pid per line. On v2 a pid may be
/// listed twice (cgroup-v2.rst); the count is then one too high for a moment.
pub fn processes(cgroup_procs: &[u8]) -> u64 {
    lines(cgroup_procs).count() as u64
}
