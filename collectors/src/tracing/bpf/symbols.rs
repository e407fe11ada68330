//! Functions of the kernel by addresses in them, from `/proc/kallsyms`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

use crate::Env;

/// The furthest that an address may be from the symbol before it to be in its function.
const MAX_FUNCTION: u64 = 1 << 20;

/// Names of addresses; none of those that are in no function.
#[derive(Debug, Default)]
pub(super) struct Symbols(HashMap<u64, Option<String>>);

impl Symbols {
    /// Names these addresses and forgets all others. The table is read only where one is new.
    pub(super) fn keep(&mut self, env: &Env, mut addresses: Vec<u64>) {
        addresses.sort_unstable();
        addresses.dedup();
        self.0
            .retain(|address, _| addresses.binary_search(address).is_ok());
        addresses.retain(|address| !self.0.contains_key(address));
        if addresses.is_empty() {
            return;
        }
        if let Ok(file) = File::open(env.path("/proc/kallsyms")) {
            let table = BufReader::with_capacity(64 * 1024, file);
            let names = look_up(table, &addresses);
            self.0.extend(addresses.into_iter().zip(names));
        }
    }

    /// The function that an address is in, with the offset therein.
    pub(super) fn name(&self, address: u64) -> Option<&str> {
        self.0.get(&address)?.as_deref()
    }
}

/// Names `wanted`, which is sorted, from one reading of the table, which is not: modules follow
/// the kernel, and BPF programs those.
fn look_up(mut table: impl BufRead, wanted: &[u64]) -> Vec<Option<String>> {
    // The last symbol up to each address that is not up to the address before it.
    let mut nearest: Vec<Option<(u64, Vec<u8>)>> = vec![None; wanted.len()];
    let mut line = Vec::new();
    while table.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        if let Some((address, symbol)) = kallsyms_line(&line)
            && let Some(near) = nearest.get_mut(wanted.partition_point(|w| *w < address))
        {
            match near {
                // The first of several names of one address is as good as any.
                Some((known, _)) if *known >= address => {}
                Some((known, name)) => {
                    *known = address;
                    name.clear();
                    name.extend_from_slice(symbol);
                }
                None => *near = Some((address, symbol.to_vec())),
            }
        }
        line.clear();
    }
    let mut last = None;
    let names = wanted.iter().zip(&nearest).map(|(wanted, near)| {
        last = near.as_ref().or(last);
        let (address, symbol) = last?;
        let symbol = String::from_utf8_lossy(symbol);
        match wanted - address {
            0 => Some(symbol.into_owned()),
            offset if offset < MAX_FUNCTION => Some(format!("{symbol}+{offset:#x}")),
            _ => None,
        }
    });
    names.collect()
}

/// One line of /proc/kallsyms: address and name of a function.
fn kallsyms_line(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut words = crate::file::words(line.trim_ascii_end());
    let address = std::str::from_utf8(words.next()?).ok()?;
    let address = u64::from_str_radix(address, 16).ok().filter(|a| *a != 0)?;
    let kind = words.next()?;
    let symbol = words.next()?;
    matches!(kind, b"t" | b"T" | b"w" | b"W").then_some((address, symbol))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hidden_addresses_and_data_name_nothing() {
        assert_eq!(
            kallsyms_line(b"ffffffff81000000 T _text\n"),
            Some((0xffff_ffff_8100_0000, &b"_text"[..]))
        );
        assert_eq!(kallsyms_line(b"0000000000000000 T _text"), None);
        assert_eq!(kallsyms_line(b"ffffffff81000000 d data"), None);
    }

    #[test]
    fn addresses_are_in_the_function_before_them() {
        let table = b"0000000000001000 T one\n\
            0000000000001000 T also_one\n\
            0000000000002000 t two\n\
            0000000000009000 t module_one\t[m]\n\
            0000000000003000 d data\n\
            0000000000002800 t module_two\t[m]\n";
        let wanted = [
            0xfff, 0x1000, 0x1001, 0x2004, 0x27ff, 0x2800, 0x3000, 0x9001, 0x109_000,
        ];
        let names = look_up(&table[..], &wanted);
        let names: Vec<_> = names.iter().map(|n| n.as_deref().unwrap_or("-")).collect();
        assert_eq!(
            names,
            [
                "-",
                "one",
                "one+0x1",
                "two+0x4",
                "two+0x7ff",
                "module_two",
                "module_two+0x800",
                "module_one+0x1",
                "-"
            ]
        );
    }

    #[test]
    fn the_table_is_read_again_only_for_what_is_new() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        let table = root.path().join("proc/kallsyms");
        let env = Env::at(root.path());
        let mut symbols = Symbols::default();
        symbols.keep(&env, vec![0x1000]);
        assert!(symbols.0.is_empty(), "not known yet is no miss");
        fs::write(&table, "0000000000001000 T before\n").unwrap();
        symbols.keep(&env, vec![0x1000, 0x500]);
        fs::write(&table, "0000000000000500 T after\n").unwrap();
        // Neither what was named nor what has no name is looked for again.
        symbols.keep(&env, vec![0x1000, 0x500, 0x1000]);
        assert_eq!(
            (symbols.name(0x1000), symbols.name(0x500)),
            (Some("before"), None)
        );
        symbols.keep(&env, vec![0x500, 0x600]);
        assert_eq!(symbols.name(0x600), Some("after+0x100"));
        assert_eq!(symbols.0.len(), 2, "what nobody needs is forgotten");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = kallsyms_line(&bytes);
            let _ = look_up(&bytes[..], &[1, 2]);
        }
    }
}
