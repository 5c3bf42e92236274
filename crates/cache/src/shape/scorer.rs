//! What is known of a model's attention beforehand: how it falls with distance in each head, which tokens draw more
//! of it than their age says, and what it costs to take from a head.

use super::{CacheShape, LayerShape, norm, turn_back};
use crate::state::{Reader, StateError, Writer};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Attention at shorter distances says little of what comes later.
pub(crate) const NEAR: usize = 64;

/// Distances are told apart by half octaves: bin 2·o + h begins at 2^o·(1 + h/2), that of distance 1 is 1.
pub(crate) const BINS: usize = 42;

/// Attention weight by distance: the mean weight that a query gives to a token so many positions before it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ByDistance {
    weights: [f32; BINS],
    /// Sums of the weights of all distances below each bin's first.
    sums: [f64; BINS],
}

/// The first distance of a bin.
fn first_of(bin: usize) -> usize {
    ((2 + bin % 2) << (bin / 2)) / 2
}

/// The bin of a distance, at least 1.
pub(crate) fn bin_of(distance: usize) -> usize {
    let octave = distance.max(1).ilog2() as usize;
    let half = if octave == 0 { 1 } else { distance >> (octave - 1) & 1 };
    (2 * octave + half).min(BINS - 1)
}

/// The distances of a bin, which all have one weight.
pub(crate) struct Line {
    pub(crate) bin: usize,
    pub(crate) ages: Range<usize>,
    /// The weight of all distances before these.
    sum: f64,
    pub(crate) weight: f32,
}

impl Line {
    /// The weight of all distances from 1 to before this one.
    pub(crate) fn before(&self, distance: usize) -> f64 {
        self.sum + f64::from(self.weight) * distance.saturating_sub(self.ages.start) as f64
    }
}

impl ByDistance {
    /// Of the weight in each bin.
    pub(crate) fn new(weights: [f32; BINS]) -> Self {
        let (mut sums, mut sum) = ([0.0; BINS], 0.0);
        for bin in 0..BINS {
            sums[bin] = sum;
            let next = if bin + 1 < BINS { first_of(bin + 1) } else { first_of(bin) };
            sum += f64::from(weights[bin]) * next.saturating_sub(first_of(bin).max(1)) as f64;
        }
        ByDistance { weights, sums }
    }

    /// The weight of all distances from 1 to before `distance`.
    pub(crate) fn before(&self, distance: usize) -> f64 {
        self.line(distance).before(distance)
    }

    /// What is known of the distances that share a bin with this one.
    pub(crate) fn line(&self, distance: usize) -> Line {
        let bin = bin_of(distance);
        let end = if bin + 1 < BINS { first_of(bin + 1) } else { usize::MAX };
        Line { bin, ages: first_of(bin).max(1)..end, sum: self.sums[bin], weight: self.weights[bin] }
    }
}

/// Running means of attention by distance.
#[derive(Debug, Clone)]
pub(crate) struct Distances {
    /// Attention seen, by bin.
    mass: Box<[f32]>,
    /// Pairs of a query and a token that it was seen on, by bin.
    pairs: Box<[f32]>,
}

impl Distances {
    /// What is believed before anything was seen, as if it had been seen on so many pairs a bin.
    pub(crate) fn new(weights: &[f32], pairs: f32) -> Self {
        Distances {
            mass: weights.iter().map(|weight| weight * pairs).collect(),
            pairs: vec![pairs; weights.len()].into(),
        }
    }

    /// Where nothing is known: attention in inverse proportion to the distance.
    pub(crate) fn unknown() -> Self {
        let weights: Vec<f32> = (0..BINS).map(|bin| 0.1 / first_of(bin).max(1) as f32).collect();
        Distances::new(&weights, 64.0)
    }

    /// Attention of `mass` was seen on `pairs` pairs at distances in a bin.
    pub(crate) fn observe(&mut self, bin: usize, mass: f32, pairs: f32) {
        self.mass[bin] += mass;
        self.pairs[bin] += pairs;
    }

    /// Attention of `mass` was seen on a token by `factor` queries at each distance from `first` to before `end`; it is shared out
    /// as `means` has it.
    pub(crate) fn observe_range(
        &mut self,
        first: usize,
        end: usize,
        mass: f32,
        factor: f32,
        means: &ByDistance,
    ) {
        let all = means.before(end) - means.before(first);
        let mut from = first;
        while from < end {
            let bin = bin_of(from);
            let to = if bin + 1 < BINS { first_of(bin + 1).min(end) } else { end };
            let part = (means.before(to) - means.before(from)) / all.max(f64::MIN_POSITIVE);
            self.mass[bin] += mass * part as f32;
            self.pairs[bin] += factor * (to - from) as f32;
            from = to;
        }
    }

