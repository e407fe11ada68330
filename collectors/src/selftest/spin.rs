//! eBPF programs that hold a CPU until a moment that user space names, and write down from when
//! to when they did: trouble of a length that is known to the microsecond.
//!
//! A program may not loop without end: it looks at the clock in [`ROUNDS`] rounds and then calls
//! itself, up to the kernel's limit of 33 tail calls (`MAX_TAIL_CALL_CNT`, include/linux/bpf.h).
//! At 25 ns a look that is 100 ms. It works from 5.8 on (`bpf_ktime_get_boot_ns`); `bpf_loop`
//! would need 5.17.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use stalltop_probes::sys::load::{self, Program};
use stalltop_probes::sys::run;

/// Rounds before a program calls itself again. The verifier follows every round: 8,192 jumps are
/// too many for it (`BPF_COMPLEXITY_LIMIT_JMP_SEQ`, kernel/bpf/verifier.c), a million
/// instructions as well.
const ROUNDS: i32 = 2_000;
/// Looks at the clock in a round, of which the last decides: about 1.5 us.
const LOOKS: usize = 64;

/// What a program spins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A socket's filter: in the softirq that delivers a packet.
    SocketFilter,
    /// A packet program that first gives a copy of its packet to the loopback device, which
    /// raises NET_RX on this CPU.
    RaisesNetRx,
    /// A raw tracepoint's program.
    RawTracepoint,
    /// A raw tracepoint's program that does nothing in other processes than this one.
    OwnRawTracepoint {
        /// That process.
        tgid: u32,
    },
}

impl Place {
    /// `enum bpf_prog_type`.
    const fn program_type(self) -> u32 {
        match self {
            Self::SocketFilter => 1,
            Self::RaisesNetRx => 3,
            Self::RawTracepoint | Self::OwnRawTracepoint { .. } => load::PROG_TYPE_RAW_TRACEPOINT,
        }
    }
}

/// When a program held the CPU, `CLOCK_BOOTTIME`, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
}

/// A loaded program and what it shares with us. Nothing of it outlives this process.
#[derive(Debug)]
pub(super) struct Spinner {
    program: OwnedFd,
    state: OwnedFd,
    /// Keeps the program's way back to itself.
    _again: OwnedFd,
}

// The words of the shared state.
const DURATION: i16 = 0;
const DEADLINE: i16 = 8;
const BEGIN: i16 = 16;
const END: i16 = 24;
const STATE_BYTES: usize = 32;

impl Spinner {
    /// Loads the program.
    ///
    /// # Errors
    /// `EPERM` without CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; what the verifier says.
    pub(super) fn load(place: Place, name: &str) -> io::Result<Self> {
        let state = load::create_array("stalltop_hold", STATE_BYTES as u32, 1, 0)?;
        let again = load::create_program_array("stalltop_again", 1)?;
        let insns = program(place, state.as_fd(), again.as_fd());
        let program = load::load_program(
            &Program {
                name,
                kind: place.program_type(),
                attach_type: 0,
                attach_btf_id: 0,
                license: c"GPL",
                insns: &insns,
            },
            None,
        )?;
        run::set_program(again.as_fd(), 0, program.as_fd())?;
        Ok(Self {
            program,
            state,
            _again: again,
        })
    }

    /// The program, to be attached.
    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Lets the program's next run hold the CPU for that long; later runs return at once.
    ///
    /// # Errors
    /// None known.
    pub(super) fn arm(&self, duration_ns: u64) -> io::Result<()> {
        let mut value = [0; STATE_BYTES];
        value[..8].copy_from_slice(&duration_ns.to_ne_bytes());
        run::set(self.state.as_fd(), 0, &value)
    }

    /// When it held the CPU since it was armed; none where it did not run.
    ///
    /// # Errors
    /// None known.
    pub(super) fn held(&self) -> io::Result<Option<Held>> {
        let mut value = [0; STATE_BYTES];
        run::get(self.state.as_fd(), 0, &mut value)?;
        let word = |at: i16| {
            let at = at as usize;
            u64::from_ne_bytes(std::array::from_fn(|i| value[at + i]))
        };
        let (begin_ns, end_ns) = (word(BEGIN), word(END));
        Ok((begin_ns != 0 && end_ns != 0).then_some(Held { begin_ns, end_ns }))
    }

    /// Runs the program in this thread, on a packet where it takes one.
    ///
    /// # Errors
    /// `ENOTSUPP` or `EINVAL` where the kernel does not run such a program so.
    pub(super) fn run(&self, place: Place) -> io::Result<()> {
        // Two addresses and a type that no protocol takes.
        let packet = [0; 64];
        let packet = (place.program_type() == 3).then_some(&packet[..]);
        run::run_once(self.program.as_fd(), packet)
    }
}

// Opcodes (include/uapi/linux/bpf.h, bpf_common.h).
const MOV_IMM: u8 = 0xb7;
const MOV: u8 = 0xbf;
const ADD: u8 = 0x0f;
const ADD_IMM: u8 = 0x07;
const RSH_IMM: u8 = 0x77;
const LOAD: u8 = 0x79;
const STORE: u8 = 0x7b;
const STORE_IMM_32: u8 = 0x62;
const JEQ_IMM: u8 = 0x15;
const JNE_IMM: u8 = 0x55;
const JGE: u8 = 0x3d;
const JLT_IMM: u8 = 0xa5;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD_MAP: u8 = 0x18;
/// `BPF_PSEUDO_MAP_FD` as the source register of [`LOAD_MAP`].
const MAP_FD: u8 = 1;

