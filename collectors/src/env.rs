//! The host as its readers see it: root path, kernel, privileges, mounts.

use std::path::{Path, PathBuf};

use procfs::process::MountInfo;
use stalltop_model::sample::Lockdown;
use stalltop_model::{Reading, Reason};

use crate::file;

/// Where and as whom stalltop reads.
#[derive(Clone, Debug)]
pub struct Env {
    root: PathBuf,
    /// Kernel version, for comparisons.
    pub kernel: KernelVersion,
    /// Effective capabilities (capabilities(7), `CapEff` of `/proc/self/status`).
    pub capabilities: Capabilities,
    /// kernel_lockdown(7).
    pub lockdown: Reading<Lockdown>,
    /// Whether the kernel offers its own BTF.
    pub btf: bool,
    /// All mounts, in the order of `/proc/self/mountinfo`.
    pub mounts: Vec<Mount>,
}

/// A kernel's version, ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u16, pub u16);

impl KernelVersion {
    /// The first two numbers of a release string such as `5.10.0-28-cloud-amd64`.
    pub fn parse(release: &str) -> Option<Self> {
        let (major, rest) = file::number(release.as_bytes())?;
        let (minor, _) = file::number(rest.strip_prefix(b".")?)?;
        Some(Self(u16::try_from(major).ok()?, u16::try_from(minor).ok()?))
    }
}

impl std::fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A set of capabilities as the kernel prints it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// `CAP_IPC_LOCK`: locking memory beyond `RLIMIT_MEMLOCK`.
    pub const IPC_LOCK: u32 = 14;
    /// `CAP_SYS_PTRACE`: other processes' descriptors.
    pub const SYS_PTRACE: u32 = 19;
    /// `CAP_SYS_NICE`: a raised priority.
    pub const SYS_NICE: u32 = 23;
    /// `CAP_SYS_ADMIN`: everything before 5.8 split it up.
    pub const SYS_ADMIN: u32 = 21;
    /// `CAP_SYSLOG`: kernel addresses.
    pub const SYSLOG: u32 = 34;
    /// `CAP_PERFMON` (5.8+).
    pub const PERFMON: u32 = 38;
    /// `CAP_BPF` (5.8+).
    pub const BPF: u32 = 39;

    /// Whether the set holds `capability` (its number in linux/capability.h).
    pub fn has(self, capability: u32) -> bool {
        self.0 & (1 << capability) != 0
    }
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount point, unescaped, as the host names it (without the [`Env`]'s root).
    pub at: String,
    /// File system type.
    pub fs: String,
    /// Names of the per-superblock options, sorted; for cgroup v1 the controllers.
    pub options: Vec<String>,
}

impl Env {
    /// Looks at the live host.
    pub fn live() -> Self {
        Self::at("/")
    }

