//! One run of one machine: an initramfs is put together, qemu boots it, the command's output is
//! passed on, its status and the files it left come back.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::apt;
use super::cache;
use super::fetch;
use super::initramfs::Initramfs;

/// How cgroups are mounted in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cgroup {
    /// Each v1 controller at its folder, no v2.
    V1,
    /// The unified hierarchy at /sys/fs/cgroup.
    V2,
    /// v1 controllers, and v2 at /sys/fs/cgroup/unified.
    Hybrid,
}

/// What is to be booted and run.
pub(crate) struct Job {
    /// The kernel's name, one of `fetch::KERNELS`.
    pub(crate) kernel: String,
    /// CPUs of the guest, as qemu's -smp takes them.
    pub(crate) cpus: String,
    /// Memory of the guest in MiB.
    pub(crate) memory: u32,
    /// qemu's CPU model.
    pub(crate) cpu: String,
    /// How cgroups are mounted.
    pub(crate) cgroup: Cgroup,
    /// Further kernel parameters.
    pub(crate) append: Vec<String>,
    /// Files of this host and their paths in the guest, without the leading slash.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// A file system with others' tools.
    pub(crate) tools: Option<PathBuf>,
    /// A shell script.
    pub(crate) command: String,
    /// How long the command may take, boot not included.
    pub(crate) limit: Duration,
    /// Where what the command left in /out goes.
    pub(crate) out: Option<PathBuf>,
}

/// What qemu may take on top of the command's own limit: emulated, on a loaded machine.
const BOOT: Duration = Duration::from_secs(90);

/// The room for what comes back. A sparse file on the host.
const DISK: u64 = 256 << 20;

const INIT: &[u8] = include_bytes!("init.sh");

impl Job {
    /// Boots, runs, and gives the command's status (0 to 255).
    ///
    /// # Errors
    /// Where the machine ended without a status: a panic, a hang, a full disk. The error names
    /// the logs, which are kept then.
    pub(crate) fn run(&self) -> Result<u8> {
        let runs = cache::dir()?.join("run");
        fs::create_dir_all(&runs)?;
        forget_old(&runs)?;
        let dir = runs.join(format!("{}-{}", self.kernel, std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        match self.run_in(&dir) {
            Ok(0) => {
                fs::remove_dir_all(&dir)?;
                Ok(0)
            }
            Ok(status) => {
                keep_logs(&dir);
                eprintln!(
                    "status {status}; the logs, and what was left in /out, are in {}",
                    dir.display()
                );
                Ok(status)
            }
            Err(error) => {
                keep_logs(&dir);
                Err(error.context(format!("the logs are in {}", dir.display())))
            }
        }
    }

    fn run_in(&self, dir: &Path) -> Result<u8> {
        fs::write(dir.join("initramfs"), self.initramfs()?)?;
        File::create(dir.join("disk"))?.set_len(DISK)?;
        let started = Instant::now();
        let mut qemu = self
            .qemu(dir)?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join("qemu.log"))?)
            .spawn()
            .context("start qemu")?;
        let output = qemu.stdout.take().context("qemu's standard output")?;
        let log = File::create(dir.join("output.log"))?;
        let copier = std::thread::spawn(move || copy(output, log));
        let ended = wait(&mut qemu, started + self.limit + BOOT);
        // The copier ends with qemu's end of the pipe, whether it ended by itself or was killed.
        let copied = copier.join();
        ended?;
        ensure!(
            matches!(copied, Ok(Ok(()))),
            "the output could not be passed on: {copied:?}"
        );
        self.bring_back(dir)
    }

    fn initramfs(&self) -> Result<Vec<u8>> {
        let mut archive = Initramfs::new();
        for folder in ["dev", "proc", "sys", "run", "tmp", "out", "t", "etc"] {
            archive.folder(folder);
        }
        archive.file("init", INIT);
        archive.file("bin/busybox", &read(&fetch::busybox(false)?)?);
        let cgroup = match self.cgroup {
            Cgroup::V1 => "v1",
            Cgroup::V2 => "v2",
            Cgroup::Hybrid => "hybrid",
        };
        let limit = self.limit.as_secs().max(1);
        let tools = if self.tools.is_some() { "yes" } else { "no" };
        let settings = format!("cgroup={cgroup}\nlimit={limit}\ntools={tools}\n");
        archive.file("vm/settings", settings.as_bytes());
        archive.file("vm/command", self.command.as_bytes());
        let kernel = fetch::kernel(&self.kernel, false)?;
        let config = format!("boot/config-{}", kernel.release);
        archive.file(&config, &read(&kernel.config)?);
        for (from, to) in &self.files {
            archive.file(to, &read(from)?);
        }
        Ok(archive.finish())
    }

