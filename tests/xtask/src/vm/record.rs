//! `cargo xtask vm record`: makes the fixtures of tests/fixtures anew, from machines of several
//! kernels and cgroup layouts, and from this host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::apt;
use super::fetch;
use super::machine::{Cgroup, Job};
use super::programs;

/// One fixture made in a machine.
struct Recording {
    /// Its folder in tests/fixtures, and its name on the command line.
    name: &'static str,
    kernel: &'static str,
    cgroup: Cgroup,
    /// qemu's -smp.
    cpus: &'static str,
    /// Kernel parameters.
    append: &'static [&'static str],
    /// Run before anything is recorded.
    before: &'static str,
}

const RECORDINGS: &[Recording] = &[
    // CPUs 2 and 3 are possible but not there.
    Recording {
        name: "5.10",
        kernel: "5.10",
        cgroup: Cgroup::V1,
        cpus: "2",
        append: &["possible_cpus=4"],
        before: "",
    },
    Recording {
        name: "6.1",
        kernel: "6.1",
        cgroup: Cgroup::V2,
        cpus: "4,sockets=1,cores=2,threads=2",
        append: &[],
        before: "",
    },
    Recording {
        name: "6.1-hybrid",
        kernel: "6.1",
        cgroup: Cgroup::Hybrid,
        cpus: "2",
        append: &[],
        before: "",
    },
    // CPU 2 is offline.
    Recording {
        name: "6.12",
        kernel: "6.12",
        cgroup: Cgroup::V2,
        cpus: "4",
        append: &[],
        before: "echo 0 >/sys/devices/system/cpu/cpu2/online",
    },
];

const SCRIPT: &str = include_str!("record.sh");

/// Event systems whose files are kept: all of an instance's would be thousands of files.
const EVENTS: &str = "irq sched napi stall stallu synthetic";

/// Records the fixtures named, `host` for this one, or those of every machine.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let holder = holder()?;
    let all = || {
        RECORDINGS
            .iter()
            .map(|recording| recording.name.to_owned())
            .collect()
    };
    for name in if names.is_empty() {
        all()
    } else {
        names.to_vec()
    } {
        if name == "host" {
            record_host(&holder)?;
            continue;
        }
        let recording = RECORDINGS
            .iter()
            .find(|one| one.name == name)
            .with_context(|| {
                let names: Vec<_> = RECORDINGS.iter().map(|recording| recording.name).collect();
                format!("no recording {name}; there are host, {}", names.join(", "))
            })?;
        recording.record(&holder)?;
    }
    Ok(())
}

impl Recording {
    fn record(&self, holder: &Path) -> Result<()> {
        let kernel = fetch::kernel(self.kernel, false)?;
        let work = tempdir()?;
        let module = unpacked_module(&kernel.modules, "dummy", &work)?;
        let layout = match self.cgroup {
            Cgroup::V1 => "v1",
            Cgroup::V2 => "v2",
            Cgroup::Hybrid => "hybrid",
        };
        let (memory, cgroup2) = match self.cgroup {
            Cgroup::V1 => ("/sys/fs/cgroup/memory", "/none"),
            Cgroup::V2 => ("/sys/fs/cgroup", "/sys/fs/cgroup"),
            Cgroup::Hybrid => ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"),
        };
        let script = format!(
            "{}\nout=/out host=no layout={layout} memory={memory} cgroup2={cgroup2} \
             busybox=/bin/busybox limit_events='{EVENTS}'\n{SCRIPT}",
            self.before
        );
        let out = work.join("out");
        let status = Job {
            kernel: self.kernel.to_owned(),
            cpus: self.cpus.to_owned(),
            memory: 768,
            cpu: "max".to_owned(),
            cgroup: self.cgroup,
            append: self.append.iter().map(|one| (*one).to_owned()).collect(),
            files: vec![
                (holder.to_owned(), "t/bpf-holder".to_owned()),
                (module, "t/dummy.ko".to_owned()),
            ],
            tools: None,
            command: script,
            limit: Duration::from_secs(120),
            out: Some(out.clone()),
        }
        .run()?;
        ensure!(
            status == 0,
            "the recording of {} ended with {status}",
            self.name
        );
        keep(&out, self.name)?;
        fs::remove_dir_all(work)?;
        Ok(())
    }
}

