//! The kernel's BTF: it comes from a trusted file, but a wrong offset would be read by eBPF.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stalltop_probes::btf::Btf;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(btf) = Btf::parse(bytes) {
        let _ = btf.field("task_struct", "sched_info.last_queued");
        let _ = btf.enumerators("cpu_usage_stat");
        let _ = btf.tracepoint("sched_switch");
    }
});
