//! Names of locks that are variables of the kernel.
//!
//! `/proc/kallsyms` has them where the kernel was built with `CONFIG_KALLSYMS_ALL`. A table of all
//! would be as large as that of the functions, for a handful of locks: so the file is read
//! through for those that were asked for, on a thread of its own, and seldom.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use stalltop_model::{Name, Reading, Reason};

use super::watch::unnamed;
use crate::env::Env;

/// Between two readings of the file at least: it takes a tenth of a second. Twice as long each time
/// that nothing was found, up to `SELDOM`.
const AGAIN: Duration = Duration::from_secs(30);
const SELDOM: Duration = Duration::from_secs(960);
/// How far from the kernel's variables those of its modules are at the most (`module_alloc`,
/// arch/arm64/kernel/module.c; on other architectures they are nearer).
const MODULES: u64 = 2 << 30;
/// Locks that are remembered; then all are forgotten.
const MAX_KNOWN: usize = 4096;
/// How far behind a variable's symbol a lock in it may be. The largest that have locks are hash
/// tables of some hundred kilobytes.
const FARTHEST: u64 = 256 << 10;
/// Rows of variables that a kernel with `CONFIG_KALLSYMS_ALL` has at the least: without it a few
/// hundred are left.
const VARIABLES: usize = 2_000;

/// What has no name.
const MADE: &str = "the names of locks that were made while it ran";

/// What the file says of some addresses, how many variables it has, and where: the first and the last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    names: Vec<(u64, Option<Name>)>,
    variables: usize,
    span: Option<(u64, u64)>,
}

/// Names of locks, as far as they were looked up.
pub(super) struct Statics {
    path: PathBuf,
    known: HashMap<u64, Option<Name>>,
    wanted: Vec<u64>,
    reading: Option<Receiver<io::Result<Found>>>,
    read: Option<Instant>,
    /// Not before so long after that.
    again: Duration,
    /// Where variables are, once the file was read.
    span: Option<(u64, u64)>,
    /// Why no lock has a name.
    off: Option<Reason>,
}

impl Statics {
    pub(super) fn new(env: &Env) -> Self {
        Self {
            path: env.path("/proc/kallsyms"),
            known: HashMap::new(),
            wanted: Vec::new(),
            reading: None,
            read: None,
            again: AGAIN,
            span: None,
            off: None,
        }
    }

    /// The name of the variable that a lock is in, or why it has none. Asks for it where that is
    /// not known yet.
    pub(super) fn name(&mut self, lock: u64) -> Reading<Name> {
        if !may_be_variable(lock) || !self.span.is_none_or(|span| is_near(span, lock)) {
            return unnamed(MADE);
        }
        if let Some(why) = &self.off {
            return Reading::Off(why.clone());
        }
        match self.known.get(&lock) {
            Some(Some(name)) => Reading::Value(Name::clone(name)),
            Some(None) => unnamed(MADE),
            None => {
                if self.wanted.len() < MAX_KNOWN && !self.wanted.contains(&lock) {
                    self.wanted.push(lock);
                }
                Reading::Off(Reason::Starting)
            }
        }
    }

