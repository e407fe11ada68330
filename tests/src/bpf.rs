//! bpf(2) and perf_event_open(2), just enough to be *somebody else's* tool: the tests load
//! programs through these calls, not through our own loader, and stalltop must find them.
//!
//! Layouts are those of include/uapi/linux/bpf.h (`union bpf_attr`) and perf_event.h
//! (`struct perf_event_attr`); both calls take a size, so older kernels take the same bytes.
#![expect(
    unsafe_code,
    reason = "system calls and an option of sockets that no library here wraps"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub mod btf;
mod kinds;
pub mod net;
pub mod ops;

pub use kinds::{ProgramType, attach};

/// `struct perf_event_attr` fields that are used here; zeros otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerfEvent {
    /// `PERF_TYPE_*` or a PMU's number from /sys/bus/event_source/devices.
    pub kind: u32,
    /// What to count, by type.
    pub config: u64,
    /// One sample every so many events; 0 counts only.
    pub period: u64,
    /// `kprobe_func` or `uprobe_path`, an address in this process.
    pub config1: u64,
    /// `probe_offset`.
    pub config2: u64,
}

/// `union bpf_attr` as bytes.
struct Attr([u8; 144]);

impl Attr {
    fn new() -> Self {
        Self([0; 144])
    }

    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: &OwnedFd) -> Self {
        let fd = u32::try_from(fd.as_raw_fd()).expect("an open descriptor");
        self.u32(at, fd)
    }

    fn name(mut self, at: usize, name: &str) -> Self {
        let name = &name.as_bytes()[..name.len().min(15)];
        self.0[at..at + name.len()].copy_from_slice(name);
        self
    }

    fn call(mut self, command: i32) -> io::Result<i64> {
        // SAFETY: the kernel reads at most the given size from the array, and writes within it;
        // the pointers inside were taken from values that the caller keeps alive over the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result)
        }
    }

    fn open(self, command: i32) -> io::Result<OwnedFd> {
        owned(self.call(command)?)
    }
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given this descriptor to us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a program of two instructions that returns `returns`. `btf` is the BTF type it attaches
/// to, or 0.
///
/// # Errors
/// The kernel's answer.
pub fn load(
    kind: ProgramType,
    name: &str,
    returns: i32,
    attach_type: u32,
    btf: u32,
) -> io::Result<OwnedFd> {
    let program = returning(returns);
    Load::new(kind, name, &program)
        .attach_type(attach_type)
        .btf(btf)
        .call()
}

/// The instructions of a program that does nothing but return a value.
fn returning(value: i32) -> [[u8; 8]; 2] {
    // BPF_MOV64_IMM(BPF_REG_0, value); BPF_EXIT_INSN()
    [instruction(0xb7, 0, 0, value), instruction(0x95, 0, 0, 0)]
}

/// Loads a program that only its loader runs, and that may sleep.
///
/// # Errors
/// The kernel's answer.
pub fn load_syscall(name: &str) -> io::Result<OwnedFd> {
    let program = returning(0);
    let load = Load::new(ProgramType::Syscall, name, &program);
    // BPF_F_SLEEPABLE
    Load(load.0.u32(44, 1 << 4)).call()
}

/// Loads a program that sets the one key 0 of a hash made by [`hash`]: on every CPU that runs it
/// at a time, the same lock of the same bucket.
///
/// # Errors
/// The kernel's answer.
pub fn load_update(kind: ProgramType, name: &str, hash: &OwnedFd) -> io::Result<OwnedFd> {
    let program = [
        instruction(0xb7, 1, 0, 0),                   // r1 = 0
        instruction(0x63, 0x1a, -4, 0),               // *(u32 *)(r10 - 4) = r1
        instruction(0x7b, 0x1a, -16, 0),              // *(u64 *)(r10 - 16) = r1
        instruction(0x18, 0x11, 0, hash.as_raw_fd()), // r1 = the map
        instruction(0, 0, 0, 0),
        instruction(0xbf, 0xa2, 0, 0), // r2 = r10
        instruction(0x07, 2, 0, -4),   // r2 += -4
        instruction(0xbf, 0xa3, 0, 0), // r3 = r10
        instruction(0x07, 3, 0, -16),  // r3 += -16
        instruction(0xb7, 4, 0, 0),    // r4 = BPF_ANY
        instruction(0x85, 0, 0, 2),    // bpf_map_update_elem
        instruction(0xb7, 0, 0, 0),
        instruction(0x95, 0, 0, 0),
    ];
    Load::new(kind, name, &program).call()
}

/// `struct bpf_insn`: code, destination and source registers, offset, immediate.
fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let (offset, immediate) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    let mut bytes = [code, registers, offset[0], offset[1], 0, 0, 0, 0];
    bytes[4..].copy_from_slice(&immediate);
    bytes
}

/// A program to be loaded, as `union bpf_attr` has it. What it is made of must live until then.
struct Load(Attr);

