//! perf_event_open(2): periodic samples of one CPU that run a BPF program.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What makes the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// A high-resolution timer (`PERF_COUNT_SW_CPU_CLOCK`): an ordinary interrupt, which comes late
    /// where interrupts are off.
    Cpu,
    /// The processor's cycle counter (`PERF_COUNT_HW_CPU_CYCLES`): on x86 a non-maskable interrupt,
    /// which sees what runs while interrupts are off.
    Cycles,
}

/// `struct perf_event_attr` as of `PERF_ATTR_SIZE_VER1` (include/uapi/linux/perf_event.h): the
/// kernel takes shorter ones as if the rest were zero.
#[repr(C)]
#[derive(Default)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
}

const DISABLED: u64 = 1 << 0;
const EXCLUDE_IDLE: u64 = 1 << 7;
const FREQ: u64 = 1 << 10;
const FLAG_FD_CLOEXEC: libc::c_ulong = 8;
const IOC_ENABLE: libc::c_ulong = 0x2400;
const IOC_SET_BPF: libc::c_ulong = 0x4004_2408;

/// Opens an event that samples everything on one CPU but its idle task, `hertz` times a second. It
/// is disabled until [`run`].
///
/// # Errors
/// `ENODEV` for a CPU that is not online, `ENOENT` where there is no such counter, `EACCES` without
/// CAP_PERFMON.
pub fn open(clock: Clock, cpu: u32, hertz: u64) -> io::Result<OwnedFd> {
    let attr = Attr {
        size: size_of::<Attr>() as u32,
        flags: DISABLED | EXCLUDE_IDLE,
        ..Attr::default()
    };
    let attr = match clock {
        // PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK: the period is in nanoseconds.
        Clock::Cpu => Attr {
            kind: 1,
            sample_period: 1_000_000_000 / hertz.max(1),
            ..attr
        },
        // PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES: the kernel adapts the period.
        Clock::Cycles => Attr {
            kind: 0,
            sample_period: hertz,
            flags: attr.flags | FREQ,
            ..attr
        },
    };
    // SAFETY: the kernel reads as many bytes as `size` says; the result is checked.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            -1_i32,
            cpu as i32,
            -1_i32,
            FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Has the event run a program of type `perf_event` at each sample, and starts it. It ends when the
/// event's descriptor is closed.
///
/// # Errors
/// The kernel's answer.
pub fn run(event: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    ioctl(event, IOC_SET_BPF, program.as_raw_fd())?;
    ioctl(event, IOC_ENABLE, 0)
}

fn ioctl(event: BorrowedFd<'_>, request: libc::c_ulong, argument: i32) -> io::Result<()> {
    // SAFETY: both requests take an integer.
    if unsafe { libc::ioctl(event.as_raw_fd(), request as _, argument) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
