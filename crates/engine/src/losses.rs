//! What the automatic cache was measured to cost a model, by its bytes.

use serde::{Deserialize, Serialize};
use sketchkv_cache::{Cache, Cap, Spec};

/// The loss of the automatic cache on some text, at several caps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// The cache, without its cap.
    pub spec: String,
    /// The text that it was measured on.
    pub text: String,
    /// Tokens of a document; the second half of each was scored.
    pub context: usize,
    /// How many documents.
    pub documents: usize,
    /// By falling share.
    pub points: Vec<Loss>,
}

/// The loss at one cap.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// The cap, as a share of what an f16 cache of the document takes.
    pub share: f64,
    /// KL divergence of the next-token distribution from that of the uncompressed cache, in nats: the mean over all
    /// scored tokens.
    pub kl: f64,
    /// The same of the worst document.
    pub worst: f64,
}

/// On which side of what is told the true value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Measured at caps around this one.
    About,
    /// The cap is larger than all measured ones.
    AtMost,
    /// The cap is smaller than all measured ones.
    AtLeast,
}

impl Bound {
    /// `about`, `at most`, `at least`.
    pub fn word(self) -> &'static str {
        match self {
            Bound::About => "about",
            Bound::AtMost => "at most",
            Bound::AtLeast => "at least",
        }
    }
}

/// The loss to be expected under a cap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpectedLoss {
    /// As [`Loss::kl`].
    pub kl: f64,
    /// As [`Loss::worst`].
    pub worst: f64,
    /// How that is meant.
    pub bound: Bound,
}

impl Losses {
    /// The spec that is measured, under a cap of so many bytes.
    ///
    /// # Panics
    /// Never: the automatic cache takes any cap in bytes.
    pub fn measured(bytes: usize) -> Spec {
        format!("auto@{bytes}B").parse().expect("the automatic cache takes a cap in bytes")
    }

    /// Of what was measured on `documents` documents of `context` tokens.
    ///
    /// # Errors
    /// When there is no point, they do not go by falling share, or one is not positive.
    pub fn new(text: String, context: usize, documents: usize, points: Vec<Loss>) -> Result<Losses, String> {
        let spec = Losses::without_cap(&Losses::measured(1));
        Losses { spec, text, context, documents, points }.checked()
    }

    fn checked(self) -> Result<Losses, String> {
        let is_loss =
            |loss: &Loss| [loss.share, loss.kl, loss.worst].iter().all(|x| x.is_normal() && *x > 0.0);
        let falls = self.points.is_sorted_by(|a, b| a.share > b.share);
        if self.points.is_empty() || !falls || !self.points.iter().all(is_loss) {
            return Err("losses are not positive numbers by falling share".to_owned());
        }
        Ok(self)
    }

    fn without_cap(spec: &Spec) -> String {
        Spec { cap: Cap::None, preset: None, ..spec.clone() }.to_string()
    }

    /// What the cache is expected to lose a token after `tokens` tokens; `None` where it is not the cache that was
    /// measured, or its cap is not one in bytes. Between two measured caps the logarithm of the loss is on a straight
    /// line over that of the share.
    pub fn expected(&self, cache: &Cache, tokens: usize) -> Option<ExpectedLoss> {
        let Cap::Bytes(bytes) = cache.spec().cap else { return None };
        if Losses::without_cap(cache.spec()) != self.spec {
            return None;
        }
        Some(self.at(bytes as f64 / cache.shape().f16_bytes(tokens).max(1) as f64))
    }

    fn at(&self, share: f64) -> ExpectedLoss {
        let of = |loss: &Loss, bound| ExpectedLoss { kl: loss.kl, worst: loss.worst, bound };
        let (first, last) = (&self.points[0], &self.points[self.points.len() - 1]);
        if share > first.share {
            return of(first, Bound::AtMost);
        }
        let around = |pair: &&[Loss]| (pair[1].share..=pair[0].share).contains(&share);
        let Some([above, below]) = self.points.windows(2).find(around) else {
            return of(last, if share < last.share { Bound::AtLeast } else { Bound::About });
        };
        let along = (above.share / share).ln() / (above.share / below.share).ln();
        let between = |above: f64, below: f64| above.powf(1.0 - along) * below.powf(along);
        ExpectedLoss {
            kl: between(above.kl, below.kl),
            worst: between(above.worst, below.worst),
            bound: Bound::About,
        }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and text are JSON")
    }

    /// Reads what [`Losses::to_json`] wrote.
    ///
    /// # Errors
    /// When it is not that, or has a number that cannot be a share or a loss.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Losses, String> {
        let losses: Losses = serde_json::from_slice(bytes).map_err(|error| format!("its losses: {error}"))?;
        losses.checked()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sketchkv_cache::{CacheShape, LayerShape};

    pub(crate) fn example() -> Losses {
        let loss = |share, kl| Loss { share, kl, worst: 2.0 * kl };
        let points = vec![loss(0.5, 0.001), loss(0.25, 0.01), loss(0.125, 0.04)];
        Losses::new("a novel".into(), 2048, 4, points).unwrap()
    }

    #[test]
    fn the_loss_is_a_line_over_the_share_both_as_logarithms() {
        let losses = example();
        let about = |share: f64, kl: f64| {
            let loss = losses.at(share);
            assert!(
                (loss.kl / kl - 1.0).abs() < 1e-9 && (loss.worst / kl - 2.0).abs() < 1e-9,
                "{share}: {loss:?}"
            );
            assert_eq!(loss.bound, Bound::About);
        };
        about(0.5, 0.001);
        about(0.25, 0.01);
        about(0.125, 0.04);
        // Half way between 1/4 and 1/8, in logarithms.
        about(0.125 * 2f64.sqrt(), 0.02);
        assert_eq!(losses.at(0.6), ExpectedLoss { kl: 0.001, worst: 0.002, bound: Bound::AtMost });
        assert_eq!(losses.at(0.1), ExpectedLoss { kl: 0.04, worst: 0.08, bound: Bound::AtLeast });
    }

    #[test]
    fn only_the_cache_that_was_measured_has_an_expected_loss() {
        let shape = CacheShape::uniform(2, LayerShape::new(4, 2, 64), 4096);
        let full = shape.f16_bytes(4096);
        let expected = |spec: &str| {
            let cache = Cache::new(shape.clone(), &spec.parse().unwrap(), 0).unwrap();
            example().expected(&cache, 4096)
        };
        let loss = expected(&format!("{}B", full / 4)).unwrap();
        assert!((loss.kl - 0.01).abs() < 1e-9);
        assert_eq!(expected(&format!("foreseen+progressive(least=2)+adaptive@{}B", full / 4)), Some(loss));
        for other in [format!("h2o@{}B", full / 4), "auto@25%".into(), "auto".into(), "full+q8".into()] {
            assert_eq!(expected(&other), None, "{other}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let json = example().to_json();
        assert_eq!(Losses::from_json(json.as_bytes()).unwrap(), example());
        for (from, to) in [("0.5", "0.2"), ("0.04", "-0.04"), ("0.04", "0"), ("0.04", "null"), ("{", "")] {
            assert!(Losses::from_json(json.replacen(from, to, 1).as_bytes()).is_err(), "{from} -> {to}");
        }
    }
}
