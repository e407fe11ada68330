//! What drawing the screen costs, at 2, 128 and 1,024 CPUs, with 4,096 stalls, and with many
//! stacks that wait for locks.

#[path = "../tests/screens/host.rs"]
mod host;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use host::Kind;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use stalltop_model::sample::{LockStack, Stall};
use stalltop_model::{Frame, Model, Reading};
use stalltop_view::{App, Depth, Feed, Keymap, Msg, Options, Theme};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn render(c: &mut Criterion) {
    for (pane, key) in [
        ("overview", "1"),
        ("cores", "2"),
        ("stalls", "3"),
        ("locks", "4"),
        ("tracing", "5"),
        ("cgroups", "6"),
    ] {
        let mut group = c.benchmark_group(pane);
        for cpus in [2, 128, 1_024] {
            let model = host::model(Kind::sick(cpus));
            measure(&mut group, &cpus.to_string(), key, &model);
        }
        group.finish();
    }
}

/// As many stalls as are kept, on as many CPUs as there may be.
fn many_stalls(c: &mut Criterion) {
    let mut model = host::model(Kind::sick(512));
    let one = model.stalls.iter().next().map(|s| (**s).clone());
    let one = one.unwrap_or_default();
    for i in 0..4_096u64 {
        let stall = Stall {
            id: 10_000 + i,
            cpu: (i % 512) as u32,
            at_ns: one.at_ns + i * 25_000_000,
            delay_ns: 5_000_000 + i % 97 * 1_000_000,
            ..one.clone()
        };
        model.apply(&mut Frame::Stall(Box::new(stall)));
    }
    let screens = [
        ("newest first", "3"),
        ("by cpu, unfolded", "3 v v v z"),
        ("filtered", "3 / m e m o r y enter"),
        ("details", "3 enter"),
        ("overview", "1"),
        ("cores", "2"),
        ("heat map", "2 down enter m"),
    ];
    measure_all(c, "4096 stalls", &model, &screens);
}

/// Windows of 500 stacks of 120 functions each, nearly none in common.
fn many_waits(c: &mut Criterion) {
    let kind = Kind {
        ticks: 12,
        ..Kind::sick(512)
    };
    let mut model = host::model(kind);
    let tracing = std::sync::Arc::clone(&model.now().tracing);
    for tick in kind.ticks..kind.ticks + 10 {
        let mut window = host::locks::window(kind, tick);
        let one = window.stacks.first().cloned();
        window.stacks = (0..500u32)
            .filter_map(|i| {
                let frames =
                    (0..120).map(|f| format!("f{}_{f}", if f < 60 { i } else { f }).into());
                Some(LockStack {
                    frames: frames.collect(),
                    tgid: i,
                    ..one.clone()?
                })
            })
            .collect();
        let mut sample = host::sample(kind, tick, &tracing);
        sample.locks = Reading::Value(std::sync::Arc::new(window));
        model.advance(&mut sample);
    }
    let screens = [
        ("by lock", "4"),
        ("by stack", "4 v"),
        ("by cpu", "4 v v v"),
        ("flame graph", "4 enter"),
        ("tree", "4 enter v"),
        ("overview", "1"),
    ];
    measure_all(c, "500 stacks a window", &model, &screens);
}

/// Times what a tick costs on several screens, named with the keys that lead to them.
fn measure_all(c: &mut Criterion, group: &str, model: &Model, screens: &[(&str, &str)]) {
    let mut group = c.benchmark_group(group);
    for (name, keys) in screens {
        measure(&mut group, name, keys, model);
    }
    group.finish();
}

fn measure(group: &mut Group<'_>, name: &str, keys: &str, model: &Model) {
    let mut app = app();
    app.update(Msg::Resize(200, 60), model);
    for key in keys.split(' ') {
        app.update(Msg::Key(key.parse().expect("a key")), model);
    }
    let mut terminal = Terminal::new(TestBackend::new(200, 60)).expect("a terminal");
    group.bench_function(BenchmarkId::new("update", name), |b| {
        b.iter(|| app.update(Msg::Advanced, model));
    });
    group.bench_function(BenchmarkId::new("draw", name), |b| {
        b.iter(|| terminal.draw(|frame| app.render(model, frame)).map(|_| ()));
    });
}

fn app() -> App {
    App::new(Options {
        theme: Theme::named("night", Depth::True).unwrap_or_default(),
        keymap: Keymap::builtin().expect("the builtin keys"),
        ascii: false,
        read_only: None,
        feed: Feed::Live {
            tick_ns: 1_000_000_000,
        },
    })
}

criterion_group!(benches, render, many_stalls, many_waits);
criterion_main!(benches);
