//! Weight matrices, repacked at load for the dot products of this machine.

mod pack;
pub(crate) mod tile;

use crate::activations::Activations;
use crate::arena::WeightBuffer;
use crate::{BlockFormat, KernelError, ThreadPool};
use pack::FileRows;
pub(crate) use pack::{get_float, get_scales, get_units};
use std::sync::{Mutex, PoisonError};
use tile::{IntegerFormat, LANES, TileFormat};

/// What weights become in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightFormat {
    /// What the file has: every format exactly, but for F64, which is rounded to f32.
    ///
    /// What is quantized to 4, 5, 6 or 8 bits, or to 4 bits of a table, takes the bytes that it takes in the file; Q4_K, Q5_K
    /// and IQ4_XS an eighth of a bit a weight more, for scales of a byte. Q2_K and Q3_K take 4 bits, IQ1, IQ2 and IQ3 take 8,
    /// TQ1_0 and TQ2_0 take 4.
    #[default]
    Native,
    /// Decoded to `f32`, products in `f32`: the exact path.
    F32,
    /// F32, F16, BF16 and F64 are rounded to 8 bits in blocks of 32; what is quantized already stays as in `Native`.
    Q8,
}

/// Rows of a tensor as they are in its file, to be stacked into a [`Matrix`].
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// How the weights are encoded.
    pub format: BlockFormat,
    /// Number of rows, which are outputs.
    pub rows: usize,
    /// `[row][col]`, encoded, little-endian.
    pub bytes: &'a [u8],
}

/// A weight matrix `[rows = outputs][cols = inputs]` in tiles of 16 rows.
///
/// See [`Matrix::product`] for what it is for.
pub struct Matrix {
    rows: usize,
    cols: usize,
    segments: Vec<Segment>,
    activations: Activations,
}

/// Consecutive rows of a matrix whose tiles have one format.
pub(crate) struct Segment {
    pub(crate) format: TileFormat,
    /// Index of its first row in the matrix.
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    /// Bytes of one tile.
    tile_bytes: usize,
    tiles: WeightBuffer,
}

/// Bytes of a tensor that are told to be taken at once.
const TAKEN_BYTES: usize = 4 << 20;

