//! `ksoftirqd/N`: which process it is, and its scheduling times.

use std::fs::File;

use stalltop_model::sample::Ksoftirqd;
use stalltop_model::{Reading, Reason};

use crate::env::Env;
use crate::file;

/// How many processes one tick looks at while it searches. A machine of 1,024 CPUs has
/// some 10,000 kernel threads; looking at one takes about 5 us.
const SEARCH_PER_TICK: usize = 1_000;
/// Ticks between searches while some CPU's thread is not found: first, and doubled up to.
/// In a process namespace, or under hidepid, it will never be.
const SEARCH_AGAIN: (u32, u32) = (30, 3_600);

/// Finds and reads the threads. They are per CPU, made when a CPU first comes online,
/// parked and kept when it goes offline (kernel/smpboot.c).
#[derive(Debug)]
pub(super) struct Threads {
    env: Env,
    by_cpu: Vec<Thread>,
    to_search: Vec<u32>,
    next_search: u32,
    pause: u32,
    online: usize,
    buf: Vec<u8>,
    searching: Reason,
    not_found: Reason,
    not_kept: Reason,
}

#[derive(Debug, Default)]
struct Thread {
    pid: u32,
    schedstat: Option<File>,
    last: Option<Ksoftirqd>,
}

impl Threads {
    pub(super) fn new(env: &Env) -> Self {
        Self {
            env: env.clone(),
            by_cpu: Vec::new(),
            to_search: Vec::new(),
            next_search: 0,
            pause: SEARCH_AGAIN.0,
            online: 0,
            buf: Vec::new(),
            searching: Reason::Starting,
            not_found: Reason::NoFile {
                path: "/proc/PID of ksoftirqd".into(),
            },
            // sched_info_on() of kernel/sched/stats.h: without either option all three are 0.
            not_kept: Reason::NotBuilt {
                config: "CONFIG_SCHEDSTATS".into(),
            },
        }
    }

    /// Searches on, if a CPU of `online` has no known thread. Call once a tick.
    pub(super) fn search(&mut self, online: &[u32]) {
        let complete = online
            .iter()
            .all(|cpu| self.thread(*cpu).is_some_and(|t| t.schedstat.is_some()));
        if complete {
            self.to_search.clear();
            self.next_search = 0;
            self.pause = SEARCH_AGAIN.0;
            return;
        }
        if std::mem::replace(&mut self.online, online.len()) != online.len() {
            self.next_search = 0;
            self.pause = SEARCH_AGAIN.0;
        }
        if self.to_search.is_empty() {
            if self.next_search > 0 {
                self.next_search -= 1;
                return;
            }
            self.next_search = self.pause;
            self.pause = (self.pause * 2).min(SEARCH_AGAIN.1);
            self.to_search = processes(&self.env);
        }
        for _ in 0..SEARCH_PER_TICK {
            let Some(pid) = self.to_search.pop() else {
                break;
            };
            if let Some((cpu, schedstat)) = self.look_at(pid) {
                let index = cpu as usize;
                if self.by_cpu.len() <= index {
                    self.by_cpu.resize_with(index + 1, Thread::default);
                }
                self.by_cpu[index] = Thread {
                    pid,
                    schedstat: Some(schedstat),
                    last: None,
                };
            }
        }
    }

    /// Whether `pid` is a `ksoftirqd/N` of the kernel: its CPU and its open `schedstat`.
    /// Anyone may take the name, but only the kernel's threads descend from kthreadd (2).
    fn look_at(&mut self, pid: u32) -> Option<(u32, File)> {
        let open = |name: &str| File::open(self.env.path(&format!("/proc/{pid}/{name}"))).ok();
        file::read_from_start(&open("comm")?, &mut self.buf).ok()?;
        self.buf.strip_prefix(b"ksoftirqd/")?;
        file::read_from_start(&open("stat")?, &mut self.buf).ok()?;
        let cpu = parse_stat(&self.buf)?;
        Some((cpu, open("schedstat")?))
    }

