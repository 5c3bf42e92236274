//! What is measured, each on plain slices: no model and no cache is needed to use or test a metric.

mod attention;
mod bleu;
mod bootstrap;
mod divergence;
mod estimate;
mod latency;
mod reference;

pub use attention::{AttentionFidelity, FidelityMean, attention_fidelity};
pub use bleu::{Bleu, corpus_bleu, sentence_bleu, tokenize_13a};
pub use bootstrap::{Interval, Unit, bootstrap_mean, paired_bootstrap};
pub use divergence::{DivergenceTable, TokenScore};
pub use estimate::{Estimate, median, quantile};
pub use latency::Latency;
pub use reference::{Reference, score_logits};
