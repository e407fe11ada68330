//! What a kernel stack means: where it was interrupted, in which system call, in which function
//! a person would recognise, waiting for which lock.
//!
//! Frames are names, innermost first, as `kallsyms` gives them: `nft_do_chain [nf_tables]`,
//! `do_execveat_common.isra.0`, or a bare address. Names that are only carriers (system call
//! entry, VFS, seq_file, kernfs, the network receive path ...) are in `tables`; they differ
//! little from 5.10 to 6.18, and a carrier that is missing there costs a less telling function,
//! nothing more.

mod opens;
mod tables;
#[cfg(test)]
mod tests;

use stalltop_model::Name;
use stalltop_model::sample::Vector;

pub(crate) use opens::{lets_interrupts_in, opened_just_now};
use tables::{CARRIERS, INTERRUPT, LANDMARKS, REOPENS, SOFTIRQ, SOFTIRQ_CARRIERS, WAITS, matches};

/// What a stack says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// The frames, innermost first, without our own, tracing's and the interrupt's; inside a
    /// softirq only what belongs to the softirq.
    pub frames: Vec<Name>,
    /// The softirq vector whose handler is on the stack, where its function tells which.
    pub vector: Option<Vector>,
    /// Whether it is inside softirq processing.
    pub softirq: bool,
    /// The system call.
    pub syscall: Option<Name>,
    /// The function at the top of the operation.
    pub function: Option<Name>,
    /// The innermost lock function, if it was in one.
    pub lock: Option<Name>,
    /// Whether that lock function waits, rather than unlocks.
    pub waits: bool,
    /// Whether interrupts were just being let in again by an unlocking function.
    pub reopens: bool,
    /// Who called the lock function.
    pub site: Option<Name>,
}

impl Stack {
    /// Understands `frames`, innermost first, as `bpf_get_stack` recorded them. `in_softirq`:
    /// a softirq was running, even if the stack was too deep to show it.
    pub fn read(frames: &[Name], in_softirq: bool) -> Self {
        let frames = interrupted(frames);
        let boundary = frames.iter().position(|f| matches(SOFTIRQ, bare(f)));
        let boundary = boundary.or(in_softirq.then_some(frames.len()));
        let Some(at) = boundary else {
            return Self {
                syscall: syscall(frames),
                function: task_function(frames),
                ..Self::default()
            }
            .with(frames);
        };
        let frames = &frames[..frames.len().min(at + 1)];
        Self {
            softirq: true,
            vector: frames.iter().rev().find_map(|f| vector_of(bare(f))),
            function: softirq_function(frames, at),
            ..Self::default()
        }
        .with(frames)
    }

    fn with(mut self, frames: &[Name]) -> Self {
        self.frames = frames.to_vec();
        self.find_lock();
        self
    }

    fn find_lock(&mut self) {
        // A slow path may have called one helper that is no lock function by its name.
        let called = |frames: &[Name]| !waits(bare(&frames[0])) && slow_path(bare(&frames[1]));
        let inner = usize::from(self.frames.len() > 1 && called(&self.frames));
        let Some(first) = self.frames.get(inner) else {
            return;
        };
        self.waits = waits(bare(first));
        self.reopens = !self.waits && matches(REOPENS, bare(first));
        if self.waits || self.reopens {
            self.lock = Some(plain(first));
            self.site = site(&self.frames[inner..]);
        }
    }
}

/// Who called the lock function that `frames`, innermost first, begin with: the innermost one that
/// is no lock function.
pub(crate) fn site(frames: &[Name]) -> Option<Name> {
    let site = frames.iter().find(|f| !is_lock(bare(f)) && named(f));
    site.map(plain)
}

/// How many of the frames, innermost first, belong to the program that recorded them at a
/// tracepoint, and to the tracepoint.
pub(crate) fn tracers(frames: &[Name]) -> usize {
    // What called the program; it is there also where the program has no name, or is interpreted.
    let hook = frames.iter().take(4).position(|f| {
        let name = bare(f);
        name.starts_with("bpf_trace_run") || name.starts_with("__bpf_trace_")
    });
    let hook = hook.map_or(0, |at| at + 1);
    let rest = frames[hook..].iter();
    hook + rest.take_while(|f| is_tracer(f)).count()
}

