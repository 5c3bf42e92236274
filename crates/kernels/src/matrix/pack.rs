//! Repacking of GGUF rows into tiles, and reading a row back.

use super::tile::{BLOCK, LANES, TileFormat};
use crate::blocks::Codes;
use crate::{BlockFormat, KernelError};
use ::half::{bf16, f16};

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
    if !format.is_integer() {
        return pack_floats(rows, format, tile);
    }
    let blocks = tile.chunks_exact_mut(format.block_bytes());
    if TileFormat::native(rows.format) == format && rows.format.codes_are_exact() {
        for (group, block) in blocks.enumerate() {
            for (lane, row) in rows.rows().enumerate() {
                let codes = rows.format.codes(row, group);
                check_finite(codes.d.is_finite() && codes.m.is_finite(), &rows, lane)?;
                put_codes(format, block, lane, &codes);
            }
        }
        return Ok(());
    }
    let weights = decode(&rows)?;
    for (group, block) in blocks.enumerate() {
        for (lane, row) in weights.chunks_exact(rows.cols).enumerate() {
            let row = &row[group * BLOCK..rows.cols.min((group + 1) * BLOCK)];
            put_codes(format, block, lane, &quantize(row));
        }
    }
    Ok(())
}

fn pack_floats(rows: FileRows, format: TileFormat, tile: &mut [u8]) -> Result<(), KernelError> {
    let weights = decode(&rows)?;
    let width = format.block_bytes() / LANES;
    for (lane, row) in weights.chunks_exact(rows.cols).enumerate() {
        for (block, w) in tile.chunks_exact_mut(format.block_bytes()).zip(row) {
            let place = &mut block[lane * width..][..width];
            match format {
                TileFormat::F16 => place.copy_from_slice(&f16::from_f32(*w).to_le_bytes()),
                TileFormat::BF16 => place.copy_from_slice(&bf16::from_f32(*w).to_le_bytes()),
                _ => place.copy_from_slice(&w.to_le_bytes()),
            }
        }
    }
    Ok(())
}

/// The rows as `f32`, `[row][cols]`, all finite.
fn decode(rows: &FileRows) -> Result<Vec<f32>, KernelError> {
    let mut weights = vec![0.0; rows.bytes.len() / rows.row_bytes * rows.cols];
    rows.format.dequantize(rows.bytes, &mut weights)?;
    for (lane, row) in weights.chunks_exact(rows.cols).enumerate() {
        // The sum of x·0 is NaN as soon as one x is not finite, and has no branch in it.
        check_finite(row.iter().map(|w| w * 0.0).sum::<f32>() == 0.0, rows, lane)?;
    }
    Ok(weights)
}

fn check_finite(finite: bool, rows: &FileRows, lane: usize) -> Result<(), KernelError> {
    if finite { Ok(()) } else { Err(KernelError::NotFinite { row: rows.first + lane }) }
}

/// Up to 32 weights as 8-bit codes around 128; the scale is rounded to f16 first, so that the codes suit it.
fn quantize(weights: &[f32]) -> Codes {
    let largest = weights.iter().fold(0.0_f32, |a, w| a.max(w.abs()));
    let d = f16::from_f32((largest / 127.0).min(f16::MAX.to_f32()));
    let inverse = if d.to_f32() > 0.0 { 1.0 / d.to_f32() } else { 0.0 };
    let mut u = [128; BLOCK];
    for (u, w) in u.iter_mut().zip(weights) {
        *u = ((w * inverse).round_ties_even().clamp(-127.0, 127.0) + 128.0) as u8;
    }
    Codes { u, d, m: f16::ZERO }
}

/// Where row `lane` of an integer block has columns 4j to 4j + 3 (and 16 + 4j … in nibble tiles).
fn word_at(format: TileFormat, lane: usize, j: usize) -> usize {
    format.scale_bytes() + j * 4 * LANES + lane * 4
}

fn put_codes(format: TileFormat, block: &mut [u8], lane: usize, codes: &Codes) {
    block[2 * lane..][..2].copy_from_slice(&codes.d.to_le_bytes());
    if format.is_affine() {
        block[2 * (LANES + lane)..][..2].copy_from_slice(&codes.m.to_le_bytes());
    }
    let (words, _) = codes.u.as_chunks::<4>();
    if format.is_nibbles() {
        let (low, high) = words.split_at(4);
        for (j, (low, high)) in low.iter().zip(high).enumerate() {
            let word = u32::from_le_bytes(*low) | u32::from_le_bytes(*high) << 4;
            block[word_at(format, lane, j)..][..4].copy_from_slice(&word.to_le_bytes());
        }
    } else {
        for (j, word) in words.iter().enumerate() {
            block[word_at(format, lane, j)..][..4].copy_from_slice(word);
        }
    }
}

/// The codes of row `lane` of an integer block.
pub(crate) fn get_codes(format: TileFormat, block: &[u8], lane: usize) -> [u8; BLOCK] {
    let mut u = [0; BLOCK];
    if format.is_nibbles() {
        for j in 0..4 {
            for (i, byte) in block[word_at(format, lane, j)..][..4].iter().enumerate() {
                u[4 * j + i] = byte & 15;
                u[16 + 4 * j + i] = byte >> 4;
            }
        }
    } else {
        for j in 0..8 {
            u[4 * j..][..4].copy_from_slice(&block[word_at(format, lane, j)..][..4]);
        }
    }
    u
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
