use super::{Advice, Candidate};
use crate::format;

/// Why the candidate in place `chosen` is recommended, one sentence each.
pub(super) fn reasons(advice: &Advice, chosen: usize) -> Vec<String> {
    let Candidate { spec, bytes, row } = &advice.candidates[chosen];
    let (size, tokens) =
        (|bytes: usize| format::bytes(bytes as u64), |count: usize| format::count(count as u64));
    let mut reasons = vec![if row.binds_at.is_none() {
        format!("It keeps all {} tokens in {}, which fits.", tokens(advice.context), size(*bytes))
    } else {
        format!(
            "Uncompressed, {} tokens take {}; this takes at most {}.",
            tokens(advice.context),
            size(advice.full_bytes),
            size(*bytes)
        )
    }];
    reasons.push(format!(
        "It changes perplexity by {:+.1} % and keeps the most probable next token in {:.1} % of places (mean KL {}).",
        100.0 * row.ppl_change,
        100.0 * row.same_top,
        format::divergence(row.kl_mean)
    ));
    reasons.push(format!(
        "It decodes {} tokens a second after {} tokens on this machine.",
        format::rate(row.decode_tps),
        tokens(row.footprint.kv_tokens)
    ));
    let best = &advice.candidates[0];
    if best.spec != *spec {
        let faster = 100.0 * (row.decode_tps / best.row.decode_tps - 1.0);
        reasons.push(format!(
            "`{}` diverges a little less ({}), but this decodes {faster:.0} % faster.",
            best.spec,
            format::divergence(best.row.kl_mean)
        ));
    }
    let clearly_worse = |candidate: &&Candidate| candidate.row.kl_mean > 1.2 * row.kl_mean.max(1e-6);
    if let Some(next) = advice.candidates[chosen + 1..].iter().find(clearly_worse) {
        let times = next.row.kl_mean / row.kl_mean.max(1e-6);
        reasons.push(format!("The next, `{}`, diverges {times:.1} times as much.", next.spec));
    }
    if advice.measured_context < advice.context {
        reasons.push(format!(
            "Measured at {} tokens with the same share of bytes; at {} expect the same order, not the same numbers.",
            tokens(advice.measured_context),
            tokens(advice.context)
        ));
    }
    reasons
}
