//! RACE: repeated array of count estimators.

use crate::bytes::{Kind, Reader, Writer};
use crate::error::{SketchError, try_table};
use crate::scale::Scale;
use crate::simhash::{Projection, SimHash};

/// More bits than this make more buckets in a row than any density fills.
const MAX_BITS: usize = 24;
/// The largest number of rows.
const MAX_ROWS: usize = 1 << 12;
/// Codes of up to this many words are worked on without touching the heap.
const STACK_WORDS: usize = 16;

/// Rows of SimHash buckets: what [`Race`] and [`VectorRace`](crate::VectorRace) count in.
///
/// Row r takes bits `r · bits ..` of one long code as its bucket number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Buckets {
    pub(crate) rows: usize,
    pub(crate) bits: usize,
    pub(crate) hash: SimHash,
}

impl Buckets {
    pub(crate) fn new(rows: usize, bits: usize, hash: SimHash) -> Result<Self, SketchError> {
        check(rows, bits)?;
        if hash.bits() != rows * bits {
            return Err(SketchError::parameter(
                "the number of the hash's bits",
                hash.bits(),
                "rows times bits",
            ));
        }
        Ok(Self { rows, bits, hash })
    }

    /// Independent directions, for which the collision kernel is exact.
    pub(crate) fn gaussian(rows: usize, bits: usize, dim: usize, seed: u64) -> Result<Self, SketchError> {
        check(rows, bits)?;
        Self::new(rows, bits, SimHash::new(dim, rows * bits, Projection::Gaussian, seed)?)
    }

    /// Buckets in a row.
    pub(crate) fn width(&self) -> usize {
        1 << self.bits
    }

    pub(crate) fn fill(&self, x: &[f32], buckets: &mut [u32]) {
        assert_eq!(buckets.len(), self.rows, "one bucket per row");
        self.for_rows(x, |row, bucket| buckets[row] = bucket);
    }

    /// Calls `f(row, bucket)` for every row.
    #[inline]
    pub(crate) fn for_rows(&self, x: &[f32], mut f: impl FnMut(usize, u32)) {
        let words = self.hash.words();
        let mut stack = [0; STACK_WORDS];
        let mut heap = vec![0; if words > STACK_WORDS { words } else { 0 }];
        let code = if words > STACK_WORDS { &mut heap[..] } else { &mut stack[..words] };
        self.hash.encode(x, code);
        for row in 0..self.rows {
            let (word, shift) = (row * self.bits / 64, row * self.bits % 64);
            let mut bucket = code[word] >> shift;
            if shift + self.bits > 64 {
                bucket |= code[word + 1] << (64 - shift);
            }
            f(row, (bucket & (self.width() as u64 - 1)) as u32);
        }
    }

    pub(crate) fn check_alike(&self, other: &Self) -> Result<(), SketchError> {
        let what = if self.rows != other.rows {
            "number of rows"
        } else if self.bits != other.bits {
            "number of bits"
        } else if self.hash != other.hash {
            "projection (its dimension, kind or seed)"
        } else {
            return Ok(());
        };
        Err(SketchError::Incompatible { what })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(self.rows as u32);
        writer.u32(self.bits as u32);
        self.hash.write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (rows, bits) = (reader.size()?, reader.size()?);
        Self::new(rows, bits, SimHash::read(reader)?).ok()
    }
}

fn check(rows: usize, bits: usize) -> Result<(), SketchError> {
    if rows == 0 || rows > MAX_ROWS {
        return Err(SketchError::parameter("rows", rows, "from 1 to 4096"));
    }
    if bits == 0 || bits > MAX_BITS {
        return Err(SketchError::parameter("bits", bits, "from 1 to 24"));
    }
    if rows * bits > 1 << 16 {
        return Err(SketchError::parameter("rows times bits", rows * bits, "at most 65536"));
    }
    Ok(())
}

