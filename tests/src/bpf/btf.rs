//! Types of the running kernel, and types of our own for programs and maps that need some.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use super::Attr;

/// `BTF_KIND_STRUCT`.
pub const STRUCT: u32 = 4;
/// `BTF_KIND_TYPEDEF`.
pub const TYPEDEF: u32 = 8;
/// `BTF_KIND_FUNC`.
pub const FUNCTION: u32 = 12;

/// The running kernel's types.
#[derive(Debug)]
pub struct Types {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type is; type 0 is void and nowhere.
    at: Vec<usize>,
}

impl Types {
    /// Reads them.
    ///
    /// # Errors
    /// No BTF, or one that is cut off.
    pub fn read() -> io::Result<Self> {
        let bytes = fs::read("/sys/kernel/btf/vmlinux")?;
        Self::parse(bytes).ok_or_else(|| io::Error::other("BTF is cut off"))
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let size = |at| word(&bytes, at).map(|value| value as usize);
        let header = size(4)?;
        let start = header + size(8)?;
        let end = start + size(12)?;
        let strings = header + size(16)?;
        let (mut here, mut at) = (start, vec![0]);
        while here < end {
            at.push(here);
            let info = word(&bytes, here + 4)?;
            let count = (info & 0xffff) as usize;
            // What follows the three words of each kind: include/uapi/linux/btf.h.
            here += 12
                + match (info >> 24) & 0x1f {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    4 | 5 | 15 | 19 => 12 * count,
                    6 | 13 => 8 * count,
                    _ => 0,
                };
        }
        Some(Self { bytes, strings, at })
    }

    fn is_named(&self, name_at: usize, name: &str) -> bool {
        let offset = word(&self.bytes, name_at).map_or(usize::MAX, |offset| offset as usize);
        let text = self.bytes.get(self.strings.saturating_add(offset)..);
        text.and_then(|text| text.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The id of a named type; `kind` is `BTF_KIND_*`.
    ///
    /// # Errors
    /// There is no such type.
    pub fn id(&self, name: &str, kind: u32) -> io::Result<u32> {
        let is = |at: usize| {
            let info = word(&self.bytes, at + 4).unwrap_or(0);
            (info >> 24) & 0x1f == kind && self.is_named(at, name)
        };
        let id = self.at.iter().skip(1).position(|at| is(*at));
        id.map(|before| before as u32 + 1)
            .ok_or_else(|| missing(name))
    }

    /// A structure's size, bytes.
    ///
    /// # Errors
    /// There is no such type.
    pub fn size(&self, id: u32) -> io::Result<u32> {
        let at = self.at.get(id as usize).copied();
        at.and_then(|at| word(&self.bytes, at + 8))
            .ok_or_else(|| missing("with a size"))
    }

    /// Which member of a structure has the name, and its offset in bytes.
    ///
    /// # Errors
    /// There is none.
    pub fn member(&self, id: u32, name: &str) -> io::Result<(u32, usize)> {
        let find = || {
            let at = *self.at.get(id as usize)?;
            let count = word(&self.bytes, at + 4)? & 0xffff;
            let at = |n: u32| at + 12 + 12 * n as usize;
            let n = (0..count).find(|n| self.is_named(at(*n), name))?;
            let bits = word(&self.bytes, at(n) + 8)?;
            Some((n, bits as usize / 8))
        };
        find().ok_or_else(|| missing(name))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no BTF type {name}"))
}

/// Loads types of our own: each as its words (include/uapi/linux/btf.h), names as offsets into
/// `strings`.
///
/// # Errors
/// The kernel's answer.
pub fn load(types: &[&[u32]], strings: &[u8]) -> io::Result<OwnedFd> {
    let types = types.concat();
    let bytes = types.len() as u32 * 4;
    let header = [0x0001_eb9f, 24, 0, bytes, bytes, strings.len() as u32];
    let words = header.iter().chain(&types);
    let mut btf: Vec<u8> = words.flat_map(|word| word.to_ne_bytes()).collect();
    btf.extend_from_slice(strings);
    Attr::new()
        .u64(0, btf.as_ptr() as u64)
        .u32(16, btf.len() as u32)
        .open(18)
}

/// The type of the function of [`packet_function`].
pub const PACKET_FUNCTION: u32 = 5;

/// The types of `int entry(struct xdp_md *ctx)`, for anybody to call: type [`PACKET_FUNCTION`].
///
/// # Errors
/// The kernel's answer.
pub fn packet_function() -> io::Result<OwnedFd> {
    let strings = b"\0int\0xdp_md\0ctx\0entry\0";
    let types: [&[u32]; 5] = [
        &[1, 1 << 24, 4, 1 << 24 | 32],
        &[5, STRUCT << 24, 0],
        &[0, 2 << 24, 2],
        &[0, 13 << 24 | 1, 1, 12, 3],
        // BTF_FUNC_GLOBAL is 1.
        &[16, FUNCTION << 24 | 1, 4],
    ];
    load(&types, strings)
}
