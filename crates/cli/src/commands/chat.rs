use crate::{
    arguments::{self, ContextArguments, ModelArguments, SamplingArguments, SpeculationArguments},
    commands::run::summary,
    failure::usage,
    format, interrupt, output, warning,
};
use anyhow::{Context, Result};
use rustyline::{DefaultEditor, error::ReadlineError};
use sketchkv_cache::{Cache, Spec};
use sketchkv_engine::{Conversation, EngineError, Generation, Session, SessionFile};
use sketchkv_eval::Footprint;
use sketchkv_model::{Model, Sampler, Workspace};
use std::{
    io::{self, BufRead, IsTerminal},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

/// Talk with a model; the conversation lives in one bounded cache.
#[derive(clap::Args)]
#[command(after_help = "\
In the conversation: /reset begins anew, /system TEXT begins anew with that instruction, /ledger shows what the
cache takes, /help lists these, /quit or Ctrl-D ends. Ctrl-C stops an answer.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The cache: a composition of methods, as listed by `sketchkv methods` [default: full, or the session's].
    #[arg(long)]
    kv: Option<String>,
    /// Go on with the conversation of this file, cache and all, if it is there; and write it after every answer.
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    #[command(flatten)]
    context: ContextArguments,
    /// What the model is told first.
    #[arg(long)]
    system: Option<String>,
    /// Let special tokens in what is said count as such, not as plain text.
    #[arg(long)]
    parse_special: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    speculation: SpeculationArguments,
}

const HELP: &str = "\
/reset        begin anew
/system TEXT  begin anew with this instruction
/ledger       what the cache takes, item by item
/help         this list
/quit         end (also Ctrl-D)";

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let spec = self.kv.as_deref().map(arguments::spec).transpose()?;
        Sampler::new(self.sampling.sampling())?;
        let mut session = self.session.as_deref().map(SessionFile::open).transpose()?;
        let model = self.model.load(self.context.beyond_context)?;
        if !model.tokenizer().has_chat_template() {
            return Err(usage(format!(
                "{} brings no chat template: continue text with `sketchkv run`, or talk with another model, \
                 for instance `sketchkv pull smollm2-135m && sketchkv chat --model smollm2-135m`",
                model.config().name
            )));
        }
        let limit = self.context.limit(model.config())?;
        let interrupt = interrupt::flag()?;
        let mut conversation = self.conversation(&model, spec, session.as_mut())?;
        conversation.parse_special(self.parse_special);
        self.speculation.apply(&self.model, &model, conversation.generation())?;
        let mut input = Input::open()?;
        let mut warned = false;
        let seen = match conversation.generation().cache().position() {
            0 => String::new(),
            seen => format!(", {seen} tokens seen"),
        };
        let spec = conversation.generation().cache().spec();
        eprintln!("{}, cache {spec}{seen}; /help lists the commands", model.config().name);
        let mut workspace = Workspace::new();
        while let Some(line) = input.read()? {
            let line = line.trim();
            let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            match command {
                "" => {}
                "/quit" | "/exit" => break,
                "/help" => eprintln!("{HELP}"),
                "/ledger" => eprintln!("{}", ledger_table(conversation.generation().cache())),
                "/reset" => conversation.reset(),
                "/system" => {
                    conversation.set_system(Some(rest.trim().to_owned()).filter(|text| !text.is_empty()));
                }
                _ if command.starts_with('/') => eprintln!("there is no {command}; /help lists the commands"),
                _ => match conversation.ask(&model, line, limit, &self.sampling.options()) {
                    Ok(()) => {
                        answer(&model, conversation.generation(), &mut workspace, &interrupt, &mut warned)?;
                        if let Some(session) = &mut session {
                            session.save_conversation(&model, &mut conversation)?;
                        }
                    }
                    Err(EngineError::TooLong { needed, limit }) => {
                        eprintln!(
                            "the conversation would take {needed} of {limit} tokens: /reset begins anew"
                        );
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    /// The session's conversation, or a new one.
    fn conversation(
        &self,
        model: &Model,
        spec: Option<Spec>,
        session: Option<&mut SessionFile>,
    ) -> Result<Conversation> {
        let sampling = self.sampling.sampling();
        let held = session.map(|session| {
            Ok::<_, anyhow::Error>((session.path().to_owned(), session.load(model, sampling.clone())?))
        });
        match held.transpose()? {
            Some((_, Some(Session::Conversation(_)))) if self.system.is_some() => {
                Err(usage("the session has its instruction: leave --system out, or use /system"))
            }
            Some((path, Some(Session::Conversation(mut conversation)))) => {
                let generation = conversation.generation();
                arguments::check_session(&path, generation.cache().spec(), spec.as_ref())?;
                arguments::reseed(generation, self.sampling.seed);
                Ok(conversation)
            }
            Some((path, Some(Session::Text(_)))) => Err(usage(format!(
                "the session {} is a text: go on with `sketchkv run`, or begin another session",
                path.display()
            ))),
            _ => {
                let cache = Cache::new(model.cache_shape(), &spec.unwrap_or_default(), sampling.seed)?;
                let generation = Generation::new(cache, Sampler::new(sampling)?);
                let mut conversation = Conversation::new(generation);
                conversation.set_system(self.system.clone());
                Ok(conversation)
            }
        }
    }
}

/// Prints an answer as it comes, and a line about it; a share below the floor is told once a conversation.
fn answer(
    model: &Model,
    generation: &mut Generation,
    workspace: &mut Workspace,
    interrupt: &AtomicBool,
    warned: &mut bool,
) -> Result<()> {
    // A Ctrl-C during the last answer must not stop this one.
    interrupt.store(false, Ordering::SeqCst);
    loop {
        if interrupt.load(Ordering::SeqCst) {
            generation.interrupt(model);
        }
        let Some(step) = generation.step(model, workspace)? else { break };
        output::piece(step.text)?;
    }
    output::line("")?;
    let footprint = Footprint::of(generation.cache());
    if let Some(below) = footprint.warning(&generation.cache().spec().to_string()).filter(|_| !*warned) {
        warning::show(&[below]);
        *warned = true;
    }
    eprintln!("{}", summary(&footprint, &generation.timing()));
    Ok(())
}

fn ledger_table(cache: &Cache) -> String {
    let ledger = cache.ledger();
    let items = ledger.items().into_iter().filter(|(_, bytes)| *bytes > 0).chain([("total", ledger.total())]);
    let rows = items.map(|(name, bytes)| vec![name.to_owned(), format::bytes(bytes as u64)]);
    let table = output::table(&["item", "bytes"], &[1], rows);
    let percent = Footprint::of(cache).kv_percent;
    format!("{table}\n{} tokens seen, {percent:.1}% of full", cache.position())
}

/// Lines of the user: edited in a terminal, plain from a pipe.
enum Input {
    Terminal(Box<DefaultEditor>),
    Pipe,
}

impl Input {
    fn open() -> Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Input::Pipe);
        }
        let editor = DefaultEditor::new().context("cannot edit lines in this terminal")?;
        Ok(Input::Terminal(Box::new(editor)))
    }

    /// The next line, `None` at the end.
    fn read(&mut self) -> Result<Option<String>> {
        match self {
            Input::Terminal(editor) => match editor.readline("> ") {
                Ok(line) => {
                    editor.add_history_entry(&line).ok();
                    Ok(Some(line))
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
                Err(error) => Err(error).context("cannot read from the terminal"),
            },
            Input::Pipe => {
                let mut line = String::new();
                let read = io::stdin().lock().read_line(&mut line).context("cannot read standard input")?;
                Ok((read > 0).then_some(line))
            }
        }
    }
}
