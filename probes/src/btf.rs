//! Field offsets and type ids from the running kernel's BTF (Documentation/bpf/btf.rst).
//!
//! Only what our programs need is looked up: the file is walked once, nothing is built but a table
//! of where each type starts. On a 5.5 MB BTF that takes a few milliseconds and leaves no memory
//! behind, where a full parse takes tens of milliseconds and as many megabytes.

use std::fmt;
use std::path::Path;

use crate::programs::{Failure, Step};

/// Where to find the kernel's BTF below the root of the file system.
pub const VMLINUX: &str = "sys/kernel/btf/vmlinux";

/// Reads the running kernel's BTF; `root` is that of the file system.
pub(crate) fn read(root: &Path) -> Result<Vec<u8>, Failure> {
    let path = root.join(VMLINUX);
    std::fs::read(&path).map_err(|e| Failure {
        step: Step::Btf,
        errno: e.raw_os_error(),
        detail: format!("reading {}", path.display()),
    })
}

const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_TYPE_TAG: u32 = 18;

/// Why something was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not BTF of this machine's byte order, or cut off.
    Malformed(&'static str),
    /// A type or a field the running kernel does not have: `struct task_struct.sched_info`.
    Missing(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed BTF: {what}"),
            Self::Missing(what) => write!(f, "the kernel's BTF has no {what}"),
        }
    }
}

impl std::error::Error for Error {}

/// The kernel's types, as bytes.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset in `types` by type id; id 0 is void.
    starts: Vec<u32>,
}

/// What the values of a `struct_ops` map hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StructOps {
    /// The kernel's structure that programs are put in for: `tcp_congestion_ops`.
    pub name: String,
    /// Where in the value its pointers to functions are, bytes.
    pub functions: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    vlen: u32,
    bitfields: bool,
    /// Size, or the type referred to.
    size_or_type: u32,
    /// Where what follows the common part starts.
    rest: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let b = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(b.try_into().ok()?))
}

/// Bytes that follow the 12 common ones (include/uapi/linux/btf.h).
fn extra(kind: u32, vlen: u32) -> Option<usize> {
    let vlen = vlen as usize;
    Some(match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        KIND_ARRAY => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        KIND_STRUCT | KIND_UNION | 15 | 19 => vlen * 12,
        // ENUM, FUNC_PROTO
        KIND_ENUM | KIND_FUNC_PROTO => vlen * 8,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        KIND_PTR | 7..=12 | 16 | KIND_TYPE_TAG => 0,
        _ => return None,
    })
}

