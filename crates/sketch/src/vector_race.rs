//! RACE with values: sums of vectors per bucket.

use crate::bytes::{Kind, Reader, Writer};
use crate::error::{SketchError, try_table};
use crate::race::Buckets;
use crate::scale::Scale;
use crate::simhash::SimHash;
use crate::vector_count_sketch::check_dim;

/// Kernel-weighted sums of values in `rows · 2^bits` buckets, each a weight and a vector.
///
/// Adding (x, v) adds w to the weight and w · v to the vector of x's bucket in every row; a query returns the means
/// over rows in q's buckets:
///
/// `E weight(q) = Σ_i w_i k_i`, `E values(q) = Σ_i w_i k_i v_i`, with `k_i = (1 - θ(x_i, q)/π)^bits`.
///
/// Both are unbiased; their quotient is the kernel regression (the attention) of the values at q.
///
/// Source: [`Race`](crate::Race); with values, Coleman and Shrivastava, arXiv 1912.02283, section 4.
///
/// ```
/// use sketchkv_sketch::VectorRace;
///
/// let mut race = VectorRace::new(32, 4, 2, 3, 42)?;
/// race.add(&[1.0, 0.0], &[1.0, 2.0, 3.0], 0.5);
/// let mut values = [0.0; 3];
/// let weight = race.query(&[1.0, 0.0], &mut values);
/// assert_eq!((weight, values), (0.5, [0.5, 1.0, 1.5]));
/// # Ok::<(), sketchkv_sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct VectorRace {
    buckets: Buckets,
    value_dim: usize,
    /// `[rows][2^bits]`, in stored units: true = stored · scale.
    weights: Vec<f32>,
    /// `[rows][2^bits][value_dim]`, in stored units.
    sums: Vec<f32>,
    scale: Scale,
}

impl VectorRace {
    /// An empty sketch for vectors of `dim` floats with values of `value_dim` floats, with independent Gaussian
    /// directions.
    ///
    /// # Errors
    /// If `rows` is not in 1..=4096, `bits` not in 1..=24, `rows · bits` above 2^16 or `dim` or `value_dim` not in
    /// 1..=2^20, or the tables do not fit into memory.
    pub fn new(
        rows: usize,
        bits: usize,
        dim: usize,
        value_dim: usize,
        seed: u64,
    ) -> Result<Self, SketchError> {
        Self::with_buckets(Buckets::gaussian(rows, bits, dim, seed)?, value_dim)
    }

    /// An empty sketch over a hash made already, of `rows · bits` bits; sketches made from clones of one hash share
    /// its directions.
    ///
    /// # Errors
    /// If the hash does not have `rows · bits` bits, or as [`new`](Self::new).
    pub fn with_hash(rows: usize, bits: usize, hash: SimHash, value_dim: usize) -> Result<Self, SketchError> {
        Self::with_buckets(Buckets::new(rows, bits, hash)?, value_dim)
    }

    fn with_buckets(buckets: Buckets, value_dim: usize) -> Result<Self, SketchError> {
        check_dim("value_dim", value_dim)?;
        let n = buckets.rows.checked_mul(buckets.width());
        let what = || format!("{} rows of {} buckets of {value_dim}", buckets.rows, buckets.width());
        let weights = try_table(n, what)?;
        let sums = try_table(n.and_then(|n| n.checked_mul(value_dim)), what)?;
        Ok(Self { buckets, value_dim, weights, sums, scale: Scale::ONE })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.buckets.rows
    }

    /// Signs that make a bucket.
    pub fn bits(&self) -> usize {
        self.buckets.bits
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.buckets.hash.dim()
    }

    /// Length of a value.
    pub fn value_dim(&self) -> usize {
        self.value_dim
    }

    /// The hash whose signs choose the buckets.
    pub fn hash(&self) -> &SimHash {
        &self.buckets.hash
    }

    /// Exact heap footprint in bytes, the directions included: [`table_bytes`](Self::table_bytes) plus
    /// `hash().bytes()`, which sketches over clones of one hash share.
    pub fn bytes(&self) -> usize {
        self.table_bytes() + self.buckets.hash.bytes()
    }

    /// Heap bytes of the weights and sums alone.
    pub fn table_bytes(&self) -> usize {
        (self.weights.capacity() + self.sums.capacity()) * size_of::<f32>()
    }

    /// The bucket of `x` in every row, to be kept and used again with the `…_buckets` methods.
    ///
    /// # Panics
    /// If `x` is not of length `dim` or `buckets` not of length `rows`.
    pub fn buckets(&self, x: &[f32], buckets: &mut [u32]) {
        self.buckets.fill(x, buckets);
    }

    /// Adds a vector with its value and a weight.
    ///
    /// # Panics
    /// If `x` is not of length `dim` or `value` not of length `value_dim`.
    pub fn add(&mut self, x: &[f32], value: &[f32], weight: f32) {
        assert_eq!(value.len(), self.value_dim, "the value's length");
        let Self { buckets, weights, sums, .. } = self;
        let stored = weight * self.scale.inverse();
        let width = buckets.width();
        buckets.for_rows(x, |row, bucket| add(weights, sums, row * width + bucket as usize, value, stored));
    }

    /// [`add`](Self::add) for a vector whose buckets are known.
    ///
    /// # Panics
    /// If `buckets` is not of length `rows`, a bucket is not below `2^bits`, or `value` not of length `value_dim`.
    pub fn add_buckets(&mut self, buckets: &[u32], value: &[f32], weight: f32) {
        assert_eq!(value.len(), self.value_dim, "the value's length");
        let stored = weight * self.scale.inverse();
        for i in indexes(&self.buckets, buckets) {
            add(&mut self.weights, &mut self.sums, i, value, stored);
        }
    }

