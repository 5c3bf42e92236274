//! Arguments that several commands share.

use crate::{config, failure::usage, format, warning};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum, value_parser};
use serde::Deserialize;
use sketchkv_cache::{Cap, Spec};
use sketchkv_engine::{
    GenerateOptions, Generation, Source,
    speculate::{DraftModel, Drafter, Lookup},
};
use sketchkv_eval::{floor_bytes, read_input, read_input_text};
use sketchkv_model::{Activations, Config, LoadOptions, Model, Sampling, Tokenizer, WeightFormat};
use std::{
    ffi::OsString,
    fmt::{self, Display, Formatter},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    str::FromStr,
    sync::LazyLock,
};

/// What a user calls a model: a name, or a path, which may be of any bytes.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub(crate) struct ModelName(OsString);

impl<T: Into<OsString>> From<T> for ModelName {
    fn from(name: T) -> Self {
        ModelName(name.into())
    }
}

impl Display for ModelName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl ModelName {
    /// What it names.
    pub(crate) fn source(&self) -> Result<Source> {
        Ok(Source::find(&self.0)?)
    }
}

/// Which model, and how it is run.
#[derive(Args)]
pub(crate) struct ModelArguments {
    /// A name from `sketchkv models`, a GGUF file, or a Hugging Face folder.
    #[arg(long, short, default_value_t = config::usual_model())]
    pub(crate) model: ModelName,
    /// How weights are held and multiplied.
    #[arg(long, value_enum, default_value_t = Weights::Native)]
    weights: Weights,
    /// Threads [default: one per core].
    #[arg(long, short, value_parser = value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// How weights are held and multiplied.
#[derive(Clone, Copy, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Weights {
    /// As in the file, with activations of 16 bits where its blocks allow it.
    #[default]
    Native,
    /// As in the file, with activations of 8 bits, as llama.cpp has them: prompts are faster, for a loss of their own.
    Fast,
    /// In f32 with f32 activations: the reference.
    F32,
    /// In blocks of 32 eight-bit integers.
    Q8,
}

impl ModelArguments {
    /// What it names.
    pub(crate) fn source(&self) -> Result<Source> {
        self.model.source()
    }

    /// Loads it. `beyond_context` lets positions go past the model's context.
    pub(crate) fn load(&self, beyond_context: bool) -> Result<Model> {
        load(&self.source()?, &LoadOptions { beyond_context, ..self.weights.options(self.threads) })
    }
}

impl Weights {
    /// Loads them so, for `threads` threads, else as many as are configured.
    pub(crate) fn options(self, threads: Option<u16>) -> LoadOptions {
        let threads = threads.or(config::get().threads).map_or(0, usize::from);
        let options = LoadOptions { threads, ..LoadOptions::default() };
        match self {
            Weights::Native => options,
            Weights::Fast => LoadOptions { activations: Activations::Bits8, ..options },
            Weights::F32 => LoadOptions { weights: WeightFormat::F32, ..options },
            Weights::Q8 => LoadOptions { weights: WeightFormat::Q8, ..options },
        }
    }
}

/// Loads a model and shows the remarks on its file.
pub(crate) fn load(source: &Source, options: &LoadOptions) -> Result<Model> {
    let model = source.load(options)?;
    warning::notes(&model.config().notes);
    Ok(model)
}

/// A whole number from 0 up.
fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "give a whole number from 0 up".to_owned())
}

/// Most tokens that anything can be asked for: sums of some such numbers are numbers still.
pub(crate) const MOST_TOKENS: u64 = 1 << 30;
/// Most documents and tasks that can be asked for.
pub(crate) const MOST_SAMPLES: u64 = 1 << 20;

/// A number of tokens, 0 included.
pub(crate) fn tokens(text: &str) -> Result<usize, String> {
    let tokens = text.parse().ok().filter(|&tokens| tokens as u64 <= MOST_TOKENS);
    tokens.ok_or_else(|| format!("give a number of tokens, {MOST_TOKENS} at most"))
}

/// A limit: a number from 0 up.
pub(crate) fn limit(text: &str) -> Result<f64, String> {
    let limit = text.parse().ok().filter(|limit: &f64| limit.is_finite() && *limit >= 0.0);
    limit.ok_or_else(|| "give a number from 0 up".to_owned())
}

/// A number that is another in each run, short enough to be typed.
fn chance() -> u64 {
    static CHANCE: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish() >> 40);
    *CHANCE
}

/// The form that a conversation is given to the model in.
#[derive(Args)]
pub(crate) struct TemplateArguments {
    /// The chat template in place of the model's own: chatml, gemma, llama3, or a file of Jinja.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) template: Option<String>,
}

impl TemplateArguments {
    /// Makes it the model's, and says no where it has none.
    pub(crate) fn apply(&self, model: &mut Model) -> Result<()> {
        if let Some(template) = &self.template {
            set_template(model, template)?;
        }
        if model.tokenizer().has_chat_template() {
            return Ok(());
        }
        Err(usage(format!(
            "{} brings no chat template: name one with --template, continue text with `sketchkv run`, or talk with another \
             model, for instance `sketchkv pull smollm2-135m && sketchkv chat --model smollm2-135m`",
            model.config().name
        )))
    }
}

