//! What dropping caches would do here, and what it did.
//!
//! [`measure`] is taken before and after; [`propose`] picks the value. Both read; the
//! write itself is the business of [`crate::change`].

use std::sync::Arc;

use stalltop_model::change::EffectRow;
use stalltop_model::sample::MemoryVersion;
use stalltop_model::{Name, Reading, Reason};

use super::files::{Files, Kernel};
use super::locate::Place;
use super::parse;
use super::shared::Shared;
use super::sweep::Sweeper;
use super::tree::ROOT;
use super::visit;
use crate::env::{Env, KernelVersion};
use crate::file;

/// A moment of all that dropping caches changes.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheState {
    /// Dying memory cgroups of the host, counted anew.
    pub zombies: Reading<u64>,
    /// A read of the root's memory.stat, ns.
    pub root_read_ns: Reading<u64>,
    /// The same of the slowest known other cgroup.
    pub worst_read_ns: Option<(Name, Reading<u64>)>,
    /// `MemFree`, bytes.
    pub free: Reading<u64>,
    /// `MemAvailable`, bytes.
    pub available: Reading<u64>,
    /// Page cache, tmpfs not included: what level 1 can drop, bytes. From the root's
    /// memory.stat, or `Cached` of /proc/meminfo.
    pub page_cache: Reading<u64>,
    /// tmpfs and shared memory, which no level drops, bytes.
    pub shmem: Reading<u64>,
    /// Dentries, inodes and the like: what level 2 can drop, bytes. v1's memory.stat has
    /// no slab; there it is `SReclaimable` of /proc/meminfo.
    pub slab: Reading<u64>,
}

/// Measures now. `worst` is the cgroup whose read was slowest so far, if one is known.
///
/// For a thread of its own: a read may take as long as the stall that is hunted.
pub fn measure(env: &Env, worst: Option<&Name>) -> CacheState {
    let meminfo = file::read(&env.path("/proc/meminfo"));
    let of_host = |key: &str| match &meminfo {
        Ok(text) => meminfo_bytes(text, key)
            .ok_or_else(|| Reason::parse("/proc/meminfo", key.as_bytes()))
            .into(),
        Err(reason) => Reading::Off(reason.clone()),
    };
    let mut state = CacheState {
        zombies: Reading::default(),
        root_read_ns: Reading::default(),
        worst_read_ns: None,
        free: of_host("MemFree"),
        available: of_host("MemAvailable"),
        page_cache: of_host("Cached"),
        shmem: of_host("Shmem"),
        slab: of_host("SReclaimable"),
    };
    // /proc/meminfo counts tmpfs as cached.
    if let (Some(cached), Some(shmem)) = (state.page_cache.get(), state.shmem.get()) {
        state.page_cache = Reading::Value(cached.saturating_sub(shmem));
    }
    if let Err(reason) = of_cgroups(env, worst, &mut state) {
        state.zombies = Reading::Off(reason.clone());
        state.root_read_ns = Reading::Off(reason);
    }
    state
}

fn of_cgroups(env: &Env, worst: Option<&Name>, state: &mut CacheState) -> Result<(), Reason> {
    let place = Place::find(env)?;
    let files = Kernel::open(&env.path(&place.mount), &env.path("/proc/cgroups"))
        .map_err(|e| Reason::from_io(&place.mount, &e))?;
    let version = place.version;
    let mut sweeper = Sweeper::new(files, place, Arc::new(Shared::default()));
    state.zombies = sweeper.zombies_now();
    let root = time(&mut sweeper, "/");
    if root.value().is_some() {
        // The figures of the read that was just timed.
        let charged = Charged::parse(version, &sweeper.buf);
        let put = |to: &mut Reading<u64>, bytes: Option<u64>| {
            if let Some(bytes) = bytes {
                *to = Reading::Value(bytes);
            }
        };
        put(&mut state.page_cache, charged.page_cache);
        put(&mut state.shmem, charged.shmem);
        put(&mut state.slab, charged.slab);
    }
    state.root_read_ns = root;
    state.worst_read_ns = worst
        .filter(|path| &***path != "/")
        .map(|path| (path.clone(), time(&mut sweeper, path)));
    Ok(())
}

fn time(sweeper: &mut Sweeper<Kernel>, path: &str) -> Reading<u64> {
    let missing = || Reason::NoFile { path: path.into() };
    let Some(id) = sweeper.tree.find(path) else {
        return Reading::Off(missing());
    };
    let read = sweeper
        .files
        .enter(&sweeper.tree.node(id).path)
        .and_then(|_| sweeper.files.time(c"memory.stat", &mut sweeper.buf));
    match read {
        Ok(took) => Reading::Value(took),
        Err(e) if id != ROOT && visit::is_gone(&e) => Reading::Off(missing()),
        Err(e) => Reading::Off(sweeper.reason(id, "memory.stat", &e)),
    }
}

