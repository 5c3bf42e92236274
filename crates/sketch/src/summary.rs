//! The keys that a heavy-hitter sketch keeps: a heap with the least count on top, and an index to find a key in it.

use crate::counter::Number;

/// One kept key.
#[derive(Debug, Clone)]
pub(crate) struct Entry<K, C> {
    pub(crate) key: K,
    pub(crate) digest: u64,
    pub(crate) count: C,
    /// By how much the count may be too large (Space-Saving).
    pub(crate) error: C,
    /// Where the index refers to this entry.
    slot: usize,
}

impl<K, C> Entry<K, C> {
    pub(crate) fn new(key: K, digest: u64, count: C, error: C) -> Self {
        Self { key, digest, count, error, slot: 0 }
    }
}

const EMPTY: u32 = u32::MAX;

/// Up to `capacity` keys with counts, the least of them found at once, any key found by its digest.
#[derive(Debug, Clone)]
pub(crate) struct Summary<K, C> {
    /// A binary heap: the children of i are 2i + 1 and 2i + 2, and no child has a smaller count.
    heap: Vec<Entry<K, C>>,
    /// Open addressing with linear probing, at most half full: places in the heap.
    index: Vec<u32>,
    capacity: usize,
}

/// The largest number of keys kept.
pub(crate) const MAX_CAPACITY: usize = 1 << 30;

