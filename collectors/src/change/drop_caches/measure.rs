//! What a drop of caches is judged by: zombies, the time of a memory.stat read, memory.

use std::path::Path;
use std::time::Instant;

use stalltop_model::change::EffectRow;
use stalltop_model::sample::MemoryVersion;
use stalltop_model::{Reading, Reason};

use crate::Env;
use crate::cgroups::{Place, parse};
use crate::file;

/// Free memory must grow by this much to count as an effect: it moves by itself.
const NOTABLE: u64 = 8 << 20;

/// What `/proc/meminfo` says of caches, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) free: u64,
    /// File pages, tmpfs and shared memory included (`Cached` + `Buffers`).
    pub(super) cached: u64,
    /// tmpfs and shared memory: cannot be dropped.
    pub(super) shmem: u64,
    /// Not written back yet: stays until it is.
    pub(super) dirty: u64,
    /// `SReclaimable`: dentries, inodes and the like.
    pub(super) reclaimable_slab: u64,
}

impl Memory {
    pub(super) fn read(env: &Env) -> Result<Self, Reason> {
        const PATH: &str = "/proc/meminfo";
        let bytes = file::read(&env.path(PATH))?;
        Self::parse(&bytes).ok_or_else(|| Reason::parse(PATH, &bytes))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        // `MemFree:         1234 kB` (fs/proc/meminfo.c).
        let kib = |key: &str| {
            let line = file::lines(bytes).find_map(|l| l.strip_prefix(key.as_bytes()))?;
            let line = line.strip_prefix(b":")?.trim_ascii_start();
            file::number(line)?.0.checked_mul(1024)
        };
        Some(Self {
            free: kib("MemFree")?,
            cached: kib("Cached")?.saturating_add(kib("Buffers").unwrap_or(0)),
            shmem: kib("Shmem").unwrap_or(0),
            dirty: kib("Dirty").unwrap_or(0),
            reclaimable_slab: kib("SReclaimable").unwrap_or(0),
        })
    }

    /// The page cache that `1` can free at most.
    pub(super) fn droppable_cache(&self) -> u64 {
        self.cached
            .saturating_sub(self.shmem)
            .saturating_sub(self.dirty)
    }
}

/// All figures at one moment.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    zombies: Reading<u64>,
    read_ns: Reading<u64>,
    memory: Reading<Memory>,
}

impl Figures {
    pub(super) fn take(env: &Env) -> Self {
        Self {
            // Counting first: it would otherwise pay for what the read has flushed.
            read_ns: timed_read(env).into(),
            zombies: zombies(env),
            memory: Memory::read(env).into(),
        }
    }

    pub(super) fn compared_with(&self, after: &Self) -> Vec<EffectRow> {
        let of = |pick: fn(Memory) -> u64| {
            (
                self.memory.clone().map(pick),
                after.memory.clone().map(pick),
            )
        };
        let rows = [
            (
                "zombie cgroups",
                "count",
                (self.zombies.clone(), after.zombies.clone()),
            ),
            (
                "memory.stat read",
                "ns",
                (self.read_ns.clone(), after.read_ns.clone()),
            ),
            ("free memory", "bytes", of(|m| m.free)),
            ("page cache", "bytes", of(|m| m.cached)),
            ("reclaimable slab", "bytes", of(|m| m.reclaimable_slab)),
        ];
        rows.into_iter()
            .map(|(what, unit, (before, after))| EffectRow {
                what: what.into(),
                unit: unit.into(),
                before,
                after,
            })
            .collect()
    }
}

/// Whether a row shows what the drop was for: fewer zombies, or notably more free memory.
pub(super) fn is_better(row: &EffectRow) -> bool {
    let (Some(before), Some(after)) = (row.before.get(), row.after.get()) else {
        return false;
    };
    match &*row.what {
        "zombie cgroups" => after < before,
        "free memory" => after >= before.saturating_add(NOTABLE),
        _ => false,
    }
}

/// One read of the root's memory.stat, ns.
fn timed_read(env: &Env) -> Result<u64, Reason> {
    let place = Place::find(env)?;
    let path = env.path(&format!("{}/memory.stat", place.mount));
    let started = Instant::now();
    file::read(&path)?;
    Ok(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// Dying memory cgroups of the host. v2: from `cgroup.stat`; v1: `num_cgroups` minus the
/// directories that are visible.
pub(super) fn zombies(env: &Env) -> Reading<u64> {
    count_zombies(env).into()
}

fn count_zombies(env: &Env) -> Result<u64, Reason> {
    let place = Place::find(env)?;
    if !place.whole {
        return Err(Reason::KernelDoesNotSay {
            what: "zombie cgroups to a cgroup namespace".into(),
        });
    }
    if place.version == MemoryVersion::V2 {
        let path = format!("{}/cgroup.stat", place.mount);
        let bytes = file::read(&env.path(&path))?;
        return parse::dying(&bytes).ok_or_else(|| Reason::parse(&path, &bytes));
    }
    const PATH: &str = "/proc/cgroups";
    let bytes = file::read(&env.path(PATH))?;
    let all = parse::num_cgroups(&bytes).ok_or_else(|| Reason::parse(PATH, &bytes))?;
    Ok(all.saturating_sub(folders(&env.path(&place.mount))))
}

/// Directories at and below `top`.
fn folders(top: &Path) -> u64 {
    let mut count = 0;
    let mut left = vec![top.to_owned()];
    while let Some(dir) = left.pop() {
        count += 1;
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        left.extend(
            entries
                .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                .map(|e| e.path()),
        );
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_in_bytes() {
        let text = b"MemTotal: 9 kB\nMemFree:   1 kB\nBuffers: 2 kB\nCached:  10 kB\n\
            SwapCached: 99 kB\nDirty: 3 kB\nShmem: 4 kB\nSReclaimable: 5 kB\n";
        let memory = Memory::parse(text).unwrap();
        assert_eq!((memory.free, memory.cached), (1024, 12 * 1024));
        assert_eq!(memory.droppable_cache(), 5 * 1024);
        assert_eq!(memory.reclaimable_slab, 5 * 1024);
        assert_eq!(Memory::parse(b"MemFree: x kB\n"), None);
        assert_eq!(Memory::parse(b""), None);
    }

    proptest::proptest! {
        #[test]
        fn any_meminfo_is_taken(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Memory::parse(&bytes).map(|m| m.droppable_cache());
        }
    }
}
