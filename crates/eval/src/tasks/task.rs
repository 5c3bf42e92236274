use super::{Corpus, Rule, TaskKind, kind::Filling, text::prefix};
use crate::{EvalError, Footprint, Rng};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{Cache, Spec};
use sketchkv_engine::{GenerateOptions, Generation, read_document};
use sketchkv_model::{Logits, Model, Sampler, Sampling, Sequence, Workspace};

/// Whether a cache may know what will be asked while it takes the text in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awareness {
    /// The question comes after the text, as in a conversation about a document.
    Agnostic,
    /// The question comes before the text and again after it.
    Aware,
}

/// One task: a text, a question, and how the answer is scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What kind of task it is.
    pub kind: TaskKind,
    /// The text and, if the cache may know it, the question before it.
    pub text: String,
    /// The question, and the beginning of the answer.
    pub question: String,
    /// What is expected.
    pub answers: Vec<String>,
    /// How an answer is scored.
    pub rule: Rule,
    /// Most tokens the model may answer with.
    pub max_tokens: usize,
}

/// Makes tasks for one model.
pub struct TaskMaker<'a> {
    model: &'a Model,
    /// Sentences of the haystack with their lengths in tokens.
    haystack: Vec<(String, usize)>,
}

impl<'a> TaskMaker<'a> {
    /// A maker that hides needles among the sentences of `haystack`.
    ///
    /// # Errors
    /// When the text has no sentence or does not encode.
    pub fn new(model: &'a Model, haystack: &Corpus) -> Result<Self, EvalError> {
        let mut sentences = Vec::new();
        for (_, text) in haystack.texts() {
            // A long context takes some 10,000 sentences at most; longer texts are not read to their end.
            for sentence in text.split_inclusive(['.', '!', '?']).take(10_000 - sentences.len().min(10_000)) {
                let sentence = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
                let words = sentence.split(' ').count();
                if (4..40).contains(&words) {
                    let tokens = model.tokenizer().encode_literal(&format!(" {sentence}"))?.len();
                    sentences.push((sentence, tokens));
                }
            }
        }
        if sentences.is_empty() {
            return Err(EvalError::Input(format!(
                "{} has no sentences to hide a needle in",
                haystack.name()
            )));
        }
        Ok(TaskMaker { model, haystack: sentences })
    }

    /// A task whose prompt has at most `length` tokens, and not many fewer. The same seed gives the same task; `depth`
    /// is the needle's place in the text, 0 to 1, where the task has one needle.
    ///
    /// # Errors
    /// When `length` has no room for the task.
    pub fn make(
        &self,
        kind: TaskKind,
        length: usize,
        depth: f64,
        awareness: Awareness,
        seed: u64,
    ) -> Result<Task, EvalError> {
        let too_short = || {
            EvalError::Input(format!(
                "{} does not fit into {length} tokens: give a longer length",
                kind.name()
            ))
        };
        let answer_room = 48;
        let mut room = length.checked_sub(answer_room + 40).ok_or_else(too_short)?;
        // The lengths of parts do not add up exactly: shrink until the whole fits.
        for _ in 0..12 {
            let mut rng = Rng::for_part(seed, kind.name());
            let task = self.assemble(kind, room, depth, awareness, &mut rng)?;
            let tokens = self.count(&task.text)? + self.count(&task.question)? + task.max_tokens;
            if tokens <= length {
                return Ok(task);
            }
            room = room.checked_sub((tokens - length).max(8)).ok_or_else(too_short)?;
        }
        Err(too_short())
    }

    fn count(&self, text: &str) -> Result<usize, EvalError> {
        Ok(self.model.tokenizer().encode_prompt(text)?.len())
    }

