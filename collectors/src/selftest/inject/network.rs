//! Kind 2: a NET_RX handler that takes long.
//!
//! A datagram to a socket of this process, over the loopback of a network namespace of its own:
//! the softirq that delivers it runs the socket's filter, an eBPF program that spins
//! (`sk_filter_trim_cap` in `udp_queue_rcv_one_skb`, net/ipv4/udp.c).

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use super::super::spin::{Held, Place, Spinner};
use super::{Injected, Trouble, about};
use crate::sys::isolate;

pub(super) struct Handler {
    spinner: Spinner,
    socket: UdpSocket,
}

impl Handler {
    pub(super) fn new() -> io::Result<Self> {
        isolate::own_network().map_err(about("a network namespace of its own"))?;
        let spinner = Spinner::load(Place::SocketFilter, "st_handler")
            .map_err(about("to load a socket filter"))?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(socket.local_addr()?)?;
        isolate::filter(socket.as_fd(), spinner.program())
            .map_err(about("to attach a socket filter"))?;
        Ok(Self { spinner, socket })
    }

    /// Sends one datagram, whose handler takes that long. The filter drops it.
    pub(super) fn hold(&self, duration_ns: u64) -> io::Result<Option<Held>> {
        self.spinner.arm(duration_ns)?;
        self.socket
            .send(&[0; 16])
            .map_err(about("to send a datagram"))?;
        self.spinner.held()
    }
}

impl Trouble for Handler {
    fn make(&mut self, duration_ns: u64) -> io::Result<Option<Injected>> {
        Ok(self.hold(duration_ns)?.map(|held| Injected {
            from_ns: held.begin_ns,
            begin_ns: held.begin_ns,
            end_ns: held.end_ns,
        }))
    }
}
