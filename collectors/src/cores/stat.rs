//! The `cpuN` lines of `/proc/stat` (fs/proc/stat.c, `show_stat`): online CPUs only.

use stalltop_model::sample::CpuTimes;

use crate::file;

/// Gives the times of each `cpuN` line to `each`. `tick_ns` is the length of one clock
/// tick (`sysconf(_SC_CLK_TCK)`; 10 ms on nearly every machine). Columns that an old
/// kernel does not print (steal before 2.6.11) count as 0.
///
/// # Errors
/// The line that is not understood; what came before it was given.
pub fn parse(bytes: &[u8], tick_ns: u64, mut each: impl FnMut(u32, CpuTimes)) -> Result<(), &[u8]> {
    for line in file::lines(bytes) {
        // The cpu lines come first; what follows (intr) is long on large machines.
        let Some(rest) = line.strip_prefix(b"cpu") else {
            return Ok(());
        };
        let Some((cpu, rest)) = file::number(rest) else {
            continue;
        };
        let cpu = u32::try_from(cpu).map_err(|_| line)?;
        let mut times = CpuTimes::default();
        let columns = [
            &mut times.user_ns,
            &mut times.nice_ns,
            &mut times.system_ns,
            &mut times.idle_ns,
            &mut times.iowait_ns,
            &mut times.irq_ns,
            &mut times.softirq_ns,
            &mut times.steal_ns,
        ];
        for (ns, word) in columns.into_iter().zip(file::words(rest)) {
            let (ticks, rest) = file::number(word).ok_or(line)?;
            if !rest.is_empty() {
                return Err(line);
            }
            *ns = ticks.saturating_mul(tick_ns);
        }
        each(cpu, times);
    }
    Ok(())
}

/// Lines after `ctxt` at most (`btime`, `processes`, `procs_*`, `softirq`), and some more.
const AFTER_SWITCHES: usize = 16;

/// Context switches of all CPUs since boot: the `ctxt` line. It is looked for from the end, as
/// `intr` before it is long on large machines.
pub fn switches(bytes: &[u8]) -> Option<u64> {
    let lines = bytes.rsplit(|b| *b == b'\n').take(AFTER_SWITCHES);
    let line = lines
        .filter_map(|line| line.strip_prefix(b"ctxt "))
        .next()?;
    file::number(line).map(|(count, _)| count)
}
