//! Creating maps, loading and attaching programs, and run-time statistics.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Cmd, Request, bpf, bpf_fd, object_name, run};

/// `BPF_MAP_TYPE_ARRAY`.
pub const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_PROG_ARRAY`.
const MAP_TYPE_PROG_ARRAY: u32 = 3;
/// `BPF_MAP_TYPE_RINGBUF`.
pub const MAP_TYPE_RINGBUF: u32 = 27;
/// `BPF_F_RDONLY_PROG`: programs may read the map, not write it.
pub const F_RDONLY_PROG: u32 = 1 << 7;
/// `BPF_F_MMAPABLE`: the map may be mapped into user space.
pub const F_MMAPABLE: u32 = 1 << 10;
/// `BPF_PROG_TYPE_PERF_EVENT`.
pub const PROG_TYPE_PERF_EVENT: u32 = 7;
/// `BPF_PROG_TYPE_RAW_TRACEPOINT`.
pub const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
/// `BPF_PROG_TYPE_TRACING`.
pub const PROG_TYPE_TRACING: u32 = 26;
/// `BPF_TRACE_RAW_TP`: the attach type of a `tp_btf` program.
pub const TRACE_RAW_TP: u32 = 23;
/// `BPF_TRACE_ITER`: the attach type of an iterator.
pub const TRACE_ITER: u32 = 28;

/// Bytes of one eBPF instruction (`struct bpf_insn`).
pub const INSN_SIZE: usize = 8;

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
struct MapFreeze {
    map_fd: u32,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    pad: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

#[repr(C)]
struct EnableStats {
    kind: u32,
}

// SAFETY: repr(C) without implicit padding; the callers below keep what the pointers point to.
unsafe impl Request for MapCreate {}
// SAFETY: as above.
unsafe impl Request for MapFreeze {}
// SAFETY: as above.
unsafe impl Request for ProgLoad {}
// SAFETY: as above.
unsafe impl Request for RawTracepointOpen {}
// SAFETY: as above.
unsafe impl Request for LinkCreate {}
// SAFETY: as above.
unsafe impl Request for IterCreate {}
// SAFETY: as above.
unsafe impl Request for EnableStats {}

/// Creates an array map of `entries` values of `value_size` bytes.
///
/// # Errors
/// `EPERM` without CAP_BPF (or CAP_SYS_ADMIN), `ENOMEM`, `EINVAL` for flags the kernel lacks.
pub fn create_array(name: &str, value_size: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    create_map(MAP_TYPE_ARRAY, name, (4, value_size), entries, flags)
}

/// Creates a ring buffer of so many bytes: a power of two and a multiple of the page size.
///
/// # Errors
/// As [`create_array`]; `EINVAL` before 5.8.
pub fn create_ringbuf(name: &str, bytes: u32) -> io::Result<OwnedFd> {
    create_map(MAP_TYPE_RINGBUF, name, (0, 0), bytes, 0)
}

/// Creates a table of programs to be called with `bpf_tail_call`.
///
/// # Errors
/// As [`create_array`].
pub fn create_program_array(name: &str, entries: u32) -> io::Result<OwnedFd> {
    create_map(MAP_TYPE_PROG_ARRAY, name, (4, 4), entries, 0)
}

/// `sizes` are those of a key and a value, bytes.
fn create_map(
    map_type: u32,
    name: &str,
    sizes: (u32, u32),
    entries: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let request = || MapCreate {
        map_type,
        key_size: sizes.0,
        value_size: sizes.1,
        max_entries: entries,
        map_flags: flags,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: object_name(name),
    };
    charged(|| bpf_fd(Cmd::MapCreate, &mut request()))
}

/// Kernels before 5.11 charge the memory of maps and programs to the user's RLIMIT_MEMLOCK, 64 KB
/// on many systems: where that is in the way the limit of this process is raised, for which
/// CAP_SYS_RESOURCE is needed.
fn charged(mut make: impl FnMut() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    make().or_else(|e| {
        if e.raw_os_error() == Some(libc::EPERM) && raise_memlock() {
            make()
        } else {
            Err(e)
        }
    })
}

/// Lifts this process's limit on locked memory. False where it was lifted already, or may not be.
fn raise_memlock() -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is large enough and lives.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0
        || limit.rlim_cur == libc::RLIM_INFINITY
    {
        return false;
    }
    limit.rlim_cur = libc::RLIM_INFINITY;
    limit.rlim_max = libc::RLIM_INFINITY;
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) == 0 }
}

/// Writes the whole value of entry 0 of an array map and freezes it, so that the verifier may take
/// what is in it as constants.
///
/// # Errors
/// The kernel's errno. `value` must be as long as the map's values.
pub fn fill_and_freeze(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    run::set(map, 0, value)?;
    let map_fd = map.as_raw_fd() as u32;
    bpf(Cmd::MapFreeze, &mut MapFreeze { map_fd })?;
    Ok(())
}

/// A program to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Name, cut to 15 bytes.
    pub name: &'a str,
    /// `BPF_PROG_TYPE_*`.
    pub kind: u32,
    /// `expected_attach_type`, 0 where the type has none.
    pub attach_type: u32,
    /// Type id in the kernel's BTF of what a tracing program attaches to, else 0.
    pub attach_btf_id: u32,
    /// Licence string.
    pub license: &'a CStr,
    /// The instructions, [`INSN_SIZE`] bytes each, maps relocated.
    pub insns: &'a [u8],
}

/// Loads a program. With `log` the verifier writes what it did there, also on failure.
///
/// # Errors
/// `EPERM` without CAP_BPF and CAP_PERFMON, `EINVAL` and others as the verifier has it.
pub fn load_program(program: &Program<'_>, log: Option<&mut [u8]>) -> io::Result<OwnedFd> {
    let (log_level, log_buf, log_size) = match log {
        Some(log) => (1, log.as_mut_ptr() as u64, log.len() as u32),
        None => (0, 0, 0),
    };
    let request = || ProgLoad {
        prog_type: program.kind,
        insn_cnt: (program.insns.len() / INSN_SIZE) as u32,
        insns: program.insns.as_ptr() as u64,
        license: program.license.as_ptr() as u64,
        log_level,
        log_size,
        log_buf,
        kern_version: 0,
        prog_flags: 0,
        prog_name: object_name(program.name),
        prog_ifindex: 0,
        expected_attach_type: program.attach_type,
        prog_btf_fd: 0,
        func_info_rec_size: 0,
        func_info: 0,
        func_info_cnt: 0,
        line_info_rec_size: 0,
        line_info: 0,
        line_info_cnt: 0,
        attach_btf_id: program.attach_btf_id,
    };
    charged(|| again(|| bpf_fd(Cmd::ProgLoad, &mut request())))
}

/// The verifier stops with `EAGAIN` where a signal is pending (`do_check`, kernel/bpf/verifier.c):
/// tried again as often as libbpf does (`PROG_LOAD_ATTEMPTS`, tools/lib/bpf/bpf.c).
fn again<T>(mut load: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const ATTEMPTS: u32 = 5;
    for _ in 1..ATTEMPTS {
        match load() {
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {}
            other => return other,
        }
    }
    load()
}

/// Attaches a program to a raw tracepoint by name, or, without a name, a `tp_btf` program to the
/// tracepoint it was loaded for. The link ends when the descriptor is closed.
///
/// # Errors
/// `ENOENT` where the kernel has no such tracepoint.
pub fn attach_raw_tracepoint(
    program: BorrowedFd<'_>,
    tracepoint: Option<&CStr>,
) -> io::Result<OwnedFd> {
    bpf_fd(
        Cmd::RawTracepointOpen,
        &mut RawTracepointOpen {
            name: tracepoint.map_or(0, |name| name.as_ptr() as u64),
            prog_fd: program.as_raw_fd() as u32,
            pad: 0,
        },
    )
}

/// Attaches an iterator program to what it was loaded for. Costs nothing until it is read through
/// [`iterate`].
///
/// # Errors
/// `EINVAL` for a program of another kind.
pub fn attach_iterator(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    bpf_fd(
        Cmd::LinkCreate,
        &mut LinkCreate {
            prog_fd: program.as_raw_fd() as u32,
            target_fd: 0,
            attach_type: TRACE_ITER,
            flags: 0,
        },
    )
}

/// A new round of an iterator: reading the descriptor runs the program for one object after the
/// other and gives what it writes.
///
/// # Errors
/// The kernel's errno.
pub fn iterate(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    bpf_fd(
        Cmd::IterCreate,
        &mut IterCreate {
            link_fd: link.as_raw_fd() as u32,
            flags: 0,
        },
    )
}

/// Switches the kernel's accounting of BPF run time on for as long as the descriptor is open
/// (`BPF_ENABLE_STATS`, 5.8): no sysctl is touched, and a crash leaves nothing behind.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn enable_run_time_stats() -> io::Result<OwnedFd> {
    // BPF_STATS_RUN_TIME is 0.
    bpf_fd(Cmd::EnableStats, &mut EnableStats { kind: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_that_a_signal_stopped_is_asked_again_but_not_for_ever() {
        let tries = |fails: u32, errno: i32| {
            let mut n = 0;
            let loaded = again(|| {
                n += 1;
                match n > fails {
                    true => Ok(()),
                    false => Err(io::Error::from_raw_os_error(errno)),
                }
            });
            (n, loaded.is_ok())
        };
        assert_eq!(tries(0, libc::EAGAIN), (1, true));
        assert_eq!(tries(4, libc::EAGAIN), (5, true));
        assert_eq!(tries(9, libc::EAGAIN), (5, false));
        assert_eq!(tries(1, libc::EPERM), (1, false));
    }
}