impl Segment {
    /// Number of tiles, the last of which may be partly empty.
    pub(crate) fn tile_count(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// The bytes of tile `index`.
    pub(crate) fn tile(&self, index: usize) -> &[u8] {
        &self.tiles[index * self.tile_bytes..][..self.tile_bytes]
    }

    fn pack(
        part: &Rows,
        first_row: usize,
        cols: usize,
        target: WeightFormat,
        pool: &ThreadPool,
        taken: &(dyn Fn(&[u8]) + Sync),
    ) -> Result<Self, KernelError> {
        let too_large = KernelError::TooLarge { rows: part.rows, cols };
        let row_bytes = part.format.row_bytes(cols)?;
        let needed = row_bytes.checked_mul(part.rows).ok_or(too_large.clone())?;
        if part.bytes.len() != needed {
            return Err(KernelError::Length { what: "bytes of weights", needed, found: part.bytes.len() });
        }
        let format = match (target, TileFormat::native(part.format)) {
            (WeightFormat::F32, _) => TileFormat::F32,
            (WeightFormat::Q8, native) if !native.is_integer() => TileFormat::Integers(IntegerFormat::U8),
            (_, native) => native,
        };
        let tile_count = part.rows.div_ceil(LANES);
        let tile_bytes = format.tile_bytes(cols).ok_or(too_large.clone())?;
        tile_bytes.checked_mul(tile_count).filter(|&b| b < isize::MAX as usize / 2).ok_or(too_large)?;
        let failure = Mutex::new(None);
        let together = (TAKEN_BYTES / (LANES * row_bytes).max(1)).max(1);
        let tiles = WeightBuffer::new(pool, tile_count, tile_bytes, &|index, tile| {
            let first = index * LANES;
            let last = part.rows.min(first + LANES);
            let bytes = &part.bytes[first * row_bytes..last * row_bytes];
            let rows = FileRows { format: part.format, cols, first, bytes, row_bytes };
            if let Err(error) = pack::pack_tile(rows, format, tile) {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            // Tiles are packed in their order, but where threads meet.
            if (index + 1) % together == 0 || index + 1 == tile_count {
                let first = index / together * together * LANES;
                taken(&part.bytes[first * row_bytes..last * row_bytes]);
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        Ok(Segment { format, first_row, rows: part.rows, tile_bytes, tiles })
    }
}

impl Matrix {
    /// A matrix from the bytes of a tensor, repacked by all threads of `pool`.
    ///
    /// # Errors
    /// When `bytes` does not have the length of `rows` × `cols` weights, a row is not made of whole blocks, or a weight
    /// is NaN or infinite.
    pub fn from_blocks(
        format: BlockFormat,
        rows: usize,
        cols: usize,
        bytes: &[u8],
        target: WeightFormat,
        pool: &ThreadPool,
    ) -> Result<Matrix, KernelError> {
        Matrix::stack(cols, &[Rows { format, rows, bytes }], target, pool)
    }

    /// A matrix from `weights` `[row][col]`; [`WeightFormat::Native`] is `F32` here.
    ///
    /// # Errors
    /// As [`Matrix::from_blocks`].
    pub fn from_f32(
        rows: usize,
        cols: usize,
        weights: &[f32],
        target: WeightFormat,
        pool: &ThreadPool,
    ) -> Result<Matrix, KernelError> {
        let bytes: Vec<u8>;
        let bytes = if cfg!(target_endian = "little") {
            // SAFETY: any f32 is four valid bytes, and bytes need no alignment.
            unsafe { std::slice::from_raw_parts(weights.as_ptr().cast::<u8>(), size_of_val(weights)) }
        } else {
            bytes = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
            &bytes
        };
        Matrix::from_blocks(BlockFormat::F32, rows, cols, bytes, target, pool)
    }

    /// One matrix of several tensors of equal width, rows upon rows, so that one product serves them all (query, key and
    /// value; gate and up). Formats may differ.
    ///
    /// # Errors
    /// As [`Matrix::from_blocks`].
    pub fn stack(
        cols: usize,
        parts: &[Rows],
        target: WeightFormat,
        pool: &ThreadPool,
    ) -> Result<Matrix, KernelError> {
        Matrix::stack_releasing(cols, parts, target, pool, &|_| {})
    }

    /// [`Matrix::stack`] that tells `taken`, a few megabytes at a time and from any thread, which bytes of the parts have been
    /// copied. A piece of them may be read once more: whoever gives their memory back must be able to bring it again, as a
    /// mapped file is.
    ///
    /// # Errors
    /// As [`Matrix::from_blocks`].
    pub fn stack_releasing(
        cols: usize,
        parts: &[Rows],
        target: WeightFormat,
        pool: &ThreadPool,
        taken: &(dyn Fn(&[u8]) + Sync),
    ) -> Result<Matrix, KernelError> {
        let mut rows = 0;
        let mut segments = Vec::with_capacity(parts.len());
        for part in parts {
            segments.push(Segment::pack(part, rows, cols, target, pool, taken)?);
            rows += part.rows;
        }
        Ok(Matrix { rows, cols, segments, activations: Activations::default() })
    }

    /// The same matrix, its integers to be multiplied with activations rounded so.
    #[must_use]
    pub fn with_activations(self, activations: Activations) -> Matrix {
        Matrix { activations, ..self }
    }

    /// How activations are rounded before they multiply its integers.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// Number of rows: the outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: the inputs of a product.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes in memory, padding included.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(|s| s.tiles.len()).sum()
    }

    /// Decodes row `row` into `out`: the embedding of a token where the output matrix is tied to the input.
    ///
    /// # Panics
    /// When there is no such row or `out` is not `cols` long.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of a matrix with {} rows", self.rows);
        assert_eq!(out.len(), self.cols, "a row has as many values as the matrix has columns");
        let segment = self
            .segments
            .iter()
            .rfind(|s| s.first_row <= row && s.rows > 0)
            .expect("segments cover all rows");
        let within = row - segment.first_row;
        pack::unpack_row(segment.format, segment.tile(within / LANES), within % LANES, out);
    }

    /// Its parts, in order.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_told_to_be_taken_once() {
        // Pieces of two tiles, and one tile that is not whole.
        let (cols, parts) = (TAKEN_BYTES / (2 * LANES * size_of::<f32>()), [7 * LANES - 3, LANES]);
        let bytes = parts.map(|rows| vec![0; rows * cols * size_of::<f32>()]);
        let rows = [0, 1].map(|i| Rows { format: BlockFormat::F32, rows: parts[i], bytes: &bytes[i] });
        // Addresses: pointers do not go from thread to thread.
        let addresses = |bytes: &[u8]| bytes.as_ptr().addr()..bytes.as_ptr().addr() + bytes.len();
        let taken = Mutex::new(Vec::new());
        let note = |bytes: &[u8]| {
            assert!(bytes.len() <= TAKEN_BYTES);
            taken.lock().unwrap().push(addresses(bytes));
        };
        let pool = ThreadPool::new(2);
        Matrix::stack_releasing(cols, &rows, WeightFormat::Native, &pool, &note).unwrap();
        let mut taken = taken.into_inner().unwrap();
        taken.sort_by_key(|range| range.start);
        assert_eq!(taken.len(), 4 + 1);
        for part in bytes.iter().map(|bytes| addresses(bytes)) {
            let mut end = part.start;
            for range in taken.iter().filter(|range| part.contains(&range.start)) {
                assert_eq!(range.start, end);
                end = range.end;
            }
            assert_eq!(end, part.end);
        }
    }
}
