//! Changing this host in tests: a journal of their own, and children that are killed half-way.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use stalltop_collectors::Env;
use stalltop_collectors::change::{self, Journal, Writer};
use stalltop_collectors::live::{Live, Options};
use stalltop_collectors::tracing::TracingCollector;
use stalltop_model::change::{ChangeError, Entry, Plan, Request};
use stalltop_model::sample::Tracing;

/// What a test changes with: a journal of its own and this host.
#[derive(Debug)]
pub struct Bench {
    _dir: tempfile::TempDir,
    /// Leave to change this host.
    pub writer: Writer,
    /// This host.
    pub env: Env,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// A fresh journal in a folder of its own.
    ///
    /// # Panics
    /// Where that fails.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(&dir.path().join("journal"));
        Self {
            _dir: dir,
            writer,
            env: Env::live(),
        }
    }

    /// What the journal says now.
    ///
    /// # Panics
    /// Where that fails.
    pub fn journal(&self) -> Journal {
        Journal::read(&self.env, self.writer.journal()).unwrap()
    }

    /// Plans on this host.
    ///
    /// # Errors
    /// As [`change::plan`].
    pub fn plan(&self, request: &Request) -> Result<Plan, ChangeError> {
        let tracing = holders(&self.env, request);
        change::plan(&self.env, request, &self.journal(), tracing.as_deref())
    }

    /// Carries a plan out.
    ///
    /// # Errors
    /// As [`change::apply`].
    pub fn apply(&self, plan: &Plan) -> Result<Entry, change::Failure> {
        change::apply(&self.writer, plan, &mut |_| ())
    }

    /// Plans and carries out.
    ///
    /// # Panics
    /// Where that fails.
    pub fn make(&self, request: &Request) -> Entry {
        self.apply(&self.plan(request).unwrap()).unwrap()
    }

    /// Undoes the newest change.
    ///
    /// # Panics
    /// Where that fails.
    pub fn undo(&self) -> Entry {
        self.make(&UNDO)
    }
}

fn writer(journal: &Path) -> Writer {
    Live::writer(&Options::default(), Some(journal)).unwrap()
}

/// Undo of the newest change.
pub const UNDO: Request = Request::Undo {
    entry: None,
    force: false,
};

/// Switch off.
pub fn off(selector: &str) -> Request {
    Request::Off {
        selector: selector.into(),
    }
}

/// Remove.
pub fn remove(selector: &str) -> Request {
    Request::Remove {
        selector: selector.into(),
    }
}

/// Switch on.
pub fn on(selector: &str, force: bool) -> Request {
    Request::On {
        selector: selector.into(),
        force,
    }
}

/// Who holds what, where a request needs to know: who holds something is stopped, nobody else.
fn holders(env: &Env, request: &Request) -> Option<Arc<Tracing>> {
    let stops = matches!(request, Request::Stop { .. });
    stops.then(|| TracingCollector::new(env).scan_all())
}

/// Says to a child of [`kill_at`] what to do.
const CHILD: &str = "STALLTOP_TEST_KILLED_CHILD";

/// Runs the test `child_that_is_killed` of this program as a child that stops after `point`
/// writes, and kills it there. A child that has fewer writes to make ends by itself. `args` is `off JOURNAL SELECTOR`,
/// `remove JOURNAL SELECTOR`, `stop JOURNAL PID` or `undo JOURNAL`.
///
/// # Panics
/// Where the child fails instead.
pub fn kill_at(point: usize, args: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed", "--nocapture"])
        .env(CHILD, format!("{point} {args}"))
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let at_point = lines.any(|line| line.unwrap().contains("at the point"));
    // SIGKILL.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(at_point || status.success(), "{args}: {status}");
}

/// What the test `child_that_is_killed` does where [`kill_at`] started it: a change that stops
/// where it is to be killed. Does nothing otherwise.
///
/// # Panics
/// Where the change fails.
pub fn killed_child() {
    let Ok(args) = std::env::var(CHILD) else {
        return;
    };
    let mut args = args.split(' ');
    let mut next = || args.next().unwrap().to_owned();
    let point: usize = next().parse().unwrap();
    let what = next();
    let writer = writer(Path::new(&next()));
    let request = match what.as_str() {
        "off" => off(&next()),
        "remove" => remove(&next()),
        "stop" => Request::Stop {
            pid: next().parse().unwrap(),
            signal: None,
        },
        _ => UNDO,
    };
    let env = Env::live();
    let journal = Journal::read(&env, writer.journal()).unwrap();
    let tracing = holders(&env, &request);
    let plan = change::plan(&env, &request, &journal, tracing.as_deref()).unwrap();
    if plan.writes.len() < point {
        return;
    }
    let mut progress = |p: change::Progress| {
        if p.done == point {
            println!("at the point");
            std::io::stdout().flush().unwrap();
            // Until killed: the parent keeps the other end open.
            let _ = std::io::stdin().lines().next();
        }
    };
    change::apply(&writer, &plan, &mut progress).unwrap();
}