    fn assemble(
        &self,
        kind: TaskKind,
        room: usize,
        depth: f64,
        awareness: Awareness,
        rng: &mut Rng,
    ) -> Result<Task, EvalError> {
        let mut puzzle = kind.puzzle(rng, room, depth);
        let known = matches!(awareness, Awareness::Aware) && !puzzle.question.is_empty();
        let mut used = puzzle.pieces.iter().map(|piece| self.count(piece)).sum::<Result<usize, _>>()?;
        used += self.count(&puzzle.question)? * if known { 2 } else { 1 } + self.count(&puzzle.opening)?;
        let left = room.saturating_sub(used);
        let text = match &puzzle.filling {
            Filling::None => puzzle.pieces.join("\n"),
            Filling::Haystack => {
                let mut parts: Vec<&str> = self.sentences(left, rng);
                if kind == TaskKind::Copy {
                    puzzle.recite(rng, &parts);
                }
                let places: Vec<usize> =
                    puzzle.places.iter().map(|place| (place * parts.len() as f64) as usize).collect();
                // From the last to the first, so that a place does not move before its piece is put there.
                for (piece, place) in puzzle.pieces.iter().zip(places).rev() {
                    parts.insert(place, piece);
                }
                parts.join(" ")
            }
            Filling::Lines(line) => {
                let mut lines = Vec::new();
                let mut filled = 0;
                while filled < left {
                    let next = line(rng);
                    filled += self.model.tokenizer().encode_literal(&next)?.len() + 1;
                    lines.push(next);
                }
                lines.pop();
                lines.join("\n")
            }
        };
        let text = if known { format!("{}\n\n{text}", puzzle.question) } else { text };
        let question = match kind {
            // The text itself goes on.
            TaskKind::Copy => format!(" {}", puzzle.opening),
            TaskKind::Arithmetic => format!("\n{}", puzzle.opening),
            _ => format!("\n\n{}\n{}", puzzle.question, puzzle.opening),
        };
        if puzzle.answers.is_empty() {
            return Err(EvalError::Input("the text is too short to copy from: give a longer length".into()));
        }
        let answer_tokens =
            puzzle.answers.iter().map(|answer| self.count(answer)).sum::<Result<usize, _>>()?;
        let max_tokens = (answer_tokens * 3 / 2 + 4).min(48);
        Ok(Task { kind, text, question, answers: puzzle.answers, rule: puzzle.rule, max_tokens })
    }

    /// Consecutive sentences of about `tokens` tokens from a random place on, going round at the end.
    fn sentences(&self, tokens: usize, rng: &mut Rng) -> Vec<&str> {
        let start = rng.below(self.haystack.len());
        let mut filled = 0;
        let from_start = self.haystack.iter().cycle().skip(start);
        from_start
            .take_while(|(_, length)| {
                filled += length;
                filled <= tokens
            })
            .map(|(sentence, _)| sentence.as_str())
            .collect()
    }
}

/// What a cache made of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What the model said.
    pub output: String,
    /// 0 to 1.
    pub score: f64,
    /// The cache before the question.
    pub footprint: Footprint,
}

impl Task {
    /// Lets the model read the text over a cache of `spec`, then asks; greedy decoding. A keep that asks for repetition is one
    /// for documents: its text is read whole before any of it goes.
    ///
    /// # Errors
    /// When the spec does not fit the model or the model fails.
    pub fn run(
        &self,
        model: &Model,
        spec: &Spec,
        seed: u64,
        workspace: &mut Workspace,
    ) -> Result<Answer, EvalError> {
        let mut cache = Cache::new(model.cache_shape(), spec, seed)?;
        let text = [prefix(model)?, model.tokenizer().encode_literal(&self.text)?].concat();
        if spec.evicts() && cache.asks_for_repetition() {
            let read = read_document(model, spec, seed, &text, workspace, &mut |_, _| true)?;
            cache = read.expect("nobody stops it");
        } else {
            model
                .forward(&mut [Sequence { tokens: &text, cache: &mut cache }], workspace, Logits::None)
                .all()?;
        }
        let footprint = Footprint::of(&cache);
        let question = model.tokenizer().encode_literal(&self.question)?;
        let options = GenerateOptions { max_tokens: Some(self.max_tokens), ..GenerateOptions::default() };
        let mut generation = Generation::new(cache, Sampler::new(Sampling::greedy())?);
        generation.feed(model, &question, &options)?;
        let output = generation.complete(model, workspace)?.to_owned();
        Ok(Answer { score: self.rule.score(&output, &self.answers), output, footprint })
    }
}
