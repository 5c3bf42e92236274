//! Products of matrices, and the operations between them.

use super::{LIMIT, Numbers, Sum, half_step, largest};
use proptest::prelude::*;
use sketchkv_kernels::cpu::Level;
use sketchkv_kernels::half::{bf16, f16, f32_to_bf16, f32_to_f16, to_bf16, to_f16};
use sketchkv_kernels::{
    Activations, BlockFormat, Input, Matrix, Output, ProductWorkspace, ThreadPool, WeightFormat, ops,
    quantize_q8_0,
};

const BLOCK: usize = 32;

/// Blocks of arbitrary codes with finite scales of all sizes.
fn rows(format: BlockFormat, count: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut data: Vec<u8> = (0..count * format.block_bytes()).map(|_| numbers.bits() as u8).collect();
    let two_step = format.block_len() == 256;
    for block in data.chunks_exact_mut(format.block_bytes()) {
        let places: &[usize] = match format {
            BlockFormat::F32 => {
                block.copy_from_slice(&numbers.next().to_le_bytes());
                continue;
            }
            BlockFormat::BF16 => {
                block.copy_from_slice(&to_bf16(numbers.next()).to_le_bytes());
                continue;
            }
            BlockFormat::F64 => {
                block.copy_from_slice(&f64::from(numbers.next()).to_le_bytes());
                continue;
            }
            BlockFormat::MXFP4 => {
                // A sum of 32 units and activations under the largest scales is beyond f32.
                block[0] %= 230;
                continue;
            }
            BlockFormat::IQ1_M => {
                // The scale is in four parts; without this bit its exponent is not the largest.
                block[53] &= 0xbf;
                continue;
            }
            BlockFormat::Q2_K => &[80, 82],
            BlockFormat::Q3_K => &[108],
            BlockFormat::Q6_K => &[208],
            BlockFormat::TQ1_0 => &[52],
            BlockFormat::TQ2_0 => &[64],
            BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4_K | BlockFormat::Q5_K => &[0, 2],
            _ => &[0],
        };
        for &at in places {
            // Folded into one, two scales must be an f16.
            let scale = to_f16(numbers.next()).to_f32() / if two_step { 64.0 } else { 1.0 };
            block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        }
    }
    data
}

