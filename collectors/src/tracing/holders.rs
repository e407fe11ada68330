//! Who holds programs, links, maps, perf events and readers of trace buffers: the descriptors of
//! all processes (proc_pid_fd(5), proc_pid_fdinfo(5)).
//!
//! Threads share their process's descriptors, so processes are looked at, not threads. A process
//! that vanishes meanwhile is left out. A forked child holds what its parent holds: both count.
//!
//! Two ways: the kernel's iterator (`iterator`), and where it cannot be had the links in
//! `/proc/PID/fd` (`scan`), which take 17 times as long with 2,000 processes and tell nothing of
//! perf events without BPF.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::param::clock_ticks_per_second;
use rustix::time::ClockId;
use stalltop_model::sample::{HeldBy, Holder, Owner};
use stalltop_model::{Name, Reading, Reason};

use super::instance::slurp;
use super::perf::Event;
use super::text::name;
use crate::env::Capabilities;
use crate::own::nanoseconds;
use crate::stalls::process::start_time;
use crate::{Env, file, owner};

pub(super) mod iterator;

/// The longest command line kept, in bytes.
const MAX_CMDLINE: usize = 256;

/// Inode of the first PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
pub(crate) const INIT_PID_NS: &str = "pid:[4026531836]";

/// What one descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A program.
    Program(u32),
    /// A link and its program.
    Link {
        /// The link's id.
        link: u32,
        /// The program's id; 0 if the kernel did not say.
        program: u32,
    },
    /// A map.
    Map(u32),
}

/// Reads `/proc/PID/fdinfo/FD` of a BPF descriptor (kernel/bpf/syscall.c, `bpf_prog_show_fdinfo`,
/// `bpf_link_show_fdinfo`, `bpf_map_show_fdinfo`).
pub fn fdinfo(bytes: &[u8]) -> Option<Held> {
    let field = |key: &[u8]| {
        file::lines(bytes).find_map(|line| {
            let value = line.strip_prefix(key)?.trim_ascii();
            u32::try_from(file::number(value)?.0).ok()
        })
    };
    // A link shows its program's id as well, a map its owner's tag at most.
    if let Some(link) = field(b"link_id:") {
        let program = field(b"prog_id:").unwrap_or(0);
        return Some(Held::Link { link, program });
    }
    if let Some(map) = field(b"map_id:") {
        return Some(Held::Map(map));
    }
    field(b"prog_id:").map(Held::Program)
}

/// What the link in `/proc/PID/fd` names.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// Something of BPF: its fdinfo tells more.
    Bpf,
    /// A perf event, or a raw tracepoint before it became a link (5.7).
    Perf,
    /// A trace buffer's reader, of this instance.
    Reader(Name),
}

/// Reads the target of a link in `/proc/PID/fd`. `tracefs` are tracefs's mount points.
fn target(link: &[u8], tracefs: &[String]) -> Option<Target> {
    if let Some(inode) = link.strip_prefix(b"anon_inode:") {
        return match inode {
            b"[perf_event]" | b"bpf-raw-tracepoint" | b"[bpf-raw-tracepoint]" => Some(Target::Perf),
            _ if inode
                .strip_prefix(b"[")
                .unwrap_or(inode)
                .starts_with(b"bpf") =>
            {
                Some(Target::Bpf)
            }
            _ => None,
        };
    }
    if !link.ends_with(b"/trace_pipe") && !link.ends_with(b"/trace_pipe_raw") {
        return None;
    }
    let below = tracefs
        .iter()
        .find_map(|at| link.strip_prefix(at.as_bytes())?.strip_prefix(b"/"))?;
    let instance = below
        .strip_prefix(b"instances/")
        .and_then(|rest| rest.split(|b| *b == b'/').next());
    Some(Target::Reader(name(instance.unwrap_or_default())))
}

/// A perf event's descriptor.
#[derive(Clone, Debug)]
pub(super) struct PerfFd {
    pub(super) pid: u32,
    pub(super) fd: u32,
    /// Its program and what the iterator says of the event.
    pub(super) known: Option<(u32, Event)>,
}

/// What all processes hold.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// BPF objects, by process.
    pub(super) held: Vec<(u32, Held)>,
    /// Perf events, which bpf(2) can say more of.
    pub(super) perf: Vec<PerfFd>,
    /// Readers of trace buffers: instance and process.
    pub(super) readers: Vec<(Name, u32)>,
    /// Events of links on perf events, by the link's id.
    pub(super) events: HashMap<u32, Event>,
    /// Processes that use perf events without BPF.
    pub(super) users: Reading<Vec<(u32, Event)>>,
    /// Whether "nobody" means nobody.
    pub(super) complete: Reading<()>,
    /// All of these processes as they were when it was looked.
    pub(super) processes: Processes,
}

