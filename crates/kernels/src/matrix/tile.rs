//! The layout of weights in memory: tiles of 16 rows, row-interleaved, so that a vector lane is a row.
//!
//! A tile is a sequence of blocks along the columns, contiguous, so that a product streams it from front to back. A block
//! of the float tiles is one column, `[16]` values. A block of the integer tiles is 32 columns: what scales it, then lines of
//! codes. A line is 64 bytes, 4 a row: one 512-bit register, or two of 256, or four of 128.
//!
//! | codes | bits | lines |
//! |---|---|---|
//! | `U4`, `Iq4`, `Fp4` | 4 | line j: low nibbles are columns 4j to 4j + 3, high nibbles 16 + 4j to 16 + 4j + 3 |
//! | `U5` | 5 | four as of `U4`, one of fifth bits: bit j of byte c is that of column 4j + c |
//! | `U6` | 6 | four as of `U4`, two of the highest bits: bits 2k and 2k + 1 of byte c of line h are those of column 16h + 4k + c |
//! | `U8`, `Eighths` | 8 | line j of eight: columns 4j to 4j + 3, a byte each |
//!
//! A code stands for an unsigned *unit*: for itself, or, in `Iq4` and `Fp4`, for an entry of a table. With unit u the weight is
//! d·(u − offset) in the symmetric tiles and d·u + m in the affine ones:
//!
//! | scales | before a block | before the eight blocks of 256 columns | d, m |
//! |---|---|---|---|
//! | `Own`, `OwnAffine` | d (m) `[16]` f16 | | d, m |
//! | `Shared`, `SharedAffine` | s (n) `[16]` i8 | D (M) `[16]` f16 | D·s, M·n |
//! | `Fine`, `FineAffine` | s (n) `[2]` `[16]` i8, for 16 columns each | D (M) `[16]` f16 | D·s, M·n |
//! | `Power` | e `[16]` u8 | | 2^(e − 128) |
//!
//! In `Eighths` D is an eighth of what is stored. Products of the two parts of a scale are exact in `f32`: no weight of any
//! format is rounded. Missing rows and columns are zeros.

use crate::BlockFormat;

/// Rows in a tile.
pub(crate) const LANES: usize = 16;
/// Columns in a block of the integer tiles, and in a block of quantized activations.
pub(crate) const BLOCK: usize = 32;
/// Blocks that share D and M.
pub(crate) const SHARING: usize = 8;
/// Bytes of a line of codes.
pub(crate) const LINE: usize = 4 * LANES;

/// How the codes of 32 columns lie, and which units they stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codes {
    U4,
    U5,
    U6,
    U8,
    /// `U8` under scales that are an eighth of what is stored.
    Eighths,
    Iq4,
    Fp4,
}

impl Codes {
    /// Lines of nibbles that come first; `U8` has lines of bytes.
    pub(crate) const NIBBLE_LINES: usize = 4;

    pub(crate) const fn lines(self) -> usize {
        match self {
            Codes::U4 | Codes::Iq4 | Codes::Fp4 => 4,
            Codes::U5 => 5,
            Codes::U6 => 6,
            Codes::U8 | Codes::Eighths => 8,
        }
    }

    /// Bits of a code beyond four, in lines of their own.
    pub(crate) const fn high_bits(self) -> usize {
        match self {
            Codes::U5 => 1,
            Codes::U6 => 2,
            _ => 0,
        }
    }

    /// Whether codes are whole bytes.
    pub(crate) const fn are_bytes(self) -> bool {
        matches!(self, Codes::U8 | Codes::Eighths)
    }

    /// The units of the codes that stand for others than themselves.
    pub(crate) const fn table(self) -> Option<&'static [u8; 16]> {
        /// The values of IQ4, −127 to 113, around 128.
        const IQ4: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];
        /// Twice the values of E2M1, −12 to 12, around 16.
        const FP4: [u8; 16] = [16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4];
        match self {
            Codes::Iq4 => Some(&IQ4),
            Codes::Fp4 => Some(&FP4),
            _ => None,
        }
    }

    /// What a code stands for.
    pub(crate) fn unit(self, code: u8) -> u8 {
        self.table().map_or(code, |table| table[usize::from(code)])
    }

    /// The largest unit.
    pub(crate) const fn largest_unit(self) -> usize {
        match self {
            Codes::U4 => 15,
            Codes::U5 => 31,
            Codes::U6 => 63,
            Codes::Fp4 => 28,
            Codes::U8 | Codes::Eighths | Codes::Iq4 => 255,
        }
    }

    /// The binary logarithm of the unit of weight zero in the tiles without m.
    pub(crate) const fn offset_bits(self) -> u32 {
        match self {
            Codes::U4 => 3,
            Codes::U5 | Codes::Fp4 => 4,
            Codes::U6 => 5,
            Codes::U8 | Codes::Eighths | Codes::Iq4 => 7,
        }
    }

    /// What stored scales are multiplied with.
    pub(crate) const fn scale_unit(self) -> f32 {
        if matches!(self, Codes::Eighths) { 0.125 } else { 1.0 }
    }
}

