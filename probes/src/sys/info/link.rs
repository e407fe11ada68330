//! `struct bpf_link_info`: a common head and a union that depends on the link's type.

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::{Info, get_info};

/// Longest name asked for: a path. The kernel's own names are shorter.
const NAME_MAX: usize = 4096;

/// The head is `type`, `id`, `prog_id`; the union starts at byte 16. Kept as bytes, because what
/// is where depends on the type; larger than any kernel's structure so far.
#[repr(C, align(8))]
struct RawLink([u8; 128]);

// SAFETY: bytes only; pointers are put in together with the length of their buffer.
unsafe impl Info for RawLink {}

impl RawLink {
    fn u32(&self, at: usize) -> u32 {
        let b = &self.0[at..at + 4];
        u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
    }

    fn u64(&self, at: usize) -> u64 {
        let b = &self.0[at..at + 8];
        u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
    }

    fn set(&mut self, at: usize, value: &[u8]) {
        self.0[at..at + value.len()].copy_from_slice(value);
    }
}

/// What a perf event carries that a program is attached to (6.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerfEvent {
    /// A kernel before 6.6, which does not say: ask
    /// [`task_fd`](crate::sys::query::task_fd) about the holder's perf event descriptor.
    Unknown,
    /// A probe in a user space file.
    Uprobe {
        /// Probes the return.
        ret: bool,
        /// The file probed.
        file: PathBuf,
        /// Offset in the file, bytes.
        offset: u32,
    },
    /// A probe in the kernel.
    Kprobe {
        /// Probes the return.
        ret: bool,
        /// The function; empty where it was set by address.
        function: String,
        /// Offset in the function, bytes.
        offset: u32,
        /// The address; 0 where addresses may not be seen.
        addr: u64,
        /// Hits left out (6.7, else 0).
        missed: u64,
    },
    /// A static tracepoint.
    Tracepoint {
        /// Its name, without the subsystem.
        name: String,
    },
    /// A counter or a sampling event.
    Event {
        /// `PERF_TYPE_*`.
        kind: u32,
        /// What of that type.
        config: u64,
    },
}

/// What a link attaches its program to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkDetail {
    /// A raw tracepoint.
    RawTracepoint {
        /// Its name, without the subsystem.
        name: String,
    },
    /// fentry, fexit, `tp_btf`, a BPF program.
    Tracing {
        /// `BPF_TRACE_*`; name it with [`names::attach_type`](crate::sys::names::attach_type).
        attach_type: u32,
        /// BTF object (id) of the target, or the program it extends; 0 before 5.13.
        target_obj_id: u32,
        /// Type id of the target therein; 0 before 5.13.
        target_btf_id: u32,
    },
    /// A cgroup.
    Cgroup {
        /// Id of the cgroup: its directory's inode number.
        cgroup_id: u64,
        /// What of it.
        attach_type: u32,
    },
    /// A BPF iterator.
    Iter {
        /// What it walks: `task_file`.
        target: String,
    },
    /// A network namespace.
    Netns {
        /// Its inode number.
        ino: u32,
        /// What of it.
        attach_type: u32,
    },
    /// XDP on a network device.
    Xdp {
        /// The device.
        ifindex: u32,
    },
    /// A perf event: kprobe, uprobe, tracepoint, counter.
    PerfEvent(PerfEvent),
    /// Many kernel functions at once.
    KprobeMulti {
        /// How many; 0 before 6.6. [`link_addresses`] has which.
        count: u32,
        /// Probes the return.
        ret: bool,
        /// Hits left out (6.7, else 0).
        missed: u64,
    },
    /// A `struct_ops` map.
    StructOps {
        /// The map.
        map_id: u32,
    },
    /// A netfilter hook.
    Netfilter {
        /// Protocol family.
        pf: u32,
        /// Hook number.
        hook: u32,
        /// Order among the hook's functions.
        priority: i32,
    },
    /// tc's successor on a network device.
    Tcx {
        /// The device.
        ifindex: u32,
        /// Ingress or egress.
        attach_type: u32,
    },
    /// Many places of a user space file at once.
    UprobeMulti {
        /// The file; empty before 6.8.
        file: PathBuf,
        /// How many places.
        count: u32,
        /// Probes the return.
        ret: bool,
        /// Only in this process; 0 for all.
        pid: u32,
    },
    /// A netkit device.
    Netkit {
        /// The device.
        ifindex: u32,
        /// Primary or peer.
        attach_type: u32,
    },
    /// A socket map.
    Sockmap {
        /// The map.
        map_id: u32,
        /// What of it.
        attach_type: u32,
    },
    /// A type of link newer than this program.
    Other,
}

/// What the kernel says of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its id.
    pub id: u32,
    /// `BPF_LINK_TYPE_*`; name it with [`names::link_type`](crate::sys::names::link_type).
    pub kind: u32,
    /// The program it attaches.
    pub prog_id: u32,
    /// To what.
    pub detail: LinkDetail,
}

