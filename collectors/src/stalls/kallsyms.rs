//! Names of kernel addresses, from `/proc/kallsyms`.
//!
//! The table is read when it is first asked for, on a thread of its own: the kernel takes
//! tens of milliseconds to print its 100,000 to 250,000 rows. It is read again when an address
//! is not found (a module has come since), at most every [`AGAIN`]; and when a BPF program was
//! loaded since, after `PROGRAMS_AGAIN`: programs come and go, and a new one is often
//! put where another one was, so that a table of before would give it that one's name. Where
//! programs come all the time that would take 5 % of a CPU: then it is read as often as `SHARE`
//! allows, and a program is named in between if it is still there.

mod programs;
mod table;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::time::ClockId;
use stalltop_model::{Name, Reading, Reason};
use stalltop_probes::sys::ids::{self, Object};

use crate::duty::Duty;
use crate::env::{Capabilities, Env};
use crate::file;
use crate::own::nanoseconds;
use programs::Code;
pub use table::{Symbol, Table};

/// Between two readings of the table at least.
pub const AGAIN: Duration = Duration::from_secs(10);
/// The same after many that brought nothing new.
pub const SELDOM: Duration = Duration::from_secs(320);
/// The same where BPF programs were loaded.
const PROGRAMS_AGAIN: Duration = Duration::from_secs(2);
/// Of the time of one CPU readings take one part in so many, but for the first two.
const SHARE: u32 = 200;

/// The name of code in a BPF program that was unloaded before it could be looked up.
const UNLOADED: &str = "bpf_prog (unloaded) [bpf]";

/// The kernel's symbols, as far as they are known yet. Several threads may have one each, of
/// one table: [`Symbols::share`].
#[derive(Debug)]
pub struct Symbols {
    /// Where new tables come from; none where the table stays as it is.
    source: Option<Arc<Mutex<Source>>>,
    /// Which of the source's tables this one has.
    generation: u64,
    table: Arc<Table>,
    /// What BPF programs there were when the table was read, where that is known.
    code: Option<Arc<Code>>,
    state: Reading<()>,
    /// Whether an address was not found in this table.
    missed: bool,
    /// Whether BPF programs were loaded since the table was read.
    outdated: bool,
    /// Names given out, by the row of their symbol.
    names: HashMap<u32, Name>,
}

/// What reads the table anew, for all who share it. Its lock is held for a system call or two.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    restrict: PathBuf,
    syslog: bool,
    /// Counts the tables.
    generation: u64,
    table: Arc<Table>,
    code: Option<Arc<Code>>,
    state: Reading<()>,
    reading: Option<Receiver<Read>>,
    asked: Option<Instant>,
    /// Between the last reading and the next one, at least.
    wait: Duration,
    duty: Duty<SHARE>,
    /// Whether BPF programs were loaded since the table was read.
    outdated: bool,
    /// Whether an address was not found since the table was read.
    missed: bool,
    /// The highest id of a BPF program when the table was read; none where ids are not to be
    /// had. Ids only grow until they wrap after 2,147,483,647 (`bpf_prog_alloc_id`,
    /// kernel/bpf/syscall.c).
    newest: Option<u32>,
}

/// What one reading gave: the table, and the code of the BPF programs of that time; and the CPU time
/// that it took.
type Read = (Result<Table, Reason>, Option<Code>, Duration);

/// What an address is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The function, with its module in brackets; the address itself where that is unknown.
    pub name: Name,
    /// Whether the function is known.
    pub known: bool,
}

impl Symbols {
    /// Nothing is read yet.
    pub fn new(env: &Env) -> Self {
        let source = Source {
            path: env.path("/proc/kallsyms"),
            restrict: env.path("/proc/sys/kernel/kptr_restrict"),
            syslog: env.capabilities.has(Capabilities::SYSLOG),
            generation: 0,
            table: Arc::default(),
            code: None,
            state: Reading::Off(Reason::Starting),
            reading: None,
            asked: None,
            wait: AGAIN,
            duty: Duty::default(),
            outdated: false,
            missed: false,
            // A recorded host's programs are not this one's.
            newest: (env.root() == Path::new("/")).then_some(0),
        };
        Self {
            source: Some(Arc::new(Mutex::new(source))),
            state: Reading::Off(Reason::Starting),
            ..Self::of(Table::default())
        }
    }

