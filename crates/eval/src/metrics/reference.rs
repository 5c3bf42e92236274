use super::TokenScore;
use crate::EvalError;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
};

/// Logits this far below the largest of their row are stored as if they were just so far: e^-32 is 1e-14.
const DEEPEST: f32 = 32.0;

/// Bytes of a row before its codes: step, top token, log-sum-exp of the codes (f64), target NLL (f64).
const HEAD: usize = 4 + 4 + 8 + 8;

/// The next-token distributions of the uncompressed cache, kept on disk, 2 bytes a token of the vocabulary.
///
/// A logit is stored as a 16-bit count of steps below the largest logit of its row. The distribution that the codes
/// describe is normalised anew, so that a KL divergence against it is a true KL divergence, of a distribution whose
/// logits differ from the model's by at most `DEEPEST`/65535/2 = 2.4e-4: to first order that changes a divergence
/// by Σ δp·ln(p/q), which vanishes as the two distributions come close (2e-9 where p = q exactly; measured in the
/// tests). What the reference itself scores, its perplexity and its top token, is kept exactly.
///
/// The file has no name and is gone with the value, however the process ends.
pub struct Reference {
    file: File,
    vocabulary: usize,
    rows: usize,
    /// One row as bytes, and as codes.
    buffer: Vec<u8>,
}

impl Reference {
    /// An empty reference for rows of `vocabulary` logits, in the system's folder for temporary files.
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn new(vocabulary: usize) -> Result<Self, EvalError> {
        let file = tempfile::tempfile().map_err(scratch)?;
        Ok(Reference { file, vocabulary, rows: 0, buffer: Vec::new() })
    }

    /// Rows kept so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes in the next row: the `logits` `[vocabulary]` that precede the token `target`.
    ///
    /// # Errors
    /// When a logit is not finite, the target is outside the vocabulary, or the disk is full.
    pub fn push(&mut self, logits: &[f32], target: u32) -> Result<(), EvalError> {
        let row = Row::check(logits, self.vocabulary, target, self.rows)?;
        let step = ((row.max - row.min).min(DEEPEST) / f32::from(u16::MAX)).max(f32::MIN_POSITIVE);
        self.buffer.clear();
        self.buffer.resize(HEAD, 0);
        let mut sum = 0.0f64;
        for &logit in logits {
            // The cast saturates, which is the clipping at DEEPEST.
            let code = ((row.max - logit) / step).round() as u16;
            sum += f64::from((-f32::from(code) * step).exp());
            self.buffer.extend_from_slice(&code.to_le_bytes());
        }
        self.buffer[0..4].copy_from_slice(&step.to_le_bytes());
        self.buffer[4..8].copy_from_slice(&row.top.to_le_bytes());
        self.buffer[8..16].copy_from_slice(&sum.ln().to_le_bytes());
        self.buffer[16..24].copy_from_slice(&row.nll(logits[target as usize]).to_le_bytes());
        self.file
            .seek(SeekFrom::Start(self.offset(self.rows)))
            .and_then(|_| self.file.write_all(&self.buffer))
            .map_err(scratch)?;
        self.rows += 1;
        Ok(())
    }

    /// Scores `logits` `[vocabulary]` against row `row`, both preceding the token `target`.
    ///
    /// # Errors
    /// When there is no such row, a logit is not finite, or the scratch file cannot be read.
    pub fn score(&mut self, row: usize, logits: &[f32], target: u32) -> Result<TokenScore, EvalError> {
        if row >= self.rows {
            let reason = format!("the reference has {} rows only", self.rows);
            return Err(EvalError::Score { position: row, reason });
        }
        let other = Row::check(logits, self.vocabulary, target, row)?;
        self.buffer.resize(HEAD + 2 * self.vocabulary, 0);
        let offset = self.offset(row);
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(&mut self.buffer))
            .map_err(scratch)?;
        let (head, codes) = self.buffer.split_at(HEAD);
        let step = f64::from(f32::from_le_bytes(four(&head[0..4])));
        let top = u32::from_le_bytes(four(&head[4..8]));
        let log_sum = f64::from_le_bytes(eight(&head[8..16]));
        let nll_reference = f64::from_le_bytes(eight(&head[16..24]));

