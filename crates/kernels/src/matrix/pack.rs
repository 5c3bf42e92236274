//! Repacking of GGUF rows into tiles, and reading a row back.

use super::tile::{BLOCK, LANES, TileFormat};
use crate::blocks::{Codes, Units};
use crate::half::{bf16, f16, to_f16};
use crate::{BlockFormat, KernelError, Scale};

/// Up to 16 rows of a tensor as they are in its file.
#[derive(Clone, Copy)]
pub(super) struct FileRows<'a> {
    pub(super) format: BlockFormat,
    pub(super) cols: usize,
    /// Index of the first row in its tensor, for errors.
    pub(super) first: usize,
    /// `[row][row_bytes]`
    pub(super) bytes: &'a [u8],
    pub(super) row_bytes: usize,
}

impl<'a> FileRows<'a> {
    fn rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.chunks_exact(self.row_bytes)
    }
}

/// Writes the rows as one tile. `tile` is zeroed.
pub(super) fn pack_tile(rows: FileRows, format: TileFormat, tile: &mut [u8]) -> Result<(), KernelError> {
    let same = TileFormat::native(rows.format) == format;
    if same && rows.format.codes_are_exact() {
        for (group, block) in tile.chunks_exact_mut(format.block_bytes()).enumerate() {
            for (lane, row) in rows.rows().enumerate() {
                let codes = rows.format.codes(row, group);
                check_finite(codes.d.is_finite(), &rows, lane)?;
                check_finite(!format.is_affine() || codes.m.is_finite(), &rows, lane)?;
                put_codes(format, block, lane, &codes);
            }
        }
        return Ok(());
    }
    let weights = decode(&rows)?;
    if format.is_integer() {
        for (group, block) in tile.chunks_exact_mut(format.block_bytes()).enumerate() {
            for (lane, row) in weights.chunks_exact(rows.cols).enumerate() {
                let row = &row[group * BLOCK..rows.cols.min((group + 1) * BLOCK)];
                put_codes(format, block, lane, &quantize(row));
            }
        }
    } else if same && format != TileFormat::F32 {
        transpose(rows.bytes.as_chunks::<2>().0, |bytes| *bytes, rows.cols, tile);
    } else {
        transpose(&weights, |w| w.to_le_bytes(), rows.cols, tile);
    }
    Ok(())
}

/// Writes `[row][col]` values as `[col][16]`.
fn transpose<T, const WIDTH: usize>(
    values: &[T],
    bytes: impl Fn(&T) -> [u8; WIDTH],
    cols: usize,
    tile: &mut [u8],
) {
    let columns = tile.as_chunks_mut::<WIDTH>().0.as_chunks_mut::<LANES>().0;
    for (lane, row) in values.chunks_exact(cols).enumerate() {
        for (column, value) in columns.iter_mut().zip(row) {
            column[lane] = bytes(value);
        }
    }
}

/// The rows as `f32`, `[row][cols]`, all finite.
fn decode(rows: &FileRows) -> Result<Vec<f32>, KernelError> {
    let mut weights = vec![0.0; rows.bytes.len() / rows.row_bytes * rows.cols];
    rows.format.dequantize(rows.bytes, &mut weights)?;
    for (lane, row) in weights.chunks_exact(rows.cols).enumerate() {
        // Infinity and NaN have the largest exponent, and no number a larger magnitude.
        let largest = row.iter().fold(0, |a: u32, w| a.max(w.to_bits() & 0x7fff_ffff));
        check_finite(f32::from_bits(largest).is_finite(), rows, lane)?;
    }
    Ok(weights)
}

fn check_finite(finite: bool, rows: &FileRows, lane: usize) -> Result<(), KernelError> {
    if finite { Ok(()) } else { Err(KernelError::NotFinite { row: rows.first + lane }) }
}

/// Up to 32 weights as 8-bit codes around 128; the scale is rounded to f16 first, so that the codes suit it.
fn quantize(weights: &[f32]) -> Codes {
    /// Adding 1.5·2²³ rounds to the nearest integer, ties to even, and leaves it in the low bits.
    const TO_INTEGER: f32 = 12_582_912.0;
    let largest = weights.iter().fold(0.0_f32, |a, w| a.max(w.abs()));
    let Scale { scale, inverse } = Scale::in_f16(largest, 127.0);
    let mut u = [128; BLOCK];
    for (u, w) in u.iter_mut().zip(weights) {
        let rounded = (w * inverse).clamp(-127.0, 127.0) + TO_INTEGER;
        *u = rounded.to_bits() as u8 ^ 0x80;
    }
    Codes { units: Units::Bytes(u), d: to_f16(scale), m: f16::ZERO }
}

fn put_codes(format: TileFormat, block: &mut [u8], lane: usize, codes: &Codes) {
    let (scales, lines) = block.split_at_mut(format.scale_bytes());
    let (scales, lines) =
        (scales.as_chunks_mut::<2>().0, lines.as_chunks_mut::<4>().0.as_chunks_mut::<LANES>().0);
    scales[lane] = codes.d.to_le_bytes();
    if format.is_affine() {
        scales[LANES + lane] = codes.m.to_le_bytes();
    }
    let words = match &codes.units {
        Units::Pairs(pairs) => pairs.as_chunks::<4>().0,
        Units::Bytes(bytes) => bytes.as_chunks::<4>().0,
    };
    for (line, word) in lines.iter_mut().zip(words) {
        line[lane] = *word;
    }
}

/// The codes of row `lane` of an integer block.
pub(crate) fn get_codes(format: TileFormat, block: &[u8], lane: usize) -> [u8; BLOCK] {
    let lines = block[format.scale_bytes()..].as_chunks::<4>().0.as_chunks::<LANES>().0;
    let byte = |i: usize| lines[i / 4][lane][i % 4];
    if format.is_nibbles() {
        Units::Pairs(std::array::from_fn(byte)).bytes()
    } else {
        std::array::from_fn(byte)
    }
}

/// Scale and constant of row `lane` of an integer block: `w = d·(u − offset) + m`.
pub(crate) fn get_scale(format: TileFormat, block: &[u8], lane: usize) -> (f32, f32) {
    let half = |i: usize| f16::from_le_bytes([block[2 * i], block[2 * i + 1]]).to_f32();
    (half(lane), if format.is_affine() { half(LANES + lane) } else { 0.0 })
}

/// Weight `lane` of a float block.
pub(crate) fn get_float(format: TileFormat, block: &[u8], lane: usize) -> f32 {
    let pair = |i: usize| [block[2 * i], block[2 * i + 1]];
    match format {
        TileFormat::F16 => f16::from_le_bytes(pair(lane)).to_f32(),
        TileFormat::BF16 => bf16::from_le_bytes(pair(lane)).to_f32(),
        _ => f32::from_le_bytes([
            block[4 * lane],
            block[4 * lane + 1],
            block[4 * lane + 2],
            block[4 * lane + 3],
        ]),
    }
}

/// Decodes row `lane` of a tile into `out`, one value for each column.
pub(super) fn unpack_row(format: TileFormat, tile: &[u8], lane: usize, out: &mut [f32]) {
    let blocks = tile.chunks_exact(format.block_bytes());
    if !format.is_integer() {
        out.iter_mut().zip(blocks).for_each(|(o, block)| *o = get_float(format, block, lane));
        return;
    }
    for (block, out) in blocks.zip(out.chunks_mut(BLOCK)) {
        let (d, m) = get_scale(format, block, lane);
        for (o, u) in out.iter_mut().zip(get_codes(format, block, lane)) {
            *o = d * (i32::from(u) - format.offset()) as f32 + m;
        }
    }
}
