use super::{Estimate, quantile};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One scored token: the next-token distribution q of a cache beside p of the uncompressed cache.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TokenScore {
    /// KL(p ‖ q) in nats.
    pub kl: f64,
    /// q(token) − p(token) of the token that really follows.
    pub delta_p: f64,
    /// Whether p and q have the same most probable token.
    pub same_top: bool,
    /// −ln q(token).
    pub nll: f64,
    /// −ln p(token).
    pub nll_reference: f64,
}

/// What llama-perplexity prints of a run against a base run, over the same scored tokens.
///
/// Its `±` are standard errors over tokens, as there; the errors by documents are those of
/// [`paired_bootstrap`](super::paired_bootstrap).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DivergenceTable {
    /// Scored tokens.
    pub tokens: usize,
    /// Perplexity, exp of the mean NLL.
    pub ppl: Estimate,
    /// Perplexity of the uncompressed cache on the same tokens.
    pub ppl_reference: Estimate,
    /// ln(ppl / ppl_reference): the mean of the paired differences of NLL.
    pub ln_ppl_ratio: Estimate,
    /// Correlation of the tokens' NLL with the reference's.
    pub nll_correlation: f64,
    /// KL divergence in nats.
    pub kl: Estimate,
    /// Ends and percentiles of the divergence.
    pub kl_at: KlPercentiles,
    /// Δp, the change of the true token's probability.
    pub delta_p: Estimate,
    /// Root of the mean square of Δp.
    pub delta_p_rms: Estimate,
    /// Share of tokens with the same most probable token.
    pub same_top: Estimate,
}

/// Ends and percentiles of the KL divergence over tokens, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // The names say it.
pub struct KlPercentiles {
    pub max: f64,
    pub p99_9: f64,
    pub p99: f64,
    pub median: f64,
    pub p10: f64,
    pub p5: f64,
    pub p1: f64,
    pub min: f64,
}

impl DivergenceTable {
    /// The table over `scores`, or `None` when there are none.
    pub fn of(scores: &[TokenScore]) -> Option<Self> {
        if scores.is_empty() {
            return None;
        }
        let over = |value: fn(&TokenScore) -> f64| Estimate::of(scores.iter().map(value));
        let perplexity = |nll: Estimate| Estimate { mean: nll.mean.exp(), error: nll.mean.exp() * nll.error };
        let (nll, base) = (over(|s| s.nll), over(|s| s.nll_reference));
        let squares = over(|s| s.delta_p * s.delta_p);
        let rms = squares.mean.sqrt();
        let mut kl: Vec<f64> = scores.iter().map(|s| s.kl).collect();
        kl.sort_unstable_by(f64::total_cmp);
        let at = |fraction| quantile(&kl, fraction);
        Some(DivergenceTable {
            tokens: scores.len(),
            ppl: perplexity(nll),
            ppl_reference: perplexity(base),
            ln_ppl_ratio: over(|s| s.nll - s.nll_reference),
            nll_correlation: correlation(scores, nll.mean, base.mean),
            kl: over(|s| s.kl),
            kl_at: KlPercentiles {
                max: at(1.0),
                p99_9: at(0.999),
                p99: at(0.99),
                median: at(0.5),
                p10: at(0.10),
                p5: at(0.05),
                p1: at(0.01),
                min: at(0.0),
            },
            delta_p: over(|s| s.delta_p),
            // The error of √x is the error of x over 2√x.
            delta_p_rms: Estimate {
                mean: rms,
                error: if rms > 0.0 { squares.error / (2.0 * rms) } else { 0.0 },
            },
            same_top: over(|s| f64::from(u8::from(s.same_top))),
        })
    }
}

/// Pearson's correlation of the two NLL; 1 when neither varies.
fn correlation(scores: &[TokenScore], mean: f64, mean_reference: f64) -> f64 {
    let (mut both, mut own, mut base) = (0.0, 0.0, 0.0);
    for score in scores {
        let (x, y) = (score.nll - mean, score.nll_reference - mean_reference);
        both += x * y;
        own += x * x;
        base += y * y;
    }
    if own * base > 0.0 { both / (own * base).sqrt() } else { 1.0 }
}