impl Found {
    /// Nothing, for `why`.
    pub(super) fn none(why: &Reason) -> Self {
        Self {
            users: Reading::Off(why.clone()),
            complete: Reading::Off(why.clone()),
            ..Self::default()
        }
    }

    /// Describes all processes that hold something: now, for later their numbers may be those of
    /// others. `since` is when their descriptors were looked at (`CLOCK_BOOTTIME`, ns).
    fn describe(&mut self, env: &Env, since: u64) {
        let held = self.held.iter().map(|(pid, _)| *pid);
        let perf = self.perf.iter().map(|perf| perf.pid);
        let readers = self.readers.iter().map(|(_, pid)| *pid);
        let users = self.users.value().into_iter().flatten();
        let users = users.map(|(pid, _)| *pid);
        for pid in held.chain(perf).chain(readers).chain(users) {
            let known = self.processes.0.entry(pid);
            known.or_insert_with(|| describe(env, pid, since));
        }
    }
}

/// Notes what was not looked at: "nobody" no longer means nobody.
pub(super) fn not_all(complete: &mut Reading<()>, beyond: &str) {
    if complete.value().is_some() {
        *complete = Reading::Off(Reason::NotSampled {
            what: format!("what holds probes beyond {beyond}").into(),
        });
    }
}

/// Looks at the descriptors of all processes.
///
/// Measured on 6.18: 1.4 to 1.9 ms for 100 processes with 770 descriptors on quiet CPUs, 7 ms on
/// busy ones; 140 ms for 2,080 with 50,000 on another host; 315 ms for 2,101 with 60,656 on busy CPUs.
///
/// # Errors
/// Why `/proc` cannot be listed.
pub(super) fn scan(env: &Env, buf: &mut Vec<u8>) -> Result<Found, Reason> {
    // A recorded host's clock is not this one's.
    let since = match env.root() == Path::new("/") {
        true => nanoseconds(ClockId::Boottime),
        false => u64::MAX,
    };
    let proc = env.path("/proc");
    let tracefs = tracefs_mounts(env);
    let mut found = Found {
        complete: completeness(env),
        ..Found::default()
    };
    let entries = fs::read_dir(&proc).map_err(|e| Reason::from_io("/proc", &e))?;
    for entry in entries.flatten() {
        let Some(pid) = number(entry.file_name().as_bytes()) else {
            continue;
        };
        process(&proc, pid, &tracefs, &mut found, buf);
    }
    found.describe(env, since);
    Ok(found)
}

/// Every place where descriptors of tracefs files can seem to be.
fn tracefs_mounts(env: &Env) -> Vec<String> {
    let mut at: Vec<_> = (env.mounts.iter())
        .filter_map(|m| match m.fs.as_str() {
            "tracefs" => Some(m.at.clone()),
            "debugfs" => Some(format!("{}/tracing", m.at)),
            _ => None,
        })
        .collect();
    // Deeper mount points first: none is a prefix of an earlier one.
    at.sort_by_key(|at| std::cmp::Reverse(at.len()));
    at
}

fn process(proc: &Path, pid: u32, tracefs: &[String], found: &mut Found, buf: &mut Vec<u8>) {
    let mut dir = proc.join(pid.to_string());
    dir.push("fd");
    // Gone, a kernel thread, or not ours to look at.
    let Ok(entries) = fs::read_dir(&dir) else {
        return;
    };
    for entry in entries.flatten() {
        let fd = entry.file_name();
        let Some(number) = number(fd.as_bytes()) else {
            continue;
        };
        dir.push(&fd);
        let link = rustix::fs::readlink(&dir, std::mem::take(buf));
        dir.pop();
        let Ok(link) = link else {
            continue;
        };
        let what = target(link.as_bytes(), tracefs);
        *buf = link.into_bytes();
        match what {
            None => {}
            Some(Target::Perf) => found.perf.push(PerfFd {
                pid,
                fd: number,
                known: None,
            }),
            Some(Target::Reader(instance)) => found.readers.push((instance, pid)),
            Some(Target::Bpf) => {
                dir.set_file_name("fdinfo");
                dir.push(&fd);
                let held = slurp(&dir, buf).ok().and_then(fdinfo);
                dir.pop();
                dir.set_file_name("fd");
                found.held.extend(held.map(|held| (pid, held)));
            }
        }
    }
}

fn number(text: &[u8]) -> Option<u32> {
    match file::number(text)? {
        (n, b"") => u32::try_from(n).ok(),
        _ => None,
    }
}

