//! Space-Saving: heavy hitters with no hash table of counters behind them.

use std::borrow::Borrow;
use std::hash::Hash;

use crate::bytes::{Kind, Reader, Writer};
use crate::counter::Counter;
use crate::error::SketchError;
use crate::hash::{digest, digest_point};
use crate::stored_key::StoredKey;
use crate::summary::{Entry, MAX_CAPACITY, Summary};

/// One key of a [`SpaceSaving`] summary and what is known of its sum f.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hitter<'a, K, C> {
    /// The key.
    pub key: &'a K,
    /// The estimate: `f ≤ count`.
    pub count: C,
    /// By how much it may be too large: `count - error ≤ f`.
    pub error: C,
}

/// The `capacity` keys of the largest sums, each with an upper and a lower bound.
///
/// A key that is kept has its counter raised; a new key takes the place of the least one, and its count as its
/// error. So `f ≤ count ≤ f + ‖f‖₁ / capacity`, with certainty, and every key of more than `‖f‖₁ / capacity` is
/// kept. This is what a sketch of the same bytes has to beat: on insertions alone, for the heavy keys alone, it is
/// hard to beat. It knows nothing of any other key, and cannot subtract.
///
/// Source: Metwally, Agrawal, El Abbadi, Efficient computation of frequent and top-k elements in data streams,
/// 2005; merging: Agarwal et al., Mergeable summaries, 2012.
///
/// ```
/// use sketchkv_sketch::SpaceSaving;
///
/// let mut summary = SpaceSaving::<&str, u64>::new(2, 42)?;
/// for word in ["a", "b", "a", "c", "a"] {
///     summary.update(word, 1);
/// }
/// let top = summary.top(1);
/// assert_eq!((*top[0].key, top[0].count, top[0].error), ("a", 3, 0));
/// # Ok::<(), sketchkv_sketch::SketchError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SpaceSaving<K, C> {
    seed: u64,
    point: u64,
    summary: Summary<K, C>,
    total: f64,
}

