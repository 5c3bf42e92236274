//! Products at every level this machine runs, against the scalar reference and against arithmetic in `f64`.

use proptest::prelude::*;
use sketchkv_kernels::cpu::Level;
use sketchkv_kernels::{
    Activations, BlockFormat, Input, KernelError, Matrix, Output, ProductWorkspace, Rows, ThreadPool,
    WeightFormat,
};

/// Blocks of arbitrary codes with scales of moderate size.
fn random_rows(format: BlockFormat, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let bytes = format.row_bytes(cols).unwrap() * rows;
    let mut data: Vec<u8> = (0..bytes).map(|_| next() as u8).collect();
    for block in data.chunks_exact_mut(format.block_bytes()) {
        let mut scale = |at: usize| block[at + 1] = block[at + 1] & 0x83 | 0x20;
        match format {
            BlockFormat::F32 => block[3] = block[3] & 0x80 | 0x3e,
            BlockFormat::F16 => scale(0),
            BlockFormat::BF16 => block[1] = block[1] & 0x80 | 0x3e,
            BlockFormat::F64 => {
                block[7] = block[7] & 0x80 | 0x3f;
                block[6] = block[6] & 0x1f | 0xc0;
            }
            BlockFormat::Q2_K => [80, 82].into_iter().for_each(scale),
            BlockFormat::Q3_K => scale(108),
            BlockFormat::Q6_K => scale(208),
            BlockFormat::TQ1_0 => scale(52),
            BlockFormat::TQ2_0 => scale(64),
            // A nibble of the f16 in each of four bytes.
            BlockFormat::IQ1_M => {
                block[53] &= 0x3f;
                block[55] = block[55] & 0x8f | 0x20;
            }
            BlockFormat::MXFP4 => block[0] = 120 + block[0] % 8,
            BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4_K | BlockFormat::Q5_K => {
                [0, 2].into_iter().for_each(scale);
            }
            _ => scale(0),
        }
    }
    data
}

fn wave(len: usize, seed: u64) -> Vec<f32> {
    (0..len).map(|i| ((i as f32 + seed as f32 * 17.0) * 0.61).sin() * (1.0 + (i % 7) as f32)).collect()
}

/// The product in `f64` with the rows the matrix says it has, and the sum of absolute terms as a measure for errors.
fn exact(matrix: &Matrix, x: &[f32], tokens: usize) -> Vec<(f64, f64)> {
    let mut weights = vec![0.0; matrix.cols()];
    let mut y = vec![(0.0, 0.0); tokens * matrix.rows()];
    for row in 0..matrix.rows() {
        matrix.row(row, &mut weights);
        for token in 0..tokens {
            let x = &x[token * matrix.cols()..][..matrix.cols()];
            let terms = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            y[token * matrix.rows() + row] = terms.fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()));
        }
    }
    y
}

