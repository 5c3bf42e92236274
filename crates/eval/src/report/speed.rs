//! The one speed that a cache has on the page: that of the steps in which it was scored.

use super::data::Measured;
use crate::experiments::Scored;

/// How fast `scored` decodes as a multiple of `full`; `None` where they ran on different machines.
pub(super) fn beside(scored: &Measured<'_, Scored>, full: &Measured<'_, Scored>) -> Option<f64> {
    let rate = full.of.row.decode_tps;
    (rate > 0.0 && scored.cell.machine == full.cell.machine).then(|| scored.of.row.decode_tps / rate)
}

/// How the speeds of these caches were measured.
pub(super) fn how(scored: &[&Measured<'_, Scored>]) -> String {
    let Some(first) = scored.first() else { return String::new() };
    let mut machines: Vec<String> = scored.iter().map(|s| s.cell.machine.to_string()).collect();
    machines.sort_unstable();
    machines.dedup();
    format!(
        "Tokens per second are one over the median of the last {} single-token steps of each document, the cache as deep as \
         the context and each token scored before the next ({}).",
        first.cell.setting("timed"),
        machines.join("; ")
    )
}