    pub(crate) fn means(&self) -> ByDistance {
        let mut weights = [0.0; BINS];
        for ((weight, mass), pairs) in weights.iter_mut().zip(&self.mass).zip(&self.pairs) {
            *weight = mass / pairs;
        }
        ByDistance::new(weights)
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.mass) + size_of_val(&*self.pairs)
    }

    pub(crate) fn save(&self, out: &mut Writer) {
        out.floats(&self.mass);
        out.floats(&self.pairs);
    }

    pub(crate) fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.mass = from.floats(self.mass.len())?.into();
        self.pairs = from.floats(self.pairs.len())?.into();
        Ok(())
    }
}

/// Fitted beforehand on a model's attention over some text: for every KV head, the attention weight by distance, factors
/// of a token's features whose sum is the logarithm of how much more attention it draws than others of its age, and, where that
/// was measured, how sensitive the model is to what the head loses.
#[derive(Clone)]
pub struct Scorer {
    model: u64,
    /// `[layer][kv_head]`
    heads: Arc<Vec<Vec<HeadScorer>>>,
    /// `[layer][kv_head]`, of all layers; none where nothing was measured.
    sensitivities: Option<Arc<Vec<Vec<Sensitivity>>>>,
}

/// What a model loses by what is taken from one KV head alone, as KL divergence of the next token in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sensitivity {
    /// For each unit of evicted importance: the attention that tokens would draw from the next [`QUERIES`](Self::QUERIES) queries
    /// of all heads of the group together, as `foreseen` reckons it.
    pub eviction: f32,
    /// When all its tokens have 2 bits a number.
    pub coding: f32,
}

impl Sensitivity {
    /// The queries whose attention evicted importance is.
    pub const QUERIES: f32 = 128.0;

    /// Where nothing was measured: about the middle of the heads of the three models that were (`docs/methods.md`).
    pub const TYPICAL: Sensitivity = Sensitivity { eviction: 2e-5, coding: 2e-4 };
}

/// Of one KV head.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadScorer {
    /// Factors of the [features](HeadScorer::features).
    pub factors: Vec<f32>,
    /// Attention weight in each bin of distances.
    pub by_distance: Vec<f32>,
}

const MAGIC: &[u8; 8] = b"SKVSCOR2";
/// Of files without sensitivities.
const MAGIC_1: &[u8; 8] = b"SKVSCOR1";

impl HeadScorer {
    /// The most features that a token has.
    pub(crate) const MOST: usize = 2 * 512 + 3;

    /// Writes the features of a token into `out`, `[HeadScorer::width]`: its key before rotation, its value, the logarithms of
    /// their norms, and 1.
    pub fn features(layer: &LayerShape, key: &[f32], value: &[f32], position: usize, out: &mut [f32]) {
        let (own_key, rest) = out.split_at_mut(key.len());
        let (own_value, rest) = rest.split_at_mut(value.len());
        own_key.copy_from_slice(key);
        if let Some(rotation) = &layer.rotation {
            turn_back(rotation.turns(position), own_key);
        }
        own_value.copy_from_slice(value);
        let log = |x: &[f32]| norm(x).max(f32::MIN_POSITIVE).ln();
        rest.copy_from_slice(&[log(key), log(value), 1.0]);
    }

    /// How many features a token of a layer has.
    pub fn width(layer: &LayerShape) -> usize {
        layer.key_dim + layer.value_dim + 3
    }
}

impl Scorer {
    /// Of `heads`, `[layer][kv_head]`, of the model with this fingerprint; a layer with a sliding window, which never chooses,
    /// has none.
    ///
    /// # Errors
    /// When a head has another number of factors or bins than the shape asks for, or a number is not finite.
    pub fn new(shape: &CacheShape, model: u64, heads: Vec<Vec<HeadScorer>>) -> Result<Scorer, String> {
        if heads.len() != shape.layers.len() {
            return Err(format!("it is for {} layers, the model has {}", heads.len(), shape.layers.len()));
        }
        for (number, (layer, heads)) in shape.layers.iter().zip(&heads).enumerate() {
            let expected = if layer.window.is_some() { 0 } else { layer.kv_heads };
            if heads.len() != expected {
                return Err(format!(
                    "layer {number} has {} heads in it, {expected} in the model",
                    heads.len()
                ));
            }
            for head in heads {
                let (factors, bins) = (head.factors.len(), head.by_distance.len());
                if (factors, bins) != (HeadScorer::width(layer), BINS) {
                    return Err(format!("layer {number} has {factors} factors and {bins} bins"));
                }
                let positive = head.by_distance.iter().all(|x| x.is_finite() && *x >= 0.0);
                if !positive || !head.factors.iter().all(|x| x.is_finite()) {
                    return Err(format!("layer {number} has a number that is not finite or no weight"));
                }
            }
        }
        Ok(Scorer { model, heads: Arc::new(heads), sensitivities: None })
    }

