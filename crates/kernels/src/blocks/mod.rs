//! The block formats in which GGUF files keep weights.
//!
//! A block holds 32 or 256 weights of one row: small integers and the scales (and minima) that turn them into real
//! numbers. Definitions follow ggml; `tests/golden` compares every format with the `gguf` Python package.

mod k_quants;
mod legacy;

use crate::KernelError;
use ::half::{bf16, f16};

pub use legacy::quantize_q8_0;

/// How a tensor's weights are encoded in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, non_camel_case_types, reason = "the names are those of GGUF")]
pub enum BlockFormat {
    F32,
    F16,
    BF16,
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
}

impl BlockFormat {
    /// Every format.
    pub const ALL: [BlockFormat; 13] = {
        use BlockFormat::*;
        [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K]
    };

    /// The format of GGUF's tensor type number `kind`, `None` for those not supported.
    pub fn from_ggml_type(kind: u32) -> Option<BlockFormat> {
        BlockFormat::ALL.into_iter().find(|format| format.ggml_type() == kind)
    }

    /// GGUF's number for this format.
    pub fn ggml_type(self) -> u32 {
        match self {
            BlockFormat::F32 => 0,
            BlockFormat::F16 => 1,
            BlockFormat::Q4_0 => 2,
            BlockFormat::Q4_1 => 3,
            BlockFormat::Q5_0 => 6,
            BlockFormat::Q5_1 => 7,
            BlockFormat::Q8_0 => 8,
            BlockFormat::Q2_K => 10,
            BlockFormat::Q3_K => 11,
            BlockFormat::Q4_K => 12,
            BlockFormat::Q5_K => 13,
            BlockFormat::Q6_K => 14,
            BlockFormat::BF16 => 30,
        }
    }

