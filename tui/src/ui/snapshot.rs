//! What `y` writes for a ticket: text, and of call stacks a flame graph.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
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

/// Writes files that differ in their endings only, side by side; names them all. They are there
/// whole, or not at all.
fn write_all(files: &[(&str, &[u8])]) -> Result<String, String> {
    let here = std::env::current_dir().ok();
    let dirs: Vec<PathBuf> = here.into_iter().chain([std::env::temp_dir()]).collect();
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    write_in(&dirs, &format!("stalltop-{}", now.replace(':', "")), files)
}

/// Writes them to the first of `dirs` that takes them; else says of each why not.
fn write_in(dirs: &[PathBuf], name: &str, files: &[(&str, &[u8])]) -> Result<String, String> {
    let mut why = Vec::new();
    for dir in dirs {
        match write_beside(dir, name, files) {
            Ok(path) => {
                let endings: Vec<&str> = files.iter().skip(1).map(|(e, _)| *e).collect();
                return Ok(match endings.as_slice() {
                    [] => path,
                    _ => format!("{path} (and .{})", endings.join(", .")),
                });
            }
            Err(error) => why.push(format!("{}: {error}", dir.display())),
        }
    }
    why.dedup();
    Err(format!("nothing was written: {}", why.join("; ")))
}

/// Writes each under another name first (mode 0600), and gives them their own once all are
/// written: never over another file, never through a link that somebody put there. What fails
/// leaves nothing behind.
fn write_beside(dir: &Path, name: &str, files: &[(&str, &[u8])]) -> io::Result<String> {
    let mut written = Vec::new();
    for (ending, bytes) in files {
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(without_path)?;
        file.write_all(bytes).map_err(without_path)?;
        written.push((file, dir.join(format!("{name}.{ending}"))));
    }
    let mut there: Vec<PathBuf> = Vec::new();
    for (file, path) in written {
        if let Err(error) = file.persist_noclobber(&path) {
            for path in &there {
                // Half of it is of no use; that it cannot go either changes nothing of the error.
                let _ = fs::remove_file(path);
            }
            return Err(without_path(error.error));
        }
        there.push(path);
    }
    let first = there.first().map(|path| path.display().to_string());
    Ok(first.unwrap_or_default())
}

/// Only what the system says: the name of a file that was never seen helps nobody.
fn without_path(error: io::Error) -> io::Error {
    match error.kind() {
        kind @ (io::ErrorKind::StorageFull
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotFound
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::QuotaExceeded) => kind.into(),
        _ => error,
    }
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

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&first).unwrap();
        fs::create_dir(&second).unwrap();
        let dirs = [dir.path().join("gone"), first.clone(), second.clone()];
        let files: &[(&str, &[u8])] = &[("svg", b"<svg/>"), ("folded", b"a;b 1\n")];
        let said = write_in(&dirs, "x", files).unwrap();
        assert_eq!(said, format!("{}/x.svg (and .folded)", first.display()));
        assert_eq!(names(&first), ["x.folded", "x.svg"]);
        assert_eq!(fs::read(first.join("x.folded")).unwrap(), b"a;b 1\n");
        // The second name is taken: the first one does not stay, and the next place is tried.
        fs::remove_file(first.join("x.svg")).unwrap();
        let said = write_in(&dirs, "x", files).unwrap();
        assert!(said.starts_with(&second.display().to_string()), "{said}");
        assert_eq!(names(&first), ["x.folded"]);
        assert_eq!(fs::read(first.join("x.folded")).unwrap(), b"a;b 1\n");
        let said = write_in(&dirs[..1], "x", files).unwrap_err();
        assert!(
            said.starts_with("nothing was written: ") && said.ends_with("/gone: entity not found"),
            "{said}"
        );
    }
}
