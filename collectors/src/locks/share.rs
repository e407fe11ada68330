//! The share of samples in lock slow paths: on every kernel, also where there are no tracepoints
//! of contention, and of locks that those do not show.
//!
//! Of each sample only the two innermost functions are named, by their addresses and once;
//! the whole stack only where those are a lock's, and once for each distinct stack. Samples of
//! user space are counted and not looked at.

use std::collections::HashMap;

use stalltop_model::Name;
use stalltop_model::sample::{LockShare, ShareStack};
use stalltop_probes::wire::stall::{FRAMES, NONE, StackSample, flag};

use super::names::{Code, Stacks};
use crate::stalls::attribute::{comm, ids};
use crate::stalls::kallsyms::Symbols;
use crate::stalls::stack::{self, LockSign};

/// Most stacks of a window.
const MAX_STACKS: usize = 64;
/// Most distinct stacks of a window while it is counted: more are counted as samples alone.
const MAX_DISTINCT: usize = 1024;
/// Most addresses remembered; then all are forgotten.
const MAX_KNOWN: usize = 8192;
/// Frames between a program and the function whose tracepoint it is attached to, that one included.
const HOOK: usize = 6;

/// What was found out about addresses and stacks; kept from window to window.
#[derive(Default)]
pub struct Known {
    /// Where stalltop's own programs lie, by their addresses.
    own: Code,
    /// By the interrupted instruction and its caller.
    signs: HashMap<(u64, u64), Sign>,
    stacks: Stacks,
}

/// What the interrupted function and its caller say, and whether the former is a tracepoint's, or
/// a program's there.
type Sign = (LockSign, Interrupted);

/// What was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupted {
    /// A tracepoint, or a program there that is not ours.
    Tracer,
    /// A program of ours.
    Ours,
    Other,
}

/// A stack in or behind a lock: its number among the known ones, where its lock function is, and
/// whether a lock is only suspected.
type Found = (usize, usize, bool);

/// Where samples of a window come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The scheduler's tick.
    Tick,
    /// The sampler, by a clock.
    Clock,
    /// The sampler, by non-maskable interrupts.
    Nmi,
}

/// One CPU's part of a window.
#[derive(Debug, Default)]
struct CpuShare {
    cpu: u32,
    samples: u64,
    kernel: u64,
    in_lock: u64,
    suspected: u64,
    /// Samples by stack and process.
    stacks: HashMap<(Found, u32), (u64, [u64; 2])>,
}

/// Counts the samples of a window.
#[derive(Debug, Default)]
pub struct Counting {
    /// Of each CPU those of the tick and those of the sampler, apart: they come at different
    /// rates, and must not be added up.
    cpus: Vec<[CpuShare; 2]>,
    nmi: bool,
}

impl Known {
    /// Forgets everything where names may have changed, or too much is known. Between windows
    /// only: what was counted refers to what is known.
    fn refresh(&mut self, symbols: &Symbols) {
        if self.stacks.refresh(symbols) || self.signs.len() >= MAX_KNOWN {
            self.signs.clear();
        }
    }

    /// Says where stalltop's own programs lie: what they do is no suspicion, and who waits while
    /// they tell of it waits all the same.
    pub fn own(&mut self, code: Code) {
        self.own = code;
        self.signs.clear();
    }

    /// The stack of a sample, if it is in or behind a lock.
    fn look(&mut self, sample: &StackSample, symbols: &mut Symbols) -> Option<Found> {
        let (first, caller, skip) = innermost(sample, symbols)?;
        let (sign, interrupted) = self.sign(first, caller, sample.code, symbols);
        let stack = &addresses(sample)[skip..];
        if interrupted == Interrupted::Ours {
            return self.behind_own(stack, symbols);
        }
        let at = match sign {
            LockSign::None => return None,
            LockSign::CallerWaits => 1,
            LockSign::Waits => 0,
            // A helper that a program of ours had called.
            LockSign::Reopens if stack.iter().any(|at| self.own.has(*at)) => {
                return self.behind_own(stack, symbols);
            }
            LockSign::Reopens => 0,
        };
        if interrupted == Interrupted::Tracer && sign == LockSign::CallerWaits {
            // The tracepoint of the wait itself.
            let number = self.stacks.number(&stack[1..], false, symbols);
            return Some((number, 0, false));
        }
        let number = self.stacks.number(stack, true, symbols);
        Some((number, at, sign == LockSign::Reopens))
    }

