//! The keys of the largest estimates of a sketch.

use std::borrow::Borrow;
use std::hash::Hash;

use crate::bytes::{Kind, Reader, Writer};
use crate::count_min::CountMin;
use crate::count_sketch::CountSketch;
use crate::counter::{Counter, Number, SignedCounter};
use crate::error::SketchError;
use crate::stored_key::StoredKey;
use crate::summary::{Entry, MAX_CAPACITY, Summary};

mod sealed {
    pub trait Sealed {}
}

/// A sketch that estimates sums per key: [`CountMin`] or [`CountSketch`]. Sealed.
pub trait FrequencySketch: sealed::Sealed + Sized {
    /// What it counts in.
    type Count: Number;

    /// The digest of a key, which the other methods take.
    #[doc(hidden)]
    fn digest<K: Hash + ?Sized>(&self, key: &K) -> u64;
    #[doc(hidden)]
    fn add(&mut self, digest: u64, amount: Self::Count);
    #[doc(hidden)]
    fn estimate(&self, digest: u64) -> Self::Count;
    /// The estimate in units that decay does not change within an epoch.
    #[doc(hidden)]
    fn stored_estimate(&self, digest: u64) -> Self::Count;
    #[doc(hidden)]
    fn table_epoch(&self) -> u64;
    /// The size of the whole stream that thresholds are shares of.
    #[doc(hidden)]
    fn size(&self) -> f64;
    #[doc(hidden)]
    fn merge_from(&mut self, other: &Self) -> Result<(), SketchError>;
    #[doc(hidden)]
    fn heap_bytes(&self) -> usize;
    #[doc(hidden)]
    fn encode(&self) -> Vec<u8>;
    #[doc(hidden)]
    fn decode(bytes: &[u8]) -> Result<Self, SketchError>;
}

macro_rules! frequency_sketch {
    ($sketch:ident, $counter:ident, $size:ident) => {
        impl<C> sealed::Sealed for $sketch<C> {}
        impl<C: $counter> FrequencySketch for $sketch<C> {
            type Count = C;

            fn digest<K: Hash + ?Sized>(&self, key: &K) -> u64 {
                $sketch::digest(self, key)
            }
            fn add(&mut self, digest: u64, amount: C) {
                self.update_hash(digest, amount);
            }
            fn estimate(&self, digest: u64) -> C {
                self.query_hash(digest)
            }
            fn stored_estimate(&self, digest: u64) -> C {
                self.stored(digest)
            }
            fn table_epoch(&self) -> u64 {
                self.epoch()
            }
            fn size(&self) -> f64 {
                self.$size()
            }
            fn merge_from(&mut self, other: &Self) -> Result<(), SketchError> {
                self.merge(other)
            }
            fn heap_bytes(&self) -> usize {
                self.bytes()
            }
            fn encode(&self) -> Vec<u8> {
                self.to_bytes()
            }
            fn decode(bytes: &[u8]) -> Result<Self, SketchError> {
                Self::from_bytes(bytes)
            }
        }
    };
}

frequency_sketch!(CountMin, Counter, total);
frequency_sketch!(CountSketch, SignedCounter, l2_norm);

/// A sketch that also remembers the `k` keys of the largest estimates it has met.
///
/// Every update is followed by a query of the same key, and a key whose estimate exceeds the least of those kept
/// takes its place: at the moment of its last update no kept key is estimated lower than one that was turned away.
/// With a [`CountMin`] no estimate is too small, so that every key of a sum above the k-th largest *estimate* is
/// kept; thresholds are shares of the total ‖f‖₁. With a [`CountSketch`] they are shares of the norm ‖f‖₂, which finds
/// keys that are large against noise but not against the total.
///
/// Source: Charikar, Chen, Farach-Colton 2002, section 3; Cormode and Muthukrishnan 2005, section 5.
///
/// ```
/// use sketchkv_sketch::{CountMin, TopK};
///
/// let mut top = TopK::new(CountMin::<u32>::new(256, 4, 42)?, 2)?;
/// for word in ["a", "b", "a", "c", "b", "a"] {
///     top.update(word, 1);
/// }
/// assert_eq!(top.top(), [(&"a", 3), (&"b", 2)]);
/// # Ok::<(), sketchkv_sketch::SketchError>(())
/// ```
#[derive(Debug, Clone)]
pub struct TopK<K, S: FrequencySketch> {
    sketch: S,
    /// Counts are in the sketch's stored units: a decay changes all of them alike, and none of them here.
    summary: Summary<K, S::Count>,
    /// The epoch of the sketch's table that the counts are of.
    epoch: u64,
}

impl<K: Hash + Eq, S: FrequencySketch> TopK<K, S> {
    /// Keeps the `k` largest keys of what is added to `sketch` from now on.
    ///
    /// # Errors
    /// If `k` is not in 1..=2^30.
    pub fn new(sketch: S, k: usize) -> Result<Self, SketchError> {
        if k == 0 || k > MAX_CAPACITY {
            return Err(SketchError::parameter("k", k, "from 1 to 1073741824"));
        }
        Ok(Self { epoch: sketch.table_epoch(), sketch, summary: Summary::new(k, k) })
    }