    /// Looks at a host below `root`, for example a recorded tree.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let text = |path: &str| file::read_text(&root.join(path));
        let status = text("proc/self/status").unwrap_or_default();
        let mounts =
            parse_mountinfo(&file::read(&root.join("proc/self/mountinfo")).unwrap_or_default());
        let lockdown = match text("sys/kernel/security/lockdown") {
            Ok(text) => Ok(parse_lockdown(&text)),
            // Fresh machines and containers often lack the mount.
            Err(Reason::NoFile { .. }) if !mounts.iter().any(|m| m.fs == "securityfs") => {
                Err(Reason::NotMounted {
                    fs: "securityfs".into(),
                    at: "/sys/kernel/security".into(),
                })
            }
            Err(reason) => Err(reason),
        };
        Self {
            kernel: text("proc/sys/kernel/osrelease")
                .ok()
                .and_then(|release| KernelVersion::parse(&release))
                .unwrap_or_default(),
            capabilities: parse_capabilities(&status),
            lockdown: lockdown.into(),
            btf: root.join("sys/kernel/btf/vmlinux").exists(),
            mounts,
            root,
        }
    }

    /// The real path of a host path: `/proc/stat` below this root.
    pub fn path(&self, host: &str) -> PathBuf {
        self.root.join(host.trim_start_matches('/'))
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file system of type `fs` is mounted (host path), the first one.
    pub fn mount_of(&self, fs: &str) -> Option<&str> {
        self.mounts
            .iter()
            .find(|m| m.fs == fs)
            .map(|m| m.at.as_str())
    }

    /// Where tracefs is: its own mount, or debugfs's automount of it.
    ///
    /// # Errors
    /// [`Reason::NotMounted`]; stalltop mounts it only with consent.
    pub fn tracefs(&self) -> Result<String, Reason> {
        if let Some(at) = self.mount_of("tracefs") {
            return Ok(at.to_owned());
        }
        if let Some(debugfs) = self.mount_of("debugfs") {
            let at = format!("{debugfs}/tracing");
            if self.path(&at).join("events").exists() {
                return Ok(at);
            }
        }
        Err(Reason::NotMounted {
            fs: "tracefs".into(),
            at: "/sys/kernel/tracing".into(),
        })
    }
}

fn parse_capabilities(status: &str) -> Capabilities {
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    Capabilities(bits.unwrap_or(0))
}

/// `[none] integrity confidentiality`, the active one in brackets
/// (security/lockdown/lockdown.c, `lockdown_read`).
fn parse_lockdown(text: &str) -> Lockdown {
    let active = text
        .split_whitespace()
        .find_map(|w| w.strip_prefix('[')?.strip_suffix(']'));
    match active {
        Some("integrity") => Lockdown::Integrity,
        Some("confidentiality") => Lockdown::Confidentiality,
        _ => Lockdown::None,
    }
}

/// Parses `/proc/self/mountinfo` (proc_pid_mountinfo(5)); lines it does not understand are left out.
pub fn parse_mountinfo(bytes: &[u8]) -> Vec<Mount> {
    file::lines(bytes)
        .filter_map(|line| {
            let mount = MountInfo::from_line(&String::from_utf8_lossy(line)).ok()?;
            let mut options: Vec<String> = mount.super_options.into_keys().collect();
            options.sort();
            Some(Mount {
                at: unescape(&mount.mount_point.to_string_lossy()),
                fs: mount.fs_type,
                options,
            })
        })
        .collect()
}

/// Undoes the octal escapes that the kernel uses for blanks in mount points.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let octal = bytes
            .get(i + 1..i + 4)
            .filter(|d| d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match (bytes[i], octal) {
            (b'\\', Some(d)) => {
                let value = d.iter().fold(0u32, |n, b| n * 8 + u32::from(b - b'0'));
                out.push((value & 0xff) as u8);
                i += 4;
            }
            (b, _) => {
                out.push(b);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order() {
        let old = KernelVersion::parse("5.10.0-28-cloud-amd64").unwrap();
        let new = KernelVersion::parse("6.1.0").unwrap();
        assert!(old < new);
        assert_eq!(KernelVersion::parse("x"), None);
        assert_eq!(KernelVersion::parse("99999.1"), None);
    }

    #[test]
    fn mountinfo_is_unescaped() {
        let line =
            b"36 35 98:0 / /mnt/a\\040b rw,noatime master:1 - cgroup cgroup rw,memory\nbroken\n";
        assert_eq!(
            parse_mountinfo(line),
            [Mount {
                at: "/mnt/a b".into(),
                fs: "cgroup".into(),
                options: vec!["memory".into(), "rw".into()]
            }]
        );
    }

    #[test]
    fn lockdown_is_the_bracketed_word() {
        assert_eq!(
            parse_lockdown("none [integrity] confidentiality"),
            Lockdown::Integrity
        );
        assert_eq!(
            parse_lockdown("[none] integrity confidentiality"),
            Lockdown::None
        );
    }
}
