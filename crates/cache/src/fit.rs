//! Fitting a scorer to the attention of a model over some documents.

use crate::shape::{BINS, ByDistance, HeadScorer, NEAR, bin_of};
use crate::{Cache, CacheError, CacheShape, LayerShape, Scorer, Spec};
use sketchkv_kernels::least_squares::{accumulate, damp, solve};
use sketchkv_kernels::{ThreadPool, for_each_mut};

/// Tokens of a pass: attention is seen in sums over that many queries.
const CHUNK: usize = 64;
/// The first tokens, which a cache keeps anyway.
const SINKS: usize = 4;
/// Queries that must come after a token for it to count.
const QUERIES: usize = 512;
/// Of the mean of the diagonal, what is added to it.
const RIDGE: f64 = 1e-3;
/// What is added to a ratio before its logarithm is taken.
const LEAST: f64 = 1e-3;

/// Collects what fits a [`Scorer`]: features of tokens and what each drew of attention, by ridge regression in closed form.
///
/// Each document runs through a cache of [`ScorerFit::spec`] that is watched ([`Cache::watch_attention`]), in passes of
/// [`ScorerFit::CHUNK`] tokens, with [`ScorerFit::observe`] after each and [`ScorerFit::learn`] after the last.
pub struct ScorerFit {
    shape: CacheShape,
    /// `[layer][kv_head]`, of layers without sliding windows.
    heads: Vec<Vec<HeadFit>>,
    /// Tokens of the document that have been seen.
    position: usize,
}

/// Of one KV head.
struct HeadFit {
    /// Sum of the products of features, `[feature][feature]`, the lower triangle.
    normal: Vec<f64>,
    /// Sum of the products of features and targets.
    right: Vec<f64>,
    /// Attention by bin of distance, and the pairs of a query and a token that it was seen on: of all documents and of this one.
    all: Bins,
    own: Bins,
    /// What each token of the document drew from queries that are not near.
    drawn: Vec<f64>,
}

#[derive(Clone)]
struct Bins {
    mass: [f64; BINS],
    pairs: [f64; BINS],
}

impl Bins {
    const NONE: Bins = Bins { mass: [0.0; BINS], pairs: [0.0; BINS] };

    /// Mean attention in each bin; where nothing was seen, in inverse proportion to the distance from where something was.
    fn means(&self) -> [f32; BINS] {
        let seen = |bin: &usize| self.pairs[*bin] > 0.0;
        let Some(first) = (0..BINS).find(seen) else { return [0.0; BINS] };
        let last = (0..BINS).rev().find(seen).unwrap_or(first);
        let mut means = [0.0; BINS];
        for (bin, mean) in means.iter_mut().enumerate() {
            let from = bin.clamp(first, last);
            // Two bins an octave.
            let away = (from as f64 - bin as f64) / 2.0;
            let pairs = self.pairs[from].max(1.0);
            *mean = (self.mass[from] / pairs * away.exp2()).min(1.0) as f32;
        }
        means
    }
}

impl ScorerFit {
    /// Tokens of a pass.
    pub const CHUNK: usize = CHUNK;

    /// Nothing learned yet of a model of this shape.
    pub fn new(shape: CacheShape) -> Self {
        let head = |layer: &LayerShape| {
            let width = HeadScorer::width(layer);
            HeadFit {
                normal: vec![0.0; width * width],
                right: vec![0.0; width],
                all: Bins::NONE,
                own: Bins::NONE,
                drawn: vec![],
            }
        };
        let heads = shape.layers.iter().map(|layer| {
            let heads = if layer.window.is_some() { 0 } else { layer.kv_heads };
            (0..heads).map(|_| head(layer)).collect()
        });
        ScorerFit { heads: heads.collect(), shape, position: 0 }
    }

