//! The Count-Sketch.

use std::hash::Hash;

use crate::bytes::{Kind, Reader, Writer};
use crate::counter::SignedCounter;
use crate::error::SketchError;
use crate::hash::for_digests;
use crate::median::{median, median_over_rows};
use crate::params;
use crate::simd::Level;
use crate::simd::columns::LANES;
use crate::simd::places::{SignedRows, visit};
use crate::table::{Head, MAX_DEPTH, Table};

const PURPOSE: u64 = 0x0063_6f75_6e74_736b;

/// Sums per key with amounts of either sign, in `depth` rows of `width` counters: unbiased.
///
/// Row r has a column hash h_r and a sign hash s_r, both 4-wise independent. An update adds `s_r(key) · amount` to
/// C_r\[h_r(key)\], a query takes the median of the rows:
///
/// `estimate(x) = median_r s_r(x) · C_r[h_r(x)]`.
///
/// Each row alone is unbiased with variance at most `‖f‖₂² / width`; so an odd number of rows misses by more than
/// `ε ‖f‖₂` only if half of them do, each with probability at most `1 / (ε² width)`
/// ([`failure_probability`](Self::failure_probability)). The error goes with the ℓ2 norm, which on streams with a
/// long tail is far below the ℓ1 norm of a Count-Min sketch.
///
/// Source: Charikar, Chen, Farach-Colton, Finding frequent items in data streams, 2002; the norm estimate: Thorup
/// and Zhang, Tabulation based 4-universal hashing with applications to second moment estimation, 2004.
///
/// ```
/// use sketchkv_sketch::CountSketch;
///
/// let mut sketch = CountSketch::<f32>::new(512, 5, 42)?;
/// sketch.update("apple", 3.0);
/// sketch.update("apple", -1.0);
/// assert_eq!(sketch.query("apple"), 2.0);
/// # Ok::<(), sketchkv_sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CountSketch<C> {
    table: Table<C, SignedRows>,
}

impl<C: SignedCounter> CountSketch<C> {
    /// An empty sketch of `depth` rows of `width` counters. An odd depth makes the best use of its rows.
    ///
    /// # Errors
    /// If `width` is not in 1..=2^32-1 or `depth` not in 1..=64, or the table does not fit into memory.
    pub fn new(width: usize, depth: usize, seed: u64) -> Result<Self, SketchError> {
        Ok(Self { table: Table::new(width, depth, seed, PURPOSE)? })
    }

    /// An empty sketch whose estimates miss by at most `epsilon · ‖f‖₂`, but for probability `delta`; see
    /// [`params::count_sketch`].
    ///
    /// # Errors
    /// If `epsilon` or `delta` is not between 0 and 1, or no sketch is that large.
    pub fn for_error(epsilon: f64, delta: f64, seed: u64) -> Result<Self, SketchError> {
        let (width, depth) = params::count_sketch(epsilon, delta)?;
        Self::new(width, depth, seed)
    }

    /// Counters in a row.
    pub fn width(&self) -> usize {
        self.table.width
    }

    /// Number of rows.
    pub fn depth(&self) -> usize {
        self.table.depth()
    }

    /// The seed of the hash functions.
    pub fn seed(&self) -> u64 {
        self.table.seed
    }

