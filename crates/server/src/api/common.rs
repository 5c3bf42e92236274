//! What requests for text have in common.

use super::ApiError;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use sketchkv_cache::{Cap, Spec};
use sketchkv_model::{Sampling, Tokenizer};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Defines a request with fields of its own and those that every request for text has; unknown fields are refused by name.
macro_rules! request {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Default, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$field_about])* pub(crate) $field: $kind,)*
            /// The name of the model that the server runs; others are refused.
            pub(crate) model: Option<String>,
            /// Streams the answer by server-sent events.
            pub(crate) stream: Option<bool>,
            /// What a stream says beside the answer.
            pub(crate) stream_options: Option<$crate::api::StreamOptions>,
            /// Answers to choose from.
            #[schema(minimum = 1, maximum = 16)]
            pub(crate) n: Option<usize>,
            /// Texts that end the answer and are not part of it.
            pub(crate) stop: Option<$crate::api::Stop>,
            /// Reproduces an answer; random unless given.
            pub(crate) seed: Option<i64>,
            /// Divides the logits; 0 always takes the most probable token. 0.8 unless given.
            #[schema(minimum = 0, maximum = 100)]
            pub(crate) temperature: Option<f32>,
            /// Of the most probable tokens those that together reach this probability. 0.95 unless given.
            #[schema(exclusive_minimum = 0, maximum = 1)]
            pub(crate) top_p: Option<f32>,
            /// Of the most probable tokens only this many; 0 takes all. 40 unless given.
            pub(crate) top_k: Option<usize>,
            /// No token less probable than this share of the most probable. 0.05 unless given.
            #[schema(minimum = 0, maximum = 1)]
            pub(crate) min_p: Option<f32>,
            /// Taken off the logits of tokens that the answer has.
            #[schema(minimum = -2, maximum = 2)]
            pub(crate) presence_penalty: Option<f32>,
            /// Taken off the logits of tokens for each time that the answer has them.
            #[schema(minimum = -2, maximum = 2)]
            pub(crate) frequency_penalty: Option<f32>,
            /// Divides positive logits of tokens that came lately, and multiplies negative ones; 1 does nothing.
            #[schema(exclusive_minimum = 0)]
            pub(crate) repetition_penalty: Option<f32>,
            /// Added to the logits of tokens, by their ids: -100 bans one.
            pub(crate) logit_bias: Option<std::collections::BTreeMap<String, f32>>,
            /// Goes on past end-of-text tokens.
            pub(crate) ignore_eos: Option<bool>,
            /// A grammar in the variant of Lark that llguidance reads: the answer is a text of it.
            pub(crate) grammar: Option<String>,
            /// A regular expression that the whole answer matches.
            pub(crate) regex: Option<String>,
            /// The cache of this answer: a composition of methods, as listed by `sketchkv methods`.
            pub(crate) kv: Option<String>,
            /// The most bytes that the cache of this answer takes.
            #[schema(minimum = 1)]
            pub(crate) kv_bytes: Option<usize>,
            /// Keeps the state under this name, in memory and on disk; a request that goes on from there computes only what is
            /// new.
            pub(crate) session: Option<String>,
            /// Ignored.
            #[schema(value_type = Option<String>)]
            #[allow(dead_code, reason = "read and ignored")]
            pub(crate) user: Option<serde::de::IgnoredAny>,
            /// Ignored.
            #[schema(value_type = Option<Object>)]
            #[allow(dead_code, reason = "read and ignored")]
            pub(crate) metadata: Option<serde::de::IgnoredAny>,
            /// Ignored.
            #[schema(value_type = Option<bool>)]
            #[allow(dead_code, reason = "read and ignored")]
            pub(crate) store: Option<serde::de::IgnoredAny>,
            /// Ignored.
            #[schema(value_type = Option<String>)]
            #[allow(dead_code, reason = "read and ignored")]
            pub(crate) service_tier: Option<serde::de::IgnoredAny>,
            /// Ignored: prefixes are always shared.
            #[schema(value_type = Option<bool>)]
            #[allow(dead_code, reason = "read and ignored")]
            pub(crate) cache_prompt: Option<serde::de::IgnoredAny>,
        }

        impl $name {
            /// What it has in common with other requests.
            pub(crate) fn common(&self) -> $crate::api::Common<'_> {
                $crate::api::Common {
                    model: self.model.as_deref(),
                    n: self.n,
                    stop: self.stop.as_ref(),
                    seed: self.seed,
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    repetition_penalty: self.repetition_penalty,
                    logit_bias: self.logit_bias.as_ref(),
                    ignore_eos: self.ignore_eos,
                    grammar: self.grammar.as_deref(),
                    regex: self.regex.as_deref(),
                    kv: self.kv.as_deref(),
                    kv_bytes: self.kv_bytes,
                    session: self.session.as_deref(),
                    stream: self.stream,
                    stream_options: self.stream_options,
                }
            }
        }
    };
}
pub(crate) use request;

