//! Where the code of BPF programs lies.
//!
//! `/proc/kallsyms` says where a program begins, not where it ends, and programs come and go: an
//! address behind the last one that is known may belong to one that is gone. bpf(2) tells the
//! lengths.

use std::os::fd::AsFd;

use stalltop_probes::sys::ids::{self, Object};
use stalltop_probes::sys::info;

/// The compiled functions of the programs that were loaded at one time, by address.
#[derive(Debug)]
pub(super) struct Code {
    functions: Vec<(u64, u32)>,
}

impl Code {
    /// Asks for every program; none where that is not allowed, or addresses are hidden.
    pub(super) fn read() -> Option<Self> {
        let mut programs = Vec::new();
        ids::all(Object::Program, &mut programs).ok()?;
        let mut functions = Vec::new();
        for id in programs {
            // One that was unloaded meanwhile is none.
            let Ok(program) = ids::open(Object::Program, id) else {
                continue;
            };
            functions.extend(info::program_code(program.as_fd()).unwrap_or_default());
        }
        functions.sort_unstable();
        (!functions.is_empty()).then_some(Self { functions })
    }

    /// Whether an address is in one of the functions.
    pub(super) fn holds(&self, address: u64) -> bool {
        let behind = self.functions.partition_point(|(at, _)| *at <= address);
        behind
            .checked_sub(1)
            .map(|row| self.functions[row])
            .is_some_and(|(at, length)| address - at < u64::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_behind_a_function_is_in_none() {
        let code = Code {
            functions: vec![(0x1000, 0x40), (0x1080, 0x10)],
        };
        for (address, holds) in [
            (0xfff, false),
            (0x1000, true),
            (0x103f, true),
            (0x1040, false),
            (0x1080, true),
            (0x1090, false),
        ] {
            assert_eq!(code.holds(address), holds, "{address:#x}");
        }
    }
}
