//! The committed object: parsed, its globals set, its maps relocated.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya_obj::{EbpfSectionKind, Object};
use stalltop_wire::stall::{SAMPLES_MAP, STALLS_MAP, StackSample};
use stalltop_wire::{CPU_SIZE, CPUS_MAP};

use crate::ask::{OWN_TGID, RESCHED_BITS};
use crate::globals::Globals;
use crate::held::HOLDERS;
use crate::locks::LOCK_CONTENTION;
use crate::probes::load_or_why;
use crate::programs::{Failure, Step};
use crate::sys::load;

/// The object as committed (`cargo xtask ebpf` rebuilds it), aligned as the ELF reader wants it.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/stalltop.bpf.o"));

#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

/// Programs ready to be loaded, and the maps they write.
pub(crate) struct Prepared {
    pub(crate) license: CString,
    pub(crate) cpus: OwnedFd,
    pub(crate) samples: OwnedFd,
    pub(crate) events: OwnedFd,
    /// Read-only globals; kept open until the programs that use them are loaded.
    pub(crate) _globals: Vec<OwnedFd>,
    /// Instructions by program name.
    pub(crate) programs: HashMap<String, Vec<u8>>,
}

/// Programs that [`prepare_one`] prepares: with maps that nobody else needs, and with instructions
/// that not every kernel knows.
const ALONE: &[&str] = &[HOLDERS, LOCK_CONTENTION, OWN_TGID, RESCHED_BITS];

/// How large the maps are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) possible_cpus: u32,
    /// Samples of all CPUs together.
    pub(crate) samples: u64,
    /// Bytes of the ring buffer of events.
    pub(crate) events: u32,
}

fn object_failure(e: &dyn std::fmt::Display) -> Failure {
    Failure {
        step: Step::Object,
        errno: None,
        detail: e.to_string(),
    }
}

/// Creates one of the object's maps.
fn create(name: &str, map: &aya_obj::Map, sizes: &Sizes) -> Result<OwnedFd, Failure> {
    let sized = |size: usize| {
        if map.value_size() as usize == size {
            Ok(size as u32)
        } else {
            let what = format!("{name}: the object's values are not of this program's size");
            Err(object_failure(&what))
        }
    };
    let created = match name {
        CPUS_MAP => {
            let size = sized(CPU_SIZE)?;
            load::create_array(name, size, sizes.possible_cpus, load::F_MMAPABLE)
        }
        SAMPLES_MAP => {
            let size = sized(size_of::<StackSample>())?;
            load::create_array(name, size, sizes.samples as u32, load::F_MMAPABLE)
        }
        STALLS_MAP => load::create_ringbuf(name, sizes.events),
        _ if map.section_kind() == EbpfSectionKind::Rodata => create_rodata(map),
        _ => return Err(object_failure(&format!("unexpected map {name}"))),
    };
    created.map_err(|e| map_failure(name, &e))
}

/// The read-only globals, of which the verifier may take what is in them as constants.
fn create_rodata(map: &aya_obj::Map) -> io::Result<OwnedFd> {
    let data = map.data();
    let size = data.len() as u32;
    let fd = load::create_array("stalltop_rodata", size, 1, load::F_RDONLY_PROG)?;
    load::fill_and_freeze(fd.as_fd(), data)?;
    Ok(fd)
}

fn map_failure(name: &str, error: &io::Error) -> Failure {
    Failure {
        step: Step::Map,
        errno: error.raw_os_error(),
        detail: format!("creating map {name}"),
    }
}

/// Parses the object, sets its globals, creates its maps and relocates the programs: those that are
/// loaded together. Others are left out, with their maps: [`prepare_one`].
pub(crate) fn prepare(sizes: &Sizes, globals: &Globals) -> Result<Prepared, Failure> {
    let mut object = parse(globals)?;
    for name in ALONE {
        if let Some(program) = object.programs.remove(*name) {
            object.functions.remove(&program.function_key());
        }
    }
    let mut maps = std::mem::take(&mut object.maps);
    maps.retain(|name, map| {
        [CPUS_MAP, SAMPLES_MAP, STALLS_MAP].contains(&name.as_str())
            || map.section_kind() == EbpfSectionKind::Rodata
    });
    let mut fds = HashMap::new();
    for (name, map) in &maps {
        fds.insert(name.clone(), create(name, map, sizes)?);
    }
    relocate(&mut object, &maps, &fds)?;
    let mut take = |name: &str| {
        fds.remove(name)
            .ok_or_else(|| object_failure(&format!("no map {name}")))
    };
    let (cpus, samples, events) = (take(CPUS_MAP)?, take(SAMPLES_MAP)?, take(STALLS_MAP)?);
    let programs = object
        .programs
        .iter()
        .filter_map(|(name, program)| Some((name.clone(), instructions(&object, program)?)))
        .collect();
    Ok(Prepared {
        license: object.license,
        cpus,
        samples,
        events,
        _globals: fds.into_values().collect(),
        programs,
    })
}

