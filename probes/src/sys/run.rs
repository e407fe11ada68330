//! Running a program once from its loader, and single values of array maps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Cmd, Request, bpf};

#[repr(C)]
struct MapElement {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl MapElement {
    fn of(map: BorrowedFd<'_>, index: &u32, value: u64) -> Self {
        Self {
            map_fd: map.as_raw_fd() as u32,
            pad: 0,
            key: std::ptr::from_ref(index) as u64,
            value,
            flags: 0,
        }
    }
}

#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

// SAFETY: repr(C) without implicit padding; the callers below keep what the pointers point to.
unsafe impl Request for MapElement {}
// SAFETY: as above.
unsafe impl Request for TestRun {}

/// Puts a program into a table of programs.
///
/// # Errors
/// `EINVAL` where the program is of another type than those already in it.
pub fn set_program(map: BorrowedFd<'_>, index: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    set(map, index, &(program.as_raw_fd() as u32).to_ne_bytes())
}

/// Writes one value of an array map. `value` must be as long as the map's values.
///
/// # Errors
/// `E2BIG` where there is no such index.
pub fn set(map: BorrowedFd<'_>, index: u32, value: &[u8]) -> io::Result<()> {
    let mut request = MapElement::of(map, &index, value.as_ptr() as u64);
    bpf(Cmd::MapUpdateElem, &mut request)?;
    Ok(())
}

/// Reads one value of an array map. `value` must be as long as the map's values.
///
/// # Errors
/// `ENOENT` where there is no such index.
pub fn get(map: BorrowedFd<'_>, index: u32, value: &mut [u8]) -> io::Result<()> {
    let mut request = MapElement::of(map, &index, value.as_mut_ptr() as u64);
    bpf(Cmd::MapLookupElem, &mut request)?;
    Ok(())
}

/// Runs a program once in this thread (`BPF_PROG_TEST_RUN`), on a packet of its own where its
/// type takes packets. A packet program runs with bottom halves off (`bpf_test_run`,
/// net/bpf/test_run.c, 6.18), a raw tracepoint's with preemption off.
///
/// # Errors
/// `ENOTSUPP` (524) or `EINVAL` where the kernel does not run this type so (raw tracepoints:
/// from 5.10 on).
pub fn run_once(program: BorrowedFd<'_>, packet: Option<&[u8]>) -> io::Result<()> {
    test_run(program, packet.unwrap_or_default(), &[]).map(drop)
}

/// Runs a raw tracepoint's program once in this thread, as if the tracepoint had passed it `args`,
/// and gives what it returns. The kernel does not leave the run out although the program runs
/// already.
///
/// # Errors
/// As [`run_once`]; `EINVAL` where the program looks at more arguments.
pub fn run_raw(program: BorrowedFd<'_>, args: &[u64]) -> io::Result<u32> {
    test_run(program, &[], args)
}

fn test_run(program: BorrowedFd<'_>, packet: &[u8], args: &[u64]) -> io::Result<u32> {
    let given = |bytes: usize, at: u64| {
        if bytes == 0 {
            (0, 0)
        } else {
            (at, bytes as u32)
        }
    };
    let (data_in, data_size_in) = given(packet.len(), packet.as_ptr() as u64);
    let (ctx_in, ctx_size_in) = given(size_of_val(args), args.as_ptr() as u64);
    let mut request = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        retval: 0,
        data_size_in,
        data_size_out: 0,
        data_in,
        data_out: 0,
        // Raw tracepoint programs must leave it 0; for packets 0 means once.
        repeat: 0,
        duration: 0,
        ctx_size_in,
        ctx_size_out: 0,
        ctx_in,
        ctx_out: 0,
    };
    bpf(Cmd::ProgTestRun, &mut request)?;
    Ok(request.retval)
}
