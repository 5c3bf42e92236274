use crate::{
    arguments::{self, ContextArguments, ModelArguments, SamplingArguments},
    commands::run::summary,
    conversation::{Conversation, Turn},
    failure::usage,
    format, interrupt, measured, output, session,
};
use anyhow::{Context, Result};
use rustyline::{DefaultEditor, error::ReadlineError};
use std::{
    io::{self, BufRead, IsTerminal},
    path::PathBuf,
    sync::atomic::Ordering,
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
    #[command(flatten)]
    sampling: SamplingArguments,
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
        let file = self.session.as_deref();
        let session = file.map(|file| session::load(file, &model, spec.as_ref())).transpose()?.flatten();
        let mut conversation = match session {
            Some(_) if self.system.is_some() => {
                return Err(usage("the session has its instruction: leave --system out, or use /system"));
            }
            Some(session) => Conversation::resume(&model, session, limit, self.sampling, interrupt.clone())?,
            None => {
                let spec = spec.unwrap_or_default();
                Conversation::new(&model, &spec, self.system, limit, self.sampling, interrupt.clone())?
            }
        };
        let mut input = Input::open()?;
        let seen = match conversation.tokens_seen() {
            0 => String::new(),
            seen => format!(", {seen} tokens seen"),
        };
        eprintln!("{}, cache {}{seen}; /help lists the commands", model.config().name, conversation.spec());
        while let Some(line) = input.read()? {
            let line = line.trim();
            let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            match command {
                "" => {}
                "/quit" | "/exit" => break,
                "/help" => eprintln!("{HELP}"),
                "/ledger" => eprintln!("{}", ledger_table(&conversation)),
                "/reset" => conversation.reset()?,
                "/system" => {
                    conversation.set_system(Some(rest.trim().to_owned()).filter(|text| !text.is_empty()))?
                }
                _ if command.starts_with('/') => eprintln!("there is no {command}; /help lists the commands"),
                _ => {
                    // A Ctrl-C during the last answer must not stop this one.
                    interrupt.store(false, Ordering::SeqCst);
                    match conversation.answer(line, &mut |text| output::piece(text))? {
                        Turn::Answered(timing) => {
                            output::line("")?;
                            eprintln!("{}", summary(&conversation.footprint(), &timing));
                            if let Some(file) = file {
                                conversation.save(file)?;
                            }
                        }
                        Turn::TooLong { needed, limit } => eprintln!(
                            "the conversation would take {needed} of {limit} tokens: /reset begins anew"
                        ),
                    }
                }
            }
        }
        Ok(())
    }
}

fn ledger_table(conversation: &Conversation) -> String {
    let items = measured::ledger_items(&conversation.ledger());
    let rows = items.into_iter().map(|(name, bytes)| vec![name.to_owned(), format::bytes(bytes as u64)]);
    let footprint = conversation.footprint();
    let table = output::table(&["item", "bytes"], &[1], rows);
    format!("{table}\n{} tokens seen, {:.1}% of full", conversation.tokens_seen(), footprint.percent)
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