/// What turns the units of a block into weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scales {
    Own,
    OwnAffine,
    Shared,
    SharedAffine,
    Fine,
    FineAffine,
    Power,
}

impl Scales {
    /// Whether there is a constant m beside the scale d.
    pub(crate) const fn are_affine(self) -> bool {
        matches!(self, Scales::OwnAffine | Scales::SharedAffine | Scales::FineAffine)
    }

    /// Whether eight blocks share D and M.
    pub(crate) const fn are_shared(self) -> bool {
        !matches!(self, Scales::Own | Scales::OwnAffine | Scales::Power)
    }

    /// Parts of a block that have a scale each.
    pub(crate) const fn parts(self) -> usize {
        if matches!(self, Scales::Fine | Scales::FineAffine) { 2 } else { 1 }
    }

    /// Bytes before the blocks that share D and M.
    pub(crate) const fn header_bytes(self) -> usize {
        if self.are_shared() { self.kinds() * 2 * LANES } else { 0 }
    }

    /// Bytes before the codes of a block.
    pub(crate) const fn block_bytes(self) -> usize {
        match self {
            Scales::Power => LANES,
            Scales::Own | Scales::OwnAffine => self.kinds() * 2 * LANES,
            _ => self.kinds() * self.parts() * LANES,
        }
    }

    /// One for d, two for d and m.
    const fn kinds(self) -> usize {
        if self.are_affine() { 2 } else { 1 }
    }
}

/// The layout of an integer tile, as a type: kernels are generic over it.
pub(crate) trait Layout {
    const FORMAT: IntegerFormat;
    const CODES: Codes = Self::FORMAT.codes();
    const SCALES: Scales = Self::FORMAT.scales();
}

/// The layouts that there are, as values and as types.
macro_rules! layouts {
    ($($name:ident: $codes:ident, $scales:ident;)*) => {
        /// A layout that there is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum IntegerFormat { $($name),* }

        impl IntegerFormat {
            pub(crate) const fn codes(self) -> Codes {
                match self { $(IntegerFormat::$name => Codes::$codes),* }
            }

            pub(crate) const fn scales(self) -> Scales {
                match self { $(IntegerFormat::$name => Scales::$scales),* }
            }
        }

        /// Each layout as a type.
        pub(crate) mod layout {
            use super::{IntegerFormat, Layout};
            $(
                pub(crate) struct $name;
                impl Layout for $name {
                    const FORMAT: IntegerFormat = IntegerFormat::$name;
                }
            )*
        }
    };
}

layouts! {
    U4: U4, Own;
    U4Affine: U4, OwnAffine;
    U4SharedAffine: U4, SharedAffine;
    U4Fine: U4, Fine;
    U4FineAffine: U4, FineAffine;
    U5: U5, Own;
    U5Affine: U5, OwnAffine;
    U5SharedAffine: U5, SharedAffine;
    U6Fine: U6, Fine;
    U8: U8, Own;
    EighthsShared: Eighths, Shared;
    EighthsFine: Eighths, Fine;
    Iq4: Iq4, Own;
    Iq4Shared: Iq4, Shared;
    Fp4: Fp4, Power;
}

/// Expands `$with!(Layout, arguments)` for a layout known at run time.
macro_rules! for_layout {
    ($format:expr, $with:ident!($($argument:tt),*)) => {{
        use $crate::matrix::tile::{IntegerFormat, layout};
        match $format {
            IntegerFormat::U4 => $with!(layout::U4 $(, $argument)*),
            IntegerFormat::U4Affine => $with!(layout::U4Affine $(, $argument)*),
            IntegerFormat::U4SharedAffine => $with!(layout::U4SharedAffine $(, $argument)*),
            IntegerFormat::U4Fine => $with!(layout::U4Fine $(, $argument)*),
            IntegerFormat::U4FineAffine => $with!(layout::U4FineAffine $(, $argument)*),
            IntegerFormat::U5 => $with!(layout::U5 $(, $argument)*),
            IntegerFormat::U5Affine => $with!(layout::U5Affine $(, $argument)*),
            IntegerFormat::U5SharedAffine => $with!(layout::U5SharedAffine $(, $argument)*),
            IntegerFormat::U6Fine => $with!(layout::U6Fine $(, $argument)*),
            IntegerFormat::U8 => $with!(layout::U8 $(, $argument)*),
            IntegerFormat::EighthsShared => $with!(layout::EighthsShared $(, $argument)*),
            IntegerFormat::EighthsFine => $with!(layout::EighthsFine $(, $argument)*),
            IntegerFormat::Iq4 => $with!(layout::Iq4 $(, $argument)*),
            IntegerFormat::Iq4Shared => $with!(layout::Iq4Shared $(, $argument)*),
            IntegerFormat::Fp4 => $with!(layout::Fp4 $(, $argument)*),
        }
    }};
}
pub(crate) use for_layout;