    /// The sketch behind.
    pub fn sketch(&self) -> &S {
        &self.sketch
    }

    /// The sketch behind, to decay or halve it.
    pub fn sketch_mut(&mut self) -> &mut S {
        &mut self.sketch
    }

    /// The largest number of keys kept.
    pub fn k(&self) -> usize {
        self.summary.capacity()
    }

    /// Exact heap footprint in bytes, the sketch included, without what the keys themselves hold on the heap.
    pub fn bytes(&self) -> usize {
        self.summary.bytes() + self.sketch.heap_bytes()
    }

    /// Adds `amount` to `key`.
    pub fn update(&mut self, key: K, amount: S::Count) {
        let digest = self.sketch.digest(&key);
        self.sketch.add(digest, amount);
        self.offer(key, digest);
    }

    /// Keeps `key` if it is among the largest.
    fn offer(&mut self, key: K, digest: u64) {
        if self.epoch != self.sketch.table_epoch() {
            self.summary.set_counts(|entry| self.sketch.stored_estimate(entry.digest));
            self.epoch = self.sketch.table_epoch();
        }
        let estimate = self.sketch.stored_estimate(digest);
        if let Some(place) = self.summary.find(digest, &key) {
            return self.summary.set_count(place, estimate);
        }
        if self.summary.least().is_none_or(|least| !self.summary.is_full() || least.count < estimate) {
            self.summary.insert(Entry::new(key, digest, estimate, S::Count::default()));
        }
    }

    /// The sketch's estimate for any key.
    pub fn query<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> S::Count
    where
        K: Borrow<Q>,
    {
        self.sketch.estimate(self.sketch.digest(key))
    }

    /// The kept keys with their present estimates, largest first.
    pub fn top(&self) -> Vec<(&K, S::Count)> {
        let estimate = |entry: &'_ Entry<K, S::Count>| self.sketch.estimate(entry.digest);
        let mut top: Vec<_> =
            self.summary.entries().iter().map(|entry| (&entry.key, estimate(entry))).collect();
        top.sort_by(|a, b| b.1.to_f64().total_cmp(&a.1.to_f64()));
        top
    }

    /// The kept keys whose estimate is at least `share` (0..=1) of the total ([`CountMin`]) or of the ℓ2 norm
    /// ([`CountSketch`]), largest first. With a `CountMin` and `k` large enough that the least kept estimate is
    /// below the threshold, no key that reaches it is missing.
    pub fn heavy_hitters(&self, share: f64) -> Vec<(&K, S::Count)> {
        let threshold = share * self.sketch.size();
        let mut hitters = self.top();
        hitters.retain(|(_, estimate)| estimate.to_f64() >= threshold);
        hitters
    }

    /// Adds another one: the sketches are merged, and of the keys of both the largest are kept.
    ///
    /// # Errors
    /// If the sketches were not made alike.
    pub fn merge(&mut self, other: &Self) -> Result<(), SketchError>
    where
        K: Clone,
    {
        self.sketch.merge_from(&other.sketch)?;
        let mut candidates: Vec<(K, u64)> = Vec::new();
        for summary in [&self.summary, &other.summary] {
            candidates.extend(summary.entries().iter().map(|entry| (entry.key.clone(), entry.digest)));
        }
        self.summary.clear();
        candidates.into_iter().for_each(|(key, digest)| self.offer(key, digest));
        Ok(())
    }

    /// The sketch and the keys in the crate's byte format.
    pub fn to_bytes(&self) -> Vec<u8>
    where
        K: StoredKey,
    {
        let mut writer = Writer::new(Kind::TopK);
        writer.chunk(&self.sketch.encode());
        writer.u32(self.k() as u32);
        writer.u32(self.summary.entries().len() as u32);
        for entry in self.summary.entries() {
            writer.chunk(&entry.key.to_key_bytes());
        }
        writer.finish()
    }

    /// What [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, of another kind, of other keys or another sketch or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError>
    where
        K: StoredKey,
    {
        let mut reader = Reader::open(Kind::TopK, bytes)?;
        let top = Self::read(&mut reader);
        reader.close(top)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self>
    where
        K: StoredKey,
    {
        let sketch = S::decode(reader.chunk()?).ok()?;
        let k = reader.size().filter(|k| (1..=MAX_CAPACITY).contains(k))?;
        let len = reader.size().filter(|&len| len <= k && reader.holds(len, 4))?;
        let mut top = Self { epoch: sketch.table_epoch(), sketch, summary: Summary::new(k, len) };
        for _ in 0..len {
            let key = K::from_key_bytes(reader.chunk()?)?;
            let digest = top.sketch.digest(&key);
            top.summary.find(digest, &key).is_none().then_some(())?;
            let count = top.sketch.stored_estimate(digest);
            top.summary.insert(Entry::new(key, digest, count, S::Count::default()));
        }
        Some(top)
    }
}
