//! What methods see of a cache: what they are built for, the queries of a chunk, the tokens that are judged, the slots that
//! stay, the logits and sums of an attention, and buffers to work in.

mod buffers;
mod candidates;
mod chunk;
mod partial;

pub use buffers::Buffers;
pub use candidates::Candidates;
pub(crate) use chunk::NewTokens;
pub use chunk::{GroupQueries, Sample};
pub use partial::Partial;
pub(crate) use partial::dot;

use crate::{CacheShape, LayerShape};
use sketchkv_sketch::mix;

/// The position of a slot that holds no token.
pub(crate) const EMPTY: u32 = u32::MAX;

/// What a method is built for.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The model.
    pub shape: &'a CacheShape,
    /// Layer.
    pub layer: usize,
    /// KV head.
    pub head: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Whether importance will be multiplied with what a value does to the output: a keep that weighs values itself
    /// leaves that off.
    pub values_weighed: bool,
}

impl<'a> Context<'a> {
    /// Of a KV head whose values nobody else weighs.
    pub fn new(shape: &'a CacheShape, layer: usize, head: usize, seed: u64) -> Self {
        Context { shape, layer, head, seed, values_weighed: false }
    }

    /// A seed of this layer and head's own.
    pub fn own_seed(&self) -> u64 {
        let place = (self.layer as u64) << 32 | self.head as u64;
        mix(self.seed ^ mix(place.wrapping_add(1)))
    }

    /// How the layer makes logits of scaled products.
    pub fn softcap(&self) -> Softcap {
        Softcap(self.layer().softcap)
    }

    /// The shape of the layer.
    pub fn layer(&self) -> &'a LayerShape {
        &self.shape.layers[self.layer]
    }
}

/// How a layer makes logits of scaled products.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Softcap(pub(crate) Option<f32>);

impl Softcap {
    /// c·tanh(x/c), or x without a cap.
    pub fn of(self, x: f32) -> f32 {
        self.0.map_or(x, |cap| cap * (x / cap).tanh())
    }

    /// The same of many.
    pub fn apply(self, logits: &mut [f32]) {
        if self.0.is_some() {
            logits.iter_mut().for_each(|x| *x = self.of(*x));
        }
    }
}

/// The slots of a KV head that stay when others are evicted.
pub trait Neighbours {
    /// Calls `f(position, slot)` for every token that stays, in the order of slots.
    fn for_each_staying(&self, f: &mut dyn FnMut(usize, usize));

    /// The key, `[key_dim]`, and the value, `[value_dim]`, of a slot.
    fn load(&self, slot: usize, key: &mut [f32], value: &mut [f32]);

    /// Replaces the value of a slot, `[value_dim]`.
    fn set_value(&mut self, slot: usize, value: &[f32]);
}
