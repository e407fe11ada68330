//! Pixels, and how they become a small PNG.

use std::collections::HashMap;
use std::io::Write;

use anyhow::{Context, Result};

/// A colour, opaque.
pub(super) type Rgb = [u8; 3];

/// Steps of coverage at the edge of a glyph. Sixteen cannot be told from 256 at this size, and
/// keep most pictures within the 256 colours of a palette.
const STEPS: f32 = 15.0;

/// A picture: red, green, blue and opacity, row by row from the top left.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 4]>,
}

impl Canvas {
    /// All transparent.
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            pixels: vec![[0; 4]; width * height],
        }
    }

    /// Lays `color` over a pixel, by the share of it that is covered: 0 to 1. Outside of the
    /// picture nothing happens.
    pub(super) fn blend(&mut self, x: i32, y: i32, color: Rgb, coverage: f32) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else {
            return;
        };
        if x >= self.width || y >= self.height {
            return;
        }
        let share = (coverage.clamp(0.0, 1.0) * STEPS).round() / STEPS;
        let pixel = &mut self.pixels[y * self.width + x];
        if share >= 1.0 {
            *pixel = [color[0], color[1], color[2], 255];
        } else if pixel[3] == 0 {
            if share > 0.0 {
                *pixel = [color[0], color[1], color[2], (share * 255.0).round() as u8];
            }
        } else {
            for (under, over) in pixel.iter_mut().zip(color) {
                *under =
                    (f32::from(*under) * (1.0 - share) + f32::from(over) * share).round() as u8;
            }
        }
    }

    /// A filled rectangle, whole pixels.
    pub(super) fn fill(&mut self, x: i32, y: i32, width: i32, height: i32, color: Rgb) {
        for row in y..y + height {
            for column in x..x + width {
                self.blend(column, row, color, 1.0);
            }
        }
    }

    /// Every pixel of a rectangle by its distance from a shape's edge in pixels: inside is
    /// negative, and the edge is smooth.
    pub(super) fn shape(
        &mut self,
        [x, y, width, height]: [i32; 4],
        color: Rgb,
        distance: impl Fn(f32, f32) -> f32,
    ) {
        for row in y..y + height {
            for column in x..x + width {
                let coverage = 0.5 - distance(column as f32 + 0.5, row as f32 + 0.5);
                if coverage > 0.0 {
                    self.blend(column, row, color, coverage);
                }
            }
        }
    }

    /// Writes a PNG with a palette; colours beyond 256 become the nearest of the others.
    pub(super) fn write(&self, out: impl Write) -> Result<()> {
        let colors = self.colors();
        let palette = &colors[..colors.len().min(256)];
        let index: HashMap<[u8; 4], u8> = colors
            .iter()
            .map(|color| (*color, nearest(palette, *color)))
            .collect();
        let mut encoder = png::Encoder::new(
            out,
            u32::try_from(self.width).context("too wide")?,
            u32::try_from(self.height).context("too high")?,
        );
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_palette(
            palette
                .iter()
                .flat_map(|c| [c[0], c[1], c[2]])
                .collect::<Vec<_>>(),
        );
        encoder.set_trns(palette.iter().map(|c| c[3]).collect::<Vec<_>>());
        encoder.set_filter(png::Filter::NoFilter);
        encoder.set_deflate_compression(png::DeflateCompression::Level(9));
        let data: Vec<u8> = self.pixels.iter().map(|pixel| index[pixel]).collect();
        encoder.write_header()?.write_image_data(&data)?;
        Ok(())
    }

    /// The colours in use, the most used first.
    fn colors(&self) -> Vec<[u8; 4]> {
        let mut uses: HashMap<[u8; 4], usize> = HashMap::new();
        for pixel in &self.pixels {
            *uses.entry(*pixel).or_default() += 1;
        }
        let mut colors: Vec<_> = uses.into_iter().collect();
        colors.sort_by_key(|(color, uses)| (std::cmp::Reverse(*uses), *color));
        colors.into_iter().map(|(color, _)| color).collect()
    }
}

/// The palette has at most 256 colours, so the index fits.
fn nearest(palette: &[[u8; 4]], color: [u8; 4]) -> u8 {
    let distance = |other: &[u8; 4]| -> u32 {
        (0..4)
            .map(|channel| u32::from(other[channel].abs_diff(color[channel])).pow(2))
            .sum()
    };
    let best = (0..palette.len()).min_by_key(|index| distance(&palette[*index]));
    best.map_or(0, |index| index as u8)
}

#[cfg(test)]
mod tests {
    use super::Canvas;

    #[test]
    fn a_png_holds_what_was_painted() {
        let mut canvas = Canvas::new(3, 2);
        canvas.fill(1, 0, 1, 1, [10, 20, 30]);
        canvas.blend(1, 0, [255, 255, 255], 0.5);
        canvas.blend(9, 9, [1, 1, 1], 1.0);
        let mut file = Vec::new();
        canvas.write(&mut file).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels[0..4], [0, 0, 0, 0]);
        assert_eq!(pixels[4..8], [141, 145, 150, 255]);
    }
}
