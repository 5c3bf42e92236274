//! The reference: reads like the formula.

use super::{FloatKernel, IntegerKernel, RUN, Sums, instance};
use crate::activations::Group;
use crate::matrix::tile::{BLOCK, IntegerFormat, LANES, Layout, TileFormat, for_layout};
use crate::matrix::{get_float, get_scales, get_units};

pub(super) fn integer_kernel(format: IntegerFormat) -> IntegerKernel {
    for_layout!(format, instance!(integers))
}

pub(super) fn float_kernel(format: TileFormat) -> FloatKernel {
    match format {
        TileFormat::F16 => |tile, x, sums| floats(TileFormat::F16, tile, x, sums),
        TileFormat::BF16 => |tile, x, sums| floats(TileFormat::BF16, tile, x, sums),
        _ => |tile, x, sums| floats(TileFormat::F32, tile, x, sums),
    }
}

/// `sum = Σ_block Σ_half (d·Σ (u − offset)·q + m·Σ q)·s` with weight d·(u − offset) + m and activation s·q.
fn integers<L: Layout>(tile: &[u8], x: &Group, sums: &mut Sums) {
    sums.0.fill(0.0);
    let (format, affine) = (L::FORMAT, L::SCALES.are_affine());
    for block in 0..format.blocks(tile.len()) {
        for lane in 0..LANES {
            let units = get_units(format, tile, block, lane);
            let scales = get_scales(format, tile, block, lane);
            for token in 0..x.tokens {
                let place = block * x.tokens + token;
                let digits = &x.quants[place * x.digits * BLOCK..][..x.digits * BLOCK];
                let quants: [i32; BLOCK] = std::array::from_fn(|i| {
                    digits
                        .iter()
                        .skip(i)
                        .step_by(BLOCK)
                        .fold(0, |quant, digit| 256 * quant + i32::from(*digit))
                });
                let halves = units.chunks_exact(BLOCK / 2).zip(quants.chunks_exact(BLOCK / 2)).enumerate();
                let mut products = 0.0;
                for (half, (units, quants)) in halves {
                    let (d, m) = scales[half];
                    let minus = x.negative_halves[place][half];
                    let dot: i32 = units.iter().zip(quants).map(|(u, q)| i32::from(*u) * *q).sum();
                    let dot = if affine { dot } else { dot + (minus << format.codes().offset_bits()) };
                    products += d * dot as f32 - m * minus as f32;
                }
                sums.0[token * LANES + lane] += products * x.scales[place];
            }
        }
    }
}

/// `sum = Σ_col w·x`
fn floats(format: TileFormat, tile: &[u8], x: &[f32], sums: &mut Sums) {
    sums.0.fill(0.0);
    let bytes = format.column_bytes();
    let cols = tile.len() / bytes;
    for (run, blocks) in tile.chunks(RUN * bytes).enumerate() {
        for lane in 0..LANES {
            let mut weights = [0.0; RUN];
            for (weight, block) in weights.iter_mut().zip(blocks.chunks_exact(bytes)) {
                *weight = get_float(format, block, lane);
            }
            for (token, x) in x.chunks_exact(cols).enumerate() {
                let terms = weights.iter().zip(&x[run * RUN..]).map(|(w, x)| w * x);
                sums.0[token * LANES + lane] += terms.sum::<f32>();
            }
        }
    }
}
