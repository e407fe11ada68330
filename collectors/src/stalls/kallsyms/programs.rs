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
    functions: Vec<Function>,
}

/// One function: a program has one, and one more for each that it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    address: u64,
    bytes: u32,
    program: u32,
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
            let code = info::program_code(program.as_fd()).unwrap_or_default();
            functions.extend(code.into_iter().map(|(address, bytes)| Function {
                address,
                bytes,
                program: id,
            }));
        }
        functions.sort_unstable();
        (!functions.is_empty()).then_some(Self { functions })
    }

    /// The id of the program that an address is in.
    pub(super) fn program(&self, address: u64) -> Option<u32> {
        let behind = self.functions.partition_point(|f| f.address <= address);
        let function = self.functions[behind.checked_sub(1)?];
        (address - function.address < u64::from(function.bytes)).then_some(function.program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_behind_a_function_is_in_none() {
        let function = |address, bytes, program| Function {
            address,
            bytes,
            program,
        };
        let code = Code {
            functions: vec![function(0x1000, 0x40, 7), function(0x1080, 0x10, 5)],
        };
        for (address, program) in [
            (0xfff, None),
            (0x1000, Some(7)),
            (0x103f, Some(7)),
            (0x1040, None),
            (0x1080, Some(5)),
            (0x1090, None),
        ] {
            assert_eq!(code.program(address), program, "{address:#x}");
        }
    }
}
