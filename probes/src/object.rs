//! The committed object: parsed, its globals set, its maps relocated.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya_obj::{EbpfSectionKind, Object};
use stalltop_wire::stall::{SAMPLES_MAP, STALLS_MAP, StackSample};
use stalltop_wire::{CPU_SIZE, CPUS_MAP};

use crate::globals::Globals;
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
        _ if map.section_kind() == EbpfSectionKind::Rodata => {
            let data = map.data();
            let size = data.len() as u32;
            load::create_array("stalltop_rodata", size, 1, load::F_RDONLY_PROG)
                .and_then(|fd| load::fill_and_freeze(fd.as_fd(), data).map(|()| fd))
        }
        _ => return Err(object_failure(&format!("unexpected map {name}"))),
    };
    created.map_err(|e| Failure {
        step: Step::Map,
        errno: e.raw_os_error(),
        detail: format!("creating map {name}"),
    })
}

/// Parses the object, sets its globals, creates its maps and relocates the programs.
pub(crate) fn prepare(sizes: &Sizes, globals: &Globals) -> Result<Prepared, Failure> {
    let mut object = Object::parse(&OBJECT.0).map_err(|e| object_failure(&e))?;
    let values: Vec<_> = globals.iter().map(|(n, v)| (*n, v.to_ne_bytes())).collect();
    object
        .patch_map_data(
            values
                .iter()
                .map(|(n, v)| (*n, (v.as_slice(), true)))
                .collect(),
        )
        .map_err(|e| object_failure(&e))?;

    let maps = std::mem::take(&mut object.maps);
    let mut fds = HashMap::new();
    for (name, map) in &maps {
        fds.insert(name.as_str(), create(name, map, sizes)?);
    }
    let text = object.functions.keys().map(|key| key.0).collect();
    object
        .relocate_maps(
            maps.iter()
                .map(|(name, map)| (name.as_str(), fds[name.as_str()].as_raw_fd(), map)),
            &text,
        )
        .and_then(|()| object.relocate_calls(&text))
        .map_err(|e| object_failure(&e))?;

    let mut take = |name: &str| {
        fds.remove(name)
            .ok_or_else(|| object_failure(&format!("no map {name}")))
    };
    let (cpus, samples, events) = (take(CPUS_MAP)?, take(SAMPLES_MAP)?, take(STALLS_MAP)?);
    let programs = object
        .programs
        .iter()
        .filter_map(|(name, program)| {
            let function = object.functions.get(&program.function_key())?;
            let insns = function.instructions.iter().flat_map(encode).collect();
            Some((name.clone(), insns))
        })
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
