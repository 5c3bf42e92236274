use super::{Lab, job::Work};
use crate::{EvalError, Footprint, Progress, REFERENCE_SPEC, Step, metrics::corpus_bleu};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{Cache, Spec};
use sketchkv_engine::{GenerateOptions, Generation};
use sketchkv_model::{Sampler, Sampling};

/// Greedy continuations beside those of the uncompressed cache and the text's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// BLEU against the continuations of the uncompressed cache, 0 to 100.
    pub bleu_uncompressed: f64,
    /// BLEU against how the text really goes on.
    pub bleu_reference: f64,
    /// BLEU of the uncompressed cache's continuations against how the text really goes on.
    pub uncompressed_bleu_reference: f64,
    /// Continuations that are the uncompressed cache's, letter for letter.
    pub identical: usize,
    /// Continuations.
    pub samples: usize,
    /// The first continuation.
    pub example: String,
    /// The cache at the end of the first continuation.
    #[serde(flatten)]
    pub footprint: Footprint,
}

/// Continuations of all prompts, and the cache at the end of the first.
struct Continuations {
    texts: Vec<String>,
    footprint: Option<Footprint>,
}

impl Lab<'_> {
    pub(super) fn generate(
        &mut self,
        work: &Work,
        spec: &Spec,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Result<Generated, EvalError> {
        let &Work::Generate { prompt, samples, tokens } = work else { unreachable!("generated work") };
        let documents = self.corpus.sample(self.model, prompt + tokens, samples)?.documents;
        let prompts: Vec<&[u32]> =
            documents.iter().map(|document| &document[..document.len() - tokens]).collect();
        let real: Vec<Vec<String>> = documents
            .iter()
            .map(|document| vec![self.model.tokenizer().decode(&document[document.len() - tokens..])])
            .collect();
        if self.uncompressed.as_ref().is_none_or(|(of, _)| of != work) {
            let reference: Spec = REFERENCE_SPEC.parse()?;
            let reference = self.continuations(&prompts, tokens, &reference, 0, progress)?;
            self.uncompressed = Some((work.clone(), reference.texts));
        }
        let Continuations { texts: ours, footprint } =
            self.continuations(&prompts, tokens, spec, seed, progress)?;
        let uncompressed = self.uncompressed.as_ref().map(|(_, texts)| texts.clone()).unwrap_or_default();
        let beside: Vec<Vec<&String>> = uncompressed.iter().map(|text| vec![text]).collect();
        Ok(Generated {
            bleu_uncompressed: corpus_bleu(&ours, &beside).score,
            bleu_reference: corpus_bleu(&ours, &real).score,
            uncompressed_bleu_reference: corpus_bleu(&uncompressed, &real).score,
            identical: ours.iter().zip(&uncompressed).filter(|(a, b)| a == b).count(),
            samples: ours.len(),
            example: ours.into_iter().next().unwrap_or_default(),
            footprint: footprint.ok_or_else(|| EvalError::Input("there is no prompt to continue".into()))?,
        })
    }

    fn continuations(
        &mut self,
        prompts: &[&[u32]],
        tokens: usize,
        spec: &Spec,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Result<Continuations, EvalError> {
        let total = prompts.len() as u64;
        let (mut texts, mut footprint) = (Vec::new(), None);
        for (done, prompt) in prompts.iter().enumerate() {
            let cache = Cache::new(self.model.cache_shape(), spec, seed)?;
            let mut generation = Generation::new(cache, Sampler::new(Sampling::greedy())?);
            let options =
                GenerateOptions { max_tokens: Some(tokens), ignore_end: true, ..GenerateOptions::default() };
            generation.feed(self.model, prompt, &options)?;
            texts.push(generation.complete(self.model, &mut self.workspace)?.to_owned());
            footprint.get_or_insert_with(|| Footprint::of(generation.cache()));
            progress.step(Step { what: "continuations", done: done as u64 + 1, total });
        }
        Ok(Continuations { texts, footprint })
    }
}
