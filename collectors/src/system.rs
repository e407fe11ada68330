//! Whole-host figures: uptime, load, memory, pressure.

use stalltop_model::sample::{PressureLine, Sample};
use stalltop_model::{Reading, Reason};

use crate::Collector;
use crate::env::{Env, KernelVersion};
use crate::file::{self, KeptFile};
use crate::kernel_config::KernelConfig;

/// Reads `/proc/uptime`, `/proc/loadavg`, `/proc/meminfo` and `/proc/pressure/*`.
#[derive(Debug)]
pub struct SystemCollector {
    uptime: KeptFile,
    loadavg: KeptFile,
    meminfo: KeptFile,
    cpu: PressureFile,
    memory: PressureFile,
    io: PressureFile,
    irq: PressureFile,
}

impl SystemCollector {
    /// Names the files below the root of `env`; they are opened at the first tick.
    pub fn new(env: &Env) -> Self {
        let kept = |path: &str| KeptFile::new(env.path(path));
        let missing = missing_pressure(env);
        let pressure = |name: &str, kind: &'static [u8], missing: Reason| PressureFile {
            file: kept(&format!("/proc/pressure/{name}")),
            kind,
            missing,
        };
        Self {
            uptime: kept("/proc/uptime"),
            loadavg: kept("/proc/loadavg"),
            meminfo: kept("/proc/meminfo"),
            cpu: pressure("cpu", b"some", missing.clone()),
            memory: pressure("memory", b"some", missing.clone()),
            io: pressure("io", b"some", missing.clone()),
            irq: pressure("irq", b"full", missing_irq_pressure(env, missing)),
        }
    }
}

impl Collector for SystemCollector {
    fn name(&self) -> &'static str {
        "system"
    }

    fn collect(&mut self, out: &mut Sample) -> Result<(), Reason> {
        let system = &mut out.system;
        system.uptime_ns = parsed(&mut self.uptime, parse_uptime);
        match parsed(&mut self.loadavg, parse_loadavg) {
            Reading::Value(load) => {
                system.load = Reading::Value(load.averages);
                system.tasks = Reading::Value(load.tasks);
            }
            Reading::Off(reason) => {
                system.load = Reading::Off(reason.clone());
                system.tasks = Reading::Off(reason);
            }
        }
        match parsed(&mut self.meminfo, parse_meminfo) {
            Reading::Value(memory) => {
                system.memory_total = Reading::Value(memory.total);
                system.memory_available = Reading::Value(memory.available);
            }
            Reading::Off(reason) => {
                system.memory_total = Reading::Off(reason.clone());
                system.memory_available = Reading::Off(reason);
            }
        }
        let pressure = &mut system.pressure;
        pressure.cpu = self.cpu.read();
        pressure.memory = self.memory.read();
        pressure.io = self.io.read();
        pressure.irq = self.irq.read();
        match &system.uptime_ns {
            Reading::Value(_) => Ok(()),
            Reading::Off(reason) => Err(reason.clone()),
        }
    }
}

fn parsed<T>(file: &mut KeptFile, parse: fn(&[u8]) -> Option<T>) -> Reading<T> {
    file.parse(|bytes| parse(bytes).ok_or(bytes)).into()
}

/// One file of `/proc/pressure`, and why it is missing if it is.
#[derive(Debug)]
struct PressureFile {
    file: KeptFile,
    kind: &'static [u8],
    missing: Reason,
}

impl PressureFile {
    fn read(&mut self) -> Reading<PressureLine> {
        /// `psi_show` answers this when psi is off (kernel/sched/psi.c, before 5.2).
        const EOPNOTSUPP: i32 = 95;
        let kind = self.kind;
        let result = self
            .file
            .parse(|bytes| parse_pressure(bytes, kind).ok_or(bytes));
        match result {
            Err(
                Reason::NoFile { .. }
                | Reason::Io {
                    errno: EOPNOTSUPP, ..
                },
            ) => Reading::Off(self.missing.clone()),
            other => other.into(),
        }
    }
}

/// Why `/proc/pressure` would be missing. PSI came with 4.20; distributions have carried
/// it back (RHEL 8's 4.18), so the kernel's configuration decides where it can be read.
fn missing_pressure(env: &Env) -> Reason {
    if env.path("/proc/pressure/cpu").exists() {
        return Reason::Starting;
    }
    let not_booted = Reason::NotBooted {
        what: "/proc/pressure".into(),
        parameter: "psi=1".into(),
    };
    match KernelConfig::find(env).map(|config| config.is_set("CONFIG_PSI")) {
        Ok(true) => not_booted,
        Ok(false) if env.kernel >= KernelVersion(4, 20) => Reason::NotBuilt {
            config: "CONFIG_PSI".into(),
        },
        Err(_) if env.kernel >= KernelVersion(4, 20) => not_booted,
        Ok(false) | Err(_) => Reason::KernelTooOld {
            need: "4.20".into(),
            have: env.kernel.to_string().into(),
        },
    }
}

