//! The Count-Sketch.

use std::hash::Hash;

use crate::bytes::{Kind, Reader, Writer};
use crate::count_min::{MAX_DEPTH, check_dimensions};
use crate::counter::SignedCounter;
use crate::error::{SketchError, try_table};
use crate::hash::{CubicHash, LinearHash, digest, digest_point};
use crate::median::median;
use crate::params;
use crate::random::Random;
use crate::scale::{Epoch, Scale};
use crate::simd::Level;
use crate::simd::columns::LANES;
use crate::simd::places::{SignedRows, visit};

/// Keys digested at once by the batch forms.
const BATCH: usize = 256;

impl SignedRows {
    pub(crate) fn new(depth: usize, seed: u64, purpose: u64) -> Self {
        let mut random = Random::new(seed, purpose);
        let fold = LinearHash::new(&mut random);
        Self { fold, rows: (0..depth).map(|_| CubicHash::new(&mut random)).collect() }
    }

    pub(crate) fn depth(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<CubicHash>()
    }
}

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
    width: usize,
    seed: u64,
    point: u64,
    rows: SignedRows,
    /// `[depth][width]`, in stored units: true = stored · scale.
    table: Vec<C>,
    scale: Scale,
    epoch: Epoch,
}

impl<C: SignedCounter> CountSketch<C> {
    /// An empty sketch of `depth` rows of `width` counters. An odd depth makes the best use of its rows.
    ///
    /// # Errors
    /// If `width` is not in 1..=2^32-1 or `depth` not in 1..=64, or the table does not fit into memory.
    pub fn new(width: usize, depth: usize, seed: u64) -> Result<Self, SketchError> {
        check_dimensions(width, depth)?;
        let table = try_table(width.checked_mul(depth), || format!("{depth} rows of {width} counters"))?;
        Ok(Self::with_table(width, depth, seed, table))
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

    fn with_table(width: usize, depth: usize, seed: u64, table: Vec<C>) -> Self {
        Self {
            width,
            seed,
            point: digest_point(seed),
            rows: SignedRows::new(depth, seed, 0x0063_6f75_6e74_736b),
            table,
            scale: Scale::ONE,
            epoch: Epoch::default(),
        }
    }

    /// Counters in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn depth(&self) -> usize {
        self.rows.depth()
    }

    /// The seed of the hash functions.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Exact heap footprint in bytes.
    pub fn bytes(&self) -> usize {
        self.table.capacity() * size_of::<C>() + self.rows.bytes()
    }

    #[inline]
    pub(crate) fn digest<K: Hash + ?Sized>(&self, key: &K) -> u64 {
        digest(self.point, key)
    }

    /// Adds `amount`, of either sign, to `key`. An amount that is no number counts as 0.
    #[inline]
    pub fn update<K: Hash + ?Sized>(&mut self, key: &K, amount: C) {
        self.update_hash(self.digest(key), amount);
    }

    /// Adds `amount` to a key that is a `u64` already; equal to [`update`](Self::update) with that integer.
    #[inline]
    pub fn update_hash(&mut self, key: u64, amount: C) {
        let amount = amount.admitted().scaled(self.scale.inverse());
        let places = self.rows.places(key, self.width);
        for (row, (column, negative)) in self.table.chunks_exact_mut(self.width).zip(places) {
            row[column] = row[column].plus(amount.negated_if(negative));
        }
    }

    /// Adds one to every key of a slice; the same as as many calls of [`update`](Self::update), faster.
    pub fn update_batch<K: Hash>(&mut self, keys: &[K]) {
        let mut hashes = [0; BATCH];
        for keys in keys.chunks(BATCH) {
            let hashes = self.digests(keys, &mut hashes);
            self.add_batch(hashes, |_| C::ONE);
        }
    }