/// Gives the model the chat template of this name, or of this file.
pub(crate) fn set_template(model: &mut Model, template: &str) -> Result<()> {
    if Tokenizer::chat_forms().any(|form| form.eq_ignore_ascii_case(template)) {
        return model.set_chat_template(template).map_err(|error| usage(format!("--template: {error}")));
    }
    let source = read_input_text(Path::new(template)).map_err(|error| {
        let names: Vec<_> = Tokenizer::chat_forms().collect();
        usage(format!(
            "--template {template:?} is none of {}, and no file of Jinja: {error}",
            names.join(", ")
        ))
    })?;
    Ok(model.set_chat_template(&source)?)
}

/// How long a sequence may get.
#[derive(Args)]
pub(crate) struct ContextArguments {
    /// Most tokens of the sequence, prompt and answer together [default: the model's context].
    #[arg(long, short, value_parser = value_parser!(u64).range(2..=MOST_TOKENS))]
    pub(crate) context: Option<u64>,
    /// Let the sequence go past the context the model was made for, with a spec that bounds the cache.
    #[arg(long)]
    pub(crate) beyond_context: bool,
}

impl ContextArguments {
    /// The limit in tokens, `None` when there is none.
    ///
    /// # Errors
    /// When the model was not made for that many and going beyond was not asked for.
    pub(crate) fn limit(&self, config: &Config) -> Result<Option<usize>> {
        let Some(asked) = self.context.and_then(|asked| usize::try_from(asked).ok()) else {
            return Ok((!self.beyond_context).then_some(config.context));
        };
        if asked > config.context && !self.beyond_context {
            let stream = if config.is_rotated() { ", or add --beyond-context" } else { "" };
            return Err(usage(format!(
                "{} was made for a context of {} tokens, not {asked}: ask for less{stream}",
                config.name, config.context
            )));
        }
        Ok(Some(asked))
    }
}

/// How tokens are chosen.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArguments {
    /// Divides the logits; 0 always takes the most probable token.
    #[arg(long, default_value_t = 0.8)]
    temperature: f32,
    /// Of the most probable tokens only this many; 0 takes all.
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// Of the most probable tokens those that together reach this probability.
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// No token less probable than this share of the most probable.
    #[arg(long, default_value_t = 0.05)]
    min_p: f32,
    /// Makes tokens less likely that came lately; 1 does not.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Makes each token less likely, once, that the model itself chose lately, by this much of its logit; -2 to 2, 0 does not.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Makes tokens less likely by this much each time that the model itself chose them lately; -2 to 2, 0 does not.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// How many of the last tokens the penalties look at.
    #[arg(long, default_value_t = 64)]
    repetition_window: usize,
    /// Reproduces a run bit for bit; a session's random numbers go on unless it is another [default: a new one each time, which
    /// is printed at the end; or the session's].
    #[arg(long, allow_negative_numbers = true, value_parser = whole::<u64>)]
    pub(crate) seed: Option<u64>,
    /// Most tokens to generate.
    #[arg(long, short = 'n', value_name = "TOKENS", allow_negative_numbers = true, value_parser = whole::<usize>)]
    pub(crate) max_tokens: Option<usize>,
    /// Ends the generation where this text appears; may be given several times.
    #[arg(long)]
    stop: Vec<String>,
}

impl SamplingArguments {
    /// What a generation is asked for, beside what the command says.
    pub(crate) fn options(&self) -> GenerateOptions {
        GenerateOptions { max_tokens: self.max_tokens, stop: self.stop.clone(), ..GenerateOptions::default() }
    }

    /// Whether tokens are drawn by a seed that nobody asked for.
    pub(crate) fn is_random(&self) -> bool {
        self.seed.is_none() && self.temperature > 0.0
    }

    /// As the sampler takes them.
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_window: self.repetition_window,
            logit_bias: Vec::new(),
            seed: self.seed.unwrap_or_else(chance),
        }
    }
}

/// What guesses the tokens that come next.
#[derive(Args)]
pub(crate) struct SpeculationArguments {
    /// What guesses the tokens that come next, for the model to check several at once: `lookup` in the text so far, `self` by the
    /// same weights over a small cache, a smaller MODEL with the same tokens, `off`; `auto` is lookup. The text is the same,
    /// token for token, and guesses are made only while they pay.
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Speed")]
    speculate: String,
}

/// The cache that drafts are made over by the weights of the model itself.
const SELF_DRAFT: &str = "full+q8+topk(k=256)";
/// The cache of a draft model.
const DRAFT: &str = "full+q8";

impl SpeculationArguments {
    /// Whether it names a model that drafts, which is loaded for one text.
    pub(crate) fn names_model(&self) -> bool {
        !matches!(&*self.speculate, "auto" | "lookup" | "self" | "off")
    }

