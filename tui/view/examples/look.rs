//! Prints a screen of a made-up host, for people who change what is drawn:
//! `cargo run -p stalltop-view --example look -- sick 4 80 24 "2 down enter"`.
//! The host is `calm`, `sick`, `bare` (no privilege) or `hostile`, with so many CPUs.

#[path = "../tests/screens/host.rs"]
mod host;

use host::Kind;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use stalltop_view::{App, Depth, Feed, Keymap, Msg, Options, Theme};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = |default: &str| args.next().unwrap_or_else(|| default.to_owned());
    let name = next("sick");
    let cpus = next("4").parse()?;
    let (width, height) = (next("80").parse()?, next("24").parse()?);
    let keys = next("");
    let kind = match &*name {
        "calm" | "bare" => Kind::calm(cpus),
        _ => Kind::sick(cpus),
    };
    let model = host::model(Kind {
        bare: name == "bare",
        hostile: name == "hostile",
        ..kind
    });
    let mut app = App::new(Options {
        theme: Theme::named("night", Depth::True)?,
        keymap: Keymap::builtin()?,
        ascii: false,
        read_only: None,
        feed: Feed::Live {
            tick_ns: 1_000_000_000,
        },
    });
    app.update(Msg::Resize(width, height), &model);
    app.update(Msg::Advanced, &model);
    for key in keys.split_whitespace() {
        app.update(Msg::Key(key.parse()?), &model);
    }
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    terminal.draw(|frame| app.render(&model, frame))?;
    for line in terminal.backend().to_string().lines() {
        println!("{}", line.trim_matches('"').trim_end());
    }
    Ok(())
}