    fn qemu(&self, dir: &Path) -> Result<Command> {
        let qemu = fetch::qemu(false)?;
        let kernel = fetch::kernel(&self.kernel, false)?;
        let mut command = Command::new(&qemu.program);
        if let Some(libraries) = &qemu.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        for firmware in &qemu.firmware {
            command.arg("-L").arg(firmware);
        }
        // -M microvm hangs under TCG; -M pc does not. One thread for all CPUs: with one each, a CPU
        // may run translated code that another has just patched (seen as "Oops: int3" in a jump
        // label), and it is no faster on two cores.
        command.args([
            "-M",
            "pc",
            "-accel",
            "tcg,thread=single",
            "-nodefaults",
            "-no-user-config",
        ]);
        command.args(["-display", "none", "-no-reboot"]);
        command.args(["-cpu", &self.cpu, "-smp", &self.cpus]);
        command.args(["-m", &self.memory.to_string()]);
        command.arg("-kernel").arg(kernel.vmlinuz);
        command.arg("-initrd").arg(dir.join("initramfs"));
        let mut parameters =
            String::from("console=ttyS0 panic=-1 rdinit=/init loglevel=7 no_timer_check");
        for more in &self.append {
            parameters.push(' ');
            parameters.push_str(more);
        }
        command.args(["-append", &parameters]);
        command
            .arg("-serial")
            .arg(prefixed("file:", &dir.join("console.log")));
        command.args([
            "-chardev",
            "stdio,id=output,signal=off",
            "-serial",
            "chardev:output",
        ]);
        let disk = prefixed(
            "format=raw,if=none,id=back,cache=unsafe,file=",
            &dir.join("disk"),
        );
        command.arg("-drive").arg(disk);
        // init.sh finds them by their numbers.
        command.args(["-device", "nvme,serial=stalltop,id=nvme"]);
        command.args(["-device", "nvme-ns,drive=back,bus=nvme,nsid=1"]);
        if let Some(tools) = &self.tools {
            let disk = prefixed("format=raw,if=none,id=tools,snapshot=on,file=", tools);
            command.arg("-drive").arg(disk);
            command.args(["-device", "nvme-ns,drive=tools,bus=nvme,nsid=2"]);
        }
        Ok(command)
    }

    fn bring_back(&self, dir: &Path) -> Result<u8> {
        let into = dir.join("out");
        fs::create_dir_all(&into)?;
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(dir.join("disk")).arg("-C").arg(&into);
        let status = apt::run(&mut tar).ok().and_then(|_| {
            fs::read_to_string(into.join(".status"))
                .ok()?
                .trim()
                .parse::<u8>()
                .ok()
        });
        let Some(status) = status else {
            bail!(
                "the machine ended without a status: it panicked, or stopped before its time. \
                 Its last words:\n{}",
                last_lines(&dir.join("console.log"))
            );
        };
        fs::remove_file(into.join(".status"))?;
        if let Some(out) = &self.out {
            fs::create_dir_all(out)?;
            apt::run(Command::new("cp").arg("-rT").arg(&into).arg(out))?;
        }
        Ok(status)
    }
}

/// How long the logs of failed runs are kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

fn forget_old(runs: &Path) -> Result<()> {
    for run in fs::read_dir(runs)?.flatten() {
        let age = run.metadata().and_then(|meta| meta.modified());
        let old = age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT));
        if old {
            // Another run may be at the same.
            let _ = fs::remove_dir_all(run.path());
        }
    }
    Ok(())
}

/// Removes what is large and can be made again.
fn keep_logs(dir: &Path) {
    let _ = fs::remove_file(dir.join("initramfs"));
    let _ = fs::remove_file(dir.join("disk"));
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn prefixed(prefix: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(prefix);
    text.push(path);
    text
}

/// Passes on what the guest prints as it comes, and keeps it in the log.
fn copy(mut from: impl Read, mut log: File) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        log.write_all(&buffer[..count])?;
        let mut out = std::io::stdout().lock();
        out.write_all(&buffer[..count])?;
        out.flush()?;
    }
}

fn wait(qemu: &mut Child, deadline: Instant) -> Result<()> {
    loop {
        if let Some(status) = qemu.try_wait()? {
            ensure!(status.success(), "qemu: {status}");
            return Ok(());
        }
        if Instant::now() > deadline {
            qemu.kill()?;
            qemu.wait()?;
            bail!("the machine hung and was stopped");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn last_lines(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