/// A kernel density of weighted vectors in `rows · 2^bits` counters.
///
/// Adding x adds its weight to the bucket of x in every row, a bucket being `bits` signs of random projections; a
/// query returns the mean over rows of the counters in q's buckets:
///
/// `E query(q) = Σ_i w_i · (1 - θ(x_i, q)/π)^bits`,
///
/// the collision kernel of SimHash, unbiased; the variance of one row is at most `(Σ_i w_i √k_i)²` with `k_i` the
/// kernel values, and falls as 1 / rows.
///
/// Source: Luo and Shrivastava, Arrays of (locality-sensitive) count estimators, 2018; Coleman and Shrivastava,
/// Sub-linear RACE sketches for approximate kernel density estimation on streaming data, arXiv 1912.02283.
///
/// ```
/// use sketchkv_sketch::Race;
///
/// let mut race = Race::new(64, 4, 2, 42)?;
/// race.add(&[1.0, 0.0], 1.0);
/// race.add(&[1.0, 0.1], 1.0);
/// assert!(race.query(&[1.0, 0.05]) > 1.5);
/// assert!(race.query(&[-1.0, 0.0]) < 0.5);
/// # Ok::<(), sketchkv_sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Race {
    buckets: Buckets,
    /// `[rows][2^bits]`, in stored units: true = stored · scale.
    table: Vec<f32>,
    scale: Scale,
    /// Sum of all weights, in stored units.
    total: f64,
}

impl Race {
    /// An empty sketch for vectors of `dim` floats, with independent Gaussian directions.
    ///
    /// # Errors
    /// If `rows` is not in 1..=4096, `bits` not in 1..=24, `rows · bits` above 2^16 or `dim` not in 1..=2^20, or
    /// the tables do not fit into memory.
    pub fn new(rows: usize, bits: usize, dim: usize, seed: u64) -> Result<Self, SketchError> {
        Self::with_buckets(Buckets::gaussian(rows, bits, dim, seed)?)
    }

    /// An empty sketch over a hash made already, of `rows · bits` bits; sketches made from clones of one hash share
    /// its directions.
    ///
    /// # Errors
    /// If the hash does not have `rows · bits` bits, or as [`new`](Self::new).
    pub fn with_hash(rows: usize, bits: usize, hash: SimHash) -> Result<Self, SketchError> {
        Self::with_buckets(Buckets::new(rows, bits, hash)?)
    }

