//! What drawing the screen costs, at 2, 128 and 1,024 CPUs.

#[path = "../tests/screens/host.rs"]
mod host;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use host::Kind;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use stalltop_view::{App, Depth, Feed, Keymap, Msg, Options, Theme};

fn render(c: &mut Criterion) {
    for (pane, key) in [
        ("overview", "1"),
        ("cores", "2"),
        ("stalls", "3"),
        ("tracing", "4"),
        ("cgroups", "5"),
    ] {
        let mut group = c.benchmark_group(pane);
        for cpus in [2, 128, 1_024] {
            let model = host::model(Kind::sick(cpus));
            let mut app = App::new(Options {
                theme: Theme::named("night", Depth::True).unwrap_or_default(),
                keymap: Keymap::builtin().expect("the builtin keys"),
                ascii: false,
                read_only: None,
                feed: Feed::Live {
                    tick_ns: 1_000_000_000,
                },
            });
            app.update(Msg::Resize(200, 60), &model);
            app.update(Msg::Key(key.parse().expect("a key")), &model);
            let mut terminal = Terminal::new(TestBackend::new(200, 60)).expect("a terminal");
            group.bench_function(BenchmarkId::new("update", cpus), |b| {
                b.iter(|| app.update(Msg::Advanced, &model));
            });
            group.bench_function(BenchmarkId::new("draw", cpus), |b| {
                b.iter(|| terminal.draw(|frame| app.render(&model, frame)).map(|_| ()));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, render);
criterion_main!(benches);
