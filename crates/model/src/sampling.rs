use crate::ModelError;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less probable than this share of the most probable; 0 drops none.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens among the last `repetition_window`; 1 is off.
    pub repetition_penalty: f32,
    /// How many of the last tokens the penalty looks at.
    pub repetition_window: usize,
    /// Reproduces a run.
    pub seed: u64,
}

impl Sampling {
    /// Always the most probable token.
    pub fn greedy() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            seed: 0,
        }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, ..Sampling::greedy() }
    }
}

/// Chooses tokens; remembers what the repetition penalty needs.
pub struct Sampler {
    #[allow(dead_code)]
    sampling: Sampling,
}

impl Sampler {
    /// A sampler, or an error that names the parameter out of range.
    pub fn new(sampling: Sampling) -> Result<Self, ModelError> {
        Ok(Sampler { sampling })
    }

    /// Tells the sampler of a token it did not choose: one of the prompt.
    pub fn observe(&mut self, token: u32) {
        let _ = token;
    }

    /// Chooses the next token from `logits` `[vocabulary]` and remembers it.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(i, _)| i as u32)
    }
}