/// Whether a function belongs to a program at a tracepoint, or to the tracepoint.
pub(crate) fn is_tracer(name: &str) -> bool {
    matches(tables::TRACERS, bare(name))
}

/// What a sample says about locks, by the function that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockSign {
    /// Nothing.
    None,
    /// It was in the slow path of a lock: waiting.
    Waits,
    /// It was in something that a slow path had called.
    CallerWaits,
    /// Interrupts came back on: they were off, as while waiting for a lock or holding it.
    Reopens,
}

/// What a sample says about locks. `function` was interrupted, `caller` had called it; `opens`:
/// whether the instruction before let interrupts in, where that is known.
///
/// System call entry, the idle loop, softirq processing and the switch to another task let
/// interrupts in as well, but not because of a lock that somebody waited for. And who is
/// interrupted elsewhere in an unlocking function was not kept from it.
pub(crate) fn lock_sign(function: &str, caller: Option<&str>, opens: Option<bool>) -> LockSign {
    let (function, caller) = (bare(function), caller.map(bare));
    if slow(function) {
        LockSign::Waits
    } else if caller.is_some_and(slow) {
        LockSign::CallerWaits
    } else if matches(tables::UNLOCKS, function) {
        if opens == Some(false) {
            LockSign::None
        } else {
            LockSign::Reopens
        }
    } else if opens == Some(true)
        && !matches(CARRIERS, function)
        && !matches(SOFTIRQ, function)
        && !matches(INTERRUPT, function)
        && !matches(tables::SWITCH, function)
        && !matches(tables::ENABLES, function)
    {
        LockSign::Reopens
    } else {
        LockSign::None
    }
}

/// Whether the function is the slow path of a lock.
pub(crate) fn is_slow_path(name: &str) -> bool {
    slow(bare(name))
}

fn slow(name: &str) -> bool {
    matches(tables::SLOW, name) && !name.ends_with("trylock")
}

/// The part of a stack that was interrupted: without the programs and tracing that took the
/// sample and the interrupt that led to them. Empty where user space was interrupted.
///
/// A stack that begins with the interrupted function, as a perf event's program records it,
/// is left as it is, also where that function is somebody's BPF program.
pub fn interrupted(frames: &[Name]) -> &[Name] {
    // The tick's own anchor: up to it, whatever the names are (they may be bare addresses
    // where BPF programs came after the table was read).
    let anchor = frames
        .iter()
        .take(16)
        .position(|f| matches(tables::TIMERS, bare(f)))
        .map_or(0, |at| at + 1);
    let around = frames[anchor..]
        .iter()
        .take_while(|f| matches(INTERRUPT, bare(f)))
        .count();
    // The entry ends the interrupt's frames: what follows may again be one (of another kind).
    let entry = frames[anchor..anchor + around]
        .iter()
        .position(|f| matches(tables::INTERRUPT_ENTRY, bare(f)));
    match entry {
        Some(at) => {
            let mut end = anchor + at + 1;
            // arm64's `el1h_64_irq` and the like come in two parts.
            while end < anchor + around && matches(tables::INTERRUPT_ENTRY, bare(&frames[end])) {
                end += 1;
            }
            &frames[end..]
        }
        None if anchor > 0 => &frames[anchor + around..],
        None => frames,
    }
}

/// A name without its module.
fn unmoduled(name: &str) -> &str {
    name.split_once(" [").map_or(name, |(name, _)| name)
}

/// A name as the source has it: without its module and what the compiler added to it
/// (`.isra.0`, `.constprop.0`, `.part.0`, `.cold`, `.llvm.123`).
fn bare(name: &str) -> &str {
    let name = unmoduled(name);
    match name.find('.') {
        Some(dot) if dot > 0 => &name[..dot],
        _ => name,
    }
}

fn plain(name: &Name) -> Name {
    let bare = bare(name);
    if bare.len() == name.len() {
        Name::clone(name)
    } else {
        bare.into()
    }
}

