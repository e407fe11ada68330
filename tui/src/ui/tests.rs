use std::future::Future;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rexpect::process::wait::WaitStatus;
use stalltop_model::change::{Entry, Failure, OpenMode, Outcome, Request, UndoClass, Write};
use stalltop_view::{Depth, Feed, Keymap, Options, Theme};
use tokio::sync::mpsc::unbounded_channel;

use super::*;

fn app() -> App {
    App::new(Options {
        theme: Theme::named("night", Depth::None).unwrap(),
        keymap: Keymap::builtin().unwrap(),
        ascii: false,
        read_only: None,
        feed: Feed::Live { tick_ns: 1 },
    })
}

/// A screen without a terminal, and what makes its feed go on.
fn ui() -> (Ui, Sender<FeedMsg>) {
    let (to_screen, messages) = channel(2);
    let feed = feed::Running {
        messages,
        requests: mpsc::channel().0,
        recycles: false,
    };
    (Ui::new(app(), feed, None).unwrap(), to_screen)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    crate::commands::runtime().unwrap().block_on(future)
}

fn plan(title: &str) -> Box<Plan> {
    let write = Write {
        path: "/t/enable".into(),
        mode: OpenMode::Truncate,
        value: "0".into(),
        item: None,
        before: Some("1".into()),
        after: Some("0".into()),
        kept: Vec::new(),
        undo: Vec::new(),
    };
    Box::new(Plan {
        request: Request::Off {
            selector: "a:*".into(),
        },
        title: title.into(),
        writes: vec![write.clone(), write],
        undo: UndoClass::Exact,
        notes: Vec::new(),
        left: Vec::new(),
        confirm_word: None,
    })
}

fn entry(plan: &Plan, outcome: Outcome) -> Box<Entry> {
    Box::new(Entry {
        id: 4,
        wall_ns: 0,
        by: "root[1]".into(),
        boot: "b".into(),
        plan: plan.clone(),
        outcome,
        undoes: None,
        effect: None,
    })
}

#[test]
fn a_feed_or_thread_that_ends_is_a_failure() {
    block_on(async {
        let mut signals = Signals::catch().unwrap();
        let (_keys, events) = channel(1);
        let (tell, panics) = unbounded_channel();
        let mut sources = Sources { events, panics };
        let (mut ui, to_screen) = ui();
        let panic = |spared| Panic {
            what: "thread x failed".into(),
            spared,
        };
        let mut turn = async |ui: &mut Ui| match ui.turn(&mut sources, &mut signals).await {
            Go::Fail(error) => Some(error.to_string()),
            Go::On => None,
            Go::Quit => panic!("it quits in peace"),
        };
        // The collectors say so where they measure: the screen goes on.
        assert!(tell.send(panic(true)).is_ok());
        assert_eq!(turn(&mut ui).await, None);
        assert_eq!(ui.stays(), ["thread x failed"]);
        // Without any other it stands still.
        assert!(tell.send(panic(false)).is_ok());
        assert_eq!(turn(&mut ui).await.as_deref(), Some("thread x failed"));
        drop(to_screen);
        let why = turn(&mut ui).await.unwrap();
        assert!(why.contains("measuring ended"), "{why}");
        // Its panic says more than the end of its channel.
        assert!(tell.send(panic(false)).is_ok());
        assert_eq!(turn(&mut ui).await.as_deref(), Some("thread x failed"));
    });
}

#[test]
fn who_leaves_waits_for_what_is_being_written() {
    let (mut ui, _to_screen) = ui();
    let job = JobId::default();
    let plan = plan("switch off 2 events");
    ui.writing.insert(job, plan.clone());
    let line = "finishing: switch off 2 events (Ctrl-C does not wait)";
    assert_eq!(ui.finishing().as_deref(), Some(line));
    let answers = ui.answers.clone().unwrap();
    let worker = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        let failed = Outcome::Failed {
            written: 1,
            why: "busy".into(),
        };
        let result = Err(Failure {
            error: ChangeError::NothingToDo { why: "busy".into() },
            entry: Some(entry(&plan, failed)),
        });
        let done = Done::Applied { job, result };
        assert!(answers.blocking_send(done).is_ok());
    });
    block_on(async { ui.leave(&mut Signals::catch().unwrap()).await });
    worker.join().unwrap();
    assert_eq!(ui.finishing(), None);
    let stays = "still in effect: 1 of 2 writes: switch off 2 events (stalltop undo 4)";
    assert_eq!(ui.stays(), [stays]);
}

