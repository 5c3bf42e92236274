//! Block formats against the arithmetic of the `gguf` Python package (`golden/make.py`).

use sketchkv_kernels::{BlockFormat, Matrix, ThreadPool, WeightFormat, quantize_q8_0};
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
                    (WeightFormat::Q8, BlockFormat::F16 | BlockFormat::BF16) => largest / 127.0 * 0.51,
                    (_, BlockFormat::Q2_K | BlockFormat::Q3_K | BlockFormat::Q6_K) => largest / 127.0 * 0.51,
                    // Scales folded into one f16.
                    (_, BlockFormat::Q4_K | BlockFormat::Q5_K) => largest / 1024.0,
                    _ => largest * f32::EPSILON,
                };
                for (got, want) in row.iter().zip(want) {
                    assert!((got - want).abs() <= tolerance, "{format:?} as {target:?}: {got} is not {want}");
                }
            }
        }
    }
}