fn any_format() -> impl Strategy<Value = BlockFormat> {
    prop::sample::select(BlockFormat::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_level_gives_the_reference(
        format in any_format(),
        target in prop::sample::select(vec![WeightFormat::Native, WeightFormat::F32, WeightFormat::Q8]),
        rows in 1_usize..70,
        blocks in 1_usize..5,
        tokens in 1_usize..20,
        activations in prop::sample::select(vec![Activations::Bits8, Activations::Bits16]),
        seed in any::<u64>(),
    ) {
        let pool = ThreadPool::new(2);
        let cols = if format.block_len() == 1 { blocks * 29 } else { blocks * format.block_len() };
        let bytes = random_rows(format, rows, cols, seed);
        let matrix = Matrix::from_blocks(format, rows, cols, &bytes, target, &pool).unwrap().with_activations(activations);
        // One value more, so that the slice the products see is not aligned.
        let x = wave(tokens * cols + 1, seed % 100);
        let x = &x[1..];
        let exact = exact(&matrix, x, tokens);
        let mut reference = vec![0.0; tokens * rows];
        matrix.product(&pool, x, tokens, &mut reference, &mut ProductWorkspace::with_level(Level::Scalar));
        for &level in Level::available() {
            let mut y = vec![f32::NAN; tokens * rows];
            matrix.product(&pool, x, tokens, &mut y, &mut ProductWorkspace::with_level(level));
            for i in 0..y.len() {
                let (sum, size) = exact[i];
                // Rounding of activations to 8 bits: half a step of 1/127 of the largest, 7 times the typical here. Rounded
                // twice, half a step of the 254th part, and the errors of summation.
                let rounding = if activations == Activations::Bits8 { 0.03 } else { 0.0002 };
                prop_assert!((f64::from(y[i]) - sum).abs() <= size * rounding + 1e-4, "{level:?} {format:?} {i}: {} is not {sum}", y[i]);
                // Summation order only. Codes are added with their constant apart, so that terms cancel.
                let tolerance = 3e-6 * size.max(1.0) as f32 * 16.0;
                prop_assert!((y[i] - reference[i]).abs() <= tolerance, "{level:?} {format:?} {i}: {} is not {}", y[i], reference[i]);
            }
        }
    }

    #[test]
    fn neither_threads_nor_company_change_a_result(
        format in any_format(),
        rows in 1_usize..100,
        tokens in 2_usize..40,
        threads in 2_usize..5,
        activations in prop::sample::select(vec![Activations::Bits8, Activations::Bits16]),
        seed in any::<u64>(),
    ) {
        let cols = format.block_len().max(64);
        let bytes = random_rows(format, rows, cols, seed);
        let (one, many) = (ThreadPool::new(1), ThreadPool::new(threads));
        let matrix = Matrix::from_blocks(format, rows, cols, &bytes, WeightFormat::Native, &one).unwrap();
        let matrix = matrix.with_activations(activations);
        let x = wave(tokens * cols, seed % 100);
        for &level in Level::available() {
            let mut workspace = ProductWorkspace::with_level(level);
            let mut together = vec![0.0; tokens * rows];
            matrix.product(&many, &x, tokens, &mut together, &mut workspace);
            let mut apart = vec![0.0; tokens * rows];
            for (x, y) in x.chunks_exact(cols).zip(apart.chunks_exact_mut(rows)) {
                matrix.product(&one, x, 1, y, &mut workspace);
            }
            prop_assert_eq!(&together, &apart, "{:?}", level);
        }
    }
}

#[test]
fn extreme_codes_do_not_overflow() {
    let (rows, cols, pool) = (16, 256, ThreadPool::new(1));
    // Every weight −128, which Q8_0 files should not have but can, or +127, or 15·d + m.
    let byte = |code: u8| [[0x00, 0x3c].as_slice(), &[code; 32]].concat().repeat(rows * cols / 32);
    let nibble = [[0x00, 0x3c, 0x00, 0xbc].as_slice(), &[0xff; 16]].concat().repeat(rows * cols / 32);
    let five = [[0x00, 0x3c, 0x00, 0x3c].as_slice(), &[0xff; 20]].concat().repeat(rows * cols / 32);
    // All bits of the codes: 31 − 16, and 63 − 32 under scales of 1.
    let five_symmetric = [[0x00, 0x3c].as_slice(), &[0xff; 20]].concat().repeat(rows * cols / 32);
    let table = [[0x00, 0x3c].as_slice(), &[0xff; 16]].concat().repeat(rows * cols / 32);
    let six = [[0xff; 192].as_slice(), &[1; 16], &[0x00, 0x3c]].concat().repeat(rows * cols / 256);
    let cases = [
        (BlockFormat::Q5_0, five_symmetric, 15.0),
        (BlockFormat::IQ4_NL, table, 113.0),
        (BlockFormat::Q6_K, six, 31.0),
        (BlockFormat::Q8_0, byte(0x80), -128.0),
        (BlockFormat::Q8_0, byte(0x7f), 127.0),
        (BlockFormat::Q4_1, nibble, 14.0),
        (BlockFormat::Q5_1, five, 32.0),
    ];
    for (format, bytes, weight) in cases {
        let matrix = Matrix::from_blocks(format, rows, cols, &bytes, WeightFormat::Native, &pool).unwrap();
        for sign in [1.0, -1.0] {
            let x = vec![sign * 127.0; cols];
            for &level in Level::available() {
                let mut y = vec![0.0; rows];
                matrix.product(&pool, &x, 1, &mut y, &mut ProductWorkspace::with_level(level));
                assert_eq!(y, vec![weight * sign * 127.0 * cols as f32; rows], "{format:?} at {level:?}");
            }
        }
    }
}

#[test]
fn weights_take_the_bytes_that_they_take_in_the_file() {
    use BlockFormat::*;
    let pool = ThreadPool::new(2);
    for format in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4] {
        let bytes = random_rows(format, 64, 1024, 7);
        let matrix = Matrix::from_blocks(format, 64, 1024, &bytes, WeightFormat::Native, &pool).unwrap();
        // Scales and minima of six bits take a byte each: 1/8 bit of 4.5, and 1/16 of IQ4_XS's 4.25.
        let most = match format {
            Q4_K => 1.03,
            Q5_K => 1.025,
            IQ4_XS => 1.02,
            _ => 1.0,
        };
        assert!(
            matrix.bytes() as f64 <= bytes.len() as f64 * most,
            "{format:?}: {} {}",
            matrix.bytes(),
            bytes.len()
        );
    }
}