    /// Adds `amounts[i]` to `keys[i]`.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn update_batch_weighted<K: Hash>(&mut self, keys: &[K], amounts: &[C]) {
        assert_eq!(keys.len(), amounts.len(), "one amount per key");
        let mut hashes = [0; BATCH];
        for (keys, amounts) in keys.chunks(BATCH).zip(amounts.chunks(BATCH)) {
            let hashes = self.digests(keys, &mut hashes);
            self.add_batch(hashes, |i| amounts[i]);
        }
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
        let inverse = self.scale.inverse();
        visit(Level::current(), &self.rows, self.width as u32, keys, &mut |places, row, first| {
            places.for_each(&mut self.table[row * self.width..][..self.width], |counter, i, negative| {
                let amount = amount(first + i).admitted().scaled(inverse);
                *counter = counter.plus(amount.negated_if(negative));
            });
        });
    }

    fn digests<'a, K: Hash>(&self, keys: &[K], hashes: &'a mut [u64; BATCH]) -> &'a [u64] {
        let hashes = &mut hashes[..keys.len()];
        hashes.iter_mut().zip(keys).for_each(|(hash, key)| *hash = self.digest(key));
        hashes
    }

    /// Estimates of many keys: `estimates[i] = query(&keys[i])`.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn query_batch<K: Hash>(&self, keys: &[K], estimates: &mut [C]) {
        assert_eq!(keys.len(), estimates.len(), "one estimate per key");
        let mut hashes = [0; BATCH];
        for (keys, estimates) in keys.chunks(BATCH).zip(estimates.chunks_mut(BATCH)) {
            self.query_hash_batch(self.digests(keys, &mut hashes), estimates);
        }
    }

    /// [`query_batch`](Self::query_batch) for keys that are `u64` already.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn query_hash_batch(&self, keys: &[u64], estimates: &mut [C]) {
        assert_eq!(keys.len(), estimates.len(), "one estimate per key");
        let depth = self.depth();
        // `[key][row]`, for the keys visited at once.
        let mut values = [C::default(); LANES * MAX_DEPTH];
        visit(Level::current(), &self.rows, self.width as u32, keys, &mut |places, row, first| {
            for (i, (counter, negative)) in
                places.read(&self.table[row * self.width..][..self.width]).enumerate()
            {
                values[i * depth + row] = counter.negated_if(negative);
            }
            if row + 1 == depth {
                for (estimate, values) in
                    estimates[first..].iter_mut().zip(values.chunks_exact_mut(depth)).take(LANES)
                {
                    *estimate = median(values).scaled(self.scale.value());
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
        self.stored(key).scaled(self.scale.value())
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.number()
    }

    /// The estimate in stored units.
    pub(crate) fn stored(&self, key: u64) -> C {
        let mut estimates = [C::default(); MAX_DEPTH];
        let places = self.rows.places(key, self.width);
        for ((estimate, row), (column, negative)) in
            estimates.iter_mut().zip(self.table.chunks_exact(self.width)).zip(places)
        {
            *estimate = row[column].negated_if(negative);
        }
        median(&mut estimates[..self.depth()])
    }

    /// Forgets the stream, keeps the hash functions.
    pub fn clear(&mut self) {
        self.table.fill(C::default());
        self.epoch.advance();
        self.scale = Scale::ONE;
    }

    fn check_alike(&self, other: &Self) -> Result<(), SketchError> {
        let what = if self.width != other.width {
            "width"
        } else if self.depth() != other.depth() {
            "depth"
        } else if self.seed != other.seed {
            "seed"
        } else {
            return Ok(());
        };
        Err(SketchError::Incompatible { what })
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
        self.check_alike(other)?;
        let factor = other.scale.value() * self.scale.inverse();
        for (counter, &added) in self.table.iter_mut().zip(&other.table) {
            *counter = counter.plus(added.admitted().negated_if(negative).scaled(factor));
        }
        self.epoch.advance();
        Ok(())
    }

    /// The estimated ℓ2 norm of the stream, `√(Σ f(x)²)`: the median over rows of the row's own norm, whose square
    /// is unbiased with variance at most `2 ‖f‖₂⁴ / width`.
    pub fn l2_norm(&self) -> f64 {
        let squares = self.row_products(self);
        squares.max(0.0).sqrt() * f64::from(self.scale.value())
    }

    /// The probability, at most, that an estimate misses by more than `epsilon · ‖f‖₂`; see
    /// [`params::count_sketch_failure`].
    pub fn failure_probability(&self, epsilon: f64) -> f64 {
        params::count_sketch_failure(self.width, self.depth(), epsilon)
    }

    /// The standard error of one row's estimate, estimated: `‖f‖₂ / √width`.
    pub fn standard_error(&self) -> f64 {
        self.l2_norm() / (self.width as f64).sqrt()
    }

    /// The estimated inner product `Σ_x f(x) g(x)` of two streams, unbiased in each row.
    ///
    /// # Errors
    /// If width, depth or seed differ.
    pub fn inner_product(&self, other: &Self) -> Result<f64, SketchError> {
        self.check_alike(other)?;
        let product = self.row_products(other);
        Ok(product * f64::from(self.scale.value()) * f64::from(other.scale.value()))
    }

    /// Median over rows of `Σ_j A_r[j] B_r[j]`, in stored units.
    fn row_products(&self, other: &Self) -> f64 {
        let rows = self.table.chunks_exact(self.width).zip(other.table.chunks_exact(self.width));
        let mut products: Vec<f64> =
            rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a.to_f64() * b.to_f64()).sum()).collect();
        products.sort_by(f64::total_cmp);
        let n = products.len();
        f64::midpoint(products[(n - 1) / 2], products[n / 2])
    }

    /// The sketch in the crate's byte format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Kind::CountSketch);
        writer.u8(C::CODE);
        writer.u32(self.width as u32);
        writer.u32(self.depth() as u32);
        writer.u64(self.seed);
        writer.f32(self.scale.value());
        for &counter in &self.table {
            counter.write(&mut writer);
        }
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
        let (width, depth) = (reader.size()?, reader.size()?);
        check_dimensions(width, depth).ok()?;
        let seed = reader.u64()?;
        let scale = Scale::from_value(reader.f32()?)?;
        let n = width.checked_mul(depth).filter(|&n| reader.holds(n, size_of::<C>()))?;
        let mut table = Vec::with_capacity(n);
        for _ in 0..n {
            table.push(C::read(reader)?);
        }
        Some(Self { scale, ..Self::with_table(width, depth, seed, table) })
    }
}

impl CountSketch<f32> {
    /// Multiplies everything counted so far by `factor` in 0..=1 without touching the table.
    pub fn decay(&mut self, factor: f32) {
        if let Some(shift) = self.scale.decay(factor) {
            for counter in &mut self.table {
                *counter *= shift;
            }
            self.epoch.advance();
        }
    }
}
