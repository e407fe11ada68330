//! Why something is not measured, and what would mend it.

mod read;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Name;

/// A measured value, or the reason why there is none. Absence is never zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// Measured.
    Value(T),
    /// Not measured, and why.
    Off(Reason),
}

impl<T> Reading<T> {
    /// Not there because the recording is older than what would have measured it.
    pub(crate) fn not_recorded() -> Self {
        Self::Off(Reason::NotRecorded)
    }

    /// The value, if measured.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(v) => Some(v),
            Self::Off(_) => None,
        }
    }

    /// Mutable access to the value, if measured.
    pub fn value_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Value(v) => Some(v),
            Self::Off(_) => None,
        }
    }

    /// The reason, if not measured.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Value(_) => None,
            Self::Off(reason) => Some(reason),
        }
    }

    /// Borrows the value or the reason.
    pub fn as_ref(&self) -> Result<&T, &Reason> {
        match self {
            Self::Value(v) => Ok(v),
            Self::Off(reason) => Err(reason),
        }
    }

    /// Applies `f` to a measured value and keeps a reason as it is.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Value(v) => Reading::Value(f(v)),
            Self::Off(reason) => Reading::Off(reason),
        }
    }
}

impl<T: Copy> Reading<T> {
    /// The value, if measured, by copy.
    pub fn get(&self) -> Option<T> {
        self.value().copied()
    }
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self::Off(Reason::Starting)
    }
}

impl<T> From<Result<T, Reason>> for Reading<T> {
    fn from(result: Result<T, Reason>) -> Self {
        match result {
            Ok(v) => Self::Value(v),
            Err(reason) => Self::Off(reason),
        }
    }
}

/// Why a source gives no value. `Display` says what is missing, [`Reason::fix`] how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", remote = "Self")]
pub enum Reason {
    /// The first reading has not been taken yet.
    Starting,
    /// The source exists but nobody asked for it (on-demand sources).
    NotAsked,
    /// The process lacks a capability, named as in capabilities(7).
    NoCapability {
        /// For example `CAP_BPF`.
        need: Name,
    },
    /// The kernel has no BTF of its own types (`/sys/kernel/btf/vmlinux`).
    NoBtf,
    /// The running kernel's BTF lacks a type or field that is needed.
    NoBtfField {
        /// For example `task_struct.sched_info`.
        field: Name,
    },
    /// The kernel is older than the feature.
    KernelTooOld {
        /// What is needed, for example `5.8`.
        need: Name,
        /// What runs.
        have: Name,
    },
    /// A file is missing.
    NoFile {
        /// Its path.
        path: Name,
    },
    /// A file system is not mounted.
    NotMounted {
        /// Its type, for example `tracefs`.
        fs: Name,
        /// Where it belongs.
        at: Name,
    },
    /// The kernel's lockdown mode refuses it (kernel_lockdown(7)).
    Lockdown {
        /// `integrity` or `confidentiality`.
        level: Name,
        /// What was refused, for example `/sys/kernel/debug/kprobes/enabled`.
        what: Name,
    },
    /// The kernel was built without it.
    NotBuilt {
        /// The missing option, for example `CONFIG_KPROBES`.
        config: Name,
    },
    /// The kernel has it, but leaves it off unless a boot parameter asks for it.
    NotBooted {
        /// What is off, for example `/proc/pressure`.
        what: Name,
        /// The parameter of the kernel command line, for example `psi=1`.
        parameter: Name,
    },
    /// A sysctl forbids it.
    Setting {
        /// Its name, for example `kernel.kptr_restrict`.
        name: Name,
        /// What it is set to.
        have: Name,
        /// What it must be set to.
        need: Name,
    },
    /// It happened between two looks, or this way of looking does not show it.
    NotSampled {
        /// What was not seen, for example `the user stack`.
        what: Name,
    },
    /// Asked of the kernel side, but it ran in user space.
    UserSpace,
    /// A tracepoint does not exist on this kernel.
    NoTracepoint {
        /// `category:name`.
        name: Name,
    },
    /// The kernel refused the BPF program or its attachment.
    Refused {
        /// What was tried.
        what: Name,
        /// errno's text, or the last line of the verifier's log.
        why: Name,
    },
    /// Reading failed with an operating system error.
    Io {
        /// The path.
        path: Name,
        /// The raw `errno`.
        errno: i32,
    },
    /// A file's contents were not understood.
    Parse {
        /// The path.
        path: Name,
        /// The offending line or field, cut to a sane length.
        near: Name,
    },
    /// Somebody else holds it.
    Busy {
        /// Who or what.
        by: Name,
    },
    /// The kernel does not tell this on any version.
    KernelDoesNotSay {
        /// What it does not tell.
        what: Name,
    },
    /// Switched off by the person who started stalltop.
    SwitchedOff {
        /// The option, for example `--no-bpf`.
        option: Name,
    },
    /// The CPU has been offline since stalltop started.
    CpuOffline {
        /// Its number.
        cpu: u32,
    },
    /// The source of frames (a recording, a demonstration) does not hold it.
    NotRecorded,
    /// It ended before it could be looked at.
    Gone {
        /// What ended, for example `process 4711`.
        what: Name,
    },
    /// Waits for locks that this machine's tracepoints do not show.
    HiddenWaits {
        /// Which, for example `spin waits`.
        what: Name,
        /// Why, for example `virtual, no paravirtual spinlocks`.
        why: Name,
        /// What would show them; empty where nothing would.
        mend: Name,
    },
    /// Stopped by stalltop itself to keep within its budget.
    OverBudget {
        /// What was stopped.
        what: Name,
    },
}

