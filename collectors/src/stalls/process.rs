//! Who a culprit is, looked up after the fact in `/proc`: nothing is stopped, and every read
//! is bounded. A process that has ended by then keeps the comm that the kernel side saw.
//!
//! In a storm just the files that are read here are what is held up: [`Processes`] waits for a
//! [`Reader`] for [`PATIENCE`] at most, and for none while an earlier culprit holds it up.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::ClockId;
use stalltop_model::sample::{Culprit, Stall};
use stalltop_model::{Name, Reading, Reason};

use super::user_stack::UserStacks;
use crate::desk::Desk;
use crate::file;
use crate::own::nanoseconds;
use crate::owner;
use crate::tracing::holders::INIT_PID_NS;

/// Descriptors of a process that are looked at for the file that it read.
const DESCRIPTORS: usize = 256;
/// How long a stall waits for the facts about its culprit.
const PATIENCE: Duration = Duration::from_millis(75);
/// The most that is read of one file of `/proc`, bytes.
const LONGEST: u64 = 16 * 1024;

/// System calls that read from a descriptor, their first argument, and their numbers.
const READS: &[(&str, libc::c_long)] = &[
    ("read", libc::SYS_read),
    ("pread64", libc::SYS_pread64),
    ("readv", libc::SYS_readv),
    ("preadv", libc::SYS_preadv),
    ("preadv2", libc::SYS_preadv2),
    ("getdents64", libc::SYS_getdents64),
];

/// Why process ids of the kernel's side say nothing here: `/proc` has other numbers.
pub(crate) fn foreign(proc: &Path) -> Option<Reason> {
    let namespace = std::fs::read_link(proc.join("self/ns/pid"));
    let foreign = namespace.is_ok_and(|ns| ns.as_os_str() != INIT_PID_NS);
    foreign.then(|| Reason::Refused {
        what: "a process by its number on the host".into(),
        why: "stalltop runs in a PID namespace of its own (--pid=host lifts that)".into(),
    })
}

/// When a stall ended (`CLOCK_BOOTTIME`, ns), and its culprit.
type Question = (u64, Culprit);
/// The culprit with what was found, and the CPU time of the thread that looked so far, ns.
type Answer = (Culprit, u64);

/// Looks processes up below a root.
pub(crate) struct Processes {
    desk: Result<Desk<Question, Answer>, Reason>,
    namer: Option<UserStacks>,
    foreign: Option<Reason>,
    /// CPU time of the thread that reads, ns.
    spent_ns: u64,
}

/// Reads `/proc`, on a thread of its own.
struct Reader {
    proc: PathBuf,
    clock_tick_ns: u64,
}

impl Processes {
    /// `proc` is where procfs is; `program` stalltop's own binary, which names user stacks.
    pub(crate) fn new(proc: PathBuf, program: Option<PathBuf>) -> Self {
        let foreign = foreign(&proc);
        let reader = Reader::new(proc);
        let look = move |(at_ns, mut culprit): Question| {
            reader.look(at_ns, &mut culprit);
            (culprit, nanoseconds(ClockId::ThreadCPUTime))
        };
        // The name shows in stalls that are ours.
        let desk = Desk::start("stalltop-proc", look).map_err(|error| Reason::Refused {
            what: "a thread that reads /proc".into(),
            why: error.to_string().into(),
        });
        Self {
            desk,
            foreign,
            namer: program.map(UserStacks::new),
            spent_ns: 0,
        }
    }

    /// CPU time that reading took so far, ns: as of the last culprit that was looked up in time.
    pub(super) fn spent_ns(&self) -> u64 {
        self.spent_ns
    }

    /// Adds what `/proc` tells of the culprit, where it does so in time.
    pub(super) fn look(&mut self, stall: &mut Stall) {
        let at_ns = stall.at_ns;
        let Reading::Value(culprit) = &mut stall.culprit else {
            return;
        };
        if culprit.pid == 0 {
            let what = if culprit.vector.is_some() {
                "for which process a softirq works"
            } else {
                "whose time the idle loop takes"
            };
            return unknown(culprit, &Reason::KernelDoesNotSay { what: what.into() });
        }
        if let Some(why) = &self.foreign {
            return unknown(culprit, why);
        }
        let desk = match &mut self.desk {
            Ok(desk) => desk,
            Err(why) => return unknown(culprit, why),
        };
        let Some((found, spent_ns)) = desk.ask((at_ns, culprit.clone()), PATIENCE) else {
            let by = "whoever holds up reads of processes in /proc".into();
            return unknown(culprit, &Reason::Busy { by });
        };
        *culprit = found;
        self.spent_ns = spent_ns;
        if let (Some(namer), Reading::Value(_)) = (&mut self.namer, &culprit.owner) {
            namer.name_stack(culprit.tgid, &culprit.comm, &mut culprit.user_stack);
        }
    }
}

