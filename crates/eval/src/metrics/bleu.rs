use std::collections::HashMap;

/// The longest n-grams counted.
const ORDER: usize = 4;

/// A BLEU score with its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Bleu {
    /// 0 to 100.
    pub score: f64,
    /// Precision of 1- to 4-grams, in percent.
    pub precisions: [f64; ORDER],
    /// The penalty for hypotheses shorter than their references.
    pub brevity_penalty: f64,
    /// Tokens of the hypotheses.
    pub hypothesis_tokens: usize,
    /// Tokens of the closest references.
    pub reference_tokens: usize,
}

/// BLEU of `hypotheses` against `references[hypothesis]`, one or more each, as sacrebleu's `corpus_bleu` computes
/// it: `13a` tokens, exponential smoothing, case kept, effective order off.
///
/// Papineni et al. 2002; Post 2018, arXiv 1804.08771.
pub fn corpus_bleu<H: AsRef<str>, R: AsRef<str>>(hypotheses: &[H], references: &[Vec<R>]) -> Bleu {
    let mut counts = Counts::default();
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        counts.add(hypothesis.as_ref(), references);
    }
    counts.bleu(false)
}

/// BLEU of one `hypothesis`, as sacrebleu's `sentence_bleu`: the same with the effective order.
pub fn sentence_bleu<R: AsRef<str>>(hypothesis: &str, references: &[R]) -> Bleu {
    let mut counts = Counts::default();
    counts.add(hypothesis, references);
    counts.bleu(true)
}

#[derive(Default)]
struct Counts {
    matches: [usize; ORDER],
    total: [usize; ORDER],
    hypothesis_tokens: usize,
    reference_tokens: usize,
}

impl Counts {
    fn add<R: AsRef<str>>(&mut self, hypothesis: &str, references: &[R]) {
        let hypothesis = tokenize_13a(hypothesis);
        let references: Vec<Vec<String>> = references.iter().map(|r| tokenize_13a(r.as_ref())).collect();
        self.hypothesis_tokens += hypothesis.len();
        // The closest length counts; of two as close, the shorter.
        self.reference_tokens += references
            .iter()
            .map(Vec::len)
            .min_by_key(|&length| (length.abs_diff(hypothesis.len()), length))
            .unwrap_or(0);
        for order in 1..=ORDER {
            let mut allowed: HashMap<&[String], usize> = HashMap::new();
            for reference in &references {
                for (gram, count) in grams(reference, order) {
                    let most = allowed.entry(gram).or_default();
                    *most = count.max(*most);
                }
            }
            for (gram, count) in grams(&hypothesis, order) {
                self.total[order - 1] += count;
                self.matches[order - 1] += count.min(allowed.get(gram).copied().unwrap_or(0));
            }
        }
    }

    fn bleu(&self, effective_order: bool) -> Bleu {
        let (have, want) = (self.hypothesis_tokens as f64, self.reference_tokens as f64);
        let brevity_penalty = match () {
            () if have >= want => 1.0,
            () if have == 0.0 => 0.0,
            () => (1.0 - want / have).exp(),
        };
        let mut precisions = [0.0; ORDER];
        let mut orders = ORDER;
        let mut smoothing = 1.0;
        for (order, precision) in precisions.iter_mut().enumerate() {
            let (matches, total) = (self.matches[order] as f64, self.total[order] as f64);
            if total == 0.0 {
                break;
            }
            if effective_order {
                orders = order + 1;
            }
            *precision = if matches == 0.0 {
                smoothing *= 2.0;
                100.0 / (smoothing * total)
            } else {
                100.0 * matches / total
            };
        }
        let nothing_matches = self.matches.iter().all(|&matches| matches == 0);
        let log_mean = precisions[..orders]
            .iter()
            .map(|&p| if p == 0.0 { f64::NEG_INFINITY } else { p.ln() })
            .sum::<f64>()
            / orders as f64;
        Bleu {
            score: if nothing_matches { 0.0 } else { brevity_penalty * log_mean.exp() },
            precisions: if nothing_matches { [0.0; ORDER] } else { precisions },
            brevity_penalty,
            hypothesis_tokens: self.hypothesis_tokens,
            reference_tokens: self.reference_tokens,
        }
    }
}

fn grams(tokens: &[String], order: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for gram in tokens.windows(order) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// The tokens of mteval-v13a, sacrebleu's default: ASCII symbols stand alone, periods and commas unless between
/// digits, dashes after digits.
pub fn tokenize_13a(text: &str) -> Vec<String> {
    let text = text
        .trim_end_matches(is_space)
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    let mut chars: Vec<char> = std::iter::once(' ').chain(text.chars()).chain(std::iter::once(' ')).collect();
    chars = chars.into_iter().flat_map(|c| if is_symbol(c) { vec![' ', c, ' '] } else { vec![c] }).collect();
    // Each rule replaces pairs from left to right, and a pair ends before the next begins.
    let stop = |c: char| c == '.' || c == ',';
    let digit = |c: char| c.is_ascii_digit();
    chars = replace_pairs(&chars, |a, b| (!digit(a) && stop(b)).then_some([a, ' ', b, ' ']));
    chars = replace_pairs(&chars, |a, b| (stop(a) && !digit(b)).then_some([' ', a, ' ', b]));
    chars = replace_pairs(&chars, |a, b| (digit(a) && b == '-').then_some([a, ' ', b, ' ']));
    chars
        .split(|&c| is_space(c))
        .filter(|token| !token.is_empty())
        .map(|token| token.iter().collect())
        .collect()
}

fn replace_pairs(chars: &[char], rule: impl Fn(char, char) -> Option<[char; 4]>) -> Vec<char> {
    let mut out = Vec::with_capacity(chars.len() + 16);
    let mut at = 0;
    while at < chars.len() {
        let replaced = chars.get(at + 1).and_then(|&next| rule(chars[at], next));
        match replaced {
            Some(four) => {
                out.extend(four);
                at += 2;
            }
            None => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out
}

/// ASCII punctuation but `'`, `,`, `-`, `.`; the space counts too.
fn is_symbol(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

/// White space as Python's `str.split` sees it.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_scores_100_and_another_0() {
        let text = "The quick brown fox, aged 3.5 years, jumped.";
        assert!((corpus_bleu(&[text], &[vec![text]]).score - 100.0).abs() < 1e-9);
        assert_eq!(corpus_bleu(&["a b c d"], &[vec!["w x y z"]]).score, 0.0);
        assert_eq!(corpus_bleu(&[""], &[vec!["w x y z"]]).score, 0.0);
    }

    #[test]
    fn tokens() {
        assert_eq!(
            tokenize_13a("It's 3.5, or 1,000-2 (no)."),
            ["It's", "3.5", ",", "or", "1,000", "-", "2", "(", "no", ")", "."]
        );
    }
}