impl fmt::Display for DivergenceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.ln_ppl_ratio.mean.exp();
        let pm = |e: Estimate| format!("{:>11.6} ± {:>9.6}", e.mean, e.error);
        let percent = |e: Estimate| format!("{:>9.3} ± {:>7.3} %", e.mean * 100.0, e.error * 100.0);
        writeln!(f, "====== Perplexity over {} tokens ======", self.tokens)?;
        writeln!(f, "Mean PPL(Q)                   : {}", pm(self.ppl))?;
        writeln!(f, "Mean PPL(base)                : {}", pm(self.ppl_reference))?;
        writeln!(f, "Cor(ln(PPL(Q)), ln(PPL(base))): {:>10.2} %", self.nll_correlation * 100.0)?;
        writeln!(f, "Mean ln(PPL(Q)/PPL(base))     : {}", pm(self.ln_ppl_ratio))?;
        let scaled = Estimate { mean: ratio, error: ratio * self.ln_ppl_ratio.error };
        writeln!(f, "Mean PPL(Q)/PPL(base)         : {}", pm(scaled))?;
        writeln!(f, "====== KL divergence ======")?;
        writeln!(f, "Mean    KLD: {}", pm(self.kl))?;
        let KlPercentiles { max, p99_9, p99, median, p10, p5, p1, min } = self.kl_at;
        for (name, value) in
            [("Maximum", max), ("99.9%  ", p99_9), ("99.0%  ", p99), ("Median ", median), ("10.0%  ", p10)]
        {
            writeln!(f, "{name} KLD: {value:>11.6}")?;
        }
        for (name, value) in [(" 5.0%  ", p5), (" 1.0%  ", p1), ("Minimum", min)] {
            writeln!(f, "{name} KLD: {value:>11.6}")?;
        }
        writeln!(f, "====== Token probability ======")?;
        writeln!(f, "Mean    Δp: {}", percent(self.delta_p))?;
        writeln!(f, "RMS Δp    : {}", percent(self.delta_p_rms))?;
        write!(f, "Same top p: {}", percent(self.same_top))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(kl: f64, nll: f64, nll_reference: f64) -> TokenScore {
        let delta_p = (-nll).exp() - (-nll_reference).exp();
        TokenScore { kl, delta_p, same_top: kl < 0.5, nll, nll_reference }
    }

    #[test]
    fn by_hand() {
        let scores = [score(0.0, 1.0, 1.0), score(0.2, 2.0, 1.0), score(1.0, 3.0, 1.0)];
        let table = DivergenceTable::of(&scores).unwrap();
        assert!((table.ppl.mean - 2f64.exp()).abs() < 1e-12);
        assert!((table.ppl_reference.mean - 1f64.exp()).abs() < 1e-12);
        assert!((table.ln_ppl_ratio.mean - 1.0).abs() < 1e-12);
        assert!((table.ln_ppl_ratio.error - (1.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((table.kl.mean - 0.4).abs() < 1e-12);
        assert_eq!((table.kl_at.min, table.kl_at.median, table.kl_at.max), (0.0, 0.2, 1.0));
        assert!((table.same_top.mean - 2.0 / 3.0).abs() < 1e-12);
        let text = table.to_string();
        for line in ["Mean    KLD:    0.400000", "Same top p:    66.667", "Maximum KLD:    1.000000"] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_cache_that_changes_nothing_shows_nothing() {
        let scores: Vec<_> = (0..10).map(|i| score(0.0, f64::from(i), f64::from(i))).collect();
        let table = DivergenceTable::of(&scores).unwrap();
        assert_eq!((table.kl.mean, table.kl.error, table.kl_at.max), (0.0, 0.0, 0.0));
        assert_eq!((table.ln_ppl_ratio.mean, table.delta_p_rms.mean, table.same_top.mean), (0.0, 0.0, 1.0));
        assert!((table.nll_correlation - 1.0).abs() < 1e-12);
    }

    #[test]
    fn no_tokens_no_table() {
        assert_eq!(DivergenceTable::of(&[]), None);
    }
}