/// Says why nothing is known of a culprit but what the kernel side saw.
fn unknown(culprit: &mut Culprit, why: &Reason) {
    culprit.cgroup = Reading::Off(why.clone());
    culprit.owner = Reading::Off(why.clone());
}

impl Reader {
    fn new(proc: PathBuf) -> Self {
        Self {
            proc,
            clock_tick_ns: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
        }
    }

    /// Adds what `/proc` tells of the culprit of a stall that ended then.
    fn look(&self, at_ns: u64, culprit: &mut Culprit) {
        let task = self.task(culprit);
        let found = self.same_process(&task, at_ns).and_then(|()| {
            let text = bounded(&task.join("cgroup"))
                .map_err(|e| Reason::from_io(&format!("/proc/{}/cgroup", culprit.pid), &e))?;
            Ok(owner::of_proc_cgroup(&text))
        });
        match found {
            Ok(owner) => {
                culprit.cgroup = Reading::Value(owner.cgroup.clone());
                culprit.owner = Reading::Value(owner);
                culprit.file = self.file(culprit, &task);
            }
            Err(reason) => {
                let reason = match reason {
                    Reason::NoFile { .. } => Reason::Gone {
                        what: format!("process {}", culprit.tgid).into(),
                    },
                    other => other,
                };
                unknown(culprit, &reason);
            }
        }
    }

    fn task(&self, culprit: &Culprit) -> PathBuf {
        let (tgid, pid) = (culprit.tgid, culprit.pid);
        self.proc.join(format!("{tgid}/task/{pid}"))
    }

    /// Whether the thread is the one that stalled, and not one that got its number since.
    fn same_process(&self, task: &Path, at_ns: u64) -> Result<(), Reason> {
        let shown = task.to_string_lossy();
        let stat = bounded(&task.join("stat")).map_err(|e| Reason::from_io(&shown, &e))?;
        let start = start_time(&stat).ok_or_else(|| Reason::parse(&shown, &stat))?;
        if start.saturating_mul(self.clock_tick_ns) > at_ns {
            return Err(Reason::NoFile {
                path: shown.as_ref().into(),
            });
        }
        Ok(())
    }

    /// The file that the culprit read: best effort. First the descriptor that it reads from
    /// right now, if that looks like the function; then any descriptor that does; then the
    /// one that it reads from, whatever it is.
    fn file(&self, culprit: &Culprit, task: &Path) -> Option<Name> {
        let syscall = culprit.syscall.as_deref()?;
        let (_, number) = READS.iter().find(|(name, _)| *name == syscall)?;
        let fits = |path: &str| {
            let function = culprit.function.value();
            function.is_some_and(|function| names_file(function, path))
        };
        let links = self.proc.join(format!("{}/fd", culprit.tgid));
        let link = |fd: &Path| {
            let target = std::fs::read_link(links.join(fd)).ok()?;
            let target = target.to_string_lossy().into_owned();
            target.starts_with('/').then_some(target)
        };
        let now = bounded(&task.join("syscall"))
            .ok()
            .and_then(|text| descriptor_in_use(&text, *number))
            .and_then(|fd| link(Path::new(&fd.to_string())));
        if let Some(path) = now.as_deref().filter(|path| fits(path)) {
            return Some(path.into());
        }
        let entries = std::fs::read_dir(&links).ok().into_iter().flatten();
        entries
            .take(DESCRIPTORS)
            .filter_map(|entry| link(Path::new(&entry.ok()?.file_name())))
            .find(|path| fits(path))
            .or(now)
            .map(Name::from)
    }
}

/// Reads the start of a file of `/proc`.
fn bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// `starttime` of `/proc/PID/stat` (proc_pid_stat(5)): field 22, clock ticks since boot. The
/// comm before it may hold blanks and parentheses.
pub(crate) fn start_time(stat: &[u8]) -> Option<u64> {
    let after = stat.iter().rposition(|b| *b == b')')? + 1;
    let word = file::words(&stat[after..]).nth(19)?;
    file::number(word).map(|(ticks, _)| ticks)
}