    /// Writes the estimated weighted sum of values at `x` into `values` and returns the estimated weight.
    ///
    /// # Panics
    /// If `x` is not of length `dim` or `values` not of length `value_dim`.
    pub fn query(&self, x: &[f32], values: &mut [f32]) -> f32 {
        assert_eq!(values.len(), self.value_dim, "the length of the output");
        values.fill(0.0);
        let (mut weight, width) = (0.0, self.buckets.width());
        self.buckets.for_rows(x, |row, bucket| weight += self.take(row * width + bucket as usize, values));
        self.mean(weight, values)
    }

    /// [`query`](Self::query) for a vector whose buckets are known.
    ///
    /// # Panics
    /// If `buckets` is not of length `rows`, a bucket is not below `2^bits`, or `values` not of length `value_dim`.
    pub fn query_buckets(&self, buckets: &[u32], values: &mut [f32]) -> f32 {
        assert_eq!(values.len(), self.value_dim, "the length of the output");
        values.fill(0.0);
        let weight = indexes(&self.buckets, buckets).map(|i| self.take(i, values)).sum();
        self.mean(weight, values)
    }

    /// The weight and the value sum of one bucket of one row, in true units: `scale · stored`.
    ///
    /// # Panics
    /// If `row` or `bucket` is out of range.
    pub fn bucket(&self, row: usize, bucket: u32) -> (f32, impl Iterator<Item = f32>) {
        assert!(row < self.rows() && (bucket as usize) < self.buckets.width(), "no such bucket");
        let (i, scale) = (row * self.buckets.width() + bucket as usize, self.scale.value());
        let sum = &self.sums[i * self.value_dim..][..self.value_dim];
        (self.weights[i] * scale, sum.iter().map(move |x| x * scale))
    }

    #[inline]
    fn take(&self, i: usize, values: &mut [f32]) -> f32 {
        let sum = &self.sums[i * self.value_dim..][..self.value_dim];
        values.iter_mut().zip(sum).for_each(|(value, x)| *value += x);
        self.weights[i]
    }

    fn mean(&self, weight: f32, values: &mut [f32]) -> f32 {
        let factor = self.scale.value() / self.rows() as f32;
        values.iter_mut().for_each(|value| *value *= factor);
        weight * factor
    }

    /// The kernel: `(1 - θ/π)^bits` for an angle θ in radians.
    pub fn kernel(&self, theta: f64) -> f64 {
        SimHash::collision_probability(theta, self.bits())
    }

    /// Multiplies everything added so far by `factor` in 0..=1 without touching the tables.
    pub fn decay(&mut self, factor: f32) {
        if let Some(shift) = self.scale.decay(factor) {
            self.weights.iter_mut().chain(&mut self.sums).for_each(|x| *x *= shift);
        }
    }

    /// Forgets everything, keeps the directions.
    pub fn clear(&mut self) {
        self.weights.fill(0.0);
        self.sums.fill(0.0);
        self.scale = Scale::ONE;
    }

    /// Adds another sketch: the result is the sketch of the two streams one after the other.
    ///
    /// # Errors
    /// If rows, bits, projection or `value_dim` differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), SketchError> {
        self.buckets.check_alike(&other.buckets)?;
        if self.value_dim != other.value_dim {
            return Err(SketchError::Incompatible { what: "value_dim" });
        }
        let factor = other.scale.value() * self.scale.inverse();
        let ours = self.weights.iter_mut().chain(&mut self.sums);
        ours.zip(other.weights.iter().chain(&other.sums)).for_each(|(x, added)| *x += factor * added);
        Ok(())
    }

    /// The sketch, its directions included, in the crate's byte format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Kind::VectorRace);
        self.buckets.write(&mut writer);
        writer.u32(self.value_dim as u32);
        writer.f32(self.scale.value());
        writer.f32s(&self.weights);
        writer.f32s(&self.sums);
        writer.finish()
    }

    /// The sketch that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, of another kind or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut reader = Reader::open(Kind::VectorRace, bytes)?;
        let sketch = Self::read(&mut reader);
        reader.close(sketch)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let buckets = Buckets::read(reader)?;
        let value_dim = reader.size()?;
        check_dim("value_dim", value_dim).ok()?;
        let scale = Scale::from_value(reader.f32()?)?;
        let n = buckets.rows * buckets.width();
        let weights = reader.f32s(n)?;
        let sums = reader.f32s(n.checked_mul(value_dim)?)?;
        Some(Self { buckets, value_dim, weights, sums, scale })
    }
}

fn add(weights: &mut [f32], sums: &mut [f32], i: usize, value: &[f32], weight: f32) {
    weights[i] += weight;
    let sum = &mut sums[i * value.len()..][..value.len()];
    sum.iter_mut().zip(value).for_each(|(x, v)| *x += weight * v);
}

/// The places of one bucket per row in a table of all rows.
fn indexes(layout: &Buckets, buckets: &[u32]) -> impl Iterator<Item = usize> {
    assert_eq!(buckets.len(), layout.rows, "one bucket per row");
    let width = layout.width();
    buckets.iter().enumerate().map(move |(row, &bucket)| {
        assert!((bucket as usize) < width, "a bucket is below 2^bits");
        row * width + bucket as usize
    })
}
