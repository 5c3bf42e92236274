use serde::{Deserialize, Serialize};
use sketchkv_cache::{Cache, Part, Profile};
use sketchkv_model::Model;

/// Where the time of a generated token goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Time of a token in microseconds, sampling included, with the clocks running.
    pub token_us: f64,
    /// Bytes per second that the threads together read from memory, in turn with the tokens; the median.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bandwidth_bytes_per_s: Option<f64>,
    /// By part, in the order of a token's way; parts that took no time are left out.
    pub parts: Vec<PartTime>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartTime {
    /// `products`, `attention`, `keep`, `tail`, `store`, `read`, `sampling`, `rest`.
    pub part: String,
    /// Microseconds of a token.
    pub us: f64,
    /// Share of the token's time.
    pub share: f64,
    /// Bytes that a token reads in this part: all weights, or all keys and values; `None` where that depends on what
    /// was selected, or is nothing to speak of.
    pub bytes: Option<u64>,
    /// The same in bytes per second.
    pub bytes_per_s: Option<f64>,
}

impl Parts {
    /// From the profile of `tokens` single-token steps that took `seconds`, over `cache` as they left it, where memory gave
    /// `bandwidth`.
    pub(super) fn of(
        profile: &Profile,
        tokens: usize,
        seconds: f64,
        bandwidth: Option<f64>,
        model: &Model,
        cache: &Cache,
    ) -> Parts {
        let token_us = 1e6 * seconds / tokens as f64;
        let ledger = cache.ledger();
        // Without a selection every slot is read, once for all queries of its group.
        let selects = cache.spec().read.method().name != "all";
        let bytes = |part| match part {
            Part::Products => Some(model.step_bytes() as u64),
            Part::Attention if !selects => Some((ledger.keys + ledger.values + ledger.scales) as u64),
            _ => None,
        };
        let time = |part: Part| {
            let us = 1e6 * profile.time(part).as_secs_f64() / tokens as f64;
            let bytes = bytes(part).filter(|&bytes| bytes > 0);
            PartTime {
                part: part.name().to_owned(),
                us,
                share: us / token_us,
                bytes,
                bytes_per_s: bytes.map(|bytes| bytes as f64 / us * 1e6),
            }
        };
        let parts = Part::ALL.into_iter().filter(|&part| !profile.time(part).is_zero()).map(time).collect();
        Parts { token_us, bandwidth_bytes_per_s: bandwidth, parts }
    }
}