#[test]
fn nan_in_the_input_reaches_the_output() {
    let pool = ThreadPool::new(1);
    for format in BlockFormat::ALL {
        let cols = format.block_len().max(32);
        let matrix = Matrix::from_blocks(
            format,
            3,
            cols,
            &random_rows(format, 3, cols, 5),
            WeightFormat::Native,
            &pool,
        )
        .unwrap();
        for &level in Level::available() {
            let mut x = vec![1.0; 2 * cols];
            x[cols + 7] = f32::NAN;
            let mut y = vec![0.0; 6];
            matrix.product(&pool, &x, 2, &mut y, &mut ProductWorkspace::with_level(level));
            assert!(y[..3].iter().all(|y| y.is_finite()), "{format:?} at {level:?}");
            assert!(y[3..].iter().all(|y| y.is_nan()), "{format:?} at {level:?}");
        }
    }
}

#[test]
fn stacked_rows_of_many_formats_are_the_parts_one_after_another() {
    let (cols, tokens, pool) = (256, 11, ThreadPool::new(2));
    let parts: Vec<(BlockFormat, usize, Vec<u8>)> = BlockFormat::ALL
        .into_iter()
        .enumerate()
        .map(|(i, format)| (format, 5 + 9 * i, random_rows(format, 5 + 9 * i, cols, i as u64)))
        .collect();
    let rows: Vec<Rows> =
        parts.iter().map(|(format, rows, bytes)| Rows { format: *format, rows: *rows, bytes }).collect();
    let stacked = Matrix::stack(cols, &rows, WeightFormat::Native, &pool).unwrap();
    assert_eq!(stacked.rows(), rows.iter().map(|r| r.rows).sum::<usize>());
    let x = wave(tokens * cols, 3);
    for &level in Level::available() {
        let mut workspace = ProductWorkspace::with_level(level);
        let mut y = vec![0.0; tokens * stacked.rows()];
        stacked.product(&pool, &x, tokens, &mut y, &mut workspace);
        let mut first = 0;
        for part in &rows {
            let single =
                Matrix::from_blocks(part.format, part.rows, cols, part.bytes, WeightFormat::Native, &pool)
                    .unwrap();
            let mut alone = vec![0.0; tokens * part.rows];
            single.product(&pool, &x, tokens, &mut alone, &mut workspace);
            for (y, alone) in y.chunks_exact(stacked.rows()).zip(alone.chunks_exact(part.rows)) {
                assert_eq!(&y[first..first + part.rows], alone, "{:?} at {level:?}", part.format);
            }
            first += part.rows;
        }
    }
}

