//! The Count-Min sketch.

use std::hash::Hash;

use crate::bytes::{Kind, Reader, Writer};
use crate::counter::Counter;
use crate::error::SketchError;
use crate::hash::{LinearHash, column, for_digests, scramble};
use crate::params;
use crate::simd::Level;
use crate::simd::columns::{for_each_counter, least_counters};
use crate::table::{Head, MAX_DEPTH, Table};

const PURPOSE: u64 = 0x636f_756e_746d_696e;

/// Counts per key in `depth` rows of `width` counters, never too few.
///
/// Row r has a hash function h_r drawn from a universal family and counters C_r. An update adds the amount to
/// C_r\[h_r(key)\] of every row, a query takes the least of them:
///
/// `estimate(x) = min_r C_r[h_r(x)]`, and `f(x) ≤ estimate(x)`, and
/// `estimate(x) ≤ f(x) + (e / width) · ‖f‖₁` with probability at least `1 - e^-depth` over the seed,
///
/// where `f(x)` is the true sum of the amounts of `x` and `‖f‖₁` the sum of all amounts. Amounts are not negative;
/// one that is (or is no number) counts as 0. Integer counters stop at the end of their range instead of wrapping;
/// `f32` counters round, as sums of floats do.
///
/// Source: Cormode and Muthukrishnan, An improved data stream summary: the Count-Min sketch and its applications,
/// Journal of Algorithms 55, 2005. Conservative update: Estan and Varghese, 2002.
///
/// ```
/// use sketchkv_sketch::CountMin;
///
/// let mut sketch = CountMin::<u64>::new(512, 4, 42)?;
/// sketch.update("apple", 3);
/// sketch.update("pear", 1);
/// assert!(sketch.query("apple") >= 3);
/// assert_eq!(sketch.total(), 4.0);
/// # Ok::<(), sketchkv_sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CountMin<C> {
    table: Table<C, Vec<LinearHash>>,
    /// Sum of all amounts, in stored units.
    total: f64,
    /// Why the table is no longer a linear function of the stream, if it is not.
    nonlinear: Option<Nonlinear>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Nonlinear {
    Conservative = 1,
    Halved = 2,
}

impl Nonlinear {
    fn cause(self) -> &'static str {
        match self {
            Self::Conservative => "conservative updates",
            Self::Halved => "integer counters halved",
        }
    }
}

impl<C: Counter> CountMin<C> {
    /// An empty sketch of `depth` rows of `width` counters.
    ///
    /// # Errors
    /// If `width` is not in 1..=2^32-1 or `depth` not in 1..=64, or the table does not fit into memory.
    pub fn new(width: usize, depth: usize, seed: u64) -> Result<Self, SketchError> {
        Ok(Self { table: Table::new(width, depth, seed, PURPOSE)?, total: 0.0, nonlinear: None })
    }

    /// An empty sketch whose estimates are too large by at most `epsilon · ‖f‖₁`, but for probability `delta`; see
    /// [`params::count_min`].
    ///
    /// # Errors
    /// If `epsilon` or `delta` is not between 0 and 1, or no sketch is that large.
    pub fn for_error(epsilon: f64, delta: f64, seed: u64) -> Result<Self, SketchError> {
        let (width, depth) = params::count_min(epsilon, delta)?;
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

    /// The sum of all amounts, ‖f‖₁, decayed and halved with the counters.
    pub fn total(&self) -> f64 {
        self.total * f64::from(self.table.scale.value())
    }

    /// Exact heap footprint in bytes.
    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }

    #[inline]
    pub(crate) fn digest<K: Hash + ?Sized>(&self, key: &K) -> u64 {
        self.table.digest(key)
    }

    /// Adds `amount` to `key`.
    #[inline]
    pub fn update<K: Hash + ?Sized>(&mut self, key: &K, amount: C) {
        self.update_hash(self.digest(key), amount);
    }

    /// Adds `amount` to a key that is a `u64` already. Equal to [`update`](Self::update) with that integer; any
    /// 64-bit values will do, they need not be mixed.
    #[inline]
    pub fn update_hash(&mut self, key: u64, amount: C) {
        let amount = amount.admitted();
        self.total += amount.to_f64() * f64::from(self.table.scale.inverse());
        let (amount, key) = (amount.scaled(self.table.scale.inverse()), scramble(key));
        let Table { width, rows, counters, .. } = &mut self.table;
        for (row, hash) in counters.chunks_exact_mut(*width).zip(rows) {
            let counter = &mut row[column(hash.hash(key), *width as u32) as usize];
            *counter = counter.plus(amount);
        }
    }

