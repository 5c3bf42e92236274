//! The rules that hash: over dictionaries and over single rows of the sketch crate, with the same hash functions.

use crate::formulas::Rule;
use crate::{View, wide};
use sketchkv_sketch::{CountMin, CountSketch, Projection, SimHash, mix};
use std::collections::HashMap;

pub(crate) struct HashEvict {
    hash: SimHash,
}

impl HashEvict {
    pub(crate) fn new(view: &View<'_>, bits: usize) -> Self {
        HashEvict { hash: SimHash::new(view.d(), bits, Projection::Hadamard, view.own_seed()).unwrap() }
    }

    fn signs(&self, x: &[f32]) -> Vec<bool> {
        let mut projections = vec![0.0; self.hash.bits()];
        self.hash.project(x, &mut projections);
        projections.iter().map(|&p| p >= 0.0).collect()
    }
}

impl Rule for HashEvict {
    fn importance(&mut self, view: &View<'_>, token: usize, tokens: &[usize]) -> Vec<f64> {
        let queries: Vec<_> = (0..view.group()).map(|m| self.signs(view.query(token, m))).collect();
        let distance = |&t: &usize| {
            let key = self.signs(view.key(t));
            let apart = |query: &Vec<bool>| key.iter().zip(query).filter(|(a, b)| a != b).count();
            queries.iter().map(apart).sum::<usize>() as f64
        };
        tokens.iter().map(|t| -distance(t)).collect()
    }
}

/// Amounts under keys.
pub(crate) trait Amounts {
    fn decay(&mut self, factor: f64);
    fn add(&mut self, key: u64, amount: f64);
    fn get(&self, key: u64) -> f64;
}

/// What `cms`, `countsketch` and `race` do around their sketch.
pub(crate) struct Counted {
    hash: Option<SimHash>,
    seed: u64,
    decay: f64,
    keys: HashMap<usize, u64>,
    mean: Vec<f64>,
    amounts: Box<dyn Amounts>,
}

impl Counted {
    pub(crate) fn new(
        view: &View<'_>,
        key: &str,
        bits: usize,
        decay: f64,
        amounts: Box<dyn Amounts>,
    ) -> Self {
        let seed = view.own_seed();
        let hash = || SimHash::new(view.d(), bits, Projection::Hadamard, seed).unwrap();
        Counted {
            hash: (key == "content").then(hash),
            seed,
            decay,
            keys: HashMap::new(),
            mean: vec![0.0; view.d()],
            amounts,
        }
    }
}

impl Rule for Counted {
    fn see(&mut self, view: &View<'_>, token: usize, tokens: &[usize], mass: &[f64]) {
        self.amounts.decay(self.decay);
        let slots = tokens.len() - 1;
        for (t, &mass) in tokens[..slots].iter().zip(mass) {
            self.amounts.add(self.keys[t], mass);
        }
        let key = match &self.hash {
            None => mix(self.seed ^ token as u64),
            Some(hash) => {
                let key = wide(view.key(token));
                let seen = token as f64;
                self.mean.iter_mut().zip(&key).for_each(|(m, x)| *m = (*m * seen + x) / (seen + 1.0));
                let centred: Vec<f32> = key.iter().zip(&self.mean).map(|(x, m)| (x - m) as f32).collect();
                let mut code = [0];
                hash.encode(&centred, &mut code);
                code[0]
            }
        };
        self.keys.insert(token, key);
        self.amounts.add(key, mass[slots]);
    }

    fn importance(&mut self, _: &View<'_>, _: usize, tokens: &[usize]) -> Vec<f64> {
        tokens.iter().map(|t| self.amounts.get(self.keys[t])).collect()
    }
}

/// No sketch at all.
#[derive(Default)]
pub(crate) struct Exact(HashMap<u64, f64>);

impl Amounts for Exact {
    fn decay(&mut self, factor: f64) {
        self.0.values_mut().for_each(|x| *x *= factor);
    }

    fn add(&mut self, key: u64, amount: f64) {
        *self.0.entry(key).or_default() += amount;
    }

    fn get(&self, key: u64) -> f64 {
        self.0[&key]
    }
}

/// The sketch crate's, which never decays here: what comes later counts for more.
pub(crate) struct CountMinRows {
    rows: CountMin<f32>,
    weight: f64,
}

impl CountMinRows {
    pub(crate) fn new(view: &View<'_>, width: usize, depth: usize) -> Self {
        CountMinRows { rows: CountMin::new(width, depth, view.own_seed()).unwrap(), weight: 1.0 }
    }
}

impl Amounts for CountMinRows {
    fn decay(&mut self, factor: f64) {
        self.weight /= factor;
    }

    fn add(&mut self, key: u64, amount: f64) {
        self.rows.update_hash(key, (amount * self.weight) as f32);
    }

    fn get(&self, key: u64) -> f64 {
        self.rows.query_hash(key) as f64 / self.weight
    }
}

/// The same with signs.
pub(crate) struct SignedRows {
    rows: CountSketch<f32>,
    weight: f64,
}

impl SignedRows {
    pub(crate) fn new(view: &View<'_>, width: usize, depth: usize) -> Self {
        SignedRows { rows: CountSketch::new(width, depth, view.own_seed()).unwrap(), weight: 1.0 }
    }
}

impl Amounts for SignedRows {
    fn decay(&mut self, factor: f64) {
        self.weight /= factor;
    }

    fn add(&mut self, key: u64, amount: f64) {
        self.rows.update_hash(key, (amount * self.weight) as f32);
    }

    fn get(&self, key: u64) -> f64 {
        self.rows.query_hash(key) as f64 / self.weight
    }
}

/// A dictionary of buckets for each row.
pub(crate) struct Buckets {
    rows: Vec<HashMap<u64, f64>>,
    bits: usize,
}

impl Buckets {
    pub(crate) fn new(rows: usize, bits: usize) -> Self {
        Buckets { rows: vec![HashMap::new(); rows], bits }
    }

    fn bucket(&self, key: u64, row: usize) -> u64 {
        (key >> (row * self.bits)) % (1 << self.bits)
    }
}

impl Amounts for Buckets {
    fn decay(&mut self, factor: f64) {
        self.rows.iter_mut().flat_map(HashMap::values_mut).for_each(|x| *x *= factor);
    }

    fn add(&mut self, key: u64, amount: f64) {
        for row in 0..self.rows.len() {
            *self.rows[row].entry((key >> (row * self.bits)) % (1 << self.bits)).or_default() += amount;
        }
    }

    fn get(&self, key: u64) -> f64 {
        let counter = |row: usize| self.rows[row].get(&self.bucket(key, row)).copied().unwrap_or(0.0);
        (0..self.rows.len()).map(counter).sum::<f64>() / self.rows.len() as f64
    }
}