    fn sign(&mut self, first: u64, caller: u64, code: u64, symbols: &mut Symbols) -> Sign {
        if let Some(sign) = self.signs.get(&(first, caller)) {
            return *sign;
        }
        let function = symbols.name(first).name;
        let called_by = (caller != 0).then(|| symbols.name(caller - 1).name);
        let opens = stack::opened_just_now(code);
        let interrupted = if self.own.has(first) {
            Interrupted::Ours
        } else if stack::is_tracer(&function) {
            Interrupted::Tracer
        } else {
            Interrupted::Other
        };
        let sign = stack::lock_sign(&function, called_by.as_deref(), opens);
        self.signs.insert((first, caller), (sign, interrupted));
        (sign, interrupted)
    }

    /// The stack behind a program of ours, where that had been called from the slow path of a lock:
    /// the tracer of waits.
    fn behind_own(&mut self, stack: &[u64], symbols: &mut Symbols) -> Option<Found> {
        let own = stack.iter().rposition(|at| self.own.has(*at))?;
        let behind = &stack[own + 1..];
        let hook = behind.iter().take(HOOK);
        let hook: Vec<Name> = hook.map(|at| symbols.name(at - 1).name).collect();
        let at = stack::tracers(&hook);
        if !hook.get(at).is_some_and(|name| stack::is_slow_path(name)) {
            return None;
        }
        let number = self.stacks.number(&behind[at..], false, symbols);
        Some((number, 0, false))
    }
}

/// The addresses of a sample's stack; without one, the interrupted instruction of the kernel.
fn addresses(sample: &StackSample) -> &[u64] {
    if sample.frames == NONE || sample.frames == 0 {
        let kernel = sample.flags & flag::REGS != 0 && sample.ip != 0;
        return if kernel {
            std::slice::from_ref(&sample.ip)
        } else {
            &[]
        };
    }
    let frames = usize::try_from(sample.frames).unwrap_or(FRAMES).min(FRAMES);
    let stack = &sample.stack[..frames];
    let end = stack.iter().position(|address| *address == 0);
    &stack[..end.unwrap_or(frames)]
}

/// The interrupted instruction, who called its function (0 where that is not known), and where
/// in the stack it is. None where that is user space or not known.
fn innermost(sample: &StackSample, symbols: &mut Symbols) -> Option<(u64, u64, usize)> {
    let stack = addresses(sample);
    let mut skip = 0;
    if sample.flags & flag::REGS == 0 {
        // The programs could not tell where the interrupt's own frames end.
        let named = stack.iter().map(|a| symbols.name(a.saturating_sub(1)).name);
        let named: Vec<Name> = named.collect();
        skip = named.len() - stack::interrupted(&named).len();
    }
    let first = *stack.get(skip)?;
    let caller = stack.get(skip + 1).copied().unwrap_or(0);
    Some((first, caller, skip))
}

impl Counting {
    /// Counts samples of one CPU. `known` and `symbols` name what is in a lock.
    pub fn count(
        &mut self,
        cpu: u32,
        samples: &[StackSample],
        known: &mut Known,
        symbols: &mut Symbols,
    ) {
        if samples.is_empty() {
            return;
        }
        if self.cpus.is_empty() {
            known.refresh(symbols);
        }
        let at = match self.cpus.iter().position(|[tick, _]| tick.cpu == cpu) {
            Some(at) => at,
            None => {
                let empty = || CpuShare {
                    cpu,
                    ..CpuShare::default()
                };
                self.cpus.push([empty(), empty()]);
                self.cpus.len() - 1
            }
        };
        for sample in samples {
            let sampler = sample.flags & flag::SAMPLER != 0;
            self.nmi |= sampler && sample.flags & flag::NMI != 0;
            let share = &mut self.cpus[at][usize::from(sampler)];
            share.samples += 1;
            let user = sample.flags & flag::REGS != 0 && sample.flags & flag::USER != 0;
            if user || addresses(sample).is_empty() {
                continue;
            }
            share.kernel += 1;
            let Some(found) = known.look(sample, symbols) else {
                continue;
            };
            let (_, _, suspected) = found;
            if suspected {
                // A sample that is never late says nothing about interrupts.
                if sample.flags & flag::NMI != 0 {
                    continue;
                }
                share.suspected += 1;
            } else {
                share.in_lock += 1;
            }
            let (_, tgid) = ids(sample.pid_tgid);
            let full = share.stacks.len() >= MAX_DISTINCT;
            let key = (found, tgid);
            if !full || share.stacks.contains_key(&key) {
                let entry = share.stacks.entry(key).or_insert((0, sample.comm));
                entry.0 += 1;
            }
        }
    }

