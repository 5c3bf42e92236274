use crate::{
    arguments::{self, ContextArguments, ModelArguments, SamplingArguments, TextArguments},
    failure::usage,
    interrupt, measured, output, session,
};
use anyhow::{Context, Result};
use serde_json::json;
use sketchkv_cache::Cache;
use sketchkv_eval::LedgerBytes;
use sketchkv_model::{ChatMessage, Finish, GenerateOptions, Generator, Model, Sampler, Timing, Workspace};
use std::{path::PathBuf, process::ExitCode, time::Instant};

/// Continue a text, streaming, under a bounded cache.
///
/// Ends with one line on standard error: bytes of the cache and their percent of a full f16 cache, tokens per second
/// of prompt and answer, peak memory.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv run 'The sea' --kv 'window@25%'
sketchkv run --model smollm2-135m --chat 'Why is the sky blue?' --kv 'h2o(decay=0.99)+q8@16MiB'
sketchkv run --model smollm2-135m --file book.txt -n 200 --temperature 0
sketchkv run --file part1.txt -n 0 --session book.kv && sketchkv run --file part2.txt --session book.kv")]
pub(crate) struct Arguments {
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    model: ModelArguments,
    /// The cache: a composition of methods, as listed by `sketchkv methods` [default: full, or the session's].
    #[arg(long)]
    kv: Option<String>,
    /// Go on with the text of this file, cache and all, if it is there; and write it at the end.
    #[arg(long, value_name = "FILE", conflicts_with = "chat")]
    session: Option<PathBuf>,
    #[command(flatten)]
    context: ContextArguments,
    /// Give the text as a question, in the form of the model's chat template.
    #[arg(long)]
    chat: bool,
    /// With --chat, what the model is told first.
    #[arg(long, requires = "chat")]
    system: Option<String>,
    /// Go on past the token that ends a text.
    #[arg(long)]
    ignore_end: bool,
    /// Spell out special tokens instead of hiding them.
    #[arg(long)]
    show_special: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Print one JSON document at the end instead of streaming the text.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let spec = self.kv.as_deref().map(arguments::spec).transpose()?;
        let mut sampler = Sampler::new(self.sampling.sampling())?;
        let text = self.text.read("prompt")?;
        let start = Instant::now();
        let model = self.model.load(self.context.beyond_context)?;
        let load_seconds = start.elapsed().as_secs_f64();
        let limit = self.context.limit(model.config())?;
        let file = self.session.as_deref();
        let session = file.map(|file| session::load(file, &model, spec.as_ref())).transpose()?.flatten();
        let (before, mut cache) = match session {
            Some((text, cache)) => (text.pending, cache),
            None => (vec![], Cache::new(model.cache_shape(), &spec.unwrap_or_default(), self.sampling.seed)?),
        };
        let seen = cache.position();
        let prompt = [before, prompt(&model, text, seen > 0, self.chat, self.system)?].concat();
        if let Some(limit) = limit.filter(|limit| seen + prompt.len() >= *limit) {
            return Err(usage(format!(
                "the prompt has {} tokens and leaves no room in a context of {limit}: shorten it, or ask for a longer \
                 context",
                seen + prompt.len()
            )));
        }
        let room = limit.map(|limit| limit - seen - prompt.len());
        let options = GenerateOptions {
            max_tokens: self.sampling.max_tokens.into_iter().chain(room).min(),
            stop: self.sampling.stop.clone(),
            ignore_end: self.ignore_end,
            show_special: self.show_special,
            interrupt: Some(interrupt::flag()?),
        };
        let outcome = generate(&model, &mut cache, &mut sampler, &prompt, options, self.json)?;
        if let Some(file) = file {
            // What was generated last has not been run.
            let run = cache.position() - seen;
            let pending = prompt.iter().chain(&outcome.tokens).skip(run).copied().collect();
            session::save(file, &model, session::Text { pending, ..Default::default() }, &cache)?;
        }
        let footprint = measured::Footprint::of(&cache);
        if self.json {
            output::json(&json!({
                "model": model.config().name,
                "spec": cache.spec().to_string(),
                "seed": self.sampling.seed,
                "prompt_tokens": prompt.len(),
                "generated_tokens": outcome.tokens.len(),
                "finish": finish_name(outcome.finish),
                "text": outcome.text,
                "kv_bytes": footprint.bytes,
                "kv_percent": footprint.percent,
                "ledger": LedgerBytes::from(cache.ledger()),
                "prefill_tps": outcome.timing.prefill_rate(),
                "decode_tps": outcome.timing.decode_rate(),
                "load_seconds": load_seconds,
                "weight_bytes": model.weight_bytes(),
                "peak_rss_bytes": measured::peak_resident_bytes(),
            }))?;
        } else {
            output::line("")?;
            eprintln!("{}", summary(&footprint, &outcome.timing));
        }
        Ok(match outcome.finish {
            Finish::Interrupted => ExitCode::from(interrupt::EXIT),
            _ => ExitCode::SUCCESS,
        })
    }
}

struct Outcome {
    tokens: Vec<u32>,
    text: String,
    finish: Finish,
    timing: Timing,
}

/// Generates to the end, printing what becomes certain unless `silent`.
fn generate(
    model: &Model,
    cache: &mut Cache,
    sampler: &mut Sampler,
    prompt: &[u32],
    options: GenerateOptions,
    silent: bool,
) -> Result<Outcome> {
    let mut workspace = Workspace::new();
    let mut generator = Generator::new(model, cache, &mut workspace, sampler, prompt, options)?;
    let (mut tokens, mut text) = (vec![], String::new());
    for piece in &mut generator {
        let piece = piece?;
        tokens.push(piece.token);
        text.push_str(&piece.text);
        if !silent {
            output::piece(&piece.text)?;
        }
    }
    let finish = generator.finish().context("a generation that is over has a reason")?;
    Ok(Outcome { tokens, text, finish, timing: generator.timing() })
}

/// The tokens of `text`; what `goes_on` does not begin with the token that begins a text.
fn prompt(
    model: &Model,
    text: String,
    goes_on: bool,
    chat: bool,
    system: Option<String>,
) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer();
    let tokens = if chat {
        let message = |role: &str, content| ChatMessage { role: role.into(), content };
        let system = system.map(|content| message("system", content));
        let messages: Vec<_> = system.into_iter().chain([message("user", text)]).collect();
        tokenizer.encode(&tokenizer.chat(&messages, true)?)?
    } else if goes_on {
        return Ok(tokenizer.encode(&text)?);
    } else {
        tokenizer.encode_prompt(&text)?
    };
    if tokens.is_empty() {
        return Err(usage("the prompt is empty: give at least one token to continue"));
    }
    Ok(tokens)
}

/// The line on standard error after a generation.
pub(crate) fn summary(footprint: &measured::Footprint, timing: &Timing) -> String {
    use crate::format;
    let rate = |rate: f64| if rate > 0.0 { format::rate(rate) } else { "-".into() };
    let mut text = format!(
        "KV {}, {:.1}% of full | prefill {} tokens, {}/s | decode {} tokens, {}/s",
        format::bytes(footprint.bytes),
        footprint.percent,
        timing.prefill_tokens,
        rate(timing.prefill_rate()),
        timing.decode_tokens,
        rate(timing.decode_rate()),
    );
    if let Some(peak) = measured::peak_resident_bytes() {
        text += &format!(" | peak memory {}", format::bytes(peak));
    }
    text
}

fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::End => "end",
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Context => "context",
        Finish::Interrupted => "interrupted",
    }
}
