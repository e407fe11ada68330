//! What `y` writes for a ticket: text, and of call stacks a flame graph.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::SystemTime;

use inferno::flamegraph::{self, Direction};
use stalltop_view::FlameGraph;

/// Writes `text` to a new file in the working directory, or where that is not possible in
/// the directory for temporary files; gives its path, or says why there is none.
pub(super) fn write(text: &str) -> Result<String, String> {
    write_all(&[("txt", text.as_bytes())])
}

/// Writes stacks as folded text, which other tools read, and as a picture for a browser.
pub(super) fn write_flame(flame: &FlameGraph) -> Result<String, String> {
    let folded = flame.folded.join("\n") + "\n";
    let svg = picture(flame).map_err(|error| format!("flame graph: {error}"))?;
    write_all(&[("svg", &svg), ("folded", folded.as_bytes())])
}

/// The flame graph, hanging from its root as on the screen.
fn picture(flame: &FlameGraph) -> Result<Vec<u8>, String> {
    let mut options = flamegraph::Options::default();
    options.title = flame.title.clone();
    options.count_name = flame.unit.to_owned();
    options.direction = Direction::Inverted;
    let mut svg = Vec::new();
    let lines = flame.folded.iter().map(String::as_str);
    flamegraph::from_lines(&mut options, lines, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

/// Writes files that differ in their endings only, side by side; names them all.
fn write_all(files: &[(&str, &[u8])]) -> Result<String, String> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let name = format!("stalltop-{}", now.replace(':', ""));
    let here = std::env::current_dir().ok();
    let mut why = String::new();
    for dir in here.into_iter().chain([std::env::temp_dir()]) {
        let path = |ending: &str| dir.join(format!("{name}.{ending}"));
        let written = files.iter().try_for_each(|(ending, bytes)| {
            // Never over another file, never through a link that somebody put there.
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path(ending));
            file.and_then(|mut file| file.write_all(bytes))
                .map_err(|error| format!("{}: {error}", path(ending).display()))
        });
        match written {
            Ok(()) => {
                let endings: Vec<&str> = files.iter().skip(1).map(|(e, _)| *e).collect();
                let mut out = path(files.first().map_or("", |(e, _)| e))
                    .display()
                    .to_string();
                if !endings.is_empty() {
                    out = format!("{out} (and .{})", endings.join(", ."));
                }
                return Ok(out);
            }
            Err(error) => why = error,
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flame(folded: &[&str]) -> FlameGraph {
        FlameGraph {
            title: "who <waits> & \"why\"".into(),
            unit: "ns",
            folded: folded.iter().map(|l| (*l).to_owned()).collect(),
        }
    }

    #[test]
    fn a_picture_has_every_function_and_the_title() {
        let svg = picture(&flame(&[
            "netdata;entry;read;bpf_prog_6deef7357e7b4530_count [bpf];<lock> 120",
            "netdata;entry;write 80",
        ]))
        .unwrap();
        let svg = String::from_utf8(svg).unwrap();
        for part in [
            "who &lt;waits&gt; &amp; ",
            "&lt;lock&gt;",
            "count [bpf]",
            "(120 ns, 60.00%)",
        ] {
            assert!(svg.contains(part), "{part}");
        }
    }

    #[test]
    fn stacks_that_weigh_nothing_are_no_picture() {
        assert!(picture(&flame(&["a;b 0"])).is_err());
        assert!(picture(&flame(&[])).is_err());
    }
}