    fn with_buckets(buckets: Buckets) -> Result<Self, SketchError> {
        let n = buckets.rows.checked_mul(buckets.width());
        let table = try_table(n, || format!("{} rows of {} buckets", buckets.rows, buckets.width()))?;
        Ok(Self { buckets, table, scale: Scale::ONE, total: 0.0 })
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

    /// The hash whose signs choose the buckets.
    pub fn hash(&self) -> &SimHash {
        &self.buckets.hash
    }

    /// The sum of all weights, decayed with the counters.
    pub fn total(&self) -> f64 {
        self.total * f64::from(self.scale.value())
    }

    /// Exact heap footprint in bytes, the directions included: [`table_bytes`](Self::table_bytes) plus
    /// `hash().bytes()`, which sketches over clones of one hash share.
    pub fn bytes(&self) -> usize {
        self.table_bytes() + self.buckets.hash.bytes()
    }

    /// Heap bytes of the counters alone.
    pub fn table_bytes(&self) -> usize {
        self.table.capacity() * size_of::<f32>()
    }

    /// The bucket of `x` in every row, to be kept and used again with the `…_buckets` methods.
    ///
    /// # Panics
    /// If `x` is not of length `dim` or `buckets` not of length `rows`.
    pub fn buckets(&self, x: &[f32], buckets: &mut [u32]) {
        self.buckets.fill(x, buckets);
    }

    /// Adds a vector with a weight.
    ///
    /// # Panics
    /// If `x` is not of length `dim`.
    pub fn add(&mut self, x: &[f32], weight: f32) {
        let stored = weight * self.scale.inverse();
        self.total += f64::from(stored);
        let width = self.buckets.width();
        let table = &mut self.table;
        self.buckets.for_rows(x, |row, bucket| table[row * width + bucket as usize] += stored);
    }

    /// [`add`](Self::add) for a vector whose buckets are known.
    ///
    /// # Panics
    /// If `buckets` is not of length `rows`, or a bucket is not below `2^bits`.
    pub fn add_buckets(&mut self, buckets: &[u32], weight: f32) {
        assert_eq!(buckets.len(), self.rows(), "one bucket per row");
        let stored = weight * self.scale.inverse();
        self.total += f64::from(stored);
        for (row, &bucket) in self.table.chunks_exact_mut(self.buckets.width()).zip(buckets) {
            row[bucket as usize] += stored;
        }
    }

    /// The estimated density at `x`: the mean of its counters.
    ///
    /// # Panics
    /// If `x` is not of length `dim`.
    pub fn query(&self, x: &[f32]) -> f32 {
        let width = self.buckets.width();
        let mut sum = 0.0;
        self.buckets.for_rows(x, |row, bucket| sum += self.table[row * width + bucket as usize]);
        sum / self.rows() as f32 * self.scale.value()
    }

    /// [`query`](Self::query) for a vector whose buckets are known.
    ///
    /// # Panics
    /// If `buckets` is not of length `rows`, or a bucket is not below `2^bits`.
    pub fn query_buckets(&self, buckets: &[u32]) -> f32 {
        assert_eq!(buckets.len(), self.rows(), "one bucket per row");
        let rows = self.table.chunks_exact(self.buckets.width());
        let sum: f32 = rows.zip(buckets).map(|(row, &bucket)| row[bucket as usize]).sum();
        sum / self.rows() as f32 * self.scale.value()
    }

    /// The estimated density at `x` and the standard error of it, from the spread of its counters over the rows.
    ///
    /// # Panics
    /// If `x` is not of length `dim`.
    pub fn query_with_error(&self, x: &[f32]) -> (f32, f32) {
        let (mut sum, mut squares, width) = (0.0, 0.0, self.buckets.width());
        self.buckets.for_rows(x, |row, bucket| {
            let counter = f64::from(self.table[row * width + bucket as usize]);
            sum += counter;
            squares += counter * counter;
        });
        let (rows, scale) = (self.rows() as f64, f64::from(self.scale.value()));
        let mean = sum / rows;
        let variance = (squares / rows - mean * mean).max(0.0) / (rows - 1.0).max(1.0);
        ((mean * scale) as f32, (variance.sqrt() * scale) as f32)
    }

    /// The median of the means of `groups` groups of rows: slightly biased, but with an error probability that
    /// falls exponentially in the number of groups.
    ///
    /// # Panics
    /// If `x` is not of length `dim`.
    pub fn query_median_of_means(&self, x: &[f32], groups: usize) -> f32 {
        let groups = groups.clamp(1, self.rows());
        let width = self.buckets.width();
        let mut sums = vec![(0.0, 0u32); groups];
        self.buckets.for_rows(x, |row, bucket| {
            let (sum, rows) = &mut sums[row % groups];
            *sum += self.table[row * width + bucket as usize];
            *rows += 1;
        });
        let mut means: Vec<f32> = sums.iter().map(|&(sum, rows)| sum / rows as f32).collect();
        crate::median::median(&mut means) * self.scale.value()
    }

    /// The kernel whose density is estimated: `(1 - θ/π)^bits` for an angle θ in radians.
    pub fn kernel(&self, theta: f64) -> f64 {
        SimHash::collision_probability(theta, self.bits())
    }

    /// Multiplies everything added so far by `factor` in 0..=1 without touching the table.
    pub fn decay(&mut self, factor: f32) {
        if let Some(shift) = self.scale.decay(factor) {
            for counter in &mut self.table {
                *counter *= shift;
            }
            self.total *= f64::from(shift);
        }
    }

    /// Forgets everything, keeps the directions.
    pub fn clear(&mut self) {
        self.table.fill(0.0);
        self.scale = Scale::ONE;
        self.total = 0.0;
    }

    /// Adds another sketch: the result is the sketch of the two streams one after the other.
    ///
    /// # Errors
    /// If rows, bits or projection differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), SketchError> {
        self.buckets.check_alike(&other.buckets)?;
        let factor = other.scale.value() * self.scale.inverse();
        for (counter, added) in self.table.iter_mut().zip(&other.table) {
            *counter += factor * added;
        }
        self.total += f64::from(factor) * other.total;
        Ok(())
    }

    /// The sketch, its directions included, in the crate's byte format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Kind::Race);
        self.buckets.write(&mut writer);
        writer.f32(self.scale.value());
        writer.f64(self.total);
        writer.f32s(&self.table);
        writer.finish()
    }

    /// The sketch that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, of another kind or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut reader = Reader::open(Kind::Race, bytes)?;
        let sketch = Self::read(&mut reader);
        reader.close(sketch)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let buckets = Buckets::read(reader)?;
        let scale = Scale::from_value(reader.f32()?)?;
        let total = reader.f64()?;
        let table = reader.f32s(buckets.rows * buckets.width())?;
        Some(Self { buckets, table, scale, total })
    }
}