    /// A table that is there already, and not read again: for tests and for offline use.
    pub fn of(table: Table) -> Self {
        Self {
            source: None,
            generation: 0,
            table: Arc::new(table),
            code: None,
            state: Reading::Value(()),
            missed: false,
            outdated: false,
            names: HashMap::new(),
        }
    }

    /// The same for another thread: the table is kept once, and read for both.
    pub fn share(&self) -> Self {
        Self {
            source: self.source.clone(),
            generation: self.generation,
            table: Arc::clone(&self.table),
            code: self.code.clone(),
            state: self.state.clone(),
            missed: false,
            outdated: self.outdated,
            names: HashMap::new(),
        }
    }

    /// Asks for the symbols, as the first stall does, and takes in what was read meanwhile.
    /// Never waits. Gives whether a reading is under way, or will be within
    /// `PROGRAMS_AGAIN`: names given out before it ends may be bare addresses, or those of
    /// BPF programs that are gone.
    pub fn poll(&mut self, now: Instant) -> bool {
        let Some(source) = self.source.clone() else {
            return false;
        };
        // A panic cannot leave it half-done: all that is moved is whole.
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(&source);
        source.missed |= std::mem::take(&mut self.missed);
        let soon = source.poll(now);
        self.take(&source);
        soon
    }

    /// Says that a BPF program of ours was loaded: a table that was read before is read again
    /// at the next [`Symbols::poll`].
    pub fn program_came(&mut self) {
        if let Some(source) = &self.source {
            let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
            source.asked = None;
        }
    }

    /// Takes over a newer table.
    fn take(&mut self, source: &Source) {
        self.state.clone_from(&source.state);
        self.outdated = source.outdated;
        if self.generation != source.generation {
            self.generation = source.generation;
            self.table = Arc::clone(&source.table);
            self.code.clone_from(&source.code);
            self.missed = false;
            self.names.clear();
        }
    }

    /// Counts the tables: names of one may differ from those of another.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether addresses can be named, or why not.
    pub fn state(&self) -> &Reading<()> {
        &self.state
    }

    /// The name of the function that `address` is in. Of a return address, give the address
    /// before it: a call that never returns can be the last instruction of its function.
    pub fn name(&mut self, address: u64) -> Named {
        let Some(symbol) = self.table.find(address) else {
            self.missed = true;
            return Named {
                name: format!("0x{address:016x}").into(),
                known: false,
            };
        };
        // While a program is loaded, nothing else is put where it is.
        let loaded = |id| !self.outdated || ids::open(Object::Program, id).is_ok();
        let gone = |code: &Arc<Code>| !code.program(address).is_some_and(loaded);
        if symbol.module == Some(b"bpf")
            && symbol.name.starts_with(b"bpf_prog_")
            && self.code.as_ref().is_some_and(gone)
        {
            // The nearest symbol is another program's.
            self.missed = true;
            return Named {
                name: UNLOADED.into(),
                known: false,
            };
        }
        let name = self.names.entry(symbol.row).or_insert_with(|| {
            let name = String::from_utf8_lossy(symbol.name);
            match symbol.module {
                Some(module) => format!("{name} [{}]", String::from_utf8_lossy(module)).into(),
                None => Arc::from(name),
            }
        });
        Named {
            name: Arc::clone(name),
            known: true,
        }
    }

    /// The id of the BPF program that `address` is in: names and tags are not unique, the place
    /// of the machine code is.
    pub fn program(&self, address: u64) -> Option<u32> {
        self.code.as_ref()?.program(address)
    }
}

