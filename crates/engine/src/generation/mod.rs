//! Generation: a text that goes on token by token, stepped by whoever holds it.

mod choose;
mod chosen;
mod guessing;
mod rest;
mod spell;
mod step;
mod stop;

pub(crate) use rest::Rest;
pub use step::{Finish, GenerateOptions, Step, Timing};

use crate::{EngineError, constraint::Matcher, speculate::Speculator};
use chosen::Chosen;
use sketchkv_cache::Cache;
use sketchkv_model::{Logits, Model, Sampler, Sampling, Sequence, TextStream, Workspace};
use spell::spell;
use std::{collections::VecDeque, time::Instant};
use stop::StopTexts;

/// A text over one cache, which goes on as long as it is fed and stepped.
///
/// [`Generation::feed`] says what comes next. Then [`Generation::sequence`] gives tokens to run, whoever holds the
/// generation runs them, alone or in a batch with others, and [`Generation::accept`] takes the logits; until
/// [`Step::finish`] says that it is over. [`Generation::step`] does one round of this alone. Nothing runs of itself.
///
/// At rest it holds exactly what it has shown: where a stop text ended it, the tokens beyond are taken out of the cache
/// again. With [`GenerateOptions::hold`] so are those of which something is held back at the end; going on is then as if
/// it had never stopped, they come first. Feeding it another text instead drops them.
///
/// ```no_run
/// use sketchkv_cache::Cache;
/// use sketchkv_engine::{GenerateOptions, Generation, Source};
/// use sketchkv_model::{LoadOptions, Sampler, Sampling, Workspace};
///
/// let model = Source::find("tiny-gpt2")?.load(&LoadOptions::default())?;
/// let cache = Cache::new(model.cache_shape(), &"h2o+q8@25%".parse()?, 0)?;
/// let mut generation = Generation::new(cache, Sampler::new(Sampling::greedy())?);
/// let prompt = model.tokenizer().encode_prompt("It was a truth")?;
/// let options = GenerateOptions { max_tokens: Some(24), ..GenerateOptions::default() };
/// generation.feed(&model, &prompt, &options)?;
/// let mut workspace = Workspace::new();
/// while let Some(step) = generation.step(&model, &mut workspace)? {
///     print!("{}", step.text);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Generation {
    cache: Cache,
    sampler: Sampler,
    chosen: Chosen,
    /// What was fed; the first `prompt_ran` tokens are run.
    prompt: Vec<u32>,
    prompt_ran: usize,
    /// From before the first of `chosen`, while the cache holds some that are not shown.
    snapshot: Option<Snapshot>,
    /// What the first of `chosen` is chosen from, while that is all there is to go on from; else empty.
    logits: Vec<f32>,
    stop: StopTexts,
    /// Says which tokens may be chosen, while a grammar is kept to.
    matcher: Option<Matcher>,
    stream: TextStream,
    max_tokens: Option<usize>,
    ignore_end: bool,
    show_special: bool,
    hold: bool,
    /// Most tokens of the prompt that are run at once.
    chunk: usize,
    generated: usize,
    running: bool,
    finish: Option<Finish>,
    /// When the sequence was handed out that is run now.
    started: Option<Instant>,
    timing: Timing,
    /// Bytes that the last token read made certain.
    certain: Vec<u8>,
    /// What was shown since it was last fed, of which the first `given` bytes were given out in steps.
    text: String,
    given: usize,
    /// Steps that were taken and not given out.
    due: VecDeque<Due>,
    /// Guesses what comes next, if anything does.
    speculator: Option<Speculator>,
    /// Where the cache goes back to, while it has seen guesses that are not known to be right.
    certain_position: Option<usize>,
}

/// A step that was taken: its token, and where its text ends.
struct Due {
    token: Option<u32>,
    end: usize,
}

/// A cache, and what the sampler knew of its text.
struct Snapshot {
    cache: Cache,
    recent: Vec<u32>,
    generated: usize,
}

impl Generation {
    /// A text that begins with nothing, or with what `cache` has seen.
    pub fn new(cache: Cache, sampler: Sampler) -> Self {
        Generation {
            cache,
            sampler,
            chosen: Chosen::default(),
            prompt: Vec::new(),
            prompt_ran: 0,
            snapshot: None,
            logits: Vec::new(),
            stop: StopTexts::default(),
            matcher: None,
            stream: TextStream::default(),
            max_tokens: None,
            ignore_end: false,
            show_special: false,
            hold: false,
            chunk: 1,
            generated: 0,
            running: false,
            finish: None,
            started: None,
            timing: Timing::default(),
            certain: Vec::new(),
            text: String::new(),
            given: 0,
            due: VecDeque::new(),
            speculator: None,
            certain_position: None,
        }
    }

