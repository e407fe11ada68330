//! `/proc/net/softnet_stat` (net/core/net-procfs.c, `softnet_seq_show`).

use crate::file;

/// One line: hexadecimal columns, each the kernel's `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The CPU, where the kernel prints it (5.10+); else lines follow the online CPUs.
    pub cpu: Option<u32>,
    /// Packets processed.
    pub processed: u32,
    /// Packets dropped: backlog full.
    pub dropped: u32,
    /// NET_RX runs that stopped with work left.
    pub time_squeeze: u32,
    /// Packets waiting, where the kernel prints it (5.10+).
    pub backlog: Option<u32>,
}

/// Gives each line to `each`, in order; offline CPUs have none.
///
/// Layouts: 9 columns (before 2.6.35), 10 with `received_rps`, 11 with
/// `flow_limit_count` (3.11), 13 with the backlog's length and the CPU (5.10), 15 with
/// the lengths of the input and process queues (6.4). Further columns are left out.
///
/// # Errors
/// The line that is not understood; what came before it was given.
pub fn parse(bytes: &[u8], mut each: impl FnMut(Line)) -> Result<(), &[u8]> {
    for line in file::lines(bytes) {
        let mut columns = [0u32; 13];
        let mut found = 0;
        for (column, word) in columns.iter_mut().zip(file::words(line)) {
            *column = hex(word).ok_or(line)?;
            found += 1;
        }
        if found < 9 {
            return Err(line);
        }
        let newer = found == columns.len();
        each(Line {
            cpu: newer.then_some(columns[12]),
            processed: columns[0],
            dropped: columns[1],
            time_squeeze: columns[2],
            backlog: newer.then_some(columns[11]),
        });
    }
    Ok(())
}

fn hex(word: &[u8]) -> Option<u32> {
    if word.len() > 8 {
        return None;
    }
    let mut n = 0u32;
    for byte in word {
        n = n << 4 | char::from(*byte).to_digit(16)?;
    }
    Some(n)
}
