//! No argument of safe code makes a kernel read or write beyond its slices: what does not fit is a panic, at every level.

use sketchkv_kernels::attention::codes::{CODE_PAGE, CodeQueries, code_page_bytes, code_scores};
use sketchkv_kernels::attention::layout::{
    BLOCK, Codes, Encoding, Levels, MAX_DIM, STRIP, ScaleGroup, Side, StripLayout,
};
use sketchkv_kernels::attention::{
    Queries, add_scaled, decode_keys, decode_values, dense_scores, dense_values, key_scores,
    strip_exponentials, value_sums,
};
use sketchkv_kernels::cpu::Level;
use sketchkv_kernels::half::f16;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn refused(what: &str, call: impl Fn(Level)) {
    for &level in Level::available() {
        assert!(catch_unwind(AssertUnwindSafe(|| call(level))).is_err(), "{what} is accepted at {level:?}");
    }
}

fn codes(bits: u32, levels: Levels, group: ScaleGroup, minimum: bool) -> Encoding {
    Encoding::Codes(Codes { bits, levels, group, minimum })
}

/// Strides at which the place of the last row is beyond usize, and small again when it wraps.
const WRAPPING: usize = usize::MAX / 2 + 1;

#[test]
fn layouts_that_kernels_could_not_walk_are_refused() {
    use ScaleGroup::{Block, Channel};
    let linear = Levels::Linear { offset: 8 };
    for dim in [0, 1, 16, 40, 33, MAX_DIM + BLOCK, usize::MAX / 64 * 32] {
        refused("a width", |_| _ = StripLayout::new(Side::Values, Encoding::F32, dim));
    }
    for bits in [0, 1, 5, 6, 7, 9, 16, 32] {
        refused("a number of bits", |_| {
            _ = StripLayout::new(Side::Keys, codes(bits, linear, Block, false), 64)
        });
    }
    refused("per-channel values", |_| {
        _ = StripLayout::new(Side::Values, codes(4, linear, Channel, false), 64)
    });
    refused("minima of keys", |_| _ = StripLayout::new(Side::Keys, codes(4, linear, Block, true), 64));
    for (bits, level) in [(8, 1.0), (4, f32::NAN), (4, f32::INFINITY), (4, 1e38)] {
        let encoding = codes(bits, Levels::Table([level; 16]), Block, false);
        refused("a table", |_| _ = StripLayout::new(Side::Keys, encoding, 64));
    }
}

#[test]
fn strips_queries_and_weights_that_do_not_fit_are_refused() {
    let keys = StripLayout::new(Side::Keys, Encoding::F32, 64);
    let values = StripLayout::new(Side::Values, Encoding::F32, 64);
    let bytes = vec![0; 2 * keys.strip_bytes()];
    let mut queries = Queries::default();
    queries.set(&[1.0; 3 * 64], 64);
    let mut narrow = Queries::default();
    narrow.set(&[1.0; 32], 32);
    let scores = |queries: &Queries, layout: &StripLayout, bytes: &[u8], n: usize, stride: usize| {
        let (layout, bytes, queries) = (*layout, bytes.to_vec(), queries.clone());
        move |level| key_scores(level, &layout, None, &queries, bytes[..].into(), &mut vec![0.0; n], stride)
    };
    scores(&queries, &keys, &bytes, 3 * 32, 32)(Level::Scalar);
    refused("scores too short", scores(&queries, &keys, &bytes, 3 * 32 - 1, 32));
    refused("a stride that wraps", scores(&queries, &keys, &bytes, 3 * 32, WRAPPING));
    refused("narrow queries", scores(&narrow, &keys, &bytes, 3 * 32, 32));
    refused("values for keys", scores(&queries, &values, &bytes, 3 * 32, 32));
    refused("half a strip", scores(&queries, &keys, &bytes[1..], 3 * 32, 32));

    let sums = |layout: &StripLayout, bytes: &[u8], weights: usize, stride: usize| {
        let (layout, bytes) = (*layout, bytes.to_vec());
        move |level| {
            value_sums(level, &layout, &vec![0.0; weights], stride, bytes[..].into(), &mut [0.0; 3 * 64])
        }
    };
    sums(&values, &bytes, 3 * 32, 32)(Level::Scalar);
    refused("weights too short", sums(&values, &bytes, 3 * 32 - 1, 32));
    refused("a stride that wraps", sums(&values, &bytes, 3 * 32, WRAPPING));
    refused("keys for values", sums(&keys, &bytes, 3 * 32, 32));
    refused("half a strip", sums(&values, &bytes[1..], 3 * 32, 32));

    let short = 2 * STRIP * 64 - 1;
    refused("decoded keys too short", |level| decode_keys(level, &keys, None, &bytes, &mut vec![0.0; short]));
    refused("decoded values too short", |level| decode_values(level, &values, &bytes, &mut vec![0.0; short]));
    let grid =
        StripLayout::new(Side::Keys, codes(4, Levels::Linear { offset: 8 }, ScaleGroup::Channel, false), 64);
    let strip = vec![0; grid.strip_bytes()];
    refused("a grid that is not there", |level| {
        decode_keys(level, &grid, None, &strip, &mut [0.0; STRIP * 64])
    });
    refused("a grid that is not there", |level| {
        key_scores(level, &grid, None, &queries, strip[..].into(), &mut [0.0; 3 * STRIP], STRIP);
    });
    for (n, dim) in [(40, 40), (64, 0), (65, 64)] {
        refused("queries", |_| Queries::default().set(&vec![0.0; n], dim));
    }
}

