//! Descriptors that hold perf events, BPF objects and readers of trace buffers, of all processes.
//!
//! Hooks nothing: an iterator over `task_file` (kernel/bpf/task_iter.c, 5.8), which runs for every
//! descriptor when user space reads it, in the reader's own time. Writes [`Descriptor`]s to the
//! reader's buffer. Runs nowhere else, so it costs nothing while nobody reads.
//!
//! What a descriptor is, is told by the function that ends its file (`file_operations.release`):
//! user space finds those functions by letting the iterator tell descriptors of its own
//! ([`Filter::learn`]). The whole `file_operations` will not do: links have two of them (6.12).
//!
//! `file` and its operations are pointers that the verifier knows; `private_data` is none, so what
//! is behind it is read by a helper that survives any address. The iterator holds a reference to
//! the file meanwhile.
//!
//! Measured on 6.18, see `collectors/src/tracing/holders/iterator.rs`.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_seq_write},
    macros::map,
    maps::Array,
};
use stalltop_wire::NO_OFFSET;
use stalltop_wire::held::{Descriptor, Filter, kind};

use crate::sched::field;

/// What is looked for.
#[map]
static HELD_FILTER: Array<Filter> = Array::with_max_entries(1, 0);

macro_rules! offsets {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        static $name: Global<u64> = Global::new(NO_OFFSET);
    )*};
}
offsets! {
    FILE_OP FILE_PRIVATE FILE_INODE INODE_FOP FOP_RELEASE
    TASK_TGID TASK_FILES TASK_LEADER
    PROG_AUX AUX_ID MAP_ID LINK_ID LINK_TYPE LINK_PROG LINK_PERF_FILE
    SEQ_PRIVATE ITER_PROG ITER_TARGET
    EVENT_TYPE EVENT_CONFIG EVENT_CONFIG1 EVENT_CONFIG2 EVENT_STATE EVENT_CPU EVENT_PROG EVENT_CALL
    CALL_FLAGS CALL_NAME CALL_CLASS CLASS_SYSTEM TRACEPOINT_NAME
    PROBE_CALL PROBE_FIRST PROBE_LIST UPROBE_PROBE UPROBE_FILE UPROBE_TYPE
}

/// `BPF_LINK_TYPE_PERF_EVENT` (include/uapi/linux/bpf.h).
const LINK_TYPE_PERF_EVENT: u32 = 7;

#[unsafe(no_mangle)]
static CALL_TRACEPOINT: Global<u64> = Global::new(0);

/// `struct bpf_iter__task_file`: each member takes 8 bytes.
#[repr(C)]
pub struct Context {
    meta: *const u8,
    task: *const u8,
    fd: u32,
    pad: u32,
    file: *const u8,
}

/// Reads a field of what `base` points to, whatever that is: 0 where it cannot be read, or where
/// this kernel has no such field.
#[inline(always)]
unsafe fn read<T: Copy + Default>(base: u64, offset: &Global<u64>) -> T {
    let mut value = T::default();
    let offset = offset.load();
    if base != 0 && offset != NO_OFFSET {
        let from = base.wrapping_add(offset) as *const c_void;
        // SAFETY: `value` has room; the helper fails where the address is none.
        unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, from) };
    }
    value
}