/// weights · x, the weights as the matrix has them.
fn product(weights: &[f32], x: &[f32], integers: bool, activations: Activations) -> Sum {
    let mut sum = Sum::default();
    weights.iter().zip(x).for_each(|(w, x)| sum.add(*w, *x));
    for (weights, x) in weights.chunks(BLOCK).zip(x.chunks(BLOCK)).filter(|_| integers) {
        // Scale and constant of a block may cancel; what they come to before is of the size of its largest weight.
        sum.size += 4.0 * 127.0 * largest(weights) * largest(x);
        let steps = match activations {
            Activations::Bits8 => 127.0,
            Activations::Bits16 => 127.0 * 257.0,
        };
        let step = half_step(largest(x) * 127.0 / steps);
        sum.rounding += step * weights.iter().map(|w| f64::from(w.abs())).sum::<f64>();
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn products(
        format in prop::sample::select(BlockFormat::ALL.to_vec()),
        target in prop::sample::select(vec![WeightFormat::Native, WeightFormat::F32, WeightFormat::Q8]),
        activations in prop::sample::select(vec![Activations::Bits8, Activations::Bits16]),
        mut of_weights in Numbers::any(), mut of_x in Numbers::any(),
        outputs in 1usize..20, blocks in 1usize..3, tokens in 1usize..10,
    ) {
        let pool = ThreadPool::new(1);
        let cols = if format.block_len() == 1 { 29 * blocks } else { blocks * format.block_len() };
        let bytes = rows(format, outputs * cols / format.block_len(), &mut of_weights);
        let matrix = Matrix::from_blocks(format, outputs, cols, &bytes, target, &pool).unwrap().with_activations(activations);
        let integers = target != WeightFormat::F32
            && (target == WeightFormat::Q8 || !matches!(format, BlockFormat::F32 | BlockFormat::F16 | BlockFormat::BF16 | BlockFormat::F64));
        let x = of_x.vector(tokens * cols);
        for &level in Level::available() {
            let mut y = vec![f32::NAN; tokens * outputs];
            matrix.product(&pool, &x, tokens, &mut y, &mut ProductWorkspace::with_level(level));
            let mut weights = vec![f32::NAN; cols];
            for row in 0..outputs {
                matrix.row(row, &mut weights);
                prop_assert!(weights.iter().all(|w| w.is_finite()), "{format:?} as {target:?}: {weights:?}");
                for token in 0..tokens {
                    let want = product(&weights, &x[token * cols..][..cols], integers, activations);
                    let got = y[token * outputs + row];
                    prop_assert!(want.admits(got), "{format:?} as {target:?} at {level:?}: {got} is not {want:?}");
                }
            }
        }
    }

    #[test]
    fn norms_on_the_way_into_a_product(mut of_x in Numbers::any(), mut of_weights in Numbers::any(), len in 1usize..80, eps in prop::sample::select(vec![0.0f32, 1e-6, 1e-5])) {
        let pool = ThreadPool::new(1);
        let (x, weight, bias) = (of_x.vector(len), of_weights.vector(len), of_weights.vector(len));
        // A product with 1 gives the norm itself.
        let mut one = vec![0.0; len * len];
        (0..len).for_each(|i| one[i * len + i] = 1.0);
        let one = Matrix::from_f32(len, len, &one, WeightFormat::F32, &pool).unwrap();
        let wide = || x.iter().map(|x| f64::from(*x));
        let mean = wide().sum::<f64>() / len as f64;
        let root = |square: f64| (square / len as f64 + f64::from(eps)).sqrt();
        let (rms, deviation) = (root(wide().map(|x| x * x).sum()), root(wide().map(|x| (x - mean).powi(2)).sum()));
        // 1 / root is an f32.
        let within = |root: f64| root > 1e-37;
        for &level in Level::available() {
            let mut workspace = ProductWorkspace::with_level(level);
            let mut run = |input: Input| {
                let mut y = vec![f32::NAN; len];
                one.apply(&pool, input, 1, None, Output::Store(&mut y), &mut workspace);
                y
            };
            let by_rms = run(Input::RmsNorm { x: &x, weight: &weight, eps });
            let by_layer = run(Input::LayerNorm { x: &x, weight: &weight, bias: &bias, eps });
            for i in 0..len {
                let (x, w, b) = (f64::from(x[i]), f64::from(weight[i]), f64::from(bias[i]));
                // Sums over all columns: one that is not finite makes all of them none.
                let all_fit = weight.iter().zip(&bias).all(|(w, b)| f64::from(w.abs()) * 9.0 + f64::from(b.abs()) < LIMIT);
                prop_assert!(!all_fit || by_rms[i].is_finite() && by_layer[i].is_finite(), "{level:?}: {} {}", by_rms[i], by_layer[i]);
                if !all_fit {
                    continue;
                }
                let want = x / rms * w;
                let near = (f64::from(by_rms[i]) - want).abs() <= 1e-5 * want.abs() + 1e-37 * (1.0 + w.abs());
                prop_assert!(near || !within(rms), "{level:?}: {} is not {want}", by_rms[i]);
                let want = (x - mean) / deviation * w + b;
                // The mean is rounded to f32, whatever is left when it is taken away.
                let size = (1.0 + mean.abs() / deviation) * w.abs() * (len as f64).sqrt() + b.abs();
                let near = (f64::from(by_layer[i]) - want).abs() <= 1e-5 * size + 1e-37 * (1.0 + w.abs());
                prop_assert!(near || !within(deviation), "{level:?}: {} is not {want}", by_layer[i]);
            }
        }
    }

    #[test]
    fn activations_on_the_way_into_a_product(mut of_gate in Numbers::any(), mut of_up in Numbers::any(), len in 1usize..80) {
        let pool = ThreadPool::new(1);
        let (gate, up) = (of_gate.vector(len), of_up.vector(len));
        for &level in Level::available() {
            let mut workspace = ProductWorkspace::with_level(level);
            for i in 0..len {
                // One column each: what overflows stays alone.
                let one = Matrix::from_f32(1, 1, &[1.0], WeightFormat::F32, &pool).unwrap();
                let mut run = |input: Input| {
                    let mut y = [f32::NAN];
                    one.apply(&pool, input, 1, None, Output::Store(&mut y), &mut workspace);
                    y[0]
                };
                let (g, u) = (f64::from(gate[i]), f64::from(up[i]));
                let (got, want) = (run(Input::SiluMul(&[gate[i], up[i]])), g / (1.0 + (-g).exp()) * u);
                // What is below the smallest number before it is multiplied by `up` is lost.
                let lost = (g.abs() + 1.0) * 1e-37 * (1.0 + u.abs());
                let near = got.is_finite() && (f64::from(got) - want).abs() <= 1e-5 * want.abs() + lost;
                prop_assert!(near || want.abs() > LIMIT, "{level:?}: {got} is not silu({g})·{u}");
                let (got, y) = (run(Input::Gelu(&[gate[i]])), (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3)));
                let want = g / 2.0 * (1.0 + y.tanh());
                prop_assert!((f64::from(got) - want).abs() <= 1e-5 * want.abs() + 2e-6 * g.abs().min(20.0) + 1e-44, "{level:?}: {got} is not gelu({g})");
            }
        }
    }

    /// At the level in use: `cargo xtask test levels` runs the others.
    #[test]
    fn softmax_and_conversions(mut numbers in Numbers::any(), len in 1usize..80) {
        let x = numbers.vector(len);
        let mut weights = x.clone();
        ops::softmax(&mut weights);
        let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        prop_assert!((sum - 1.0).abs() < 1e-5, "{weights:?}");
        let (mut halves, mut brains) = (vec![f16::ZERO; len], vec![bf16::ZERO; len]);
        f32_to_f16(&x, &mut halves);
        f32_to_bf16(&x, &mut brains);
        for ((x, half), brain) in x.iter().zip(halves).zip(brains) {
            let want = f64::from(x.clamp(-65_504.0, 65_504.0));
            prop_assert!((half.to_f64() - want).abs() <= want.abs() / 2048.0 + 3.1e-8, "{half} is not {x}");
            let want = f64::from(*x);
            prop_assert!((brain.to_f64() - want).abs() <= want.abs() / 255.0 + 1e-40, "{brain} is not {x}");
        }
    }

    #[test]
    fn weights_become_blocks(mut numbers in Numbers::any(), blocks in 1usize..4) {
        let weights = numbers.vector(blocks * BLOCK);
        let (mut bytes, mut back) = (vec![0; blocks * 34], vec![f32::NAN; blocks * BLOCK]);
        quantize_q8_0(&weights, &mut bytes);
        BlockFormat::Q8_0.dequantize(&bytes, &mut back).unwrap();
        let matrix = Matrix::from_f32(1, weights.len(), &weights, WeightFormat::Q8, &ThreadPool::new(1)).unwrap();
        let mut row = vec![f32::NAN; weights.len()];
        matrix.row(0, &mut row);
        for (i, block) in weights.chunks_exact(BLOCK).enumerate() {
            let step = (largest(block) / 127.0).min(65_504.0);
            for (j, w) in block.iter().enumerate() {
                let want = f64::from(*w).clamp(-127.0 * 65_504.0, 127.0 * 65_504.0);
                let (gguf, ours) = (f64::from(back[i * BLOCK + j]), f64::from(row[i * BLOCK + j]));
                // gguf rounds scales to the nearest f16, by half of the smallest one at most, and codes before that.
                prop_assert!((gguf - want).abs() <= 0.57 * step + 127.0 * 3e-8, "{gguf} is not {w}");
                prop_assert!((ours - want).abs() <= 0.57 * step + 3e-8, "{ours} is not {w}");
            }
        }
    }
}