/// What the root's memory.stat says is charged, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// File pages, tmpfs not included.
    pub page_cache: Option<u64>,
    /// tmpfs and shared memory.
    pub shmem: Option<u64>,
    /// Reclaimable slab (v2 only).
    pub slab: Option<u64>,
}

impl Charged {
    /// Reads a memory.stat: v2's plain keys, or v1's `total_` of the whole subtree
    /// (mm/memcontrol.c, `memory_stat_show`, `memcg_stat_show`).
    pub fn parse(version: MemoryVersion, memory_stat: &[u8]) -> Self {
        let (file, shmem, slab) = match version {
            MemoryVersion::V1 => ("total_cache", "total_shmem", None),
            MemoryVersion::V2 => ("file", "shmem", Some("slab_reclaimable")),
        };
        let shmem = parse::keyed(memory_stat, shmem);
        Self {
            // Both kinds count tmpfs among the file pages.
            page_cache: parse::keyed(memory_stat, file)
                .map(|all| all.saturating_sub(shmem.unwrap_or(0))),
            shmem,
            slab: slab.and_then(|key| parse::keyed(memory_stat, key)),
        }
    }
}

/// A value for /proc/sys/vm/drop_caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// 1 page cache, 2 dentries and inodes, 3 both.
    pub level: u8,
    /// Why, for the person who is to confirm it.
    pub why: Name,
}

/// Picks the value that frees zombies on this kernel.
///
/// Before 5.16 the inode shrinker drops an inode together with its page cache, so 2 frees
/// what holds most zombies, and costs less than 1. From 5.16 on ("vfs: keep inodes with
/// page cache off the inode shrinker LRU") it does not, and only 1 helps. Measured: 5.10
/// (2 frees most, 1 the rest), 6.1 and 6.12 (2 has no effect, 1 frees nearly all within
/// 2 s), 6.18 (1 frees nearly all). Pages of tmpfs stay on all of them.
pub fn propose(kernel: KernelVersion, state: &CacheState) -> Proposal {
    let (level, mut why) = if kernel == KernelVersion::default() {
        (
            3,
            "the kernel's version is not known: 3 drops both kinds".to_owned(),
        )
    } else if kernel < KernelVersion(5, 16) {
        (
            2,
            format!(
                "before 5.16 (this is {kernel}) dropping inodes drops their page cache with \
                 them: 2 frees most zombies, 1 what is left"
            ),
        )
    } else {
        (
            1,
            format!(
                "from 5.16 on (this is {kernel}) zombies are held by page cache, which 2 leaves \
                 alone: 1 frees nearly all of them within seconds"
            ),
        )
    };
    let (cache, shmem) = (state.page_cache.get(), state.shmem.get());
    if shmem.zip(cache).is_some_and(|(s, c)| s > c) {
        why += "; more is charged to tmpfs than to page cache, and that stays until its files \
                are removed";
    }
    if state.zombies.get() == Some(0) {
        why += "; there are no zombies now";
    }
    Proposal {
        level,
        why: why.into(),
    }
}

/// The report of a change that was measured before and after.
pub fn report(before: &CacheState, after: &CacheState) -> Vec<EffectRow> {
    let row = |what: &str, unit: &str, of: fn(&CacheState) -> &Reading<u64>| EffectRow {
        what: what.into(),
        unit: unit.into(),
        before: of(before).clone(),
        after: of(after).clone(),
    };
    let mut rows = vec![
        row("zombie cgroups", "count", |s| &s.zombies),
        row("memory.stat read of /", "ns", |s| &s.root_read_ns),
    ];
    if let (Some((path, was)), Some((_, is))) = (&before.worst_read_ns, &after.worst_read_ns) {
        rows.push(EffectRow {
            what: format!("memory.stat read of {path}").into(),
            unit: "ns".into(),
            before: was.clone(),
            after: is.clone(),
        });
    }
    rows.extend([
        row("free memory", "bytes", |s| &s.free),
        row("available memory", "bytes", |s| &s.available),
        row("page cache", "bytes", |s| &s.page_cache),
        row("reclaimable slab", "bytes", |s| &s.slab),
    ]);
    rows
}

/// A line of /proc/meminfo (proc_meminfo(5)), which is in kB.
fn meminfo_bytes(meminfo: &[u8], key: &str) -> Option<u64> {
    file::lines(meminfo).find_map(|line| {
        let rest = line
            .strip_prefix(key.as_bytes())?
            .strip_prefix(b":")?
            .trim_ascii_start();
        let (value, unit) = file::number(rest)?;
        (unit.trim_ascii() == b"kB")
            .then(|| value.checked_mul(1024))
            .flatten()
    })
}

#[cfg(test)]
mod tests;
