//! A terminal of a test's own: the program runs on a pseudo-terminal (pty(7)), what it writes
//! goes through a terminal emulator, and the test waits for what a person would see.
#![expect(
    unsafe_code,
    reason = "pseudo-terminals, their attributes and a session of its own by libc"
)]

use std::fs::{self, File};
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// How long a test waits for something to appear: far longer than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// `nobody`: an account that owns nothing.
const NOBODY: u32 = 65534;

/// What is started, and on what terminal.
pub struct Start {
    command: Command,
    columns: u16,
    rows: u16,
}

impl Start {
    /// `program` on a terminal of 80 columns and 24 rows with true colour.
    pub fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        command
            .env("TERM", "xterm-256color")
            .env("COLORTERM", "truecolor")
            .env_remove("NO_COLOR");
        Self {
            command,
            columns: 80,
            rows: 24,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Another size.
    #[must_use]
    pub fn size(mut self, columns: u16, rows: u16) -> Self {
        (self.columns, self.rows) = (columns, rows);
        self
    }

    /// As `nobody`, with no groups and no capabilities. Needs root.
    #[must_use]
    pub fn as_nobody(mut self) -> Self {
        self.command.uid(NOBODY).gid(NOBODY);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// Where there are no pseudo-terminals, or no such program.
    pub fn run(mut self) -> Tty {
        let (master, slave) = open_pty(self.columns, self.rows).expect("a pseudo-terminal");
        let before = attributes(&slave);
        let (errors, errors_in) = io::pipe().expect("a pipe");
        let end = || slave.try_clone().expect("another descriptor");
        self.command.stdin(end()).stdout(end()).stderr(errors_in);
        // SAFETY: between fork and exec only setsid(2) and ioctl(2) are called, both
        // async-signal-safe (signal-safety(7)); descriptor 0 is the terminal by then.
        unsafe {
            self.command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = self.command.spawn().expect("the program starts");
        let pid = Pid::from_child(&child);
        Tty {
            ended: pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open(2)"),
            child,
            master: Some(File::from(master)),
            slave,
            before,
            errors,
            emulator: vt100::Parser::new(self.rows, self.columns, 0),
            written: Vec::new(),
        }
    }
}

/// A program on a terminal. Dropped, the program is killed.
pub struct Tty {
    child: Child,
    ended: OwnedFd,
    master: Option<File>,
    /// Kept open, so that the terminal and its attributes outlive the program.
    slave: OwnedFd,
    before: Attributes,
    errors: PipeReader,
    emulator: vt100::Parser,
    written: Vec<u8>,
}

/// How a program left.
#[derive(Debug)]
pub struct Left {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard error, which is no terminal.
    pub errors: String,
}

impl Tty {
    /// Types keys, as the bytes that a terminal sends for them.
    ///
    /// # Panics
    /// Where the terminal is closed.
    pub fn keys(&mut self, bytes: &str) -> &mut Self {
        let mut master = self.master.as_ref().expect("an open terminal");
        master.write_all(bytes.as_bytes()).expect("keys are taken");
        self
    }

    /// What a person sees now.
    pub fn screen(&self) -> &vt100::Screen {
        self.emulator.screen()
    }

    /// The text of the screen now.
    pub fn text(&self) -> String {
        self.screen().contents()
    }

    /// Every byte that the program wrote to the terminal.
    pub fn written(&self) -> &[u8] {
        &self.written
    }

    /// Waits for a whole screen that `is` so; gives its text.
    ///
    /// # Panics
    /// Where it does not come, with the screen that is there instead.
    pub fn wait(&mut self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if self.is_whole() && is(&text) {
                return text;
            }
            let left = end.saturating_duration_since(Instant::now());
            let over = !self.take(left) && (left.is_zero() || self.has_ended());
            assert!(!over, "waited for {what}, the screen is:\n{text}");
        }
    }

    /// Waits for these texts on the screen.
    ///
    /// # Panics
    /// As [`Tty::wait`].
    pub fn see(&mut self, texts: &[&str]) -> String {
        self.wait(&format!("{texts:?}"), |screen| {
            texts.iter().all(|text| screen.contains(text))
        })
    }

    /// Waits until something outside the terminal `is` so, while the screen goes on.
    ///
    /// # Panics
    /// Where it does not come to be, with the screen.
    pub fn until(&mut self, what: &str, mut is: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is() {
            assert!(
                Instant::now() < end,
                "waited for {what}, the screen is:\n{}",
                self.text()
            );
            self.take(Duration::from_millis(20));
        }
    }

    /// Another size, as when a person pulls at the window.
    ///
    /// # Panics
    /// Where the terminal is closed.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        // What was drawn for the old size is drawn before the new one counts.
        while self.take(Duration::ZERO) {}
        self.emulator.screen_mut().set_size(rows, columns);
        set_size(&self.slave, columns, rows).expect("TIOCSWINSZ");
    }

    /// Waits until the keys that were typed are there for the program to read, which it does not.
    ///
    /// # Panics
    /// Where they do not come.
    pub fn keys_wait(&self) {
        let timeout = PATIENCE.try_into().expect("a short time");
        let mut fds = [PollFd::new(&self.slave, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&timeout)).expect("poll(2)");
        assert!(ready == 1, "the keys do not arrive");
    }

    /// Stops the thread of that name, and no other, until what it gives is dropped.
    ///
    /// # Panics
    /// Where there is none, or ptrace(2) may not stop it.
    #[must_use]
    pub fn stop_thread(&self, name: &str) -> StoppedThread {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("/proc");
        let named = tasks.flatten().find(|task| {
            let comm = fs::read_to_string(task.path().join("comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        });
        let named = named.and_then(|task| task.file_name().to_str()?.parse().ok());
        StoppedThread::new(named.expect("a thread of that name")).expect("ptrace(2)")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the program.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn signal(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a running program");
    }

    /// Closes the terminal, as a lost connection does: the kernel sends SIGHUP.
    pub fn hang_up(&mut self) {
        self.master = None;
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn end(&mut self) -> Left {
        let end = Instant::now() + PATIENCE;
        while !self.has_ended() {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it does not end:\n{}", self.text());
            self.take(left);
        }
        while self.take(Duration::ZERO) {}
        let status = self.child.wait().expect("wait(2)");
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).expect("UTF-8");
        Left { status, errors }
    }

    /// Whether the terminal is as it was before the program: main screen, cursor, no mouse,
    /// line discipline.
    ///
    /// # Panics
    /// With what differs.
    pub fn assert_given_back(&self) {
        let screen = self.screen();
        assert!(!screen.alternate_screen(), "the alternate screen is left");
        assert!(!screen.hide_cursor(), "the cursor is shown");
        assert_eq!(
            screen.mouse_protocol_mode(),
            vt100::MouseProtocolMode::None,
            "the mouse is the terminal's"
        );
        assert_eq!(attributes(&self.slave), self.before, "terminal attributes");
    }

    /// Whether the terminal's attributes differ from those before the program.
    pub fn is_taken(&self) -> bool {
        attributes(&self.slave) != self.before
    }

    /// Not in the middle of a synchronized update.
    fn is_whole(&self) -> bool {
        let mark = b"\x1b[?2026";
        let found = self.written.windows(mark.len()).rposition(|w| w == mark);
        found.is_none_or(|at| self.written.get(at + mark.len()) == Some(&b'l'))
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait(2)").is_some()
    }

    /// Takes what the program writes within `time`; false if it wrote nothing.
    fn take(&mut self, time: Duration) -> bool {
        let timeout = time.try_into().expect("a short time");
        let Some(mut master) = self.master.as_ref() else {
            let mut fds = [PollFd::new(&self.ended, PollFlags::IN)];
            poll(&mut fds, Some(&timeout)).expect("poll(2)");
            return false;
        };
        let mut fds = [
            PollFd::new(&master, PollFlags::IN),
            PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN),
        ];
        poll(&mut fds, Some(&timeout)).expect("poll(2)");
        if !fds[0].revents().contains(PollFlags::IN) {
            return false;
        }
        let mut chunk = [0; 16 * 1024];
        let n = master.read(&mut chunk).expect("the terminal is readable");
        self.written.extend_from_slice(&chunk[..n]);
        self.emulator.process(&chunk[..n]);
        n > 0
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // Ended already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A thread of another process that does not run until this is dropped, by the thread that has
/// stopped it.
#[derive(Debug)]
pub struct StoppedThread(libc::pid_t);

impl StoppedThread {
    fn new(thread: libc::pid_t) -> io::Result<Self> {
        // SAFETY: ptrace(2) and waitpid(2) with these requests touch no memory of ours.
        unsafe {
            checked(libc::ptrace(libc::PTRACE_SEIZE, thread, 0, 0))?;
            let seized = Self(thread);
            checked(libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0))?;
            checked(libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL))?;
            Ok(seized)
        }
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        // SAFETY: as above. The thread may be gone.
        unsafe {
            libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0);
        }
    }
}

/// The attributes that matter: modes and control characters of `struct termios`.
#[derive(Debug, PartialEq, Eq)]
struct Attributes {
    modes: [u32; 4],
    characters: [u8; 32],
}

fn attributes(tty: &OwnedFd) -> Attributes {
    // SAFETY: termios is plain integers, filled by the call for an open descriptor.
    let found = unsafe {
        let mut found: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(tty.as_raw_fd(), &raw mut found), 0);
        found
    };
    Attributes {
        modes: [found.c_iflag, found.c_oflag, found.c_cflag, found.c_lflag],
        characters: found.c_cc,
    }
}

/// Both ends, closed on exec from the start: another test's program must not inherit the master,
/// which would keep the terminal open.
fn open_pty(columns: u16, rows: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the calls take a descriptor and flags (pty(7), ioctl_tty(2)); what they give is new,
    // nobody else has it.
    let (master, slave) = unsafe {
        let master = owned(libc::posix_openpt(flags))?;
        checked(libc::unlockpt(master.as_raw_fd()))?;
        let slave = owned(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags))?;
        (master, slave)
    };
    set_size(&slave, columns, rows)?;
    Ok((master, slave))
}

/// # Safety
/// The descriptor is new, or an error.
unsafe fn owned(fd: i32) -> io::Result<OwnedFd> {
    checked(fd)?;
    // SAFETY: the caller's promise, passed on.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(result: impl Into<i64>) -> io::Result<()> {
    if result.into() < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_size(tty: &OwnedFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize (tty_ioctl(4)).
    checked(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
}
