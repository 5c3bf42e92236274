use crate::{
    EvalError, Failure, experiments::distinct, footprint::floor_bytes, format, size::uncapped_bytes,
};
use sketchkv_cache::{Cache, Cap, Spec};
use sketchkv_model::Model;

/// Caches of all tokens: those that fit the budget need no eviction.
const UNCAPPED: [&str; 7] =
    ["full", "full+q8", "auto", "full+graded(bits=4)", "full+graded", "full+q4h", "full+k=kivi4+v=q4"];

/// Caches that are held to the budget.
const CAPPED: [&str; 4] = ["auto", "window", "h2o+q8", "expected+k=q8+v=q4h+pyramid(beta=0.75)"];

/// A cache that the model accepts and that takes no more than the budget.
pub(super) struct Contender {
    /// As it would be used.
    pub(super) spec: Spec,
    /// Bytes that it takes at the context asked for; of a cache with a cap, the most.
    pub(super) bytes: usize,
    /// The least that it needs; `None` without a cap.
    floor: Option<usize>,
}

/// The caches that can be used at `context` tokens within `budget` bytes, and why others cannot.
pub(super) fn contenders(model: &Model, budget: usize, context: usize) -> (Vec<Contender>, Vec<Failure>) {
    let capped = CAPPED.map(|keep| format!("{keep}@{budget}B"));
    let (mut specs, mut rejected) = (Vec::new(), Vec::new());
    for text in UNCAPPED.iter().map(|&text| text.to_owned()).chain(capped) {
        match text.parse::<Spec>() {
            Ok(spec) => specs.push(spec),
            Err(error) => rejected.push(Failure { name: None, spec: text, error: error.to_string() }),
        }
    }
    let mut contenders = Vec::new();
    for spec in distinct(specs) {
        match contender(model, &spec, budget, context) {
            Ok(contender) => contenders.push(contender),
            Err(reason) => rejected.push(Failure::of(&spec, reason)),
        }
    }
    (contenders, rejected)
}

fn contender(model: &Model, spec: &Spec, budget: usize, context: usize) -> Result<Contender, String> {
    let shape = model.cache_shape();
    Cache::new(shape.clone(), spec, 0).map_err(|error| error.to_string())?;
    let size = |bytes: usize| format::bytes(bytes as u64);
    let of_all_tokens = everything(model, spec, context).map_err(|error| error.to_string())?;
    // What can lose bits is told apart by them long before it evicts.
    match (spec.evicts(), of_all_tokens <= budget) {
        (false, true) => Ok(Contender { spec: spec.clone(), bytes: of_all_tokens, floor: None }),
        (false, false) => Err(format!(
            "takes {} for {} tokens, more than the budget of {}",
            size(of_all_tokens),
            format::count(context as u64),
            size(budget)
        )),
        (true, true) => Err(format!(
            "never evicts: all {} tokens take {} in these stores and fit",
            format::count(context as u64),
            size(of_all_tokens)
        )),
        (true, false) => {
            let floor = floor_bytes(&shape, spec);
            Ok(Contender { spec: spec.clone(), bytes: budget, floor })
        }
    }
}

/// Bytes of a cache with the stores of `spec` that keeps all of `tokens` tokens.
fn everything(model: &Model, spec: &Spec, tokens: usize) -> Result<usize, EvalError> {
    let all = Spec { keys: spec.keys.clone(), values: spec.values.clone(), ..Spec::default() };
    Ok(uncapped_bytes(&model.cache_shape(), &all, tokens, model.pool())?)
}

/// Whether a cap takes bits of all tokens before it takes tokens.
pub(super) fn loses_bits(spec: &Spec) -> bool {
    spec.evicts() && spec.keys.method().name == "progressive"
}

impl Contender {
    /// From how many tokens on its share of the budget, in proportion to the context, is no less than its floor.
    pub(super) fn shortest(&self, budget: usize, context: usize) -> usize {
        self.floor.map_or(0, |floor| (floor as f64 * context as f64 / budget as f64).ceil() as usize)
    }

    /// As it is measured on `tokens` tokens: with the same share of bytes.
    pub(super) fn measured(&self, tokens: usize, context: usize) -> Spec {
        match self.spec.cap {
            Cap::Bytes(budget) if tokens < context => {
                let bytes = (budget as f64 * tokens as f64 / context as f64) as usize;
                Spec { cap: Cap::Bytes(bytes.max(1)), ..self.spec.clone() }
            }
            _ => self.spec.clone(),
        }
    }
}

/// The cache of the lists above that works with the fewest bytes at `context` tokens, and those bytes.
pub(super) fn smallest(model: &Model, context: usize) -> Option<(Spec, usize)> {
    let shape = model.cache_shape();
    let capped = CAPPED.iter().filter_map(|keep| {
        let spec: Spec = format!("{keep}@1B").parse().ok()?;
        let floor = floor_bytes(&shape, &spec)?;
        let spec = Spec { cap: Cap::Bytes(floor), ..spec };
        Cache::new(shape.clone(), &spec, 0).ok()?;
        Some((spec, floor))
    });
    let uncapped = UNCAPPED.iter().filter_map(|text| {
        let spec: Spec = text.parse().ok()?;
        let bytes = everything(model, &spec, context).ok()?;
        Some((spec, bytes))
    });
    capped.chain(uncapped).min_by_key(|(_, bytes)| *bytes)
}
