//! Namespaces of a thread's own, and its place in the scheduler.
#![expect(unsafe_code, reason = "system calls that rustix does not wrap")]

use std::io;
use std::mem::size_of;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Gives the calling thread a network namespace of its own, with its loopback up. It ends with
/// the last thread and socket in it.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn own_network() -> io::Result<()> {
    // SAFETY: changes the namespace of this thread only; no memory is passed.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is integers and arrays of them; zero is a value of all of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS takes a pointer to an ifreq, which lives over the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

/// Gives the calling process mounts of its own, which nobody else sees. Before it starts threads.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: changes the namespace of this process only; no memory is passed.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })
}

/// Makes the calling thread a `SCHED_FIFO` one of the lowest priority.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE, or where its cgroup has no real-time budget
/// (`cpu.rt_runtime_us`).
pub fn first_in_first_out() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread; the parameters live over the call.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) })
}

/// Makes the calling thread an ordinary one again.
///
/// # Errors
/// None known.
pub fn ordinary() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: as above.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameters) })
}

/// Attaches an eBPF program of type socket filter to a socket: it runs on each packet that the
/// socket receives, in the softirq that delivers it.
///
/// # Errors
/// `EINVAL` where the program is of another type.
pub fn filter(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let fd = program.as_raw_fd();
    // SAFETY: the option takes an int, which lives over the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const fd).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