#[test]
fn bias_and_residual_are_added() {
    let (rows, cols, tokens, pool) = (21, 32, 10, ThreadPool::new(2));
    let bytes = random_rows(BlockFormat::Q4_0, rows, cols, 1);
    let matrix =
        Matrix::from_blocks(BlockFormat::Q4_0, rows, cols, &bytes, WeightFormat::Native, &pool).unwrap();
    let (x, bias, residual) = (wave(tokens * cols, 1), wave(rows, 2), wave(tokens * rows, 3));
    let mut workspace = ProductWorkspace::new();
    let mut plain = vec![0.0; tokens * rows];
    matrix.product(&pool, &x, tokens, &mut plain, &mut workspace);
    for use_bias in [false, true] {
        let bias = use_bias.then_some(bias.as_slice());
        let (mut stored, mut added) = (vec![7.0; tokens * rows], residual.clone());
        matrix.apply(&pool, Input::Plain(&x), tokens, bias, Output::Store(&mut stored), &mut workspace);
        matrix.apply(&pool, Input::Plain(&x), tokens, bias, Output::AddTo(&mut added), &mut workspace);
        for i in 0..plain.len() {
            let want = plain[i] + bias.map_or(0.0, |b| b[i % rows]);
            assert_eq!(stored[i], want);
            assert_eq!(added[i], residual[i] + want);
        }
    }
}

#[test]
fn damaged_weights_are_errors() {
    let pool = ThreadPool::new(2);
    let load = |format, rows, cols, bytes: &[u8], target| {
        Matrix::from_blocks(format, rows, cols, bytes, target, &pool).map(|_| ()).unwrap_err()
    };
    let bytes = random_rows(BlockFormat::Q4_1, 40, 64, 1);
    let short = load(BlockFormat::Q4_1, 40, 64, &bytes[1..], WeightFormat::Native);
    assert_eq!(short, KernelError::Length { what: "bytes of weights", needed: 1600, found: 1599 });
    assert!(matches!(
        load(BlockFormat::Q4_1, 40, 63, &bytes, WeightFormat::Native),
        KernelError::PartialBlock { .. }
    ));
    assert!(matches!(
        load(BlockFormat::F32, usize::MAX / 2, 64, &bytes, WeightFormat::F32),
        KernelError::TooLarge { .. }
    ));
    for format in BlockFormat::ALL {
        let cols = format.block_len().max(32);
        let mut bytes = vec![0; format.row_bytes(cols).unwrap() * 20];
        // A NaN scale (or weight) in row 17: its bytes are all ones.
        let row = bytes.len() / 20;
        bytes[17 * row..18 * row].fill(0xff);
        for target in [WeightFormat::Native, WeightFormat::F32, WeightFormat::Q8] {
            assert_eq!(
                load(format, 20, cols, &bytes, target),
                KernelError::NotFinite { row: 17 },
                "{format:?}"
            );
        }
    }
}

#[test]
fn an_empty_matrix_or_batch_is_fine() {
    let pool = ThreadPool::new(2);
    let matrix = Matrix::from_f32(0, 8, &[], WeightFormat::Q8, &pool).unwrap();
    matrix.product(&pool, &[1.0; 8], 1, &mut [], &mut ProductWorkspace::new());
    let matrix = Matrix::from_f32(4, 0, &[], WeightFormat::Native, &pool).unwrap();
    let mut y = [1.0; 4];
    matrix.product(&pool, &[], 1, &mut y, &mut ProductWorkspace::new());
    assert_eq!(y, [0.0; 4]);
    let matrix = Matrix::from_f32(4, 8, &[1.0; 32], WeightFormat::Native, &pool).unwrap();
    matrix.product(&pool, &[], 0, &mut [], &mut ProductWorkspace::new());
}