    /// Adds one to every key of a slice; the same as as many calls of [`update`](Self::update), faster.
    pub fn update_batch<K: Hash>(&mut self, keys: &[K]) {
        for_digests(self.table.point, keys, |_, digests| self.update_hash_batch(digests));
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

    /// [`update_batch`](Self::update_batch) for keys that are `u64` already.
    pub fn update_hash_batch(&mut self, keys: &[u64]) {
        self.total += keys.len() as f64 * f64::from(self.table.scale.inverse());
        let amount = C::ONE.scaled(self.table.scale.inverse());
        if C::holds(self.total) {
            self.for_counters(keys, |counter, _| *counter = counter.plus_within(amount));
        } else {
            self.for_counters(keys, |counter, _| *counter = counter.plus(amount));
        }
    }

    /// [`update_batch_weighted`](Self::update_batch_weighted) for keys that are `u64` already.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn update_hash_batch_weighted(&mut self, keys: &[u64], amounts: &[C]) {
        assert_eq!(keys.len(), amounts.len(), "one amount per key");
        let inverse = self.table.scale.inverse();
        let sum: f64 = amounts.iter().map(|amount| amount.admitted().to_f64()).sum();
        self.total += sum * f64::from(inverse);
        self.for_counters(keys, |counter, i| *counter = counter.plus(amounts[i].admitted().scaled(inverse)));
    }

    /// Raises `key` by `amount`, and each of its counters only as far as the new estimate needs.
    ///
    /// Estimates stay upper bounds and come closer, at the price of linearity: afterwards
    /// [`subtract`](Self::subtract) and [`inner_product`](Self::inner_product) are refused.
    pub fn update_conservative<K: Hash + ?Sized>(&mut self, key: &K, amount: C) {
        self.update_hash_conservative(self.digest(key), amount);
    }

    /// [`update_conservative`](Self::update_conservative) for a key that is a `u64` already.
    pub fn update_hash_conservative(&mut self, key: u64, amount: C) {
        let amount = amount.admitted();
        self.total += amount.to_f64() * f64::from(self.table.scale.inverse());
        self.nonlinear.get_or_insert(Nonlinear::Conservative);
        let key = scramble(key);
        let Table { width, rows, counters, scale, .. } = &mut self.table;
        let mut places = [0; MAX_DEPTH];
        for ((place, hash), row) in places.iter_mut().zip(&*rows).zip(0..) {
            *place = row * *width + column(hash.hash(key), *width as u32) as usize;
        }
        let places = &places[..rows.len()];
        let met = places.iter().map(|&place| counters[place]);
        let least = met.reduce(|a, b| if b < a { b } else { a }).unwrap_or_default();
        let target = least.plus(amount.scaled(scale.inverse()));
        for &place in places {
            if counters[place] < target {
                counters[place] = target;
            }
        }
    }

    /// An upper bound on the sum of the amounts of `key`.
    #[inline]
    pub fn query<K: Hash + ?Sized>(&self, key: &K) -> C {
        self.query_hash(self.digest(key))
    }

    /// [`query`](Self::query) for a key that is a `u64` already.
    #[inline]
    pub fn query_hash(&self, key: u64) -> C {
        self.stored(key).scaled(self.table.scale.value())
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.table.epoch()
    }

    /// The estimate in stored units.
    #[inline]
    pub(crate) fn stored(&self, key: u64) -> C {
        let key = scramble(key);
        let Table { width, rows, counters, .. } = &self.table;
        let mut rows = counters.chunks_exact(*width).zip(rows);
        let at = |(row, hash): (&[C], &LinearHash)| row[column(hash.hash(key), *width as u32) as usize];
        let first = rows.next().map(at).unwrap_or_default();
        rows.map(at).fold(first, |least, counter| if counter < least { counter } else { least })
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
        least_counters(Level::current(), rows, *width as u32, counters, keys, estimates);
        for estimate in estimates {
            *estimate = estimate.scaled(scale.value());
        }
    }

    /// Calls `f(counter, i)` for the counter of every key i in every row.
    #[inline]
    fn for_counters(&mut self, keys: &[u64], f: impl FnMut(&mut C, usize)) {
        let Table { width, rows, counters, .. } = &mut self.table;
        for_each_counter(Level::current(), rows, *width as u32, counters, keys, f);
    }

    /// Halves every counter (and the total): the ageing of TinyLFU. Integers round down, which ends linearity.
    ///
    /// Source: Einziger, Friedman, Manes, TinyLFU, arXiv 1512.00727.
    pub fn halve(&mut self) {
        if !C::is_float() {
            self.nonlinear.get_or_insert(Nonlinear::Halved);
        }
        self.table.map(C::halved);
        self.total *= 0.5;
    }