// Helpers (`enum bpf_func_id`).
const MAP_LOOKUP: i32 = 1;
const TAIL_CALL: i32 = 12;
const CLONE_REDIRECT: i32 = 13;
const GET_CURRENT_PID_TGID: i32 = 14;
const KTIME_GET_BOOT_NS: i32 = 125;

/// `ifindex` of the loopback device of every network namespace (drivers/net/loopback.c).
const LOOPBACK: i32 = 1;
/// `BPF_F_INGRESS`.
const INGRESS: i32 = 1;

/// A program as it is written: jumps go to labels until the end.
struct Code {
    insns: Vec<[u8; 8]>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Spin,
    Round,
    Done,
    Out,
}

impl Code {
    fn op(&mut self, code: u8, to: u8, from: u8, offset: i16, value: i32) {
        let [o0, o1] = offset.to_ne_bytes();
        let [v0, v1, v2, v3] = value.to_ne_bytes();
        self.insns
            .push([code, to | from << 4, o0, o1, v0, v1, v2, v3]);
    }

    fn jump(&mut self, code: u8, left: u8, right: u8, value: i32, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.op(code, left, right, 0, value);
    }

    fn label(&mut self, label: Label) {
        self.labels.push((label, self.insns.len()));
    }

    fn map(&mut self, to: u8, map: BorrowedFd<'_>) {
        use std::os::fd::AsRawFd;
        self.op(LOAD_MAP, to, MAP_FD, 0, map.as_raw_fd());
        self.op(0, 0, 0, 0, 0);
    }

    fn call(&mut self, helper: i32) {
        self.op(CALL, 0, 0, 0, helper);
    }

    fn bytes(mut self) -> Vec<u8> {
        for (at, label) in &self.jumps {
            let to = self.labels.iter().find(|(l, _)| l == label);
            let to = to.map_or(*at, |(_, to)| *to);
            // An offset counts from the instruction after the jump.
            let offset = (to as i64 - *at as i64 - 1) as i16;
            self.insns[*at][2..4].copy_from_slice(&offset.to_ne_bytes());
        }
        self.insns.concat()
    }
}

/// The instructions: r6 the context, r7 the shared state, r8 the deadline, r9 the round.
fn program(place: Place, state: BorrowedFd<'_>, again: BorrowedFd<'_>) -> Vec<u8> {
    let mut code = Code {
        insns: Vec::new(),
        jumps: Vec::new(),
        labels: Vec::new(),
    };
    let c = &mut code;
    c.op(MOV, 6, 1, 0, 0);
    if let Place::OwnRawTracepoint { tgid } = place {
        c.call(GET_CURRENT_PID_TGID);
        c.op(RSH_IMM, 0, 0, 0, 32);
        c.jump(JNE_IMM, 0, 0, tgid as i32, Label::Out);
    }
    c.op(STORE_IMM_32, 10, 0, -4, 0);
    c.op(MOV, 2, 10, 0, 0);
    c.op(ADD_IMM, 2, 0, 0, -4);
    c.map(1, state);
    c.call(MAP_LOOKUP);
    c.jump(JEQ_IMM, 0, 0, 0, Label::Out);
    c.op(MOV, 7, 0, 0, 0);
    // Armed, and not done yet?
    c.op(LOAD, 1, 7, DURATION, 0);
    c.jump(JEQ_IMM, 1, 0, 0, Label::Out);
    c.op(LOAD, 1, 7, END, 0);
    c.jump(JNE_IMM, 1, 0, 0, Label::Out);
    // Not the first run of this chain: straight on.
    c.op(LOAD, 8, 7, DEADLINE, 0);
    c.jump(JNE_IMM, 8, 0, 0, Label::Spin);
    c.call(KTIME_GET_BOOT_NS);
    c.op(STORE, 7, 0, BEGIN, 0);
    c.op(LOAD, 8, 7, DURATION, 0);
    c.op(ADD, 8, 0, 0, 0);
    c.op(STORE, 7, 8, DEADLINE, 0);
    if place == Place::RaisesNetRx {
        c.op(MOV, 1, 6, 0, 0);
        c.op(MOV_IMM, 2, 0, 0, LOOPBACK);
        c.op(MOV_IMM, 3, 0, 0, INGRESS);
        c.call(CLONE_REDIRECT);
    }
    c.label(Label::Spin);
    c.op(MOV_IMM, 9, 0, 0, 0);
    c.label(Label::Round);
    for _ in 0..LOOKS {
        c.call(KTIME_GET_BOOT_NS);
    }
    c.jump(JGE, 0, 8, 0, Label::Done);
    c.op(ADD_IMM, 9, 0, 0, 1);
    c.jump(JLT_IMM, 9, 0, ROUNDS, Label::Round);
    c.op(MOV, 1, 6, 0, 0);
    c.map(2, again);
    c.op(MOV_IMM, 3, 0, 0, 0);
    c.call(TAIL_CALL);
    // The limit of tail calls: shorter than was asked for, which the stamps tell.
    c.call(KTIME_GET_BOOT_NS);
    c.label(Label::Done);
    c.op(STORE, 7, 0, END, 0);
    c.label(Label::Out);
    c.op(MOV_IMM, 0, 0, 0, 0);
    c.op(EXIT, 0, 0, 0, 0);
    code.bytes()
}