    /// Looks up what was asked for, if it is time to; takes in what was found.
    pub(super) fn poll(&mut self, now: Instant) {
        if let Some(reading) = &self.reading {
            match reading.try_recv() {
                Ok(Ok(found)) => self.take(found),
                Ok(Err(error)) => {
                    self.off = Some(Reason::from_io("/proc/kallsyms", &error));
                    self.reading = None;
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.reading = None,
            }
        }
        let due = self
            .read
            .is_none_or(|read| now.saturating_duration_since(read) >= self.again);
        if self.off.is_some() || self.wanted.is_empty() || !due {
            return;
        }
        self.read = Some(now);
        let (path, mut wanted) = (self.path.clone(), std::mem::take(&mut self.wanted));
        let (send, receive) = channel();
        let thread = std::thread::Builder::new().name("stalltop-names".into());
        let started = thread.spawn(move || {
            let _ = setpriority_process(None, 0);
            wanted.sort_unstable();
            // Nobody listens any more when stalltop ends.
            let _ = send.send(read(&path, &wanted));
        });
        self.reading = started.is_ok().then_some(receive);
    }

    fn take(&mut self, found: Found) {
        self.reading = None;
        if found.variables < VARIABLES {
            self.off = Some(Reason::NotBuilt {
                config: "CONFIG_KALLSYMS_ALL".into(),
            });
            return;
        }
        let any = found.names.iter().any(|(_, name)| name.is_some());
        self.again = if any {
            AGAIN
        } else {
            (self.again * 2).min(SELDOM)
        };
        self.span = found.span;
        self.wanted
            .retain(|lock| found.span.is_none_or(|span| is_near(span, *lock)));
        if self.known.len() + found.names.len() > MAX_KNOWN {
            self.known.clear();
        }
        self.known.extend(found.names);
    }
}

/// Whether a variable of the kernel or of a module can be there. On x86-64 those are in the last two
/// gigabytes (Documentation/arch/x86/x86_64/mm.rst); what a CPU has of its own is not.
fn may_be_variable(lock: u64) -> bool {
    !cfg!(target_arch = "x86_64") || lock >= 0xffff_ffff_8000_0000
}

/// Whether a lock is where the kernel and its modules are. What was made while it ran is elsewhere, on
/// arm64, too: there the memory that the kernel hands out is in the lower half of its addresses
/// (Documentation/arch/arm64/memory.rst).
fn is_near((first, last): (u64, u64), lock: u64) -> bool {
    lock >= first.saturating_sub(MODULES) && lock <= last.saturating_add(MODULES)
}

fn read(path: &Path, wanted: &[u64]) -> io::Result<Found> {
    let file = std::fs::File::open(path)?;
    find(BufReader::with_capacity(64 << 10, file), wanted)
}

/// The nearest symbol at or before each address of `wanted`, which is sorted, if it is a
/// variable's and near.
fn find(mut lines: impl BufRead, wanted: &[u64]) -> io::Result<Found> {
    let mut nearest: Vec<Option<(u64, bool, Name)>> = vec![None; wanted.len()];
    let mut variables = 0;
    let mut span: Option<(u64, u64)> = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some((address, variable, name)) = row(&line) else {
            continue;
        };
        variables += usize::from(variable);
        // What a CPU has of its own counts from 0 on some.
        if variable && address >> 63 == 1 {
            let (first, last) = span.unwrap_or((address, address));
            span = Some((first.min(address), last.max(address)));
        }
        // Those at or behind the symbol, as far as it can reach.
        let first = wanted.partition_point(|lock| *lock < address);
        for (lock, nearest) in wanted[first..].iter().zip(&mut nearest[first..]) {
            if lock - address >= FARTHEST {
                break;
            }
            let nearer = nearest.as_ref().is_none_or(|(at, known, _)| {
                // Of several names of one address that of the variable.
                *at < address || *at == address && !known && variable
            });
            if nearer {
                *nearest = Some((address, variable, String::from_utf8_lossy(name).into()));
            }
        }
    }
    let names = wanted.iter().zip(nearest).map(|(lock, nearest)| {
        let name = nearest.filter(|(_, variable, _)| *variable);
        (*lock, name.map(|(at, _, name)| named(name, lock - at)))
    });
    Ok(Found {
        names: names.collect(),
        variables,
        span,
    })
}

/// A lock at the start of its variable has its name; one that is farther is a part of it.
fn named(name: Name, offset: u64) -> Name {
    if offset == 0 {
        name
    } else {
        format!("{name}+0x{offset:x}").into()
    }
}

