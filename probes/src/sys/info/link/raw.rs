//! `struct bpf_link_info` as the kernel lays it out (include/uapi/linux/bpf.h, 6.18): a head, and a
//! union of one structure for each type of link.

use std::mem::offset_of;
use std::ptr;

use super::super::Info;

/// Words of the union: more than any kernel's has so far.
const WORDS: usize = 14;

/// The head, and the union as words.
#[repr(C)]
#[derive(Default)]
pub(super) struct RawLink {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) prog_id: u32,
    pad: u32,
    part: [u64; WORDS],
}

// SAFETY: repr(C), integers; whoever puts a pointer in sets the length of its buffer with it.
unsafe impl Info for RawLink {}

/// One structure of the union.
///
/// # Safety
/// `repr(C)`, integers only: any bytes are a value of the type.
pub(super) unsafe trait Part: Copy {}

impl RawLink {
    /// A request with what the kernel is to read of it: pointers and lengths.
    pub(super) fn asking<T: Part>(part: T) -> Self {
        const { assert!(size_of::<T>() <= WORDS * 8 && align_of::<T>() <= 8) };
        let mut this = Self::default();
        // SAFETY: it has room for a `T`, as asserted, and any bytes are words.
        unsafe { ptr::from_mut(&mut this.part).cast::<T>().write(part) };
        this
    }

    /// The union's structure of the link's type.
    pub(super) fn part<T: Part>(&self) -> T {
        const { assert!(size_of::<T>() <= WORDS * 8 && align_of::<T>() <= 8) };
        // SAFETY: a `T` is no larger than the words and not aligned to more, as asserted, and any
        // bytes are one.
        unsafe { ptr::from_ref(&self.part).cast::<T>().read() }
    }

    /// Type, link and program.
    pub(super) fn head(&self) -> (u32, u32, u32) {
        (self.kind, self.id, self.prog_id)
    }
}

/// Declares structures of the union, all fields of which are integers.
macro_rules! parts {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ident),* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Default)]
        pub(super) struct $name {
            $(pub(super) $field: $type,)*
        }

        // SAFETY: repr(C) and integers only, as the macro's fields are.
        unsafe impl Part for $name {}
    )*};
}

parts! {
    /// `raw_tracepoint`.
    RawTracepoint { name: u64, name_len: u32 }
    /// `tracing`.
    Tracing { attach_type: u32, target_obj_id: u32, target_btf_id: u32 }
    /// `cgroup`.
    Cgroup { cgroup_id: u64, attach_type: u32 }
    /// `iter`, without what it walks in particular.
    Iter { name: u64, name_len: u32 }
    /// `netns`.
    Netns { ino: u32, attach_type: u32 }
    /// `xdp`, and the beginning of `tcx` and `netkit`.
    Device { ifindex: u32, attach_type: u32 }
    /// `struct_ops` and `sockmap`.
    Map { map_id: u32, attach_type: u32 }
    /// `netfilter`.
    Netfilter { pf: u32, hook: u32, priority: i32, flags: u32 }
    /// `kprobe_multi`.
    KprobeMulti { addrs: u64, count: u32, flags: u32, missed: u64 }
    /// `uprobe_multi`.
    UprobeMulti {
        path: u64, offsets: u64, ref_ctr_offsets: u64, cookies: u64,
        path_size: u32, count: u32, flags: u32, pid: u32
    }
    /// `perf_event` with `kprobe`. `uprobe` and `tracepoint` begin alike, with the name.
    PerfProbe { which: u32, pad: u32, name: u64, name_len: u32, offset: u32, addr: u64, missed: u64 }
    /// `perf_event` with `event`.
    PerfEvent { which: u32, pad: u32, config: u64, kind: u32 }
}

/// Offsets in the whole structure.
const _: () = {
    const UNION: usize = offset_of!(RawLink, part);
    assert!(UNION == 16 && size_of::<RawLink>() == 128);
    assert!(UNION + offset_of!(RawTracepoint, name_len) == 24);
    assert!(UNION + offset_of!(Tracing, target_btf_id) == 24);
    assert!(UNION + offset_of!(Cgroup, attach_type) == 24);
    assert!(UNION + offset_of!(Iter, name_len) == 24);
    assert!(UNION + offset_of!(Netns, attach_type) == 20);
    assert!(UNION + offset_of!(Device, attach_type) == 20);
    assert!(UNION + offset_of!(Map, attach_type) == 20);
    assert!(UNION + offset_of!(Netfilter, priority) == 24);
    assert!(UNION + offset_of!(KprobeMulti, count) == 24);
    assert!(UNION + offset_of!(KprobeMulti, missed) == 32);
    assert!(UNION + offset_of!(UprobeMulti, path_size) == 48);
    assert!(UNION + offset_of!(UprobeMulti, pid) == 60);
    assert!(UNION + offset_of!(PerfProbe, name) == 24);
    assert!(UNION + offset_of!(PerfProbe, name_len) == 32);
    assert!(UNION + offset_of!(PerfProbe, offset) == 36);
    assert!(UNION + offset_of!(PerfProbe, addr) == 40);
    assert!(UNION + offset_of!(PerfProbe, missed) == 48);
    assert!(UNION + offset_of!(PerfEvent, config) == 24);
    assert!(UNION + offset_of!(PerfEvent, kind) == 32);
};