/// `/proc/pressure/irq` came with 6.1 and needs `CONFIG_IRQ_TIME_ACCOUNTING`; 6.15 and
/// later also hide it unless the clock is good enough (kernel/sched/psi.c, `psi_proc_init`).
fn missing_irq_pressure(env: &Env, others: Reason) -> Reason {
    if !env.path("/proc/pressure/cpu").exists() {
        others
    } else if env.kernel < KernelVersion(6, 1) {
        Reason::KernelTooOld {
            need: "6.1".into(),
            have: env.kernel.to_string().into(),
        }
    } else {
        Reason::NotBuilt {
            config: "CONFIG_IRQ_TIME_ACCOUNTING".into(),
        }
    }
}

/// `/proc/loadavg` (fs/proc/loadavg.c).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadAverage {
    /// Over 1, 5 and 15 minutes.
    pub averages: [f32; 3],
    /// Runnable and total scheduling entities.
    pub tasks: [u32; 2],
}

/// Parses `/proc/uptime` (fs/proc/uptime.c): seconds since boot, in ns.
pub fn parse_uptime(bytes: &[u8]) -> Option<u64> {
    let (seconds, rest) = file::number(bytes)?;
    let (hundredths, rest) = file::number(rest.strip_prefix(b".")?)?;
    if !rest.first().is_none_or(u8::is_ascii_whitespace) || hundredths > 99 {
        return None;
    }
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(hundredths * 10_000_000)
}

/// Parses `/proc/loadavg`: `0.03 0.50 0.47 1/234 5678`.
pub fn parse_loadavg(bytes: &[u8]) -> Option<LoadAverage> {
    let mut words = file::words(file::lines(bytes).next()?);
    let mut averages = [0.0; 3];
    for average in &mut averages {
        *average = decimal(words.next()?)?;
    }
    let (runnable, rest) = file::number(words.next()?)?;
    let (total, _) = file::number(rest.strip_prefix(b"/")?)?;
    Some(LoadAverage {
        averages,
        tasks: [u32::try_from(runnable).ok()?, u32::try_from(total).ok()?],
    })
}

/// `MemTotal` and `MemAvailable` of `/proc/meminfo`, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemAvailable` (3.14+).
    pub available: u64,
}

/// Parses `/proc/meminfo` (fs/proc/meminfo.c).
pub fn parse_meminfo(bytes: &[u8]) -> Option<Memory> {
    let (mut total, mut available) = (None, None);
    for line in file::lines(bytes) {
        let field = |name: &[u8]| -> Option<u64> {
            let mut words = file::words(line.strip_prefix(name)?);
            let (kib, _) = file::number(words.next()?)?;
            kib.checked_mul(1024)
        };
        total = total.or_else(|| field(b"MemTotal:"));
        available = available.or_else(|| field(b"MemAvailable:"));
        if let (Some(total), Some(available)) = (total, available) {
            return Some(Memory { total, available });
        }
    }
    None
}

/// Parses the `kind` (`some` or `full`) line of a pressure file
/// (Documentation/accounting/psi.rst).
pub fn parse_pressure(bytes: &[u8], kind: &[u8]) -> Option<PressureLine> {
    for line in file::lines(bytes) {
        let mut words = file::words(line);
        if words.next() != Some(kind) {
            continue;
        }
        let (mut avg10, mut avg60, mut total) = (None, None, None);
        for word in words {
            if let Some(value) = word.strip_prefix(b"avg10=") {
                avg10 = decimal(value);
            } else if let Some(value) = word.strip_prefix(b"avg60=") {
                avg60 = decimal(value);
            } else if let Some(value) = word.strip_prefix(b"total=") {
                total = file::number(value).map(|(n, _)| n);
            }
        }
        return Some(PressureLine {
            avg10: avg10?,
            avg60: avg60?,
            total_us: total?,
        });
    }
    None
}

/// A finite, non-negative decimal fraction.
fn decimal(word: &[u8]) -> Option<f32> {
    let value: f32 = std::str::from_utf8(word).ok()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

#[cfg(test)]
mod tests;
