//! `/proc/interrupts` (kernel/irq/proc.c, `show_interrupts`; arch/x86/kernel/irq.c,
//! `arch_show_interrupts`): one column per online CPU.

use super::softirqs::header;
use crate::file;

/// Sums all interrupts of each CPU into `sums`, one per entry of `columns`, modulo 2^32:
/// each cell is an `unsigned int` of the kernel, and so is exact only modulo 2^32.
/// Rows of whole-host counters (`ERR`, `MIS`) are left out.
///
/// # Errors
/// The heading, where it is not understood.
pub fn parse<'a>(
    bytes: &'a [u8],
    columns: &mut Vec<u32>,
    sums: &mut Vec<u32>,
) -> Result<(), &'a [u8]> {
    let mut lines = file::lines(bytes);
    header(lines.next().unwrap_or(bytes), columns)?;
    sums.clear();
    sums.resize(columns.len(), 0);
    for line in lines {
        let line = line.trim_ascii_start();
        let label = line.iter().take_while(|b| **b != b' ').count();
        let (label, mut rest) = line.split_at(label);
        if label.eq_ignore_ascii_case(b"ERR:") || label.eq_ignore_ascii_case(b"MIS:") {
            continue;
        }
        // By hand: 65,000 cells on a machine of 1,024 CPUs, nearly all of them 0.
        for sum in sums.iter_mut() {
            rest = rest.trim_ascii_start();
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let (number, after) = rest.split_at(digits);
            // A row with fewer counts than CPUs: its description has begun.
            if digits == 0 || !after.first().is_none_or(u8::is_ascii_whitespace) {
                break;
            }
            let count = number.iter().fold(0u32, |n, b| {
                n.wrapping_mul(10).wrapping_add(u32::from(b - b'0'))
            });
            *sum = sum.wrapping_add(count);
            rest = after;
        }
    }
    Ok(())
}
