//! Network devices and routes by rtnetlink(7), for programs that sit on them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;

/// Makes a pair of netkit devices (6.7 and later).
///
/// # Errors
/// The kernel's answer.
pub fn make_netkit(name: &str) -> io::Result<()> {
    let kind = attribute(1, b"netkit\0");
    let mut body = vec![0; 16];
    body.extend(attribute(3, &[name.as_bytes(), &[0]].concat()));
    // IFLA_LINKINFO
    body.extend(attribute(18, &kind));
    ask(RTM_NEWLINK, &body)
}

/// Sends what goes to 198.51.100.0/24 to a device, through a program that may change it
/// (LWTUNNEL_ENCAP_BPF, include/uapi/linux/lwtunnel.h).
///
/// # Errors
/// The kernel's answer.
pub fn route_through(program: &OwnedFd, device: u32) -> io::Result<()> {
    // struct rtmsg: IPv4, 24 bits, main table, static, scope of a link, unicast.
    let mut body = vec![2, 24, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0];
    body.extend(attribute(1, &[198, 51, 100, 0]));
    body.extend(attribute(4, &device.to_ne_bytes()));
    body.extend(attribute(21, &6_u16.to_ne_bytes()));
    let fd = program.as_raw_fd().cast_unsigned();
    let named = [attribute(1, &fd.to_ne_bytes()), attribute(2, b"lwt_xmit\0")];
    // LWT_BPF_XMIT is 3; nested attributes have a flag here.
    let transmit = attribute(3 | 0x8000, &named.concat());
    body.extend(attribute(22 | 0x8000, &transmit));
    ask(RTM_NEWROUTE, &body)
}

fn attribute(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = 4 + body.len();
    let mut out = Vec::with_capacity(length.next_multiple_of(4));
    out.extend_from_slice(&(length as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(body);
    out.resize(length.next_multiple_of(4), 0);
    out
}

/// Has something made, and waits for the answer.
fn ask(kind: u16, body: &[u8]) -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut request = Vec::new();
    request.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    // NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE
    request.extend_from_slice(&0x605_u16.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(body);
    let to = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &to)?;
    let mut answer = [0_u8; 4096];
    rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // struct nlmsgerr begins with the error.
    let code = answer[16..]
        .first_chunk()
        .map_or(0, |b| i32::from_ne_bytes(*b));
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
    }
}