    /// Lets the text go on with `tokens`, and then with what the model makes of it; without tokens, with that alone.
    ///
    /// What is running is interrupted.
    ///
    /// # Errors
    /// When there is no token to go on from, or they do not fit the rest of the context; the text is then as it was.
    pub fn feed(
        &mut self,
        model: &Model,
        tokens: &[u32],
        options: &GenerateOptions,
    ) -> Result<(), EngineError> {
        self.interrupt(model);
        let dropped = if tokens.is_empty() { 0 } else { self.chosen.len() - self.chosen.shown() };
        let added = self.unrun() - dropped + tokens.len();
        if added == 0 && self.logits.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        model.check_position(self.cache.position() + added)?;
        if !tokens.is_empty() {
            self.cut(model);
            self.stream = TextStream::default();
            // The last token has not been run: it goes with what follows it.
            self.prompt.splice(0..0, self.chosen.pop());
            self.prompt.extend_from_slice(tokens);
        }
        self.stop = StopTexts::new(&options.stop);
        self.matcher = options.constraint.as_ref().map(Matcher::begin);
        self.max_tokens = options.max_tokens;
        self.ignore_end = options.ignore_end;
        self.show_special = options.show_special;
        self.hold = options.hold;
        self.chunk = options.chunk.unwrap_or(usize::MAX).clamp(1, model.chunk());
        self.generated = 0;
        self.timing = Timing::default();
        self.text.clear();
        self.given = 0;
        self.due.clear();
        (self.running, self.finish) = (true, None);
        // What was chosen before is read, and where nothing is to be run, a token is chosen, without a pass.
        if added == 0 || self.chosen.unread().is_some() {
            let logits = std::mem::take(&mut self.logits);
            let token = self.advance(model, &logits);
            self.logits = logits;
            let token = token?;
            if token.is_some() || self.finish.is_some() || !self.text.is_empty() {
                self.owe(token);
            }
        }
        Ok(())
    }