impl Load {
    fn new(kind: ProgramType, name: &str, program: &[[u8; 8]]) -> Self {
        let attr = Attr::new()
            .u32(0, kind as u32)
            .u32(4, program.len() as u32)
            .u64(8, program.as_ptr() as u64)
            .u64(16, c"GPL".as_ptr() as u64)
            .name(48, name);
        Self(attr)
    }

    fn attach_type(self, kind: u32) -> Self {
        Self(self.0.u32(68, kind))
    }

    /// The type it attaches to, of the kernel or of its target.
    fn btf(self, id: u32) -> Self {
        Self(self.0.u32(108, id))
    }

    /// The program it attaches to.
    fn target(self, program: &OwnedFd) -> Self {
        Self(self.0.fd(112, program))
    }

    /// Its types, those of [`btf::packet_function`].
    fn function(self, types: &OwnedFd) -> Self {
        /// `struct bpf_func_info`: the first instruction, and the function's type.
        static INFO: [u32; 2] = [0, btf::PACKET_FUNCTION];
        let attr = self.0.fd(72, types).u32(76, 8);
        Self(attr.u64(80, INFO.as_ptr() as u64).u32(88, 1))
    }

    fn call(self) -> io::Result<OwnedFd> {
        self.0.open(5)
    }
}

/// Creates an array of one 8-byte value.
///
/// # Errors
/// The kernel's answer.
pub fn map(name: &str) -> io::Result<OwnedFd> {
    make_map(2, 1, name)
}

/// Creates a hash of 4-byte keys and 8-byte values, shared by all CPUs.
///
/// # Errors
/// The kernel's answer.
pub fn hash(name: &str) -> io::Result<OwnedFd> {
    make_map(1, 10_240, name)
}

/// `kind` is `BPF_MAP_TYPE_*`.
fn make_map(kind: u32, entries: u32, name: &str) -> io::Result<OwnedFd> {
    Attr::new()
        .u32(0, kind)
        .u32(4, 4)
        .u32(8, 8)
        .u32(12, entries)
        .name(28, name)
        .open(0)
}

/// Creates a map of one socket.
///
/// # Errors
/// The kernel's answer.
pub fn sockmap(name: &str) -> io::Result<OwnedFd> {
    Attr::new()
        .u32(0, 15)
        .u32(4, 4)
        .u32(8, 4)
        .u32(12, 1)
        .name(28, name)
        .open(0)
}

/// Creates an array of one value of that size which begins with a `struct bpf_spin_lock`: what it
/// is, the kernel wants to know from BTF.
///
/// # Errors
/// The kernel's answer.
pub fn locked_array(value_size: u32) -> io::Result<OwnedFd> {
    // int; struct bpf_spin_lock { int val; }; struct value { struct bpf_spin_lock lock; ... }
    let strings = b"\0int\0bpf_spin_lock\0val\0value\0lock\0";
    let (int, structure) = (1_u32 << 24, 4_u32 << 24 | 1);
    let types: [&[u32]; 3] = [
        &[1, int, 4, 1 << 24 | 32],
        &[5, structure, 4, 19, 1, 0],
        &[23, structure, value_size, 29, 2, 0],
    ];
    let types = btf::load(&types, strings)?;
    Attr::new()
        .u32(0, 2)
        .u32(4, 4)
        .u32(8, value_size)
        .u32(12, 1)
        .name(28, "locked")
        .fd(48, &types)
        .u32(52, 1)
        .u32(56, 3)
        .open(0)
}

/// Writes the value of a map of [`locked_array`] while its lock is held (`BPF_F_LOCK`).
///
/// # Errors
/// The kernel's answer.
pub fn update_locked(map: &OwnedFd, value: &[u8]) -> io::Result<()> {
    // BPF_F_LOCK
    update(map, value, 4)
}

/// Writes the value of key 0.
fn update(map: &OwnedFd, value: &[u8], flags: u64) -> io::Result<()> {
    let key = 0_u32;
    Attr::new()
        .fd(0, map)
        .u64(8, std::ptr::from_ref(&key) as u64)
        .u64(16, value.as_ptr() as u64)
        .u64(24, flags)
        .call(2)
        .map(drop)
}

/// Attaches a program by a link: `target` is a perf event, a cgroup or, for
/// [`attach::XDP`], nothing and `ifindex` is given.
///
/// # Errors
/// The kernel's answer.
pub fn link(
    program: &OwnedFd,
    target: Option<&OwnedFd>,
    ifindex: u32,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let attr = Attr::new()
        .fd(0, program)
        .u32(4, ifindex)
        .u32(8, attach_type);
    match target {
        Some(target) => attr.fd(4, target),
        None => attr,
    }
    .open(28)
}

