//! What a KV head loses at a price of a byte.

use crate::cost::HeadCost;
use crate::plan::Ranked;
use std::mem::size_of;

/// What is known of a head before it is decided what it loses.
#[derive(Default)]
pub(crate) struct Stakes {
    /// Those who may go, the least important first.
    pub(crate) order: Vec<Ranked>,
    /// The importance of so many of the first together.
    pub(crate) sums: Vec<f64>,
    /// The importance that counts as none: zero, or the least of all that are negative.
    pub(crate) base: f32,
    /// Nats that a unit of importance is worth.
    pub(crate) eviction: f32,
    /// Nats that two bits a number cost; zero where bits fall before tokens go.
    pub(crate) coding: f64,
    /// The first rung that it can be on.
    pub(crate) rung: usize,
    /// Tokens it has, those who come included, the fewest it may have, and the most it has room for.
    pub(crate) tokens: usize,
    pub(crate) least: usize,
    pub(crate) most: usize,
    /// How many tokens more there is to be room for.
    pub(crate) room: usize,
}

/// What a head is left with at a price.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Left {
    pub(crate) rung: usize,
    pub(crate) tokens: usize,
}

impl Stakes {
    /// For so many candidates.
    pub(crate) fn make_room(&mut self, candidates: usize) {
        self.order.clear();
        self.order.reserve_exact(candidates);
        self.sums.clear();
        self.sums.reserve_exact(candidates + 1);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.order.capacity() * size_of::<Ranked>() + self.sums.capacity() * size_of::<f64>()
    }

    /// What is left on a rung where a slot costs so much, in nats.
    fn tokens_at(&self, slot: f64) -> usize {
        let least = (slot / f64::from(self.eviction)) as f32;
        let go = self.order.partition_point(|ranked| ranked.importance - self.base < least);
        (self.tokens - go).max(self.least.min(self.tokens))
    }

    /// What is left at a price of a slot, by rung, in nats.
    pub(crate) fn at(&self, price: f64, cost: &HeadCost) -> Left {
        let of_rung = |rung: usize| {
            let slot = price * cost.slot_on(rung);
            let tokens = self.tokens_at(slot);
            let lost = f64::from(self.eviction) * self.sums[self.tokens - tokens];
            let loss = self.coding * cost.loss_on(rung) + lost + slot * tokens as f64;
            (loss, Left { rung, tokens })
        };
        let rungs = (self.rung..cost.rungs()).map(of_rung);
        rungs.min_by(|a, b| a.0.total_cmp(&b.0)).expect("there is a rung").1
    }
}
