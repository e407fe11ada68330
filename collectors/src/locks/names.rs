//! Stacks by the names of their functions: each address is named once, and stacks that are the
//! same but for where in a function they are count as one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};

use stalltop_model::Name;

use crate::stalls::kallsyms::Symbols;
use crate::stalls::stack;

/// Most stacks remembered; then all are forgotten.
const MAX_KNOWN: usize = 8192;

/// Where programs lie: address and length of each of their functions.
#[derive(Clone, Debug, Default)]
pub struct Code {
    /// By address.
    functions: Vec<(u64, u32)>,
}

impl Code {
    /// Of functions in any order.
    pub fn of(mut functions: Vec<(u64, u32)>) -> Self {
        functions.sort_unstable();
        Self { functions }
    }

    /// Whether an address is in one of them.
    pub fn has(&self, address: u64) -> bool {
        let behind = self
            .functions
            .partition_point(|(start, _)| *start <= address);
        let before = behind.checked_sub(1).map(|at| self.functions[at]);
        before.is_some_and(|(start, len)| address - start < u64::from(len))
    }
}

/// A stack by its names.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct NamedStack {
    /// Innermost first.
    pub(super) frames: Vec<Name>,
    /// Ids of the BPF programs among them, each once, innermost first.
    pub(super) programs: Vec<u32>,
}

/// Named stacks, numbered as they came; kept from window to window.
#[derive(Default)]
pub(super) struct Stacks {
    hasher: RandomState,
    generation: u64,
    /// By the hash of the addresses.
    numbers: HashMap<u64, usize>,
    stacks: Vec<NamedStack>,
    /// By the hash of the names.
    same: HashMap<u64, Vec<usize>>,
    /// The program that records stacks.
    recorder: Code,
}

impl Stacks {
    /// Says where the program lies that records stacks. Its frames are left out by their
    /// addresses: it may have come after the table of symbols was read.
    pub(super) fn recorded_by(&mut self, code: Code) {
        self.recorder = code;
    }

    /// Forgets everything where names may have changed, or too much is known; gives whether it
    /// did. Between windows only: numbers lose their meaning.
    pub(super) fn refresh(&mut self, symbols: &Symbols) -> bool {
        let full = self.numbers.len() >= MAX_KNOWN;
        if self.generation == symbols.generation() && !full {
            return false;
        }
        self.generation = symbols.generation();
        self.numbers.clear();
        self.stacks.clear();
        self.same.clear();
        true
    }

    /// The number of a stack, innermost address first. `interrupted`: the first address is that
    /// of the interrupted instruction, not one to return to; then what recorded the stack is not
    /// on it.
    pub(super) fn number(
        &mut self,
        addresses: &[u64],
        interrupted: bool,
        symbols: &mut Symbols,
    ) -> usize {
        let hash = self.hasher.hash_one((addresses, interrupted));
        if let Some(number) = self.numbers.get(&hash) {
            return *number;
        }
        let within = |(n, address): (usize, &u64)| match n == 0 && interrupted {
            true => *address,
            false => address.saturating_sub(1),
        };
        let within = addresses.iter().enumerate().map(within);
        let mut frames: Vec<Name> = within.clone().map(|at| symbols.name(at).name).collect();
        let skip = if interrupted {
            0
        } else {
            let own = within
                .clone()
                .take_while(|at| self.recorder.has(*at))
                .count();
            own + stack::tracers(&frames[own..])
        };
        frames.drain(..skip);
        let mut programs = Vec::new();
        for id in within.skip(skip).filter_map(|at| symbols.program(at)) {
            if !programs.contains(&id) {
                programs.push(id);
            }
        }
        let number = self.intern(NamedStack { frames, programs });
        self.numbers.insert(hash, number);
        number
    }

    fn intern(&mut self, stack: NamedStack) -> usize {
        let number = self.stacks.len();
        let mut known = match self.same.entry(self.hasher.hash_one(&stack)) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                entry.insert(vec![number]);
                self.stacks.push(stack);
                return number;
            }
        };
        if let Some(same) = known.get().iter().find(|n| self.stacks[**n] == stack) {
            return *same;
        }
        known.get_mut().push(number);
        self.stacks.push(stack);
        number
    }

    /// The stack of a number.
    pub(super) fn get(&self, number: usize) -> &NamedStack {
        &self.stacks[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stalls::kallsyms::Table;

    const TEXT: &str = "\
ffffffff81000000 t bpf_trace_run2
ffffffff81001000 t __traceiter_contention_begin
ffffffff81002000 t native_queued_spin_lock_slowpath
ffffffff81003000 t alloc_fd
ffffffff81004000 t __x64_sys_dup
";

    #[test]
    fn stacks_are_the_same_by_their_names() {
        let mut symbols = Symbols::of(Table::read(TEXT.as_bytes()).unwrap());
        let mut stacks = Stacks::default();
        let at = |n: u64| 0xffff_ffff_8100_0000 + n;
        let traced = [at(0x10), at(0x1010), at(0x2010), at(0x3010), at(0x4010)];
        let first = stacks.number(&traced, false, &mut symbols);
        let names = [
            "native_queued_spin_lock_slowpath",
            "alloc_fd",
            "__x64_sys_dup",
        ];
        assert_eq!(
            stacks
                .get(first)
                .frames
                .iter()
                .map(|f| &**f)
                .collect::<Vec<_>>(),
            names
        );
        // Elsewhere in the same functions, and interrupted at the first address of one.
        let again = [at(0x2099), at(0x3055), at(0x4011)];
        assert_eq!(stacks.number(&again, false, &mut symbols), first);
        let interrupted = [at(0x2000), at(0x3055), at(0x4011)];
        assert_eq!(stacks.number(&interrupted, true, &mut symbols), first);
        // A return address just behind a call that does not return.
        assert_ne!(stacks.number(&interrupted, false, &mut symbols), first);
        assert!(!stacks.refresh(&symbols));
    }

    #[test]
    fn the_program_that_records_is_on_no_stack_whatever_the_table_calls_it() {
        // Our program came after the table was read: what its place is called says nothing.
        let mut symbols = Symbols::of(Table::read(TEXT.as_bytes()).unwrap());
        let mut stacks = Stacks::default();
        let at = |n: u64| 0xffff_ffff_8100_0000 + n;
        let ours = 0xffff_ffff_c000_1000;
        let traced = |own: u64| [own, at(0x10), at(0x1010), at(0x2010), at(0x3010)];
        // By its callers alone: interpreted, or addresses are hidden.
        let unknown = stacks.number(&traced(ours + 0x20), false, &mut symbols);
        assert_eq!(
            &*stacks.get(unknown).frames[0],
            "native_queued_spin_lock_slowpath"
        );
        stacks.recorded_by(Code::of(vec![(ours, 0x100)]));
        // Where its callers are not known either, its address tells; up to its last one.
        let bare = [ours + 0x20, ours + 0x100, at(0x2010), at(0x3010)];
        let known = stacks.number(&bare, false, &mut symbols);
        assert_eq!(known, unknown);
        // Another program that waits is not ours.
        let other = [ours + 0x102, at(0x2010), at(0x3010)];
        assert_ne!(stacks.number(&other, false, &mut symbols), unknown);
    }
}