/// Whether the function has a name: anything but a bare address.
fn named(name: &Name) -> bool {
    !name.starts_with("0x")
}

/// Whether the function waits for a lock; one that only tries to take it does not.
fn waits(name: &str) -> bool {
    matches(WAITS, name) && !name.ends_with("trylock")
}

fn is_lock(name: &str) -> bool {
    waits(name) || matches(REOPENS, name)
}

fn slow_path(name: &str) -> bool {
    name.ends_with("_slowpath") && waits(name)
}

/// The system call: from the outermost frame that is one's entry. Compilers turn the last call
/// of `__x64_sys_read` into a jump, so that only `ksys_read` is left to see.
fn syscall(frames: &[Name]) -> Option<Name> {
    let stripped = |prefixes: &[&str]| {
        frames.iter().rev().find_map(|frame| {
            let frame = bare(frame);
            let name = prefixes.iter().find_map(|p| frame.strip_prefix(p))?;
            (!name.is_empty()).then_some(name)
        })
    };
    let name = stripped(tables::SYSCALLS).or_else(|| stripped(tables::SYSCALL_BODIES))?;
    Some(match name {
        // What strace and people call them.
        "newstat" => "stat".into(),
        "newfstat" => "fstat".into(),
        "newlstat" => "lstat".into(),
        "newuname" => "uname".into(),
        "mmap_pgoff" => "mmap".into(),
        "sendfile64" => "sendfile".into(),
        name => name.into(),
    })
}

/// The function at the top of a task's operation: the outermost one that is no carrier; where
/// there are only carriers, the innermost of them.
fn task_function(frames: &[Name]) -> Option<Name> {
    // The switch itself, not what the incoming task had been doing before.
    if let Some(first) = frames.first()
        && matches(tables::SWITCH, bare(first))
    {
        return Some(plain(first));
    }
    top(frames, &[CARRIERS])
}

/// The same inside a softirq whose processing begins at `boundary`: a landmark wherever it is,
/// else the outermost that is no carrier, else the driver's poll function.
fn softirq_function(frames: &[Name], boundary: usize) -> Option<Name> {
    let inside = &frames[..boundary];
    for landmarks in LANDMARKS {
        let found = inside.iter().rev().find(|f| match landmarks {
            ["[bpf]"] => f.ends_with(" [bpf]"),
            names => matches(names, bare(f)),
        });
        if let Some(found) = found {
            return Some(plain(found));
        }
    }
    // A driver's poll function carries what lies inside it.
    let poll = inside
        .iter()
        .rposition(|f| matches(tables::POLLS, bare(f)))
        .and_then(|polls| polls.checked_sub(1));
    let within = match poll {
        Some(at) => top(&inside[..at], &[CARRIERS, SOFTIRQ_CARRIERS])
            .filter(|f| !matches(SOFTIRQ_CARRIERS, f) && !is_lock(f)),
        None => None,
    };
    within
        .or_else(|| top(inside, &[CARRIERS, SOFTIRQ_CARRIERS]))
        .or_else(|| top(frames, &[CARRIERS]))
}

/// The outermost function that is no carrier; where there are only carriers (and locks and
/// helpers, which nobody sets out to do), the innermost of them.
fn top(frames: &[Name], carriers: &[&[&str]]) -> Option<Name> {
    let own = |f: &&Name| named(f) && !is_lock(bare(f)) && !matches(tables::HELPERS, bare(f));
    let carries = |f: &Name| carriers.iter().any(|c| matches(c, bare(f)));
    let outermost = frames.iter().rev().filter(own).find(|f| !carries(f));
    outermost
        .or_else(|| frames.iter().find(own))
        .or_else(|| frames.iter().find(|f| named(f)))
        .map(plain)
}

/// The vector that a handler function belongs to (`open_softirq` callers).
fn vector_of(name: &str) -> Option<Vector> {
    let found = tables::VECTORS
        .iter()
        .find(|(names, _)| matches(names, name));
    found.map(|(_, vector)| *vector)
}
