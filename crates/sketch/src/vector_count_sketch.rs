//! A Count-Sketch of vectors.

use std::hash::Hash;

use crate::bytes::{Kind, Reader, Writer};
use crate::error::{SketchError, try_table};
use crate::median::{median_of_rows, median_over_rows};
use crate::scale::Scale;
use crate::simd::places::SignedRows;
use crate::table::{Head, MAX_DEPTH, Table, check_dimensions};

const PURPOSE: u64 = 0x7665_6374_6f72_736b;

/// Sums of vectors per key, in `depth` rows of `width` buckets of `dim` floats: a [`CountSketch`](crate::CountSketch)
/// in every coordinate, with one hash for all of them.
///
/// `B_r[h_r(key)] += s_r(key) · weight · vector`, and `reconstruct(key) = median_r s_r(key) · B_r[h_r(key)]`,
/// coordinate by coordinate. With n unit vectors of unrelated directions stored in rows of `width` buckets, each row
/// returns the wanted vector plus noise of expected squared norm `(n - 1) / width`: below about one bucket per
/// vector the noise is larger than the vector, and no number of rows for the same bytes mends that. This sketch is
/// for a few strong vectors among many weak ones, not for getting all of them back (see `docs/sketches.md`).
///
/// Source: Charikar, Chen, Farach-Colton 2002; on optimizer states, Spring et al., arXiv 1902.00179; on keys and
/// values of attention, KVReviver, arXiv 2512.17917.
///
/// ```
/// use sketchkv_sketch::VectorCountSketch;
///
/// let mut sketch = VectorCountSketch::new(64, 3, 4, 42)?;
/// sketch.update_hash(7, &[1.0, 2.0, 3.0, 4.0], 0.5);
/// let mut out = [0.0; 4];
/// sketch.reconstruct_hash(7, &mut out);
/// assert_eq!(out, [0.5, 1.0, 1.5, 2.0]);
/// # Ok::<(), sketchkv_sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct VectorCountSketch {
    dim: usize,
    /// `[depth][width][dim]`.
    table: Table<f32, SignedRows>,
}

/// The largest dimension of a vector.
pub(crate) const MAX_DIM: usize = 1 << 20;

pub(crate) fn check_dim(what: &'static str, dim: usize) -> Result<(), SketchError> {
    if dim == 0 || dim > MAX_DIM {
        return Err(SketchError::parameter(what, dim, "from 1 to 1048576"));
    }
    Ok(())
}

impl VectorCountSketch {
    /// An empty sketch of `depth` rows of `width` buckets for vectors of `dim` floats.
    ///
    /// # Errors
    /// If `width` is not in 1..=2^32-1, `depth` not in 1..=64 or `dim` not in 1..=2^20, or the table does not fit
    /// into memory.
    pub fn new(width: usize, depth: usize, dim: usize, seed: u64) -> Result<Self, SketchError> {
        check_dimensions(width, depth)?;
        check_dim("dim", dim)?;
        let n = width.checked_mul(depth).and_then(|n| n.checked_mul(dim));
        let sums = try_table(n, || format!("{depth} rows of {width} vectors of {dim}"))?;
        let head = Head { width, depth, seed, scale: Scale::ONE };
        Ok(Self { dim, table: Table::of(head, PURPOSE, sums) })
    }

    /// Buckets in a row.
    pub fn width(&self) -> usize {
        self.table.width
    }

    /// Number of rows.
    pub fn depth(&self) -> usize {
        self.table.depth()
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The seed of the hash functions.
    pub fn seed(&self) -> u64 {
        self.table.seed
    }

    /// Exact heap footprint in bytes.
    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// Adds `weight · vector` to `key`.
    ///
    /// # Panics
    /// If `vector` is not of length `dim`.
    pub fn update<K: Hash + ?Sized>(&mut self, key: &K, vector: &[f32], weight: f32) {
        self.update_hash(self.table.digest(key), vector, weight);
    }

    /// [`update`](Self::update) for a key that is a `u64` already.
    ///
    /// # Panics
    /// If `vector` is not of length `dim`.
    pub fn update_hash(&mut self, key: u64, vector: &[f32], weight: f32) {
        assert_eq!(vector.len(), self.dim, "the vector's length");
        let (dim, Table { width, rows, counters, scale, .. }) = (self.dim, &mut self.table);
        let weight = weight * scale.inverse();
        let places = rows.places(key, *width);
        for (row, (column, negative)) in counters.chunks_exact_mut(*width * dim).zip(places) {
            let weight = if negative { -weight } else { weight };
            let bucket = &mut row[column * dim..][..dim];
            for (sum, x) in bucket.iter_mut().zip(vector) {
                *sum += weight * x;
            }
        }
    }

    /// Adds `weights[i] · vectors[i]` to `keys[i]`; `vectors` is `[key][dim]`.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn update_hash_batch(&mut self, keys: &[u64], vectors: &[f32], weights: &[f32]) {
        assert_eq!(keys.len(), weights.len(), "one weight per key");
        assert_eq!(keys.len() * self.dim, vectors.len(), "one vector per key");
        for ((&key, vector), &weight) in keys.iter().zip(vectors.chunks_exact(self.dim)).zip(weights) {
            self.update_hash(key, vector, weight);
        }
    }

