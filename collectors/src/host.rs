//! Facts about the host that hold while it is up.

mod preemption;
mod topology;

pub use preemption::{parse_sched_preempt, preemption};
pub use topology::topology;

use stalltop_model::sample::Host;
use stalltop_model::{Name, Reading, Reason};

use crate::cpu_list;
use crate::env::Env;
use crate::file;
use crate::kernel_config::KernelConfig;

/// Gathers the facts. Takes a few milliseconds, mostly for the topology of many CPUs.
pub fn gather(env: &Env) -> Host {
    let text = |path: &str| file::read_text(&env.path(path));
    let name = |path: &str| text(path).unwrap_or_default().into();
    let live = env.root() == std::path::Path::new("/");
    // Unpacking /proc/config.gz takes 2 ms: only where nothing cheaper tells.
    let config = std::cell::LazyCell::new(|| KernelConfig::find(env));
    let possible = file::read(&env.path("/sys/devices/system/cpu/possible"))
        .map(|list| cpu_list::cpus(&list).len() as u32);
    let topology = topology(env);
    Host {
        hostname: name("/proc/sys/kernel/hostname"),
        release: name("/proc/sys/kernel/osrelease"),
        machine: machine(env),
        possible_cpus: possible.unwrap_or(topology.len() as u32),
        topology,
        preemption: preemption(env, || config.as_ref().map_err(Clone::clone)),
        hz: match live.then(tick_hz).flatten() {
            Some(hz) => Reading::Value(hz),
            None => config
                .as_ref()
                .map_err(Clone::clone)
                .and_then(config_hz)
                .into(),
        },
        nohz_full: text("/sys/devices/system/cpu/nohz_full")
            .map(|list| Name::from(if list == "(null)" { "" } else { list.as_str() }))
            .map_err(|_| Reason::NotBuilt {
                config: "CONFIG_NO_HZ_FULL".into(),
            })
            .into(),
        lockdown: env.lockdown.clone(),
        virtual_machine: virtual_machine(env),
    }
}

/// `uname -m`; `/proc/sys/kernel/arch` (6.1+) for recorded hosts.
fn machine(env: &Env) -> Name {
    match file::read_text(&env.path("/proc/sys/kernel/arch")) {
        Ok(arch) => arch.into(),
        Err(_) => rustix::system::uname().machine().to_string_lossy().into(),
    }
}

/// `CONFIG_HZ` of the running kernel: the coarse clocks step once per timer tick, and
/// clock_getres(2) gives the step (kernel/time/posix-timers.c, `posix_get_coarse_res`).
pub(crate) fn tick_hz() -> Option<u32> {
    let step = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    let ns = u64::try_from(step.tv_nsec).ok().filter(|ns| *ns > 0)?;
    u32::try_from((1_000_000_000 + ns / 2) / ns).ok()
}

fn config_hz(config: &KernelConfig) -> Result<u32, Reason> {
    let hz = config.get("CONFIG_HZ").and_then(|hz| hz.parse().ok());
    hz.ok_or(Reason::Parse {
        path: "the kernel's configuration".into(),
        near: "CONFIG_HZ".into(),
    })
}

/// Whether this is a virtual machine: x86's CPUID bit as `/proc/cpuinfo` shows it; elsewhere
/// the device tree's hypervisor node or the names that hypervisors give their machines.
pub(crate) fn virtual_machine(env: &Env) -> Reading<bool> {
    if let Ok(start) = first_kilobytes(&env.path("/proc/cpuinfo"))
        && let Some(flags) = file::lines(&start).find(|line| line.starts_with(b"flags"))
    {
        return Reading::Value(file::words(flags).any(|flag| flag == b"hypervisor"));
    }
    if env
        .path("/sys/firmware/devicetree/base/hypervisor")
        .exists()
    {
        return Reading::Value(true);
    }
    match file::read_text(&env.path("/sys/class/dmi/id/sys_vendor")) {
        Ok(vendor) => Reading::Value(
            ["QEMU", "KVM", "VMware", "Xen", "Parallels", "innotek"]
                .iter()
                .any(|name| vendor.starts_with(name)),
        ),
        Err(_) => Reading::Off(Reason::NoFile {
            path: "/sys/class/dmi/id/sys_vendor".into(),
        }),
    }
}

/// The first CPU's part of `/proc/cpuinfo`: printing all of 1,024 CPUs takes long.
fn first_kilobytes(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut start = vec![0; 4096];
    let read = std::fs::File::open(path)?.read(&mut start)?;
    start.truncate(read);
    Ok(start)
}

#[cfg(test)]
mod tests;