    /// Sets `generation` to it.
    ///
    /// # Errors
    /// When there is no such model, or its tokens are others.
    pub(crate) fn apply(
        &self,
        models: &ModelArguments,
        model: &Model,
        generation: &mut Generation,
    ) -> Result<()> {
        let drafter: Option<Box<dyn Drafter>> = match &*self.speculate {
            "off" => None,
            "auto" | "lookup" => Some(Box::new(Lookup::new())),
            "self" => Some(Box::new(DraftModel::same_weights(model, &SELF_DRAFT.parse()?)?)),
            name => {
                let draft = ModelArguments { model: name.into(), ..*models };
                let draft = draft.load(false).with_context(|| {
                    format!("--speculate {name}: it is auto, lookup, self, off or a model")
                })?;
                Some(Box::new(DraftModel::new(draft, model, &DRAFT.parse()?)?))
            }
        };
        generation.speculate(model, drafter, &[]);
        Ok(())
    }
}

/// Text from the command line, a file or standard input.
#[derive(Args)]
pub(crate) struct TextArguments {
    /// The text; without it and without --text, standard input.
    pub(crate) text: Option<String>,
    /// Reads the text from a file.
    #[arg(long = "text", short = 'f', alias = "file", value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
}

impl TextArguments {
    /// The text; `what` names it in messages.
    pub(crate) fn read(&self, what: &str) -> Result<String> {
        match (&self.text, &self.file) {
            (Some(text), _) if text != "-" => Ok(text.clone()),
            (_, Some(file)) => read_text(file),
            _ if io::stdin().is_terminal() => Err(usage(format!(
                "there is no {what}: give it as an argument, with --text FILE, or on standard input"
            ))),
            _ => {
                let mut bytes = Vec::new();
                io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
                String::from_utf8(bytes)
                    .map_err(|error| usage(format!("standard input is not UTF-8: {error}")))
            }
        }
    }
}

/// A text file, which must be UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = read_input(path).with_context(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).map_err(|error| usage(format!("{} is not UTF-8 text: {error}", path.display())))
}

/// Begins the random numbers of a session anew if another seed than its own is asked for.
pub(crate) fn reseed(generation: &mut Generation, asked: Option<u64>) {
    if let Some(seed) = asked.filter(|&seed| seed != generation.sampling().seed) {
        generation.reseed(seed);
    }
}

/// The cache where none is asked for: next to nothing is lost of any model, at about half of the bytes.
pub(crate) const USUAL_CACHE: &str = "auto";

/// The spec of a new cache for `tokens` tokens to come, of which a cap in percent is a share; says what cannot be meant.
pub(crate) fn new_cache(asked: Option<Spec>, model: &Model, tokens: usize) -> Result<Spec> {
    let usual = config::get().kv.as_deref().unwrap_or(USUAL_CACHE);
    let spec = asked.map_or_else(|| spec(usual), Ok)?;
    if !spec.evicts() && !spec.keeps_all() {
        let keep = spec.keep.method().name;
        warning::show(&[format!("`{spec}` evicts nothing without a cap: add one, as in `{keep}@64MiB`")]);
    }
    let mut bytes = spec.for_context(&model.cache_shape(), tokens);
    if let (Cap::Percent(percent), Cap::Bytes(share)) = (spec.cap, bytes.cap) {
        let (tokens, size) = (format::count(tokens as u64), |bytes| format::bytes(bytes as u64));
        let floor = floor_bytes(&model.cache_shape(), &bytes).unwrap_or(0).next_multiple_of(1024);
        let least = if floor > share {
            format!(", less than this cache works with: it gets {}", size(floor))
        } else {
            String::new()
        };
        eprintln!("{percent}% of {tokens} tokens in f16 is {}{least}", size(share));
        bytes.cap = Cap::Bytes(share.max(floor));
    }
    Ok(bytes)
}

/// A spec as one would write it: by the name of its preset, if it has one.
pub(crate) fn written(spec: &Spec) -> String {
    spec.preset.map_or_else(|| spec.to_string(), |name| format!("{name}{}", spec.cap))
}

/// A spec with what the name of its preset stands for, if it has one.
pub(crate) fn resolved(spec: &Spec) -> String {
    called(spec.preset, &spec.to_string())
}

/// The same of a spec and the name of its preset apart.
pub(crate) fn called(preset: Option<&str>, spec: &str) -> String {
    preset.map_or_else(|| spec.to_owned(), |name| format!("{name} = {spec}"))
}

/// Refuses a session whose cache is another than the one asked for.
pub(crate) fn check_session(path: &Path, held: &Spec, asked: Option<&Spec>) -> Result<()> {
    // A share was of the tokens that were to come then.
    let alike = |asked: &Spec| {
        let is_share = matches!((asked.cap, held.cap), (Cap::Percent(_), Cap::Bytes(_)));
        if is_share {
            Spec { cap: held.cap, ..asked.clone() } == *held
        } else {
            asked.to_string() == held.to_string()
        }
    };
    match asked.filter(|asked| !alike(asked)) {
        None => Ok(()),
        Some(asked) => Err(usage(format!(
            "the session {} has the cache `{held}`, not `{asked}`: leave --kv out, or begin another session",
            path.display()
        ))),
    }
}

/// Parses a spec; the message lists near names and the grammar.
pub(crate) fn spec(text: &str) -> Result<Spec> {
    Ok(text.parse::<Spec>()?)
}
