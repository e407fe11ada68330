//! The process that keeps what would outlive a self-test: a tracefs instance and cgroups.
//!
//! It reads the kernel's trace on one CPU and prints the long spans, and when its standard input
//! ends, however the self-test ended, it removes what there is. What a killed keeper leaves is
//! removed by the next self-test's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::set_name;
use serde::{Deserialize, Serialize};
use stalltop_model::Reason;

use super::NAME;
use super::trace::{Span, Spans, events};
use crate::cgroups::Place;
use crate::env::Env;
use crate::sys::isolate;

/// How often the trace is read.
const EVERY: Duration = Duration::from_millis(100);
/// Size of the trace's buffer, KB: seconds of a busy CPU.
const BUFFER_KB: u32 = 4096;
/// How long something that is busy is tried again.
const BUSY: Duration = Duration::from_secs(5);

/// A line of a keeper's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The trace is on.
    Ready,
    /// There is no trace, and why. The keeper still cleans up.
    Off(String),
    /// The trace had this.
    Span(Span),
}

/// Keeps, for the self-test with process id `owner`, until standard input ends.
///
/// # Errors
/// What cannot be cleaned up.
pub fn run(owner: u32, cpu: u32, out: &mut impl Write) -> io::Result<()> {
    set_name(c"st-keeper")?;
    let env = Env::live();
    let tracefs = tracefs(&env);
    clean(&env, tracefs.as_deref().ok(), |pid| {
        pid != owner && !is_alive(pid)
    })?;
    // An error here is the parent's end, not a reason to leave things behind.
    let _ = watch(tracefs.as_deref(), owner, cpu, out);
    clean(&env, tracefs.as_deref().ok(), |pid| pid == owner)
}

/// tracefs: where the host has it, or mounted where only this process sees it.
fn tracefs(env: &Env) -> Result<PathBuf, String> {
    if let Ok(at) = env.tracefs() {
        return Ok(env.path(&at));
    }
    let at = "/sys/kernel/tracing";
    let mounted = || -> io::Result<()> {
        isolate::own_mounts()?;
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        mount("tracefs", at, "tracefs", MountFlags::empty(), None)?;
        Ok(())
    };
    match mounted() {
        Ok(()) => Ok(at.into()),
        Err(error) => Err(format!("tracefs cannot be mounted: {error}")),
    }
}

fn watch(
    tracefs: Result<&Path, &String>,
    owner: u32,
    cpu: u32,
    out: &mut impl Write,
) -> io::Result<()> {
    let trace = match tracefs {
        Ok(tracefs) => start(tracefs, owner, cpu).map_err(|e| format!("the kernel's trace: {e}")),
        Err(why) => Err(why.clone()),
    };
    let (mut trace, first) = match trace {
        Ok(trace) => (Some(trace), Line::Ready),
        Err(why) => (None, Line::Off(why)),
    };
    say(out, &first)?;
    let mut reader = Lines::default();
    loop {
        let over = wait_for_end()?;
        if let Some(trace) = &mut trace {
            reader.read(trace, out)?;
        }
        if over {
            return Ok(());
        }
    }
}

/// Waits a moment; says whether standard input has ended.
fn wait_for_end() -> io::Result<bool> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let timeout = EVERY.try_into().map_err(io::Error::other)?;
    if poll(&mut fds, Some(&timeout))? == 0 {
        return Ok(false);
    }
    let mut nothing = [0; 16];
    Ok(rustix::io::read(stdin.as_fd(), &mut nothing)? == 0)
}

/// Switches the trace on; gives its pipe.
fn start(tracefs: &Path, owner: u32, cpu: u32) -> io::Result<File> {
    let dir = tracefs.join("instances").join(format!("{NAME}{owner}"));
    fs::create_dir(&dir)?;
    let write = |file: &str, value: &str| {
        fs::write(dir.join(file), format!("{value}\n"))
            .map_err(|e| io::Error::new(e.kind(), format!("{file}: {e}")))
    };
    write("trace_clock", "boot")?;
    write("buffer_size_kb", &BUFFER_KB.to_string())?;
    write("tracing_cpumask", &mask(cpu))?;
    for (event, filter) in events(libc::SYS_kill) {
        if let Some(filter) = filter {
            write(&format!("events/{event}/filter"), &filter)?;
        }
        write(&format!("events/{event}/enable"), "1")?;
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(dir.join(format!("per_cpu/cpu{cpu}/trace_pipe")))
}

/// A CPU as a mask: words of 32 bits in hexadecimal, the highest first (lib/bitmap.c).
fn mask(cpu: u32) -> String {
    let mut mask = format!("{:x}", 1_u32 << (cpu % 32));
    for _ in 0..cpu / 32 {
        mask.push_str(",00000000");
    }
    mask
}

/// Reads what is there, a line at a time.
#[derive(Default)]
struct Lines {
    spans: Spans,
    rest: Vec<u8>,
}

impl Lines {
    fn read(&mut self, trace: &mut File, out: &mut impl Write) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let length = match trace.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.rest.extend_from_slice(&buffer[..length]);
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            let rest = self.rest.split_off(end + 1);
            let text = std::mem::replace(&mut self.rest, rest);
            for line in String::from_utf8_lossy(&text).lines() {
                if let Some(span) = self.spans.line(line) {
                    say(out, &Line::Span(span))?;
                }
            }
        }
    }
}

fn say(out: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Removes what self-tests made whose process ids are `of`.
fn clean(env: &Env, tracefs: Option<&Path>, of: impl Fn(u32) -> bool) -> io::Result<()> {
    let ours = |name: &str| {
        let pid = name.strip_prefix(NAME)?.parse().ok()?;
        of(pid).then_some(())
    };
    let named = |parent: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        entries
            .filter(|entry| ours(&entry.file_name().to_string_lossy()).is_some())
            .map(|entry| entry.path())
            .collect()
    };
    let mut failed = Ok(());
    if let Some(tracefs) = tracefs {
        for dir in named(&tracefs.join("instances")) {
            failed = failed.and(remove(&dir));
        }
    }
    if let Ok(mount) = cgroups(env) {
        for dir in named(&mount) {
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
            for entry in entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
                failed = failed.and(remove(&entry.path()));
            }
            failed = failed.and(remove(&dir));
        }
    }
    failed
}

/// Where the cgroups of a self-test are.
pub(super) fn cgroups(env: &Env) -> Result<PathBuf, Reason> {
    Place::find(env).map(|place| env.path(&place.mount))
}

/// Removes a folder of tracefs or cgroupfs. Somebody who looks at it, or a process that has just
/// ended in it, keeps it busy for a moment.
fn remove(dir: &Path) -> io::Result<()> {
    let until = std::time::Instant::now() + BUSY;
    loop {
        match fs::remove_dir(dir) {
            Err(e)
                if e.kind() == io::ErrorKind::ResourceBusy && std::time::Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => {
                return Err(io::Error::new(
                    e.kind(),
                    format!("cannot remove {}: {e}", dir.display()),
                ));
            }
            Ok(()) => return Ok(()),
        }
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn masks_are_as_the_kernel_takes_them() {
        assert_eq!(mask(0), "1");
        assert_eq!(mask(31), "80000000");
        assert_eq!(mask(33), "2,00000000");
        assert_eq!(mask(64), "1,00000000,00000000");
    }
}
