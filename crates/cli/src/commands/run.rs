use super::batch::Batch;
use crate::{
    arguments::{
        self, ContextArguments, ModelArguments, SamplingArguments, SpeculationArguments, TemplateArguments,
        TextArguments,
    },
    constraint::ConstraintArguments,
    failure::usage,
    format, interrupt, output, progress, warning,
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sketchkv_cache::{Cache, Spec};
use sketchkv_engine::{Finish, GenerateOptions, Generation, Session, SessionFile, Timing, read_document};
use sketchkv_eval::{Footprint, ledger_bytes, peak_resident, read_input_text};
use sketchkv_model::{ChatMessage, Model, Sampler, Workspace};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// Continue a text, streaming, under a bounded cache.
///
/// Ends with one line on standard error: bytes of the cache and their percent of a full f16 cache, tokens per second
/// of prompt and answer, peak memory.
#[derive(clap::Args)]
#[command(after_help = "\
sketchkv run 'The sea' --kv 'window@25%'
sketchkv run --model smollm2-135m --chat 'Why is the sky blue?' --kv 'h2o(decay=0.99)+q8@16MiB'
sketchkv run --model smollm2-135m --text book.txt -n 200 --temperature 0
sketchkv run --model smollm2-135m --document report.txt --kv 'kvzip+progressive@8MiB' -n 60 'Who wrote it?'
sketchkv run --model smollm2-135m --chat 'Name a colour.' --json-schema '{\"enum\": [\"red\", \"green\", \"blue\"]}'
sketchkv run --text part1.txt -n 0 --session book.kv && sketchkv run --text part2.txt --session book.kv")]
pub(crate) struct Arguments {
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    model: ModelArguments,
    /// The cache: bytes (64MiB), a share of what is to come (25%), or a composition of methods, as listed by `sketchkv methods`
    /// [default: auto, or the session's].
    #[arg(long, value_name = "SPEC")]
    kv: Option<String>,
    /// Go on with the text of this file, cache and all, if it is there; and write it at the end.
    #[arg(long, value_name = "FILE", conflicts_with = "chat")]
    session: Option<PathBuf>,
    /// Read this file first, whole, and keep of it what the cap has room for: chosen with all of it known, where a prompt that
    /// is streamed is chosen from as it comes. With the keep `kvzip` the model repeats it to itself before.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    #[command(flatten)]
    context: ContextArguments,
    /// Answer many prompts instead: a file with a JSON object a line, `{"prompt": "…"}` or `{"messages": [{"role": "user",
    /// "content": "…"}]}`. What all begin with is computed once.
    #[arg(long, value_name = "FILE", requires = "output", conflicts_with_all = ["text", "file", "session", "document", "chat", "json"])]
    input: Option<PathBuf>,
    /// With --input, where a line is written for each: `{"index": 0, "text": "…", "finish": "end", …}`. The same command goes on where
    /// it was interrupted.
    #[arg(long, short, value_name = "FILE", requires = "input")]
    output: Option<PathBuf>,
    /// Give the text as a question, in the form of the model's chat template.
    #[arg(long)]
    chat: bool,
    /// With --chat, what the model is told first.
    #[arg(long, requires = "chat")]
    system: Option<String>,
    #[command(flatten)]
    template: TemplateArguments,
    /// With --chat, let special tokens in the text count as such, not as plain text.
    #[arg(long, requires = "chat")]
    parse_special: bool,
    /// Go on past the token that ends a text.
    #[arg(long)]
    ignore_end: bool,
    /// Spell out special tokens instead of hiding them.
    #[arg(long)]
    show_special: bool,
    /// Print one JSON document at the end instead of streaming the text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    constraint: ConstraintArguments,
    #[command(flatten)]
    speculation: SpeculationArguments,
}

impl Arguments {
    pub(crate) fn run(mut self) -> Result<ExitCode> {
        let spec = self.kv.as_deref().map(arguments::spec).transpose()?;
        // A bad argument, or a session that cannot be written, is told before there is anything to wait for.
        Sampler::new(self.sampling.sampling())?;
        if self.template.template.is_some() && !self.chat {
            return Err(usage("--template is the form of a question: add --chat"));
        }
        if self.input.is_some() && self.speculation.names_model() {
            return Err(usage("--speculate with --input is auto, lookup, self or off"));
        }
        let asked = std::mem::take(&mut self.constraint).read()?;
        let text = if self.input.is_some() { String::new() } else { self.text.read("prompt")? };
        let mut session = self.session.as_deref().map(SessionFile::open).transpose()?;
        let start = Instant::now();
        let mut model = self.model.load(self.context.beyond_context)?;
        if self.chat {
            self.template.apply(&mut model)?;
        }
        let load_seconds = start.elapsed().as_secs_f64();
        let limit = self.context.limit(model.config())?;
        let constraint = asked.map(|asked| asked.compile(&model)).transpose()?;
        let interrupt = interrupt::flag()?;
        if let (Some(input), Some(output)) = (&self.input, &self.output) {
            let limit = limit.unwrap_or(model.config().context);
            let options = GenerateOptions {
                ignore_end: self.ignore_end,
                show_special: self.show_special,
                constraint,
                ..self.sampling.options()
            };
            let spec = arguments::new_cache(spec, &model, limit)?;
            let batch = Batch {
                model: &model,
                spec,
                sampling: self.sampling.sampling(),
                options,
                models: &self.model,
                speculation: &self.speculation,
                limit,
            };
            return batch.run(input, output, &interrupt);
        }
        let document = self.document.as_deref().map(|path| document_tokens(&model, path)).transpose()?;
        let tokens = self.tokens_to_come(&model, &text, document.as_deref())?;
        let document = document.as_deref();
        let made = self.generation(&model, spec, tokens, document, session.as_mut(), &interrupt)?;
        let Some(mut generation) = made else {
            return Ok(ExitCode::from(interrupt::EXIT));
        };
        self.speculation.apply(&self.model, &model, &mut generation)?;
        let seen = generation.tokens();
        let prompt = prompt(&model, text, seen > 0, self.chat.then_some(self.parse_special), self.system)?;
        if let Some(limit) = limit.filter(|limit| seen + prompt.len() >= *limit) {
            return Err(usage(format!(
                "the prompt has {} tokens and leaves no room in a context of {limit}: shorten it, or ask for a longer \
                 context",
                seen + prompt.len()
            )));
        }
        let room = limit.map(|limit| limit - seen - prompt.len());
        let asked = self.sampling.options();
        let options = GenerateOptions {
            max_tokens: asked.max_tokens.into_iter().chain(room).min(),
            ignore_end: self.ignore_end,
            show_special: self.show_special,
            hold: session.is_some(),
            constraint,
            ..asked
        };
        let spec = generation.cache().spec();
        if !self.json && (spec.evicts() || self.kv.is_some() && spec.preset.is_some()) {
            let (cache, end) = (generation.cache(), tokens.max(seen + prompt.len()));
            let profile = self.model.source()?.profile(&model)?;
            let losses = profile.and_then(|profile| profile.losses);
            let loss = losses.and_then(|losses| losses.expected(cache, end));
            let loss = loss.map(|loss| format!("; expected KL {}", format::expected_loss(&loss)));
            eprintln!(
                "{}: {}{}",
                arguments::resolved(cache.spec()),
                format::forecast(&cache.forecast(end)),
                loss.unwrap_or_default()
            );
        }
        generation.feed(&model, &prompt, &options)?;
        let generated = generate(&model, &mut generation, &interrupt, self.json)?;
        if let Some(session) = &mut session {
            session.save_text(&model, &mut generation)?;
        }
        let finish = generation.finish().context("a generation that is over has a reason")?;
        let footprint = Footprint::of(generation.cache());
        let warnings: Vec<String> =
            footprint.warning(&generation.cache().spec().to_string()).into_iter().collect();
        warning::show(&warnings);
        let timing = generation.timing();
        if self.json {
            let document = json!({
                "model": model.config().name,
                "seed": generation.sampling().seed,
                "seen_tokens": seen,
                "prompt_tokens": prompt.len(),
                "generated_tokens": generated,
                "finish": finish_name(finish),
                "text": generation.text(),
                "warnings": warnings,
                "prefill_tps": timing.prefill_rate(),
                "decode_tps": timing.decode_rate(),
                "guessed_tokens": timing.guesses,
                "right_guesses": timing.right_guesses,
                "load_seconds": load_seconds,
                "weight_bytes": model.weight_bytes(),
                "peak_rss_bytes": peak_resident(),
            });
            output::json(&with_cache(document, generation.cache(), &footprint))?;
        } else {
            output::line("")?;
            let seed = match self.sampling.is_random() {
                true => format!(" | seed {}", generation.sampling().seed),
                false => String::new(),
            };
            eprintln!("{}{seed}", summary(&footprint, &timing));
        }
        Ok(match finish {
            Finish::Interrupted => ExitCode::from(interrupt::EXIT),
            _ => ExitCode::SUCCESS,
        })
    }

    /// How many tokens the text may come to: the context asked for, or what is read and what is generated at most.
    fn tokens_to_come(&self, model: &Model, text: &str, document: Option<&[u32]>) -> Result<usize> {
        let context = model.config().context;
        if let Some(asked) = self.context.context {
            return Ok(asked as usize);
        }
        let Some(generated) = self.sampling.max_tokens else { return Ok(context) };
        let tokens = model.tokenizer().encode(text)?.len() + document.map_or(0, <[u32]>::len);
        Ok(tokens.saturating_add(generated).clamp(1, context))
    }

    /// The session's text, or a new one; `None` where reading its document was interrupted.
    fn generation(
        &self,
        model: &Model,
        spec: Option<Spec>,
        tokens: usize,
        document: Option<&[u32]>,
        session: Option<&mut SessionFile>,
        interrupt: &AtomicBool,
    ) -> Result<Option<Generation>> {
        let sampling = self.sampling.sampling();
        let held = session.map(|session| {
            Ok::<_, anyhow::Error>((session.path().to_owned(), session.load(model, sampling.clone())?))
        });
        match held.transpose()? {
            Some((path, Some(_))) if document.is_some() => Err(usage(format!(
                "the session {} has a text already: begin another one with the document",
                path.display()
            ))),
            Some((path, Some(Session::Text(mut generation)))) => {
                arguments::check_session(&path, generation.cache().spec(), spec.as_ref())?;
                arguments::reseed(&mut generation, self.sampling.seed);
                Ok(Some(generation))
            }
            Some((path, Some(Session::Conversation(_)))) => Err(usage(format!(
                "the session {} is a conversation: go on with `sketchkv chat`, or begin another session",
                path.display()
            ))),
            _ => {
                let spec = arguments::new_cache(spec, model, tokens)?;
                let cache = match document {
                    None => Some(Cache::new(model.cache_shape(), &spec, sampling.seed)?),
                    Some(tokens) => read_whole(model, tokens, &spec, sampling.seed, interrupt)?,
                };
                let Some(cache) = cache else { return Ok(None) };
                Ok(Some(Generation::new(cache, Sampler::new(sampling)?)))
            }
        }
    }
}

fn document_tokens(model: &Model, path: &Path) -> Result<Vec<u32>> {
    let text = read_input_text(path)
        .with_context(|| format!("the document {} cannot be read as text", path.display()))?;
    Ok(model.tokenizer().encode_prompt(&text)?)
}

/// A cache that has read a document; `None` where that was interrupted.
fn read_whole(
    model: &Model,
    tokens: &[u32],
    spec: &Spec,
    seed: u64,
    interrupt: &AtomicBool,
) -> Result<Option<Cache>> {
    let bar = progress::bar();
    bar.set_message("document");
    let cache = read_document(model, spec, seed, tokens, &mut Workspace::new(), &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        !interrupt.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    Ok(cache?)
}

/// Generates to the end, printing what becomes certain unless `silent`; gives the number of tokens.
fn generate(
    model: &Model,
    generation: &mut Generation,
    interrupt: &AtomicBool,
    silent: bool,
) -> Result<usize> {
    let (mut workspace, mut tokens) = (Workspace::new(), 0);
    loop {
        if interrupt.load(Ordering::Relaxed) {
            generation.interrupt(model);
        }
        let Some(step) = generation.step(model, &mut workspace)? else { return Ok(tokens) };
        tokens += usize::from(step.token.is_some());
        if !silent {
            output::piece(step.text)?;
        }
    }
}

/// The tokens of `text`; what `goes_on` does not begin with the token that begins a text. As a question if `chat`, which
/// says whether special tokens in it count.
fn prompt(
    model: &Model,
    text: String,
    goes_on: bool,
    chat: Option<bool>,
    system: Option<String>,
) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer();
    let tokens = if let Some(special) = chat {
        let message = |role: &str, content: &str| {
            let content = if special { content.into() } else { tokenizer.shield(content) };
            ChatMessage::new(role, content)
        };
        let system = system.map(|content| message("system", &content));
        let messages: Vec<_> = system.into_iter().chain([message("user", &text)]).collect();
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

/// Tokens from which on the bytes of a cache are set beside those of a full one.
const FEW: usize = 256;

/// A document of JSON, and in it what its cache is and takes.
pub(crate) fn with_cache(mut document: Value, cache: &Cache, footprint: &Footprint) -> Value {
    document["spec"] = json!(cache.spec().to_string());
    document["kv_bytes"] = json!(footprint.kv_bytes);
    document["kv_percent"] = json!(footprint.kv_percent);
    document["asked_bytes"] = json!(footprint.asked_bytes);
    document["asked_percent"] = json!(footprint.asked_percent);
    document["floor_bytes"] = json!(footprint.floor_bytes);
    document["ledger"] = json!(ledger_bytes(&cache.ledger()));
    document
}

/// The line on standard error after a generation.
pub(crate) fn summary(footprint: &Footprint, timing: &Timing) -> String {
    let rate = |rate: f64| if rate > 0.0 { format::rate(rate) } else { "-".into() };
    // Of some tokens the structures take more than the numbers: that is no share of anything.
    let share = match footprint.kv_tokens {
        0..FEW => format!(" of {} tokens", footprint.kv_tokens),
        _ => format!(", {:.1}% of full", footprint.kv_percent),
    };
    let mut text = format!(
        "KV {}{share}{} | prefill {} tokens, {}/s | decode {} tokens, {}/s",
        format::bytes(footprint.kv_bytes as u64),
        footprint.mark().map(|mark| format!(" ({mark})")).unwrap_or_default(),
        timing.prefill_tokens,
        rate(timing.prefill_rate()),
        timing.decode_tokens,
        rate(timing.decode_rate()),
    );
    if timing.guesses > 0 {
        text += &format!(" | {} of {} guesses right", timing.right_guesses, timing.guesses);
    }
    if let Some(peak) = peak_resident() {
        text += &format!(" | peak memory {}", format::bytes(peak));
    }
    text
}

pub(super) fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::End => "end",
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Context => "context",
        Finish::Interrupted => "interrupted",
    }
}
