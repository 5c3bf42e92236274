//! The block formats in which GGUF files keep weights.
//!
//! A block holds 32 or 256 weights of one row: small integers, or indices into tables of them, and the scales (and minima)
//! that turn them into real numbers. Definitions follow ggml; `tests/golden` compares every format with the `gguf` Python
//! package.
//!
//! | file | formats |
//! |---|---|
//! | `legacy` | Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 |
//! | `k_quants` | Q2_K to Q6_K |
//! | `iq`, `grids` | IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S |
//! | `iq4` | IQ4_NL, IQ4_XS |
//! | `ternary` | TQ1_0, TQ2_0 |
//! | `fp4` | MXFP4 |

mod fp4;
mod grids;
mod iq;
mod iq4;
mod k_quants;
mod legacy;
mod ternary;

use crate::KernelError;
use ::half::{bf16, f16};

pub(crate) use fp4::power;
pub use legacy::quantize_q8_0;

/// How a tensor's weights are encoded in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, non_camel_case_types, reason = "the names are those of GGUF")]
pub enum BlockFormat {
    F32,
    F16,
    BF16,
    F64,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ4_NL,
    IQ4_XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
}

impl BlockFormat {
    /// Every format.
    pub const ALL: [BlockFormat; 26] = {
        use BlockFormat::*;
        [
            F32, F16, BF16, F64, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ1_S, IQ1_M,
            IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, MXFP4,
        ]
    };

    /// The format of GGUF's tensor type number `kind`, `None` for those not supported.
    pub fn from_ggml_type(kind: u32) -> Option<BlockFormat> {
        BlockFormat::ALL.into_iter().find(|format| format.ggml_type() == kind)
    }

    /// GGUF's number, the name GGUF tools print, weights in one block, bytes of one block.
    fn layout(self) -> (u32, &'static str, usize, usize) {
        use BlockFormat::*;
        match self {
            F32 => (0, "F32", 1, 4),
            F16 => (1, "F16", 1, 2),
            Q4_0 => (2, "Q4_0", legacy::LEN, 18),
            Q4_1 => (3, "Q4_1", legacy::LEN, 20),
            Q5_0 => (6, "Q5_0", legacy::LEN, 22),
            Q5_1 => (7, "Q5_1", legacy::LEN, 24),
            Q8_0 => (8, "Q8_0", legacy::LEN, 34),
            Q2_K => (10, "Q2_K", k_quants::LEN, 84),
            Q3_K => (11, "Q3_K", k_quants::LEN, 110),
            Q4_K => (12, "Q4_K", k_quants::LEN, 144),
            Q5_K => (13, "Q5_K", k_quants::LEN, 176),
            Q6_K => (14, "Q6_K", k_quants::LEN, 210),
            IQ2_XXS => (16, "IQ2_XXS", iq::LEN, 66),
            IQ2_XS => (17, "IQ2_XS", iq::LEN, 74),
            IQ3_XXS => (18, "IQ3_XXS", iq::LEN, 98),
            IQ1_S => (19, "IQ1_S", iq::LEN, 50),
            IQ4_NL => (20, "IQ4_NL", 32, 18),
            IQ3_S => (21, "IQ3_S", iq::LEN, 110),
            IQ2_S => (22, "IQ2_S", iq::LEN, 82),
            IQ4_XS => (23, "IQ4_XS", 256, 136),
            F64 => (28, "F64", 1, 8),
            IQ1_M => (29, "IQ1_M", iq::LEN, 56),
            BF16 => (30, "BF16", 1, 2),
            TQ1_0 => (34, "TQ1_0", ternary::LEN, 54),
            TQ2_0 => (35, "TQ2_0", ternary::LEN, 66),
            MXFP4 => (39, "MXFP4", fp4::LEN, 17),
        }
    }

    /// GGUF's number for this format.
    pub fn ggml_type(self) -> u32 {
        self.layout().0
    }

