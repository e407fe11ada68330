//! Descriptors of all processes that hold perf events, BPF objects and readers of trace buffers.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use stalltop_wire::held::{
    CALL_TRACEPOINT, Descriptor, FILTER_MAP, Filter, UPROBE_TYPE, kind, offset,
};

use crate::ask::own_tgid;
use crate::btf::{self, Btf};
use crate::globals::Globals;
use crate::object;
use crate::probes::load_or_why;
use crate::programs::{Failure, Step};
use crate::sys::perf::{self, Clock};
use crate::sys::{info, load, run};

/// Name of the iterator's program, in the object and in the kernel.
pub const HOLDERS: &str = "holders";

/// Fields without which nothing can be told.
const NEEDED: &[(&str, &str, &str)] = &[
    (offset::FILE_OP, "file", "f_op"),
    (offset::FILE_PRIVATE, "file", "private_data"),
    (offset::FILE_INODE, "file", "f_inode"),
    (offset::INODE_FOP, "inode", "i_fop"),
    (offset::FOP_RELEASE, "file_operations", "release"),
    (offset::TASK_TGID, "task_struct", "tgid"),
    (offset::TASK_FILES, "task_struct", "files"),
    (offset::TASK_LEADER, "task_struct", "group_leader"),
    (offset::PROG_AUX, "bpf_prog", "aux"),
    (offset::AUX_ID, "bpf_prog_aux", "id"),
    (offset::MAP_ID, "bpf_map", "id"),
    (offset::LINK_ID, "bpf_link", "id"),
    (offset::LINK_TYPE, "bpf_link", "type"),
    (offset::LINK_PROG, "bpf_link", "prog"),
    (offset::EVENT_TYPE, "perf_event", "attr.type"),
    (offset::EVENT_CONFIG, "perf_event", "attr.config"),
    (offset::EVENT_STATE, "perf_event", "state"),
    (offset::EVENT_CPU, "perf_event", "cpu"),
    (offset::EVENT_PROG, "perf_event", "prog"),
];

/// Fields without which less is told: links on perf events came with 5.15, and trace events can be
/// left out of a kernel.
const OPTIONAL: &[(&str, &str, &str)] = &[
    (offset::LINK_PERF_FILE, "bpf_perf_link", "perf_file"),
    (offset::SEQ_PRIVATE, "seq_file", "private"),
    (offset::ITER_PROG, "bpf_iter_priv_data", "prog"),
    (offset::ITER_TARGET, "bpf_iter_priv_data", "target_private"),
    (offset::EVENT_CONFIG1, "perf_event", "attr.config1"),
    (offset::EVENT_CONFIG2, "perf_event", "attr.config2"),
    (offset::EVENT_CALL, "perf_event", "tp_event"),
    (offset::CALL_FLAGS, "trace_event_call", "flags"),
    (offset::CALL_NAME, "trace_event_call", "name"),
    (offset::CALL_CLASS, "trace_event_call", "class"),
    (offset::CLASS_SYSTEM, "trace_event_class", "system"),
    (offset::TRACEPOINT_NAME, "tracepoint", "name"),
    (offset::PROBE_CALL, "trace_probe_event", "call"),
    (offset::PROBE_FIRST, "trace_probe_event", "probes.next"),
    (offset::PROBE_LIST, "trace_probe", "list"),
    (offset::UPROBE_PROBE, "trace_uprobe", "tp"),
    (offset::UPROBE_FILE, "trace_uprobe", "filename"),
];

/// Bytes asked for at a time: what the kernel gives at most (`bpf_seq_read`,
/// kernel/bpf/bpf_iter.c).
const BUFFER: usize = 32 * 1024;

/// At most so many descriptors that hold something are taken: a host with more is not looked
/// through further.
pub const MAX_DESCRIPTORS: usize = 1 << 16;

/// So many CPUs are tried for one that is online.
const MAX_CPUS: u32 = 64;

const WORDS: usize = size_of::<Descriptor>() / size_of::<u64>();

/// The iterator, loaded. It runs only while [`Self::scan`] reads it.
#[derive(Debug)]
pub struct Descriptors {
    program: OwnedFd,
    link: OwnedFd,
    filter: OwnedFd,
    release: [u64; kind::COUNT],
    buffer: Vec<u8>,
}

