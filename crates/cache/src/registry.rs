//! All methods: what the grammar, the help, the docs, the tests and the benchmarks are derived from.

use crate::method::{Choice, Method};
use crate::{CacheError, budget, keep, read, refine, store, tail};

/// A ready-made spec with a name of its own.
#[derive(Debug)]
pub struct Preset {
    /// Its name, to be used in place of a spec, alone or with a cap.
    pub name: &'static str,
    /// The spec that the name alone stands for.
    pub spec: &'static str,
    /// The spec that the name with a cap stands for, without the cap.
    pub capped: &'static str,
    /// What it is for, in one line.
    pub summary: &'static str,
}

/// All presets. The first four are held to a loss on every model, in `docs/results.md`: without a cap a mean KL of 0.01, at
/// a quarter of the bytes 0.03. The others are the strategies and baselines of the original project, which promise nothing.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "auto",
        spec: "full+progressive",
        capped: "foreseen+progressive(least=2)+adaptive",
        summary: "takes a number of bytes and makes the most of them: bits fall as the context grows; bytes alone mean it",
    },
    Preset {
        name: "best-quality",
        spec: "full+progressive",
        capped: "foreseen+progressive(least=2)+adaptive",
        summary: "the least loss at the given bytes, as auto; without a cap, none that can be seen",
    },
    Preset {
        name: "balanced",
        spec: "full+graded(bits=4)",
        capped: "foreseen+progressive(least=2)+adaptive",
        summary: "without a cap, a third of the bytes at next to no loss; with one, as auto",
    },
    Preset {
        name: "fastest",
        spec: "full+graded(bits=4)",
        capped: "foreseen+progressive(least=2)+adaptive",
        summary: "the fastest that harms no model that was measured; without a cap as balanced, with one as auto",
    },
    Preset {
        name: "topk",
        spec: "full+topk",
        capped: "cms+topk",
        summary: "the original's top-k strategy: a sketch finds what is worth exact attention",
    },
    Preset {
        name: "aggregate",
        spec: "cms+buckets@25%",
        capped: "cms+buckets",
        summary: "the original's aggregate strategy: heavy hitters of a sketch stay exact, the rest is summed up",
    },
    Preset {
        name: "sliding-window",
        spec: "window@25%",
        capped: "window",
        summary: "the original's baseline of recent tokens",
    },
    Preset {
        name: "int8",
        spec: "full+q8",
        capped: "window+q8",
        summary: "the original's baseline of quantization",
    },
];

/// The function that builds a method from its call.
#[derive(Debug, Clone, Copy)]
pub enum Build {
    /// Of a [`Keep`](keep::Keep).
    Keep(keep::Build),
    /// Of a [`Refine`](refine::Refine).
    Refine(refine::Build),
    /// Of a [`Store`](store::Store).
    Store(store::Build),
    /// Of a [`Tail`](tail::Tail).
    Tail(tail::Build),
    /// Of a [`Read`](read::Read).
    Read(read::Build),
    /// Of a [`Budget`](budget::Budget).
    Budget(budget::Build),
}

impl Build {
    /// The choice that what it builds belongs to.
    pub fn choice(self) -> Choice {
        match self {
            Build::Keep(_) => Choice::Keep,
            Build::Refine(_) => Choice::Refine,
            Build::Store(_) => Choice::Store,
            Build::Tail(_) => Choice::Tail,
            Build::Read(_) => Choice::Read,
            Build::Budget(_) => Choice::Budget,
        }
    }
}

/// The methods that a spec can name, and what builds them.
///
/// [`Registry::builtin`] has those of this crate. A program with a method of its own adds it and parses its specs with the
/// result, [`Spec::parse_with`](crate::Spec::parse_with): a spec holds what a cache is built from, so that nothing after the
/// parser knows the registry. `examples/own_keep.rs` adds a keep.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Vec<(&'static Method, Build)>,
}

impl Registry {
    /// The methods of this crate.
    pub fn builtin() -> Self {
        let mut entries = vec![];
        entries.extend(keep::KEEPS.iter().map(|&(method, build)| (method, Build::Keep(build))));
        entries.extend(refine::REFINES.iter().map(|&(method, build)| (method, Build::Refine(build))));
        entries.extend(store::STORES.iter().map(|&(method, build)| (method, Build::Store(build))));
        entries.extend(tail::TAILS.iter().map(|&(method, build)| (method, Build::Tail(build))));
        entries.extend(read::READS.iter().map(|&(method, build)| (method, Build::Read(build))));
        entries.extend(budget::BUDGETS.iter().map(|&(method, build)| (method, Build::Budget(build))));
        Registry { entries }
    }

    /// With a method of another crate.
    ///
    /// # Errors
    /// When a spec could not name the method or what it prints as would not read back: its name is taken (a keep may share
    /// one with another choice's method), a name is no word, a default is no value of its parameter. When `build` builds
    /// another choice.
    pub fn with(mut self, method: &'static Method, build: Build) -> Result<Self, CacheError> {
        let (name, choice) = (method.name, method.choice);
        let rival = |other: &&Method| {
            other.name == name && (other.choice == Choice::Keep) == (choice == Choice::Keep)
        };
        let why = if build.choice() != choice {
            format!("it describes a {choice}, and what it is built by builds a {}", build.choice())
        } else if PRESETS.iter().any(|preset| preset.name == name) {
            "a preset has that name: give it another".to_owned()
        } else if let Some(other) = self.methods().find(rival) {
            format!("a {} has that name: give it another", other.choice)
        } else if let Err(why) = method.check() {
            why
        } else {
            self.entries.push((method, build));
            return Ok(self);
        };
        Err(CacheError::Spec(format!("the {choice} `{name}` cannot be registered: {why}")))
    }

    /// Every method, in the order of the choices; those that were added come last.
    pub fn methods(&self) -> impl Iterator<Item = &'static Method> {
        self.entries.iter().map(|(method, _)| *method)
    }

    /// The method of this name. Of a keep and another method of one name it is the keep, unless a spec `has_keep` already.
    pub(crate) fn find(&self, name: &str, has_keep: bool) -> Option<(&'static Method, Build)> {
        let mut named = self.entries.iter().filter(|(method, _)| method.name == name).copied().peekable();
        let first = named.peek().copied()?;
        Some(named.find(|(method, _)| (method.choice == Choice::Keep) != has_keep).unwrap_or(first))
    }
}
