//! What the kernel says of a program, a map, a link (`BPF_OBJ_GET_INFO_BY_FD`).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Cmd, Request, bpf};

mod link;

pub use link::{LinkDetail, LinkInfo, PerfEvent, link, link_addresses};

#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

// SAFETY: repr(C) without implicit padding; `info` points to `info_len` bytes of the caller.
unsafe impl Request for GetInfo {}

/// Structures that the kernel may fill.
///
/// # Safety
/// `repr(C)`, integers only: any bytes are a value of the type. Pointers in it that are not zero
/// point to as much memory as the count beside them says.
unsafe trait Info {}

/// Has the kernel fill `out` with what it knows, and says how many bytes that was.
fn get_info<T: Info>(fd: BorrowedFd<'_>, out: &mut T) -> io::Result<usize> {
    let mut request = GetInfo {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: size_of::<T>() as u32,
        info: std::ptr::from_mut(out) as u64,
    };
    bpf(Cmd::ObjGetInfoByFd, &mut request)?;
    Ok(request.info_len as usize)
}

/// `struct bpf_prog_info`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct RawProgram {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
    ifindex: u32,
    gpl_compatible: u32,
    netns_dev: u64,
    netns_ino: u64,
    nr_jited_ksyms: u32,
    nr_jited_func_lens: u32,
    jited_ksyms: u64,
    jited_func_lens: u64,
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    line_info: u64,
    jited_line_info: u64,
    nr_jited_line_info: u32,
    line_info_rec_size: u32,
    jited_line_info_rec_size: u32,
    nr_prog_tags: u32,
    prog_tags: u64,
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    verified_insns: u32,
    attach_btf_obj_id: u32,
    attach_btf_id: u32,
    pad: u32,
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<RawProgram>() == 232);
    assert!(offset_of!(RawProgram, load_time) == 40);
    assert!(offset_of!(RawProgram, name) == 64);
    assert!(offset_of!(RawProgram, nr_jited_ksyms) == 104);
    assert!(offset_of!(RawProgram, run_time_ns) == 192);
    assert!(offset_of!(RawProgram, attach_btf_id) == 224);
};

// SAFETY: repr(C), integers; the callers set pointers and counts together.
unsafe impl Info for RawProgram {}

impl RawProgram {
    /// `recursion_misses`, if the `known` bytes that the kernel filled reach that far.
    fn misses(&self, known: usize) -> Option<u64> {
        (known >= std::mem::offset_of!(RawProgram, verified_insns)).then_some(self.recursion_misses)
    }
}

/// What the kernel says of a loaded program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its id.
    pub id: u32,
    /// `BPF_PROG_TYPE_*`; name it with [`names::program_type`](super::names::program_type).
    pub kind: u32,
    /// Name as loaded, at most 15 bytes; may be empty.
    pub name: String,
    /// Hash of its instructions; not unique.
    pub tag: [u8; 8],
    /// When it was loaded, nanoseconds since boot (CLOCK_BOOTTIME).
    pub load_time_ns: u64,
    /// User id of the loader.
    pub uid: u32,
    /// Ids of the maps it uses.
    pub map_ids: Vec<u32>,
    /// Network device it is offloaded to; 0 for none.
    pub ifindex: u32,
    /// Id of its own BTF; 0 for none.
    pub btf_id: u32,
    /// BTF object (id) of what a tracing program is attached to; 0 for none or before 5.18.
    pub attach_btf_obj_id: u32,
    /// Type id therein of the function or tracepoint; 0 for none or before 5.18.
    pub attach_btf_id: u32,
    /// Time it ran while statistics were on, nanoseconds.
    pub run_time_ns: u64,
    /// Runs while statistics were on.
    pub run_cnt: u64,
    /// Runs left out because the program was already running on that CPU; `None` before 5.12.
    pub recursion_misses: Option<u64>,
    /// Functions of its machine code; 0 where it is interpreted or may not be seen.
    pub jited_ksyms: u32,
    /// Bytes of machine code; 0 where it is interpreted.
    pub jited_len: u32,
}

/// What the kernel says of a program.
///
/// # Errors
/// The kernel's errno.
pub fn program(fd: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let mut raw = RawProgram::default();
    get_info(fd, &mut raw)?;
    // Ids are asked for in a second call, once their number is known. Programs can bind further
    // maps in between (BPF_PROG_BIND_MAP): no more than asked for are filled in.
    let mut map_ids = vec![0_u32; raw.nr_map_ids as usize];
    let mut again = RawProgram {
        nr_map_ids: raw.nr_map_ids,
        map_ids: if map_ids.is_empty() {
            0
        } else {
            map_ids.as_mut_ptr() as u64
        },
        ..RawProgram::default()
    };
    let known = get_info(fd, &mut again)?;
    map_ids.truncate(again.nr_map_ids as usize);
    Ok(ProgramInfo {
        id: again.id,
        kind: again.kind,
        name: fixed_name(&again.name),
        tag: again.tag,
        load_time_ns: again.load_time,
        uid: again.created_by_uid,
        map_ids,
        ifindex: again.ifindex,
        btf_id: again.btf_id,
        attach_btf_obj_id: again.attach_btf_obj_id,
        attach_btf_id: again.attach_btf_id,
        run_time_ns: again.run_time_ns,
        run_cnt: again.run_cnt,
        recursion_misses: again.misses(known),
        jited_ksyms: again.nr_jited_ksyms,
        jited_len: again.jited_prog_len,
    })
}

