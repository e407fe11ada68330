//! The table itself: sorted, packed, and searched.
//!
//! Measured (`benches/stalls.rs`, a busy virtual machine of 2 cores): 120,000 symbols take 26 ms
//! to parse and 4.0 MB to keep, a lookup 92 ns. A host's own of 122,000 rows, of which 64,000 are
//! kept in 1.9 MB, takes 103 ms, most of it the kernel's printing.

use std::io::{self, Read};

/// Kernel text is never this far from the symbol before it (the largest function of a
/// distribution kernel has under 100 kB); what is farther lies in a hole.
const FARTHEST: u64 = 1 << 20;
/// The same behind the last symbol of a module or a BPF program, whose end is not known.
const FARTHEST_AT_END: u64 = 64 << 10;
/// Rows beyond which the rest is left out: ten times what any kernel has.
const MAX_ROWS: usize = 2_000_000;
/// Longest name taken (`KSYM_NAME_LEN` is 512); longer ones are cut.
const MAX_NAME: usize = 512;
/// No module.
const CORE: u16 = 0;

/// The text symbols of a kernel, its modules and its BPF programs.
///
/// About 30 bytes a symbol: 8 for its address and the place of its name, the rest for the name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Stretches of addresses that 32 bits can tell apart: their base, and their first row.
    stretches: Vec<(u64, u32)>,
    /// Addresses as distances from their stretch's base, ascending.
    offsets: Vec<u32>,
    /// Where each name begins in `names`; one more at the end.
    starts: Vec<u32>,
    names: Vec<u8>,
    /// Rows from which on symbols belong to another module.
    runs: Vec<(u32, u16)>,
    /// Names of modules; the first one is empty and stands for the kernel itself.
    modules: Vec<Vec<u8>>,
}

/// A symbol that covers an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its row in the table.
    pub row: u32,
    /// Its name, as the kernel has it.
    pub name: &'a [u8],
    /// Its module, or `bpf`; none for the kernel itself.
    pub module: Option<&'a [u8]>,
    /// How far behind the symbol the address is.
    pub offset: u64,
}

/// A row while the table is being read.
struct Row {
    address: u64,
    name: u32,
    len: u16,
    module: u16,
}

#[derive(Default)]
struct Reader {
    rows: Vec<Row>,
    names: Vec<u8>,
    modules: Vec<Vec<u8>>,
}

impl Table {
    /// Reads the text of `/proc/kallsyms` piece by piece.
    ///
    /// # Errors
    /// What reading reports; lines that are not understood are left out.
    pub fn read(mut from: impl Read) -> io::Result<Self> {
        let mut reader = Reader {
            modules: vec![Vec::new()],
            ..Reader::default()
        };
        let mut buf = vec![0; 64 << 10];
        let mut held = 0;
        loop {
            if held == buf.len() {
                // A line longer than the buffer is no symbol.
                held = 0;
            }
            let n = match from.read(&mut buf[held..]) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if n == 0 {
                reader.line(&buf[..held]);
                return Ok(reader.finish());
            }
            let end = held + n;
            let whole = buf[..end]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            for line in buf[..whole].split(|b| *b == b'\n') {
                reader.line(line);
            }
            buf.copy_within(whole..end, 0);
            held = end - whole;
        }
    }

    /// How many symbols there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Memory that the table holds, bytes.
    pub fn bytes(&self) -> usize {
        self.offsets.capacity() * 4
            + self.starts.capacity() * 4
            + self.names.capacity()
            + self.stretches.capacity() * 16
            + self.runs.capacity() * 8
            + self
                .modules
                .iter()
                .map(|m| m.capacity() + 24)
                .sum::<usize>()
    }

    /// The symbol that `address` is in; none where the nearest one before it is too far.
    pub fn find(&self, address: u64) -> Option<Symbol<'_>> {
        let stretch = self
            .stretches
            .partition_point(|(base, _)| *base <= address)
            .checked_sub(1)?;
        let (base, first) = self.stretches[stretch];
        let end = match self.stretches.get(stretch + 1) {
            Some((_, row)) => *row as usize,
            None => self.offsets.len(),
        };
        // Beyond 32 bits from the base nothing of this stretch can be near.
        let distance = u32::try_from(address - base).ok()?;
        let rows = &self.offsets[first as usize..end];
        let behind = rows.partition_point(|offset| *offset <= distance);
        let row = first as usize + behind.checked_sub(1)?;
        let offset = u64::from(distance - self.offsets[row]);
        let module = self.module(row);
        let last = row + 1 == self.offsets.len() || self.module(row + 1) != module;
        let farthest = if last { FARTHEST_AT_END } else { FARTHEST };
        let name = self.name(row);
        // The marks at the end of the kernel's text name nothing.
        let mark = matches!(name, b"_etext" | b"_einittext" | b"__init_end");
        (offset < farthest && !mark).then(|| Symbol {
            row: row as u32,
            name,
            module: (module != CORE).then(|| self.modules[usize::from(module)].as_slice()),
            offset,
        })
    }

    fn name(&self, row: usize) -> &[u8] {
        &self.names[self.starts[row] as usize..self.starts[row + 1] as usize]
    }

    fn module(&self, row: usize) -> u16 {
        let run = self
            .runs
            .partition_point(|(first, _)| *first as usize <= row);
        run.checked_sub(1).map_or(CORE, |run| self.runs[run].1)
    }
}