impl Reason {
    /// A reason from an operating system error on `path`, naming the cause where it is known.
    pub fn from_io(path: &str, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            // ENOENT and ENODEV: the numbers are the same on every Linux architecture.
            Some(2 | 19) => Self::NoFile { path: path.into() },
            Some(errno) => Self::Io {
                path: path.into(),
                errno,
            },
            None => Self::Parse {
                path: path.into(),
                near: error.to_string().into(),
            },
        }
    }

    /// A [`Reason::Parse`], its context cut to 80 characters.
    pub fn parse(path: &str, near: &[u8]) -> Self {
        let near = String::from_utf8_lossy(&near[..near.len().min(320)]);
        Self::Parse {
            path: path.into(),
            near: near.chars().take(80).collect::<String>().into(),
        }
    }

    /// Whether anything that a person can do mends it. Where nothing does, [`Reason::fix`] says
    /// why.
    pub fn is_mendable(&self) -> bool {
        match self {
            Self::NoBtfField { .. }
            | Self::NoFile { .. }
            | Self::NotSampled { .. }
            | Self::NoTracepoint { .. }
            | Self::KernelDoesNotSay { .. }
            | Self::Gone { .. } => false,
            Self::HiddenWaits { mend, .. } => !mend.is_empty(),
            Self::Starting
            | Self::NotAsked
            | Self::NoCapability { .. }
            | Self::NoBtf
            | Self::KernelTooOld { .. }
            | Self::NotMounted { .. }
            | Self::Lockdown { .. }
            | Self::NotBuilt { .. }
            | Self::NotBooted { .. }
            | Self::Setting { .. }
            | Self::UserSpace
            | Self::Refused { .. }
            | Self::Io { .. }
            | Self::Parse { .. }
            | Self::Busy { .. }
            | Self::SwitchedOff { .. }
            | Self::CpuOffline { .. }
            | Self::NotRecorded
            | Self::OverBudget { .. } => true,
        }
    }

    /// The exact command, setting or step that mends it; where nothing does
    /// ([`Reason::is_mendable`]), `none` and why.
    pub fn fix(&self) -> Arc<str> {
        match self {
            Self::Starting => "wait for the next tick".into(),
            Self::NotAsked => "open the pane that shows it".into(),
            // setcap replaces what was there: the whole set at once.
            Self::NoCapability { need } => {
                let all = "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_syslog,cap_dac_read_search";
                let need = need.to_lowercase();
                let more = if all.split(',').any(|c| c == need) {
                    String::new()
                } else {
                    format!(",{need}")
                };
                format!("run as root, or: setcap {all}{more}+ep $(command -v stalltop)").into()
            }
            Self::NoBtf => "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y".into(),
            Self::NoBtfField { .. } => {
                "none on this kernel: its types differ from all that stalltop knows".into()
            }
            Self::KernelTooOld { need, .. } => format!("boot a kernel of {need} or newer").into(),
            Self::NoFile { path } => {
                format!("none on this host: the kernel does not provide {path}").into()
            }
            Self::NotMounted { fs, at } => format!("mount -t {fs} {fs} {at}").into(),
            Self::Lockdown { .. } => {
                "boot without lockdown= (and without Secure Boot), nothing can lift it at run time"
                    .into()
            }
            Self::NotBuilt { config } => format!("boot a kernel built with {config}=y").into(),
            Self::NotBooted { parameter, .. } => {
                format!("add {parameter} to the kernel command line and reboot").into()
            }
            Self::Setting { name, need, .. } => format!("sysctl -w {name}={need}").into(),
            Self::NotSampled { .. } => "none after the fact: only what was sampled is known".into(),
            Self::UserSpace => "perf top -p PID shows its own functions while it runs".into(),
            Self::NoTracepoint { .. } => "none: this kernel does not have the tracepoint".into(),
            Self::Refused { .. } => "stalltop doctor shows what is used instead".into(),
            Self::Io { path, errno } => match errno {
                1 | 13 => format!("run as root; then check: ls -l {path}").into(),
                // EROFS: containers get /proc/sys read-only.
                30 => "run stalltop on the host itself: this mount is read-only".into(),
                _ => format!("check by hand: cat {path}").into(),
            },
            Self::Parse { path, .. } => format!("report the contents of {path} as a bug").into(),
            Self::Busy { by } => format!("wait for, or stop: {by}").into(),
            Self::KernelDoesNotSay { .. } => "none: no kernel tells this".into(),
            Self::SwitchedOff { option } => format!("start stalltop without {option}").into(),
            Self::CpuOffline { cpu } => {
                format!("echo 1 > /sys/devices/system/cpu/cpu{cpu}/online").into()
            }
            Self::NotRecorded => "run stalltop live on the host".into(),
            Self::Gone { .. } => "none: it has ended".into(),
            Self::HiddenWaits { mend, .. } if mend.is_empty() => {
                "none: the kernel tells of them nowhere".into()
            }
            Self::HiddenWaits { mend, .. } => Arc::clone(mend),
            Self::OverBudget { .. } => "a longer --tick leaves more room".into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(f, "starting"),
            Self::NotAsked => write!(f, "not asked for yet"),
            Self::NoCapability { need } => write!(f, "{need} is missing"),
            Self::NoBtf => write!(f, "this kernel has no BTF (/sys/kernel/btf/vmlinux)"),
            Self::NoBtfField { field } => write!(f, "this kernel's BTF has no {field}"),
            Self::KernelTooOld { need, have } => write!(f, "needs kernel {need}, this is {have}"),
            Self::NoFile { path } => write!(f, "{path} does not exist"),
            Self::NotMounted { fs, at } => write!(f, "{fs} is not mounted at {at}"),
            Self::Lockdown { level, what } => write!(f, "lockdown={level} refuses {what}"),
            Self::NotBuilt { config } => write!(f, "the kernel was built without {config}"),
            Self::NotBooted { what, parameter } => {
                write!(f, "{what} is off: this kernel needs {parameter} at boot")
            }
            Self::Setting { name, have, need } => write!(f, "{name} is {have}, needs {need}"),
            Self::NotSampled { what } => write!(f, "{what} was not sampled"),
            Self::UserSpace => write!(f, "it ran in user space, not in the kernel"),
            Self::NoTracepoint { name } => write!(f, "tracepoint {name} does not exist"),
            Self::Refused { what, why } => write!(f, "the kernel refused {what}: {why}"),
            Self::Io { path, errno } => {
                write!(f, "{path}: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Self::Parse { path, near } => write!(f, "{path}: not understood near {near:?}"),
            Self::Busy { by } => write!(f, "in use by {by}"),
            Self::KernelDoesNotSay { what } => write!(f, "the kernel does not tell {what}"),
            Self::SwitchedOff { option } => write!(f, "switched off by {option}"),
            Self::CpuOffline { cpu } => write!(f, "cpu {cpu} is offline"),
            Self::NotRecorded => write!(f, "not in this recording"),
            Self::Gone { what } => write!(f, "{what} ended before it could be looked at"),
            Self::HiddenWaits { what, why, .. } => write!(
                f,
                "{what} are not visible on this machine ({why}): sample share shown instead"
            ),
            Self::OverBudget { what } => {
                write!(f, "{what} paused to stay within stalltop's budget")
            }
        }
    }
}

impl std::error::Error for Reason {}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// How a reason looks in JSON: the machine's `kind` and fields, the person's text and fix.
#[derive(Serialize, Deserialize)]
struct OffBody {
    reason: String,
    fix: Arc<str>,
    code: Reason,
}

#[derive(Serialize)]
struct Off {
    off: OffBody,
}

impl<T: Serialize> Serialize for Reading<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(v) => v.serialize(serializer),
            Self::Off(reason) => Off {
                off: OffBody {
                    reason: reason.to_string(),
                    fix: reason.fix(),
                    code: reason.clone(),
                },
            }
            .serialize(serializer),
        }
    }
}