    /// The name GGUF tools print.
    pub fn name(self) -> &'static str {
        match self {
            BlockFormat::F32 => "F32",
            BlockFormat::F16 => "F16",
            BlockFormat::BF16 => "BF16",
            BlockFormat::Q4_0 => "Q4_0",
            BlockFormat::Q4_1 => "Q4_1",
            BlockFormat::Q5_0 => "Q5_0",
            BlockFormat::Q5_1 => "Q5_1",
            BlockFormat::Q8_0 => "Q8_0",
            BlockFormat::Q2_K => "Q2_K",
            BlockFormat::Q3_K => "Q3_K",
            BlockFormat::Q4_K => "Q4_K",
            BlockFormat::Q5_K => "Q5_K",
            BlockFormat::Q6_K => "Q6_K",
        }
    }

    /// Weights in one block.
    pub fn block_len(self) -> usize {
        match self {
            BlockFormat::F32 | BlockFormat::F16 | BlockFormat::BF16 => 1,
            BlockFormat::Q4_0
            | BlockFormat::Q4_1
            | BlockFormat::Q5_0
            | BlockFormat::Q5_1
            | BlockFormat::Q8_0 => legacy::LEN,
            BlockFormat::Q2_K
            | BlockFormat::Q3_K
            | BlockFormat::Q4_K
            | BlockFormat::Q5_K
            | BlockFormat::Q6_K => k_quants::LEN,
        }
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        match self {
            BlockFormat::F32 => 4,
            BlockFormat::F16 | BlockFormat::BF16 => 2,
            BlockFormat::Q4_0 => 18,
            BlockFormat::Q4_1 => 20,
            BlockFormat::Q5_0 => 22,
            BlockFormat::Q5_1 => 24,
            BlockFormat::Q8_0 => 34,
            BlockFormat::Q2_K => 84,
            BlockFormat::Q3_K => 110,
            BlockFormat::Q4_K => 144,
            BlockFormat::Q5_K => 176,
            BlockFormat::Q6_K => 210,
        }
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
        match self {
            BlockFormat::F32 => each::<4>(bytes, out, f32::from_le_bytes),
            BlockFormat::F16 => each::<2>(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            BlockFormat::BF16 => each::<2>(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            BlockFormat::Q4_0
            | BlockFormat::Q4_1
            | BlockFormat::Q5_0
            | BlockFormat::Q5_1
            | BlockFormat::Q8_0 => {
                let blocks = bytes.chunks_exact(self.block_bytes()).zip(out.chunks_exact_mut(legacy::LEN));
                blocks.for_each(|(block, out)| legacy::dequantize(*self, block, out));
            }
            BlockFormat::Q2_K
            | BlockFormat::Q3_K
            | BlockFormat::Q4_K
            | BlockFormat::Q5_K
            | BlockFormat::Q6_K => {
                let blocks = bytes.chunks_exact(self.block_bytes()).zip(out.chunks_exact_mut(k_quants::LEN));
                blocks.for_each(|(block, out)| k_quants::dequantize(*self, block, out));
            }
        }
        Ok(())
    }

    /// Whether groups of 32 weights have one scale each, so that [`BlockFormat::codes`] describes them.
    pub(crate) fn codes_are_exact(self) -> bool {
        use BlockFormat::*;
        matches!(self, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q4_K | Q5_K)
    }

    /// Group `group` of 32 weights of a row as unsigned codes, with what turns them into weights.
    ///
    /// # Panics
    /// For formats that [have none](BlockFormat::codes_are_exact).
    pub(crate) fn codes(self, row: &[u8], group: usize) -> Codes {
        assert!(self.codes_are_exact(), "{} has no groups of 32", self.name());
        let (bytes, groups) = (self.block_bytes(), self.block_len() / 32);
        let block = &row[group / groups * bytes..][..bytes];
        if groups == 1 { legacy::codes(self, block) } else { k_quants::codes(self, block, group % groups) }
    }
}

/// 32 weights as small integers: weight i is `d · unit i + m`.
pub(crate) struct Codes {
    pub(crate) units: Units,
    pub(crate) d: f16,
    pub(crate) m: f16,
}

/// The unsigned integers of 32 weights.
pub(crate) enum Units {
    /// 4 bits each: byte i holds unit i below unit i + 16.
    Pairs([u8; 16]),
    Bytes([u8; 32]),
}

impl Units {
    /// A byte each.
    pub(crate) fn bytes(&self) -> [u8; 32] {
        match self {
            Units::Pairs(pairs) => std::array::from_fn(|i| pairs[i % 16] >> (i / 16 * 4) & 15),
            Units::Bytes(bytes) => *bytes,
        }
    }
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
        // Q8_1 and Q8_K exist only as activations; 4 and 5 are gone from GGUF; the rest is not ours.
        for kind in [4, 5, 9, 15, 16, 29, 31, u32::MAX] {
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

    #[test]
    fn codes_say_what_dequantize_says() {
        // Arbitrary bytes, but scales of moderate size: the high byte of every f16 is fixed.
        let mut state = 1_u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for format in BlockFormat::ALL.into_iter().filter(|f| f.codes_are_exact()) {
            let blocks = 2;
            let mut row: Vec<u8> = (0..blocks * format.block_bytes()).map(|_| byte()).collect();
            for block in row.chunks_exact_mut(format.block_bytes()) {
                block[1] = 0x2c;
                block[3] = 0x2c;
            }
            let mut weights = vec![0.0; blocks * format.block_len()];
            format.dequantize(&row, &mut weights).unwrap();
            for (group, weights) in weights.chunks_exact(32).enumerate() {
                let codes = format.codes(&row, group);
                // Folding a K-quant's two scales into one f16 rounds to 11 bits.
                let folded = matches!(format, BlockFormat::Q4_K | BlockFormat::Q5_K);
                for (u, w) in codes.units.bytes().iter().zip(weights) {
                    let (scaled, m) = (codes.d.to_f32() * f32::from(*u), codes.m.to_f32());
                    let tolerance = if folded { (scaled.abs() + m.abs()) / 2048.0 } else { 1e-6 };
                    assert!((scaled + m - w).abs() <= tolerance, "{format:?}: {} is not {w}", scaled + m);
                }
            }
        }
    }
}