    /// With what was measured of every KV head, `[layer][kv_head]`.
    ///
    /// # Errors
    /// When there are other heads than in the shape, or a number is not positive.
    pub fn with_sensitivities(
        self,
        shape: &CacheShape,
        sensitivities: Vec<Vec<Sensitivity>>,
    ) -> Result<Scorer, String> {
        let found: Vec<usize> = sensitivities.iter().map(Vec::len).collect();
        let expected: Vec<usize> = shape.layers.iter().map(|layer| layer.kv_heads).collect();
        if found != expected {
            return Err(format!("there are sensitivities of {found:?} heads, the model has {expected:?}"));
        }
        let is_positive =
            |one: &Sensitivity| [one.eviction, one.coding].iter().all(|x| x.is_normal() && *x > 0.0);
        if !sensitivities.iter().flatten().all(is_positive) {
            return Err("a sensitivity is not a positive number".to_owned());
        }
        Ok(Scorer { sensitivities: Some(Arc::new(sensitivities)), ..self })
    }

    /// What was measured of every KV head, `[layer][kv_head]`.
    pub fn sensitivities(&self) -> Option<&[Vec<Sensitivity>]> {
        self.sensitivities.as_ref().map(|all| &all[..])
    }

    /// The fingerprint of the model that it is for.
    pub fn model(&self) -> u64 {
        self.model
    }

    /// Of a KV head, where it has one.
    pub(crate) fn head(&self, layer: usize, kv_head: usize) -> Option<&HeadScorer> {
        self.heads.get(layer)?.get(kv_head)
    }

    /// As bytes, to be kept in a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.raw(MAGIC);
        out.u64(self.model);
        out.u64(self.heads.len() as u64);
        for heads in &*self.heads {
            out.u64(heads.len() as u64);
            for head in heads {
                out.u64(head.factors.len() as u64);
                out.floats(&head.factors);
                out.floats(&head.by_distance);
            }
        }
        let sensitivities = self.sensitivities().unwrap_or_default();
        out.u64(sensitivities.len() as u64);
        for heads in sensitivities {
            out.u64(heads.len() as u64);
            heads.iter().for_each(|head| out.floats(&[head.eviction, head.coding]));
        }
        out.finish()
    }

    /// Reads what [`Scorer::to_bytes`] wrote, for a model of this shape.
    ///
    /// # Errors
    /// When the bytes are not a scorer's, or it is another model's.
    pub fn from_bytes(shape: &CacheShape, bytes: &[u8]) -> Result<Scorer, String> {
        let mut from = Reader::new(bytes);
        let (model, heads, sensitivities) =
            read(&mut from).map_err(|_| "it is no scorer, or only a part of one".to_owned())?;
        if !from.is_empty() {
            return Err("something follows it".to_owned());
        }
        let scorer = Scorer::new(shape, model, heads)?;
        if sensitivities.is_empty() { Ok(scorer) } else { scorer.with_sensitivities(shape, sensitivities) }
    }
}

type Read = (u64, Vec<Vec<HeadScorer>>, Vec<Vec<Sensitivity>>);

fn read(from: &mut Reader<'_>) -> Result<Read, StateError> {
    let magic = from.raw(MAGIC.len())?;
    let measured = magic == MAGIC;
    if !measured && magic != MAGIC_1 {
        return Err(StateError::Corrupt("no scorer".to_owned()));
    }
    let model = from.u64()?;
    let layers = from.length(1 << 12)?;
    let mut all = vec![];
    for _ in 0..layers {
        let mut heads = vec![];
        for _ in 0..from.length(1 << 12)? {
            let width = from.length(1 << 12)?;
            heads.push(HeadScorer { factors: from.floats(width)?, by_distance: from.floats(BINS)? });
        }
        all.push(heads);
    }
    let mut sensitivities = vec![];
    for _ in 0..if measured { from.length(1 << 12)? } else { 0 } {
        let heads = from.length(1 << 12)?;
        let numbers = (0..heads).map(|_| from.floats(2)).collect::<Result<Vec<_>, _>>()?;
        sensitivities.push(numbers.iter().map(|x| Sensitivity { eviction: x[0], coding: x[1] }).collect());
    }
    Ok((model, all, sensitivities))
}

impl fmt::Debug for Scorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scorer")
    }
}

/// The same one, not an equal one.
impl PartialEq for Scorer {
    fn eq(&self, other: &Self) -> bool {
        let measured = (&self.sensitivities, &other.sensitivities);
        Arc::ptr_eq(&self.heads, &other.heads)
            && match measured {
                (Some(own), Some(other)) => Arc::ptr_eq(own, other),
                (own, other) => own.is_none() && other.is_none(),
            }
    }
}
