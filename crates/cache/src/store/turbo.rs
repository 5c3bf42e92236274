use super::{Store, Turn, to_f16};
use crate::method::{Call, Choice, Method};
use sketchkv_kernels::Scale;
use sketchkv_kernels::attention::layout::{Codes, Encoding, Levels, ScaleGroup, Side, nearest};
use std::sync::{Mutex, PoisonError};

macro_rules! turbo {
    ($method:ident, $build:ident, $bits:literal, $name:literal, $state:literal) => {
        pub(super) static $method: Method = Method {
            name: $name,
            choice: Choice::Store,
            summary: concat!("TurboQuant: a rotated vector's coordinates to the best ", $bits, "-bit codebook"),
            formula: "n = ‖x‖, y = H·S·x·√d/n, u_j = nearest Lloyd-Max level of y_j; x̂ = n/√d · Sᵀ·Hᵀ·level(u)",
            state: $state,
            paper: "TurboQuant, arXiv 2504.19874",
            differs: "The MSE variant: no QJL residual, which raises the variance under softmax; \
                 random signs and Hadamard in place of a dense random rotation. The newest 16 to 64 tokens of a head \
                 wait in f16.",
            parameters: &[],
        };

        pub(super) fn $build(_: &Call, dim: usize) -> Box<dyn Store> {
            Box::new(Turbo::new($bits, dim))
        }
    };
}

turbo!(TQ4, tq4, 4, "tq4", "4 bits a value + 16 a vector");
turbo!(TQ3, tq3, 3, "tq3", "3 bits a value + 16 a vector");
turbo!(TQ2, tq2, 2, "tq2", "2 bits a value + 16 a vector");

/// Codes of 2 to 4 bits, of the best codebook, or of 8 bits, evenly spaced.
pub(super) struct Turbo {
    bits: u32,
    table: [f32; 16],
    /// √d
    root: f64,
    /// Whether the scale is the one at which a vector's product with what comes back is its square, in place of the vector's
    /// own: the best levels are means of what they stand for, and shrink it. One vector is nearer for that, but in the sum
    /// that attention makes of many the errors cancel out, and what all have shrunk by stays.
    unbiased: bool,
}

impl Turbo {
    pub(super) fn new(bits: u32, dim: usize) -> Self {
        let table = if bits == 8 { [0.0; 16] } else { kept_codebook(bits, dim) };
        Turbo { bits, table, root: (dim as f64).sqrt(), unbiased: false }
    }

    /// The same codes, with the scale that does not shrink what they stand for.
    pub(super) fn unbiased(self) -> Self {
        Turbo { unbiased: true, ..self }
    }
}

/// [`codebook`], computed once: every layer of every cache has one for each of its rungs.
fn kept_codebook(bits: u32, dim: usize) -> [f32; 16] {
    type Kept = Vec<((u32, usize), [f32; 16])>;
    static KEPT: Mutex<Kept> = Mutex::new(vec![]);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, table)) = kept.iter().find(|(of, _)| *of == (bits, dim)) {
        return *table;
    }
    let table = codebook(bits, dim);
    kept.push(((bits, dim), table));
    table
}

/// Lloyd-Max levels, ascending, of √d·y for y one coordinate of a uniform unit vector of d dimensions.
///
/// Its density is proportional to (1 − y²)^((d−3)/2); the levels are the fixed point of "each level is the mean of its
/// cell, cells end half-way between levels", iterated on a fine grid.
pub(crate) fn codebook(bits: u32, dim: usize) -> [f32; 16] {
    let levels = 1usize << bits;
    let (points, reach) = (4001, 5.0f64.min((dim as f64).sqrt()));
    let grid: Vec<(f64, f64)> = (0..points)
        .map(|i| {
            let x = reach * (2.0 * i as f64 / (points - 1) as f64 - 1.0);
            (x, (1.0 - x * x / dim as f64).max(0.0).powf((dim as f64 - 3.0) / 2.0))
        })
        .collect();
    let mut table: Vec<f64> = (0..levels).map(|i| 3.0 * ((2 * i + 1) as f64 / levels as f64 - 1.0)).collect();
    for _ in 0..300 {
        let mut cells = vec![(0.0, 0.0); levels];
        let mut cell = 0;
        for &(x, density) in &grid {
            while cell + 1 < levels && x > (table[cell] + table[cell + 1]) / 2.0 {
                cell += 1;
            }
            cells[cell].0 += x * density;
            cells[cell].1 += density;
        }
        for (level, (sum, weight)) in table.iter_mut().zip(cells) {
            if weight > 0.0 {
                *level = sum / weight;
            }
        }
    }
    std::array::from_fn(|i| table.get(i).map_or(0.0, |&level| level as f32))
}

