//! `cargo xtask screenshots` runs this: the pictures of the README, from recordings, through the same
//! view that a person sees, in the fonts of a real terminal. The same inputs give the same bytes.

mod blocks;
mod canvas;
mod font;
mod scenes;
mod window;

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};

use scenes::SCENES;
use window::Terminal;

/// The arguments are names of pictures; all are made if none is given.
fn main() -> Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("screenshots");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for scene in SCENES {
        if !names.is_empty() && !names.iter().any(|name| name == scene.name) {
            continue;
        }
        let screen = scene
            .screen(&root)
            .with_context(|| format!("the scene {}", scene.name))?;
        let file_name = format!("{}.png", scene.name);
        let path = folder.join(&file_name);
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        window::paint(&screen, "stalltop", &Terminal::DARK)?.write(BufWriter::new(file))?;
        println!(
            "screenshots/{file_name} {} KiB",
            fs::metadata(&path)?.len() / 1024
        );
    }
    Ok(())
}
