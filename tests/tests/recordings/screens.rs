//! What the panes show of a real recording, through the code that shows it live.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use stalltop_model::Model;
use stalltop_model::recording::{Player, Recording};
use stalltop_view::{App, Depth, Feed, Key, Keymap, Msg, Options, Theme};

/// The sample shown: in the middle of the flood.
const SHOWN: u64 = 45;

fn model() -> Model {
    let recording = Recording::open(super::committed_bytes(), |_| ()).expect("a recording");
    assert_eq!(recording.note(), None);
    let mut player = Player::new(recording);
    let mut model = Model::new();
    while model.samples() < SHOWN {
        let mut frame = player.next_frame().expect("a frame").expect("more frames");
        model.apply(&mut frame);
    }
    model
}

fn screen(model: &Model, pane: &str, columns: u16, rows: u16) -> String {
    let mut app = App::new(Options {
        theme: Theme::named("night", Depth::True).expect("a theme"),
        keymap: Keymap::builtin().expect("keys"),
        ascii: false,
        read_only: Some("a recording cannot be changed".to_owned()),
        feed: Feed::Replay {
            at_ns: (SHOWN - 1) * 1_000_000_000,
            length_ns: 60_000_000_000,
            speed: 1.0,
            paused: false,
            ended: false,
        },
    });
    app.update(Msg::Resize(columns, rows), model);
    app.update(Msg::Advanced, model);
    let key: Key = pane.parse().expect("a key");
    app.update(Msg::Key(key), model);
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a terminal");
    terminal
        .draw(|frame| app.render(model, frame))
        .expect("to draw");
    let text = terminal.backend().to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(|l| l.trim_matches('"').trim_end())
        .collect();
    lines.join("\n")
}

#[test]
fn the_panes_of_a_flood() {
    let model = model();
    for (columns, rows) in [(80, 24), (120, 36)] {
        for (key, name) in [
            ("1", "overview"),
            ("2", "cores"),
            ("3", "stalls"),
            ("5", "tracing"),
            ("6", "cgroups"),
        ] {
            insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "../snapshots" }, {
                insta::assert_snapshot!(format!("loopback_{name}_{columns}x{rows}"), screen(&model, key, columns, rows));
            });
        }
    }
}