/// The descriptor in `/proc/PID/syscall` (proc_pid_syscall(5)): `0 0x3 0x7f.. ...`; `None`
/// where the thread runs, or is in another system call.
fn descriptor_in_use(text: &[u8], syscall: libc::c_long) -> Option<u32> {
    let line = file::lines(text).next()?;
    let mut words = file::words(line);
    let (number, _) = file::number(words.next()?)?;
    if i64::try_from(number) != Ok(syscall) {
        return None;
    }
    let word = std::str::from_utf8(words.next()?).ok()?;
    u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// Functions whose file is named otherwise.
const ALIASES: &[(&str, &str)] = &[
    // cgroup v1's memory.stat (mm/memcontrol.c up to 6.10, then mm/memcontrol-v1.c).
    ("memcg_stat_show", "memory.stat"),
    ("memcg_numa_stat_show", "memory.numa_stat"),
    ("show_stat", "stat"),
    ("show_map", "maps"),
    ("show_smap", "smaps"),
    ("show_smaps_rollup", "smaps_rollup"),
    ("s_show", "kallsyms"),
];

/// What the kernel appends to the name of a file in the functions that print it.
const SUFFIXES: &[&str] = &[
    "_seq_show",
    "_proc_show",
    "_show",
    "_seq_next",
    "_seq_start",
    "_next",
    "_start",
    "_read",
];

/// Whether a kernel function prints the file of that path: `memory_stat_show` is
/// `memory.stat`, `pagetypeinfo_showblockcount` is `/proc/pagetypeinfo`.
fn names_file(function: &str, path: &str) -> bool {
    let base = path.rsplit('/').next().unwrap_or_default();
    let known = ALIASES.iter().find(|(name, _)| *name == function);
    if let Some((_, file)) = known {
        return base == *file;
    }
    let stem = SUFFIXES
        .iter()
        .find_map(|suffix| function.strip_suffix(suffix))
        .unwrap_or(function);
    let plain =
        |name: &str| -> String { name.chars().filter(char::is_ascii_alphanumeric).collect() };
    let (stem, base) = (plain(stem), plain(base));
    // Short names would match by accident.
    base.len() >= 4 && (stem == base || (base.len() >= 6 && stem.starts_with(&base)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::FileType;
    use stalltop_model::sample::OwnerKind;

    use super::*;

    /// A reader of memory.stat: process 40, thread 41, started 100 s after boot.
    #[test]
    fn numbers_of_another_namespace_name_nobody() {
        let dir = proc();
        std::fs::create_dir_all(dir.path().join("self/ns")).unwrap();
        std::os::unix::fs::symlink("pid:[4026532000]", dir.path().join("self/ns/pid")).unwrap();
        let mut stall = Stall {
            culprit: Reading::Value(Culprit {
                pid: 1,
                tgid: 1,
                ..Culprit::default()
            }),
            ..Stall::default()
        };
        Processes::new(dir.path().to_owned(), None).look(&mut stall);
        let why = stall.culprit.value().unwrap().owner.reason().unwrap();
        assert!(why.to_string().contains("PID namespace"), "{why}");
    }

    fn proc() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let task = dir.path().join("40/task/41");
        fs::create_dir_all(&task).unwrap();
        fs::create_dir(dir.path().join("40/fd")).unwrap();
        let stat = format!("41 (a) b) R {}10000 0\n", "0 ".repeat(18));
        fs::write(task.join("stat"), stat).unwrap();
        fs::write(task.join("cgroup"), "0::/system.slice/cadvisor.service\n").unwrap();
        fs::write(task.join("syscall"), "running\n").unwrap();
        let link = |fd: &str, to: &str| symlink(to, dir.path().join("40/fd").join(fd)).unwrap();
        link("0", "/dev/null");
        link("3", "socket:[7]");
        link("7", "/sys/fs/cgroup/a/memory.stat");
        dir
    }

    fn stall(at_ns: u64, function: &str) -> Stall {
        Stall {
            at_ns,
            culprit: Reading::Value(Culprit {
                pid: 41,
                tgid: 40,
                comm: "cadvisor".into(),
                syscall: Some("read".into()),
                function: Reading::Value(function.into()),
                ..Culprit::default()
            }),
            ..Stall::default()
        }
    }

    fn looked(dir: &Path, mut stall: Stall) -> Culprit {
        Processes::new(dir.to_owned(), None).look(&mut stall);
        stall.culprit.value().unwrap().clone()
    }

    #[test]
    fn a_living_process_is_named_with_the_file_it_read() {
        let dir = proc();
        let culprit = looked(dir.path(), stall(u64::MAX, "memory_stat_show"));
        let owner = culprit.owner.value().unwrap();
        assert_eq!(
            (owner.kind, &*owner.name),
            (OwnerKind::Unit, "cadvisor.service")
        );
        assert_eq!(
            culprit.cgroup.value().map(|c| &**c),
            Some("/system.slice/cadvisor.service")
        );
        assert_eq!(
            culprit.file.as_deref(),
            Some("/sys/fs/cgroup/a/memory.stat")
        );

        // Nothing fits: the file that it reads just now, and none where it runs.
        let culprit = looked(dir.path(), stall(u64::MAX, "slab_show"));
        assert_eq!(culprit.file, None);
        let reads = format!("{} 0x7 0x7ffc00 0x1000 0x0\n", libc::SYS_read);
        fs::write(dir.path().join("40/task/41/syscall"), reads).unwrap();
        let culprit = looked(dir.path(), stall(u64::MAX, "slab_show"));
        assert_eq!(
            culprit.file.as_deref(),
            Some("/sys/fs/cgroup/a/memory.stat")
        );
    }

    #[test]
    fn one_that_ended_keeps_its_comm_and_its_number_may_be_anothers() {
        let dir = proc();
        // It started at 100 s.
        for (at_ns, gone) in [(99_999_999_999, true), (100_000_000_000, false)] {
            let culprit = looked(dir.path(), stall(at_ns, "memory_stat_show"));
            assert_eq!(culprit.owner.value().is_none(), gone, "{at_ns}");
        }
        fs::remove_dir_all(dir.path().join("40")).unwrap();
        let culprit = looked(dir.path(), stall(u64::MAX, "memory_stat_show"));
        assert_eq!(&*culprit.comm, "cadvisor");
        let why = culprit.owner.reason().unwrap();
        assert_eq!(
            why.to_string(),
            "process 40 ended before it could be looked at"
        );
        assert_eq!(culprit.cgroup.reason(), Some(why));
        assert_eq!(culprit.file, None);
    }

    /// As where a writer of cgroups holds `cgroup_mutex`: the file is there and says nothing.
    #[test]
    fn a_read_that_hangs_holds_up_no_stall() {
        let dir = proc();
        let cgroup = dir.path().join("40/task/41/cgroup");
        fs::remove_file(&cgroup).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &cgroup, FileType::Fifo, mode, 0).unwrap();
        let mut processes = Processes::new(dir.path().to_owned(), None);
        let mut look = || {
            let mut stall = stall(u64::MAX, "memory_stat_show");
            processes.look(&mut stall);
            stall.culprit.value().unwrap().clone()
        };
        let (first, second) = (look(), look());
        for culprit in [&first, &second] {
            assert_eq!(&*culprit.comm, "cadvisor");
            assert!(matches!(culprit.owner.reason(), Some(Reason::Busy { .. })));
            assert_eq!(culprit.owner.reason(), culprit.cgroup.reason());
        }
        // It comes loose; the next one is looked up again.
        fs::write(&cgroup, "").unwrap();
        fs::remove_file(&cgroup).unwrap();
        fs::write(&cgroup, "0::/system.slice/cadvisor.service\n").unwrap();
        let owner = loop {
            match look().owner {
                Reading::Value(owner) => break owner,
                Reading::Off(why) => assert!(matches!(why, Reason::Busy { .. }), "{why}"),
            }
        };
        assert_eq!(&*owner.name, "cadvisor.service");
    }

    #[test]
    fn softirqs_have_no_process() {
        let dir = proc();
        let mut softirq = stall(u64::MAX, "nft_do_chain");
        let culprit = softirq.culprit.value_mut().unwrap();
        (culprit.pid, culprit.tgid) = (0, 0);
        culprit.vector = Some(stalltop_model::sample::Vector::NetRx);
        Processes::new(dir.path().to_owned(), None).look(&mut softirq);
        let culprit = softirq.culprit.value().unwrap();
        assert_eq!(
            culprit.owner.reason().unwrap().to_string(),
            "the kernel does not tell for which process a softirq works"
        );
    }

    #[test]
    fn functions_name_their_files() {
        for (function, path) in [
            ("memory_stat_show", "/sys/fs/cgroup/x/memory.stat"),
            ("memcg_stat_show", "/sys/fs/cgroup/memory/x/memory.stat"),
            ("memory_numa_stat_show", "/a/memory.numa_stat"),
            ("pagetypeinfo_show", "/proc/pagetypeinfo"),
            ("pagetypeinfo_showblockcount_print", "/proc/pagetypeinfo"),
            ("meminfo_proc_show", "/proc/meminfo"),
            ("slabinfo_show", "/proc/slabinfo"),
            ("show_smap", "/proc/1/smaps"),
        ] {
            assert!(names_file(function, path), "{function} {path}");
        }
        for (function, path) in [
            ("memory_stat_show", "/sys/fs/cgroup/x/memory.current"),
            ("memcg_stat_show", "/a/memcg.stat"),
            ("show_stat", "/sys/fs/cgroup/memory.stat"),
            ("stat_show", "/"),
            ("nft_do_chain", "/dev/nft"),
        ] {
            assert!(!names_file(function, path), "{function} {path}");
        }
    }

    #[test]
    fn hostile_text_is_no_descriptor() {
        for text in [
            "",
            "running",
            "0",
            "0 3",
            "0 0x",
            "0 0xfffffffff",
            "999999999999999999999 0x1",
        ] {
            assert_eq!(descriptor_in_use(text.as_bytes(), 0), None, "{text}");
        }
        assert_eq!(descriptor_in_use(b"0 0x3 0x1\n", 0), Some(3));
        assert_eq!(start_time(b"1 (x"), None);
        assert_eq!(start_time(b")"), None);
    }
}