/// Whether "nobody" means nobody where `/proc` is the way.
fn completeness(env: &Env) -> Reading<()> {
    let capabilities = env.capabilities;
    if !capabilities.has(Capabilities::SYS_PTRACE) {
        return Reading::Off(Reason::NoCapability {
            need: "CAP_SYS_PTRACE".into(),
        });
    }
    if init_pid_namespace(env) {
        Reading::Value(())
    } else {
        Reading::Off(outside())
    }
}

/// Whether all processes have the numbers here that the kernel gives them. Where that is not
/// known it is taken as so.
fn init_pid_namespace(env: &Env) -> bool {
    !matches!(
        fs::read_link(env.path("/proc/self/ns/pid")),
        Ok(ns) if ns.as_os_str() != INIT_PID_NS
    )
}

/// Processes that cannot be seen.
fn outside() -> Reason {
    Reason::Refused {
        what: "descriptors of processes outside this container".into(),
        why: "stalltop runs in a PID namespace of its own (--pid=host lifts that)".into(),
    }
}

/// Processes by their numbers, as holders.
#[derive(Debug, Default)]
pub(super) struct Processes(HashMap<u32, Holder>);

impl Processes {
    /// The process as a holder through `by`. One that was gone has its number only.
    pub(super) fn holder(&self, pid: u32, by: HeldBy) -> Holder {
        match self.0.get(&pid) {
            Some(known) => Holder {
                by,
                ..known.clone()
            },
            None => unknown(pid, by),
        }
    }
}

/// Of a process that is gone only its number is known.
fn unknown(pid: u32, by: HeldBy) -> Holder {
    Holder {
        pid,
        comm: "".into(),
        cmdline: "".into(),
        owner: Owner::default(),
        by,
    }
}

/// Describes a process that was there `since`: one that began later took over its number.
fn describe(env: &Env, pid: u32, since: u64) -> Holder {
    let dir = env.path(&format!("/proc/{pid}"));
    let read = |file: &str| read_limited(&dir.join(file)).unwrap_or_default();
    let tick_ns = 1_000_000_000 / clock_ticks_per_second().max(1);
    let began = |stat: &[u8]| start_time(stat).map(|ticks| ticks.saturating_mul(tick_ns));
    if began(&read("stat")).is_some_and(|began| began > since) {
        return unknown(pid, HeldBy::Program);
    }
    let mut cmdline = read("cmdline");
    while cmdline.last() == Some(&0) {
        cmdline.pop();
    }
    cmdline.truncate(MAX_CMDLINE);
    for byte in &mut cmdline {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    Holder {
        pid,
        comm: name(read("comm").strip_suffix(b"\n").unwrap_or(b"")),
        cmdline: name(&cmdline),
        owner: owner::of_proc_cgroup(&read("cgroup")),
        by: HeldBy::Program,
    }
}

/// Processes that hold a trace buffer's reader, by instance.
pub(super) fn readers(found: &Found, instance: &str) -> Vec<Holder> {
    let pids: BTreeSet<u32> = (found.readers.iter())
        .filter(|(of, _)| &**of == instance)
        .map(|(_, pid)| *pid)
        .collect();
    pids.into_iter()
        .map(|pid| found.processes.holder(pid, HeldBy::TracefsFile))
        .collect()
}

/// A command line may be megabytes long: 16 KiB is more than any of these files is worth.
fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut out = Vec::new();
    File::open(path)?.take(16 * 1024).read_to_end(&mut out)?;
    Ok(out)
}