impl Source {
    fn poll(&mut self, now: Instant) -> bool {
        if let Some(reading) = &self.reading {
            match reading.try_recv() {
                Ok((result, code, cost)) => {
                    self.duty.took(now, cost, 2);
                    self.take(result, code);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => {
                    let by = "a lack of threads or memory".into();
                    self.take(Err(Reason::Busy { by }), None);
                }
            }
        }
        let due = match self.asked {
            None => true,
            Some(asked) => {
                let passed = now.saturating_duration_since(asked);
                let wanted = self.missed || self.state.value().is_none();
                let came = self.programs_came();
                self.outdated = came;
                let may = self.duty.owes_less(now, 1);
                if may && came && passed < PROGRAMS_AGAIN {
                    // Soon: names given out now may be another program's.
                    return true;
                }
                may && (came || wanted && passed >= self.wait)
            }
        };
        if !due {
            return false;
        }
        self.asked = Some(now);
        self.newest = self.newest.and_then(newest_program);
        let (path, restrict, syslog) = (self.path.clone(), self.restrict.clone(), self.syslog);
        let live = self.newest.is_some();
        let (send, receive) = channel();
        let thread = std::thread::Builder::new().name("stalltop-names".into());
        let started = thread.spawn(move || {
            // Who asks may have a raised priority; this is not worth one.
            let _ = setpriority_process(None, 0);
            let code = live.then(Code::read).flatten();
            let table = read(&path, &restrict, syslog);
            let cost = Duration::from_nanos(nanoseconds(ClockId::ThreadCPUTime));
            // Nobody listens any more when stalltop ends: nothing to do then.
            let _ = send.send((table, code, cost));
        });
        match started {
            Ok(_) => {
                self.reading = Some(receive);
                true
            }
            Err(error) => {
                self.state = Reading::Off(Reason::from_io("/proc/kallsyms", &error));
                false
            }
        }
    }

    /// Whether a BPF program was loaded since the table was read: one system call.
    fn programs_came(&self) -> bool {
        self.newest
            .is_some_and(|id| matches!(ids::next(Object::Program, id), Ok(Some(_))))
    }

    fn take(&mut self, result: Result<Table, Reason>, code: Option<Code>) {
        self.reading = None;
        self.missed = false;
        self.outdated = false;
        self.generation += 1;
        self.code = code.map(Arc::new);
        let same = match &result {
            Ok(table) => *table == *self.table,
            Err(_) => true,
        };
        self.wait = if same {
            (self.wait * 2).min(SELDOM)
        } else {
            AGAIN
        };
        match result {
            Ok(table) => {
                self.table = Arc::new(table);
                self.state = Reading::Value(());
            }
            // What was known stays known.
            Err(reason) => self.state = Reading::Off(reason),
        }
    }
}

/// The highest id of a BPF program, at least `from`; none where ids are not to be had.
fn newest_program(from: u32) -> Option<u32> {
    let mut newest = from;
    while let Some(id) = ids::next(Object::Program, newest).ok()? {
        newest = id;
    }
    Some(newest)
}

/// Reads and parses the table. Slow: the kernel prints it anew.
///
/// # Errors
/// Why there are no addresses: the file is missing, or the kernel hides them
/// (`kallsyms_show_value`, kernel/ksyms_common.c).
pub fn read(path: &Path, restrict: &Path, syslog: bool) -> Result<Table, Reason> {
    let shown = path.to_string_lossy();
    let file = File::open(path).map_err(|error| match Reason::from_io(&shown, &error) {
        Reason::NoFile { .. } => Reason::NotBuilt {
            config: "CONFIG_KALLSYMS".into(),
        },
        other => other,
    })?;
    let table = Table::read(file).map_err(|error| Reason::from_io(&shown, &error))?;
    if !table.is_empty() {
        return Ok(table);
    }
    // All addresses were zero.
    let value = file::read_text(restrict).unwrap_or_default();
    if value.parse::<u32>().is_ok_and(|value| value >= 2) {
        return Err(Reason::Setting {
            name: "kernel.kptr_restrict".into(),
            have: value.into(),
            need: "1".into(),
        });
    }
    if syslog {
        Err(Reason::parse(&shown, b"no text symbol with an address"))
    } else {
        Err(Reason::NoCapability {
            need: "CAP_SYSLOG".into(),
        })
    }
}

#[cfg(test)]
mod tests;