/// Where the functions of a program lie in the kernel once they are compiled, with their lengths in
/// bytes: `jited_ksyms` and `jited_func_lens`. Empty where it is interpreted, or where addresses
/// are hidden (`bpf_dump_raw_ok`, kernel/bpf/syscall.c).
///
/// # Errors
/// The kernel's errno.
pub fn program_code(fd: BorrowedFd<'_>) -> io::Result<Vec<(u64, u32)>> {
    let mut raw = RawProgram::default();
    get_info(fd, &mut raw)?;
    let functions = raw.nr_jited_ksyms.min(raw.nr_jited_func_lens);
    let mut addresses = vec![0_u64; functions as usize];
    let mut lengths = vec![0_u32; functions as usize];
    let mut again = RawProgram {
        nr_jited_ksyms: functions,
        nr_jited_func_lens: functions,
        jited_ksyms: addresses.as_mut_ptr() as u64,
        jited_func_lens: lengths.as_mut_ptr() as u64,
        ..RawProgram::default()
    };
    get_info(fd, &mut again)?;
    let code = addresses.into_iter().zip(lengths);
    Ok(code.filter(|(address, _)| *address != 0).collect())
}

/// The kernel's id of a program.
///
/// # Errors
/// The kernel's errno.
pub fn program_id(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut raw = RawProgram::default();
    get_info(fd, &mut raw)?;
    Ok(raw.id)
}

/// What a program has done so far, and what tells it from another of the same id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCounters {
    /// Its id.
    pub id: u32,
    /// When it was loaded, nanoseconds since boot.
    pub load_time_ns: u64,
    /// Hash of its instructions.
    pub tag: [u8; 8],
    /// How many maps it uses.
    pub maps: u32,
    /// Time it ran while statistics were on, nanoseconds.
    pub run_time_ns: u64,
    /// Runs while statistics were on.
    pub run_cnt: u64,
    /// Runs left out because the program was already running on that CPU, counted always; `None`
    /// before 5.12.
    pub recursion_misses: Option<u64>,
}

/// How often and how long a program ran; one system call, and allocates nothing.
///
/// # Errors
/// The kernel's errno.
pub fn program_counters(fd: BorrowedFd<'_>) -> io::Result<ProgramCounters> {
    let mut raw = RawProgram::default();
    let known = get_info(fd, &mut raw)?;
    Ok(ProgramCounters {
        id: raw.id,
        load_time_ns: raw.load_time,
        tag: raw.tag,
        maps: raw.nr_map_ids,
        run_time_ns: raw.run_time_ns,
        run_cnt: raw.run_cnt,
        recursion_misses: raw.misses(known),
    })
}

/// `struct bpf_map_info`, as far as it is used here.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct RawMap {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: [u8; 16],
    ifindex: u32,
    btf_vmlinux_value_type_id: u32,
}

// SAFETY: repr(C), integers, no pointers.
unsafe impl Info for RawMap {}

/// What the kernel says of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapInfo {
    /// Its id.
    pub id: u32,
    /// `BPF_MAP_TYPE_*`; name it with [`names::map_type`](super::names::map_type).
    pub kind: u32,
    /// Name as created, at most 15 bytes; may be empty.
    pub name: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many entries it can hold.
    pub max_entries: u32,
    /// `BPF_F_*` it was created with.
    pub flags: u32,
    /// Type in the kernel's BTF of its values, for `struct_ops`; else 0.
    pub kernel_value_type: u32,
}

/// What the kernel says of a map.
///
/// # Errors
/// The kernel's errno.
pub fn map(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut raw = RawMap::default();
    get_info(fd, &mut raw)?;
    Ok(MapInfo {
        id: raw.id,
        kind: raw.kind,
        name: fixed_name(&raw.name),
        key_size: raw.key_size,
        value_size: raw.value_size,
        max_entries: raw.max_entries,
        flags: raw.map_flags,
        kernel_value_type: raw.btf_vmlinux_value_type_id,
    })
}

/// `struct bpf_btf_info`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct RawBtf {
    btf: u64,
    btf_size: u32,
    id: u32,
    name: u64,
    name_len: u32,
    kernel_btf: u32,
}

// SAFETY: repr(C), integers; the caller sets `name` and `name_len` together, `btf` stays zero.
unsafe impl Info for RawBtf {}

/// Whether a BTF object describes the kernel itself (`vmlinux`), not a module or a program.
/// Before 5.11 the kernel does not say, and this is `false`.
///
/// # Errors
/// The kernel's errno.
pub fn is_vmlinux_btf(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut name = [0_u8; 64];
    let mut raw = RawBtf {
        name: name.as_mut_ptr() as u64,
        name_len: name.len() as u32,
        ..RawBtf::default()
    };
    get_info(fd, &mut raw)?;
    Ok(raw.kernel_btf != 0 && name.starts_with(b"vmlinux\0"))
}

/// A name in the kernel's fixed 16 bytes.
fn fixed_name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
