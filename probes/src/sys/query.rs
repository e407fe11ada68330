//! What is attached where: perf event descriptors of processes (`BPF_TASK_FD_QUERY`), and
//! cgroups, network namespaces and devices (`BPF_PROG_QUERY`).

use std::io;

use super::{Cmd, Request, bpf};

/// Longest name asked for.
const NAME_MAX: usize = 4096;

#[repr(C)]
struct TaskFdQuery {
    pid: u32,
    fd: u32,
    flags: u32,
    buf_len: u32,
    buf: u64,
    prog_id: u32,
    fd_type: u32,
    probe_offset: u64,
    probe_addr: u64,
}

/// `query` of `union bpf_attr` up to and with `revision`, which kernels write whatever size they are
/// given: of devices since 6.6 (`bpf_mprog_query`, kernel/bpf/mprog.c), of cgroups since 6.17
/// (`__cgroup_bpf_query`, kernel/bpf/cgroup.c). A shorter one has what is behind it overwritten.
/// Kernels that know less of it take it where the rest is zero.
#[repr(C)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

const _: () = assert!(size_of::<ProgQuery>() == 64);

// SAFETY: repr(C) without implicit padding; `buf` points to `buf_len` bytes.
unsafe impl Request for TaskFdQuery {}
// SAFETY: as above; `prog_ids` points to `prog_cnt` ids.
unsafe impl Request for ProgQuery {}

/// What a descriptor's program is attached to: `enum bpf_task_fd_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdType {
    /// A raw tracepoint.
    RawTracepoint,
    /// A static tracepoint.
    Tracepoint,
    /// A kernel function's entry, or a place in it.
    Kprobe,
    /// A kernel function's return.
    Kretprobe,
    /// A place in a user space file.
    Uprobe,
    /// A user space function's return.
    Uretprobe,
}

/// What a process's descriptor carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFd {
    /// The program.
    pub prog_id: u32,
    /// What it is attached to.
    pub fd_type: FdType,
    /// Tracepoint, function or file; empty where it was set by address.
    pub name: Vec<u8>,
    /// Offset in the function or file, bytes.
    pub offset: u64,
    /// Kernel address; 0 where addresses may not be seen.
    pub addr: u64,
}

/// What descriptor `fd` of process `pid` carries; `None` when it is no perf event or raw
/// tracepoint with a BPF program, or is gone.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN; other errors of the kernel.
pub fn task_fd(pid: u32, fd: u32) -> io::Result<Option<TaskFd>> {
    /// The kernel's own ENOTSUPP, which is no errno of user space (include/linux/errno.h).
    const ENOTSUPP: i32 = 524;
    let mut buffer = vec![0_u8; NAME_MAX];
    let mut request = TaskFdQuery {
        pid,
        fd,
        flags: 0,
        buf_len: NAME_MAX as u32,
        buf: buffer.as_mut_ptr() as u64,
        prog_id: 0,
        fd_type: 0,
        probe_offset: 0,
        probe_addr: 0,
    };
    if let Err(e) = bpf(Cmd::TaskFdQuery, &mut request) {
        return match e.raw_os_error() {
            Some(libc::ENOENT | libc::EBADF | libc::EOPNOTSUPP | libc::ESRCH | ENOTSUPP) => {
                Ok(None)
            }
            _ => Err(e),
        };
    }
    let fd_type = match request.fd_type {
        0 => FdType::RawTracepoint,
        1 => FdType::Tracepoint,
        2 => FdType::Kprobe,
        3 => FdType::Kretprobe,
        4 => FdType::Uprobe,
        5 => FdType::Uretprobe,
        _ => return Ok(None),
    };
    buffer.truncate(buffer.iter().position(|&b| b == 0).unwrap_or(0));
    Ok(Some(TaskFd {
        prog_id: request.prog_id,
        fd_type,
        name: buffer,
        offset: request.probe_offset,
        addr: request.probe_addr,
    }))
}

/// Ids of the programs attached to a target, into `out` (cleared first), in the order of running.
///
/// `target` is a descriptor of a cgroup directory or a network namespace file, or the index of a
/// network device, as the attach type wants it: see
/// [`CGROUP_ATTACH_TYPES`](super::names::CGROUP_ATTACH_TYPES) and its neighbours. Programs of
/// ancestors are not among them.
///
/// # Errors
/// `EINVAL` where the kernel does not know the attach type: normal on older ones.
pub fn attached(target: u32, attach_type: u32, out: &mut Vec<u32>) -> io::Result<()> {
    out.clear();
    loop {
        let room = out.capacity().max(64);
        out.resize(room, 0);
        let mut request = ProgQuery {
            target,
            attach_type,
            query_flags: 0,
            attach_flags: 0,
            prog_ids: out.as_mut_ptr() as u64,
            prog_cnt: room as u32,
            pad: 0,
            prog_attach_flags: 0,
            link_ids: 0,
            link_attach_flags: 0,
            revision: 0,
        };
        match bpf(Cmd::ProgQuery, &mut request) {
            Ok(_) => {
                out.truncate(request.prog_cnt as usize);
                return Ok(());
            }
            // The kernel says how many there are; more may come before the next try.
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                out.clear();
                out.reserve((request.prog_cnt as usize).max(room * 2));
            }
            Err(e) => {
                out.clear();
                return Err(e);
            }
        }
    }
}
