//! The committed object: parsed, its globals set, its maps relocated.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya_obj::{EbpfSectionKind, Object};
use stalltop_wire::{CPU_SIZE, CPUS_MAP, offset};

use crate::btf::Btf;
use crate::programs::{Failure, Step};
use crate::sys::load;

/// The object as committed (`cargo xtask ebpf` rebuilds it), aligned as the ELF reader wants it.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/stalltop.bpf.o"));

#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

/// Programs ready to be loaded, and the map they write.
pub(crate) struct Prepared {
    pub(crate) license: CString,
    pub(crate) cpus: OwnedFd,
    /// Read-only globals; kept open until the programs that use them are loaded.
    pub(crate) _globals: Vec<OwnedFd>,
    /// Instructions by program name.
    pub(crate) programs: HashMap<String, Vec<u8>>,
}

/// Values of the object's read-only globals: field offsets of the running kernel.
pub(crate) type Globals = Vec<(&'static str, u64)>;

/// The field offsets `sched_switch` needs. Without the run-queue clock it still measures running
/// time; without `task_struct.pid` it cannot work at all.
pub(crate) fn offsets(btf: &Btf<'_>) -> Result<(Globals, Option<Failure>), Failure> {
    let failure = |e: crate::btf::Error| Failure {
        step: Step::Btf,
        errno: None,
        detail: e.to_string(),
    };
    let mut globals = vec![(
        offset::TASK_PID,
        btf.field("task_struct", "pid").map_err(failure)?,
    )];
    let clock = [
        (
            offset::TASK_LAST_QUEUED,
            "task_struct",
            "sched_info.last_queued",
        ),
        (offset::TASK_CFS_RQ, "task_struct", "se.cfs_rq"),
        (offset::CFS_RQ_RQ, "cfs_rq", "rq"),
        (offset::RQ_CLOCK, "rq", "clock"),
    ]
    .into_iter()
    .map(|(global, structure, path)| Ok((global, btf.field(structure, path)?)))
    .collect::<Result<Globals, _>>();
    let partial = match clock {
        Ok(clock) => {
            globals.extend(clock);
            None
        }
        Err(e) => Some(failure(e)),
    };
    Ok((globals, partial))
}

fn object_failure(e: &dyn std::fmt::Display) -> Failure {
    Failure {
        step: Step::Object,
        errno: None,
        detail: e.to_string(),
    }
}

/// Parses the object, creates its maps with one slot per possible CPU and relocates the programs.
pub(crate) fn prepare(possible_cpus: u32, globals: &Globals) -> Result<Prepared, Failure> {
    let map_failure = |name: &str, e: &std::io::Error| Failure {
        step: Step::Map,
        errno: e.raw_os_error(),
        detail: format!("creating map {name}"),
    };
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
        let fd = if name == CPUS_MAP {
            if map.value_size() as usize != CPU_SIZE {
                return Err(object_failure(
                    &"the object's slot size is not this program's",
                ));
            }
            load::create_array(name, CPU_SIZE as u32, possible_cpus, load::F_MMAPABLE)
        } else if map.section_kind() == EbpfSectionKind::Rodata {
            let data = map.data();
            load::create_array("stalltop_rodata", data.len() as u32, 1, load::F_RDONLY_PROG)
                .and_then(|fd| load::fill_and_freeze(fd.as_fd(), data).map(|()| fd))
        } else {
            return Err(object_failure(&format!("unexpected map {name}")));
        }
        .map_err(|e| map_failure(name, &e))?;
        fds.insert(name.as_str(), fd);
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

    let cpus = fds
        .remove(CPUS_MAP)
        .ok_or_else(|| object_failure(&"no map CPUS"))?;
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
