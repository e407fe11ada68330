//! `struct bpf_link_info`: a common head and a union that depends on the link's type.

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::get_info;
use raw::{PerfProbe, RawLink};

mod raw;

/// Longest name asked for: a path. The kernel's own names are shorter.
const NAME_MAX: usize = 4096;

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
    let mut raw = RawLink::default();
    get_info(fd, &mut raw)?;
    let (kind, id, prog_id) = raw.head();
    let mut name = vec![0_u8; NAME_MAX];
    let (address, length) = (name.as_mut_ptr() as u64, NAME_MAX as u32);
    let named = match (kind, raw.part::<PerfProbe>().which) {
        (RAW_TRACEPOINT, _) => Some(RawLink::asking(raw::RawTracepoint {
            name: address,
            name_len: length,
        })),
        (ITER, _) => Some(RawLink::asking(raw::Iter {
            name: address,
            name_len: length,
        })),
        (PERF_EVENT, UPROBE..=TRACEPOINT) => Some(RawLink::asking(PerfProbe {
            name: address,
            name_len: length,
            ..PerfProbe::default()
        })),
        (UPROBE_MULTI, _) => Some(RawLink::asking(raw::UprobeMulti {
            path: address,
            path_size: length,
            ..Default::default()
        })),
        _ => None,
    };
    let mut known = 0;
    // Kernels that know the type but not its name take the request as larger than theirs.
    if let Some(mut named) = named
        && get_info(fd, &mut named).is_ok()
        && named.head() == (kind, id, prog_id)
    {
        known = name.iter().position(|&b| b == 0).unwrap_or(0);
        raw = named;
    }
    name.truncate(known);
    Ok(LinkInfo {
        id,
        kind,
        prog_id,
        detail: detail(&raw, name),
    })
}

/// `BPF_LINK_TYPE_*` (include/uapi/linux/bpf.h).
const RAW_TRACEPOINT: u32 = 1;
const TRACING: u32 = 2;
const CGROUP: u32 = 3;
const ITER: u32 = 4;
const NETNS: u32 = 5;
const XDP: u32 = 6;
const PERF_EVENT: u32 = 7;
const KPROBE_MULTI: u32 = 8;
const STRUCT_OPS: u32 = 9;
const NETFILTER: u32 = 10;
const TCX: u32 = 11;
const UPROBE_MULTI: u32 = 12;
const NETKIT: u32 = 13;
const SOCKMAP: u32 = 14;

/// `BPF_PERF_EVENT_*` (include/uapi/linux/bpf.h).
const UPROBE: u32 = 1;
const URETPROBE: u32 = 2;
const KPROBE: u32 = 3;
const KRETPROBE: u32 = 4;
const TRACEPOINT: u32 = 5;
const EVENT: u32 = 6;

/// `BPF_F_KPROBE_MULTI_RETURN` and `BPF_F_UPROBE_MULTI_RETURN`.
const MULTI_RETURN: u32 = 1;

fn detail(raw: &RawLink, name: Vec<u8>) -> LinkDetail {
    let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
    match raw.kind {
        RAW_TRACEPOINT => LinkDetail::RawTracepoint { name: text(name) },
        TRACING => {
            let raw::Tracing {
                attach_type,
                target_obj_id,
                target_btf_id,
            } = raw.part();
            LinkDetail::Tracing {
                attach_type,
                target_obj_id,
                target_btf_id,
            }
        }
        CGROUP => {
            let raw::Cgroup {
                cgroup_id,
                attach_type,
            } = raw.part();
            LinkDetail::Cgroup {
                cgroup_id,
                attach_type,
            }
        }
        ITER => LinkDetail::Iter { target: text(name) },
        NETNS => {
            let raw::Netns { ino, attach_type } = raw.part();
            LinkDetail::Netns { ino, attach_type }
        }
        PERF_EVENT => LinkDetail::PerfEvent(perf_event(raw, name)),
        KPROBE_MULTI => {
            let multi: raw::KprobeMulti = raw.part();
            LinkDetail::KprobeMulti {
                count: multi.count,
                ret: multi.flags & MULTI_RETURN != 0,
                missed: multi.missed,
            }
        }
        NETFILTER => {
            let filter: raw::Netfilter = raw.part();
            LinkDetail::Netfilter {
                pf: filter.pf,
                hook: filter.hook,
                priority: filter.priority,
            }
        }
        XDP | TCX | NETKIT => {
            let raw::Device {
                ifindex,
                attach_type,
            } = raw.part();
            match raw.kind {
                XDP => LinkDetail::Xdp { ifindex },
                TCX => LinkDetail::Tcx {
                    ifindex,
                    attach_type,
                },
                _ => LinkDetail::Netkit {
                    ifindex,
                    attach_type,
                },
            }
        }
        UPROBE_MULTI => {
            let multi: raw::UprobeMulti = raw.part();
            LinkDetail::UprobeMulti {
                file: path(name),
                count: multi.count,
                ret: multi.flags & MULTI_RETURN != 0,
                pid: multi.pid,
            }
        }
        STRUCT_OPS | SOCKMAP => {
            let raw::Map {
                map_id,
                attach_type,
            } = raw.part();
            match raw.kind {
                STRUCT_OPS => LinkDetail::StructOps { map_id },
                _ => LinkDetail::Sockmap {
                    map_id,
                    attach_type,
                },
            }
        }
        _ => LinkDetail::Other,
    }
}

fn perf_event(raw: &RawLink, name: Vec<u8>) -> PerfEvent {
    let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
    let probe: PerfProbe = raw.part();
    match probe.which {
        UPROBE | URETPROBE => PerfEvent::Uprobe {
            ret: probe.which == URETPROBE,
            file: path(name),
            offset: probe.offset,
        },
        KPROBE | KRETPROBE => PerfEvent::Kprobe {
            ret: probe.which == KRETPROBE,
            function: text(name),
            offset: probe.offset,
            addr: probe.addr,
            missed: probe.missed,
        },
        TRACEPOINT => PerfEvent::Tracepoint { name: text(name) },
        EVENT => {
            let event: raw::PerfEvent = raw.part();
            PerfEvent::Event {
                config: event.config,
                kind: event.kind,
            }
        }
        _ => PerfEvent::Unknown,
    }
}

fn path(name: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(name))
}

/// The kernel addresses a `kprobe_multi` link probes, at most `max` of them (6.6). Empty where
/// addresses may not be seen (`kernel.kptr_restrict`) or the link is of another type.
///
/// # Errors
/// The kernel's errno.
pub fn link_addresses(fd: BorrowedFd<'_>, max: usize) -> io::Result<Vec<u64>> {
    let mut raw = RawLink::default();
    get_info(fd, &mut raw)?;
    let count = raw.part::<raw::KprobeMulti>().count as usize;
    if raw.kind != KPROBE_MULTI || count == 0 || max == 0 {
        return Ok(Vec::new());
    }
    let mut addresses = vec![0_u64; count.min(max)];
    let mut again = RawLink::asking(raw::KprobeMulti {
        addrs: addresses.as_mut_ptr() as u64,
        count: addresses.len() as u32,
        ..Default::default()
    });
    match get_info(fd, &mut again) {
        Ok(_) => {}
        // There are more than asked for; those asked for are filled in.
        Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {}
        Err(e) => return Err(e),
    }
    addresses.retain(|&address| address != 0);
    Ok(addresses)
}
