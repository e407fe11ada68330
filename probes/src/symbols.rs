//! Addresses of the few kernel functions that the programs must know, from /proc/kallsyms.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use crate::programs::{Failure, Step};

/// The file below the root of the file system.
const KALLSYMS: &str = "proc/kallsyms";

/// Addresses; 0 for what the kernel does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Symbols {
    /// `tick_nohz_handler`: the tick's timer function from 6.9 on. Older kernels have a function of
    /// that name that is none of a timer's.
    pub(crate) tick_nohz_handler: u64,
    /// `tick_sched_timer`: the same before (kernel/time/tick-sched.c).
    pub(crate) tick_sched_timer: u64,
    /// Where interrupts enter: from `__entry_text_start` to `__entry_text_end`
    /// (include/asm-generic/vmlinux.lds.h). From 5.8 to 5.11 only to what switches to the stack of
    /// interrupts (`asm_call_on_stack`, arch/x86/entry/entry_64.S), which lies behind the entries and
    /// is on each stack of an interrupt, called by its handler: taken for the entry, it would make
    /// the handler what was interrupted.
    pub(crate) entry: [u64; 2],
}

/// How much further to read once one of the tick's functions was found: the other one is in the same
/// source file, so near it, and the rest of the file takes five times as long.
const NEAR: u32 = 2_000;

impl Symbols {
    /// Reads what is needed and no more: a file of 10 MB, sorted by address.
    ///
    /// # Errors
    /// The file cannot be read, hides its addresses, or has neither of the tick's functions.
    pub(crate) fn read(root: &Path) -> Result<Self, Failure> {
        let path = root.join(KALLSYMS);
        let failure = |errno, detail| Failure {
            step: Step::Symbols,
            errno,
            detail,
        };
        let unread = |e: &io::Error| {
            let detail = format!("reading {}", path.display());
            failure(e.raw_os_error(), detail)
        };
        let file = File::open(&path).map_err(|e| unread(&e))?;
        let (symbols, hidden) =
            Self::parse(BufReader::with_capacity(64 * 1024, file)).map_err(|e| unread(&e))?;
        if hidden {
            let detail = "kernel.kptr_restrict or a missing CAP_SYSLOG hides all addresses";
            return Err(failure(Some(libc::EPERM), detail.into()));
        }
        if symbols.tick_nohz_handler == 0 && symbols.tick_sched_timer == 0 {
            let detail = "neither tick_nohz_handler nor tick_sched_timer";
            return Err(failure(None, detail.into()));
        }
        Ok(symbols)
    }

    /// The addresses, and whether they are hidden.
    fn parse(mut lines: impl BufRead) -> io::Result<(Self, bool)> {
        let mut symbols = Self::default();
        let mut line = Vec::with_capacity(128);
        let mut left = u32::MAX;
        let mut hidden = true;
        let mut switch = 0;
        while left > 0 {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if left != u32::MAX {
                left -= 1;
            }
            // 16 digits, a space, a letter, a space, the name; of a module its name follows.
            let Some(name) = line.get(19..) else { continue };
            hidden &= line.starts_with(b"0000000000000000");
            let wanted = match name.trim_ascii_end() {
                b"tick_nohz_handler" => &mut symbols.tick_nohz_handler,
                b"tick_sched_timer" => &mut symbols.tick_sched_timer,
                b"__entry_text_start" => &mut symbols.entry[0],
                b"__entry_text_end" => &mut symbols.entry[1],
                b"asm_call_on_stack" => &mut switch,
                _ => continue,
            };
            let digits = std::str::from_utf8(&line[..16]).unwrap_or_default();
            *wanted = u64::from_str_radix(digits, 16).unwrap_or_default();
            let ticks = symbols.tick_nohz_handler | symbols.tick_sched_timer;
            if ticks != 0 && symbols.entry[1] != 0 {
                left = NEAR;
            }
        }
        let [start, end] = &mut symbols.entry;
        if (*start..*end).contains(&switch) {
            *end = switch;
        }
        Ok((symbols, hidden))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Symbols, bool) {
        Symbols::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_whole_names_count() {
        let text = "ffffffff81000010 T __entry_text_start\n\
                    ffffffff81001a87 T __entry_text_end\n\
                    ffffffff814332d0 t __pfx_tick_nohz_handler\n\
                    ffffffff814332e0 t tick_nohz_handler\n\
                    ffffffff81434210 T tick_sched_timer_dying\n\
                    ffffffffc0000000 t tick_sched_timer\t[module]\n";
        let (symbols, hidden) = parse(text);
        assert_eq!(symbols.tick_nohz_handler, 0xffff_ffff_8143_32e0);
        assert_eq!(symbols.tick_sched_timer, 0);
        assert_eq!(
            symbols.entry,
            [0xffff_ffff_8100_0010, 0xffff_ffff_8100_1a87]
        );
        assert!(!hidden);
    }

    #[test]
    fn entries_end_where_stacks_are_switched() {
        // 5.10.
        let text = "ffffffff8112a0b0 t tick_sched_timer\n\
                    ffffffff81a00010 T __entry_text_start\n\
                    ffffffff81a00df0 T asm_sysvec_apic_timer_interrupt\n\
                    ffffffff81a010e0 T asm_call_irq_on_stack\n\
                    ffffffff81a010e0 T asm_call_on_stack\n\
                    ffffffff81a018d2 T __entry_text_end\n";
        let (symbols, _) = parse(text);
        assert_eq!(
            symbols.entry,
            [0xffff_ffff_81a0_0010, 0xffff_ffff_81a0_10e0]
        );
    }

    #[test]
    fn hidden_addresses_are_told_from_missing_names() {
        assert!(parse("0000000000000000 t tick_sched_timer\n").1);
        assert!(!parse("0000000000000000 A per_cpu_start\nffffffff81000000 T _text\n").1);
    }

    #[test]
    fn no_damage_does_more_than_find_nothing() {
        for text in [
            "",
            "\n",
            "x",
            "ffffffff81000000",
            "zzzzzzzzzzzzzzzz t tick_sched_timer\n",
        ] {
            assert_eq!(parse(text).0, Symbols::default());
        }
        let bytes = [&[0xff; 40][..], b"\n\xff\xfe\n"].concat();
        assert!(Symbols::parse(&bytes[..]).is_ok());
    }

    #[test]
    fn the_running_kernel_has_a_tick() {
        let path = Path::new("/").join(KALLSYMS);
        let readable = File::open(&path)
            .and_then(|file| Symbols::parse(BufReader::new(file)))
            .is_ok_and(|(_, hidden)| !hidden);
        if !readable {
            eprintln!(
                "skipped: {} cannot be read or hides addresses",
                path.display()
            );
            return;
        }
        let symbols = Symbols::read(Path::new("/")).unwrap();
        assert!(symbols.entry[0] < symbols.entry[1], "{symbols:?}");
    }
}