/// A row: its address, whether it is a variable, and the name. Ends of sections are no variables:
/// behind them lies what belongs to nobody.
fn row(line: &[u8]) -> Option<(u64, bool, &[u8])> {
    let mut words = line.split(|b| matches!(b, b' ' | b'\t' | b'\n'));
    let address = words
        .next()
        .and_then(|word| std::str::from_utf8(word).ok())?;
    let address = u64::from_str_radix(address, 16).ok().filter(|at| *at > 0)?;
    let [kind] = words.next()? else { return None };
    let name = words.next().filter(|name| !name.is_empty())?;
    let mark = matches!(
        name,
        b"_end" | b"_edata" | b"__bss_stop" | b"__brk_limit" | b"__end_rodata"
    );
    let variable = matches!(kind, b'b' | b'B' | b'd' | b'D' | b'r' | b'R' | b'v' | b'V');
    Some((address, variable && !mark, &name[..name.len().min(512)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _stext
ffffffff81002000 t schedule
ffffffff82000000 D tasklist_lock
ffffffff82000040 d futex_queues
ffffffff82001000 B __bss_stop
ffffffffc0201000 b table_lock\t[nf_tables]
garbage \u{1b}[2J
";

    fn found(wanted: &[u64]) -> Vec<Option<String>> {
        let found = find(TEXT.as_bytes(), wanted).unwrap();
        assert_eq!(found.variables, 3);
        found
            .names
            .into_iter()
            .map(|(_, name)| name.map(|n| n.to_string()))
            .collect()
    }

    #[test]
    fn locks_are_called_by_the_variable_that_they_are_in() {
        let names = found(&[
            0xffff_8880_1234_5678,
            0xffff_ffff_8100_2010,
            0xffff_ffff_8200_0000,
            0xffff_ffff_8200_0140,
            0xffff_ffff_8200_1010,
            0xffff_ffff_c020_1000,
            0xffff_ffff_c080_1000,
        ]);
        let names: Vec<_> = names.iter().map(Option::as_deref).collect();
        assert_eq!(
            names,
            [
                None,
                // No variable, behind the end of all, far from the last one.
                None,
                Some("tasklist_lock"),
                Some("futex_queues+0x100"),
                None,
                Some("table_lock"),
                None
            ]
        );
    }

    #[test]
    fn what_was_made_while_it_ran_is_not_looked_for() {
        // An arm64 kernel, its modules behind it, memory that it hands out, and a CPU's own.
        let span = (0xffff_8000_8200_0000, 0xffff_8000_8300_0000);
        for (lock, near) in [
            (0xffff_8000_8200_1000, true),
            (0xffff_8000_7a20_1000, true),
            (0xffff_0000_1234_5678, false),
            (0xffff_8001_1234_5678, false),
            (0x1000, false),
        ] {
            assert_eq!(is_near(span, lock), near, "{lock:x}");
        }
        let text = "0000000000001000 D cpu_own\nffff800082000000 d one\nffff800083000000 B last\n";
        assert_eq!(find(text.as_bytes(), &[]).unwrap().span, Some(span));
    }

    #[test]
    fn in_vain_it_is_looked_for_less_and_less_often() {
        let dir = tempfile::tempdir().unwrap();
        let mut statics = Statics::new(&Env::at(dir.path()));
        let found = |names| Found {
            names,
            variables: VARIABLES,
            span: None,
        };
        let nothing = || found(vec![(1, None)]);
        for seconds in [60, 120, 240, 480, 960, 960] {
            statics.take(nothing());
            assert_eq!(statics.again.as_secs(), seconds);
        }
        statics.take(found(vec![(1, None), (2, Some("lock".into()))]));
        assert_eq!(statics.again, AGAIN);
    }

    #[test]
    fn a_kernel_without_variables_says_so() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        std::fs::write(dir.path().join("proc/kallsyms"), TEXT).unwrap();
        let mut statics = Statics::new(&Env::at(dir.path()));
        let lock = 0xffff_ffff_8200_0000;
        assert_eq!(statics.name(lock), Reading::Off(Reason::Starting));
        let now = Instant::now();
        while statics.off.is_none() {
            statics.poll(now);
            std::thread::yield_now();
        }
        let config = "CONFIG_KALLSYMS_ALL".into();
        assert_eq!(
            statics.name(lock),
            Reading::Off(Reason::NotBuilt { config })
        );
    }
}