/// This host, as root: in a mount namespace of its own, so that what is mounted to be read goes
/// with it. Its cgroups other than ours are kept with numbers for names.
fn record_host(holder: &Path) -> Result<()> {
    let work = tempdir()?;
    let out = work.join("out");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let name = release
        .trim()
        .splitn(3, '.')
        .take(2)
        .collect::<Vec<_>>()
        .join(".");
    let (layout, memory) = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        ("v2", "/sys/fs/cgroup")
    } else {
        ("hybrid", "/sys/fs/cgroup/memory")
    };
    let cgroup2 = if layout == "v2" {
        memory
    } else {
        "/sys/fs/cgroup/unified"
    };
    // What this host alone has mounted below /mnt is not kept.
    let before = "grep -o ' /mnt/[^ ]*' /proc/self/mounts | while read -r dir; do umount -l \"$dir\"; done\n\
         mounted() { mountpoint -q \"$2\" || mount -t \"$1\" \"$1\" \"$2\"; }\n\
         mounted tracefs /sys/kernel/tracing; mounted debugfs /sys/kernel/debug\n\
         mounted bpf /sys/fs/bpf; mounted securityfs /sys/kernel/security";
    let script = format!(
        "out={} host=yes layout={layout} memory={memory} cgroup2={cgroup2} \
         busybox={} limit_events='{EVENTS}'\n{before}\n{SCRIPT}",
        out.display(),
        fetch::busybox(false)?.display(),
    );
    fs::create_dir_all(&out)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = holder
        .parent()
        .map(Path::to_owned)
        .into_iter()
        .chain(std::env::split_paths(&path));
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .current_dir("/")
        .env("PATH", std::env::join_paths(dirs)?)
        .status()
        .context("start unshare")?;
    ensure!(
        status.success(),
        "the recording of this host ended with {status}"
    );
    keep(&out, &name)?;
    fs::remove_dir_all(work)?;
    Ok(())
}

/// Puts a recording in the place of the one before.
fn keep(out: &Path, name: &str) -> Result<()> {
    let into = repository().join("tests/fixtures").join(name);
    if into.exists() {
        fs::remove_dir_all(&into)?;
    }
    fs::create_dir_all(&into)?;
    apt::run(
        Command::new("cp")
            .args(["-r", "--no-dereference", "-T"])
            .arg(out)
            .arg(&into),
    )?;
    let files = apt::run(Command::new("find").arg(&into).args(["-type", "f"]))?;
    println!("{}: {} files", into.display(), files.lines().count());
    Ok(())
}

fn repository() -> PathBuf {
    // tests/xtask is two folders below.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

fn tempdir() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("stalltop-record-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// The static binary that holds BPF programs while they are recorded.
fn holder() -> Result<PathBuf> {
    programs::program("bpf-holder")
}

/// A module of a kernel package, as insmod of any busybox takes it.
fn unpacked_module(modules: &Path, name: &str, work: &Path) -> Result<PathBuf> {
    let found = apt::run(
        Command::new("find")
            .arg(modules)
            .args(["-name", &format!("{name}.ko*")]),
    )?;
    let packed = found
        .lines()
        .next()
        .with_context(|| format!("no module {name}"))?;
    let plain = work.join(format!("{name}.ko"));
    if packed.ends_with(".xz") {
        let output = Command::new("xz")
            .args(["-dc", packed])
            .output()
            .context("start xz")?;
        ensure!(output.status.success(), "xz: {}", output.status);
        fs::write(&plain, output.stdout)?;
    } else {
        fs::copy(packed, &plain)?;
    }
    Ok(plain)
}
