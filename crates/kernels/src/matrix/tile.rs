//! The layout of weights in memory: tiles of 16 rows, row-interleaved, so that a vector lane is a row.
//!
//! A tile is a sequence of blocks along the columns, contiguous, so that a product streams it from front to back:
//!
//! | tile | block | bytes of a block, in order |
//! |---|---|---|
//! | `U4`, `U4M` | 32 columns | d `[16]` f16, (m `[16]` f16), 4 lines; line j holds 4 bytes a row: low nibbles are columns 4j to 4j + 3, high nibbles 16 + 4j to 16 + 4j + 3 |
//! | `U8`, `U8M` | 32 columns | d `[16]` f16, (m `[16]` f16), 8 lines; line j holds columns 4j to 4j + 3, a byte each, 4 bytes a row |
//! | `F32`, `F16`, `BF16` | 1 column | `[16]` values |
//!
//! A line is 64 bytes: one 512-bit register, or two of 256, or four of 128. With unsigned code u the weight is
//! d·u + m in the affine tiles (`M`), and d·(u − 8) in `U4`, d·(u − 128) in `U8`. Missing rows and columns are zeros.

use crate::BlockFormat;

/// Rows in a tile.
pub(crate) const LANES: usize = 16;
/// Columns in a block of the integer tiles, and in a block of quantized activations.
pub(crate) const BLOCK: usize = 32;

/// How the weights of a tile are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TileFormat {
    U4,
    U4M,
    U8,
    U8M,
    F32,
    F16,
    BF16,
}

impl TileFormat {
    /// The tile that holds weights of `format` exactly; 16-wide groups have none and become `U8`, F64 is rounded to `F32`.
    pub(crate) fn native(format: BlockFormat) -> TileFormat {
        use BlockFormat::*;
        match format {
            F32 | F64 => TileFormat::F32,
            F16 => TileFormat::F16,
            BF16 => TileFormat::BF16,
            Q4_0 | TQ1_0 | TQ2_0 => TileFormat::U4,
            Q4_1 | Q4_K => TileFormat::U4M,
            Q5_1 | Q5_K => TileFormat::U8M,
            Q5_0 | Q8_0 | IQ1_S | IQ2_XXS | IQ3_XXS | IQ3_S | IQ4_NL | IQ4_XS | MXFP4 => TileFormat::U8,
            Q2_K | Q3_K | Q6_K | IQ1_M | IQ2_XS | IQ2_S => TileFormat::U8,
        }
    }

    /// Whether weights are integers, multiplied with quantized activations.
    pub(crate) fn is_integer(self) -> bool {
        matches!(self, TileFormat::U4 | TileFormat::U4M | TileFormat::U8 | TileFormat::U8M)
    }

    /// Whether the tile stores a constant m beside the scale d.
    pub(crate) fn is_affine(self) -> bool {
        matches!(self, TileFormat::U4M | TileFormat::U8M)
    }

    /// Whether two codes share a byte.
    pub(crate) fn is_nibbles(self) -> bool {
        matches!(self, TileFormat::U4 | TileFormat::U4M)
    }

    /// The code of weight zero in the tiles without m.
    pub(crate) fn offset(self) -> i32 {
        match self {
            TileFormat::U4 => 8,
            TileFormat::U8 => 128,
            _ => 0,
        }
    }

    /// Bytes of d and m that come before the codes of a block.
    pub(crate) fn scale_bytes(self) -> usize {
        match (self.is_integer(), self.is_affine()) {
            (false, _) => 0,
            (true, false) => 2 * LANES,
            (true, true) => 4 * LANES,
        }
    }

    /// Blocks along a row of `cols` weights.
    pub(crate) fn blocks(self, cols: usize) -> usize {
        if self.is_integer() { cols.div_ceil(BLOCK) } else { cols }
    }

    /// Bytes of one block of a tile.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            TileFormat::U4 | TileFormat::U4M => self.scale_bytes() + LANES * BLOCK / 2,
            TileFormat::U8 | TileFormat::U8M => self.scale_bytes() + LANES * BLOCK,
            TileFormat::F32 => LANES * 4,
            TileFormat::F16 | TileFormat::BF16 => LANES * 2,
        }
    }
}
