//! A tracefs instance of a test's own: what is switched in it is nobody else's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An instance below `instances/`, named after the test and this process. Dropped, it is
/// emptied and removed, also when the test fails.
#[derive(Debug)]
pub struct Instance {
    dir: PathBuf,
    name: String,
}

impl Instance {
    /// Makes `instances/stalltop_NAME_PID`.
    ///
    /// # Errors
    /// What mkdir(2) reports.
    pub fn new(tracefs: &Path, name: &str) -> io::Result<Self> {
        let name = format!("stalltop_{name}_{}", std::process::id());
        let dir = tracefs.join("instances").join(&name);
        fs::create_dir(&dir)?;
        Ok(Self { dir, name })
    }

    /// Its name, as a selector has it before the `/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file of it.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// A file's text without blanks at its ends and without comment lines.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub fn read(&self, file: &str) -> String {
        let text = fs::read_to_string(self.path(file))
            .unwrap_or_else(|e| panic!("{}: {e}", self.path(file).display()));
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        lines.join("\n").trim().to_owned()
    }

    /// Writes a line to a file as `echo VALUE > FILE` does.
    ///
    /// # Panics
    /// Where the kernel refuses it.
    pub fn write(&self, file: &str, value: &str) {
        fs::write(self.path(file), format!("{value}\n"))
            .unwrap_or_else(|e| panic!("echo {value:?} > {}: {e}", self.path(file).display()));
    }

    /// Appends a line to a file as `echo VALUE >> FILE` does.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn append(&self, file: &str, value: &str) -> io::Result<()> {
        use io::Write as _;
        fs::OpenOptions::new()
            .append(true)
            .open(self.path(file))?
            .write_all(format!("{value}\n").as_bytes())
    }

    /// Removes it, with its events' states, filters and triggers. Somebody who looks at all
    /// instances (another stalltop) keeps it busy for a moment: that is waited for.
    ///
    /// # Errors
    /// What rmdir(2) reports, busy after 5 s of trying included.
    pub fn remove(&self) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            match fs::remove_dir(&self.dir) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                done => return done,
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.dir.exists() {
            return;
        }
        let _ = fs::write(self.path("set_event"), "\n");
        if let Err(e) = self.remove() {
            eprintln!("left behind: {}: {e}", self.dir.display());
        }
    }
}