    /// The name GGUF tools print.
    pub fn name(self) -> &'static str {
        self.layout().1
    }

    /// Weights in one block.
    pub fn block_len(self) -> usize {
        self.layout().2
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        self.layout().3
    }

    /// Bytes of a row of `cols` weights.
    ///
    /// # Errors
    /// When the row is not made of whole blocks.
    pub fn row_bytes(self, cols: usize) -> Result<usize, KernelError> {
        if !cols.is_multiple_of(self.block_len()) {
            return Err(KernelError::PartialBlock { cols, block: self.block_len(), format: self.name() });
        }
        (cols / self.block_len())
            .checked_mul(self.block_bytes())
            .ok_or(KernelError::TooLarge { rows: 1, cols })
    }

    /// Decodes `bytes` into `out`, `[block][weight]`.
    ///
    /// # Errors
    /// When `bytes` is not exactly as many whole blocks as `out` has weights.
    ///
    /// ```
    /// use sketchkv_kernels::BlockFormat;
    /// // One Q8_0 block: the scale 0.5 as f16, then 32 signed bytes.
    /// let mut block = vec![0x00, 0x38];
    /// block.extend((0..32).map(|i| (i - 16) as u8));
    /// let mut weights = [0.0; 32];
    /// BlockFormat::Q8_0.dequantize(&block, &mut weights)?;
    /// assert_eq!(weights[0], -8.0);
    /// # Ok::<(), sketchkv_kernels::KernelError>(())
    /// ```
    pub fn dequantize(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
        let needed = self.row_bytes(out.len())?;
        if bytes.len() != needed {
            return Err(KernelError::Length { what: "bytes of weights", needed, found: bytes.len() });
        }
        use BlockFormat::*;
        match self {
            F32 => each::<4>(bytes, out, f32::from_le_bytes),
            F16 => each::<2>(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            BF16 => each::<2>(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            // What is beyond f32 becomes infinite, which a matrix refuses.
            F64 => each::<8>(bytes, out, |b| f64::from_le_bytes(b) as f32),
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => self.each_block(bytes, out, legacy::dequantize),
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K => self.each_block(bytes, out, k_quants::dequantize),
            IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S => {
                self.each_block(bytes, out, iq::dequantize);
            }
            IQ4_NL | IQ4_XS => self.each_block(bytes, out, iq4::dequantize),
            TQ1_0 | TQ2_0 => self.each_block(bytes, out, ternary::dequantize),
            MXFP4 => self.each_block(bytes, out, |_, block, out| fp4::dequantize(block, out)),
        }
        Ok(())
    }

    fn each_block(self, bytes: &[u8], out: &mut [f32], decode: impl Fn(BlockFormat, &[u8], &mut [f32])) {
        let blocks = bytes.chunks_exact(self.block_bytes()).zip(out.chunks_exact_mut(self.block_len()));
        blocks.for_each(|(block, out)| decode(self, block, out));
    }

    /// Group `group` of 32 weights of a row as codes, with what turns them into weights: see
    /// [`tile`](crate::matrix::tile), which has a layout for each format.
    ///
    /// # Panics
    /// For formats of floats.
    pub(crate) fn group(self, row: &[u8], group: usize) -> Group {
        use BlockFormat::*;
        let (bytes, groups) = (self.block_bytes(), self.block_len() / 32);
        let block = &row[group / groups * bytes..][..bytes];
        let group = group % groups;
        match self {
            F32 | F16 | BF16 | F64 => unreachable!("floats have no groups"),
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => legacy::group(self, block),
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K => k_quants::group(self, block, group),
            IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S => iq::group(self, block, group),
            IQ4_NL | IQ4_XS => iq4::group(self, block, group),
            TQ1_0 | TQ2_0 => ternary::group(self, block, group),
            MXFP4 => fp4::group(block),
        }
    }
}

/// 32 weights as the integers of the file: `d · scale · (unit − offset)` or `d · scale · unit + m · constant`, where the code's
/// [layout](crate::matrix::tile::IntegerFormat) says what its unit and its offset are. The first 16 have the first scale
/// and constant.
pub(crate) struct Group {
    pub(crate) codes: [u8; 32],
    pub(crate) d: f16,
    pub(crate) m: f16,
    pub(crate) scales: [i8; 2],
    pub(crate) constants: [i8; 2],
}

impl Default for Group {
    fn default() -> Group {
        Group { codes: [0; 32], d: f16::ZERO, m: f16::ZERO, scales: [1; 2], constants: [1; 2] }
    }
}

/// Codes of 4 bits: byte i holds code i below code i + 16.
fn nibbles(pairs: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| pairs[i % 16] >> (i / 16 * 4) & 15)
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    let (values, _) = bytes.as_chunks::<N>();
    out.iter_mut().zip(values).for_each(|(o, v)| *o = decode(*v));
}

/// The little-endian f16 at `at`.
fn scale_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_numbers_round_trip() {
        for format in BlockFormat::ALL {
            assert_eq!(BlockFormat::from_ggml_type(format.ggml_type()), Some(format));
        }
        // Q8_1 and Q8_K exist only as activations; 24 to 27 are integers; 4, 5, 31 to 33 and 36 to 38 are gone from GGUF.
        for kind in [4, 5, 9, 15, 24, 27, 31, 33, 36, 38, u32::MAX] {
            assert_eq!(BlockFormat::from_ggml_type(kind), None);
        }
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let mut out = [0.0; 64];
        assert_eq!(
            BlockFormat::Q4_0.dequantize(&[0; 35], &mut out),
            Err(KernelError::Length { what: "bytes of weights", needed: 36, found: 35 })
        );
        assert!(matches!(
            BlockFormat::Q6_K.dequantize(&[0; 210], &mut out),
            Err(KernelError::PartialBlock { cols: 64, block: 256, .. })
        ));
        assert!(BlockFormat::F32.row_bytes(usize::MAX / 2).is_err());
    }
}
