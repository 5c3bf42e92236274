//! Block formats against the arithmetic of the `gguf` Python package (`golden/make.py`).

use proptest::prelude::*;
use sketchkv_kernels::{BlockFormat, KernelError, Matrix, ThreadPool, WeightFormat, quantize_q8_0};
use std::path::PathBuf;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn formats() -> impl Iterator<Item = BlockFormat> {
    BlockFormat::ALL.into_iter().filter(|format| *format != BlockFormat::F32)
}

#[test]
fn every_format_decodes_as_gguf_does() {
    for format in formats() {
        let (blocks, want) = (
            golden(&format!("{}.blocks", format.name())),
            floats(&golden(&format!("{}.f32", format.name()))),
        );
        assert!(!want.is_empty());
        let mut got = vec![0.0; want.len()];
        format.dequantize(&blocks, &mut got).unwrap();
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            // gguf multiplies in another order for some formats: allow one rounding.
            let tolerance = want.abs() * f32::EPSILON;
            assert!((got - want).abs() <= tolerance, "{format:?} weight {i}: {got} is not {want}");
        }
    }
}

#[test]
fn q8_0_encodes_as_gguf_does() {
    let weights = floats(&golden("quantize.f32"));
    let mut blocks = vec![0; weights.len() / 32 * 34];
    quantize_q8_0(&weights, &mut blocks);
    assert_eq!(blocks, golden("quantize.Q8_0"));
}

#[test]
fn a_matrix_gives_back_the_rows_it_was_made_of() {
    use BlockFormat::*;
    let pool = ThreadPool::new(2);
    for format in formats() {
        let (blocks, want) = (
            golden(&format!("{}.blocks", format.name())),
            floats(&golden(&format!("{}.f32", format.name()))),
        );
        // Two rows of two blocks (or of 32 floats).
        let cols = want.len() / 2;
        for target in [WeightFormat::Native, WeightFormat::F32, WeightFormat::Q8] {
            let matrix = Matrix::from_blocks(format, 2, cols, &blocks, target, &pool).unwrap();
            for (index, want) in want.chunks_exact(cols).enumerate() {
                let mut row = vec![0.0; cols];
                matrix.row(index, &mut row);
                let largest = want.iter().fold(0.0_f32, |a, w| a.max(w.abs()));
                let tolerance = match (target, format) {
                    (WeightFormat::F32, _) => 0.0,
                    // Rounded to 8 bits.
                    (WeightFormat::Q8, F16 | BF16 | F64) => largest / 127.0 * 0.51,
                    // Multiplied in another order.
                    _ => largest * f32::EPSILON,
                };
                for (got, want) in row.iter().zip(want) {
                    assert!((got - want).abs() <= tolerance, "{format:?} as {target:?}: {got} is not {want}");
                }
            }
        }
    }
}

#[test]
fn scales_of_mxfp4_are_exact() {
    let pool = ThreadPool::new(1);
    // Codes 1 and 7 are worth 1 and 12.
    let row = |exponent: u8| {
        let block = [[exponent].as_slice(), &[0x11; 8], &[0x77; 8]].concat();
        let mut weights = [0.0; 32];
        let matrix = Matrix::from_blocks(BlockFormat::MXFP4, 1, 32, &block, WeightFormat::Native, &pool);
        matrix.map(|matrix| matrix.row(0, &mut weights)).map(|()| [weights[0], weights[8]])
    };
    for exponent in 0_u8..253 {
        let power = 2.0_f64.powi(i32::from(exponent) - 128) as f32;
        assert_eq!(row(exponent), Ok([power, 12.0 * power]));
    }
    // Twelve times that is infinite.
    assert_eq!(row(253), Err(KernelError::NotFinite { row: 0 }));
    assert_eq!(row(255), Err(KernelError::NotFinite { row: 0 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn arbitrary_bytes_are_weights_or_an_error(bytes in prop::collection::vec(any::<u8>(), 3 * 256)) {
        let (rows, pool) = (3, ThreadPool::new(1));
        for format in BlockFormat::ALL {
            let bytes = &bytes[..rows * format.block_bytes()];
            let mut weights = vec![0.0; format.block_len()];
            format.dequantize(&bytes[..format.block_bytes()], &mut weights).unwrap();
            for target in [WeightFormat::Native, WeightFormat::F32, WeightFormat::Q8] {
                let Ok(matrix) = Matrix::from_blocks(format, rows, weights.len(), bytes, target, &pool) else {
                    continue;
                };
                for row in 0..rows {
                    matrix.row(row, &mut weights);
                    prop_assert!(weights.iter().all(|w| w.is_finite()), "{format:?} as {target:?}: {weights:?}");
                }
            }
        }
    }
}