/// Answers to one prompt.
const MOST_CHOICES: usize = 16;
/// Where all tokens are as good as equal.
const HOTTEST: f32 = 100.0;
/// Texts that may end an answer, and bytes of each.
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 1024;
/// Tokens that may have a bias.
const MOST_BIASES: usize = 4096;

/// What a stream says beside the answer.
#[derive(Debug, Default, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// A last event says what was used.
    pub(crate) include_usage: Option<bool>,
    /// Events say what the cache takes, about four times a second.
    pub(crate) include_kv: Option<bool>,
    /// Ignored.
    #[serde(rename = "include_obfuscation")]
    #[schema(value_type = Option<bool>)]
    _include_obfuscation: Option<IgnoredAny>,
    /// Ignored: the last event says what was used, as `include_usage` asks. Of vLLM's clients, such as guidellm.
    #[serde(rename = "continuous_usage_stats")]
    #[schema(value_type = Option<bool>)]
    _continuous_usage_stats: Option<IgnoredAny>,
}

/// One text, or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Stop {
    One(String),
    Several(Vec<String>),
}

/// What all requests for text have in common.
#[derive(Debug)]
pub(crate) struct Common<'r> {
    pub(crate) model: Option<&'r str>,
    pub(crate) n: Option<usize>,
    pub(crate) stop: Option<&'r Stop>,
    pub(crate) seed: Option<i64>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<usize>,
    pub(crate) min_p: Option<f32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) logit_bias: Option<&'r BTreeMap<String, f32>>,
    pub(crate) ignore_eos: Option<bool>,
    pub(crate) grammar: Option<&'r str>,
    pub(crate) regex: Option<&'r str>,
    pub(crate) kv: Option<&'r str>,
    pub(crate) kv_bytes: Option<usize>,
    pub(crate) session: Option<&'r str>,
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
}

impl Common<'_> {
    /// How tokens are chosen.
    pub(crate) fn sampling(&self, tokenizer: &Tokenizer) -> Result<Sampling, ApiError> {
        if let Some(temperature) = self.temperature.filter(|&temperature| temperature > HOTTEST) {
            let message = format!("temperature is {temperature}, and may be {HOTTEST} at most");
            return Err(ApiError::param("temperature", message));
        }
        let usual = Sampling::default();
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_p: self.top_p.unwrap_or(usual.top_p),
            top_k: self.top_k.unwrap_or(usual.top_k),
            min_p: self.min_p.unwrap_or(usual.min_p),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.unwrap_or(usual.repetition_penalty),
            logit_bias: self.biases(tokenizer)?,
            seed: self.seed.map_or_else(random, |seed| seed as u64),
            ..usual
        };
        Ok(sampling)
    }

    fn biases(&self, tokenizer: &Tokenizer) -> Result<Vec<(u32, f32)>, ApiError> {
        let Some(biases) = self.logit_bias else { return Ok(vec![]) };
        if biases.len() > MOST_BIASES {
            return Err(ApiError::param(
                "logit_bias",
                format!("logit_bias has {} tokens, and may have {MOST_BIASES}", biases.len()),
            ));
        }
        let bias = |(token, bias): (&String, &f32)| match token.parse() {
            Ok(id) if (id as usize) < tokenizer.vocabulary() => Ok((id, *bias)),
            _ => Err(ApiError::param(
                "logit_bias",
                format!(
                    "logit_bias: {token:?} is no token; ids are numbers below {}",
                    tokenizer.vocabulary()
                ),
            )),
        };
        biases.iter().map(bias).collect()
    }

    /// How many answers.
    pub(crate) fn choices(&self) -> Result<usize, ApiError> {
        match self.n.unwrap_or(1) {
            0 => Err(ApiError::param("n", "n must be at least 1")),
            n if n > MOST_CHOICES => {
                Err(ApiError::param("n", format!("n is {n}, and may be {MOST_CHOICES} at most")))
            }
            n => Ok(n),
        }
    }

    /// Texts that end an answer.
    pub(crate) fn stops(&self) -> Result<Vec<String>, ApiError> {
        let stops = match self.stop {
            None => vec![],
            Some(Stop::One(stop)) => vec![stop.clone()],
            Some(Stop::Several(stops)) => stops.clone(),
        };
        if stops.len() > MOST_STOPS || stops.iter().any(|stop| stop.len() > LONGEST_STOP) {
            let message = format!("stop takes at most {MOST_STOPS} texts of {LONGEST_STOP} bytes");
            return Err(ApiError::param("stop", message));
        }
        Ok(stops)
    }

    /// The cache, `usual` unless it says another.
    pub(crate) fn spec(&self, usual: &Spec) -> Result<Spec, ApiError> {
        let spec: Spec = match self.kv {
            Some(text) => text.parse()?,
            None => usual.clone(),
        };
        let spec = elastic(spec);
        match self.kv_bytes {
            Some(0) => Err(ApiError::param("kv_bytes", "kv_bytes must be at least 1")),
            // Read once more, so that a cache that evicts nothing is refused a cap.
            Some(bytes) if spec.cap != Cap::None => {
                let message =
                    format!("`{spec}` has a cap, and kv_bytes is another ({bytes}): give one of them");
                Err(ApiError::param("kv_bytes", message))
            }
            Some(bytes) => Ok(Spec { cap: Cap::Bytes(bytes), ..spec }.to_string().parse()?),
            None => Ok(spec),
        }
    }

    /// Refuses another model than the one there is.
    pub(crate) fn check_model(&self, name: &str) -> Result<(), ApiError> {
        match self.model {
            Some(asked) if asked != name => Err(ApiError {
                param: Some("model".into()),
                code: Some("model_not_found"),
                ..ApiError::new(
                    axum::http::StatusCode::NOT_FOUND,
                    format!("there is no model {asked:?} here; this server runs {name:?}"),
                )
            }),
            _ => Ok(()),
        }
    }
}

