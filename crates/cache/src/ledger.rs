use std::iter::Sum;
use std::ops::AddAssign;

/// The itemised count of the bytes a cache takes. All fields in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Encoded keys of live slots.
    pub keys: usize,
    /// Encoded values of live slots.
    pub values: usize,
    /// Scales, zero points and norms of the codes.
    pub scales: usize,
    /// Positions of the slots.
    pub positions: usize,
    /// Scores and other per-slot state of the `keep`.
    pub scores: usize,
    /// Codes and bounds of the `read` index.
    pub codes: usize,
    /// Fixed-size sketches of the `keep`.
    pub sketches: usize,
    /// State of the `tail`.
    pub tail: usize,
    /// Page tables and other bookkeeping.
    pub tables: usize,
    /// Allocated slots that hold no token.
    pub slack: usize,
}

impl Ledger {
    /// Every item by name, in bytes.
    pub fn items(&self) -> [(&'static str, usize); 10] {
        let Ledger { keys, values, scales, positions, scores, codes, sketches, tail, tables, slack } = *self;
        [
            ("keys", keys),
            ("values", values),
            ("scales", scales),
            ("positions", positions),
            ("scores", scores),
            ("codes", codes),
            ("sketches", sketches),
            ("tail", tail),
            ("tables", tables),
            ("slack", slack),
        ]
    }

    /// The sum of all items, in bytes.
    pub fn total(&self) -> usize {
        self.items().iter().map(|(_, bytes)| bytes).sum()
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Ledger) {
        let Ledger { keys, values, scales, positions, scores, codes, sketches, tail, tables, slack } = other;
        self.keys += keys;
        self.values += values;
        self.scales += scales;
        self.positions += positions;
        self.scores += scores;
        self.codes += codes;
        self.sketches += sketches;
        self.tail += tail;
        self.tables += tables;
        self.slack += slack;
    }
}

/// Of several caches.
impl Sum for Ledger {
    fn sum<I: Iterator<Item = Ledger>>(ledgers: I) -> Ledger {
        ledgers.fold(Ledger::default(), |mut sum, ledger| {
            sum += ledger;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_summed() {
        let one = Ledger {
            keys: 1,
            values: 2,
            scales: 4,
            positions: 8,
            scores: 16,
            codes: 32,
            sketches: 64,
            tail: 128,
            tables: 256,
            slack: 512,
        };
        let sum: Ledger = [one, one, one].into_iter().sum();
        assert!(sum.items().iter().zip(one.items()).all(|(sum, one)| sum.1 == 3 * one.1));
        assert_eq!(sum.total(), 3 * 1023);
    }
}
