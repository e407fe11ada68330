//! Which CPUs are present and online (Documentation/admin-guide/cputopology.rst).

use stalltop_model::Reason;
use stalltop_model::sample::CpuSample;

use super::{softirqs, stat};
use crate::cpu_list;
use crate::env::Env;
use crate::file::{self, KeptFile};

/// The present and online CPUs, looked at each tick and parsed when they change.
#[derive(Debug)]
pub(super) struct Cpus {
    present_file: KeptFile,
    online_file: KeptFile,
    present_text: Vec<u8>,
    online_text: Vec<u8>,
    present: Vec<u32>,
    online: Vec<u32>,
    online_known: bool,
    env: Env,
}

impl Cpus {
    pub(super) fn new(env: &Env) -> Self {
        Self {
            present_file: KeptFile::new(env.path("/sys/devices/system/cpu/present")),
            online_file: KeptFile::new(env.path("/sys/devices/system/cpu/online")),
            present_text: Vec::new(),
            online_text: Vec::new(),
            present: Vec::new(),
            online: Vec::new(),
            online_known: false,
            env: env.clone(),
        }
    }

    /// Looks again. Where sysfs is missing, the CPUs that `/proc/softirqs` or `/proc/stat`
    /// listed at first stay.
    pub(super) fn refresh(&mut self) -> Result<(), Reason> {
        match self.present_file.read() {
            Ok(text) if text == self.present_text && !self.present.is_empty() => {}
            Ok(text) => {
                cpu_list::parse(text, &mut self.present);
                self.present_text.clear();
                self.present_text.extend_from_slice(text);
            }
            Err(reason) => {
                if self.present.is_empty() {
                    self.present = listed_in_proc(&self.env).ok_or(reason)?;
                }
            }
        }
        if self.present.is_empty() {
            return Err(Reason::parse(
                &self.present_file.path().to_string_lossy(),
                &self.present_text,
            ));
        }
        match self.online_file.read() {
            Ok(text) if text == self.online_text && !self.online.is_empty() => {}
            Ok(text) => {
                cpu_list::parse(text, &mut self.online);
                self.online_text.clear();
                self.online_text.extend_from_slice(text);
            }
            Err(_) => self.online.clear(),
        }
        self.online_known = !self.online.is_empty();
        Ok(())
    }

    /// Whether sysfs told which CPUs are online; at least the one that asks is.
    pub(super) fn online_known(&self) -> bool {
        self.online_known
    }

    /// Sets the online CPUs from another source.
    pub(super) fn set_online(&mut self, is_online: impl Fn(u32) -> bool) {
        self.online.clear();
        self.online
            .extend(self.present.iter().copied().filter(|cpu| is_online(*cpu)));
    }

    /// The online CPUs, ascending.
    pub(super) fn online(&self) -> &[u32] {
        &self.online
    }

    /// One more than the highest present CPU.
    pub(super) fn limit(&self) -> usize {
        self.present.last().map_or(0, |last| *last as usize + 1)
    }

    /// Gives `cpus` one entry per present CPU, keeping entries that fit.
    pub(super) fn shape(&self, cpus: &mut Vec<CpuSample>) {
        cpus.resize_with(self.present.len(), CpuSample::default);
        let mut online = self.online.iter().copied().peekable();
        for (sample, cpu) in cpus.iter_mut().zip(&self.present) {
            if sample.cpu != *cpu {
                *sample = CpuSample {
                    cpu: *cpu,
                    ..CpuSample::default()
                };
            }
            while online.next_if(|next| next < cpu).is_some() {}
            sample.online = online.next_if_eq(cpu).is_some();
        }
    }
}

fn listed_in_proc(env: &Env) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    if let Ok(text) = file::read(&env.path("/proc/softirqs"))
        && softirqs::header(file::lines(&text).next()?, &mut cpus).is_ok()
    {
        cpus.retain(|cpu| *cpu < cpu_list::CPU_LIMIT);
    }
    if cpus.is_empty() {
        let text = file::read(&env.path("/proc/stat")).ok()?;
        let keep = |cpu, _| {
            if cpu < cpu_list::CPU_LIMIT {
                cpus.push(cpu);
            }
        };
        stat::parse(&text, 1, keep).ok()?;
    }
    cpus.sort_unstable();
    cpus.dedup();
    (!cpus.is_empty()).then_some(cpus)
}