/// What the kernel says of a link.
///
/// # Errors
/// The kernel's errno. A name that cannot be had (its place vanished) reads as empty.
pub fn link(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut raw = RawLink([0; 128]);
    get_info(fd, &mut raw)?;
    let head = |raw: &RawLink| (raw.u32(0), raw.u32(4), raw.u32(8));
    let (kind, id, prog_id) = head(&raw);
    // Where the name's pointer and the length of its buffer are, by type.
    let name_at = match (kind, raw.u32(16)) {
        (1 | 4, _) => Some((16, 24)),
        (7, 1..=5) => Some((24, 32)),
        (12, _) => Some((16, 48)),
        _ => None,
    };
    let mut name = Vec::new();
    if let Some((pointer, length)) = name_at {
        let mut buffer = vec![0_u8; NAME_MAX];
        let mut again = RawLink([0; 128]);
        again.set(pointer, &(buffer.as_mut_ptr() as u64).to_ne_bytes());
        again.set(length, &(NAME_MAX as u32).to_ne_bytes());
        // Kernels that know the type but not its name take the request as larger than theirs.
        if get_info(fd, &mut again).is_ok() && head(&again) == (kind, id, prog_id) {
            let end = buffer.iter().position(|&b| b == 0).unwrap_or(0);
            buffer.truncate(end);
            name = buffer;
            raw = again;
        }
    }
    Ok(LinkInfo {
        id,
        kind,
        prog_id,
        detail: detail(kind, &raw, name),
    })
}

fn detail(kind: u32, raw: &RawLink, name: Vec<u8>) -> LinkDetail {
    let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
    let path = |name: Vec<u8>| PathBuf::from(OsString::from_vec(name));
    match kind {
        1 => LinkDetail::RawTracepoint { name: text(name) },
        2 => LinkDetail::Tracing {
            attach_type: raw.u32(16),
            target_obj_id: raw.u32(20),
            target_btf_id: raw.u32(24),
        },
        3 => LinkDetail::Cgroup {
            cgroup_id: raw.u64(16),
            attach_type: raw.u32(24),
        },
        4 => LinkDetail::Iter { target: text(name) },
        5 => LinkDetail::Netns {
            ino: raw.u32(16),
            attach_type: raw.u32(20),
        },
        6 => LinkDetail::Xdp {
            ifindex: raw.u32(16),
        },
        7 => LinkDetail::PerfEvent(match raw.u32(16) {
            which @ (1 | 2) => PerfEvent::Uprobe {
                ret: which == 2,
                file: path(name),
                offset: raw.u32(36),
            },
            which @ (3 | 4) => PerfEvent::Kprobe {
                ret: which == 4,
                function: text(name),
                offset: raw.u32(36),
                addr: raw.u64(40),
                missed: raw.u64(48),
            },
            5 => PerfEvent::Tracepoint { name: text(name) },
            6 => PerfEvent::Event {
                config: raw.u64(24),
                kind: raw.u32(32),
            },
            _ => PerfEvent::Unknown,
        }),
        8 => LinkDetail::KprobeMulti {
            count: raw.u32(24),
            ret: raw.u32(28) & 1 != 0,
            missed: raw.u64(32),
        },
        9 => LinkDetail::StructOps {
            map_id: raw.u32(16),
        },
        10 => LinkDetail::Netfilter {
            pf: raw.u32(16),
            hook: raw.u32(20),
            priority: raw.u32(24) as i32,
        },
        11 => LinkDetail::Tcx {
            ifindex: raw.u32(16),
            attach_type: raw.u32(20),
        },
        12 => LinkDetail::UprobeMulti {
            file: path(name),
            count: raw.u32(52),
            ret: raw.u32(56) & 1 != 0,
            pid: raw.u32(60),
        },
        13 => LinkDetail::Netkit {
            ifindex: raw.u32(16),
            attach_type: raw.u32(20),
        },
        14 => LinkDetail::Sockmap {
            map_id: raw.u32(16),
            attach_type: raw.u32(20),
        },
        _ => LinkDetail::Other,
    }
}

/// The kernel addresses a `kprobe_multi` link probes, at most `max` of them (6.6). Empty where
/// addresses may not be seen (`kernel.kptr_restrict`) or the link is of another type.
///
/// # Errors
/// The kernel's errno.
pub fn link_addresses(fd: BorrowedFd<'_>, max: usize) -> io::Result<Vec<u64>> {
    let mut raw = RawLink([0; 128]);
    get_info(fd, &mut raw)?;
    let count = raw.u32(24) as usize;
    if raw.u32(0) != 8 || count == 0 || max == 0 {
        return Ok(Vec::new());
    }
    let mut addresses = vec![0_u64; count.min(max)];
    let mut again = RawLink([0; 128]);
    again.set(16, &(addresses.as_mut_ptr() as u64).to_ne_bytes());
    again.set(24, &(addresses.len() as u32).to_ne_bytes());
    match get_info(fd, &mut again) {
        Ok(_) => {}
        // There are more than asked for; those asked for are filled in.
        Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {}
        Err(e) => return Err(e),
    }
    addresses.retain(|&address| address != 0);
    Ok(addresses)
}
