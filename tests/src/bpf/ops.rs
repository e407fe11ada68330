//! Programs in place of functions: of the kernel's (`struct_ops`) and of other programs.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::btf::{self, STRUCT, Types};
use super::{Attr, Load, ProgramType, attach, returning};

/// What a way to control congestion must have (`tcp_validate_congestion_control`,
/// net/ipv4/tcp_cong.c).
const CONGESTION: [&str; 3] = ["ssthresh", "undo_cwnd", "cong_avoid"];

/// A way to control TCP's congestion in a map: with programs that do next to nothing. It is in use
/// at once and until somebody deletes it from its map, or, `by_link`, while [`link`] has it (6.4 and
/// later). Gives the map and its programs.
///
/// # Errors
/// The kernel's answer.
pub fn congestion_control(name: &str, by_link: bool) -> io::Result<(OwnedFd, Vec<OwnedFd>)> {
    let types = Types::read()?;
    let operations = types.id("tcp_congestion_ops", STRUCT)?;
    let value_type = types.id("bpf_struct_ops_tcp_congestion_ops", STRUCT)?;
    let (_, data) = types.member(value_type, "data")?;
    let size = types.size(value_type)?;
    let mut value = vec![0_u8; size as usize];
    let mut programs = Vec::new();
    for function in CONGESTION {
        let (member, offset) = types.member(operations, function)?;
        let program = returning(2);
        let program = Load::new(ProgramType::StructOps, function, &program)
            .attach_type(member)
            .btf(operations)
            .call()?;
        let fd = program.as_raw_fd() as u64;
        value[data + offset..][..8].copy_from_slice(&fd.to_ne_bytes());
        programs.push(program);
    }
    let (_, offset) = types.member(operations, "name")?;
    value[data + offset..][..name.len()].copy_from_slice(name.as_bytes());
    // BPF_F_LINK
    let flags = if by_link { 1 << 13 } else { 0 };
    // Types of one's own must be there, whatever they are (`map_create`, kernel/bpf/syscall.c).
    let own = btf::packet_function()?;
    let map = Attr::new()
        .u32(0, 26)
        .u32(4, 4)
        .u32(8, size)
        .u32(12, 1)
        .u32(16, flags)
        .name(28, name)
        .fd(48, &own)
        .u32(60, value_type)
        .open(0)?;
    super::update(&map, &value, 0)?;
    Ok((map, programs))
}

/// Has the kernel use what is in a map of [`congestion_control`], as long as the link is open.
///
/// # Errors
/// The kernel's answer.
pub fn link(map: &OwnedFd) -> io::Result<OwnedFd> {
    Attr::new().fd(0, map).u32(8, attach::STRUCT_OPS).open(28)
}

/// A program for network devices, and one that replaces its function.
///
/// # Errors
/// The kernel's answer.
pub fn replaced(name: &str) -> io::Result<[OwnedFd; 3]> {
    let types = btf::packet_function()?;
    let pass = returning(2);
    let target = Load::new(ProgramType::Xdp, "replaced", &pass)
        .function(&types)
        .call()?;
    let program = Load::new(ProgramType::Ext, name, &pass)
        .function(&types)
        .btf(btf::PACKET_FUNCTION)
        .target(&target)
        .call()?;
    let link = super::raw_tracepoint(&program, None)?;
    Ok([target, program, link])
}
