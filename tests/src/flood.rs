//! Softirq load of our own making: packets over the loopback of a network namespace of our own,
//! on a thread of its own. Every packet is one NET_RX softirq on the CPU that sends it: the
//! loopback driver puts it on this CPU's backlog, and re-enabling bottom halves handles it at once.
#![expect(
    unsafe_code,
    reason = "network namespaces and sendmmsg by raw system calls"
)]

use std::io;
use std::mem::size_of;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Packets handed to the kernel by one system call.
const BATCH: usize = 64;

/// What the packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// UDP of 16 bytes to a socket that nobody reads.
    Udp,
    /// Frames of a type that no protocol takes: the shortest way through NET_RX, so the best to
    /// measure small costs by.
    Unknown,
}

/// How much was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Packets.
    pub packets: u64,
    /// In that time.
    pub elapsed: Duration,
}

impl Sent {
    /// Nanoseconds per packet.
    #[must_use]
    pub fn ns_per_packet(&self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.packets.max(1) as f64
    }
}

/// A socket that floods.
pub struct Flood {
    socket: OwnedFd,
    /// Bound, never read: takes what it can, the rest is dropped.
    _sink: Option<UdpSocket>,
    payload: Vec<u8>,
}

impl Flood {
    /// Opens the sockets in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system calls say; `EPERM` without CAP_NET_RAW for [`Packets::Unknown`].
    pub fn open(packets: Packets) -> io::Result<Self> {
        match packets {
            Packets::Udp => {
                let sink = UdpSocket::bind("127.0.0.1:0")?;
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.connect(sink.local_addr()?)?;
                Ok(Self {
                    socket: socket.into(),
                    _sink: Some(sink),
                    payload: vec![0; 16],
                })
            }
            Packets::Unknown => Ok(Self {
                socket: packet_socket()?,
                _sink: None,
                // Two addresses of zeros, a local experimental ethertype (IEEE 802), padding.
                payload: [&[0; 12][..], &[0x88, 0xb5], &[0; 18]].concat(),
            }),
        }
    }

    /// Sends for that long.
    ///
    /// # Errors
    /// What sendmmsg(2) says.
    pub fn send_for(&self, time: Duration) -> io::Result<Sent> {
        let mut part = libc::iovec {
            iov_base: self.payload.as_ptr().cast_mut().cast(),
            iov_len: self.payload.len(),
        };
        // SAFETY: mmsghdr is integers and pointers; zero is a value of all of them.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for message in &mut messages {
            message.msg_hdr.msg_iov = &raw mut part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let started = Instant::now();
        let mut packets = 0;
        loop {
            // SAFETY: BATCH messages that point to `part`, which points to the payload; both live.
            let sent = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    messages.as_mut_ptr(),
                    BATCH as u32,
                    0,
                )
            };
            if sent < 0 {
                return Err(io::Error::last_os_error());
            }
            packets += sent as u64;
            let elapsed = started.elapsed();
            if elapsed >= time {
                return Ok(Sent { packets, elapsed });
            }
        }
    }
}

/// A raw packet socket on the loopback device that takes nothing in and bypasses the qdisc.
fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain system calls; the descriptor is new, addresses are of the size given.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let one = 1;
        let rc = libc::setsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const one).cast(),
            size_of::<i32>() as u32,
        );
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = libc::if_nametoindex(c"lo".as_ptr()) as i32;
        let rc = libc::bind(
            fd,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        );
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }
}

/// Runs `work` on a thread in a network namespace of its own with the loopback up, on one CPU if
/// one is named. The namespace ends with the thread.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` where there is no such CPU.
///
/// # Panics
/// Where `work` does.
pub fn in_own_network<T: Send>(
    cpu: Option<usize>,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: changes the namespace of this thread only.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            loopback_up()?;
            if let Some(cpu) = cpu {
                pin(cpu)?;
            }
            Ok(work())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Keeps this thread on one CPU.
///
/// # Errors
/// `EINVAL` where there is no such CPU or it is offline.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: a set of the size given; 0 is this thread.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        if libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is plain data, the name is shorter than its field and ends in zero.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
