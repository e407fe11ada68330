//! Which BPF programs sit on network devices of this network namespace: XDP (`RTM_GETLINK`) and
//! tc filters (`RTM_GETTFILTER`), rtnetlink(7). Devices of other network namespaces do not show.
//!
//! Three dumps and four attributes are wanted, so the parser is here; a netlink crate would bring
//! some thirty thousand lines for them.

use std::io;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const RTM_GETLINK: u16 = 18;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;

const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

/// `ffff:`, the handle of the clsact and ingress qdiscs (include/uapi/linux/pkt_sched.h).
const CLSACT: u32 = 0xffff_0000;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: Vec<u8>,
    /// Programs of XDP: id and mode.
    pub(super) xdp: Vec<(u32, &'static str)>,
}

/// A tc filter that is a BPF program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) device: u32,
    pub(super) program: u32,
    /// `ingress`, `egress`, or the qdisc's handle.
    pub(super) at: String,
    /// As its user named it.
    pub(super) name: Vec<u8>,
}

/// All devices of this network namespace.
///
/// # Errors
/// The kernel's errno.
pub(super) fn devices() -> io::Result<Vec<Device>> {
    let mut out = Vec::new();
    dump(RTM_GETLINK, &[0; 16], |body| out.extend(device(body)))?;
    Ok(out)
}

/// All tc filters of `devices` that are BPF programs and sit at a qdisc; those at a class below
/// it and BPF actions of other filters are not looked for.
///
/// # Errors
/// The kernel's errno.
pub(super) fn filters() -> io::Result<Vec<Filter>> {
    let mut qdiscs = Vec::new();
    dump(RTM_GETQDISC, &[0; 20], |body| qdiscs.extend(qdisc(body)))?;
    let mut out = Vec::new();
    for (device, handle, kind) in qdiscs {
        let places = match kind.as_slice() {
            b"clsact" => vec![
                (CLSACT_INGRESS, "ingress".to_owned()),
                (CLSACT_EGRESS, "egress".to_owned()),
            ],
            b"ingress" => vec![(CLSACT, "ingress".to_owned())],
            // Queues of a device without filters of their own have no handle.
            _ if handle == 0 => continue,
            _ => vec![(
                handle,
                format!(
                    "qdisc {:x}: ({})",
                    handle >> 16,
                    String::from_utf8_lossy(&kind)
                ),
            )],
        };
        for (parent, at) in places {
            let mut request = [0_u8; 20];
            request[4..8].copy_from_slice(&device.to_ne_bytes());
            request[12..16].copy_from_slice(&parent.to_ne_bytes());
            let mut add = |body: &[u8]| out.extend(filter(body, &at));
            match dump(RTM_GETTFILTER, &request, &mut add) {
                // Classless qdiscs take no filters; a device may be gone by now.
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENODEV | libc::ENOENT)
                    ) => {}
                other => other?,
            }
        }
    }
    Ok(out)
}

/// Asks for a dump and hands over the body of each answer.
fn dump(kind: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is protocol 0.
        None,
    )?;
    let mut request = Vec::with_capacity(16 + body.len());
    request.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(body);
    rustix::net::sendto(
        &socket,
        &request,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    // The kernel's dumps come in messages of at most 32 KiB (netlink_dump, net/netlink/af_netlink.c).
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let (n, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        for (kind, body) in messages(&buffer[..n]) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
                    return match code {
                        0 => Ok(()),
                        _ => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                    };
                }
                _ => each(body),
            }
        }
        if n == 0 {
            return Ok(());
        }
    }
}

/// Splits what was received into messages: type and body.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let body = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Splits attributes: type without its flags, and contents.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head: [u8; 4] = *bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let body = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A string attribute without its terminating zero.
fn string(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0);
    bytes[..end.unwrap_or(bytes.len())].to_vec()
}

/// `struct ifinfomsg` and its attributes.
fn device(body: &[u8]) -> Option<Device> {
    /// Attributes of IFLA_XDP: the program in generic, driver or hardware mode.
    const MODES: [(u16, &str); 3] = [(5, "driver"), (6, "generic"), (7, "hardware")];
    let mut device = Device {
        index: u32_at(body, 4)?,
        name: Vec::new(),
        xdp: Vec::new(),
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => device.name = string(value),
            IFLA_XDP => {
                for (kind, value) in attributes(value) {
                    let mode = MODES.iter().find(|(mode, _)| *mode == kind);
                    if let (Some((_, mode)), Some(id)) = (mode, u32_at(value, 0))
                        && id != 0
                    {
                        device.xdp.push((id, mode));
                    }
                }
            }
            _ => {}
        }
    }
    Some(device)
}

/// `struct tcmsg` of a qdisc: device, handle, kind.
fn qdisc(body: &[u8]) -> Option<(u32, u32, Vec<u8>)> {
    let (device, handle) = (u32_at(body, 4)?, u32_at(body, 8)?);
    let (_, kind) = attributes(body.get(20..)?).find(|(kind, _)| *kind == TCA_KIND)?;
    Some((device, handle, string(kind)))
}

/// `struct tcmsg` of a filter, if it is a BPF program.
fn filter(body: &[u8], at: &str) -> Option<Filter> {
    let device = u32_at(body, 4)?;
    let (mut program, mut name, mut bpf) = (None, Vec::new(), false);
    for (kind, value) in attributes(body.get(20..)?) {
        match kind {
            TCA_KIND => bpf = string(value) == b"bpf",
            TCA_OPTIONS => {
                for (kind, value) in attributes(value) {
                    match kind {
                        TCA_BPF_ID => program = u32_at(value, 0),
                        TCA_BPF_NAME => name = string(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Filter {
        device,
        program: program.filter(|_| bpf)?,
        at: at.to_owned(),
        name,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(4 + body.len() as u16).to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    #[test]
    fn a_device_tells_its_xdp_program() {
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        body.extend(attribute(IFLA_IFNAME, b"veth0\0"));
        let xdp = [
            attribute(2, &[2]),
            attribute(4, &41_u32.to_ne_bytes()),
            attribute(6, &41_u32.to_ne_bytes()),
        ];
        body.extend(attribute(IFLA_XDP | 0x8000, &xdp.concat()));
        let device = device(&body).unwrap();
        assert_eq!(
            (device.index, device.name.as_slice()),
            (7, b"veth0".as_slice())
        );
        assert_eq!(device.xdp, [(41, "generic")]);
    }

    #[test]
    fn a_filter_of_another_kind_is_no_program() {
        let body = |kind: &[u8]| {
            let mut body = vec![0; 20];
            body[4..8].copy_from_slice(&3_u32.to_ne_bytes());
            body.extend(attribute(TCA_KIND, kind));
            let options = [
                attribute(TCA_BPF_NAME, b"x.o:[tc]\0"),
                attribute(TCA_BPF_ID, &9_u32.to_ne_bytes()),
            ];
            body.extend(attribute(TCA_OPTIONS, &options.concat()));
            body
        };
        let found = filter(&body(b"bpf\0"), "ingress").unwrap();
        assert_eq!((found.device, found.program), (3, 9));
        assert_eq!(found.name, b"x.o:[tc]");
        assert_eq!(filter(&body(b"u32\0"), "ingress"), None);
    }

    #[test]
    fn this_namespace_has_its_loopback() {
        let devices = devices().unwrap();
        assert!(devices.iter().any(|d| d.name == b"lo" && d.index > 0));
        filters().unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for (_, body) in messages(&bytes) {
                let _ = (device(body), qdisc(body), filter(body, ""));
            }
            let _ = (device(&bytes), qdisc(&bytes), filter(&bytes, ""));
        }
    }
}