/// `Reading<()>`, "it works or it does not", as `true` or an `off` object.
pub(crate) mod works {
    use super::{Deserialize, Deserializer, Reading, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        works: &Reading<()>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match works {
            Reading::Value(()) => serializer.serialize_bool(true),
            Reading::Off(_) => works.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Reading<()>, D::Error> {
        Reading::<bool>::deserialize(deserializer).map(|works| works.map(|_| ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_says_none_where_nothing_mends_it_and_only_there() {
        let name = || Name::from("x");
        let (path, what) = (name(), name());
        let hidden = |mend: &str| Reason::HiddenWaits {
            what: name(),
            why: name(),
            mend: mend.into(),
        };
        let mut unmendable = 0;
        let all = [
            Reason::Starting,
            Reason::NotAsked,
            Reason::NoCapability { need: name() },
            Reason::NoBtf,
            Reason::NoBtfField { field: name() },
            Reason::KernelTooOld {
                need: name(),
                have: name(),
            },
            Reason::NoFile { path: path.clone() },
            Reason::NotMounted {
                fs: name(),
                at: path.clone(),
            },
            Reason::Lockdown {
                level: name(),
                what: what.clone(),
            },
            Reason::NotBuilt { config: name() },
            Reason::NotBooted {
                what: what.clone(),
                parameter: name(),
            },
            Reason::Setting {
                name: name(),
                have: name(),
                need: name(),
            },
            Reason::NotSampled { what: what.clone() },
            Reason::UserSpace,
            Reason::NoTracepoint { name: name() },
            Reason::Refused {
                what: what.clone(),
                why: name(),
            },
            Reason::Io {
                path: path.clone(),
                errno: 5,
            },
            Reason::Parse { path, near: name() },
            Reason::Busy { by: name() },
            Reason::KernelDoesNotSay { what: what.clone() },
            Reason::SwitchedOff { option: name() },
            Reason::CpuOffline { cpu: 3 },
            Reason::NotRecorded,
            Reason::Gone { what: what.clone() },
            hidden(""),
            hidden("boot with x"),
            Reason::OverBudget { what },
        ];
        for reason in all {
            let says_none = reason.fix().starts_with("none");
            assert_eq!(reason.is_mendable(), !says_none, "{reason:?}");
            unmendable += u32::from(says_none);
        }
        assert_eq!(unmendable, 7);
    }

    #[test]
    fn off_is_an_object_and_comes_back() {
        let off: Reading<u64> = Reading::Off(Reason::NoCapability {
            need: "CAP_BPF".into(),
        });
        let text = serde_json::to_string(&off).unwrap();
        assert!(text.starts_with(r#"{"off":{"reason":"CAP_BPF is missing","fix":"run as root"#));
        assert_eq!(serde_json::from_str::<Reading<u64>>(&text).unwrap(), off);
        assert_eq!(
            serde_json::from_str::<Reading<u64>>("5").unwrap(),
            Reading::Value(5)
        );
        assert!(serde_json::from_str::<Reading<u64>>("null").is_err());
    }
}
