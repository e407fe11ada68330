//! debugfs `kprobes/`: the master switch and every kernel probe, BPF's through the perf PMU
//! included (Documentation/trace/kprobes.rst, "The kprobes debugfs interface").

use std::io;

use stalltop_model::sample::{KernelProbes, Lockdown};
use stalltop_model::{Reading, Reason};

use super::instance::slurp;
use super::text;
use crate::Env;

/// Reads `kprobes/list` and `kprobes/enabled`.
///
/// The list does not change while `enabled` is 0, and holds neither kprobe.multi nor fentry.
///
/// # Errors
/// [`Reason::NotMounted`] without debugfs, [`Reason::NotBuilt`] without `CONFIG_KPROBES`, or why
/// the list cannot be read.
pub(super) fn read(env: &Env, buf: &mut Vec<u8>) -> Result<KernelProbes, Reason> {
    let debugfs = env.mount_of("debugfs").ok_or(Reason::NotMounted {
        fs: "debugfs".into(),
        at: "/sys/kernel/debug".into(),
    })?;
    let root = env.path(debugfs);
    let dir = root.join("kprobes");
    if let Err(e) = std::fs::metadata(&dir) {
        return Err(match e.kind() {
            // The whole of kernel/kprobes.c, this folder included, is CONFIG_KPROBES.
            io::ErrorKind::NotFound => Reason::NotBuilt {
                config: "CONFIG_KPROBES".into(),
            },
            _ => Reason::from_io(&dir.to_string_lossy(), &e),
        });
    }
    let list = slurp(&dir.join("list"), buf)
        .map_err(|reason| lockdown(env, reason))
        .map(text::kprobes_list)?;
    let path = dir.join("enabled");
    let enabled = slurp(&path, buf)
        .map_err(|reason| lockdown(env, reason))
        .and_then(|t| match t.trim_ascii() {
            b"0" => Ok(false),
            b"1" => Ok(true),
            other => Err(Reason::parse(&path.to_string_lossy(), other)),
        });
    Ok(KernelProbes {
        enabled: Reading::from(enabled),
        list,
    })
}

/// EPERM while the kernel is locked down is the lockdown: under integrity debugfs files with any
/// write bit, under confidentiality all (`debugfs_locked_down`, fs/debugfs/file.c).
fn lockdown(env: &Env, reason: Reason) -> Reason {
    let level = match env.lockdown.get() {
        Some(Lockdown::Integrity) => "integrity",
        Some(Lockdown::Confidentiality) => "confidentiality",
        _ => return reason,
    };
    match reason {
        Reason::Io {
            path,
            errno: libc::EPERM,
        } => Reason::Lockdown {
            level: level.into(),
            what: path,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use stalltop_model::Reading;

    use super::*;

    #[test]
    fn eperm_under_lockdown_is_the_lockdown() {
        let mut env = Env::at("/nonexistent");
        let path = "/sys/kernel/debug/kprobes/enabled";
        let denied = || Reason::Io {
            path: path.into(),
            errno: libc::EPERM,
        };
        env.lockdown = Reading::Value(Lockdown::None);
        assert_eq!(lockdown(&env, denied()), denied());
        env.lockdown = Reading::Value(Lockdown::Integrity);
        assert_eq!(
            lockdown(&env, denied()),
            Reason::Lockdown {
                level: "integrity".into(),
                what: path.into()
            }
        );
        let gone = Reason::NoFile { path: path.into() };
        assert_eq!(lockdown(&env, gone.clone()), gone);
    }
}
