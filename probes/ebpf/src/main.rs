//! stalltop's eBPF programs. `cargo xtask ebpf` builds them into `probes/object/stalltop.bpf.o`.
//!
//! One file per group of programs; each says what it hooks, what it writes and what it costs.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod ask;
#[cfg(target_arch = "bpf")]
mod cores;
#[cfg(target_arch = "bpf")]
mod empty;
#[cfg(target_arch = "bpf")]
mod holders;
#[cfg(target_arch = "bpf")]
mod locks;
#[cfg(target_arch = "bpf")]
mod sched;
#[cfg(target_arch = "bpf")]
mod stall;
#[cfg(target_arch = "bpf")]
mod timer;

/// The kernel's GPL-only helpers (`bpf_ktime_get_ns` among them) ask for this.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// No program here has a reachable panic: the verifier refuses one that does.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("built for the host this program does nothing: see `cargo xtask ebpf`");
}
