//! Whatever is pressed, at whatever size: the screen stands.

use proptest::prelude::*;
use stalltop_model::Model;
use stalltop_model::change::{ChangeError, Request};
use stalltop_view::{Effect, Feed, Key, KeyCode, Mouse, MouseKind, Msg};

use super::host::Kind;
use super::{Screen, options};
use stalltop_view::Depth;

fn key() -> impl Strategy<Value = Key> {
    let named = prop::sample::select(vec![
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Backspace,
        KeyCode::F(1),
    ]);
    let code = prop_oneof![
        3 => named,
        5 => (0x20u8..0x7f).prop_map(|b| KeyCode::Char(char::from(b))),
        1 => any::<char>().prop_map(KeyCode::Char),
    ];
    code.prop_map(Key::plain)
}

fn message() -> impl Strategy<Value = Msg> {
    let mouse = (0u8..4, 0u16..220, 0u16..80).prop_map(|(kind, column, row)| {
        let kind = [
            MouseKind::Press,
            MouseKind::Drag,
            MouseKind::WheelUp,
            MouseKind::WheelDown,
        ][usize::from(kind)];
        Msg::Mouse(Mouse { kind, column, row })
    });
    let feed = any::<bool>().prop_map(|live| {
        Msg::Feed(if live {
            Feed::Live {
                tick_ns: 1_000_000_000,
            }
        } else {
            Feed::Replay {
                at_ns: u64::MAX,
                length_ns: 0,
                speed: 0.5,
                paused: true,
                ended: true,
            }
        })
    });
    prop_oneof![
        20 => key().prop_map(Msg::Key),
        4 => mouse,
        2 => Just(Msg::Advanced),
        1 => feed,
        1 => (0u16..220, 0u16..80).prop_map(|(w, h)| Msg::Resize(w, h)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(
        messages in prop::collection::vec(message(), 1..60),
        (width, height) in (1u16..220, 1u16..80),
        cpus in prop::sample::select(vec![1u32, 2, 40]),
        (sick, bare, hostile) in any::<(bool, bool, bool)>(),
        ticks in 0u64..12,
        jumps in prop::collection::vec(any::<(u64, u64)>(), 0..3),
    ) {
        let kind = Kind { cpus, ticks, sick, bare, hostile };
        let mut model = super::host::model(kind);
        for (at_ns, wall_ns) in jumps {
            jump(&mut model, at_ns, wall_ns);
        }
        let mut screen = Screen::of(model, options("night", Depth::Ansi256), width, height);
        for msg in messages {
            if let Msg::Resize(w, h) = msg {
                screen.terminal.backend_mut().resize(w.max(1), h.max(1));
                screen.terminal.autoresize().unwrap();
            }
            screen.send(msg);
            let asked = screen.last.list.iter().find_map(|e| match e {
                Effect::Plan { request, .. } => Some(request.clone()),
                _ => None,
            });
            if let Some(request) = asked {
                answer(&mut screen, &request);
            }
            screen.text();
        }
    }
}

/// A sample of another time, as far forth or back as a recording may say it is.
fn jump(model: &mut Model, at_ns: u64, wall_ns: u64) {
    let mut next = model.now().clone();
    (next.at_ns, next.wall_ns) = (at_ns.min(1 << 60), wall_ns.min(i64::MAX as u64));
    model.advance(&mut next);
}

/// Such a tick reaches into every column there could be.
#[test]
fn a_tick_of_decades_is_drawn_at_once() {
    let mut model = super::host::model(Kind::sick(2));
    jump(&mut model, u64::MAX - 1, u64::MAX - 1);
    let mut screen = Screen::of(model, options("night", Depth::Ansi256), 120, 40);
    screen.keys("2 enter m");
    assert!(screen.text().contains("delay"), "{}", screen.text());
}

/// Some requests are refused, some are never answered.
fn answer(screen: &mut Screen, request: &Request) {
    if matches!(request, Request::Undo { .. }) {
        let result = Err(ChangeError::Moved {
            path: "/x".into(),
            expected: "0".into(),
            found: "\x1b[2J".into(),
        });
        screen.planned(result);
    }
}
