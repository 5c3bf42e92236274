//! SimHash: vectors as the signs of random projections.

use std::sync::Arc;

use crate::bytes::{Kind, Reader, Writer};
use crate::error::{SketchError, try_table};
use crate::random::Random;
use crate::simd::project::{BLOCK, dense, hadamard, signs};
use crate::simd::score::Tables;
use crate::simd::{self, Level};
use crate::vector_count_sketch::check_dim;

/// How the directions of a [`SimHash`] are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Projection {
    /// Independent standard normal directions: every statement holds exactly, bit by bit independent.
    Gaussian = 1,
    /// Directions orthogonal within each group of `dim` (Super-Bit LSH, Ji et al. 2012): every bit has the same
    /// law as before, the bits of a group are negatively correlated, and angle estimates have less variance.
    Orthogonal = 2,
    /// Three rounds of random signs and a fast Walsh-Hadamard transform (Andoni et al., arXiv 1509.02897):
    /// `O(d log d)` instead of `O(d · bits)`, the law of a bit only nearly that of a random direction.
    Hadamard = 3,
}

/// The largest number of bits of a code.
const MAX_BITS: usize = 1 << 16;

/// Up to this padded dimension the fast transform works on the stack.
const STACK: usize = 512;

/// Sign codes of vectors: bit j is set where `⟨r_j, x⟩ ≥ 0`.
///
/// For a random direction r the codes of x and y differ in a bit with probability `θ / π`, θ the angle between x
/// and y; so `π · hamming / bits` estimates the angle, and a group of b independent bits agrees throughout with
/// probability `(1 - θ/π)^b`. Directions are scaled so that `E ⟨r, x⟩² = ‖x‖²`.
///
/// Codes are packed into `bits.div_ceil(64)` words, bit j in word j / 64 at place j % 64; unused places are 0.
/// Clones share their directions. A projection within rounding of zero may get either sign on processors with
/// different vector units.
///
/// Source: Charikar, Similarity estimation techniques from rounding algorithms, 2002.
///
/// ```
/// use sketchkv_sketch::{Projection, SimHash, hamming};
///
/// let hash = SimHash::new(3, 256, Projection::Gaussian, 42)?;
/// let (mut a, mut b) = ([0; 4], [0; 4]);
/// hash.encode(&[1.0, 0.0, 0.0], &mut a);
/// hash.encode(&[1.0, 1.0, 0.0], &mut b);
/// let angle = std::f32::consts::PI * hamming(&a, &b) as f32 / 256.0;
/// assert!((angle - std::f32::consts::FRAC_PI_4).abs() < 0.3);
/// # Ok::<(), sketchkv_sketch::SketchError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SimHash {
    dim: usize,
    bits: usize,
    projection: Projection,
    seed: u64,
    /// Dense: `[dim][bits rounded up to 16]`. Hadamard: `[group][3][dim rounded up to a power of two]`, the signs
    /// of the three rounds, the last divided by that power of two.
    basis: Arc<[f32]>,
}

impl SimHash {
    /// Draws the directions for codes of `bits` bits of vectors of `dim` floats.
    ///
    /// # Errors
    /// If `dim` is not in 1..=2^20 or `bits` not in 1..=2^16, or the directions do not fit into memory.
    pub fn new(dim: usize, bits: usize, projection: Projection, seed: u64) -> Result<Self, SketchError> {
        check_dim("dim", dim)?;
        if bits == 0 || bits > MAX_BITS {
            return Err(SketchError::parameter("bits", bits, "from 1 to 65536"));
        }
        let n = basis_len(dim, bits, projection);
        let mut basis = try_table(Some(n), || format!("{bits} projections of {dim} dimensions"))?;
        let mut random = Random::new(seed, 0x7369_6d68_6173_6800 + projection as u64);
        match projection {
            Projection::Gaussian => draw_gaussian(&mut random, bits, &mut basis),
            Projection::Orthogonal => draw_orthogonal(&mut random, dim, bits, &mut basis),
            Projection::Hadamard => draw_signs(&mut random, dim.next_power_of_two(), &mut basis),
        }
        Ok(Self { dim, bits, projection, seed, basis: basis.into() })
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Length of a code in bits.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Length of a code in 64-bit words.
    pub fn words(&self) -> usize {
        self.bits.div_ceil(64)
    }

    /// How the directions were drawn.
    pub fn projection(&self) -> Projection {
        self.projection
    }

    /// The seed of the directions.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Exact heap footprint in bytes; clones share it.
    pub fn bytes(&self) -> usize {
        // The two reference counts of an `Arc` lie before its contents.
        size_of_val(&*self.basis) + 2 * size_of::<usize>()
    }

    /// The raw projections: `out[j] = ⟨r_j, x⟩`.
    ///
    /// # Panics
    /// If `x` is not of length `dim` or `out` not of length `bits`.
    pub fn project(&self, x: &[f32], out: &mut [f32]) {
        assert_eq!(out.len(), self.bits, "one output per bit");
        self.for_words(x, |word, projections, bits| {
            out[BLOCK * word..][..bits].copy_from_slice(&projections[..bits]);
        });
    }

    /// The code of `x`.
    ///
    /// # Panics
    /// If `x` is not of length `dim` or `code` not of length [`words`](Self::words).
    pub fn encode(&self, x: &[f32], code: &mut [u64]) {
        assert_eq!(code.len(), self.words(), "one word per 64 bits");
        let level = Level::current();
        self.for_words(x, |word, projections, bits| code[word] = signs(level, projections, bits));
    }

    /// The codes of many vectors: `xs` is `[i][dim]`, `codes` is `[i][words]`.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn encode_many(&self, xs: &[f32], codes: &mut [u64]) {
        assert_eq!(xs.len() / self.dim, codes.len() / self.words(), "as many codes as vectors");
        for (x, code) in xs.chunks(self.dim).zip(codes.chunks_mut(self.words())) {
            self.encode(x, code);
        }
    }

