//! The merges that a SentencePiece vocabulary implies.

use ahash::AHashMap;

/// Tokens of more bytes are none that SentencePiece made: they are matched whole or not at all. Without a bound the
/// splits of one token as long as a file would take for ever.
const LONGEST: usize = 512;

/// Every way to make a token of two others, best score first.
///
/// SentencePiece always joins the pair of neighbours whose union has the best score. A byte-pair model does the
/// same when every split of every token is a merge, ranked by the token's score. Among the splits of one score the
/// longer left part goes first, which is how transformers orders them.
pub(super) fn spm_merges(tokens: &[String], scores: &[f32]) -> Vec<(String, String)> {
    let ids: AHashMap<&str, usize> =
        tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut merges: Vec<(f32, usize, usize, &str, &str)> = Vec::new();
    let mut splits = Vec::new();
    for (token, score) in tokens.iter().zip(scores).filter(|(token, _)| token.len() <= LONGEST) {
        splits.clear();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let Some(l) = ids.get(left)
                && let Some(r) = ids.get(right)
            {
                splits.push((*l, *r, left, right));
            }
        }
        splits.sort_unstable();
        let lengths = |text: &str| text.chars().count();
        merges.extend(splits.iter().map(|(_, _, l, r)| (*score, lengths(l), lengths(r), *l, *r)));
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    merges.into_iter().map(|(_, _, _, l, r)| (l.to_owned(), r.to_owned())).collect()
}
