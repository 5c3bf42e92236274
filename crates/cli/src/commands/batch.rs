//! Many prompts from a file, and their answers into another.

use super::run::finish_name;
use crate::{
    arguments::{ModelArguments, SpeculationArguments},
    failure::usage,
    interrupt, output, progress,
};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use sketchkv_cache::{Cache, Spec};
use sketchkv_engine::{GenerateOptions, Generation};
use sketchkv_eval::open_input;
use sketchkv_model::{ChatMessage, Logits, Model, Sampler, Sampling, Sequence, Workspace};
use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Seek, Write},
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

/// A line of the input.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text { prompt: String },
    Chat { messages: Vec<ChatMessage> },
}

/// How every prompt is answered.
pub(super) struct Batch<'a> {
    pub(super) model: &'a Model,
    pub(super) spec: Spec,
    pub(super) sampling: Sampling,
    pub(super) options: GenerateOptions,
    pub(super) models: &'a ModelArguments,
    pub(super) speculation: &'a SpeculationArguments,
    /// Most tokens of a prompt and its answer.
    pub(super) limit: usize,
}

impl Batch<'_> {
    /// Answers the prompts of `input`, a JSON object a line, into `output`, a line each, in the same order. Goes on where an
    /// earlier run of the same stopped.
    pub(super) fn run(&self, input: &Path, output: &Path, interrupt: &AtomicBool) -> Result<ExitCode> {
        let prompts = self.prompts(input)?;
        let (mut out, done) = open(output)?;
        if done > prompts.len() {
            return Err(usage(format!(
                "{} has {done} answers and {} has {} prompts: they do not belong together",
                output.display(),
                input.display(),
                prompts.len()
            )));
        }
        let bar = progress::bar();
        bar.set_length(prompts.len() as u64);
        bar.set_position(done as u64);
        let mut workspace = Workspace::new();
        let prefix = self.prefix(&prompts[done..], &mut workspace)?;
        let (mut failed, mut answered) = (0, 0);
        for (index, prompt) in prompts.iter().enumerate().skip(done) {
            let answer = match prompt {
                Ok(tokens) => self.answer(tokens, prefix.as_ref(), &mut workspace, interrupt)?,
                Err(error) => Some(json!({ "error": error })),
            };
            let Some(mut answer) = answer else {
                bar.finish_and_clear();
                eprintln!("{} of {} answered; the same command goes on", index, prompts.len());
                return Ok(ExitCode::from(interrupt::EXIT));
            };
            failed += usize::from(answer.get("error").is_some());
            answered += 1;
            answer["index"] = index.into();
            // One write a line: what breaks off is the last line at most.
            let line = format!("{answer}\n");
            let write = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            write.with_context(|| format!("cannot write {}", output.display()))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let shared = prefix.map_or(0, |cache| cache.position());
        let shared =
            if shared > 0 { format!(", a prefix of {shared} tokens computed once") } else { String::new() };
        eprintln!("{answered} prompts answered, {done} were before, {failed} failed{shared}");
        Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// The tokens of every prompt, or why it is none.
    fn prompts(&self, input: &Path) -> Result<Vec<Result<Vec<u32>, String>>> {
        let file = open_input(input).with_context(|| format!("cannot read {}", input.display()))?;
        let mut prompts = vec![];
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = line.with_context(|| format!("cannot read {}", input.display()))?;
            if line.trim().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(&line).map_err(|_| {
                usage(format!(
                    "{} line {}: not an object with `prompt`, a text, or `messages` with `role` and `content`",
                    input.display(),
                    number + 1
                ))
            })?;
            prompts.push(self.tokens(line));
        }
        if prompts.is_empty() {
            return Err(usage(format!("{} holds no prompt: a JSON object a line", input.display())));
        }
        Ok(prompts)
    }

    fn tokens(&self, line: Line) -> Result<Vec<u32>, String> {
        let tokenizer = self.model.tokenizer();
        let tokens = match line {
            Line::Text { prompt } => tokenizer.encode_prompt(&prompt),
            Line::Chat { mut messages } => {
                for message in messages.iter_mut().filter(|message| message.role != "assistant") {
                    message.content = tokenizer.shield(&message.content).into();
                }
                tokenizer.chat(&messages, true).and_then(|text| tokenizer.encode(&text))
            }
        };
        let tokens = tokens.map_err(|error| error.to_string())?;
        match tokens.len() {
            0 => Err("the prompt is empty".into()),
            length if length >= self.limit => {
                Err(format!("the prompt has {length} tokens, and the context is {}", self.limit))
            }
            _ => Ok(tokens),
        }
    }

    /// A cache that has seen what all prompts begin with, in whole chunks: behind these, it is that of each prompt alone.
    fn prefix(
        &self,
        prompts: &[Result<Vec<u32>, String>],
        workspace: &mut Workspace,
    ) -> Result<Option<Cache>> {
        let mut good = prompts.iter().flatten();
        let (Some(first), true) = (good.next(), prompts.len() > 1) else { return Ok(None) };
        let common = good.fold(first.len() - 1, |common, prompt| {
            let alike =
                first.iter().zip(&prompt[..prompt.len() - 1]).take(common).take_while(|(a, b)| a == b);
            alike.count()
        });
        let length = common / self.model.chunk() * self.model.chunk();
        if length == 0 {
            return Ok(None);
        }
        let mut cache = Cache::new(self.model.cache_shape(), &self.spec, self.sampling.seed)?;
        let batch = &mut [Sequence { tokens: &first[..length], cache: &mut cache }];
        self.model.forward(batch, workspace, Logits::None).all()?;
        Ok(Some(cache))
    }

    /// The answer to one prompt; `None` when it was interrupted.
    fn answer(
        &self,
        tokens: &[u32],
        prefix: Option<&Cache>,
        workspace: &mut Workspace,
        interrupt: &AtomicBool,
    ) -> Result<Option<Value>> {
        let cache = match prefix {
            Some(cache) => cache.fork(),
            None => Cache::new(self.model.cache_shape(), &self.spec, self.sampling.seed)?,
        };
        let seen = cache.position();
        let mut sampler = Sampler::new(self.sampling.clone())?;
        tokens[..seen].iter().for_each(|&token| sampler.observe(token));
        let mut generation = Generation::new(cache, sampler);
        self.speculation.apply(self.models, self.model, &mut generation)?;
        let room = self.limit - tokens.len();
        let max_tokens = self.options.max_tokens.into_iter().chain([room]).min();
        generation.feed(
            self.model,
            &tokens[seen..],
            &GenerateOptions { max_tokens, ..self.options.clone() },
        )?;
        let mut generated = 0;
        loop {
            if interrupt.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match generation.step(self.model, workspace) {
                Ok(Some(step)) => generated += usize::from(step.token.is_some()),
                Ok(None) => break,
                Err(error) => return Ok(Some(json!({ "error": error.to_string() }))),
            }
        }
        Ok(Some(json!({
            "text": generation.text(),
            "finish": generation.finish().map_or("end", finish_name),
            "prompt_tokens": tokens.len(),
            "generated_tokens": generated,
            "kv_bytes": generation.cache().ledger().total(),
        })))
    }
}

/// The output, behind its last whole line, and how many there are.
fn open(path: &Path) -> Result<(File, usize)> {
    let failed = || format!("cannot write {}", path.display());
    output::check(path)?;
    let other = || usage(format!("{} holds something else than answers: give another file", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(failed)?;
    let (mut whole, mut lines) = (0, 0);
    let mut reader = BufReader::new(&mut file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).with_context(failed)? > 0 {
        if line.ends_with(b"\n") {
            if serde_json::from_slice::<Value>(&line).is_err() {
                return Err(other());
            }
            whole += line.len() as u64;
            lines += 1;
        } else if line[0] != b'{' {
            // What an interruption left is the beginning of an answer.
            return Err(other());
        }
        line.clear();
    }
    file.set_len(whole).and_then(|()| file.seek(std::io::SeekFrom::End(0))).with_context(failed)?;
    Ok((file, lines))
}