        let shift = f64::from(other.max) + other.log_sum;
        let kl: f64 = codes
            .chunks_exact(2)
            .zip(logits)
            .map(|(code, &logit)| {
                let log_p = -f64::from(u16::from_le_bytes([code[0], code[1]])) * step - log_sum;
                // The weight may be single: its relative error scales a term that is itself small.
                f64::from((log_p as f32).exp()) * (log_p - (f64::from(logit) - shift))
            })
            .sum();
        let nll = other.nll(logits[target as usize]);
        Ok(TokenScore {
            // Rounding can leave a few 1e-9 below zero, which no divergence is.
            kl: kl.max(0.0),
            delta_p: (-nll).exp() - (-nll_reference).exp(),
            same_top: top == other.top,
            nll,
            nll_reference,
        })
    }

    /// The scores of the reference against itself, row by row: no divergence, and its own perplexity.
    ///
    /// # Errors
    /// When the scratch file cannot be read.
    pub fn own_scores(&mut self) -> Result<Vec<TokenScore>, EvalError> {
        let mut bytes = [0; 8];
        (0..self.rows)
            .map(|row| {
                let offset = self.offset(row) + 16;
                self.file
                    .seek(SeekFrom::Start(offset))
                    .and_then(|_| self.file.read_exact(&mut bytes))
                    .map_err(scratch)?;
                let nll = f64::from_le_bytes(bytes);
                Ok(TokenScore { kl: 0.0, delta_p: 0.0, same_top: true, nll, nll_reference: nll })
            })
            .collect()
    }

    fn offset(&self, row: usize) -> u64 {
        row as u64 * (HEAD + 2 * self.vocabulary) as u64
    }
}

/// Negative log-likelihood of `target` in nats, and the top token, of one row of logits.
///
/// # Errors
/// When a logit is not finite or the target is outside the vocabulary.
pub fn score_logits(logits: &[f32], target: u32) -> Result<(f64, u32), EvalError> {
    let row = Row::check(logits, logits.len(), target, 0)?;
    Ok((row.nll(logits[target as usize]), row.top))
}

/// What one pass over a row of finite logits finds out.
struct Row {
    max: f32,
    min: f32,
    top: u32,
    /// ln Σ exp(logit − max).
    log_sum: f64,
}

impl Row {
    fn check(logits: &[f32], vocabulary: usize, target: u32, position: usize) -> Result<Self, EvalError> {
        let refuse = |reason: String| Err(EvalError::Score { position, reason });
        if logits.len() != vocabulary || logits.is_empty() {
            return refuse(format!("{} logits for a vocabulary of {vocabulary}", logits.len()));
        }
        if target as usize >= vocabulary {
            return refuse(format!("token {target} is outside the vocabulary of {vocabulary}"));
        }
        let (mut max, mut min, mut top) = (f32::NEG_INFINITY, f32::INFINITY, 0);
        for (token, &logit) in logits.iter().enumerate() {
            if !logit.is_finite() {
                return refuse(format!(
                    "the logit of token {token} is {logit}: the cache or the weights are broken"
                ));
            }
            min = min.min(logit);
            if logit > max {
                (max, top) = (logit, token as u32);
            }
        }
        let sum: f64 = logits.iter().map(|&logit| f64::from((logit - max).exp())).sum();
        Ok(Row { max, min, top, log_sum: sum.ln() })
    }

    fn nll(&self, logit: f32) -> f64 {
        self.log_sum - (f64::from(logit) - f64::from(self.max))
    }
}

fn four(bytes: &[u8]) -> [u8; 4] {
    std::array::from_fn(|i| bytes[i])
}

