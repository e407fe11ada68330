//! `/proc/softirqs` (fs/proc/softirqs.c, `show_softirqs`).

use stalltop_model::sample::Vector;

use crate::file;

/// Reads the `CPU0 CPU1 ...` line that heads `/proc/softirqs` (possible CPUs) and
/// `/proc/interrupts` (online CPUs) into `columns`.
///
/// # Errors
/// The word that is not a CPU.
pub(super) fn header<'a>(line: &'a [u8], columns: &mut Vec<u32>) -> Result<(), &'a [u8]> {
    columns.clear();
    for word in file::words(line) {
        let cpu = word
            .strip_prefix(b"CPU")
            .and_then(file::number)
            .filter(|(_, rest)| rest.is_empty())
            .and_then(|(cpu, _)| u32::try_from(cpu).ok());
        columns.push(cpu.ok_or(word)?);
    }
    if columns.is_empty() {
        Err(line)
    } else {
        Ok(())
    }
}

/// Gives each count to `each` by CPU and vector; `columns` is a kept buffer.
/// The counts are the kernel's `unsigned int`: they wrap at 2^32. Vectors that this
/// stalltop does not know are left out.
///
/// # Errors
/// The line or word that is not understood; what came before it was given.
pub fn parse<'a>(
    bytes: &'a [u8],
    columns: &mut Vec<u32>,
    mut each: impl FnMut(u32, Vector, u32),
) -> Result<(), &'a [u8]> {
    let mut lines = file::lines(bytes);
    header(lines.next().unwrap_or(bytes), columns)?;
    for line in lines {
        let mut words = file::words(line);
        let label = words.next().unwrap_or(line);
        let Some(label) = label.strip_suffix(b":") else {
            return Err(line);
        };
        let vector = std::str::from_utf8(label).ok().and_then(Vector::from_name);
        let Some(vector) = vector else { continue };
        for (cpu, word) in columns.iter().zip(words) {
            let (count, rest) = file::number(word).ok_or(line)?;
            if !rest.is_empty() {
                return Err(line);
            }
            each(*cpu, vector, count as u32);
        }
    }
    Ok(())
}