impl Descriptors {
    /// Loads it. Measured on 6.18: see `collectors/src/tracing/holders/iterator.rs`.
    ///
    /// # Errors
    /// What it needs and the host lacks: the kernel's BTF, CAP_BPF and CAP_PERFMON, Linux 5.8.
    pub fn load(root: &Path) -> Result<Self, Failure> {
        let (globals, target) = offsets(root)?;
        let filter = object::Array {
            name: FILTER_MAP,
            value_size: size_of::<Filter>(),
            entries: 1,
            flags: 0,
        };
        let mut prepared = object::prepare_one(HOLDERS, &[filter], &globals)?;
        let program = load::Program {
            name: HOLDERS,
            kind: load::PROG_TYPE_TRACING,
            attach_type: load::TRACE_ITER,
            attach_btf_id: target,
            license: &prepared.license,
            insns: &prepared.insns,
        };
        let loaded = load_or_why(&program)?;
        let attach = |e: io::Error| Failure {
            step: Step::Attach,
            errno: e.raw_os_error(),
            detail: "iterator task_file".into(),
        };
        let link = load::attach_iterator(loaded.as_fd()).map_err(attach)?;
        let no_map = || Failure {
            step: Step::Object,
            errno: None,
            detail: format!("no map {FILTER_MAP}"),
        };
        let filter = prepared.maps.remove(FILTER_MAP).ok_or_else(no_map)?;
        let mut this = Self {
            program: loaded,
            link,
            filter,
            release: [0; kind::COUNT],
            buffer: Vec::new(),
        };
        this.learn(None).map_err(attach)?;
        Ok(this)
    }

    /// The kernel's id of the iterator's program.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn program_id(&self) -> io::Result<u32> {
        info::program_id(self.program.as_fd())
    }

    /// Whether descriptors of that [`kind`] are told.
    #[must_use]
    pub fn knows(&self, kind: u64) -> bool {
        usize::try_from(kind)
            .ok()
            .and_then(|kind| self.release.get(kind))
            .is_some_and(|release| *release != 0)
    }

    /// Looks through the descriptors of all processes and leaves in `out` (cleared first) those
    /// that hold something. `tracefs` is where it is mounted, if it is: without, readers of trace
    /// buffers are not told.
    ///
    /// Numbers of processes are those of the first PID namespace.
    ///
    /// Gives whether these are all: not where there are more than [`MAX_DESCRIPTORS`].
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn scan(&mut self, tracefs: Option<&Path>, out: &mut Vec<Descriptor>) -> io::Result<bool> {
        if self.release[kind::PIPE as usize] == 0 && tracefs.is_some() {
            self.learn(tracefs)?;
        }
        self.read(0, out)
    }

    /// Finds the functions that end files of each kind, from descriptors of this process.
    fn learn(&mut self, tracefs: Option<&Path>) -> io::Result<()> {
        // Disabled, on any CPU that is online.
        let event = (0..MAX_CPUS).find_map(|cpu| perf::open(Clock::Cpu, cpu, 1).ok());
        // Not opened: while we read a trace buffer nobody else could (`open_pipe_on_cpu`,
        // kernel/trace/trace.c, 6.6).
        let path = |below: &str| {
            let named = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
                .open(tracefs?.join(below));
            named.ok().map(OwnedFd::from)
        };
        let iterator = load::iterate(self.link.as_fd())?;
        let files = [
            (kind::PERF, event),
            (kind::PROGRAM, Some(self.program.try_clone()?)),
            (kind::LINK, Some(self.link.try_clone()?)),
            (kind::MAP, Some(self.filter.try_clone()?)),
            (kind::ITER, Some(iterator)),
            (kind::PIPE, path("trace_pipe")),
            (kind::PIPE_RAW, path("per_cpu/cpu0/trace_pipe_raw")),
        ];
        let mut mine = Vec::new();
        // In a PID namespace of its own the kernel's number is another.
        let own = own_tgid().unwrap_or_else(|_| std::process::id());
        self.read(u64::from(own), &mut mine)?;
        for (kind, fd) in &files {
            let Some(fd) = fd else { continue };
            let number = fd.as_raw_fd() as u64;
            let Some(found) = mine.iter().find(|d| d.process >> 32 == number) else {
                continue;
            };
            self.release[*kind as usize] = match *kind {
                kind::PIPE | kind::PIPE_RAW => found.program,
                _ => found.id,
            };
        }
        Ok(())
    }

    /// One round of the iterator.
    fn read(&mut self, learn: u64, out: &mut Vec<Descriptor>) -> io::Result<bool> {
        out.clear();
        let filter = [&[learn][..], &self.release].concat();
        let filter: Vec<u8> = filter.iter().flat_map(|word| word.to_ne_bytes()).collect();
        debug_assert_eq!(filter.len(), size_of::<Filter>());
        run::set(self.filter.as_fd(), 0, &filter)?;
        let mut round = File::from(load::iterate(self.link.as_fd())?);
        self.buffer.resize(BUFFER, 0);
        read_all(&mut round, &mut self.buffer, MAX_DESCRIPTORS, out)
    }
}