impl<K: Hash + Eq, C: Counter> SpaceSaving<K, C> {
    /// An empty summary of up to `capacity` keys.
    ///
    /// # Errors
    /// If `capacity` is not in 1..=2^30.
    pub fn new(capacity: usize, seed: u64) -> Result<Self, SketchError> {
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(SketchError::parameter("capacity", capacity, "from 1 to 1073741824"));
        }
        Ok(Self { seed, point: digest_point(seed), summary: Summary::new(capacity, capacity), total: 0.0 })
    }

    /// The largest number of keys kept.
    pub fn capacity(&self) -> usize {
        self.summary.capacity()
    }

    /// The number of keys kept now.
    pub fn len(&self) -> usize {
        self.summary.entries().len()
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sum of all amounts.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// Exact heap footprint in bytes, without what the keys themselves hold on the heap.
    pub fn bytes(&self) -> usize {
        self.summary.bytes()
    }

    /// Adds `amount` to `key`. A negative amount, or none that is a number, counts as 0.
    pub fn update(&mut self, key: K, amount: C) {
        let amount = amount.admitted();
        self.total += amount.to_f64();
        let digest = digest(self.point, &key);
        if let Some(place) = self.summary.find(digest, &key) {
            let count = self.summary.entries()[place].count.plus(amount);
            self.summary.set_count(place, count);
        } else {
            let error = self.floor();
            self.summary.insert(Entry::new(key, digest, error.plus(amount), error));
        }
    }

    /// What a key that is not kept may have at most: the least count, or nothing while there is room.
    pub fn floor(&self) -> C {
        match self.summary.least() {
            Some(least) if self.summary.is_full() => least.count,
            _ => C::default(),
        }
    }

    /// An upper bound on the sum of `key`, kept or not.
    pub fn query<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> C
    where
        K: Borrow<Q>,
    {
        self.get(key).map_or(self.floor(), |hitter| hitter.count)
    }

    /// What is known of `key`, if it is kept.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Hitter<'_, K, C>>
    where
        K: Borrow<Q>,
    {
        let place = self.summary.find(digest(self.point, key), key)?;
        Some(hitter(&self.summary.entries()[place]))
    }

    /// The `k` keys of the largest counts, largest first.
    pub fn top(&self, k: usize) -> Vec<Hitter<'_, K, C>> {
        let mut all: Vec<_> = self.summary.entries().iter().map(hitter).collect();
        all.sort_by(|a, b| b.count.to_f64().total_cmp(&a.count.to_f64()));
        all.truncate(k);
        all
    }

    /// All keys that may have at least `share` (0..=1) of the total, largest first: no key that has is missing if
    /// `share · capacity ≥ 1`, and those whose `count - error` reaches it too certainly have it.
    pub fn heavy_hitters(&self, share: f64) -> Vec<Hitter<'_, K, C>> {
        let threshold = share * self.total;
        let mut hitters = self.top(self.len());
        hitters.retain(|hitter| hitter.count.to_f64() >= threshold);
        hitters
    }

    /// By how much a count is too large at most: `‖f‖₁ / capacity`.
    pub fn error_bound(&self) -> f64 {
        self.total / self.capacity() as f64
    }

    /// Forgets the stream.
    pub fn clear(&mut self) {
        self.summary.clear();
        self.total = 0.0;
    }

    /// Adds another summary: of all keys of both, the largest are kept. The bounds hold for the two streams one
    /// after the other.
    ///
    /// # Errors
    /// If capacity or seed differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), SketchError>
    where
        K: Clone,
    {
        let what = if self.capacity() != other.capacity() {
            "capacity"
        } else if self.seed != other.seed {
            "seed"
        } else {
            self.total += other.total;
            self.merge_entries(other);
            return Ok(());
        };
        Err(SketchError::Incompatible { what })
    }

    fn merge_entries(&mut self, other: &Self)
    where
        K: Clone,
    {
        // A key missing on one side may have had up to that side's floor there.
        let (floor, other_floor) = (self.floor(), other.floor());
        let mut all = Vec::with_capacity(self.len() + other.len());
        for ours in self.summary.entries() {
            let theirs =
                other.summary.find(ours.digest, &ours.key).map(|place| &other.summary.entries()[place]);
            let (count, error) =
                theirs.map_or((other_floor, other_floor), |theirs| (theirs.count, theirs.error));
            let (count, error) = (ours.count.plus(count), ours.error.plus(error));
            all.push(Entry::new(ours.key.clone(), ours.digest, count, error));
        }
        for theirs in other.summary.entries() {
            if self.summary.find(theirs.digest, &theirs.key).is_none() {
                let (count, error) = (theirs.count.plus(floor), theirs.error.plus(floor));
                all.push(Entry::new(theirs.key.clone(), theirs.digest, count, error));
            }
        }
        all.sort_by(|a, b| b.count.to_f64().total_cmp(&a.count.to_f64()));
        all.truncate(self.capacity());
        self.summary.clear();
        all.into_iter().for_each(|entry| self.summary.insert(entry));
    }

    /// The summary in the crate's byte format.
    pub fn to_bytes(&self) -> Vec<u8>
    where
        K: StoredKey,
    {
        let mut writer = Writer::new(Kind::SpaceSaving);
        writer.u8(C::CODE);
        writer.u32(self.capacity() as u32);
        writer.u64(self.seed);
        writer.f64(self.total);
        writer.u32(self.len() as u32);
        for entry in self.summary.entries() {
            writer.chunk(&entry.key.to_key_bytes());
            entry.count.write(&mut writer);
            entry.error.write(&mut writer);
        }
        writer.finish()
    }

    /// The summary that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, of another kind, of other keys or counters or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError>
    where
        K: StoredKey,
    {
        let mut reader = Reader::open(Kind::SpaceSaving, bytes)?;
        let summary = Self::read(&mut reader);
        reader.close(summary)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self>
    where
        K: StoredKey,
    {
        (reader.u8()? == C::CODE).then_some(())?;
        let capacity = reader.size()?;
        let seed = reader.u64()?;
        let total = reader.f64().filter(|total| total.is_finite() && *total >= 0.0)?;
        (1..=MAX_CAPACITY).contains(&capacity).then_some(())?;
        let len = reader.size().filter(|&len| len <= capacity && reader.holds(len, 4))?;
        let mut summary =
            Self { seed, point: digest_point(seed), summary: Summary::new(capacity, len), total };
        for _ in 0..len {
            let key = K::from_key_bytes(reader.chunk()?)?;
            let count = C::read(reader).filter(|&count| count >= C::default())?;
            let error = C::read(reader).filter(|&error| error >= C::default())?;
            let digest = digest(summary.point, &key);
            summary.summary.find(digest, &key).is_none().then_some(())?;
            summary.summary.insert(Entry::new(key, digest, count, error));
        }
        Some(summary)
    }
}

fn hitter<K, C: Copy>(entry: &Entry<K, C>) -> Hitter<'_, K, C> {
    Hitter { key: &entry.key, count: entry.count, error: entry.error }
}