    /// Forgets the stream, keeps the hash functions.
    pub fn clear(&mut self) {
        self.table.clear();
        self.total = 0.0;
        self.nonlinear = None;
    }

    fn check_linear(&self, operation: &'static str) -> Result<(), SketchError> {
        let cause = match self.nonlinear {
            Some(nonlinear) => nonlinear.cause(),
            None if self.table.counters.iter().any(|counter| counter.is_saturated()) => {
                "a counter at the end of its range"
            }
            None => return Ok(()),
        };
        Err(SketchError::NotLinear { operation, cause })
    }

    /// Adds another sketch: the result is the sketch of the two streams one after the other. Where conservative
    /// updates were used, estimates stay upper bounds.
    ///
    /// # Errors
    /// If width, depth or seed differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), SketchError> {
        let factor = self.table.add(&other.table, |counter| counter)?;
        self.total += other.total * f64::from(factor);
        self.nonlinear = self.nonlinear.or(other.nonlinear);
        Ok(())
    }

    /// Takes a part of the stream away: the result is the sketch of the rest. `other` must have been fed with
    /// nothing that this sketch was not fed with too.
    ///
    /// # Errors
    /// If width, depth or seed differ; if either sketch is no longer linear (conservative updates, halved
    /// integers, a saturated counter); if a counter would become negative. Nothing is changed then.
    pub fn subtract(&mut self, other: &Self) -> Result<(), SketchError> {
        let factor = self.table.factor_from(&other.table)?;
        self.check_linear("subtraction")?;
        other.check_linear("subtraction")?;
        let pairs = self.table.counters.iter().zip(&other.table.counters);
        let difference: Option<Vec<C>> = pairs.map(|(a, b)| a.minus(b.scaled(factor))).collect();
        self.table.replace(difference.ok_or(SketchError::NotAPart)?);
        self.total = (self.total - other.total * f64::from(factor)).max(0.0);
        Ok(())
    }

    /// An upper bound on `Σ_x f(x) g(x)` of the two streams (the size of their join), too large by at most
    /// `(e / width) ‖f‖₁ ‖g‖₁` but for probability `e^-depth`.
    ///
    /// # Errors
    /// If width, depth or seed differ, or if either sketch is no longer linear.
    pub fn inner_product(&self, other: &Self) -> Result<f64, SketchError> {
        self.table.factor_from(&other.table)?;
        self.check_linear("an inner product")?;
        other.check_linear("an inner product")?;
        let least = self.table.row_products(&other.table).fold(f64::INFINITY, f64::min);
        Ok(least * f64::from(self.table.scale.value()) * f64::from(other.table.scale.value()))
    }

    /// The ε of the guarantee: `e / width`.
    pub fn epsilon(&self) -> f64 {
        std::f64::consts::E / self.width() as f64
    }

    /// The δ of the guarantee: `e^-depth`.
    pub fn delta(&self) -> f64 {
        (-(self.depth() as f64)).exp()
    }

    /// By how much an estimate is too large at most, but for probability [`delta`](Self::delta):
    /// `(e / width) · ‖f‖₁`.
    pub fn error_bound(&self) -> f64 {
        self.epsilon() * self.total()
    }

    /// The sketch in the crate's byte format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Kind::CountMin);
        writer.u8(C::CODE);
        writer.u8(self.nonlinear.map_or(0, |nonlinear| nonlinear as u8));
        self.table.write_head(&mut writer);
        writer.f64(self.total);
        self.table.write_counters(&mut writer);
        writer.finish()
    }

    /// The sketch that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, of another kind, of other counters or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut reader = Reader::open(Kind::CountMin, bytes)?;
        let sketch = Self::read(&mut reader);
        reader.close(sketch)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        (reader.u8()? == C::CODE).then_some(())?;
        let nonlinear = match reader.u8()? {
            0 => None,
            1 => Some(Nonlinear::Conservative),
            2 => Some(Nonlinear::Halved),
            _ => return None,
        };
        let head = Head::read(reader)?;
        let total = reader.f64().filter(|total| total.is_finite() && *total >= 0.0)?;
        let table = Table::read(head, PURPOSE, reader, |counter| counter >= C::default())?;
        Some(Self { table, total, nonlinear })
    }
}

impl CountMin<f32> {
    /// Multiplies everything counted so far by `factor` in 0..=1 without touching the table: a scale that all
    /// later updates and queries take into account. With a decay per step, a query is the exponentially weighted
    /// sum `Σ amount · factor^age`.
    pub fn decay(&mut self, factor: f32) {
        if let Some(shift) = self.table.decay(factor) {
            self.total *= f64::from(shift);
        }
    }
}