impl<K: Eq, C: Number> Summary<K, C> {
    /// Room for `room` keys is made at once, more when it is needed.
    pub(crate) fn new(capacity: usize, room: usize) -> Self {
        let room = room.clamp(1, 1 << 16).min(capacity);
        let index = vec![EMPTY; (2 * room).next_power_of_two()];
        Self { heap: Vec::with_capacity(room), index, capacity }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.heap.capacity() * size_of::<Entry<K, C>>() + self.index.capacity() * size_of::<u32>()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn is_full(&self) -> bool {
        self.heap.len() == self.capacity
    }

    pub(crate) fn entries(&self) -> &[Entry<K, C>] {
        &self.heap
    }

    /// The entry of the least count.
    pub(crate) fn least(&self) -> Option<&Entry<K, C>> {
        self.heap.first()
    }

    pub(crate) fn clear(&mut self) {
        self.heap.clear();
        self.index.fill(EMPTY);
    }

    /// Where the search for a digest begins (Fibonacci hashing: digests may be plain integers).
    fn home(&self, digest: u64) -> usize {
        let shift = 64 - self.index.len().trailing_zeros();
        digest.wrapping_mul(0x9e37_79b9_7f4a_7c15).checked_shr(shift).unwrap_or(0) as usize
    }

    fn next(&self, slot: usize) -> usize {
        (slot + 1) & (self.index.len() - 1)
    }

    /// The place of a key in the heap.
    pub(crate) fn find<Q: Eq + ?Sized>(&self, digest: u64, key: &Q) -> Option<usize>
    where
        K: std::borrow::Borrow<Q>,
    {
        let mut slot = self.home(digest);
        while let Some(entry) = self.heap.get(self.index[slot] as usize) {
            if entry.digest == digest && entry.key.borrow() == key {
                return Some(self.index[slot] as usize);
            }
            slot = self.next(slot);
        }
        None
    }

    /// Gives the key at `place` a new count.
    pub(crate) fn set_count(&mut self, place: usize, count: C) {
        self.heap[place].count = count;
        let place = self.rise(place);
        self.sink(place);
    }

    /// Gives every key a new count.
    pub(crate) fn set_counts(&mut self, count: impl Fn(&Entry<K, C>) -> C) {
        for entry in &mut self.heap {
            entry.count = count(entry);
        }
        for place in (0..self.heap.len() / 2).rev() {
            self.sink(place);
        }
    }

    /// Adds a key that is not there yet, in the place of the least one if there is no room.
    pub(crate) fn insert(&mut self, mut entry: Entry<K, C>) {
        if self.is_full() {
            self.forget_slot(self.heap[0].slot);
        } else if 2 * (self.heap.len() + 1) > self.index.len() {
            self.grow();
        }
        entry.slot = self.free_slot(entry.digest);
        let slot = entry.slot;
        if self.is_full() {
            self.heap[0] = entry;
            self.index[slot] = 0;
            self.sink(0);
        } else {
            self.heap.push(entry);
            let place = self.heap.len() - 1;
            self.index[slot] = place as u32;
            self.rise(place);
        }
    }

    fn free_slot(&self, digest: u64) -> usize {
        let mut slot = self.home(digest);
        while self.index[slot] != EMPTY {
            slot = self.next(slot);
        }
        slot
    }

    /// Doubles the index.
    fn grow(&mut self) {
        self.index = vec![EMPTY; 2 * self.index.len()];
        for place in 0..self.heap.len() {
            let slot = self.free_slot(self.heap[place].digest);
            self.heap[place].slot = slot;
            self.index[slot] = place as u32;
        }
    }

    /// Empties a slot and moves up those behind it that could not have their own.
    fn forget_slot(&mut self, mut hole: usize) {
        let mask = self.index.len() - 1;
        let mut slot = hole;
        loop {
            slot = self.next(slot);
            let place = self.index[slot];
            let Some(entry) = self.heap.get(place as usize) else { break };
            // An entry may move back into the hole if its home is not between the hole and itself.
            let from_home = slot.wrapping_sub(self.home(entry.digest)) & mask;
            if from_home >= slot.wrapping_sub(hole) & mask {
                self.index[hole] = place;
                self.heap[place as usize].slot = hole;
                hole = slot;
            }
        }
        self.index[hole] = EMPTY;
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.index[self.heap[a].slot] = a as u32;
        self.index[self.heap[b].slot] = b as u32;
    }

    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].count <= self.heap[place].count {
                break;
            }
            self.swap(parent, place);
            place = parent;
        }
        place
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = 2 * place + 1..self.heap.len().min(2 * place + 3);
            let least = children.reduce(|a, b| if self.heap[b].count < self.heap[a].count { b } else { a });
            match least {
                Some(child) if self.heap[child].count < self.heap[place].count => self.swap(place, child),
                _ => return,
            }
            place = least.unwrap_or(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    impl Summary<u64, u64> {
        fn check(&self) {
            for (place, entry) in self.heap.iter().enumerate() {
                assert_eq!(self.index[entry.slot], place as u32);
                assert_eq!(self.find(entry.digest, &entry.key), Some(place));
                assert!(place == 0 || self.heap[(place - 1) / 2].count <= entry.count);
            }
            assert_eq!(self.index.iter().filter(|&&place| place != EMPTY).count(), self.heap.len());
        }
    }

    #[test]
    fn keeps_heap_and_index_through_any_sequence() {
        let mut random = Random::new(7, 7);
        for capacity in [1, 2, 3, 8, 33] {
            // Few distinct digests, so that probes are long and keys of equal digest meet.
            for digests in [1, 5, 1000] {
                let mut summary = Summary::new(capacity, capacity / 4);
                let mut model: Vec<(u64, u64)> = Vec::new();
                for _ in 0..2000 {
                    let key = random.next_u64() % 60;
                    let count = random.next_u64() % 50;
                    let digest = key % digests;
                    match summary.find(digest, &key) {
                        Some(place) => {
                            summary.set_count(place, count);
                            model.iter_mut().find(|(k, _)| *k == key).unwrap().1 = count;
                        }
                        None => {
                            assert!(model.iter().all(|(k, _)| *k != key));
                            if summary.is_full() {
                                let least = summary.least().unwrap();
                                assert_eq!(least.count, model.iter().map(|(_, count)| *count).min().unwrap());
                                let gone = least.key;
                                model.retain(|(k, _)| *k != gone);
                            }
                            summary.insert(Entry::new(key, digest, count, 0));
                            model.push((key, count));
                        }
                    }
                    summary.check();
                    if random.next_u64().is_multiple_of(100) {
                        summary.set_counts(|entry| 50 - entry.count);
                        summary.check();
                        model.iter_mut().for_each(|(_, count)| *count = 50 - *count);
                    }
                }
                let mut kept: Vec<_> =
                    summary.entries().iter().map(|entry| (entry.key, entry.count)).collect();
                kept.sort_unstable();
                model.sort_unstable();
                assert_eq!(kept, model);
            }
        }
    }
}