impl<'a> Btf<'a> {
    /// Finds the sections and where each type starts.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything but well-formed BTF; a kind this code does not know is an
    /// error too, because what follows it could not be found.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        const CUT: Error = Error::Malformed("cut off");
        let head = |at| word(bytes, at).ok_or(CUT);
        if head(0)? & 0xffff != 0xeb9f {
            return Err(Error::Malformed(
                "no BTF magic of this machine's byte order",
            ));
        }
        let header = head(4)? as usize;
        let section = |offset: u32, len: u32| {
            let start = header.checked_add(offset as usize)?;
            bytes.get(start..start.checked_add(len as usize)?)
        };
        let types = section(head(8)?, head(12)?).ok_or(CUT)?;
        let strings = section(head(16)?, head(20)?).ok_or(CUT)?;
        // 40 bytes a type on average in Linux' own BTF.
        let mut starts = Vec::with_capacity(types.len() / 32);
        starts.push(0);
        let mut at = 0;
        while at < types.len() {
            let info = word(types, at + 4).ok_or(CUT)?;
            let more = extra(info >> 24 & 0x1f, info & 0xffff)
                .ok_or(Error::Malformed("a kind of type newer than this program"))?;
            starts.push(at as u32);
            at += 12 + more;
        }
        if at != types.len() {
            return Err(CUT);
        }
        Ok(Self {
            types,
            strings,
            starts,
        })
    }

    /// How many types there are, void included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no type but void.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.len() == 1
    }

    fn get(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return None;
        }
        let at = *self.starts.get(id as usize)? as usize;
        let info = word(self.types, at + 4)?;
        Some(Type {
            name: word(self.types, at)?,
            kind: info >> 24 & 0x1f,
            vlen: info & 0xffff,
            bitfields: info >> 31 == 1,
            size_or_type: word(self.types, at + 8)?,
            rest: at + 12,
        })
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        self.strings
            .get(offset as usize..)
            .and_then(|s| s.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        (1..self.starts.len() as u32).find(|&id| {
            self.get(id)
                .is_some_and(|t| t.kind == kind && self.is_named(t.name, name))
        })
    }

    /// Name of a type: the function or the tracepoint (as `btf_trace_NAME`) that a tracing program
    /// is attached to. `None` for a nameless one or an id out of range.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<&'a str> {
        self.string(self.get(id)?.name)
    }

    fn string(&self, offset: u32) -> Option<&'a str> {
        let s = self.strings.get(offset as usize..)?;
        let s = &s[..s.iter().position(|&b| b == 0)?];
        std::str::from_utf8(s).ok().filter(|s| !s.is_empty())
    }

    /// Names and values of an enumeration.
    ///
    /// # Errors
    /// [`Error::Missing`] where the kernel has none of that name.
    pub fn enumerators(&self, name: &str) -> Result<Vec<(&'a str, u32)>, Error> {
        let missing = || Error::Missing(format!("enum {name}"));
        let id = self.find(KIND_ENUM, name).ok_or_else(missing)?;
        let t = self.get(id).ok_or_else(missing)?;
        (0..t.vlen as usize)
            .map(|i| {
                let at = t.rest + i * 8;
                Some((
                    self.string(word(self.types, at)?)?,
                    word(self.types, at + 4)?,
                ))
            })
            .collect::<Option<_>>()
            .ok_or_else(missing)
    }

    /// Value of an enumerator of whatever enumeration: nameless ones cannot be asked for by name.
    ///
    /// # Errors
    /// [`Error::Missing`] where the kernel has none of that name.
    pub fn enumerator(&self, name: &str) -> Result<u32, Error> {
        let enums = (1..self.starts.len() as u32).filter_map(|id| self.get(id));
        enums
            .filter(|t| t.kind == KIND_ENUM)
            .flat_map(|t| (0..t.vlen as usize).map(move |i| t.rest + i * 8))
            .find(|at| word(self.types, *at).is_some_and(|string| self.is_named(string, name)))
            .and_then(|at| word(self.types, at + 4))
            .ok_or_else(|| Error::Missing(format!("enumerator {name}")))
    }

    /// The type id that a `tp_btf` program for `tracepoint` attaches to: the typedef
    /// `btf_trace_NAME` (include/trace/bpf_probe.h).
    ///
    /// # Errors
    /// [`Error::Missing`] where the kernel has no such tracepoint.
    pub fn tracepoint(&self, tracepoint: &str) -> Result<u32, Error> {
        let name = format!("btf_trace_{tracepoint}");
        self.find(KIND_TYPEDEF, &name)
            .ok_or_else(|| Error::Missing(format!("typedef {name}")))
    }

    /// The type id that an iterator over `target` attaches to: the function `bpf_iter_TARGET`
    /// (`DEFINE_BPF_ITER_FUNC`, include/linux/bpf.h).
    ///
    /// # Errors
    /// [`Error::Missing`] where the kernel has no such iterator.
    pub fn iterator(&self, target: &str) -> Result<u32, Error> {
        let name = format!("bpf_iter_{target}");
        self.find(KIND_FUNC, &name)
            .ok_or_else(|| Error::Missing(format!("function {name}")))
    }

    /// Offsets of many fields, as [`Self::field`] has them one by one, in one walk over the types.
    pub fn fields(&self, fields: &[(&str, &str)]) -> Vec<Result<u64, Error>> {
        let mut ids: Vec<Option<u32>> = vec![None; fields.len()];
        for id in 1..self.starts.len() as u32 {
            let Some(t) = self.get(id).filter(|t| t.kind == KIND_STRUCT) else {
                continue;
            };
            let Some(name) = self.string(t.name) else {
                continue;
            };
            for ((structure, _), found) in fields.iter().zip(&mut ids) {
                if found.is_none() && *structure == name {
                    *found = Some(id);
                }
            }
        }
        fields
            .iter()
            .zip(ids)
            .map(|((structure, path), id)| self.offset(structure, path, id))
            .collect()
    }

    /// Offset in bytes of a field in a structure; the path may lead through embedded structures,
    /// but not through pointers: `("task_struct", "sched_info.last_queued")`.
    ///
    /// # Errors
    /// [`Error::Missing`] where the structure or the field does not exist or is a bit field.
    pub fn field(&self, structure: &str, path: &str) -> Result<u64, Error> {
        self.offset(structure, path, self.find(KIND_STRUCT, structure))
    }

    /// What the values of a `struct_ops` map hold, by their type (`btf_vmlinux_value_type_id`):
    /// `struct bpf_struct_ops_NAME`, with `struct NAME data` in it (kernel/bpf/bpf_struct_ops.c).
    #[must_use]
    pub fn struct_ops(&self, value_type: u32) -> Option<StructOps> {
        let name = self.name(value_type)?.strip_prefix("bpf_struct_ops_")?;
        let (base, data) = self.member(value_type, "data", 0)?;
        let data = self.get(self.strip(data)?)?;
        let to_function = |ty: u32| {
            let pointer = self.get(self.strip(ty)?)?;
            let target = self.get(self.strip(pointer.size_or_type)?)?;
            (pointer.kind == KIND_PTR && target.kind == KIND_FUNC_PROTO).then_some(())
        };
        let mut functions = Vec::new();
        for i in 0..data.vlen as usize {
            let at = data.rest + i * 12;
            let bits = word(self.types, at + 8)?;
            if to_function(word(self.types, at + 4)?).is_some() {
                functions.push(base.checked_add(bits)? / 8);
            }
        }
        Some(StructOps {
            name: name.to_owned(),
            functions,
        })
    }

    /// Offset of a field in the structure of that id.
    fn offset(&self, structure: &str, path: &str, id: Option<u32>) -> Result<u64, Error> {
        let missing = || Error::Missing(format!("struct {structure}.{path}"));
        let mut id = id.ok_or_else(missing)?;
        let mut offset = 0;
        for name in path.split('.') {
            let (bits, member) = self.member(id, name, 0).ok_or_else(missing)?;
            if bits % 8 != 0 {
                return Err(missing());
            }
            offset += u64::from(bits / 8);
            id = member;
        }
        Ok(offset)
    }

    /// Offset in bits and type of a member, also of unnamed structures and unions within.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        let t = self.get(self.strip(id)?)?;
        if !matches!(t.kind, KIND_STRUCT | KIND_UNION) || depth > 8 {
            return None;
        }
        for i in 0..t.vlen as usize {
            let at = t.rest + i * 12;
            let (member_name, ty) = (word(self.types, at)?, word(self.types, at + 4)?);
            let mut bits = word(self.types, at + 8)?;
            if t.bitfields {
                bits &= 0x00ff_ffff;
            }
            if member_name == 0 {
                if let Some((inner, ty)) = self.member(ty, name, depth + 1) {
                    return Some((bits.checked_add(inner)?, ty));
                }
            } else if self.is_named(member_name, name) {
                return Some((bits, ty));
            }
        }
        None
    }

    /// Follows typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Option<u32> {
        for _ in 0..32 {
            let t = self.get(id)?;
            match t.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = t.size_or_type;
                }
                _ => return Some(id),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small BTF: `struct inner { int a; int b; }`, `typedef struct inner inner_t`, `struct outer
    /// { int x; union { const inner_t in; }; int bits:3; struct inner *p; }`, a tracepoint's
    /// typedef and an enum.
    fn sample() -> Vec<u8> {
        let mut strings = vec![0_u8];
        let mut name = |s: &str| {
            let at = strings.len() as u32;
            strings.extend_from_slice(s.as_bytes());
            strings.push(0);
            at
        };
        let kind = |kind: u32, vlen: u32| kind << 24 | vlen;
        let kflag = 1 << 31;
        let (int, inner, inner_t) = (name("int"), name("inner"), name("inner_t"));
        let types: Vec<u32> = [
            // 1: int
            vec![int, kind(1, 0), 4, 32],
            // 2: struct inner
            vec![
                inner,
                kind(KIND_STRUCT, 2),
                8,
                name("a"),
                1,
                0,
                name("b"),
                1,
                32,
            ],
            // 3: typedef, 4: const
            vec![inner_t, kind(KIND_TYPEDEF, 0), 2],
            vec![0, kind(KIND_CONST, 0), 3],
            // 5: the nameless union
            vec![0, kind(KIND_UNION, 1), 8, name("in"), 4, 0],
            // 6: pointer
            vec![0, kind(KIND_PTR, 0), 2],
            // 7: struct outer, with bit fields: size in the upper byte of the offset
            vec![
                name("outer"),
                kind(KIND_STRUCT, 4) | kflag,
                24,
                name("x"),
                1,
                0,
                0,
                5,
                32,
                name("bits"),
                1,
                3 << 24 | 97,
                name("p"),
                6,
                128,
            ],
            // 8: typedef btf_trace_x
            vec![name("btf_trace_x"), kind(KIND_TYPEDEF, 0), 6],
            // 9: enum
            vec![
                name("e"),
                kind(KIND_ENUM, 2),
                4,
                name("E_A"),
                0,
                name("E_B"),
                7,
            ],
        ]
        .concat();
        let types_len = types.len() as u32 * 4;
        let header = [
            0x0001_eb9f,
            24,
            0,
            types_len,
            types_len,
            strings.len() as u32,
        ];
        let mut out: Vec<u8> = header
            .iter()
            .chain(&types)
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        out.extend_from_slice(&strings);
        out
    }

    #[test]
    fn fields_are_found_through_structures_typedefs_and_nameless_unions() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.len(), 10);
        assert!(!btf.is_empty());
        assert_eq!(btf.field("outer", "x"), Ok(0));
        assert_eq!(btf.field("outer", "in"), Ok(4));
        assert_eq!(btf.field("outer", "in.b"), Ok(8));
        let fields = btf.fields(&[("outer", "in.b"), ("inner", "b"), ("oute", "x")]);
        assert_eq!(fields[..2], [Ok(8), Ok(4)]);
        assert!(fields[2].is_err());
        assert_eq!(btf.field("outer", "p"), Ok(16));
        assert_eq!(btf.tracepoint("x"), Ok(8));
        assert_eq!(btf.name(8), Some("btf_trace_x"));
        assert_eq!(btf.enumerators("e"), Ok(vec![("E_A", 0), ("E_B", 7)]));
        assert_eq!(btf.enumerator("E_B"), Ok(7));
        assert!(btf.enumerator("E_").is_err());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        // A bit field has no offset in bytes, a pointer is not followed, prefixes are no names.
        for path in ["bits", "p.a", "y", "i", "in.b.c"] {
            let missing = Error::Missing(format!("struct outer.{path}"));
            assert_eq!(btf.field("outer", path), Err(missing));
        }
        assert!(btf.field("oute", "x").is_err());
        assert!(btf.field("inner_t", "a").is_err(), "a typedef is no struct");
        assert_eq!(
            btf.tracepoint("y").unwrap_err().to_string(),
            "the kernel's BTF has no typedef btf_trace_y"
        );
        assert_eq!((btf.name(0), btf.name(4), btf.name(99)), (None, None, None));
    }

    #[test]
    fn no_damage_does_more_than_an_error() {
        let bytes = sample();
        for end in 0..bytes.len() {
            if let Ok(btf) = Btf::parse(&bytes[..end]) {
                let _ = btf.field("outer", "in.b");
            }
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(&bytes) {
                    let _ = btf.field("outer", "in.b");
                    let _ = btf.enumerators("e");
                    let _ = btf.enumerator("E_B");
                    for id in 0..12 {
                        let _ = btf.name(id);
                    }
                }
            }
        }
    }

    /// What `sched_switch` reads is where the kernel's own BTF says, if there is one.
    #[test]
    fn the_running_kernel_has_every_field() {
        let Ok(bytes) = std::fs::read(std::path::Path::new("/").join(VMLINUX)) else {
            eprintln!("skipped: no /{VMLINUX}");
            return;
        };
        let btf = Btf::parse(&bytes).unwrap();
        assert!(btf.len() > 10_000);
        let queued = btf.field("task_struct", "sched_info.last_queued").unwrap();
        assert_eq!(
            queued,
            btf.field("task_struct", "sched_info").unwrap()
                + btf.field("sched_info", "last_queued").unwrap()
        );
        for (structure, path) in [
            ("task_struct", "pid"),
            ("task_struct", "se.cfs_rq"),
            ("cfs_rq", "rq"),
            ("rq", "clock"),
        ] {
            assert!(btf.field(structure, path).is_ok(), "{structure}.{path}");
        }
        assert!(btf.tracepoint("sched_switch").is_ok());
    }
}