/// Attaches a program to several functions at once: at their entry, or `on_return`; `attach_type`
/// is that of the program.
///
/// # Errors
/// The kernel's answer.
pub fn link_kprobe_multi(
    program: &OwnedFd,
    symbols: &[&str],
    on_return: bool,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let symbols: Vec<CString> = symbols
        .iter()
        .map(|name| CString::new(*name))
        .collect::<Result<_, _>>()?;
    let pointers: Vec<_> = symbols.iter().map(|name| name.as_ptr()).collect();
    let count = u32::try_from(pointers.len()).map_err(io::Error::other)?;
    Attr::new()
        .fd(0, program)
        .u32(8, attach_type)
        .u32(16, u32::from(on_return))
        .u32(20, count)
        .u64(24, pointers.as_ptr() as u64)
        .open(28)
}

/// Attaches a program to several places of a file at once; `attach_type` is that of the program.
///
/// # Errors
/// The kernel's answer.
pub fn link_uprobe_multi(
    program: &OwnedFd,
    path: &str,
    offsets: &[u64],
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    let count = u32::try_from(offsets.len()).map_err(io::Error::other)?;
    Attr::new()
        .fd(0, program)
        .u32(8, attach_type)
        .u64(16, path.as_ptr() as u64)
        .u64(24, offsets.as_ptr() as u64)
        .u32(48, count)
        .open(28)
}

/// Attaches a program to a hook of netfilter: `family` is `NFPROTO_*`, `hook` one of
/// `nf_inet_hooks`.
///
/// # Errors
/// The kernel's answer.
pub fn link_netfilter(
    program: &OwnedFd,
    family: u32,
    hook: u32,
    priority: i32,
) -> io::Result<OwnedFd> {
    Attr::new()
        .fd(0, program)
        .u32(8, attach::NETFILTER)
        .u32(16, family)
        .u32(20, hook)
        .u32(24, priority.cast_unsigned())
        .open(28)
}

/// Attaches a program the old way, without a link, to a cgroup or a map of sockets: it stays until
/// that is gone.
///
/// # Errors
/// The kernel's answer.
pub fn attach(program: &OwnedFd, target: &OwnedFd, attach_type: u32) -> io::Result<()> {
    Attr::new()
        .fd(0, target)
        .fd(4, program)
        .u32(8, attach_type)
        .call(8)
        .map(drop)
}

/// Attaches a program to a socket: `option` is `SO_ATTACH_BPF` or `SO_ATTACH_REUSEPORT_EBPF`.
///
/// # Errors
/// The kernel's answer.
pub fn attach_to_socket(
    program: &OwnedFd,
    socket: &OwnedFd,
    option: libc::c_int,
) -> io::Result<()> {
    let value: libc::c_int = program.as_raw_fd();
    // SAFETY: the kernel reads the four bytes of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Attaches a raw tracepoint by name, or, with no name, a tp_btf or fentry program to what it was
/// loaded for.
///
/// # Errors
/// The kernel's answer.
pub fn raw_tracepoint(program: &OwnedFd, name: Option<&str>) -> io::Result<OwnedFd> {
    let name = name.map(CString::new).transpose()?;
    let pointer = name.as_ref().map_or(0, |name| name.as_ptr() as u64);
    Attr::new().u64(0, pointer).fd(8, program).open(17)
}

/// Makes an iterator's readable descriptor from its link.
///
/// # Errors
/// The kernel's answer.
pub fn iterator(link: &OwnedFd) -> io::Result<OwnedFd> {
    Attr::new().fd(0, link).open(33)
}

/// Pins a program, map or link in a bpffs.
///
/// # Errors
/// The kernel's answer.
pub fn pin(object: &OwnedFd, path: &str) -> io::Result<()> {
    let path = CString::new(path)?;
    Attr::new()
        .u64(0, path.as_ptr() as u64)
        .fd(8, object)
        .call(6)
        .map(drop)
}

/// Opens what is pinned in a bpffs.
///
/// # Errors
/// The kernel's answer.
pub fn pinned(path: &str) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    Attr::new().u64(0, path.as_ptr() as u64).open(7)
}

/// Opens a perf event of every process on one CPU, or of one process on every CPU (`cpu` -1).
///
/// # Errors
/// The kernel's answer.
pub fn perf_event(event: PerfEvent, pid: i32, cpu: i32) -> io::Result<OwnedFd> {
    let attr = Attr::new()
        .u32(0, event.kind)
        .u32(4, 112)
        .u64(8, event.config)
        .u64(16, event.period)
        .u64(56, event.config1)
        .u64(64, event.config2);
    // PERF_FLAG_FD_CLOEXEC
    let flags = 8_u64;
    // SAFETY: the kernel reads 112 bytes, the size given at offset 4, of an array of 144; the
    // strings behind config1 are kept alive by the caller.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attr.0.as_ptr(),
            pid,
            cpu,
            -1_i32,
            flags,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    owned(fd)
}

/// Attaches a program to a perf event the old way, without a link, and enables the event.
///
/// # Errors
/// The kernel's answer.
pub fn set_bpf(event: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
    const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
    for (request, argument) in [
        (PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()),
        (PERF_EVENT_IOC_ENABLE, 0),
    ] {
        // SAFETY: both requests take an integer, not a pointer.
        if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
