//! Repacking of GGUF rows into tiles, and reading a row back.

use super::tile::{
    BLOCK, Codes, IntegerFormat, LANES, LINE, Layout, SHARING, Scales, TileFormat, for_layout,
};
use crate::blocks::{Group, power};
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
    match format {
        TileFormat::Integers(format) => {
            macro_rules! pack {
                ($layout:ty) => {
                    pack_integers::<$layout>(&rows, same, tile)
                };
            }
            for_layout!(format, pack!())
        }
        TileFormat::F16 | TileFormat::BF16 if same => {
            decode(&rows)?;
            transpose(rows.bytes.as_chunks::<2>().0, |bytes| *bytes, rows.cols, tile);
            Ok(())
        }
        _ => {
            transpose(&decode(&rows)?, |w| w.to_le_bytes(), rows.cols, tile);
            Ok(())
        }
    }
}

/// Writes the rows as a tile that has the integers of the file, if they are the `same`, or their values rounded.
fn pack_integers<L: Layout>(rows: &FileRows, same: bool, tile: &mut [u8]) -> Result<(), KernelError> {
    if !same {
        for (lane, row) in decode(rows)?.chunks_exact(rows.cols).enumerate() {
            for (block, weights) in row.chunks(BLOCK).enumerate() {
                put_group::<L>(tile, block, lane, &quantize(weights));
            }
        }
        return Ok(());
    }
    for block in 0..rows.cols / BLOCK {
        for (lane, row) in rows.rows().enumerate() {
            let group = rows.format.group(row, block);
            check_finite(group.d.is_finite() && group.m.is_finite(), rows, lane)?;
            put_group::<L>(tile, block, lane, &group);
        }
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
fn quantize(weights: &[f32]) -> Group {
    /// Adding 1.5·2²³ rounds to the nearest integer, ties to even, and leaves it in the low bits.
    const TO_INTEGER: f32 = 12_582_912.0;
    let largest = weights.iter().fold(0.0_f32, |a, w| a.max(w.abs()));
    let Scale { scale, inverse } = Scale::in_f16(largest, 127.0);
    let mut codes = [128; BLOCK];
    for (code, w) in codes.iter_mut().zip(weights) {
        let rounded = (w * inverse).clamp(-127.0, 127.0) + TO_INTEGER;
        *code = rounded.to_bits() as u8 ^ 0x80;
    }
    Group { codes, d: to_f16(scale), ..Group::default() }
}

/// Writes block `block` of row `lane`.
#[inline]
fn put_group<L: Layout>(tile: &mut [u8], block: usize, lane: usize, group: &Group) {
    let (format, codes, scales) = (L::FORMAT, L::CODES, L::SCALES);
    let put_halves = |place: &mut [u8]| {
        let halves = place.as_chunks_mut::<2>().0;
        halves[lane] = group.d.to_le_bytes();
        if scales.are_affine() {
            halves[LANES + lane] = group.m.to_le_bytes();
        }
    };
    if scales.are_shared() && block.is_multiple_of(SHARING) {
        put_halves(&mut tile[format.header_at(block)..]);
    }
    let (head, lines) =
        tile[format.block_at(block)..][..format.block_bytes()].split_at_mut(scales.block_bytes());
    if scales.are_shared() || scales == Scales::Power {
        let parts = scales.parts();
        for (part, places) in head.chunks_exact_mut(LANES).enumerate() {
            places[lane] =
                if part < parts { group.scales[part] } else { group.constants[part - parts] } as u8;
        }
    } else {
        put_halves(head);
    }
    let lines = lines.as_chunks_mut::<4>().0.as_chunks_mut::<LANES>().0;
    if codes.are_bytes() {
        for (line, word) in lines.iter_mut().zip(group.codes.as_chunks::<4>().0) {
            line[lane] = *word;
        }
        return;
    }
    // Codes of four columns side by side in a word.
    const NIBBLES: u32 = 0x0f0f_0f0f;
    let words: [u32; 8] = std::array::from_fn(|j| {
        u32::from_le_bytes(std::array::from_fn(|column| group.codes[4 * j + column]))
    });
    let (nibbles, high) = lines.split_at_mut(Codes::NIBBLE_LINES);
    for (j, line) in nibbles.iter_mut().enumerate() {
        let pairs = words[j] & NIBBLES | (words[j + Codes::NIBBLE_LINES] & NIBBLES) << 4;
        line[lane] = pairs.to_le_bytes();
    }
    let mut bits = [0; 2];
    for (j, word) in words.iter().enumerate() {
        let (line, shift) = high_place(codes.high_bits(), j);
        bits[line] |= (word >> 4 & NIBBLES) << shift;
    }
    for (line, bits) in high.iter_mut().zip(bits) {
        line[lane] = bits.to_le_bytes();
    }
}

/// Which line of high bits has those of columns 4j to 4j + 3, and from which bit of its bytes.
fn high_place(bits: usize, j: usize) -> (usize, usize) {
    (j * bits / 8, j * bits % 8)
}

/// The units of row `lane` of a block.
pub(crate) fn get_units(format: IntegerFormat, tile: &[u8], block: usize, lane: usize) -> [u8; BLOCK] {
    let codes = format.codes();
    let lines = &tile[format.block_at(block)..][format.scales().block_bytes()..][..codes.lines() * LINE];
    let lines = lines.as_chunks::<4>().0.as_chunks::<LANES>().0;
    if codes.are_bytes() {
        return std::array::from_fn(|i| lines[i / 4][lane][i % 4]);
    }
    std::array::from_fn(|i| {
        let pair = lines[i % 16 / 4][lane][i % 4];
        let low = pair >> (i / 16 * 4) & 15;
        let high = match codes.high_bits() {
            0 => 0,
            bits => {
                let (line, shift) = high_place(bits, i / 4);
                lines[Codes::NIBBLE_LINES + line][lane][i % 4] >> shift & ((1 << bits) - 1)
            }
        };
        codes.unit(low | high << 4)
    })
}

/// Scale and constant of each half of row `lane` of a block: `w = d·(u − offset)` or `d·u + m`.
pub(crate) fn get_scales(format: IntegerFormat, tile: &[u8], block: usize, lane: usize) -> [(f32, f32); 2] {
    let (scales, unit) = (format.scales(), format.codes().scale_unit());
    let half = |at: usize, kind: usize| {
        let at = at + 2 * (kind * LANES + lane);
        f16::from_le_bytes([tile[at], tile[at + 1]]).to_f32()
    };
    let at = format.block_at(block);
    if scales == Scales::Power {
        return [(power(tile[at + lane]), 0.0); 2];
    }
    if !scales.are_shared() {
        let m = if scales.are_affine() { half(at, 1) } else { 0.0 };
        return [(half(at, 0) * unit, m); 2];
    }
    let header = format.header_at(block);
    let small = |index: usize| f32::from(tile[at + index * LANES + lane] as i8);
    let parts = scales.parts();
    [0, parts - 1].map(|part| {
        let m = if scales.are_affine() { half(header, 1) * small(parts + part) } else { 0.0 };
        (half(header, 0) * unit * small(part), m)
    })
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
    let TileFormat::Integers(format) = format else {
        let columns = tile.chunks_exact(format.column_bytes());
        out.iter_mut().zip(columns).for_each(|(o, column)| *o = get_float(format, column, lane));
        return;
    };
    let offset = if format.scales().are_affine() { 0 } else { 1 << format.codes().offset_bits() };
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let scales = get_scales(format, tile, block, lane);
        let units = get_units(format, tile, block, lane);
        for (i, (o, u)) in out.iter_mut().zip(units).enumerate() {
            let (d, m) = scales[i / (BLOCK / 2)];
            *o = d * (i32::from(u) - offset) as f32 + m;
        }
    }
}