    fn thread(&self, cpu: u32) -> Option<&Thread> {
        self.by_cpu.get(cpu as usize)
    }

    /// The current times of the thread of `cpu`.
    pub(super) fn read(&mut self, cpu: u32) -> Reading<Ksoftirqd> {
        let known = self.by_cpu.get_mut(cpu as usize);
        let Some(thread) = known.filter(|thread| thread.schedstat.is_some()) else {
            return Reading::Off(self.missing());
        };
        let Some(schedstat) = &thread.schedstat else {
            return Reading::Off(self.missing());
        };
        match file::read_from_start(schedstat, &mut self.buf) {
            Ok(()) => match parse_schedstat(&self.buf) {
                Some((0, 0, 0)) => Reading::Off(self.not_kept.clone()),
                Some((run_ns, wait_ns, runs)) => {
                    let now = Ksoftirqd {
                        pid: thread.pid,
                        run_ns,
                        runs,
                        wait_ns,
                    };
                    thread.last = Some(now);
                    Reading::Value(now)
                }
                None => Reading::Off(Reason::parse("/proc/PID/schedstat", &self.buf)),
            },
            // ESRCH: the thread is gone, which a CPU's removal brings about.
            Err(_) => {
                thread.schedstat = None;
                match thread.last {
                    Some(last) => Reading::Value(last),
                    None => Reading::Off(self.missing()),
                }
            }
        }
    }

    /// The process id of the thread of `cpu`, once found.
    pub(super) fn pid(&self, cpu: u32) -> Option<u32> {
        self.by_cpu
            .get(cpu as usize)
            .map(|thread| thread.pid)
            .filter(|pid| *pid != 0)
    }

    /// Why a thread is not known.
    pub(super) fn missing(&self) -> Reason {
        if self.to_search.is_empty() {
            self.not_found.clone()
        } else {
            self.searching.clone()
        }
    }
}

/// All process ids, those of kthreadd's children where the kernel lists them, descending:
/// `pop` then begins with the oldest, and ksoftirqd threads are among the first ever made.
fn processes(env: &Env) -> Vec<u32> {
    let listed = file::read(&env.path("/proc/2/task/2/children")).unwrap_or_default();
    let mut pids: Vec<u32> = file::words(listed.trim_ascii())
        .filter_map(|word| pid(std::str::from_utf8(word).ok()?))
        .collect();
    if pids.is_empty() {
        let entries = std::fs::read_dir(env.path("/proc")).into_iter().flatten();
        pids = entries
            .flatten()
            .filter_map(|entry| pid(entry.file_name().to_str()?))
            .collect();
    }
    pids.sort_unstable_by(|a, b| b.cmp(a));
    pids
}

fn pid(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// The CPU of a kernel thread `ksoftirqd/N` from its `/proc/PID/stat` (proc_pid_stat(5));
/// `None` if it has another name or its parent is not kthreadd.
pub fn parse_stat(bytes: &[u8]) -> Option<u32> {
    let open = bytes.iter().position(|b| *b == b'(')?;
    let close = bytes.iter().rposition(|b| *b == b')')?;
    let (cpu, rest) = file::number(bytes.get(open + 1..close)?.strip_prefix(b"ksoftirqd/")?)?;
    let parent = file::words(bytes.get(close + 1..)?).nth(1)?;
    if !rest.is_empty() || parent != b"2" {
        return None;
    }
    u32::try_from(cpu)
        .ok()
        .filter(|cpu| *cpu < crate::cpu_list::CPU_LIMIT)
}

/// `/proc/PID/schedstat` (Documentation/scheduler/sched-stats.rst): time on the CPU, time
/// on a run queue, both ns, and the number of times it was run.
pub fn parse_schedstat(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let mut words = file::words(file::lines(bytes).next()?);
    let mut next = || {
        let (n, rest) = file::number(words.next()?)?;
        rest.is_empty().then_some(n)
    };
    Some((next()?, next()?, next()?))
}
