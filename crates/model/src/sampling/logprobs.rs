/// The logarithms of probabilities at one place of a text, in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token that was chosen there; -∞ if the model does not have it.
    pub logprob: f32,
    /// The most probable tokens with theirs, best first, among equals the smaller token first.
    pub top: Vec<(u32, f32)>,
}

/// What `logits` `[vocabulary]` say of `token`, and of the `top` most probable tokens: logit - log Σ e^logit, summed in f64.
///
/// These are the model's own probabilities, before temperature, penalties and cuts.
///
/// ```
/// let logits = [0.0, 1.0, 0.0, -4.0];
/// let of = sketchkv_model::logprobs(&logits, 0, 2);
/// assert_eq!(of.top[0].0, 1);
/// assert_eq!(of.top[1], (0, of.logprob));
/// ```
pub fn logprobs(logits: &[f32], token: u32, top: usize) -> TokenLogprobs {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let above: f64 = logits.iter().map(|&logit| (f64::from(logit) - f64::from(best)).exp()).sum();
    let total = f64::from(best) + above.ln();
    let logprob = |logit: f32| (f64::from(logit) - total) as f32;
    let better = |&a: &u32, &b: &u32| {
        let of = |token: u32| logits[token as usize];
        of(b).total_cmp(&of(a)).then(a.cmp(&b))
    };
    let mut tokens: Vec<u32> = if top == 0 { Vec::new() } else { (0..logits.len() as u32).collect() };
    if top < tokens.len() && top > 0 {
        tokens.select_nth_unstable_by(top - 1, better);
        tokens.truncate(top);
    }
    tokens.sort_unstable_by(better);
    TokenLogprobs {
        logprob: logits.get(token as usize).map_or(f32::NEG_INFINITY, |&logit| logprob(logit)),
        top: tokens.into_iter().map(|token| (token, logprob(logits[token as usize]))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_there_has_no_probability() {
        let of = logprobs(&[1.0, 2.0], 9, 5);
        assert_eq!(of.logprob, f32::NEG_INFINITY);
        assert_eq!(of.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(logprobs(&[], 0, 3), TokenLogprobs { logprob: f32::NEG_INFINITY, top: vec![] });
        assert!(logprobs(&[1.0], 0, 0).top.is_empty());
        // Neither a sum nor a difference overflows.
        let of = logprobs(&[f32::MAX, f32::MIN], 0, 2);
        assert_eq!((of.logprob, of.top[1].1), (0.0, f32::NEG_INFINITY));
    }

    proptest! {
        /// Against the definition, in f64 and by a sort of all.
        #[test]
        fn the_definition(
            logits in prop::collection::vec((-80i32..80).prop_map(|x| x as f32 / 4.0), 1..300),
            token in 0usize..300,
            top in 0usize..30,
        ) {
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let exact = |token: usize| f64::from(logits[token]) - sum.ln();
            let of = logprobs(&logits, token as u32, top);
            if token < logits.len() {
                prop_assert!((f64::from(of.logprob) - exact(token)).abs() < 1e-5);
            }
            let mut sorted: Vec<usize> = (0..logits.len()).collect();
            sorted.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            sorted.truncate(top);
            let tokens: Vec<usize> = of.top.iter().map(|(token, _)| *token as usize).collect();
            prop_assert_eq!(&tokens, &sorted);
            for (&token, (_, logprob)) in sorted.iter().zip(&of.top) {
                prop_assert!((f64::from(*logprob) - exact(token)).abs() < 1e-5);
            }
        }
    }
}