#[test]
fn a_change_whose_thread_failed_is_not_waited_for_and_told() {
    let (mut ui, _to_screen) = ui();
    let plan = plan("switch off 2 events");
    ui.writing.insert(JobId::default(), plan.clone());
    block_on(async { ui.leave(&mut Signals::catch().unwrap()).await });
    assert_eq!(
        ui.stays(),
        ["unfinished: switch off 2 events (stalltop undo --list says how far it came)"]
    );
    ui.done(Done::Journal(entry(&plan, Outcome::Intended)));
    assert_eq!(
        ui.stays(),
        ["unfinished: switch off 2 events (stalltop undo 4 puts back what was written)"]
    );
    // Undo must look where it was written down.
    ui.journal = Some("/t/a journal".into());
    assert_eq!(
        ui.stays(),
        ["unfinished: switch off 2 events \
          (stalltop undo 4 --journal '/t/a journal' puts back what was written)"]
    );
}

#[test]
fn files_are_written_while_the_screen_goes_on() {
    let (mut ui, _to_screen) = ui();
    assert!(matches!(ui.write_down("text".into(), None), Go::On));
    assert!(ui.is_writing());
    // One at a time: a folder that does not answer would take a thread for each.
    ui.write_down("again".into(), None);
    let Some(Done::Written(files)) = ui.done.blocking_recv() else {
        panic!("no file");
    };
    let [Ok(path)] = &files[..] else {
        panic!("{files:?}");
    };
    assert_eq!(std::fs::read(path).unwrap(), b"text");
    std::fs::remove_file(path).unwrap();
    ui.done(Done::Written(files));
    assert!(!ui.is_writing());
    assert!(ui.done.try_recv().is_err(), "the second is not written");
}

#[test]
fn what_takes_long_leaves_the_others_their_thread() {
    let long = [
        Request::DropCaches { level: None },
        Request::Stop {
            pid: 1,
            signal: None,
        },
    ];
    assert!(long.iter().all(worker::takes_long));
    assert!(!worker::takes_long(&plan("x").request));
}

/// Says to the test below that it is the program.
const CHILD: &str = "STALLTOP_TEST_FAILING_FEED";

/// A program whose feed fails, as [`crate::main`] would end.
#[test]
fn child_whose_feed_fails() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let shown = show(app(), None, || {
        let (to_screen, messages) = channel::<FeedMsg>(2);
        let feed = thread::Builder::new().name("stalltop-feed".into());
        feed.spawn(move || {
            let _until_the_end = to_screen;
            thread::sleep(Duration::from_millis(300));
            panic!("on purpose");
        })?;
        Ok(feed::Running {
            messages,
            requests: mpsc::channel().0,
            recycles: false,
        })
    });
    let Err(error) = shown else {
        std::process::exit(0);
    };
    eprintln!("stalltop: {error:#}");
    std::process::exit(7);
}

#[test]
fn a_panic_elsewhere_gives_the_terminal_back_and_ends_the_program() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([
            "--exact",
            "ui::tests::child_whose_feed_fails",
            "--nocapture",
        ])
        .env(CHILD, "1");
    let mut terminal = rexpect::session::spawn_command(child, Some(30_000)).unwrap();
    let written = terminal.exp_eof().unwrap();
    let status = terminal.process().wait().unwrap();
    assert!(
        matches!(status, WaitStatus::Exited(_, 7)),
        "{status:?}: {written:?}"
    );
    let (_, after) = written.rsplit_once("\x1b[?1049l").unwrap();
    let lines: Vec<&str> = after.lines().filter(|l| l.contains("stalltop")).collect();
    let [line] = lines[..] else {
        panic!("{after:?}");
    };
    assert!(
        line.contains("stalltop: thread stalltop-feed failed at tui/src/ui/tests.rs")
            && line.ends_with("(a bug): on purpose"),
        "{line}"
    );
    assert!(!after.contains("\x1b[?2026h"), "nothing is drawn over it");
}
