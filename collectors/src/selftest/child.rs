//! A child process of the self-test and the lines that it prints.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child as Process, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

/// How long a child that was let go may take to clean up.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// A child. Dropped, it is killed unless it [`keeps on`](Self::let_go).
pub(super) struct Child<T: DeserializeOwned + Send + 'static> {
    process: Process,
    lines: Receiver<T>,
    stdin: Option<ChildStdin>,
    kill: bool,
}

impl<T: DeserializeOwned + Send + 'static> Child<T> {
    /// Starts `program` with `selftest` and these arguments. To be called from a thread that
    /// outlives the child: the kernel ends it with that thread (prctl(2), `PR_SET_PDEATHSIG`).
    pub(super) fn start(program: &Path, arguments: &[String]) -> io::Result<Self> {
        Self::spawn(program, arguments, true)
    }

    /// The same, of a child that ends when its standard input does, and that a Ctrl-C at the
    /// terminal does not reach.
    pub(super) fn start_apart(program: &Path, arguments: &[String]) -> io::Result<Self> {
        Self::spawn(program, arguments, false)
    }

    fn spawn(program: &Path, arguments: &[String], kill: bool) -> io::Result<Self> {
        let mut command = Command::new(program);
        command
            .arg("selftest")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if kill {
            command.stdin(Stdio::null());
        } else {
            command.stdin(Stdio::piped()).process_group(0);
        }
        let mut process = command.spawn()?;
        let (sender, lines) = channel();
        if let Some(stdout) = process.stdout.take() {
            std::thread::Builder::new()
                .name("selftest-lines".to_owned())
                .spawn(move || {
                    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                        let Ok(line) = serde_json::from_str(&line) else {
                            continue;
                        };
                        if sender.send(line).is_err() {
                            break;
                        }
                    }
                })?;
        }
        Ok(Self {
            stdin: process.stdin.take(),
            process,
            lines,
            kill,
        })
    }

    /// What it has printed since the last call.
    pub(super) fn lines(&self) -> impl Iterator<Item = T> + '_ {
        self.lines.try_iter()
    }

    /// Its status, if it has ended.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// What it said went wrong. Waits for its end.
    pub(super) fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(stderr) = self.process.stderr.take() {
            // It is short: one line of ours.
            let _ = stderr.take(4096).read_to_string(&mut text);
        }
        let text = text.trim().trim_start_matches("stalltop: ");
        if text.is_empty() {
            "it ended without a word".to_owned()
        } else {
            text.to_owned()
        }
    }

    /// Ends its standard input, waits, and gives the rest of its lines.
    ///
    /// # Errors
    /// It has not ended within 15 s, as when somebody stopped it: then it is killed.
    pub(super) fn let_go(&mut self) -> io::Result<Vec<T>> {
        drop(self.stdin.take());
        let until = Instant::now() + ENDS_WITHIN;
        while self.process.try_wait()?.is_none() {
            if Instant::now() > until {
                let _ = self.process.kill();
                self.process.wait()?;
                return Err(io::Error::other(
                    "the process that cleans up did not end and was killed; the next self-test \
                     removes what is left",
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(self.lines.iter().collect())
    }
}

impl<T: DeserializeOwned + Send + 'static> Drop for Child<T> {
    fn drop(&mut self) {
        if self.kill {
            let _ = self.process.kill();
            let _ = self.process.wait();
        } else {
            let _ = self.let_go();
        }
    }
}
