use super::{
    Experiment, Lab, Settings,
    compare::{CONTROLS, fitting},
    job::{Common, Job, Work},
};
use crate::{
    EvalError, Footprint, Progress, Step,
    metrics::{AttentionFidelity, FidelityMean, attention_fidelity},
    scoring::REFERENCE_SPEC,
};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{Attention, Cache, Spec};
use sketchkv_model::{Logits, Model, Sequence};

/// The positions whose recall is measured: the most looked at.
const TOP: usize = 64;

/// How close a cache's attention is to the exact one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttentionMeasured {
    /// Mean over all layers, heads and steps.
    pub mean: AttentionFidelity,
    /// Mean over the heads and steps of each layer.
    pub layers: Vec<AttentionFidelity>,
    /// KL divergence, mean over steps, `[layer][query head]`.
    pub kl: Vec<Vec<f64>>,
    /// Cosine, mean over steps, `[layer][query head]`.
    pub cosine: Vec<Vec<f64>>,
    /// Share of attention that goes to what stands for tokens no longer kept, mean.
    pub remembered: f64,
    /// Steps compared.
    pub steps: usize,
    /// The cache at the end of the last document.
    #[serde(flatten)]
    pub footprint: Footprint,
}

/// The controls, the original's two strategies at its own sizes, and one of each kind at the budgets.
pub(super) fn jobs(common: &Common<'_>, settings: &Settings, specs: &[Spec], model: &Model) -> Vec<Job> {
    let specs = if specs.is_empty() {
        let original =
            ["topk", "aggregate", "cms(width=512,depth=4)@64tok", "cms(width=512,depth=4)+buckets@64tok"];
        let keeps = ["window", "h2o", "h2o+k=kivi4+v=q4", "topk", "aggregate"];
        let capped = settings.budgets.iter().flat_map(|cap| keeps.map(|keep| format!("{keep}@{cap}")));
        fitting(model, CONTROLS.into_iter().chain(original).map(str::to_owned).chain(capped))
    } else {
        specs.to_vec()
    };
    let context = settings.context.min(512);
    let work = Work::Attention { context, samples: settings.samples, warm_up: WARM_UP.min(context / 2) };
    let jobs = |&seed: &u64| {
        let work = work.clone();
        specs
            .iter()
            .map(move |spec| common.job(Experiment::Attention, spec, seed, work.clone()))
            .collect::<Vec<_>>()
    };
    settings.seeds.iter().flat_map(jobs).collect()
}

/// Tokens before the first step that is compared, as in the original's experiment.
const WARM_UP: usize = 64;

impl Lab<'_> {
    pub(super) fn attention(
        &mut self,
        work: &Work,
        spec: &Spec,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Result<AttentionMeasured, EvalError> {
        let &Work::Attention { context, samples, warm_up } = work else { unreachable!("attention work") };
        let shape = self.model.cache_shape();
        let mut means: Vec<Vec<FidelityMean>> =
            shape.layers.iter().map(|layer| vec![FidelityMean::default(); layer.heads]).collect();
        let (mut remembered, mut footprint) = (0.0, None);
        let documents = self.corpus.sample(self.model, context, samples)?.documents;
        let total = (documents.len() * context) as u64;
        for (index, tokens) in documents.iter().enumerate() {
            let exact: Spec = REFERENCE_SPEC.parse()?;
            let mut caches =
                [Cache::new(shape.clone(), &exact, seed)?, Cache::new(shape.clone(), spec, seed)?];
            for cache in &mut caches {
                let mut batch = [Sequence { tokens: &tokens[..warm_up], cache }];
                self.model.forward(&mut batch, &mut self.workspace, Logits::None).all()?;
                cache.watch_attention();
            }
            for at in warm_up..tokens.len() {
                for cache in &mut caches {
                    let mut batch = [Sequence { tokens: &tokens[at..=at], cache }];
                    self.model.forward(&mut batch, &mut self.workspace, Logits::None).all()?;
                }
                let pairs = caches[0].attention().iter().zip(caches[1].attention());
                for ((exact, cached), means) in pairs.zip(&mut means) {
                    remembered += add(exact, cached, means);
                }
                let done = (index * context + at + 1) as u64;
                progress.step(Step { what: "attention", done, total });
            }
            footprint = Some(Footprint::of(&caches[1]));
        }
        let too_short = || EvalError::Input("no step was compared: give a longer text".into());
        let steps = means[0][0].count();
        let of = |heads: &mut dyn Iterator<Item = &FidelityMean>| {
            let mut all = FidelityMean::default();
            heads.for_each(|head| all.merge(head));
            all.mean().ok_or_else(too_short)
        };
        let each = |f: fn(AttentionFidelity) -> f64| -> Vec<Vec<f64>> {
            let of_head = |head: &FidelityMean| head.mean().map_or(f64::NAN, f);
            means.iter().map(|heads| heads.iter().map(of_head).collect()).collect()
        };
        Ok(AttentionMeasured {
            mean: of(&mut means.iter().flatten())?,
            layers: means.iter().map(|heads| of(&mut heads.iter())).collect::<Result<_, _>>()?,
            kl: each(|fidelity| fidelity.kl),
            cosine: each(|fidelity| fidelity.cosine),
            remembered: remembered / (steps * means.iter().map(Vec::len).sum::<usize>()) as f64,
            steps,
            footprint: footprint.ok_or_else(too_short)?,
        })
    }
}

/// Compares one layer's heads; returns the sum of what they give to what they remember.
fn add(exact: &Attention, cached: &Attention, means: &mut [FidelityMean]) -> f64 {
    let heads = exact.weights.iter().zip(&cached.weights).zip(&cached.remembered);
    for (((exact, cached), &remembered), mean) in heads.zip(means) {
        // What stands for all positions that were not read stands for each of them alike.
        let unread = cached.iter().filter(|&&weight| weight == 0.0).count().max(1) as f32;
        let cached: Vec<f32> =
            cached.iter().map(|&weight| if weight == 0.0 { remembered / unread } else { weight }).collect();
        if let Some(fidelity) = attention_fidelity(exact, &cached, TOP) {
            mean.add(&fidelity);
        }
    }
    cached.remembered.iter().map(|&weight| f64::from(weight)).sum()
}
