//! Zombie memory cgroups, and a process that reads memory statistics while there are some.
//!
//! The recipe: a process enters a cgroup, writes a page to a file on a tmpfs, leaves, and removes
//! the cgroup: the page keeps it charged. The tmpfs is mounted where only this process sees it, so
//! it goes with the process, and with it the pages and the zombies.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::set_name;
use serde::{Deserialize, Serialize};

use super::NAME;
use super::inject::about;
use super::keeper::cgroups;
use crate::env::Env;
use crate::sys::isolate;

/// How many zombies are made.
pub const COUNT: u32 = 500;
/// How long memory statistics are read.
const READ_FOR: Duration = Duration::from_secs(3);
/// Pause between two reads: one reader, not a flood.
const PAUSE: Duration = Duration::from_millis(2);

/// A line of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// So many zombies were made; reading begins.
    Made {
        /// How many.
        zombies: u32,
    },
    /// What the reader saw; all is being taken down.
    Read(Reads),
}

/// What the reader measured of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// Reads of `memory.stat` of the hierarchy's root.
    pub count: u64,
    /// The longest, ns.
    pub longest_ns: u64,
    /// All, ns.
    pub total_ns: u64,
}

/// Makes zombies for the self-test with process id `owner`, reads, and ends.
///
/// # Errors
/// What the kernel refuses, with what it was about.
pub fn run(owner: u32, out: &mut impl Write) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().is_none_or(|parent| parent.as_raw_pid() as u32 != owner) {
        return Err(io::Error::other("the parent ended"));
    }
    set_name(c"st-zombies")?;
    let root = cgroups(&Env::live()).map_err(|reason| io::Error::other(reason.to_string()))?;
    let home = root.join(format!("{NAME}{owner}"));
    // /tmp is only covered, and only for this process.
    let files = Path::new("/tmp");
    isolate::own_mounts().map_err(about("mounts of its own"))?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount("tmpfs", files, "tmpfs", MountFlags::empty(), None).map_err(about("a tmpfs"))?;
    fs::create_dir(&home)?;
    let made = make(&home, files);
    let made = made.and_then(|zombies| {
        say(out, &Line::Made { zombies })?;
        say(out, &Line::Read(read(&root.join("memory.stat"))?))
    });
    // Also after an error. A keeper does the same for a process that was killed.
    enter(&root)?;
    for entry in fs::read_dir(&home)?.flatten() {
        if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())?;
        }
    }
    fs::remove_dir(&home)?;
    made
}

fn make(home: &Path, files: &Path) -> io::Result<u32> {
    // A cgroup v2 hands the controller down only on demand; v1 has no such file.
    let control = home.join("cgroup.subtree_control");
    if control.exists() {
        fs::write(control, "+memory")?;
    }
    let back = home.join("home");
    fs::create_dir(&back)?;
    for n in 0..COUNT {
        let dir = home.join(format!("z{n}"));
        fs::create_dir(&dir)?;
        enter(&dir)?;
        fs::write(files.join(n.to_string()), [0; 4096])?;
        enter(&back)?;
        fs::remove_dir(&dir)?;
    }
    Ok(COUNT)
}

/// Moves this process into a cgroup.
fn enter(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("cgroup.procs"), "0").map_err(about(format!("to enter {}", dir.display())))
}

fn read(file: &Path) -> io::Result<Reads> {
    let mut reads = Reads::default();
    let started = Instant::now();
    while started.elapsed() < READ_FOR {
        let before = Instant::now();
        fs::read(file)?;
        let took_ns = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
        reads.count += 1;
        reads.longest_ns = reads.longest_ns.max(took_ns);
        reads.total_ns = reads.total_ns.saturating_add(took_ns);
        std::thread::sleep(PAUSE);
    }
    Ok(reads)
}

fn say(out: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}