/// A path from bytes as the kernel gives them.
pub(super) fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fdinfo_tells_links_from_programs() {
        let program = b"pos:\t0\nprog_type:\t2\nprog_tag:\ta04f\nprog_id:\t4\nrun_cnt:\t0\n";
        assert_eq!(fdinfo(program), Some(Held::Program(4)));
        let link = b"link_type:\tkprobe_multi\nlink_id:\t2\nprog_tag:\ta0\nprog_id:\t7\n";
        assert_eq!(
            fdinfo(link),
            Some(Held::Link {
                link: 2,
                program: 7
            })
        );
        assert_eq!(fdinfo(b"map_type:\t2\nmap_id:\t9\n"), Some(Held::Map(9)));
        assert_eq!(fdinfo(b"pos:\t0\nflags:\t02\n"), None);
    }

    #[test]
    fn targets_are_told_apart() {
        let mounts = [
            "/sys/kernel/debug/tracing".to_owned(),
            "/sys/kernel/tracing".to_owned(),
        ];
        let is = |link: &[u8]| target(link, &mounts);
        assert_eq!(is(b"anon_inode:bpf-prog"), Some(Target::Bpf));
        assert_eq!(is(b"anon_inode:bpf_link"), Some(Target::Bpf));
        assert_eq!(is(b"anon_inode:[perf_event]"), Some(Target::Perf));
        assert_eq!(is(b"anon_inode:[eventpoll]"), None);
        assert_eq!(
            is(b"/sys/kernel/tracing/trace_pipe"),
            Some(Target::Reader("".into()))
        );
        assert_eq!(
            is(b"/sys/kernel/debug/tracing/instances/a b/per_cpu/cpu3/trace_pipe_raw"),
            Some(Target::Reader("a b".into()))
        );
        assert_eq!(is(b"/home/me/trace_pipe"), None);
    }

    /// Copies a recorded `/proc`. Descriptors are links there and files with the links' targets
    /// in the fixture, which a checkout or an archive without symbolic links keeps.
    fn with_links(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (path, to) = (
                entry.as_ref().unwrap().path(),
                to.join(entry.unwrap().file_name()),
            );
            if path.is_dir() {
                with_links(&path, &to);
            } else if from.ends_with("fd") {
                std::os::unix::fs::symlink(fs::read_to_string(&path).unwrap(), to).unwrap();
            } else {
                fs::copy(&path, to).unwrap();
            }
        }
    }

    /// What `bpf-holder` held when each kernel was recorded; its command line says what.
    #[test]
    fn descriptors_of_recorded_processes() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        for (kernel, least_links) in [("5.10", 3), ("6.1", 7), ("6.12", 7)] {
            let root = tempfile::tempdir().unwrap();
            with_links(
                &fixtures.join(kernel).join("proc"),
                &root.path().join("proc"),
            );
            let env = Env::at(root.path());
            let found = scan(&env, &mut Vec::new()).unwrap();
            let count = |is: fn(&Held) -> bool| found.held.iter().filter(|(_, h)| is(h)).count();
            let links =
                count(|h| matches!(h, Held::Link { link, program } if *link > 0 && *program > 0));
            assert!(links >= least_links, "{kernel}: {found:?}");
            assert!(count(|h| matches!(h, Held::Program(_))) >= 9, "{kernel}");
            assert_eq!(count(|h| matches!(h, Held::Map(_))), 1, "{kernel}");
            assert!(found.perf.len() >= 5, "{kernel}");
            let holder = found.processes.holder(found.held[0].0, HeldBy::Link);
            assert_eq!(&*holder.comm, "bpf-holder");
            assert!(
                holder
                    .cmdline
                    .starts_with("bpf-holder kprobe:do_sys_openat2 ")
            );
            assert_eq!(holder.cmdline.len(), MAX_CMDLINE);
            assert_eq!(&*holder.owner.name, "ssh.service");
        }
    }

    /// A `/proc` with one process, which began `ticks` after boot.
    fn with_process(root: &Path, pid: u32, comm: &str, ticks: u64) {
        let dir = root.join(format!("proc/{pid}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(dir.join("cmdline"), format!("{comm}\0-x\0")).unwrap();
        fs::write(dir.join("cgroup"), "0::/\n").unwrap();
        let stat = format!("{pid} ({comm}) S{} {ticks} 0\n", " 0".repeat(18));
        fs::write(dir.join("stat"), stat).unwrap();
    }

    #[test]
    fn a_number_that_was_taken_over_is_not_told_to_hold_anything() {
        let root = tempfile::tempdir().unwrap();
        let env = Env::at(root.path());
        let second = clock_ticks_per_second();
        with_process(root.path(), 7, "agent", 10 * second);
        with_process(root.path(), 8, "late", 30 * second);
        let held = vec![(7, Held::Program(1)), (8, Held::Map(2)), (9, Held::Map(2))];
        let mut found = Found {
            held,
            ..Found::default()
        };
        // Between the look at descriptors and now 8 went, and another process got its number.
        found.describe(&env, 20_000_000_000);
        // And then 7.
        with_process(root.path(), 7, "other", 40 * second);
        let told = |pid| {
            let holder = found.processes.holder(pid, HeldBy::Link);
            assert_eq!((holder.pid, holder.by), (pid, HeldBy::Link));
            (holder.comm.to_string(), holder.cmdline.to_string())
        };
        assert_eq!(told(7), ("agent".into(), "agent -x".into()));
        assert_eq!(told(8), (String::new(), String::new()));
        assert_eq!(told(9), (String::new(), String::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = fdinfo(&bytes);
            let _ = target(&bytes, &["/sys/kernel/tracing".to_owned()]);
            let mut link = b"/sys/kernel/tracing/instances/".to_vec();
            link.extend_from_slice(&bytes);
            let _ = target(&link, &["/sys/kernel/tracing".to_owned()]);
        }
    }
}
