use crate::{
    arguments::{
        self, ContextArguments, ModelArguments, SamplingArguments, SpeculationArguments, TemplateArguments,
    },
    commands::run::{summary, with_cache},
    failure::{self, usage},
    format,
    interrupt::{self, Termination},
    output, warning,
};
use anyhow::{Context, Result};
use rustyline::{DefaultEditor, error::ReadlineError};
use serde_json::{Value, json};
use sketchkv_cache::{Cache, Spec};
use sketchkv_engine::{Conversation, EngineError, Finish, GenerateOptions, Generation, Session, SessionFile};
use sketchkv_eval::Footprint;
use sketchkv_model::{Model, Sampler, Workspace};
use std::{
    io::{self, BufRead, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Talk with a model; the conversation lives in one bounded cache.
///
/// When the context is full the oldest things that were said go, and it says so. With --session the conversation is written
/// after every answer.
#[derive(clap::Args)]
#[command(after_help = "\
In the conversation, /help lists what there is beside talking: /retry, /edit, /undo, /more, /system, /reset, /kv, /stats, /save,
/load, /fork, /quit. A line that ends in \\ goes on in the next. Ctrl-C stops an answer, or drops the line, Ctrl-D ends.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The cache: bytes (64MiB), a share of the context (25%), or a composition of methods, as listed by `sketchkv methods`
    /// [default: auto, or the session's].
    #[arg(long, value_name = "SPEC")]
    kv: Option<String>,
    /// Go on with the conversation of this file, cache and all, if it is there; and write it after every answer.
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    #[command(flatten)]
    context: ContextArguments,
    /// What the model is told first.
    #[arg(long)]
    system: Option<String>,
    #[command(flatten)]
    template: TemplateArguments,
    /// Let special tokens in what is said count as such, not as plain text.
    #[arg(long)]
    parse_special: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    speculation: SpeculationArguments,
    /// Print one JSON document at the end: what was said, what the cache took. Answers are shown on standard error.
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
/retry        another answer to what was said last
/edit TEXT    say this in place of what was said last
/undo         take back what was said last, and its answer
/more         let an answer go on that was cut off
/system TEXT  begin anew with this instruction
/reset        begin anew
/kv           what the cache takes, item by item; /kv 32MiB gives it another cap
/stats        tokens and speed so far
/save FILE    write the conversation to a file
/load FILE    go on with the conversation of a file
/fork FILE    go on in a copy of it; the session stays as it is
/help         this list
/quit         end (also Ctrl-D)";

/// Most tokens of an answer unless asked for otherwise: a model does not always find an end.
const LONGEST_ANSWER: usize = 1024;

impl Arguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let spec = self.kv.as_deref().map(arguments::spec).transpose()?;
        Sampler::new(self.sampling.sampling())?;
        let mut session = self.session.as_deref().map(SessionFile::open).transpose()?;
        let mut model = self.model.load(self.context.beyond_context)?;
        self.template.apply(&mut model)?;
        let limit = self.context.limit(model.config())?;
        let interrupt = interrupt::flag()?;
        let termination = Termination::watch()?;
        let conversation = self.conversation(&model, spec, session.as_mut())?;
        let seen = match conversation.cache().position() {
            0 => String::new(),
            seen => format!(", {} tokens seen", format::count(seen as u64)),
        };
        let cache = arguments::written(conversation.cache().spec());
        let mut chat = Chat {
            arguments: &self,
            model: &model,
            conversation,
            session,
            limit,
            interrupt,
            told: termination.told.clone(),
            workspace: Workspace::new(),
            warned: false,
            slid: false,
            all: Totals::default(),
        };
        chat.prepare()?;
        eprintln!("{}, cache {cache}{seen}; /help lists the commands", model.config().name);
        let mut input = Input::open()?;
        let mut exit = ExitCode::SUCCESS;
        loop {
            termination.idle.store(true, Ordering::SeqCst);
            // From here on it ends at once; what came before was noted alone, be it while the model was loaded.
            if termination.told.load(Ordering::SeqCst) {
                exit = ExitCode::from(Termination::EXIT);
                break;
            }
            let line = input.read()?;
            termination.idle.store(false, Ordering::SeqCst);
            let Some(line) = line else { break };
            if !chat.hear(line.trim())? {
                break;
            }
        }
        if self.json {
            output::json(&chat.document())?;
        }
        Ok(exit)
    }

    /// The session's conversation, or a new one.
    fn conversation(
        &self,
        model: &Model,
        spec: Option<Spec>,
        session: Option<&mut SessionFile>,
    ) -> Result<Conversation> {
        let sampling = self.sampling.sampling();
        if let Some(session) = session
            && let Some(mut conversation) = load(session, model, sampling.clone())?
        {
            if self.system.is_some() {
                return Err(usage("the session has its instruction: leave --system out, or use /system"));
            }
            let generation = conversation.generation();
            arguments::check_session(session.path(), generation.cache().spec(), spec.as_ref())?;
            arguments::reseed(generation, self.sampling.seed);
            return Ok(conversation);
        }
        let tokens = self.context.context.map_or(model.config().context, |asked| asked as usize);
        let spec = arguments::new_cache(spec, model, tokens)?;
        let cache = Cache::new(model.cache_shape(), &spec, sampling.seed)?;
        let mut conversation = Conversation::new(Generation::new(cache, Sampler::new(sampling)?));
        conversation.set_system(self.system.clone());
        Ok(conversation)
    }
}

