//! What the server counts, for Prometheus.

use crate::engine::Inspection;
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
};

/// Seconds, counted up in parts.
pub(crate) type Seconds = Counter<f64, AtomicU64>;

/// Counters that the server's threads count up, and gauges that are set when they are asked for.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    pub(crate) requests: Family<[(&'static str, String); 2], Counter>,
    pub(crate) refused: Counter,
    pub(crate) queued: Histogram,
    pub(crate) first_token: Histogram,
    pub(crate) batch: Histogram,
    pub(crate) prompt_tokens: Counter,
    pub(crate) answer_tokens: Counter,
    pub(crate) right_guesses: Counter,
    pub(crate) wrong_guesses: Counter,
    pub(crate) pass_seconds: Seconds,
    pub(crate) cached_tokens: Counter,
    pub(crate) prefix_hits: Counter,
    pub(crate) lowered: Counter,
    pub(crate) evictions: Counter,
    pub(crate) overruns: Counter,
    pub(crate) session_writes: Counter,
    pub(crate) session_failures: Counter,
    gauges: Gauges,
}

#[derive(Default)]
struct Gauges {
    running: Gauge,
    waiting: Gauge,
    limit: Gauge,
    granted: Gauge,
    prefixes: Gauge,
    prefix_bytes: Gauge,
    workspace: Gauge,
    items: Family<[(&'static str, String); 1], Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.005, 2.0, 16));
        let metrics = Metrics {
            registry: Mutex::new(Registry::with_prefix("sketchkv")),
            requests: Family::default(),
            refused: Counter::default(),
            queued: seconds(),
            first_token: seconds(),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 8)),
            prompt_tokens: Counter::default(),
            answer_tokens: Counter::default(),
            right_guesses: Counter::default(),
            wrong_guesses: Counter::default(),
            pass_seconds: Seconds::default(),
            cached_tokens: Counter::default(),
            prefix_hits: Counter::default(),
            lowered: Counter::default(),
            evictions: Counter::default(),
            overruns: Counter::default(),
            session_writes: Counter::default(),
            session_failures: Counter::default(),
            gauges: Gauges::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let r = &mut *registry;
        r.register("http_requests", "Requests by path and status", self.requests.clone());
        r.register("requests_refused", "Requests refused because the queue was full", self.refused.clone());
        r.register_with_unit("queue", "Time in the queue", Unit::Seconds, self.queued.clone());
        r.register_with_unit(
            "time_to_first_token",
            "From a request's arrival to its first token",
            Unit::Seconds,
            self.first_token.clone(),
        );
        r.register("batch_size", "Sequences that a pass runs together", self.batch.clone());
        r.register("prompt_tokens", "Tokens of prompts that were run", self.prompt_tokens.clone());
        r.register("answer_tokens", "Tokens generated", self.answer_tokens.clone());
        r.register("right_guesses", "Tokens generated that were guessed before", self.right_guesses.clone());
        r.register("wrong_guesses", "Guesses that were checked in vain", self.wrong_guesses.clone());
        r.register_with_unit(
            "pass",
            "Time of passes through the model",
            Unit::Seconds,
            self.pass_seconds.clone(),
        );
        r.register("cached_tokens", "Tokens of prompts whose state was there", self.cached_tokens.clone());
        r.register("prefix_hits", "Requests that went on from a shared prefix", self.prefix_hits.clone());
        r.register("caps_lowered", "Times that an answer's cap was lowered for others", self.lowered.clone());
        r.register("answers_evicting", "Answers whose cache evicted tokens", self.evictions.clone());
        r.register(
            "kv_overruns",
            "Times that a cache was found to take more than it was granted",
            self.overruns.clone(),
        );
        r.register("session_writes", "Sessions written", self.session_writes.clone());
        r.register(
            "session_write_failures",
            "Sessions that could not be written",
            self.session_failures.clone(),
        );
        let g = &self.gauges;
        r.register("answers_running", "Answers in the works", g.running.clone());
        r.register("requests_waiting", "Requests in the queue", g.waiting.clone());
        r.register_with_unit("kv_limit", "The pool of all caches", Unit::Bytes, g.limit.clone());
        r.register_with_unit(
            "kv_granted",
            "What of the pool is granted or taken",
            Unit::Bytes,
            g.granted.clone(),
        );
        r.register("prefixes", "Shared prefixes in memory", g.prefixes.clone());
        r.register_with_unit("kv_prefix", "What shared prefixes take", Unit::Bytes, g.prefix_bytes.clone());
        r.register_with_unit("workspace", "Scratch of the passes", Unit::Bytes, g.workspace.clone());
        r.register_with_unit(
            "kv",
            "What the caches of answers and sessions take, by item",
            Unit::Bytes,
            g.items.clone(),
        );
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self, now: &Inspection) -> String {
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let running = now.slots.iter().filter(|slot| matches!(slot.state, "prompt" | "answer")).count();
        let gauges = &self.gauges;
        gauges.running.set(number(running));
        gauges.waiting.set(number(now.waiting));
        gauges.limit.set(number(now.memory.limit));
        gauges.granted.set(number(now.memory.used));
        gauges.prefixes.set(number(now.prefixes));
        gauges.prefix_bytes.set(number(now.prefix_bytes));
        gauges.workspace.set(number(now.workspace_bytes));
        let mut items: BTreeMap<&str, usize> = BTreeMap::new();
        for (item, bytes) in now.slots.iter().filter_map(|slot| slot.kv.as_ref()).flat_map(|kv| &kv.ledger) {
            *items.entry(item).or_default() += bytes;
        }
        gauges.items.clear();
        for (item, bytes) in items {
            gauges.items.get_or_create(&[("item", item.to_owned())]).set(number(bytes));
        }
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
