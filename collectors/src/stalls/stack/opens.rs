//! Whether an interrupt that was kept waiting came in just where it was interrupted, by the code
//! before that instruction.

/// Whether any of the bytes before an interrupted instruction let interrupts in, for a sample that
/// is known to be late. x86: `sti` (fb) or `popf` (9d); measured on 453 true gaps: 451. arm64: `msr
/// daif, xN`, `msr daifclr, #n`, or a write of the priority mask (`ICC_PMR_EL1`), the instruction
/// right before.
pub(crate) fn lets_interrupts_in(code: u64) -> bool {
    if code == 0 {
        return false;
    }
    let bytes = code.to_ne_bytes();
    if cfg!(target_arch = "aarch64") {
        arm64(bytes)
    } else {
        bytes.iter().any(|b| matches!(b, 0xfb | 0x9d))
    }
}

/// Whether the code before an interrupted instruction had let interrupts in just then, for a sample
/// that may as well have come in time: an interrupt that was kept waiting comes right behind `popf`,
/// or behind the one instruction that `sti` still keeps it out for (Intel SDM, volume 2, STI). Any
/// of eight bytes is one of the two by chance in 6 of 100 samples, and more often in the kernel:
/// `mov %rdi,%rbx` ends in fb. None where the code was not read.
pub(crate) fn opened_just_now(code: u64) -> Option<bool> {
    if code == 0 {
        return None;
    }
    let bytes = code.to_ne_bytes();
    Some(if cfg!(target_arch = "aarch64") {
        arm64(bytes)
    } else {
        x86(bytes)
    })
}

fn arm64([.., a, b, c, d]: [u8; 8]) -> bool {
    let word = u32::from_le_bytes([a, b, c, d]);
    word & 0xffff_ffe0 == 0xd51b_4220
        || word & 0xffff_f0ff == 0xd503_40ff
        || word & 0xffff_ffe0 == 0xd518_4600
}

fn x86(bytes: [u8; 8]) -> bool {
    let behind_sti = (0..bytes.len()).any(|at| {
        let [before @ .., _] = &bytes[..=at] else {
            return false;
        };
        bytes[at] == 0xfb && !before.last().is_some_and(takes_modrm) && one(&bytes[at + 1..])
    });
    bytes[7] == 0x9d || behind_sti
}

/// Whether what follows an opcode is its operands: `mov`, arithmetic, `test`, `movzx` and the like.
/// Not `ff`: with the operands `fb` that is no instruction, and calls and jumps back end in `ff`.
fn takes_modrm(opcode: &u8) -> bool {
    matches!(
        opcode,
        0x01 | 0x03
            | 0x09
            | 0x0b
            | 0x21
            | 0x23
            | 0x29
            | 0x2b
            | 0x31
            | 0x33
            | 0x39
            | 0x3b
            | 0x63
            | 0x80..=0x8b | 0xaf | 0xb6 | 0xb7 | 0xbe | 0xbf | 0xc1 | 0xd1 | 0xd3 | 0xf7
    )
}

/// Whether the bytes are one instruction, of those that stand behind `sti`: what the kernel fills
/// patched code up with, its preemption count, and what ends a function.
fn one(bytes: &[u8]) -> bool {
    /// Both operands in registers.
    const REGISTERS: std::ops::RangeInclusive<u8> = 0xc0..=0xff;
    match bytes {
        // nop, pop, leave, hlt.
        [0x90 | 0x58..=0x5f | 0xc9 | 0xf4]
        | [0x66, 0x90]
        | [0x41, 0x58..=0x5f]
        // A jump that was not taken.
        | [0x70..=0x7f, _]
        | [0x0f, 0x80..=0x8f, _, _, _, _]
        // Longer nops.
        | [0x0f, 0x1f, 0x00]
        | [0x0f, 0x1f, 0x40, _]
        | [0x0f, 0x1f, 0x44, _, _]
        | [0x66, 0x0f, 0x1f, 0x44, _, _]
        | [0x0f, 0x1f, 0x80, _, _, _, _]
        // decl %gs:__preempt_count(%rip).
        | [0x65, 0xff, 0x0d, _, _, _, _] => true,
        // mov, xor and test of registers, with and without REX; add and sub of a small number.
        [0x89 | 0x8b | 0x31 | 0x85, operands]
        | [0x40..=0x4f, 0x89 | 0x8b | 0x31 | 0x85, operands]
        | [0x83, operands, _]
        | [0x40..=0x4f, 0x83, operands, _] => REGISTERS.contains(operands),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: [u8; 8]) -> u64 {
        u64::from_ne_bytes(bytes)
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn interrupts_come_right_behind_what_lets_them_in() {
        for (bytes, opened) in [
            // push %rdi; popf: 5.10's _raw_spin_unlock_irqrestore, patched.
            ([0, 0, 0, 0, 0, 0, 0x57, 0x9d], true),
            // And further on in it.
            ([0, 0x57, 0x9d, 0x0f, 0x1f, 0x44, 0, 0], false),
            // sti; decl %gs:__preempt_count.
            ([0xfb, 0x65, 0xff, 0x0d, 1, 2, 3, 4], true),
            // sti; nop; and before that nop.
            ([0, 0xfb, 0x66, 0x0f, 0x1f, 0x44, 0, 0], true),
            ([0, 0, 0, 0, 0, 0, 0, 0xfb], false),
            ([0, 0, 0, 0, 0, 0, 0xfb, 0x90], true),
            // jmp back; sti; nop: 6.18's htab_map_update_elem, which ends with its bucket's lock.
            ([0xff, 0xff, 0xfb, 0x0f, 0x1f, 0x44, 0, 0], true),
            // mov %rdi,%rbx, then a pop or a nop.
            ([0, 0, 0, 0, 0x48, 0x89, 0xfb, 0x5b], false),
            ([0, 0, 0x48, 0x89, 0xfb, 0x0f, 0x1f, 0], false),
        ] {
            assert_eq!(opened_just_now(code(bytes)), Some(opened), "{bytes:x?}");
        }
        assert_eq!(opened_just_now(0), None);
    }
}