/// The conversation of a file; `None` where the file is not there yet.
fn load(
    session: &mut SessionFile,
    model: &Model,
    sampling: sketchkv_model::Sampling,
) -> Result<Option<Conversation>> {
    match session.load(model, sampling)? {
        Some(Session::Conversation(conversation)) => Ok(Some(conversation)),
        Some(Session::Text(_)) => Err(usage(format!(
            "the session {} is a text: go on with `sketchkv run`, or begin another session",
            session.path().display()
        ))),
        None => Ok(None),
    }
}

/// What was generated since it began.
#[derive(Default)]
struct Totals {
    answers: usize,
    tokens: usize,
    guesses: usize,
    right_guesses: usize,
}

/// A conversation with whoever types.
struct Chat<'a> {
    arguments: &'a Arguments,
    model: &'a Model,
    conversation: Conversation,
    session: Option<SessionFile>,
    limit: Option<usize>,
    interrupt: Arc<AtomicBool>,
    /// It was told to end.
    told: Arc<AtomicBool>,
    workspace: Workspace,
    /// It was said that the cap is below what the cache needs.
    warned: bool,
    /// It was said that the oldest goes.
    slid: bool,
    all: Totals,
}

impl Chat<'_> {
    /// Sets the conversation, which may be another one, to how answers are made.
    fn prepare(&mut self) -> Result<()> {
        self.conversation.parse_special(self.arguments.parse_special);
        let (arguments, generation) = (self.arguments, self.conversation.generation());
        arguments.speculation.apply(&arguments.model, self.model, generation)
    }

    /// Does what a line says; false at the end.
    fn hear(&mut self, line: &str) -> Result<bool> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match command {
            "" => {}
            "/quit" | "/exit" => return Ok(false),
            "/help" => eprintln!("{HELP}"),
            "/kv" | "/ledger" if rest.is_empty() => eprintln!("{}", ledger_table(self.conversation.cache())),
            "/kv" => self.set_cap(rest),
            "/stats" => self.show_stats(),
            "/reset" => self.conversation.reset(),
            "/system" => self.conversation.set_system(Some(rest.to_owned()).filter(|text| !text.is_empty())),
            "/undo" => match self.conversation.undo(self.model) {
                Some(said) => eprintln!("taken back: {said}"),
                None => eprintln!("nothing was said yet"),
            },
            "/retry" | "/edit" if command == "/edit" && rest.is_empty() => {
                eprintln!("/edit takes what is to be said in place of the last");
            }
            "/retry" | "/edit" => match self.conversation.undo(self.model) {
                Some(said) => self.say(if rest.is_empty() { &said } else { rest })?,
                None => eprintln!("nothing was said yet"),
            },
            "/more" => match self.conversation.answer_more(self.model, self.limit, &self.options())? {
                true => self.answer()?,
                false => eprintln!("the last answer had come to its end"),
            },
            "/save" | "/load" | "/fork" if rest.is_empty() => eprintln!("{command} takes the name of a file"),
            "/save" => self.write_to(Path::new(rest), false),
            "/fork" => self.write_to(Path::new(rest), true),
            "/load" => self.load(Path::new(rest)),
            _ if command.starts_with('/') => eprintln!("there is no {command}; /help lists the commands"),
            _ => self.say(line)?,
        }
        Ok(true)
    }

    fn options(&self) -> GenerateOptions {
        let options = self.arguments.sampling.options();
        GenerateOptions { max_tokens: options.max_tokens.or(Some(LONGEST_ANSWER)), ..options }
    }

    /// Says `text` and shows the answer.
    fn say(&mut self, text: &str) -> Result<()> {
        // An answer should not be cut off after some words for want of room.
        let reserve = self.limit.map_or(0, |limit| limit / 4);
        if let Some(limit) = self.limit.filter(|limit| self.conversation.cache().position() > limit - reserve)
        {
            self.slide(limit)?;
        }
        let options = self.options();
        let asked = match self.conversation.ask(self.model, text, self.limit, &options) {
            Err(EngineError::TooLong { limit, .. }) => {
                self.slide(limit)?;
                self.conversation.ask(self.model, text, self.limit, &options)
            }
            asked => asked,
        };
        match asked {
            Ok(()) => self.answer(),
            Err(EngineError::TooLong { needed, limit }) => {
                eprintln!(
                    "this alone would take {} of {} tokens: say less",
                    format::count(needed as u64),
                    format::count(limit as u64)
                );
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes room by letting the oldest go.
    fn slide(&mut self, limit: usize) -> Result<()> {
        let gone = self.conversation.forget_oldest(self.model, limit / 2)?;
        if gone > 0 && !std::mem::replace(&mut self.slid, true) {
            eprintln!(
                "(the context of {} tokens is full: the {gone} oldest turns are forgotten, from now on without a word)",
                format::count(limit as u64)
            );
        }
        Ok(())
    }

    /// Prints an answer as it comes, and a line about it; writes the session.
    fn answer(&mut self) -> Result<()> {
        // A Ctrl-C during the last answer must not stop this one.
        self.interrupt.store(false, Ordering::SeqCst);
        if self.told.load(Ordering::SeqCst) {
            // That came since the line was read, and was no Ctrl-C to forget.
            self.interrupt.store(true, Ordering::SeqCst);
        }
        let json = self.arguments.json;
        let show = |text: &str| -> Result<()> {
            if json {
                eprint!("{text}");
                return Ok(());
            }
            output::piece(text)
        };
        let generation = self.conversation.generation();
        loop {
            if self.interrupt.load(Ordering::SeqCst) {
                generation.interrupt(self.model);
            }
            let Some(step) = generation.step(self.model, &mut self.workspace)? else { break };
            show(step.text)?;
        }
        show("\n")?;
        let (footprint, timing) = (Footprint::of(generation.cache()), generation.timing());
        let below = footprint.warning(&generation.cache().spec().to_string()).filter(|_| !self.warned);
        self.warned |= below.is_some();
        warning::show(&below.into_iter().collect::<Vec<_>>());
        let cut = match generation.finish() {
            Some(Finish::Length) => " | cut off, /more goes on",
            Some(Finish::Interrupted) => " | stopped, /more goes on",
            _ => "",
        };
        eprintln!("{}{cut}", summary(&footprint, &timing));
        self.all.answers += 1;
        self.all.tokens += timing.decode_tokens + 1;
        self.all.guesses += timing.guesses;
        self.all.right_guesses += timing.right_guesses;
        if let Some(session) = &mut self.session {
            session.save_conversation(self.model, &mut self.conversation)?;
        }
        Ok(())
    }

    /// The conversation, and what its cache takes.
    fn document(&mut self) -> Value {
        let footprint = Footprint::of(self.conversation.cache());
        let Totals { answers, tokens, guesses, right_guesses } = self.all;
        self.conversation.close(self.model);
        let seed = self.conversation.generation().sampling().seed;
        let cache = self.conversation.cache();
        let document = json!({
            "model": self.model.config().name,
            "messages": self.conversation.messages(),
            "answers": answers,
            "seen_tokens": cache.position(),
            "generated_tokens": tokens,
            "guessed_tokens": guesses,
            "right_guesses": right_guesses,
            "seed": seed,
        });
        with_cache(document, cache, &footprint)
    }

    fn set_cap(&mut self, cap: &str) {
        let model = self.model;
        let changed = cap.trim_start_matches('@').parse().map_err(anyhow::Error::from).and_then(|cap| {
            let shape = self.conversation.cache().shape();
            let spec = Spec { cap, ..self.conversation.cache().spec().clone() };
            let cap = spec.for_context(shape, self.limit.unwrap_or(model.config().context)).cap;
            Ok(self.conversation.generation().set_cap(model, cap)?)
        });
        match changed {
            Ok(()) => eprintln!("{}", ledger_table(self.conversation.cache())),
            Err(error) => eprintln!("{}", failure::line(&error)),
        }
    }

    fn show_stats(&mut self) {
        let Totals { answers, tokens, guesses, right_guesses } = self.all;
        let (footprint, timing) =
            (Footprint::of(self.conversation.cache()), self.conversation.generation().timing());
        eprintln!(
            "{answers} answers of {} tokens, {right_guesses} of {guesses} guesses right; {} tokens in the cache; the last answer: {}",
            format::count(tokens as u64),
            format::count(self.conversation.cache().position() as u64),
            summary(&footprint, &timing)
        );
    }

    /// Writes the conversation to `path`, which is then the session if it `goes_on` there.
    fn write_to(&mut self, path: &Path, goes_on: bool) {
        let written = SessionFile::open(path).map_err(anyhow::Error::from).and_then(|mut file| {
            file.save_conversation(self.model, &mut self.conversation)?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                eprintln!("written to {}", path.display());
                if goes_on {
                    self.session = Some(file);
                }
            }
            Err(error) => eprintln!("{}", failure::line(&error)),
        }
    }

    /// Goes on with the conversation of `path`.
    fn load(&mut self, path: &Path) {
        let sampling = self.conversation.generation().sampling().clone();
        let loaded = SessionFile::open(path).map_err(anyhow::Error::from).and_then(|mut file| {
            let conversation = load(&mut file, self.model, sampling)?;
            Ok((file, conversation))
        });
        match loaded {
            Ok((file, Some(conversation))) => {
                let said = conversation.messages().len();
                eprintln!("{}: {said} messages", path.display());
                (self.conversation, self.session) = (conversation, Some(file));
                if let Err(error) = self.prepare() {
                    eprintln!("{}", failure::line(&error));
                }
            }
            Ok((_, None)) => eprintln!("there is no file {}", path.display()),
            Err(error) => eprintln!("{}", failure::line(&error)),
        }
    }
}

fn ledger_table(cache: &Cache) -> String {
    let ledger = cache.ledger();
    let items = ledger.items().into_iter().filter(|(_, bytes)| *bytes > 0).chain([("total", ledger.total())]);
    let rows = items.map(|(name, bytes)| vec![name.to_owned(), format::bytes(bytes as u64)]);
    let table = output::table(&["item", "bytes"], &[1], rows);
    let percent = Footprint::of(cache).kv_percent;
    let spec = arguments::written(cache.spec());
    format!("{table}\n{spec}: {} tokens seen, {percent:.1}% of full", cache.position())
}

/// Lines of the user: edited in a terminal, plain from a pipe.
enum Input {
    Terminal(Box<DefaultEditor>),
    Pipe,
}

/// What came of asking for a line.
enum Line {
    Typed(String),
    /// What was typed is not meant: Ctrl-C.
    Dropped,
    /// Nothing more comes: Ctrl-D, or the end of the pipe.
    End,
}

impl Input {
    fn open() -> Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Input::Pipe);
        }
        let editor = DefaultEditor::new().context("cannot edit lines in this terminal")?;
        Ok(Input::Terminal(Box::new(editor)))
    }

    /// What is said next, `None` at the end: a line, and those after it while they end in a backslash.
    fn read(&mut self) -> Result<Option<String>> {
        let mut said = String::new();
        loop {
            match self.line(if said.is_empty() { "> " } else { "… " })? {
                Line::End => return Ok(None),
                Line::Dropped => {
                    said.clear();
                    eprintln!("(Ctrl-D or /quit ends)");
                }
                Line::Typed(line) => {
                    let line = line.trim_end_matches(['\n', '\r']);
                    let more = line.strip_suffix('\\');
                    said += more.unwrap_or(line);
                    if more.is_none() {
                        return Ok(Some(said));
                    }
                    said.push('\n');
                }
            }
        }
    }

    fn line(&mut self, prompt: &str) -> Result<Line> {
        match self {
            Input::Terminal(editor) => match editor.readline(prompt) {
                Ok(line) => {
                    editor.add_history_entry(&line).ok();
                    Ok(Line::Typed(line))
                }
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(ReadlineError::Interrupted) => Ok(Line::Dropped),
                Err(error) => Err(error).context("cannot read from the terminal"),
            },
            Input::Pipe => {
                let mut line = String::new();
                let read = io::stdin().lock().read_line(&mut line).context("cannot read standard input")?;
                Ok(if read > 0 { Line::Typed(line) } else { Line::End })
            }
        }
    }
}