/// An array map of a program that is loaded on its own.
pub(crate) struct Array {
    pub(crate) name: &'static str,
    /// Bytes of a value: what the object's must be, too.
    pub(crate) value_size: usize,
    pub(crate) entries: u32,
    pub(crate) flags: u32,
}

/// A program ready to be loaded on its own, and its maps.
pub(crate) struct PreparedOne {
    pub(crate) license: CString,
    pub(crate) maps: HashMap<String, OwnedFd>,
    pub(crate) insns: Vec<u8>,
}

impl PreparedOne {
    /// Loads it as a raw tracepoint's program.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn verify(&self, name: &str) -> Result<OwnedFd, Failure> {
        load_or_why(&load::Program {
            name,
            kind: load::PROG_TYPE_RAW_TRACEPOINT,
            attach_type: 0,
            attach_btf_id: 0,
            license: &self.license,
            insns: &self.insns,
        })
    }
}

/// Prepares one program that calls no function of the object's, with the array maps that it uses.
pub(crate) fn prepare_one(
    name: &str,
    arrays: &[Array],
    globals: &Globals,
) -> Result<PreparedOne, Failure> {
    let mut object = parse(globals)?;
    let missing = || object_failure(&format!("no program {name}"));
    let key = (object.programs.get(name).ok_or_else(missing)?).function_key();
    object.programs.retain(|other, _| other == name);
    object.functions.retain(|other, _| *other == key);
    let array = |name: &str| arrays.iter().find(|array| array.name == name);
    let mut maps = std::mem::take(&mut object.maps);
    maps.retain(|name, map| array(name).is_some() || map.section_kind() == EbpfSectionKind::Rodata);
    let mut fds = HashMap::new();
    for (name, map) in &maps {
        let created = match array(name) {
            Some(array) if map.value_size() as usize != array.value_size => {
                let what = format!("{name}: the object's values are not of this program's size");
                return Err(object_failure(&what));
            }
            Some(array) => load::create_array(name, map.value_size(), array.entries, array.flags),
            None => create_rodata(map),
        };
        fds.insert(name.clone(), created.map_err(|e| map_failure(name, &e))?);
    }
    relocate(&mut object, &maps, &fds)?;
    let program = object.programs.get(name).ok_or_else(missing)?;
    let insns = instructions(&object, program).ok_or_else(missing)?;
    Ok(PreparedOne {
        insns,
        license: object.license,
        maps: fds,
    })
}

fn parse(globals: &Globals) -> Result<Object, Failure> {
    let mut object = Object::parse(&OBJECT.0).map_err(|e| object_failure(&e))?;
    let values: Vec<_> = globals.iter().map(|(n, v)| (*n, v.to_ne_bytes())).collect();
    let values = values.iter().map(|(n, v)| (*n, (v.as_slice(), true)));
    object
        .patch_map_data(values.collect())
        .map_err(|e| object_failure(&e))?;
    Ok(object)
}

fn relocate(
    object: &mut Object,
    maps: &HashMap<String, aya_obj::Map>,
    fds: &HashMap<String, OwnedFd>,
) -> Result<(), Failure> {
    let text = object.functions.keys().map(|key| key.0).collect();
    let maps = maps
        .iter()
        .map(|(name, map)| (name.as_str(), fds[name].as_raw_fd(), map));
    object
        .relocate_maps(maps, &text)
        .and_then(|()| object.relocate_calls(&text))
        .map_err(|e| object_failure(&e))
}

fn instructions(object: &Object, program: &aya_obj::Program) -> Option<Vec<u8>> {
    let function = object.functions.get(&program.function_key())?;
    Some(function.instructions.iter().flat_map(encode).collect())
}

/// One instruction as the kernel reads it (`struct bpf_insn`, include/uapi/linux/bpf.h).
fn encode(insn: &aya_obj::generated::bpf_insn) -> [u8; load::INSN_SIZE] {
    let registers = if cfg!(target_endian = "little") {
        insn.dst_reg() | insn.src_reg() << 4
    } else {
        insn.dst_reg() << 4 | insn.src_reg()
    };
    let off = insn.off.to_ne_bytes();
    let imm = insn.imm.to_ne_bytes();
    [
        insn.code, registers, off[0], off[1], imm[0], imm[1], imm[2], imm[3],
    ]
}