impl Reader {
    /// `ffffffff81000000 T _stext` or, tab separated, `ffffffffc0201000 t name\t[module]`
    /// (kernel/kallsyms.c, `s_show`).
    fn line(&mut self, line: &[u8]) {
        let Some((address, rest)) = hex(line) else {
            return;
        };
        let [b' ', kind, b' ', rest @ ..] = rest else {
            return;
        };
        // An address of zero is hidden, or no text.
        if address == 0 || !matches!(kind, b't' | b'T' | b'w' | b'W') || self.rows.len() >= MAX_ROWS
        {
            return;
        }
        let (name, module) = match rest.iter().position(|b| *b == b'\t') {
            Some(tab) => (&rest[..tab], &rest[tab + 1..]),
            None => (rest, &b""[..]),
        };
        // Padding before functions (CONFIG_CALL_PADDING, 6.2+), never executed: half the rows.
        if name.is_empty() || name.starts_with(b"__pfx_") {
            return;
        }
        let module = module.strip_prefix(b"[").unwrap_or(module);
        let module = module.strip_suffix(b"]").unwrap_or(module);
        let name = &name[..name.len().min(MAX_NAME)];
        let Ok(at) = u32::try_from(self.names.len()) else {
            return;
        };
        let module = self.module(&module[..module.len().min(MAX_NAME)]);
        self.names.extend_from_slice(name);
        self.rows.push(Row {
            address,
            name: at,
            len: name.len() as u16,
            module,
        });
    }

    /// The number of a module's name; rows of one module follow each other.
    fn module(&mut self, name: &[u8]) -> u16 {
        if name.is_empty() {
            return CORE;
        }
        let known = self.modules.iter().rposition(|known| known == name);
        let number = known.unwrap_or_else(|| {
            // More than any host loads: the rest share the last name.
            if self.modules.len() < usize::from(u16::MAX) {
                self.modules.push(name.to_vec());
            }
            self.modules.len() - 1
        });
        number as u16
    }

    fn finish(mut self) -> Table {
        // Among aliases of one address the kernel prints the preferred one last or first, by
        // link order; a stable sort keeps the file's order and the first one is taken.
        self.rows.sort_by_key(|row| row.address);
        self.rows.dedup_by_key(|row| row.address);
        let mut table = Table {
            offsets: Vec::with_capacity(self.rows.len()),
            starts: Vec::with_capacity(self.rows.len() + 1),
            names: Vec::with_capacity(self.rows.iter().map(|row| usize::from(row.len)).sum()),
            modules: self.modules,
            ..Table::default()
        };
        let mut base = None;
        let mut module = CORE;
        for row in &self.rows {
            let at = table.offsets.len() as u32;
            let offset = base.and_then(|base| u32::try_from(row.address - base).ok());
            table.offsets.push(offset.unwrap_or_else(|| {
                base = Some(row.address);
                table.stretches.push((row.address, at));
                0
            }));
            if row.module != module {
                module = row.module;
                table.runs.push((at, module));
            }
            table.starts.push(table.names.len() as u32);
            let name = row.name as usize;
            table
                .names
                .extend_from_slice(&self.names[name..name + usize::from(row.len)]);
        }
        table.starts.push(table.names.len() as u32);
        table.runs.shrink_to_fit();
        table.stretches.shrink_to_fit();
        table.modules.shrink_to_fit();
        table
    }
}

/// A hexadecimal number without `0x` at the start, and the rest.
fn hex(line: &[u8]) -> Option<(u64, &[u8])> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 16 {
        return None;
    }
    let value = line[..digits].iter().fold(0, |value: u64, b| {
        let digit = (*b as char).to_digit(16).unwrap_or(0);
        value << 4 | u64::from(digit)
    });
    Some((value, &line[digits..]))
}