fn eight(bytes: &[u8]) -> [u8; 8] {
    std::array::from_fn(|i| bytes[i])
}

fn scratch(source: std::io::Error) -> EvalError {
    EvalError::Scratch { source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    fn random_logits(rng: &mut Rng, vocabulary: usize, spread: f32) -> Vec<f32> {
        (0..vocabulary).map(|_| ((0..12).map(|_| rng.unit()).sum::<f64>() - 6.0) as f32 * spread).collect()
    }

    fn exact_kl(p: &[f32], q: &[f32]) -> f64 {
        let log_softmax = |logits: &[f32]| {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
            logits.iter().map(|&l| f64::from(l - max) - sum.ln()).collect::<Vec<f64>>()
        };
        let (p, q) = (log_softmax(p), log_softmax(q));
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
    }

    #[test]
    fn codes_cost_next_to_nothing() {
        let mut rng = Rng::new(11);
        // Noise of these sizes spans divergences from those of rounding to those of a broken cache.
        for (noise, relative, absolute) in
            [(0.0, 0.0, 1e-8), (1e-3, 0.02, 1e-8), (0.02, 0.02, 0.0), (1.0, 1e-3, 0.0)]
        {
            let (mut ours, mut exact) = (0.0, 0.0);
            let mut reference = Reference::new(5_000).unwrap();
            for row in 0..20 {
                let p = random_logits(&mut rng, 5_000, 3.0);
                let q: Vec<f32> =
                    p.iter().zip(random_logits(&mut rng, 5_000, noise)).map(|(p, n)| p + n).collect();
                reference.push(&p, 17).unwrap();
                ours += reference.score(row, &q, 17).unwrap().kl / 20.0;
                exact += exact_kl(&p, &q) / 20.0;
            }
            assert!((ours - exact).abs() <= relative * exact + absolute, "noise {noise}: {ours} for {exact}");
        }
    }

    #[test]
    fn the_references_own_scores_are_exact() {
        let mut rng = Rng::new(5);
        let mut reference = Reference::new(100).unwrap();
        let rows: Vec<Vec<f32>> = (0..3).map(|_| random_logits(&mut rng, 100, 4.0)).collect();
        for (target, row) in rows.iter().enumerate() {
            reference.push(row, target as u32).unwrap();
        }
        let own = reference.own_scores().unwrap();
        for (target, row) in rows.iter().enumerate() {
            let (nll, _) = score_logits(row, target as u32).unwrap();
            assert_eq!(own[target].nll, nll);
            let again = reference.score(target, row, target as u32).unwrap();
            assert_eq!((again.nll, again.delta_p, again.same_top), (nll, 0.0, true));
        }
    }

    #[test]
    fn constant_and_extreme_rows_are_scored() {
        let mut reference = Reference::new(4).unwrap();
        reference.push(&[2.0; 4], 0).unwrap();
        let score = reference.score(0, &[7.0; 4], 1).unwrap();
        assert!(score.kl < 1e-12 && (score.nll - 4f64.ln()).abs() < 1e-6, "{score:?}");
        reference.push(&[3e38, -3e38, 0.0, 1.0], 1).unwrap();
        let score = reference.score(1, &[0.0; 4], 0).unwrap();
        assert!((score.kl - 4f64.ln()).abs() < 1e-6, "{score:?}");
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let mut reference = Reference::new(3).unwrap();
        for (logits, target) in
            [(&[0.0, f32::NAN, 0.0][..], 0), (&[0.0, f32::INFINITY, 0.0], 0), (&[0.0; 2], 0)]
        {
            assert!(matches!(reference.push(logits, target), Err(EvalError::Score { position: 0, .. })));
        }
        assert!(reference.push(&[0.0; 3], 3).is_err());
        assert!(reference.score(0, &[0.0; 3], 0).is_err(), "no row was kept");
    }
}
