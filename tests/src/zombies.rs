//! Memory cgroups that are gone but still charged, and what makes their statistics slow to read:
//! pages of theirs that are mapped and unmapped. Since 5.13 each such change is kept per CPU and
//! cgroup until somebody reads, and that read then walks every cgroup that changed, dead or alive
//! (`cgroup_rstat_flush`, kernel/cgroup/rstat.c).
#![expect(unsafe_code, reason = "mmap(2)")]

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A page, as all machines of the tests have it.
const PAGE: usize = 4096;

/// Leaves `count` cgroups behind, below `parent`, each charged with the page of a file in `files`.
/// This thread's process ends where it began, in `home`, a cgroup of the same hierarchy.
///
/// # Errors
/// What creating cgroups and files says.
pub fn leave_behind(parent: &Path, home: &Path, files: &Path, count: usize) -> io::Result<()> {
    fs::create_dir_all(files)?;
    let enter = |cgroup: &Path| fs::write(cgroup.join("cgroup.procs"), "0");
    for n in 0..count {
        let cgroup = parent.join(format!("job{n}"));
        fs::create_dir(&cgroup)?;
        enter(&cgroup)?;
        File::create(files.join(n.to_string()))?.write_all(&[1; PAGE])?;
        enter(home)?;
        fs::remove_dir(&cgroup)?;
    }
    Ok(())
}

/// Maps, touches and unmaps the first page of every file of a folder, again and again for that
/// long, with a pause after each round: as a program does that uses files which a dead cgroup
/// read first. Gives how often it went through all of them.
///
/// # Errors
/// What opening and mapping says.
pub fn touch_for(files: &Path, pause: Duration, time: Duration) -> io::Result<u64> {
    let files: Vec<File> = fs::read_dir(files)?
        .map(|entry| File::open(entry?.path()))
        .collect::<io::Result<_>>()?;
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < time {
        for file in &files {
            touch(file)?;
        }
        rounds += 1;
        std::thread::sleep(pause);
    }
    Ok(rounds)
}

fn touch(file: &File) -> io::Result<()> {
    // SAFETY: a new mapping of the file's first page, which nobody truncates; it is read once
    // and unmapped before anything else can use its address.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        std::hint::black_box(page.cast::<u8>().read_volatile());
        libc::munmap(page, PAGE);
    }
    Ok(())
}

/// Reads the file `name` of every cgroup at and below `top`, as monitoring agents do, with a
/// pause after each round. Gives the longest read and how many there were.
///
/// # Errors
/// What walking the folders says; a cgroup may go while it is walked.
pub fn read_all_for(
    top: &Path,
    name: &str,
    pause: Duration,
    time: Duration,
) -> io::Result<(Duration, u64)> {
    let started = Instant::now();
    let mut text = vec![0; 64 * 1024];
    let (mut longest, mut reads) = (Duration::ZERO, 0);
    while started.elapsed() < time {
        for cgroup in cgroups(top) {
            let Ok(mut file) = File::open(cgroup.join(name)) else {
                continue;
            };
            let began = Instant::now();
            // One that goes meanwhile reads ENODEV.
            let _ = file.read(&mut text);
            longest = longest.max(began.elapsed());
            reads += 1;
        }
        std::thread::sleep(pause);
    }
    Ok((longest, reads))
}

fn cgroups(top: &Path) -> Vec<PathBuf> {
    let mut all = vec![top.to_owned()];
    let mut at = 0;
    while let Some(folder) = all.get(at) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let below: Vec<_> = entries
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| e.path())
            .collect();
        all.extend(below);
        at += 1;
    }
    all
}