impl Store for Turbo {
    fn encoding(&self, _: Side) -> Encoding {
        let levels = if self.bits == 8 { Levels::Linear { offset: 128 } } else { Levels::Table(self.table) };
        Encoding::Codes(Codes { bits: self.bits, levels, group: ScaleGroup::Slot, minimum: false })
    }

    fn turn(&self, _: Side) -> Turn {
        Turn::SignedHadamard
    }

    fn quantize(&self, x: &[f32], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        if self.bits == 8 {
            let largest = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let Scale { scale, inverse } = Scale::in_f16(largest, 127.0);
            scales[0] = scale;
            codes.iter_mut().zip(x).for_each(|(code, x)| *code = (nearest(x * inverse) + 128) as u8);
            return;
        }
        // Squares of f32 have room in f64. Vectors are whole blocks of lanes.
        let rows = x.as_chunks::<LANES>().0;
        let square = squares(rows);
        let Scale { scale, inverse } = Scale::in_f16((square.sqrt() / self.root) as f32, 1.0);
        scales[0] = scale;
        let levels = &self.table[..1 << self.bits];
        for (codes, row) in codes.as_chunks_mut::<LANES>().0.iter_mut().zip(rows) {
            let mut units = [0u32; LANES];
            for pair in levels.windows(2) {
                let bound = (pair[0] + pair[1]) / 2.0;
                units.iter_mut().zip(row).for_each(|(unit, x)| *unit += u32::from(x * inverse > bound));
            }
            codes.iter_mut().zip(units).for_each(|(code, unit)| *code = unit as u8);
        }
        if self.unbiased {
            // The scale is taken out before products are summed: they have no room otherwise.
            let mut products = [0.0f32; LANES];
            for (codes, row) in codes.as_chunks::<LANES>().0.iter().zip(rows) {
                for (lane, (&code, x)) in codes.iter().zip(row).enumerate() {
                    products[lane] += x * inverse * levels[usize::from(code)];
                }
            }
            // Of nothing but zeros, which have no product, the scale is 0 anyway.
            let product = products.iter().sum::<f32>().max(f32::MIN_POSITIVE);
            scales[0] = to_f16(scale * ((square * f64::from(inverse).powi(2)) as f32 / product));
        }
    }
}

/// Numbers that are summed side by side.
const LANES: usize = 16;

/// The sum of the squares.
fn squares(rows: &[[f32; LANES]]) -> f64 {
    let mut lanes = [0.0; LANES];
    for row in rows {
        lanes.iter_mut().zip(row).for_each(|(lane, x)| *lane += f64::from(*x).powi(2));
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Product of a vector with what comes back of it, as a share of its square; and the same of the squared error.
    fn product_and_error(store: &Turbo, x: &[f32]) -> [f32; 2] {
        let (mut codes, mut scales) = (vec![0; x.len()], [0.0]);
        store.quantize(x, &mut codes, &mut scales, &mut []);
        let Encoding::Codes(layout) = store.encoding(Side::Values) else { unreachable!("codes") };
        let back: Vec<f32> = codes.iter().map(|&code| scales[0] * layout.level(code)).collect();
        let sum =
            |f: &dyn Fn(f32, f32) -> f32| x.iter().zip(&back).map(|(x, back)| f(*x, *back)).sum::<f32>();
        let square = sum(&|x, _| x * x);
        [sum(&|x, back| x * back) / square, sum(&|x, back| (x - back).powi(2)) / square]
    }

    #[test]
    fn unbiased_scales_do_not_shrink() {
        let mut random = sketchkv_sketch::SplitMix64::new(5);
        let mut normal = || (0..12).map(|_| random.unit() as f32).sum::<f32>() - 6.0;
        for bits in [2, 3, 4] {
            let (paper, ours) = (Turbo::new(bits, 64), Turbo::new(bits, 64).unbiased());
            let (mut shrunk, mut errors) = (0.0, [0.0; 2]);
            for _ in 0..64 {
                let x: Vec<f32> = (0..64).map(|_| 3.0 * normal()).collect();
                let ([of_paper, error], [product, own]) =
                    (product_and_error(&paper, &x), product_and_error(&ours, &x));
                assert!((product - 1.0).abs() < 2e-3, "{bits} bits: {product}");
                shrunk += (1.0 - of_paper) / 64.0;
                errors = [errors[0] + error / 64.0, errors[1] + own / 64.0];
            }
            assert!(shrunk > errors[0] / 4.0, "{bits} bits: {shrunk}, {errors:?}");
            assert!(errors[1] < 1.05 * errors[0] / (1.0 - errors[0]), "{bits} bits: {errors:?}");
        }
        let (mut codes, mut scales) = (vec![0; 64], [1.0]);
        Turbo::new(3, 64).unbiased().quantize(&[0.0; 64], &mut codes, &mut scales, &mut []);
        assert_eq!(scales, [0.0]);
    }
}
