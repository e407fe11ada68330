//! Walking the ids of everything BPF that is loaded on the host.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use super::{Cmd, Request, bpf, bpf_fd};

/// What has ids of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// Programs (ids since 4.13).
    Program,
    /// Maps (4.13).
    Map,
    /// Links (5.8).
    Link,
    /// BTF objects (5.4).
    Btf,
}

#[repr(C)]
struct GetId {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

// SAFETY: repr(C) without padding and without pointers.
unsafe impl Request for GetId {}

/// The lowest id above `after`; `None` when there is none. Start with 0.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` where the kernel has no such ids.
pub fn next(object: Object, after: u32) -> io::Result<Option<u32>> {
    let cmd = match object {
        Object::Program => Cmd::ProgGetNextId,
        Object::Map => Cmd::MapGetNextId,
        Object::Link => Cmd::LinkGetNextId,
        Object::Btf => Cmd::BtfGetNextId,
    };
    let mut request = GetId {
        id: after,
        next_id: 0,
        open_flags: 0,
    };
    match bpf(cmd, &mut request) {
        Ok(_) => Ok(Some(request.next_id)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Every id of a kind into `out` (cleared first), ascending. Allocates nothing once `out` has
/// grown: cheap enough to see each tick whether anything came or went.
///
/// # Errors
/// As [`next`].
pub fn all(object: Object, out: &mut Vec<u32>) -> io::Result<()> {
    out.clear();
    let mut last = 0;
    while let Some(id) = next(object, last)? {
        out.push(id);
        last = id;
    }
    Ok(())
}

/// A descriptor for an id. The object cannot go away while it is open.
///
/// # Errors
/// `ENOENT` when it is gone since the id was listed: normal.
pub fn open(object: Object, id: u32) -> io::Result<OwnedFd> {
    /// `BPF_F_RDONLY`: reading is all we do, and a frozen or write-only map allows no more.
    const F_RDONLY: u32 = 1 << 3;
    let (cmd, open_flags) = match object {
        Object::Program => (Cmd::ProgGetFdById, 0),
        Object::Map => (Cmd::MapGetFdById, F_RDONLY),
        Object::Link => (Cmd::LinkGetFdById, 0),
        Object::Btf => (Cmd::BtfGetFdById, 0),
    };
    bpf_fd(
        cmd,
        &mut GetId {
            id,
            next_id: 0,
            open_flags,
        },
    )
}

#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

// SAFETY: repr(C) without padding; `pathname` points to a string that outlives the call.
unsafe impl Request for ObjGet {}

/// A descriptor for what is pinned at a path of a bpffs: a program, a map or a link.
/// Programs and links are only given out for reading and writing, whatever is done with them.
///
/// # Errors
/// `EACCES` where the path is no pin or may not be opened, `ENOENT` when it is gone.
pub fn pinned(path: &CStr) -> io::Result<OwnedFd> {
    bpf_fd(
        Cmd::ObjGet,
        &mut ObjGet {
            pathname: path.as_ptr() as u64,
            bpf_fd: 0,
            file_flags: 0,
        },
    )
}
