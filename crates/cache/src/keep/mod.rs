//! Which tokens stay as exact slots.

mod cms;
mod countsketch;
mod expected;
mod foreseen;
mod full;
mod h2o;
mod hashevict;
mod keydiff;
mod knorm;
mod kvzip;
mod race;
mod random;
mod sketched;
mod snapkv;
mod tova;
mod window;

#[cfg(test)]
mod tests;

use crate::context::{Buffers, Candidates, Context, GroupQueries};
use crate::method::{Call, Kind, Method, Parameter};
use crate::shape::{NEAR, norm};
use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::add_scaled;
use sketchkv_kernels::cpu::Level;

/// One KV head's judgement of which tokens matter.
///
/// While a forward pass attends, nothing of a cache changes: [`Keep::digest`] takes from the queries of a chunk what the keep
/// wants to know of them. When the pass is over the cache calls [`Keep::observe`] for the slots that were attended to,
/// [`Keep::arrive`] for each new token, then, when slots must be freed, [`Keep::weigh`] for all of them.
pub trait Keep: Send + Sync {
    /// A copy with all its state.
    fn clone_box(&self) -> Box<dyn Keep>;

    /// Heap bytes of state that does not grow with the slots.
    fn bytes(&self) -> usize {
        0
    }

    /// 32-bit words of state per slot.
    fn words(&self) -> usize {
        0
    }

    /// Whether attention weights of a pass over so many tokens are needed, and which.
    fn feedback(&self, _tokens: usize) -> Option<Feedback> {
        None
    }

    /// Whether importance is attention: seen, or expected. Only such importance can be multiplied with how much a value
    /// matters.
    fn is_attention(&self) -> bool {
        self.feedback(2).is_some()
    }

    /// Whether the importance of one head says as much as the same of another; else it is taken relative to the sum over its
    /// head where heads of several layers compete.
    fn is_comparable(&self) -> bool {
        self.horizon().is_some()
    }

    /// How many coming queries importance is the attention of, where it is that: then what is lost with a token can be set against
    /// what is lost with bits.
    fn horizon(&self) -> Option<usize> {
        None
    }

    /// The most of the newest tokens that are protected where `recent` is left to the cache.
    fn most_recent(&self) -> usize {
        usize::MAX
    }

    /// How many slots to free at a time; more than needed spares scoring at every step.
    fn batch(&self) -> usize {
        1
    }

    /// Whether importance is averaged over the KV heads of a layer, which then evict the same tokens.
    fn same_in_all_heads(&self) -> bool {
        false
    }