/// Reads records until there are no more (true) or more than `most` (false). The kernel may give
/// few at a time, also parts of one, and answers EAGAIN where it has walked a million descriptors
/// without finding one.
fn read_all(
    from: &mut impl Read,
    buffer: &mut [u8],
    most: usize,
    out: &mut Vec<Descriptor>,
) -> io::Result<bool> {
    const SIZE: usize = size_of::<Descriptor>();
    let mut have = 0;
    loop {
        match from.read(&mut buffer[have..]) {
            Ok(0) => return Ok(true),
            Ok(n) => have += n,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e),
        }
        let whole = have / SIZE * SIZE;
        out.extend(buffer[..whole].chunks_exact(SIZE).map(descriptor));
        if out.len() > most {
            out.truncate(most);
            return Ok(false);
        }
        buffer.copy_within(whole..have, 0);
        have -= whole;
    }
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    let mut words = [0_u64; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(size_of::<u64>())) {
        *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
    }
    let [
        process,
        kind,
        id,
        program,
        event,
        config,
        config1,
        config2,
        cpu,
        names @ ..,
    ] = words;
    let mut out = Descriptor {
        process,
        kind,
        id,
        program,
        event,
        config,
        config1,
        config2,
        cpu,
        ..Descriptor::ZERO
    };
    let (name, system) = names.split_at(out.name.len());
    out.name.copy_from_slice(name);
    out.system.copy_from_slice(system);
    out
}

/// What the iterator must know of this kernel, and the type that it attaches to.
fn offsets(root: &Path) -> Result<(Globals, u32), Failure> {
    let bytes = btf::read(root)?;
    let types = Btf::parse(&bytes)?;
    let target = types.iterator("task_file")?;
    let wanted = || NEEDED.iter().chain(OPTIONAL);
    let fields: Vec<_> = wanted().map(|(_, of, field)| (*of, *field)).collect();
    let mut globals = Globals::new();
    let uprobe = root.join("sys/bus/event_source/devices/uprobe/type");
    let uprobe = std::fs::read_to_string(uprobe).ok();
    globals.extend(uprobe.and_then(|t| Some((UPROBE_TYPE, t.trim().parse().ok()?))));
    // A number of its own in each kernel: 4 bits up to 6.1, 3 in 6.18.
    if let Ok(bit @ 0..32) = types.enumerator("TRACE_EVENT_FL_TRACEPOINT_BIT") {
        globals.push((CALL_TRACEPOINT, 1 << bit));
    }
    for (i, ((global, ..), found)) in wanted().zip(types.fields(&fields)).enumerate() {
        match found {
            Ok(offset) => globals.push((*global, offset)),
            Err(e) if i < NEEDED.len() => return Err(e.into()),
            Err(_) => {}
        }
    }
    Ok((globals, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what each step says, then ends.
    struct Steps(Vec<io::Result<Vec<u8>>>);

    impl Read for Steps {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let bytes = self.0.remove(0)?;
            to[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn record(n: u64) -> Vec<u8> {
        let words = (0..WORDS as u64).flat_map(|word| (n * 100 + word).to_ne_bytes());
        words.collect()
    }

    #[test]
    fn short_reads_and_eagain_lose_nothing() {
        let (first, second) = (record(1), record(2));
        let mut steps = Steps(vec![
            Ok(first[..7].to_vec()),
            Err(io::ErrorKind::WouldBlock.into()),
            Ok([&first[7..], &second[..50]].concat()),
            Err(io::ErrorKind::Interrupted.into()),
            Ok(second[50..].to_vec()),
        ]);
        let mut out = Vec::new();
        assert!(read_all(&mut steps, &mut [0; 400], 2, &mut out).unwrap());
        let seen: Vec<_> = out.iter().map(|d| (d.process, d.cpu)).collect();
        assert_eq!(seen, [(100, 108), (200, 208)]);
        assert_eq!((out[1].name[7], out[1].system), (216, [225, 226, 227, 228]));
    }

    #[test]
    fn an_error_ends_it() {
        let mut steps = Steps(vec![Ok(record(1)), Err(io::ErrorKind::OutOfMemory.into())]);
        let mut out = Vec::new();
        assert!(read_all(&mut steps, &mut [0; 400], 2, &mut out).is_err());
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn that_there_are_more_is_told() {
        let mut steps = Steps((1..9).map(|n| Ok(record(n))).collect());
        let mut out = Vec::new();
        assert!(!read_all(&mut steps, &mut [0; 400], 3, &mut out).unwrap());
        assert_eq!(out.len(), 3);
        assert_eq!(steps.0.len(), 4, "nobody reads on for what is not kept");
    }
}
