//! QR codes in photographs.

use std::io::{BufReader, Cursor};
use std::path::Path;

use png::{ColorType, Transformations};
use rqrr::PreparedImage;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::fault::Fault;

/// Reads the texts of all QR codes in a PNG or JPEG picture, one on a line.
pub(crate) fn read(path: &Path) -> Result<String, Fault> {
    let content = std::fs::read(path).map_err(Fault::file(path))?;
    let picture = Picture::decode(&content).ok_or_else(|| Fault::Picture(path.to_owned()))?;
    picture.texts().ok_or_else(|| Fault::Photo(path.to_owned()))
}

/// Brightness, row by row.
#[derive(Clone, Debug)]
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn decode(content: &[u8]) -> Option<Self> {
        if content.starts_with(b"\x89PNG") { Self::decode_png(content) } else { Self::decode_jpeg(content) }
    }

    fn decode_png(content: &[u8]) -> Option<Self> {
        let mut decoder = png::Decoder::new(BufReader::new(Cursor::new(content)));
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().ok()?;
        let mut buffer = vec![0; reader.output_buffer_size().filter(|&size| size <= OCTETS_MAX)?];
        let info = reader.next_frame(&mut buffer).ok()?;
        let samples = match info.color_type {
            ColorType::Grayscale | ColorType::Indexed => 1,
            ColorType::GrayscaleAlpha => 2,
            ColorType::Rgb => 3,
            ColorType::Rgba => 4,
        };
        let pixels = buffer.chunks_exact(samples).map(brightness).collect();
        Self::new(info.width, info.height, pixels)
    }

    fn decode_jpeg(content: &[u8]) -> Option<Self> {
        let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::Luma);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(content), options);
        let pixels = decoder.decode().ok()?;
        let info = decoder.info()?;
        Self::new(info.width.into(), info.height.into(), pixels)
    }

    fn new(width: u32, height: u32, pixels: Vec<u8>) -> Option<Self> {
        let (width, height) = (usize::try_from(width).ok()?, usize::try_from(height).ok()?);
        (width > 0 && width.checked_mul(height)? == pixels.len()).then_some(Self { width, height, pixels })
    }

    /// Looks at the picture as it is, and then smaller, larger and smoother, until a code can be read.
    fn texts(&self) -> Option<String> {
        let fitted = self.fitted();
        let half = fitted.halved();
        let views: [&dyn Fn() -> Self; 7] = [
            &|| fitted.clone(),
            &|| fitted.smoothed(),
            &|| half.clone(),
            &|| fitted.doubled(),
            &|| fitted.smoothed().smoothed(),
            &|| half.smoothed(),
            &|| half.halved(),
        ];
        views.iter().find_map(|view| view().read())
    }

    fn read(&self) -> Option<String> {
        let at = |x: usize, y: usize| self.at(x, y);
        let mut prepared = PreparedImage::prepare_from_greyscale(self.width, self.height, at);
        let texts = prepared.detect_grids().into_iter().filter_map(|grid| grid.decode().ok());
        let texts: Vec<String> = texts.map(|(_, text)| text).collect();
        (!texts.is_empty()).then(|| texts.join("\n"))
    }

    fn at(&self, x: usize, y: usize) -> u8 {
        self.pixels.get(y * self.width + x).copied().unwrap_or(u8::MAX)
    }

    /// Halved until it has at most [`SIDE_MAX`] pixels a side: more only cost time.
    fn fitted(&self) -> Self {
        let mut picture = self.clone();
        while picture.width.max(picture.height) > SIDE_MAX {
            picture = picture.halved();
        }
        picture
    }

    fn halved(&self) -> Self {
        self.mapped((self.width / 2).max(1), (self.height / 2).max(1), |x, y| {
            self.mean(&[(2 * x, 2 * y), (2 * x + 1, 2 * y), (2 * x, 2 * y + 1), (2 * x + 1, 2 * y + 1)])
        })
    }

    fn doubled(&self) -> Self {
        self.mapped(self.width * 2, self.height * 2, |x, y| {
            self.mean(&[(x / 2, y / 2), (x.div_ceil(2), y / 2), (x / 2, y.div_ceil(2)), (x.div_ceil(2), y.div_ceil(2))])
        })
    }

    /// Each pixel the mean of its neighbourhood, against noise.
    fn smoothed(&self) -> Self {
        self.mapped(self.width, self.height, |x, y| {
            let (left, up) = (x.saturating_sub(1), y.saturating_sub(1));
            let row = |y: usize| [(left, y), (x, y), (x + 1, y)];
            self.mean(&[row(up), row(y), row(y + 1)].concat())
        })
    }

    fn mapped(&self, width: usize, height: usize, pixel: impl Fn(usize, usize) -> u8) -> Self {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect();
        Self { width, height, pixels }
    }

    /// The mean of pixels; those beyond the edge count as the edge.
    fn mean(&self, places: &[(usize, usize)]) -> u8 {
        let at = |&(x, y): &(usize, usize)| u32::from(self.at(x.min(self.width - 1), y.min(self.height - 1)));
        let count = u32::try_from(places.len().max(1)).unwrap_or(1);
        u8::try_from(places.iter().map(at).sum::<u32>() / count).unwrap_or(u8::MAX)
    }
}

/// Brightness of a pixel of one to four samples; what is transparent shows white.
fn brightness(samples: &[u8]) -> u8 {
    let (light, alpha) = match *samples {
        [light] => (u32::from(light), 255),
        [light, alpha] => (u32::from(light), u32::from(alpha)),
        [r, g, b] => (luma(r, g, b), 255),
        [r, g, b, alpha] => (luma(r, g, b), u32::from(alpha)),
        _ => (255, 255),
    };
    u8::try_from((light * alpha + 255 * (255 - alpha)) / 255).unwrap_or(u8::MAX)
}

/// ITU-R BT.601.
fn luma(r: u8, g: u8, b: u8) -> u32 {
    (299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b)) / 1000
}

/// The longer side of a picture that is looked at.
const SIDE_MAX: usize = 2400;
/// No larger picture is decoded.
const OCTETS_MAX: usize = 512 << 20;

#[cfg(test)]
mod tests;