    /// What of a chunk's queries [`Keep::observe`] is to be told; added to `out`.
    fn digest(&self, _queries: &GroupQueries<'_>, _out: &mut Vec<f32>) {}

    /// After attention over a chunk: updates the state of the slots, `[slot][words]`.
    fn observe(&mut self, _step: &Step<'_>, _state: &mut [u32]) {}

    /// Sets the state `[words]` of a new token.
    fn arrive(&mut self, _token: &Arrival<'_>, _state: &mut [u32]) {}

    /// How much each candidate matters: the smallest are evicted first, of equals the oldest.
    ///
    /// A keep implements this, or [`Keep::weigh`] where importance is relative to the other candidates or buffers are needed.
    fn importance(&mut self, _candidates: &Candidates<'_>, _out: &mut [f32]) {}

    /// [`Keep::importance`] of the slots and of the new tokens, one after the other in `out`.
    fn weigh(&mut self, candidates: &mut [Candidates<'_>; 2], out: &mut [f32], _buffers: &mut Buffers) {
        let (old, new) = out.split_at_mut(candidates[0].len());
        self.importance(&candidates[0], old);
        self.importance(&candidates[1], new);
    }

    /// Whether a document that is read whole is to be repeated by the model for it, before any of its tokens go.
    fn asks_for_repetition(&self) -> bool {
        false
    }

    /// Forgets what attention has shown of the slots, `[slot][words]`: they are to be judged anew, by queries to come.
    fn restart(&mut self, _state: &mut [u32]) {}

    /// Writes the state that does not grow with the slots.
    fn save(&self, _out: &mut Writer) {}

    /// Reads what [`Keep::save`] wrote.
    ///
    /// # Errors
    /// When the bytes are not what it writes.
    fn load(&mut self, _from: &mut Reader<'_>) -> Result<(), StateError> {
        Ok(())
    }
}

/// Which attention weights of a chunk's queries a keep is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Feedback {
    /// Of each slot Σ_t γ^(T−1−t) · mean over the group of a_t, with this decay γ; 0 asks for the newest query alone.
    Sum(f32),
    /// As the sum without decay, but a token of the chunk is told only of queries at least 64 tokens after it: those who come
    /// right after a token say little of who looks at it later.
    Far,
    /// The greatest that any query of the chunk and the group gave a slot.
    Greatest,
}

impl Feedback {
    /// What a query counts that `later` tokens of its chunk follow, one of `group`.
    pub(crate) fn weight(self, later: usize, group: usize) -> f32 {
        match self {
            // 0 to the power 0 is 1: with no memory, the newest query alone counts.
            Feedback::Sum(decay) => decay.powi(later as i32) / group as f32,
            Feedback::Far => 1.0 / group as f32,
            Feedback::Greatest => 1.0,
        }
    }

    /// How many of the first tokens of a chunk are told of the query of its token number `token`.
    pub(crate) fn own(self, token: usize) -> usize {
        match self {
            Feedback::Far => (token + 1).saturating_sub(NEAR),
            Feedback::Sum(_) | Feedback::Greatest => token + 1,
        }
    }

    /// Takes the weights of one more query, or of one more task, into `mass`, each times `factor`.
    pub(crate) fn take(self, level: Level, mass: &mut [f32], factor: f32, weights: &[f32]) {
        match self {
            Feedback::Sum(_) | Feedback::Far => add_scaled(level, mass, factor, weights),
            Feedback::Greatest => {
                mass.iter_mut().zip(weights).for_each(|(most, weight)| *most = most.max(factor * weight));
            }
        }
    }
}

/// What attention over a chunk showed.
pub struct Step<'a> {
    /// Attention weight per slot, as [`Keep::feedback`] asks for it; empty when it does not.
    pub mass: &'a [f32],
    /// Positions of the slots; `u32::MAX` where there is no token.
    pub positions: &'a [u32],
    /// What [`Keep::digest`] made of the queries of the chunk.
    pub digest: &'a [f32],
    /// Number of tokens in the chunk.
    pub tokens: usize,
    /// Position of the first token of the chunk.
    pub position: usize,
}

/// A token on its way into the cache.
pub struct Arrival<'a> {
    /// Key, `[head_dim]`, rotated.
    pub key: &'a [f32],
    /// Value, `[head_dim]`.
    pub value: &'a [f32],
    /// Position in the sequence.
    pub position: usize,
    /// Attention weight it drew within its own chunk; 0 when no feedback was asked for.
    pub mass: f32,
}

/// Builds a keep from its call.
pub type Build = fn(&Call, &Context<'_>) -> Box<dyn Keep>;

/// All keeps.
pub(crate) static KEEPS: &[(&Method, Build)] = &[
    (&full::METHOD, full::build),
    (&window::METHOD, window::build),
    (&random::METHOD, random::build),
    (&h2o::METHOD, h2o::build),
    (&tova::METHOD, tova::build),
    (&snapkv::METHOD, snapkv::build),
    (&keydiff::METHOD, keydiff::build),
    (&knorm::METHOD, knorm::build),
    (&kvzip::METHOD, kvzip::build),
    (&expected::METHOD, expected::build),
    (&foreseen::METHOD, foreseen::build),
    (&hashevict::METHOD, hashevict::build),
    (&cms::METHOD, cms::build),
    (&countsketch::METHOD, countsketch::build),
    (&race::METHOD, race::build),
];

/// The first tokens, which attention parks on: of a keep that declares this, the cache never evicts them.
pub const SINKS: Parameter = Parameter {
    name: "sinks",
    kind: Kind::Integer(0, 1024),
    default: "4",
    help: "first tokens that are never evicted",
};

/// The newest tokens: of a keep that declares this, the cache never evicts them; of another, only the very newest.
pub const RECENT: Parameter = Parameter {
    name: "recent",
    kind: Kind::Integer(1, 1 << 20),
    default: "auto",
    help: "newest tokens that are never evicted; auto is a quarter of the slots, with foreseen and kvzip at most 128",
};

/// The most newest tokens that are protected where a spec says no number and importance is known to rise with time.
const MOST_RECENT: usize = 128;

/// How many slots to free at a time.
const fn interval(default: &'static str) -> Parameter {
    Parameter {
        name: "interval",
        kind: Kind::Integer(1, 4096),
        default,
        help: "tokens evicted at a time, at most a quarter of those that may be; more is cheaper, and holds fewer",
    }
}
