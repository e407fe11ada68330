//! Glyphs of Debian's fonts.

use std::collections::HashMap;
use std::fs;

use ab_glyph::{Font, FontVec, GlyphId, PxScale, ScaleFont};
use anyhow::{Context, Result, bail};

use super::blocks::Cell;
use super::canvas::{Canvas, Rgb};

/// Regular, bold, italic and bold italic, each followed by where to look for what it lacks.
const FACES: [&[&str]; 4] = [
    &[
        "jetbrains-mono/JetBrainsMono-Regular.ttf",
        "dejavu/DejaVuSansMono.ttf",
    ],
    &[
        "jetbrains-mono/JetBrainsMono-Bold.ttf",
        "dejavu/DejaVuSansMono-Bold.ttf",
        "dejavu/DejaVuSansMono.ttf",
    ],
    &[
        "jetbrains-mono/JetBrainsMono-Italic.ttf",
        "dejavu/DejaVuSansMono.ttf",
    ],
    &[
        "jetbrains-mono/JetBrainsMono-BoldItalic.ttf",
        "dejavu/DejaVuSansMono-Bold.ttf",
        "dejavu/DejaVuSansMono.ttf",
    ],
];

/// Where Debian's packages fonts-jetbrains-mono and fonts-dejavu-core put them.
const FOLDER: &str = "/usr/share/fonts/truetype";

/// How a glyph is drawn.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) color: Rgb,
    pub(super) bold: bool,
    pub(super) italic: bool,
}

/// The faces in use, at one size.
pub(super) struct Fonts {
    faces: [Vec<FontVec>; 4],
    scale: PxScale,
    /// From the top of a cell to the baseline, pixels.
    baseline: f32,
}

impl Fonts {
    /// The fonts at the size at which a glyph of the first one is `width` pixels wide, in lines
    /// of `height` pixels.
    pub(super) fn load(width: i32, height: i32) -> Result<Self> {
        let mut files: HashMap<&str, Vec<u8>> = HashMap::new();
        let mut faces: [Vec<FontVec>; 4] = Default::default();
        for (face, names) in faces.iter_mut().zip(FACES) {
            for name in names {
                if !files.contains_key(name) {
                    let path = format!("{FOLDER}/{name}");
                    let bytes = fs::read(&path).with_context(|| {
                        format!("{path}: apt-get install fonts-jetbrains-mono fonts-dejavu-core")
                    })?;
                    files.insert(name, bytes);
                }
                face.push(FontVec::try_from_vec(files[name].clone())?);
            }
        }
        let first = &faces[0][0];
        let probe = first.as_scaled(PxScale::from(100.0));
        let scale = PxScale::from(100.0 * width as f32 / probe.h_advance(first.glyph_id('M')));
        let sized = first.as_scaled(scale);
        let baseline = ((height as f32 - sized.height()) / 2.0 + sized.ascent()).round();
        Ok(Self {
            faces,
            scale,
            baseline,
        })
    }

    /// Draws one character on its cell.
    pub(super) fn draw(
        &self,
        canvas: &mut Canvas,
        cell: Cell,
        symbol: char,
        style: Style,
    ) -> Result<()> {
        let faces = &self.faces[usize::from(style.bold) + 2 * usize::from(style.italic)];
        let Some(font) = faces
            .iter()
            .find(|font| font.glyph_id(symbol) != GlyphId(0))
        else {
            bail!("no font has U+{:04X} {symbol}", symbol as u32);
        };
        let sized = font.as_scaled(self.scale);
        let id = font.glyph_id(symbol);
        // A glyph of a fallback font is put in the middle of the cell.
        let aside = (cell.width as f32 - sized.h_advance(id)) / 2.0;
        let place = ab_glyph::point(cell.x as f32 + aside, cell.y as f32 + self.baseline);
        let glyph = id.with_scale_and_position(self.scale, place);
        if let Some(outline) = font.outline_glyph(glyph) {
            let corner = outline.px_bounds().min;
            outline.draw(|x, y, coverage| {
                let (x, y) = (corner.x as i32 + x as i32, corner.y as i32 + y as i32);
                canvas.blend(x, y, style.color, coverage);
            });
        }
        Ok(())
    }
}
