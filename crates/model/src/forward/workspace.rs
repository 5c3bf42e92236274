//! What forward passes compute in.

use super::Outputs;
use super::angles::Angles;
use super::attention::{AttentionMemory, Fault};
use super::routes::Routes;
use super::schedule::{Schedule, Span};
use super::tensor::Arena;
use crate::ModelError;
use sketchkv_cache::{Profile, Stopwatch};

/// The memory of forward passes, grown once and used again, whatever sequences run in it.
#[derive(Default)]
pub struct Workspace {
    /// `[row][vocabulary]` of the last call.
    pub(super) logits: Vec<f32>,
    pub(super) vocabulary: usize,
    pub(super) schedule: Schedule,
    /// Why sequences of the last call failed, by sequence.
    pub(super) failures: Vec<Option<ModelError>>,
    pub(super) pass: PassMemory,
    /// Where the time went, if asked for.
    pub(super) profile: Option<Profile>,
}

/// The memory of one pass.
#[derive(Default)]
pub(super) struct PassMemory {
    pub(super) spans: Vec<Span>,
    /// Sequences that failed in it.
    pub(super) faults: Vec<(usize, Fault)>,
    /// Of all spans in order, as `positions`.
    pub(super) tokens: Vec<u32>,
    pub(super) positions: Vec<usize>,
    pub(super) angles: Angles,
    pub(super) arena: Arena,
    pub(super) products: sketchkv_kernels::ProductWorkspace,
    pub(super) routes: Routes,
    pub(super) attention: AttentionMemory,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the last forward pass gave.
    pub fn outputs(&self) -> Outputs<'_> {
        let Workspace { logits, vocabulary, schedule, failures, .. } = self;
        Outputs { logits, vocabulary: *vocabulary, schedule, failures }
    }

    /// Begins to take the time of the parts of forward passes, from zero. Those of attention are taken by the cache, see
    /// [`sketchkv_cache::Cache::start_profile`].
    pub fn start_profile(&mut self) {
        self.profile = Some(Profile::default());
    }

    /// Ends it: where the time went since [`Workspace::start_profile`]; nothing without that.
    pub fn stop_profile(&mut self) -> Profile {
        self.profile.take().unwrap_or_default()
    }

    /// 8-bit multiply-adds of the products with weights of all forward passes so far.
    pub fn multiply_adds(&self) -> u64 {
        self.pass.products.multiply_adds()
    }

    /// A watch for one call, off unless a profile is taken.
    pub(super) fn watch(&self) -> Stopwatch {
        Stopwatch::start(self.profile.is_some())
    }

    /// Bytes held: the scratch of a pass, and the logits.
    pub fn bytes(&self) -> usize {
        let PassMemory { spans, faults, tokens, positions, angles, arena, products, routes, attention } =
            &self.pass;
        let lists = spans.capacity() * size_of::<Span>()
            + faults.capacity() * size_of::<(usize, Fault)>()
            + tokens.capacity() * size_of::<u32>()
            + positions.capacity() * size_of::<usize>()
            + self.failures.capacity() * size_of::<Option<ModelError>>();
        let logits = self.logits.capacity() * size_of::<f32>();
        let scratch = angles.bytes() + arena.bytes() + products.bytes() + routes.bytes() + attention.bytes();
        lists + logits + self.schedule.bytes() + scratch
    }
}