#[test]
fn dense_products_that_do_not_fit_are_refused() {
    let (queries, keys) = (vec![0.0; 3 * 64], vec![0.0; 2 * STRIP * 64]);
    let scores = |dim: usize, keys: usize, out: usize, stride: usize| {
        let queries = queries.clone();
        move |level| dense_scores(level, dim, &queries, &vec![0.0; keys], &mut vec![0.0; out], stride)
    };
    scores(64, keys.len(), 3 * 32, 32)(Level::Scalar);
    refused("no width", scores(0, keys.len(), 3 * 32, 32));
    refused("half a strip", scores(64, keys.len() - 1, 3 * 32, 32));
    refused("scores too short", scores(64, keys.len(), 3 * 32 - 1, 32));
    refused("a stride that wraps", scores(64, keys.len(), 3 * 32, WRAPPING));

    let sums = |dim: usize, weights: usize, stride: usize, values: usize, value_stride: usize| {
        move |level| {
            let (weights, values) = (vec![0.0; weights], vec![0.0; values]);
            dense_values(level, dim, &weights, stride, &values, value_stride, 3, &mut [0.0; 3 * 64]);
        }
    };
    sums(64, 9, 3, 3 * 64, 64)(Level::Scalar);
    refused("no width", sums(0, 9, 3, 3 * 64, 64));
    refused("a ragged width", sums(24, 24, 3, 3 * 64, 64));
    refused("weights too short", sums(64, 8, 3, 3 * 64, 64));
    refused("a stride that wraps", sums(64, 9, WRAPPING, 3 * 64, 64));
    refused("values too short", sums(64, 9, 3, 3 * 64 - 1, 64));
    refused("values whose stride wraps", sums(64, 9, 3, 3 * 64, WRAPPING));

    refused("sums of another length", |level| add_scaled(level, &mut [0.0; 17], 1.0, &[0.0; 16]));
    refused("half a strip", |level| _ = strip_exponentials(level, &[0.0; 17], 0.0, &mut [0.0; 1]));
}

#[test]
fn codes_that_do_not_fit_are_refused() {
    let estimates = |codes: usize, factors: usize, out: usize, stride: usize| {
        move |level| {
            let mut queries = CodeQueries::default();
            queries.set(level, &[1.0; 3 * 16], 16);
            let factors = vec![f16::ONE; factors];
            code_scores(level, &queries, &vec![0; codes], &factors, &mut vec![0.0; out], stride);
        }
    };
    let page = code_page_bytes(16);
    estimates(page, CODE_PAGE, 3 * CODE_PAGE, CODE_PAGE)(Level::Scalar);
    refused("half a page", estimates(page - 1, CODE_PAGE, 3 * CODE_PAGE, CODE_PAGE));
    refused("factors too short", estimates(page, CODE_PAGE - 1, 3 * CODE_PAGE, CODE_PAGE));
    refused("estimates too short", estimates(page, CODE_PAGE, 3 * CODE_PAGE - 1, CODE_PAGE));
    refused("a stride that wraps", estimates(page, CODE_PAGE, 3 * CODE_PAGE, WRAPPING));
    for (n, bits) in [(12, 12), (2048, 2048), (17, 16), (16, 0)] {
        refused("projections", |level| CodeQueries::default().set(level, &vec![0.0; n], bits));
    }
}