/// A preset without a cap as what it is under one, but without it: the server may have to give it one.
pub(crate) fn elastic(spec: Spec) -> Spec {
    let capped = |name: &str| format!("{name}@1024GiB").parse::<Spec>().ok();
    match spec.preset.filter(|_| spec.cap == Cap::None).and_then(capped) {
        Some(capped) => Spec { cap: Cap::None, ..capped },
        None => spec,
    }
}

/// A seed that nobody knows.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        // Without a source of random numbers the clock must do.
        std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_nanos() as u64)
    })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs())
}

/// What an answer used.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: usize,
    /// Tokens generated, over all answers.
    pub(crate) completion_tokens: usize,
    /// Both.
    pub(crate) total_tokens: usize,
    /// Of the prompt's tokens.
    pub(crate) prompt_tokens_details: PromptTokensDetails,
    /// Of the tokens generated.
    pub(crate) completion_tokens_details: CompletionTokensDetails,
    /// What the cache took at the end, of the last answer to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kv: Option<super::Kv>,
    /// The session, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<SessionUsage>,
    /// Milliseconds from the request's arrival to its first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_token_ms: Option<f64>,
}

/// Of the prompt's tokens.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct PromptTokensDetails {
    /// Those whose state was there already.
    pub(crate) cached_tokens: usize,
}

/// Of the tokens generated: those that were guessed from the text, to be checked several at once.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct CompletionTokensDetails {
    /// Guesses that were right, each a token generated.
    pub(crate) accepted_prediction_tokens: usize,
    /// Guesses that were wrong.
    pub(crate) rejected_prediction_tokens: usize,
}

impl CompletionTokensDetails {
    /// Takes in another answer's.
    pub(crate) fn add(&mut self, other: CompletionTokensDetails) {
        self.accepted_prediction_tokens += other.accepted_prediction_tokens;
        self.rejected_prediction_tokens += other.rejected_prediction_tokens;
    }
}

/// What became of a session.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SessionUsage {
    /// Its name.
    pub(crate) name: String,
    /// Bytes of its file; absent if it could not be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_bytes: Option<usize>,
    /// Why it could not be written; the state is in memory all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Usage {
    /// Takes in another prompt's.
    pub(crate) fn add(&mut self, other: Usage) {
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.total_tokens += other.total_tokens;
        self.prompt_tokens_details.cached_tokens += other.prompt_tokens_details.cached_tokens;
        self.completion_tokens_details.add(other.completion_tokens_details);
        self.kv = other.kv.or(self.kv.take());
        self.session = other.session.or(self.session.take());
        self.first_token_ms = self.first_token_ms.or(other.first_token_ms);
    }
}
