use crate::ModelError;

/// How the next token is chosen.
///
/// The order is fixed: bias, repetition penalty, presence and frequency penalty, temperature, top-k, top-p, min-p, draw.
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
    /// (CTRL, arXiv 1909.05858)
    pub repetition_penalty: f32,
    /// Is taken once from the logit of each token that the model itself chose among the last `repetition_window`; from -2
    /// to 2, 0 is off.
    pub presence_penalty: f32,
    /// Is taken from the logit of a token as often as the model itself chose it among the last `repetition_window`; from
    /// -2 to 2, 0 is off.
    pub frequency_penalty: f32,
    /// How many of the last tokens the penalties look at.
    pub repetition_window: usize,
    /// Tokens, and what is added to their logits: from -100, which bans, to 100, which forces. Tokens that the model does
    /// not have play no part.
    pub logit_bias: Vec<(u32, f32)>,
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
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_window: 64,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }

    /// Whether all parameters are in their ranges.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse("temperature", self.temperature, "0 (greedy) or above");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top-p", self.top_p, "above 0 and at most 1 (off)");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min-p", self.min_p, "from 0 (off) to 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return refuse("repetition penalty", self.repetition_penalty, "above 0; 1 is off");
        }
        if !(-2.0..=2.0).contains(&self.presence_penalty) {
            return refuse("presence penalty", self.presence_penalty, "from -2 to 2; 0 is off");
        }
        if !(-2.0..=2.0).contains(&self.frequency_penalty) {
            return refuse("frequency penalty", self.frequency_penalty, "from -2 to 2; 0 is off");
        }
        match self.logit_bias.iter().find(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
            Some((token, bias)) => {
                refuse(&format!("logit bias of token {token}"), *bias, "from -100 (never) to 100 (always)")
            }
            None => Ok(()),
        }
    }
}

fn refuse(what: &str, value: f32, range: &str) -> Result<(), ModelError> {
    Err(ModelError::Argument(format!("{what} must be {range}, not {value}")))
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, ..Sampling::greedy() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_range_are_named() {
        let plain = Sampling::greedy;
        let refused = [
            (Sampling { temperature: f32::NAN, ..plain() }, "temperature must be"),
            (Sampling { top_p: 0.0, ..plain() }, "top-p must be"),
            (Sampling { min_p: 1.5, ..plain() }, "min-p must be"),
            (Sampling { repetition_penalty: 0.0, ..plain() }, "repetition penalty must be"),
            (
                Sampling { presence_penalty: 2.5, ..plain() },
                "presence penalty must be from -2 to 2; 0 is off, not 2.5",
            ),
            (Sampling { frequency_penalty: f32::NAN, ..plain() }, "frequency penalty must be"),
            (
                Sampling { logit_bias: vec![(3, 100.0), (7, -101.0)], ..plain() },
                "logit bias of token 7 must be from -100 (never) to 100 (always), not -101",
            ),
        ];
        for (sampling, message) in refused {
            let refused = sampling.check().unwrap_err().to_string();
            assert!(refused.starts_with(message), "{refused}");
        }
        let edges = Sampling {
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            logit_bias: vec![(0, -100.0)],
            ..plain()
        };
        assert!(edges.check().is_ok());
    }
}