    /// The spec of a cache that can be learned from: all tokens, exact, and what they draw.
    ///
    /// # Errors
    /// Never, for less than 2^32 tokens.
    pub fn spec(tokens: usize) -> Result<Spec, CacheError> {
        format!("h2o(decay=1)+f32@{}tok", tokens + CHUNK).parse()
    }

    /// Takes in what the last pass over a cache saw.
    pub fn observe(&mut self, cache: &Cache) {
        let (first, end) = (self.position, cache.position());
        self.position = end;
        for (heads, attention) in self.heads.iter_mut().zip(cache.attention()) {
            for (head, drawn) in heads.iter_mut().zip(&attention.drawn) {
                head.drawn.resize(end, 0.0);
                for (position, (sum, &mass)) in head.drawn.iter_mut().zip(drawn).take(first).enumerate() {
                    let age = first - position;
                    let bin = bin_of(age + (end - first) / 2);
                    head.own.mass[bin] += f64::from(mass);
                    head.own.pairs[bin] += (end - first) as f64;
                    if age >= NEAR {
                        *sum += f64::from(mass);
                    }
                }
            }
        }
    }

    /// Learns from the document that a cache has seen; the next one begins.
    pub fn learn(&mut self, cache: &Cache, pool: &ThreadPool) {
        let tokens = std::mem::take(&mut self.position);
        let shape = &self.shape;
        for (number, (layer, heads)) in shape.layers.iter().zip(&mut self.heads).enumerate() {
            for_each_mut(pool, heads, |h, head| head.learn(layer, &cache.slots(number, h), tokens));
        }
    }

    /// What was learned, of the model with this fingerprint.
    ///
    /// # Errors
    /// When there were too few tokens to learn from.
    pub fn finish(self, model: u64) -> Result<Scorer, CacheError> {
        let solved = |head: HeadFit| {
            let by_distance = head.all.means().to_vec();
            let HeadFit { mut normal, mut right, .. } = head;
            damp(&mut normal, RIDGE);
            let factors =
                solve(&mut normal, &mut right).then(|| right.iter().map(|x| *x as f32).collect())?;
            Some(HeadScorer { factors, by_distance })
        };
        let heads = self.heads.into_iter().map(|heads| heads.into_iter().map(solved).collect());
        let heads: Option<Vec<Vec<HeadScorer>>> = heads.collect();
        let too_few = || {
            CacheError::Argument(format!(
                "the documents are too short to learn a scorer from: take documents of {} tokens or more",
                4 * QUERIES
            ))
        };
        Scorer::new(&self.shape, model, heads.ok_or_else(too_few)?).map_err(|_| too_few())
    }
}

impl HeadFit {
    fn learn(&mut self, layer: &LayerShape, slots: &crate::Slots, tokens: usize) {
        let by_distance = ByDistance::new(self.own.means());
        let width = HeadScorer::width(layer);
        let mut features = vec![0.0; width];
        for position in SINKS..tokens.saturating_sub(QUERIES) {
            let key = &slots.keys[position * layer.key_dim..][..layer.key_dim];
            let value = &slots.values[position * layer.value_dim..][..layer.value_dim];
            HeadScorer::features(layer, key, value, position, &mut features);
            // The first pass whose queries are not near.
            let first = (position + NEAR).next_multiple_of(CHUNK);
            let expected = by_distance.before(tokens - position) - by_distance.before(first - position);
            let ratio = self.drawn[position] / expected.max(f64::MIN_POSITIVE);
            let target = (ratio + LEAST).ln().min(20.0);
            for (i, &x) in features.iter().enumerate() {
                let x = f64::from(x);
                self.right[i] += x * target;
                let row = &mut self.normal[i * width..][..i + 1];
                accumulate(row, x, &features);
            }
        }
        for bin in 0..BINS {
            self.all.mass[bin] += self.own.mass[bin];
            self.all.pairs[bin] += self.own.pairs[bin];
        }
        self.own = Bins::NONE;
        self.drawn.clear();
    }
}