    /// Writes the estimated vector of `key` into `out`.
    ///
    /// # Panics
    /// If `out` is not of length `dim`.
    pub fn reconstruct<K: Hash + ?Sized>(&self, key: &K, out: &mut [f32]) {
        self.reconstruct_hash(self.table.digest(key), out);
    }

    /// [`reconstruct`](Self::reconstruct) for a key that is a `u64` already.
    ///
    /// # Panics
    /// If `out` is not of length `dim`.
    pub fn reconstruct_hash(&self, key: u64, out: &mut [f32]) {
        assert_eq!(out.len(), self.dim, "the length of the output");
        let mut buckets: [&[f32]; MAX_DEPTH] = [&[]; MAX_DEPTH];
        let mut signs = [0.0; MAX_DEPTH];
        let (dim, Table { width, rows, counters, scale, .. }) = (self.dim, &self.table);
        let places = rows.places(key, *width);
        for (((bucket, sign), row), (column, negative)) in
            buckets.iter_mut().zip(&mut signs).zip(counters.chunks_exact(*width * dim)).zip(places)
        {
            *bucket = &row[column * dim..][..dim];
            *sign = if negative { -scale.value() } else { scale.value() };
        }
        median_of_rows(&buckets[..self.depth()], &signs[..self.depth()], out);
    }

    /// Writes the estimated vectors of many keys into `out`, `[key][dim]`.
    ///
    /// # Panics
    /// If `out` is not of length `keys.len() · dim`.
    pub fn reconstruct_hash_batch(&self, keys: &[u64], out: &mut [f32]) {
        assert_eq!(keys.len() * self.dim, out.len(), "the length of the output");
        for (&key, out) in keys.iter().zip(out.chunks_exact_mut(self.dim)) {
            self.reconstruct_hash(key, out);
        }
    }

    /// The estimated ℓ2 norm of everything stored, `√(Σ_x ‖v(x)‖²)`.
    pub fn l2_norm(&self) -> f64 {
        median_over_rows(self.table.row_products(&self.table)).sqrt() * f64::from(self.table.scale.value())
    }

    /// Multiplies everything stored so far by `factor` in 0..=1 without touching the table.
    pub fn decay(&mut self, factor: f32) {
        self.table.decay(factor);
    }

    /// Forgets everything, keeps the hash functions.
    pub fn clear(&mut self) {
        self.table.clear();
    }

    /// Adds another sketch: the result is the sketch of the two streams one after the other.
    ///
    /// # Errors
    /// If width, depth, dim or seed differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), SketchError> {
        self.table.add(&other.table, |sum| sum)?;
        Ok(())
    }

    /// Takes another stream away: the result is the sketch of the differences.
    ///
    /// # Errors
    /// If width, depth, dim or seed differ.
    pub fn subtract(&mut self, other: &Self) -> Result<(), SketchError> {
        self.table.add(&other.table, |sum| -sum)?;
        Ok(())
    }

    /// The sketch in the crate's byte format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Kind::VectorCountSketch);
        writer.u32(self.width() as u32);
        writer.u32(self.depth() as u32);
        writer.u32(self.dim as u32);
        writer.u64(self.seed());
        writer.f32(self.table.scale.value());
        writer.f32s(&self.table.counters);
        writer.finish()
    }

    /// The sketch that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, of another kind or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut reader = Reader::open(Kind::VectorCountSketch, bytes)?;
        let sketch = Self::read(&mut reader);
        reader.close(sketch)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (width, depth, dim) = (reader.size()?, reader.size()?, reader.size()?);
        check_dimensions(width, depth).ok()?;
        check_dim("dim", dim).ok()?;
        let seed = reader.u64()?;
        let scale = Scale::from_value(reader.f32()?)?;
        let n = width.checked_mul(depth)?.checked_mul(dim)?;
        let sums = reader.f32s(n)?;
        Some(Self { dim, table: Table::of(Head { width, depth, seed, scale }, PURPOSE, sums) })
    }
}