/// The id of a program.
#[inline(always)]
unsafe fn program_id(program: u64) -> u64 {
    // SAFETY: read by the helper.
    unsafe { u64::from(read::<u32>(read(program, &PROG_AUX), &AUX_ID)) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn holders(ctx: *const Context) -> i32 {
    // SAFETY: the context and its pointers as the verifier knows them.
    unsafe {
        let (task, file) = ((*ctx).task, (*ctx).file);
        // The iterator's last call has neither.
        if task.is_null() || file.is_null() {
            return 0;
        }
        let Some(filter) = HELD_FILTER.get(0) else {
            return 0;
        };
        let operations: *const u8 = field(file, &FILE_OP);
        let release: u64 = field(operations, &FOP_RELEASE);
        let tgid = u64::from(field::<u32>(task, &TASK_TGID));
        let what = if filter.learn != 0 {
            if tgid != filter.learn {
                return 0;
            }
            kind::ANY
        } else {
            let what = kind_of(filter, release);
            if what == kind::ANY {
                return 0;
            }
            // Threads share their process's descriptors; kernels before 5.11 tell them for each.
            let leader: *const u8 = field(task, &TASK_LEADER);
            if leader != task
                && field::<u64>(leader, &TASK_FILES) == field::<u64>(task, &TASK_FILES)
            {
                return 0;
            }
            what
        };
        let mut out = MaybeUninit::<Descriptor>::uninit();
        // Word by word: a call of memset would be a function of its own.
        let words = out.as_mut_ptr().cast::<u64>();
        let mut i = 0;
        while i < size_of::<Descriptor>() / size_of::<u64>() {
            words.add(i).write_volatile(0);
            i += 1;
        }
        let out = out.assume_init_mut();
        out.kind = what;
        if what == kind::ANY {
            out.id = release;
            let inode: u64 = field(file, &FILE_INODE);
            out.program = read(read(inode, &INODE_FOP), &FOP_RELEASE);
        } else {
            describe(out, field(file, &FILE_PRIVATE));
        }
        out.process = tgid | u64::from((*ctx).fd) << 32;
        let seq: *mut c_void = (*ctx).meta.cast::<*mut c_void>().read_volatile();
        // Where the buffer is full the kernel takes the record back and calls once more.
        let out = (&raw const *out).cast();
        bpf_seq_write(seq.cast(), out, size_of::<Descriptor>() as u32);
    }
    0
}

/// What a file is that this function ends; `ANY` where it is nothing looked for.
#[inline(always)]
fn kind_of(filter: &Filter, release: u64) -> u64 {
    if release == 0 {
        return kind::ANY;
    }
    let known = &filter.release;
    if release == known[kind::PERF as usize] {
        kind::PERF
    } else if release == known[kind::PROGRAM as usize] {
        kind::PROGRAM
    } else if release == known[kind::LINK as usize] {
        kind::LINK
    } else if release == known[kind::MAP as usize] {
        kind::MAP
    } else if release == known[kind::ITER as usize] {
        kind::ITER
    } else if release == known[kind::PIPE as usize] {
        kind::PIPE
    } else if release == known[kind::PIPE_RAW as usize] {
        kind::PIPE_RAW
    } else {
        kind::ANY
    }
}

/// What the object behind a descriptor is.
#[inline(always)]
unsafe fn describe(out: &mut Descriptor, object: u64) {
    // SAFETY: read by the helper, which survives any address.
    unsafe {
        let mut event = 0;
        match out.kind {
            kind::PERF => event = object,
            kind::PROGRAM => out.id = program_id(object),
            kind::LINK => {
                out.id = u64::from(read::<u32>(object, &LINK_ID));
                out.program = program_id(read(object, &LINK_PROG));
                if read::<u32>(object, &LINK_TYPE) == LINK_TYPE_PERF_EVENT {
                    event = read(read(object, &LINK_PERF_FILE), &FILE_PRIVATE);
                }
            }
            kind::MAP => out.id = u64::from(read::<u32>(object, &MAP_ID)),
            kind::ITER if ITER_TARGET.load() != NO_OFFSET => {
                let target: u64 = read(object, &SEQ_PRIVATE);
                let private = target.wrapping_sub(ITER_TARGET.load());
                out.program = program_id(read(private, &ITER_PROG));
            }
            _ => {}
        }
        if event == 0 {
            return;
        }
        out.kind |= kind::EVENT;
        out.event = u64::from(read::<u32>(event, &EVENT_TYPE))
            | u64::from(read::<u32>(event, &EVENT_STATE)) << 32;
        out.config = read(event, &EVENT_CONFIG);
        out.config1 = read(event, &EVENT_CONFIG1);
        out.config2 = read(event, &EVENT_CONFIG2);
        out.cpu = u64::from(read::<u32>(event, &EVENT_CPU));
        if out.program == 0 {
            out.program = program_id(read(event, &EVENT_PROG));
        }
        let call: u64 = read(event, &EVENT_CALL);
        if call == 0 {
            return;
        }
        let mut name: u64 = read(call, &CALL_NAME);
        if u64::from(read::<u32>(call, &CALL_FLAGS)) & CALL_TRACEPOINT.load() != 0 {
            name = read(name, &TRACEPOINT_NAME);
        } else if out.event & 0xffff_ffff == UPROBE_TYPE.load() && UPROBE_PROBE.load() != NO_OFFSET
        {
            // An event of one probe, without a name of its own (`create_local_trace_uprobe`,
            // kernel/trace/trace_uprobe.c): the file is what it is known by.
            let event = call.wrapping_sub(PROBE_CALL.load());
            let first: u64 = read(event, &PROBE_FIRST);
            let probe = first.wrapping_sub(PROBE_LIST.load());
            name = read(probe.wrapping_sub(UPROBE_PROBE.load()), &UPROBE_FILE);
        }
        let system: u64 = read(read(call, &CALL_CLASS), &CLASS_SYSTEM);
        let (to, size) = ((&raw mut out.name).cast(), size_of_val(&out.name) as u32);
        bpf_probe_read_kernel_str(to, size, name as *const c_void);
        let (to, size) = (
            (&raw mut out.system).cast(),
            size_of_val(&out.system) as u32,
        );
        bpf_probe_read_kernel_str(to, size, system as *const c_void);
    }
}
