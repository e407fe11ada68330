//! bpf(2), raw: what is loaded on this host and where it is attached, and loading our own object.
//!
//! The structures are our own `repr(C)` copies of include/uapi/linux/bpf.h. Sizes are negotiated
//! the way the kernel does it (`bpf_check_uarg_tail_zero`, kernel/bpf/syscall.c): a request larger
//! than the kernel knows is accepted as long as the surplus is zero, and the kernel fills no more
//! of an answer than it knows and says how much that was. So one build works on older and newer
//! kernels, and fields an older kernel does not have read as zero.
//!
//! - [`ids`]: walk the ids of programs, maps, links and BTF objects, open them.
//! - [`info`]: what the kernel says of a program, a map, a link.
//! - [`query`]: what a process's perf event descriptor carries; what is attached to a cgroup, a
//!   network device or a network namespace.
//! - [`names`]: names of program, map, link and attach types, as bpftool prints them.
//! - [`load`]: create maps, load and attach programs, run-time statistics.
//! - [`perf`]: perf events that run a program.
//! - [`run`]: run a program once, read and write single values of array maps.
#![expect(unsafe_code, reason = "system calls that libc has no wrapper for")]

use std::io;
use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};

pub mod ids;
pub mod info;
pub mod load;
pub(crate) mod mapping;
pub mod names;
pub mod perf;
pub mod query;
pub(crate) mod ringbuf;
pub mod run;

/// Commands of bpf(2): `enum bpf_cmd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Cmd {
    MapCreate = 0,
    MapLookupElem = 1,
    MapUpdateElem = 2,
    ProgLoad = 5,
    ObjGet = 7,
    ProgTestRun = 10,
    ProgGetNextId = 11,
    MapGetNextId = 12,
    ProgGetFdById = 13,
    MapGetFdById = 14,
    ObjGetInfoByFd = 15,
    ProgQuery = 16,
    RawTracepointOpen = 17,
    BtfGetFdById = 19,
    TaskFdQuery = 20,
    MapFreeze = 22,
    BtfGetNextId = 23,
    LinkCreate = 28,
    LinkGetFdById = 30,
    LinkGetNextId = 31,
    EnableStats = 32,
    IterCreate = 33,
}

/// Marks structures that may be passed to bpf(2) as a request.
///
/// # Safety
/// `repr(C)`, no padding that is not a named field, and every pointer field in it stays valid for
/// as long as the structure is passed to [`bpf`].
pub(crate) unsafe trait Request {}

/// Calls bpf(2).
///
/// # Errors
/// The kernel's errno.
pub(crate) fn bpf<R: Request>(cmd: Cmd, request: &mut R) -> io::Result<i32> {
    // SAFETY: `request` is a live structure of the given size, and its pointers are valid by the
    // contract of `Request`.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            cmd as libc::c_long,
            std::ptr::from_mut(request),
            size_of::<R>(),
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(rc as i32)
}

/// Calls bpf(2) with a command that returns a descriptor.
///
/// # Errors
/// The kernel's errno.
pub(crate) fn bpf_fd<R: Request>(cmd: Cmd, request: &mut R) -> io::Result<OwnedFd> {
    let fd = bpf(cmd, request)?;
    // SAFETY: the command returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A name in the kernel's fixed 16 bytes, cut where it is too long.
pub(crate) fn object_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    let n = name.len().min(15);
    out[..n].copy_from_slice(&name.as_bytes()[..n]);
    out
}

/// CLOCK_MONOTONIC, as `bpf_ktime_get_ns` has it, ns.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is large enough and lives.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