    /// Which samples count: those of non-maskable interrupts where there are any, as they alone
    /// see everything; else those of the sampler where it ran on every CPU that was busy; else
    /// the tick's.
    fn source(&self) -> Source {
        if self.nmi {
            return Source::Nmi;
        }
        let mut busy = self.cpus.iter().filter(|[tick, _]| tick.samples > 0);
        // The sampler is the faster one, but has no stack of what entered the kernel just now.
        let sampled = |[tick, sampler]: &[CpuShare; 2]| sampler.samples > tick.samples;
        if !self.cpus.is_empty() && busy.clone().count() > 0 && busy.all(sampled) {
            Source::Clock
        } else {
            Source::Tick
        }
    }

    /// What the window shows. `tick_hz` is the rate of the scheduler's tick, where known.
    pub fn finish(&mut self, tick_hz: Option<u32>, known: &Known) -> LockShare {
        let source = self.source();
        let which = usize::from(source != Source::Tick);
        let mut share = LockShare {
            source: match (source, tick_hz) {
                (Source::Tick, Some(hz)) => format!("the scheduler's tick ({hz} Hz)").into(),
                (Source::Tick, None) => "the scheduler's tick".into(),
                (Source::Clock, _) => "1 kHz cpu-clock".into(),
                (Source::Nmi, _) => "1 kHz NMI".into(),
            },
            nmi: source == Source::Nmi,
            ..LockShare::default()
        };
        let mut rows: HashMap<(Found, u32), usize> = HashMap::new();
        for part in &self.cpus {
            let cpu = &part[which];
            share.samples += cpu.samples;
            share.kernel += cpu.kernel;
            share.in_lock += cpu.in_lock;
            share.suspected += cpu.suspected;
            if cpu.in_lock > 0 || cpu.suspected > 0 {
                share
                    .cpus
                    .push((cpu.cpu, cpu.samples, cpu.in_lock, cpu.suspected));
            }
            for (key, (samples, comm_words)) in &cpu.stacks {
                let row = *rows.entry(*key).or_insert_with(|| {
                    let ((number, at, suspected), tgid) = *key;
                    let stack = known.stacks.get(number);
                    share.stacks.push(ShareStack {
                        function: stack.frames.get(at).cloned().unwrap_or_default(),
                        suspected,
                        frames: stack.frames.clone(),
                        programs: stack.programs.clone(),
                        tgid,
                        comm: comm(*comm_words),
                        samples: 0,
                    });
                    share.stacks.len() - 1
                });
                share.stacks[row].samples += samples;
            }
        }
        share.cpus.sort_unstable();
        share.stacks.sort_by(|a, b| {
            let order = b.samples.cmp(&a.samples).then(a.tgid.cmp(&b.tgid));
            order.then_with(|| a.frames.cmp(&b.frames))
        });
        share.stacks.truncate(MAX_STACKS);
        self.cpus.clear();
        self.nmi = false;
        share
    }

    /// The CPUs that have samples so far, those with most in or behind a lock first, and then the
    /// busiest: where a closer look pays.
    pub fn busy(&self) -> Vec<u32> {
        let mut cpus: Vec<(u64, u64, u32)> = self
            .cpus
            .iter()
            .map(|[tick, sampler]| {
                let signs = |share: &CpuShare| share.in_lock + share.suspected;
                (signs(tick) + signs(sampler), tick.samples, tick.cpu)
            })
            .collect();
        cpus.sort_unstable_by_key(|(signs, samples, cpu)| {
            (std::cmp::Reverse((*signs, *samples)), *cpu)
        });
        cpus.into_iter().map(|(.., cpu)| cpu).collect()
    }
}

#[cfg(test)]
mod tests;