    /// Calls `f(word, projections, bits)` for every word of a code, the first `bits` projections being its own.
    #[inline]
    fn for_words(&self, x: &[f32], mut f: impl FnMut(usize, &[f32; BLOCK], usize)) {
        assert_eq!(x.len(), self.dim, "the vector's length");
        let level = Level::current();
        if self.projection == Projection::Hadamard {
            return self.for_words_fast(level, x, f);
        }
        let stride = self.bits.next_multiple_of(16);
        let mut block = [0.0; BLOCK];
        for (word, first) in (0..stride).step_by(BLOCK).enumerate() {
            dense(level, &self.basis[first..], stride, x, BLOCK.min(stride - first), &mut block);
            f(word, &block, BLOCK.min(self.bits - first));
        }
    }

    fn for_words_fast(&self, level: Level, x: &[f32], mut f: impl FnMut(usize, &[f32; BLOCK], usize)) {
        let padded = self.dim.next_power_of_two();
        let mut stack = [0.0; STACK];
        let mut heap = vec![0.0; if padded > STACK { padded } else { 0 }];
        let work = if padded > STACK { &mut heap[..] } else { &mut stack[..padded] };
        let mut block = [0.0; BLOCK];
        for (group, rounds) in self.basis.chunks_exact(3 * padded).enumerate() {
            work[..self.dim].copy_from_slice(x);
            work[self.dim..].fill(0.0);
            for signs in rounds.chunks_exact(padded) {
                work.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
                hadamard(level, work);
            }
            // Powers of two on both sides: a transform fills whole words, or a whole part of one.
            let mut first = group * padded;
            for outputs in work[..padded.min(self.bits - first)].chunks(BLOCK) {
                let (word, place) = (first / BLOCK, first % BLOCK);
                block[place..][..outputs.len()].copy_from_slice(outputs);
                first += outputs.len();
                if first.is_multiple_of(BLOCK) || first == self.bits {
                    f(word, &block, place + outputs.len());
                }
            }
        }
    }

    /// The probability that two vectors at angle θ (radians) agree in `bits` independent bits: `(1 - θ/π)^bits`.
    pub fn collision_probability(theta: f64, bits: usize) -> f64 {
        (1.0 - theta / std::f64::consts::PI).powi(bits as i32)
    }

    /// The angle (radians) that a Hamming distance of two codes of this hash estimates.
    pub fn angle(&self, hamming: u32) -> f64 {
        std::f64::consts::PI * f64::from(hamming) / self.bits as f64
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u8(self.projection as u8);
        writer.u32(self.dim as u32);
        writer.u32(self.bits as u32);
        writer.u64(self.seed);
        writer.f32s(&self.basis);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let projection = match reader.u8()? {
            1 => Projection::Gaussian,
            2 => Projection::Orthogonal,
            3 => Projection::Hadamard,
            _ => return None,
        };
        let (dim, bits) = (reader.size()?, reader.size()?);
        check_dim("dim", dim).ok()?;
        (1..=MAX_BITS).contains(&bits).then_some(())?;
        let seed = reader.u64()?;
        let basis = reader.f32s(basis_len(dim, bits, projection))?.into();
        Some(Self { dim, bits, projection, seed, basis })
    }

    /// The directions in the crate's byte format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Kind::SimHash);
        self.write(&mut writer);
        writer.finish()
    }

    /// What [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, of another kind or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut reader = Reader::open(Kind::SimHash, bytes)?;
        let hash = Self::read(&mut reader);
        reader.close(hash)
    }
}

/// Floats that the directions take; at most 2^20 · 2^16, which no `usize` of 64 bits overflows.
fn basis_len(dim: usize, bits: usize, projection: Projection) -> usize {
    match projection {
        Projection::Gaussian | Projection::Orthogonal => dim.saturating_mul(bits.next_multiple_of(16)),
        Projection::Hadamard => {
            let padded = dim.next_power_of_two();
            bits.div_ceil(padded).saturating_mul(3 * padded)
        }
    }
}

