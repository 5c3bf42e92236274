//! The bodies of the fuzz targets. Each takes arbitrary bytes and must return: an error is a fine answer, a
//! panic, an endless loop or an unbounded allocation is a defect.
//!
//! The same functions run under libFuzzer (`cargo xtask fuzz`) and, on the seeds and mutations of them,
//! in an ordinary test that every toolchain can run.

mod cache;
mod model;
mod mutate;
mod session;
mod sketch;

pub use cache::{CACHES, cache, saved, shape};
pub use model::{config, gguf, safetensors};
pub use mutate::Mutator;
pub use session::{MODEL, session};
pub use sketch::sketch;

/// A fuzz target: its name, which is also the folder of its seeds, and its body.
pub struct Target {
    /// The name of the binary and of the folder below `fuzz/seeds`.
    pub name: &'static str,
    /// Runs once on arbitrary bytes.
    pub body: fn(&[u8]),
    /// Mutated inputs of the ordinary test, for about two seconds.
    pub mutations: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "cache", body: cache, mutations: 500 },
    Target { name: "config", body: config, mutations: 2_000 },
    Target { name: "gguf", body: gguf, mutations: 2_000 },
    Target { name: "safetensors", body: safetensors, mutations: 2_000 },
    Target { name: "session", body: session, mutations: 500 },
    Target { name: "sketch", body: sketch, mutations: 20_000 },
    Target { name: "spec", body: spec, mutations: 20_000 },
];

/// Parses a spec; what parses must print to a text that parses to the same spec.
pub fn spec(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(spec) = text.parse::<sketchkv_cache::Spec>() else { return };
    let printed = spec.to_string();
    let again = printed.parse::<sketchkv_cache::Spec>();
    assert!(again.as_ref() == Ok(&spec), "{text:?} prints as {printed:?}, which parses to {again:?}");
}
