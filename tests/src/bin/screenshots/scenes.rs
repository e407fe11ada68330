//! What is on each picture: how far into the recording, and which keys were pressed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use stalltop_collectors::Env;
use stalltop_collectors::change::{self, Journal};
use stalltop_model::recording::{Player, Recording};
use stalltop_model::sample::{KernelProbeKind, Tracing};
use stalltop_model::{Frame, Model};
use stalltop_view::{App, Depth, Effect, Feed, Key, Keymap, Msg, Options, Theme};

/// One picture.
pub(super) struct Scene {
    pub(super) name: &'static str,
    /// The file in `tests/recordings`.
    recording: &'static str,
    columns: u16,
    rows: u16,
    theme: &'static str,
    /// Samples of the recording that were seen.
    samples: u64,
    /// Pressed one after the other.
    keys: &'static [&'static str],
    /// What must be on the screen: a picture of something else is worse than none.
    shows: &'static str,
}

/// All pictures.
pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "overview",
        recording: "demo.zst",
        columns: 120,
        rows: 26,
        theme: "night",
        samples: 98,
        keys: &[],
        shows: "nft_do_chain",
    },
    Scene {
        name: "cores",
        recording: "demo.zst",
        columns: 120,
        rows: 21,
        theme: "night",
        samples: 98,
        keys: &["2", "j", "enter"],
        shows: "raise to entry",
    },
    Scene {
        name: "stall",
        recording: "i2.zst",
        columns: 120,
        rows: 30,
        theme: "night",
        samples: 9,
        keys: &["3", "j", "enter"],
        shows: "memory_stat_show",
    },
    Scene {
        name: "locks",
        recording: "i1.zst",
        columns: 120,
        rows: 28,
        theme: "night",
        samples: 16,
        keys: &["4", "enter"],
        shows: "htab_map_update_elem",
    },
    Scene {
        name: "storm",
        recording: "i1.zst",
        columns: 120,
        rows: 30,
        theme: "night",
        samples: 16,
        keys: &["enter"],
        shows: "ebpf.plugin[132]'s kretprobe on __x64_sys_getppid costs",
    },
    Scene {
        name: "tracing",
        recording: "i1.zst",
        columns: 120,
        rows: 29,
        theme: "night",
        samples: 16,
        keys: &["5", "K"],
        shows: "kprobes/enabled",
    },
    Scene {
        name: "cgroups",
        recording: "demo.zst",
        columns: 120,
        rows: 22,
        theme: "night",
        samples: 98,
        keys: &["6"],
        shows: "postgresql.service",
    },
];

impl Scene {
    /// The screen after the samples and the keys.
    pub(super) fn screen(&self, root: &Path) -> Result<Buffer> {
        let path = root.join("tests/recordings").join(self.recording);
        let recording = fs::read(&path).with_context(|| path.display().to_string())?;
        let recording = Recording::open(recording, |_| {})?;
        let tick_ns = recording.header().tick_ns;
        let mut player = Player::new(recording);
        let mut model = Model::new();
        let mut app = App::new(Options {
            theme: Theme::named(self.theme, Depth::True)?,
            keymap: Keymap::builtin()?,
            ascii: false,
            read_only: None,
            feed: Feed::Live { tick_ns },
        });
        app.update(Msg::Resize(self.columns, self.rows), &model);
        while model.samples() < self.samples {
            let mut frame = player.next_frame()?.context("the recording is too short")?;
            let is_sample = matches!(frame, Frame::Sample(_));
            model.apply(&mut frame);
            if is_sample {
                app.update(Msg::Advanced, &model);
            }
        }
        for key in self.keys {
            let key: Key = key.parse().map_err(|_| anyhow!("{key} is no key"))?;
            for effect in app.update(Msg::Key(key), &model).list {
                if let Effect::Plan { job, request } = effect {
                    let tracing = &model.now().tracing;
                    let host = recorded_host(tracing)?;
                    let env = Env::at(host.path());
                    let result = change::plan(&env, &request, &Journal::default(), Some(tracing));
                    let result = result.map(Box::new);
                    app.update(Msg::Planned { job, result }, &model);
                }
            }
        }
        let mut terminal = ratatui::Terminal::new(TestBackend::new(self.columns, self.rows))?;
        terminal.draw(|frame| app.render(&model, frame))?;
        let screen = terminal.backend().buffer().clone();
        ensure!(
            text(&screen).contains(self.shows),
            "{} is not shown:\n{}",
            self.shows,
            text(&screen)
        );
        Ok(screen)
    }
}

/// The files that the plan of the master switch of kprobes reads, as the recording has them: the
/// plan is then worked out as it is on a host.
fn recorded_host(tracing: &Tracing) -> Result<tempfile::TempDir> {
    let probes = tracing
        .kprobes
        .value()
        .context("no kprobes were recorded")?;
    let enabled = probes
        .enabled
        .get()
        .context("the master switch was not recorded")?;
    let mut list = String::new();
    for probe in &probes.list {
        let kind = match probe.kind {
            KernelProbeKind::Kprobe => 'k',
            KernelProbeKind::Kretprobe => 'r',
        };
        writeln!(
            list,
            "{:x}  {kind}  {}+{:#x}",
            probe.address, probe.symbol, probe.offset
        )?;
    }
    let host = tempfile::tempdir()?;
    let mounts = "24 1 0:7 / /sys/kernel/debug rw - debugfs debugfs rw\n";
    for (path, text) in [
        ("proc/self/mountinfo", mounts),
        (
            "sys/kernel/debug/kprobes/enabled",
            if enabled { "1\n" } else { "0\n" },
        ),
        ("sys/kernel/debug/kprobes/list", &list),
    ] {
        let path = host.path().join(path);
        fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        fs::write(path, text)?;
    }
    Ok(host)
}

fn text(screen: &Buffer) -> String {
    let width = usize::from(screen.area.width);
    let rows = screen.content.chunks(width);
    rows.map(|row| {
        row.iter()
            .map(ratatui::buffer::Cell::symbol)
            .collect::<String>()
            + "\n"
    })
    .collect()
}