/// `basis` is `[dim][stride]`; columns beyond `bits` stay 0.
fn draw_gaussian(random: &mut Random, bits: usize, basis: &mut [f32]) {
    for row in basis.chunks_exact_mut(bits.next_multiple_of(16)) {
        row[..bits].fill_with(|| random.normal() as f32);
    }
}

/// Gram-Schmidt, twice over for accuracy, on Gaussian directions in groups of `dim`; the result is a uniformly
/// random orthogonal frame. Each direction has norm √dim.
fn draw_orthogonal(random: &mut Random, dim: usize, bits: usize, basis: &mut [f32]) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let stride = bits.next_multiple_of(16);
    let mut frame: Vec<Vec<f64>> = Vec::with_capacity(dim.min(bits));
    for bit in 0..bits {
        if bit.is_multiple_of(dim) {
            frame.clear();
        }
        let mut direction: Vec<f64> = (0..dim).map(|_| random.normal()).collect();
        for _ in 0..2 {
            for other in &frame {
                let along = dot(&direction, other);
                direction.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
        }
        let norm = dot(&direction, &direction).sqrt();
        direction.iter_mut().for_each(|x| *x /= norm);
        for (i, x) in direction.iter().enumerate() {
            basis[i * stride + bit] = (x * (dim as f64).sqrt()) as f32;
        }
        frame.push(direction);
    }
}

fn draw_signs(random: &mut Random, padded: usize, basis: &mut [f32]) {
    for (round, signs) in basis.chunks_exact_mut(padded).enumerate() {
        // Three unnormalised transforms make a factor padded^1.5, of which directions of norm √padded keep a third.
        let size = if round % 3 == 2 { 1.0 / padded as f32 } else { 1.0 };
        signs.fill_with(|| if random.next_u64() >> 63 == 1 { size } else { -size });
    }
}

/// The number of bits in which two codes differ.
///
/// # Panics
/// If the codes differ in length.
#[inline]
pub fn hamming(a: &[u64], b: &[u64]) -> u32 {
    assert_eq!(a.len(), b.len(), "codes of equal length");
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// The Hamming distances of one code to many: `codes` is `[i][words]`, as many as `out` is long.
///
/// # Panics
/// If `codes` is not of length `out.len() · query.len()`.
pub fn hamming_many(query: &[u64], codes: &[u64], out: &mut [u32]) {
    simd::hamming::hamming_many(Level::current(), query, codes, out);
}

/// A real query to score sign codes against, without rounding the query to signs too.
///
/// `score(code) = Σ_j ⟨r_j, q⟩ · s_j` with `s_j = ±1` the signs of the code. For Gaussian directions
/// `E score = bits · √(2/π) · ‖q‖ · cos θ`, so that the score times [`cosine_scale`](Self::cosine_scale) and the
/// norm of the coded vector estimates the inner product without bias.
///
/// Source: Dong, Charikar, Li, Asymmetric distance estimation with sketches, 2008; for keys of attention, RaBitQ
/// (Gao and Long, arXiv 2405.12497) has the same estimator.
///
/// ```
/// use sketchkv_sketch::{AsymmetricQuery, Projection, SimHash};
///
/// let hash = SimHash::new(2, 128, Projection::Gaussian, 1)?;
/// let mut codes = [0; 4];
/// hash.encode_many(&[1.0, 0.1, -1.0, 0.3], &mut codes);
/// let mut scores = [0.0; 2];
/// AsymmetricQuery::new(&hash, &[1.0, 0.0]).score_many(&codes, &mut scores);
/// assert!(scores[0] > scores[1]);
/// # Ok::<(), sketchkv_sketch::SketchError>(())
/// ```
#[derive(Debug, Clone)]
pub struct AsymmetricQuery {
    bits: usize,
    tables: Tables,
}

impl AsymmetricQuery {
    /// Prepares the lookup tables of `query` (64 floats each 16 bits of code).
    ///
    /// # Panics
    /// If `query` is not of length `dim`.
    pub fn new(hash: &SimHash, query: &[f32]) -> Self {
        let mut projections = vec![0.0; hash.bits()];
        hash.project(query, &mut projections);
        Self::from_projections(&projections)
    }

    /// The same from projections computed already, one per bit.
    pub fn from_projections(projections: &[f32]) -> Self {
        Self { bits: projections.len(), tables: Tables::new(Level::current(), projections) }
    }

    /// Scores many codes: `codes` is `[i][words]`, as many as `scores` is long.
    ///
    /// # Panics
    /// If `codes` is not of length `scores.len() · words`.
    pub fn score_many(&self, codes: &[u64], scores: &mut [f32]) {
        self.tables.score_many(codes, scores);
    }

    /// What a score must be multiplied by to estimate `‖q‖ cos θ`: `√(π/2) / bits`.
    pub fn cosine_scale(&self) -> f32 {
        std::f32::consts::FRAC_PI_2.sqrt() / self.bits as f32
    }

    /// Exact heap footprint in bytes.
    pub fn bytes(&self) -> usize {
        self.tables.bytes()
    }
}
