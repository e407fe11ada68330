//! Where each CPU sits (Documentation/admin-guide/cputopology.rst,
//! Documentation/ABI/testing/sysfs-devices-system-cpu).

use stalltop_model::sample::CpuTopology;

use crate::cpu_list;
use crate::env::Env;
use crate::file;

/// The topology of each present CPU, ascending. sysfs tells nothing of an offline CPU:
/// it is shown as a core and cache of its own.
pub fn topology(env: &Env) -> Vec<CpuTopology> {
    let list = |path: &str| cpu_list::cpus(&file::read(&env.path(path)).unwrap_or_default());
    let mut cpus: Vec<CpuTopology> = list("/sys/devices/system/cpu/present")
        .into_iter()
        .map(|cpu| CpuTopology {
            cpu,
            core: cpu,
            llc: cpu,
            package: 0,
            node: 0,
        })
        .collect();
    let number = |path: &str| {
        let text = file::read(&env.path(path)).ok()?;
        u32::try_from(file::number(&text)?.0).ok()
    };
    let mut cache_known = vec![false; cpus.len()];
    for i in 0..cpus.len() {
        let cpu = cpus[i].cpu;
        let dir = format!("/sys/devices/system/cpu/cpu{cpu}");
        if let Some(core) = number(&format!("{dir}/topology/core_id")) {
            cpus[i].core = core;
        }
        if let Some(package) = number(&format!("{dir}/topology/physical_package_id")) {
            cpus[i].package = package;
        }
        if cache_known[i] {
            continue;
        }
        // The caches are numbered from the core outwards; one read serves all that share it.
        let shared = (0..=4).rev().find_map(|index| {
            let list = list(&format!("{dir}/cache/index{index}/shared_cpu_list"));
            (!list.is_empty()).then_some(list)
        });
        let Some(shared) = shared else { continue };
        for sharing in &shared {
            if let Ok(j) = cpus.binary_search_by_key(sharing, |c| c.cpu) {
                cpus[j].llc = shared[0];
                cache_known[j] = true;
            }
        }
    }
    for node in list("/sys/devices/system/node/online") {
        for cpu in list(&format!("/sys/devices/system/node/node{node}/cpulist")) {
            if let Ok(i) = cpus.binary_search_by_key(&cpu, |c| c.cpu) {
                cpus[i].node = node;
            }
        }
    }
    cpus
}