impl IntegerFormat {
    /// The layout that holds weights of `format`, `None` for those that are not integers.
    pub(crate) fn of(format: BlockFormat) -> Option<IntegerFormat> {
        use BlockFormat::*;
        Some(match format {
            F32 | F64 | F16 | BF16 => return None,
            Q4_0 | TQ1_0 | TQ2_0 => IntegerFormat::U4,
            Q4_1 => IntegerFormat::U4Affine,
            Q4_K => IntegerFormat::U4SharedAffine,
            Q3_K => IntegerFormat::U4Fine,
            Q2_K => IntegerFormat::U4FineAffine,
            Q5_0 => IntegerFormat::U5,
            Q5_1 => IntegerFormat::U5Affine,
            Q5_K => IntegerFormat::U5SharedAffine,
            Q6_K => IntegerFormat::U6Fine,
            Q8_0 => IntegerFormat::U8,
            IQ1_S | IQ2_XXS | IQ3_XXS | IQ3_S => IntegerFormat::EighthsShared,
            IQ1_M | IQ2_XS | IQ2_S => IntegerFormat::EighthsFine,
            IQ4_NL => IntegerFormat::Iq4,
            IQ4_XS => IntegerFormat::Iq4Shared,
            MXFP4 => IntegerFormat::Fp4,
        })
    }

    /// Bytes of a block without header.
    pub(crate) const fn block_bytes(self) -> usize {
        self.scales().block_bytes() + self.codes().lines() * LINE
    }

    /// Bytes of the blocks that share D and M, with these.
    const fn shared_bytes(self) -> usize {
        self.scales().header_bytes() + SHARING * self.block_bytes()
    }

    /// Blocks in a tile of `bytes`.
    pub(crate) const fn blocks(self, bytes: usize) -> usize {
        if self.scales().are_shared() {
            bytes / self.shared_bytes() * SHARING
        } else {
            bytes / self.block_bytes()
        }
    }

    /// Where D and M of block `block` begin in a tile.
    #[inline]
    pub(crate) fn header_at(self, block: usize) -> usize {
        block / SHARING * self.shared_bytes()
    }

    /// Where block `block` begins in a tile.
    #[inline]
    pub(crate) fn block_at(self, block: usize) -> usize {
        if !self.scales().are_shared() {
            return block * self.block_bytes();
        }
        self.header_at(block) + self.scales().header_bytes() + block % SHARING * self.block_bytes()
    }
}

/// How the weights of a tile are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TileFormat {
    Integers(IntegerFormat),
    F32,
    F16,
    BF16,
}

impl TileFormat {
    /// The tile that holds weights of `format` exactly; F64 is rounded to `F32`.
    pub(crate) fn native(format: BlockFormat) -> TileFormat {
        match (IntegerFormat::of(format), format) {
            (Some(integers), _) => TileFormat::Integers(integers),
            (None, BlockFormat::F16) => TileFormat::F16,
            (None, BlockFormat::BF16) => TileFormat::BF16,
            _ => TileFormat::F32,
        }
    }

    /// Whether weights are integers, multiplied with quantized activations.
    pub(crate) fn is_integer(self) -> bool {
        matches!(self, TileFormat::Integers(_))
    }

    /// Bytes of a tile of `cols` columns, which are whole blocks of the file's format; `None` beyond `usize`.
    pub(crate) fn tile_bytes(self, cols: usize) -> Option<usize> {
        match self {
            TileFormat::Integers(format) => {
                let blocks = cols.div_ceil(BLOCK);
                let headers = blocks.div_ceil(SHARING).checked_mul(format.scales().header_bytes())?;
                blocks.checked_mul(format.block_bytes())?.checked_add(headers)
            }
            _ => cols.checked_mul(self.column_bytes()),
        }
    }

    /// Bytes of a column of a tile of floats.
    pub(crate) fn column_bytes(self) -> usize {
        match self {
            TileFormat::Integers(_) => unreachable!("integers lie in blocks"),
            TileFormat::F32 => 4 * LANES,
            TileFormat::F16 | TileFormat::BF16 => 2 * LANES,
        }
    }
}