    /// Exact heap footprint in bytes.
    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }

    #[inline]
    pub(crate) fn digest<K: Hash + ?Sized>(&self, key: &K) -> u64 {
        self.table.digest(key)
    }

    /// Adds `amount`, of either sign, to `key`. An amount that is no number counts as 0.
    #[inline]
    pub fn update<K: Hash + ?Sized>(&mut self, key: &K, amount: C) {
        self.update_hash(self.digest(key), amount);
    }

    /// Adds `amount` to a key that is a `u64` already; equal to [`update`](Self::update) with that integer.
    #[inline]
    pub fn update_hash(&mut self, key: u64, amount: C) {
        let Table { width, rows, counters, scale, .. } = &mut self.table;
        let amount = amount.admitted().scaled(scale.inverse());
        for (row, (column, negative)) in counters.chunks_exact_mut(*width).zip(rows.places(key, *width)) {
            row[column] = row[column].plus(amount.negated_if(negative));
        }
    }

    /// Adds one to every key of a slice; the same as as many calls of [`update`](Self::update), faster.
    pub fn update_batch<K: Hash>(&mut self, keys: &[K]) {
        for_digests(self.table.point, keys, |_, digests| self.add_batch(digests, |_| C::ONE));
    }

    /// Adds `amounts[i]` to `keys[i]`.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn update_batch_weighted<K: Hash>(&mut self, keys: &[K], amounts: &[C]) {
        assert_eq!(keys.len(), amounts.len(), "one amount per key");
        for_digests(self.table.point, keys, |range, digests| {
            self.update_hash_batch_weighted(digests, &amounts[range]);
        });
    }

    /// [`update_batch_weighted`](Self::update_batch_weighted) for keys that are `u64` already.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn update_hash_batch_weighted(&mut self, keys: &[u64], amounts: &[C]) {
        assert_eq!(keys.len(), amounts.len(), "one amount per key");
        self.add_batch(keys, |i| amounts[i]);
    }

    #[inline]
    fn add_batch(&mut self, keys: &[u64], amount: impl Fn(usize) -> C) {
        let Table { width, rows, counters, scale, .. } = &mut self.table;
        let (width, inverse) = (*width, scale.inverse());
        visit(Level::current(), rows, width as u32, keys, &mut |places, row, first| {
            places.for_each(&mut counters[row * width..][..width], |counter, i, negative| {
                let amount = amount(first + i).admitted().scaled(inverse);
                *counter = counter.plus(amount.negated_if(negative));
            });
        });
    }

    /// Estimates of many keys: `estimates[i] = query(&keys[i])`.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn query_batch<K: Hash>(&self, keys: &[K], estimates: &mut [C]) {
        assert_eq!(keys.len(), estimates.len(), "one estimate per key");
        for_digests(self.table.point, keys, |range, digests| {
            self.query_hash_batch(digests, &mut estimates[range]);
        });
    }

    /// [`query_batch`](Self::query_batch) for keys that are `u64` already.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn query_hash_batch(&self, keys: &[u64], estimates: &mut [C]) {
        assert_eq!(keys.len(), estimates.len(), "one estimate per key");
        let Table { width, rows, counters, scale, .. } = &self.table;
        let (width, depth) = (*width, self.depth());
        // `[key][row]`, for the keys visited at once.
        let mut values = [C::default(); LANES * MAX_DEPTH];
        visit(Level::current(), rows, width as u32, keys, &mut |places, row, first| {
            for (i, (counter, negative)) in places.read(&counters[row * width..][..width]).enumerate() {
                values[i * depth + row] = counter.negated_if(negative);
            }
            if row + 1 == depth {
                for (estimate, values) in
                    estimates[first..].iter_mut().zip(values.chunks_exact_mut(depth)).take(LANES)
                {
                    *estimate = median(values).scaled(scale.value());
                }
            }
        });
    }

    /// The estimated sum of the amounts of `key`.
    #[inline]
    pub fn query<K: Hash + ?Sized>(&self, key: &K) -> C {
        self.query_hash(self.digest(key))
    }

    /// [`query`](Self::query) for a key that is a `u64` already.
    pub fn query_hash(&self, key: u64) -> C {
        self.stored(key).scaled(self.table.scale.value())
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.table.epoch()
    }

    /// The estimate in stored units.
    pub(crate) fn stored(&self, key: u64) -> C {
        let mut estimates = [C::default(); MAX_DEPTH];
        let Table { width, rows, counters, .. } = &self.table;
        let places = rows.places(key, *width);
        for ((estimate, row), (column, negative)) in
            estimates.iter_mut().zip(counters.chunks_exact(*width)).zip(places)
        {
            *estimate = row[column].negated_if(negative);
        }
        median(&mut estimates[..self.depth()])
    }

    /// Forgets the stream, keeps the hash functions.
    pub fn clear(&mut self) {
        self.table.clear();
    }

    /// Adds another sketch: the result is the sketch of the two streams one after the other.
    ///
    /// # Errors
    /// If width, depth or seed differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), SketchError> {
        self.combine(other, false)
    }

    /// Takes another stream away: the result is the sketch of the differences.
    ///
    /// # Errors
    /// If width, depth or seed differ.
    pub fn subtract(&mut self, other: &Self) -> Result<(), SketchError> {
        self.combine(other, true)
    }

    fn combine(&mut self, other: &Self, negative: bool) -> Result<(), SketchError> {
        self.table.add(&other.table, |counter| counter.admitted().negated_if(negative))?;
        Ok(())
    }

    /// The estimated ℓ2 norm of the stream, `√(Σ f(x)²)`: the median over rows of the row's own norm, whose square
    /// is unbiased with variance at most `2 ‖f‖₂⁴ / width`.
    pub fn l2_norm(&self) -> f64 {
        median_over_rows(self.table.row_products(&self.table)).sqrt() * f64::from(self.table.scale.value())
    }

    /// The probability, at most, that an estimate misses by more than `epsilon · ‖f‖₂`; see
    /// [`params::count_sketch_failure`].
    pub fn failure_probability(&self, epsilon: f64) -> f64 {
        params::count_sketch_failure(self.width(), self.depth(), epsilon)
    }

    /// The standard error of one row's estimate, estimated: `‖f‖₂ / √width`.
    pub fn standard_error(&self) -> f64 {
        self.l2_norm() / (self.width() as f64).sqrt()
    }

    /// The estimated inner product `Σ_x f(x) g(x)` of two streams, unbiased in each row.
    ///
    /// # Errors
    /// If width, depth or seed differ.
    pub fn inner_product(&self, other: &Self) -> Result<f64, SketchError> {
        self.table.factor_from(&other.table)?;
        let product = median_over_rows(self.table.row_products(&other.table));
        Ok(product * f64::from(self.table.scale.value()) * f64::from(other.table.scale.value()))
    }

    /// The sketch in the crate's byte format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Kind::CountSketch);
        writer.u8(C::CODE);
        self.table.write_head(&mut writer);
        self.table.write_counters(&mut writer);
        writer.finish()
    }

    /// The sketch that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, of another kind, of other counters or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut reader = Reader::open(Kind::CountSketch, bytes)?;
        let sketch = Self::read(&mut reader);
        reader.close(sketch)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        (reader.u8()? == C::CODE).then_some(())?;
        let head = Head::read(reader)?;
        Some(Self { table: Table::read(head, PURPOSE, reader, |_| true)? })
    }
}

impl CountSketch<f32> {
    /// Multiplies everything counted so far by `factor` in 0..=1 without touching the table.
    pub fn decay(&mut self, factor: f32) {
        self.table.decay(factor);
    }
}
