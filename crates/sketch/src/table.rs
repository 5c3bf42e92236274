//! Rows of counters under one decaying scale: what the sketches of counters have in common.

use std::hash::Hash;

use crate::bytes::{Reader, Writer};
use crate::counter::Number;
use crate::error::{SketchError, try_table};
use crate::hash::{CubicHash, LinearHash, digest, digest_point};
use crate::random::Random;
use crate::scale::{Epoch, Scale};
use crate::simd::places::SignedRows;

/// The largest number of rows; at 64 the probability of failure of a Count-Min sketch is below 10^-27.
pub(crate) const MAX_DEPTH: usize = 64;

pub(crate) fn check_dimensions(width: usize, depth: usize) -> Result<(), SketchError> {
    if width == 0 || u32::try_from(width).is_err() {
        return Err(SketchError::parameter("width", width, "from 1 to 4294967295"));
    }
    if depth == 0 || depth > MAX_DEPTH {
        return Err(SketchError::parameter("depth", depth, "from 1 to 64"));
    }
    Ok(())
}

/// The hash functions of the rows.
pub(crate) trait Rows {
    fn draw(depth: usize, random: &mut Random) -> Self;

    fn depth(&self) -> usize;

    /// Heap bytes.
    fn bytes(&self) -> usize;
}

impl Rows for Vec<LinearHash> {
    fn draw(depth: usize, random: &mut Random) -> Self {
        (0..depth).map(|_| LinearHash::new(random)).collect()
    }

    fn depth(&self) -> usize {
        self.len()
    }

    fn bytes(&self) -> usize {
        self.capacity() * size_of::<LinearHash>()
    }
}

impl Rows for SignedRows {
    fn draw(depth: usize, random: &mut Random) -> Self {
        let fold = LinearHash::new(random);
        Self { fold, rows: (0..depth).map(|_| CubicHash::new(random)).collect() }
    }

    fn depth(&self) -> usize {
        self.rows.len()
    }

    fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<CubicHash>()
    }
}

/// `depth` rows of `width` columns, and the hash functions `R` of the rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table<C, R> {
    pub(crate) width: usize,
    pub(crate) seed: u64,
    /// Where keys longer than one integer are evaluated.
    pub(crate) point: u64,
    pub(crate) rows: R,
    /// `[depth][width]`, of vectors `[depth][width][dim]`, in stored units: true = stored · scale.
    pub(crate) counters: Vec<C>,
    pub(crate) scale: Scale,
    epoch: Epoch,
}

/// What the byte format holds of a table beside its counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) width: usize,
    pub(crate) depth: usize,
    pub(crate) seed: u64,
    pub(crate) scale: Scale,
}

impl Head {
    /// Reads what [`Table::write_head`] wrote.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (width, depth) = (reader.size()?, reader.size()?);
        check_dimensions(width, depth).ok()?;
        Some(Self { width, depth, seed: reader.u64()?, scale: Scale::from_value(reader.f32()?)? })
    }
}

impl<C: Number, R: Rows> Table<C, R> {
    /// An empty table of one counter a column. `purpose` is of the kind of sketch: no two share hash functions.
    ///
    /// # Errors
    /// If the dimensions are out of range, or the table does not fit into memory.
    pub(crate) fn new(width: usize, depth: usize, seed: u64, purpose: u64) -> Result<Self, SketchError> {
        check_dimensions(width, depth)?;
        let counters = try_table(width.checked_mul(depth), || format!("{depth} rows of {width} counters"))?;
        Ok(Self::of(Head { width, depth, seed, scale: Scale::ONE }, purpose, counters))
    }

    /// A table of these counters.
    pub(crate) fn of(head: Head, purpose: u64, counters: Vec<C>) -> Self {
        let Head { width, depth, seed, scale } = head;
        let rows = R::draw(depth, &mut Random::new(seed, purpose));
        Self { width, seed, point: digest_point(seed), rows, counters, scale, epoch: Epoch::default() }
    }

    pub(crate) fn depth(&self) -> usize {
        self.rows.depth()
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.counters.capacity() * size_of::<C>() + self.rows.bytes()
    }

    #[inline]
    pub(crate) fn digest<K: Hash + ?Sized>(&self, key: &K) -> u64 {
        digest(self.point, key)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.number()
    }

    pub(crate) fn clear(&mut self) {
        self.counters.fill(C::default());
        self.scale = Scale::ONE;
        self.epoch.advance();
    }

    /// Changes every counter.
    pub(crate) fn map(&mut self, f: impl Fn(C) -> C) {
        self.counters.iter_mut().for_each(|counter| *counter = f(*counter));
        self.epoch.advance();
    }

    /// What [`decay`](crate::CountMin::decay) says; returns what the stored units were multiplied by, if they were.
    pub(crate) fn decay(&mut self, factor: f32) -> Option<f32> {
        let shift = self.scale.decay(factor)?;
        self.map(|counter| counter.scaled(shift));
        Some(shift)
    }

    /// Whether both were made alike, and the factor from the stored units of `other` to those of this table.
    pub(crate) fn factor_from(&self, other: &Self) -> Result<f32, SketchError> {
        let what = if self.width != other.width {
            "width"
        } else if self.depth() != other.depth() {
            "depth"
        } else if self.counters.len() != other.counters.len() {
            "dim"
        } else if self.seed != other.seed {
            "seed"
        } else {
            return Ok(other.scale.value() * self.scale.inverse());
        };
        Err(SketchError::Incompatible { what })
    }

    /// Adds `part` of every counter of another table; returns the factor between the stored units.
    pub(crate) fn add(&mut self, other: &Self, part: impl Fn(C) -> C) -> Result<f32, SketchError> {
        let factor = self.factor_from(other)?;
        for (counter, &added) in self.counters.iter_mut().zip(&other.counters) {
            *counter = counter.plus(part(added).scaled(factor));
        }
        self.epoch.advance();
        Ok(factor)
    }

    /// Puts other counters in place of all.
    pub(crate) fn replace(&mut self, counters: Vec<C>) {
        self.counters = counters;
        self.epoch.advance();
    }

    /// `Σ_j A_r[j] B_r[j]` of every row r of two tables that were made alike, in stored units.
    pub(crate) fn row_products(&self, other: &Self) -> impl Iterator<Item = f64> {
        let row = self.counters.len() / self.depth();
        let rows = self.counters.chunks_exact(row).zip(other.counters.chunks_exact(row));
        rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a.to_f64() * b.to_f64()).sum())
    }

    pub(crate) fn write_head(&self, writer: &mut Writer) {
        writer.u32(self.width as u32);
        writer.u32(self.depth() as u32);
        writer.u64(self.seed);
        writer.f32(self.scale.value());
    }

    pub(crate) fn write_counters(&self, writer: &mut Writer) {
        self.counters.iter().for_each(|counter| counter.write(writer));
    }

    /// Reads what [`write_counters`](Self::write_counters) wrote; nothing where there is less, or a counter is not `sound`.
    pub(crate) fn read(
        head: Head,
        purpose: u64,
        reader: &mut Reader<'_>,
        sound: impl Fn(C) -> bool,
    ) -> Option<Self> {
        let n = head.width.checked_mul(head.depth).filter(|&n| reader.holds(n, size_of::<C>()))?;
        let mut counters = Vec::with_capacity(n);
        for _ in 0..n {
            counters.push(C::read(reader).filter(|&counter| sound(counter))?);
        }
        Some(Self::of(head, purpose, counters))
    }
}
