use super::{Advice, Candidate, NeedleCheck};
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
    let interval = row.kl_interval.map_or_else(String::new, |[low, high]| {
        format!(", 95 % interval {} to {}", format::divergence(low), format::divergence(high))
    });
    reasons.push(format!(
        "It changes perplexity by {:+.1} % and keeps the most probable next token in {:.1} % of places (mean KL {}{interval}).",
        100.0 * row.ppl_change,
        100.0 * row.same_top,
        format::divergence(row.kl_mean)
    ));
    let full =
        advice.full_decode_tps.map_or_else(String::new, |full| format!(", `full` {}", format::rate(full)));
    reasons.push(format!(
        "It decodes {} tokens a second after {} tokens on this machine{full}.",
        format::rate(row.decode_tps),
        tokens(row.footprint.kv_tokens)
    ));
    if let Some(NeedleCheck { tokens: length, texts, found, found_by_full }) = advice.needles {
        let length = tokens(length);
        reasons.push(match found_by_full {
            0 => format!("This model does not find what {length} tokens say once, whatever the cache."),
            _ => format!(
                "Of {texts} facts that a text of {length} tokens says once it finds {found}, a full cache {found_by_full}."
            ),
        });
    }
    let best = &advice.candidates[0];
    if best.spec != *spec {
        let faster = 100.0 * (row.decode_tps / best.row.decode_tps - 1.0);
        reasons.push(format!(
            "`{}` diverges a little less ({}), but this decodes {faster:.0} % faster.",
            best.spec,
            format::divergence(best.row.kl_mean)
        ));
    }
    // Why not the next two.
    let others = advice.candidates.iter().enumerate().filter(|(place, _)| *place != chosen && *place > 0);
    for (_, other) in others.take(2) {
        let times = other.row.kl_mean / row.kl_mean.max(1e-6);
        let speed = 100.0 * (other.row.decode_tps / row.decode_tps - 1.0);
        reasons.push(format!(
            "`{}` takes {}, diverges {times:.1} times as much and decodes {:.0} % {}.",
            other.spec,
            size(other.bytes),
            speed.abs(),
            if speed < 0.0 { "slower" } else { "faster" }
        ));
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
