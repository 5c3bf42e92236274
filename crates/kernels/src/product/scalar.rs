//! The reference: reads like the formula.

use super::{FloatKernel, IntegerKernel, RUN, Sums};
use crate::activations::Group;
use crate::matrix::tile::{BLOCK, LANES, TileFormat};
use crate::matrix::{get_codes, get_float, get_scale};

pub(super) fn integer_kernel(format: TileFormat) -> IntegerKernel {
    match format {
        TileFormat::U4 => |tile, x, sums| integers(TileFormat::U4, tile, x, sums),
        TileFormat::U4M => |tile, x, sums| integers(TileFormat::U4M, tile, x, sums),
        TileFormat::U8 => |tile, x, sums| integers(TileFormat::U8, tile, x, sums),
        _ => |tile, x, sums| integers(TileFormat::U8M, tile, x, sums),
    }
}

pub(super) fn float_kernel(format: TileFormat) -> FloatKernel {
    match format {
        TileFormat::F16 => |tile, x, sums| floats(TileFormat::F16, tile, x, sums),
        TileFormat::BF16 => |tile, x, sums| floats(TileFormat::BF16, tile, x, sums),
        _ => |tile, x, sums| floats(TileFormat::F32, tile, x, sums),
    }
}

/// `sum = Σ_block (d·Σ (u − offset)·q + m·Σ q)·s` with weight d·(u − offset) + m and activation s·q.
fn integers(format: TileFormat, tile: &[u8], x: &Group, sums: &mut Sums) {
    sums.0.fill(0.0);
    for (b, block) in tile.chunks_exact(format.block_bytes()).enumerate() {
        for lane in 0..LANES {
            let codes = get_codes(format, block, lane);
            let (d, m) = get_scale(format, block, lane);
            for token in 0..x.tokens {
                let place = b * x.tokens + token;
                let quants = &x.quants[place * BLOCK..][..BLOCK];
                let terms = codes.iter().zip(quants).map(|(u, q)| i32::from(*u) * i32::from(*q));
                let dot = terms.sum::<i32>() + format.offset() * x.negative_sums[place];
                sums.0[token * LANES + lane] += (d * dot as f32 + m * x.sums[place]) * x.scales[place];
            }
        }
    }
}

/// `sum = Σ_col w·x`
fn floats(format: TileFormat, tile: &[u8], x: &[f32], sums: &mut Sums) {
    sums.0.fill(0.0);
    let bytes = format.block_bytes();
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