    /// The tokens to run next, over the cache to run them over; `None` when it is over.
    ///
    /// Tokens of the prompt come in chunks of [`GenerateOptions::chunk`], others one at a time.
    pub fn sequence(&mut self) -> Option<Sequence<'_>> {
        if !self.running {
            return None;
        }
        if self.chosen.next().is_some() && self.chosen.risks() && self.snapshot.is_none() {
            self.snapshot = Some(Snapshot {
                cache: self.cache.fork(),
                recent: self.sampler.recent().collect(),
                generated: self.sampler.generated(),
            });
        }
        let guesses = self.speculator.as_ref().map_or(&[][..], Speculator::tokens);
        let (tokens, cache) = match self.chosen.next() {
            Some(_) if !guesses.is_empty() => {
                self.certain_position = Some(self.cache.position());
                (guesses, self.cache.guess())
            }
            Some(token) => (std::slice::from_ref(token), &mut self.cache),
            None => (self.prompt[self.prompt_ran..].chunks(self.chunk).next()?, &mut self.cache),
        };
        self.started.get_or_insert_with(Instant::now);
        Some(Sequence { tokens, cache })
    }

    /// Whether [`Generation::accept`] needs the logits of what is to be run next.
    pub fn wants_logits(&self) -> bool {
        let prompt = self.prompt.len() - self.prompt_ran;
        match self.chosen.next() {
            Some(_) => prompt == 0 && self.chosen.is_last(),
            None => prompt <= self.chunk,
        }
    }

    /// Goes on from the `logits` `[vocabulary]` of the last token that [`Generation::sequence`] gave; they are not looked
    /// at where [`Generation::wants_logits`] was false.
    ///
    /// # Errors
    /// When no token can be chosen from the logits.
    ///
    /// # Panics
    /// When no sequence was asked for.
    pub fn accept(&mut self, model: &Model, logits: &[f32]) -> Result<Step<'_>, EngineError> {
        let started = self.started.take().expect("logits are those of a sequence that was asked for");
        self.due.clear();
        let token = if let Some(token) = self.chosen.next().copied() {
            self.take_in_guesses(model, token, logits, started)?
        } else {
            let count = self.chunk.min(self.prompt.len() - self.prompt_ran);
            for place in self.prompt_ran..self.prompt_ran + count {
                self.sampler.observe(self.prompt[place]);
                self.see(self.prompt[place]);
            }
            self.logits.clear();
            self.prompt_ran += count;
            if self.prompt_ran == self.prompt.len() {
                self.prompt.clear();
                self.prompt_ran = 0;
            }
            self.timing.prefill_tokens += count;
            self.timing.prefill += started.elapsed();
            self.advance(model, logits)?
        };
        self.owe(token);
        Ok(self.give().expect("a step was just taken"))
    }

    /// A step that came about without a pass of its own, by [`Generation::feed`], [`Generation::interrupt`] or right guesses;
    /// to be asked for after these by whoever calls [`Generation::accept`].
    pub fn ready(&mut self) -> Option<Step<'_>> {
        self.give()
    }

    /// The next step, with a pass over this sequence alone; `None` when it is over.
    ///
    /// # Errors
    /// When the model fails; the text is then as it was. When no token can be chosen from what it gives; it is then over.
    pub fn step(
        &mut self,
        model: &Model,
        workspace: &mut Workspace,
    ) -> Result<Option<Step<'_>>, EngineError> {
        if !self.due.is_empty() {
            return Ok(self.ready());
        }
        if self.guess(model, usize::MAX) > 0 {
            let Some(sequence) = self.sequence() else { return Ok(None) };
            match model.forward(&mut [sequence], workspace, Logits::All).of(0) {
                Ok(logits) => return self.accept(model, logits).map(Some),
                Err(_) => self.stop_guessing(),
            }
        }
        let want = if self.wants_logits() { Logits::Last } else { Logits::None };
        let Some(sequence) = self.sequence() else { return Ok(None) };
        match model.forward(&mut [sequence], workspace, want).of(0) {
            Ok(logits) => self.accept(model, logits).map(Some),
            Err(error) => {
                self.started = None;
                Err(error.into())
            }
        }
    }

    /// Steps to the end; gives what was shown.
    ///
    /// # Errors
    /// As [`Generation::step`].
    pub fn complete(&mut self, model: &Model, workspace: &mut Workspace) -> Result<&str, EngineError> {
        while self.step(model, workspace)?.is_some() {}
        Ok(&self.text)
    }

    /// Ends it, if it is not over, so that it can go on another time.
    pub fn interrupt(&mut self, model: &Model) {
        if self.running {
            if self.due.is_empty() {
                self.owe(None);
            }
            self.end(model, Finish::Interrupted);
            self.due.back_mut().expect("a step is owed").end = self.text.len();
        }
    }

    /// Forgets the text; the random numbers go on.
    pub fn forget(&mut self) {
        self.cache.reset();
        self.sampler.recall([]);
        self.chosen = Chosen::default();
        self.prompt.clear();
        self.prompt_ran = 0;
        self.snapshot = None;
        self.logits.clear();
        self.matcher = None;
        self.stream = TextStream::default();
        self.text.clear();
        self.due.clear();
        (self.running, self.finish, self.given) = (false, None, 0);
        self.rest_guesses();
    }

    /// Begins the random numbers anew.
    pub fn reseed(&mut self, seed: u64) {
        self.sampler.reseed(seed);
    }

    /// Why it ended, once it has.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// What was shown since it was last fed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Tokens and time since it was last fed.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How tokens are chosen.
    pub fn sampling(&self) -> &Sampling {
        self.sampler.sampling()
    }

    /// The logits `[vocabulary]` that the first of the tokens is chosen from which the cache has yet to see, where nothing is
    /// to be run before it; else empty. For the probabilities of a token that [`Generation::feed`] chose without a pass.
    pub fn kept_logits(&self) -> &[f32] {
        &self.logits
    }

    /// Tokens of the text at rest, with those that the cache has yet to see and those held back.
    pub fn tokens(&self) -> usize {
        self.cache.position() + self.unrun()
    }

    /// The spelling of the token that ended the text, if it is one that is not shown.
    pub(crate) fn hidden_end(&self, model: &Model) -> String {
        let tokenizer = model.tokenizer();
        let hidden = self.chosen.tokens().last().filter(|&token| self.visible(model, token).is_empty());
        hidden.map_or_else(String::new, |token| {
            String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned()
        })
    }

    /// Tokens that wait to be run, at rest.
    fn unrun(&self) -> usize {
        self.chosen.len() + self.prompt.len() - self.prompt_ran
    }

    /// Takes the step after a pass: reads a token chosen before, or chooses one, or waits for the rest of the prompt.
    fn advance(&mut self, model: &Model, logits: &[f32]) -> Result<Option<u32>, EngineError> {
        if self.chosen.unread().is_some() {
            self.read(model);
            return Ok(None);
        }
        if !self.prompt.is_empty() {
            return Ok(None);
        }
        if self.max_tokens == Some(0) {
            // The prompt was run all the same: its cache may be what is wanted.
            self.rest_on(model, logits, Finish::Length);
            return Ok(None);
        }
        let token = match self.choose(logits) {
            Ok(Some(token)) => token,
            Ok(None) => {
                self.rest_on(model, logits, Finish::End);
                return Ok(None);
            }
            Err(error) => {
                self.end(model, Finish::Interrupted);
                return Err(error);
            }
        };
        let first = self.chosen.is_empty();
        self.chosen.push(token);
        self.generated += 1;
        self.read(model);
        if self.finish.is_none() {
            self.end_after(model, token);
        }
        // If it is taken back, there is nothing to run before another one is chosen.
        if first && self.chosen.shown() == 0 {
            self.keep(logits);
        }
        Ok(Some(token))
    }

    /// Ends without another token.
    fn rest_on(&mut self, model: &Model, logits: &[f32], finish: Finish) {
        if self.chosen.is_empty() {
            self.keep(logits);
        }
        self.end(model, finish);
    }

    fn keep(&mut self, logits: &[f32]) {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
    }

    /// Reads the next chosen token.
    fn read(&mut self, model: &Model) {
        let Some(token) = self.chosen.unread() else { return };
        let text = self.visible(model, token);
        self.certain.clear();
        let stopped = self.stop.push(self.chosen.unseen(text), &mut self.certain);
        self.chosen.read(text.len(), self.stop.held());
        self.stream.push(&self.certain, &mut self.text);
        self.settle();
        if stopped {
            self.end(model, Finish::Stop);
        }
    }

    /// The bytes that are shown of a token.
    fn visible<'m>(&self, model: &'m Model, token: u32) -> &'m [u8] {
        let tokenizer = model.tokenizer();
        let hidden = !self.show_special && tokenizer.is_special(token);
        if hidden { &[] } else { tokenizer.token_bytes(token) }
    }

    /// Ends the generation if there is nothing after `token`.
    fn end_after(&mut self, model: &Model, token: u32) {
        if model.tokenizer().is_end(token) && self.may_end() {
            self.end(model, Finish::End);
        } else if self.max_tokens.is_some_and(|most| self.generated >= most) {
            self.end(model, Finish::Length);
        } else if model.check_position(self.certain_position.unwrap_or(self.cache.position()) + 1).is_err() {
            self.end(model, Finish::Context);
        }
    }

    /// Comes to rest: what is held back is shown, or taken out of the cache.
    fn end(&mut self, model: &Model, finish: Finish) {
        match finish {
            Finish::Stop => self.stream.finish(&mut self.text),
            Finish::End => self.show_all(model),
            _ if !self.hold => self.show_all(model),
            _ => {}
        }
        self.go_back();
        if let Some(snapshot) = self.snapshot.take() {
            self.cache = snapshot.cache;
            self.sampler.recall_generated(snapshot.recent, snapshot.generated);
        }
        self.chosen.rewind();
        self.matcher = None;
        if finish == Finish::Stop {
            self.cut(model);
        }
        (self.running, self.finish, self.started) = (false, Some(finish), None);
        self.rest_guesses();
    }

    /// Shows what is held back; an unfinished character is U+FFFD.
    fn show_all(&mut self, model: &Model) {
        let mut partial = self.chosen.partial();
        for token in self.chosen.tokens().skip(self.chosen.shown()) {
            let bytes = self.visible(model, token);
            self.stream.push(bytes.get(partial..).unwrap_or_default(), &mut self.text);
            partial = 0;
        }
        self.stream.finish(&mut self.text);
        self.chosen.show_all();
        self.settle();
    }

    /// What is run and shown is in the cache for good.
    fn settle(&mut self) {
        if self.chosen.settle() {
            self.snapshot = None;
            self.logits.clear();
        }
    }

    /// At rest: forgets what was chosen and not shown. Of a token that was shown in part, the part stays.
    fn cut(&mut self, model: &Model) {
        if let Some((token, bytes)) = self.chosen.cut() {
            let text = self.visible(model, token);
            self.prompt.extend(spell(model.tokenizer(), text.get(..bytes).unwrap_or(text)));
        }
    }

    /// A step was taken, whose text is all that is there.
    fn owe(&mut self, token: Option<u32>) {
        self.due.push_back(Due { token, end: self.text.len() });
    }

    /// Gives the next step out; the last says why it is over.
    fn give(&mut self) -> Option<Step<'_>> {
        let Due { token, end } = self.due.pop_front()?;
        let from = std::mem::replace(&mut self.given, end);
        let finish = self.finish.filter(|_| self.due.is_empty());
        Some(Step { token, text: &self.text[from..end], finish })
    }
}
