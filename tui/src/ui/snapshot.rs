//! The text that `y` writes for a ticket.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::SystemTime;

/// Writes `text` to a new file in the working directory, or where that is not possible in
/// the directory for temporary files; gives its path, or says why there is none.
pub(super) fn write(text: &str) -> Result<String, String> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let name = format!("stalltop-{}.txt", now.replace(':', ""));
    let here = std::env::current_dir().ok();
    let mut why = String::new();
    for dir in here.into_iter().chain([std::env::temp_dir()]) {
        let path = dir.join(&name);
        // Never over another file, never through a link that somebody put there.
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        match written {
            Ok(()) => return Ok(path.display().to_string()),
            Err(error) => why = format!("{}: {error}", path.display()),
        }
    }
    Err(why)
}
