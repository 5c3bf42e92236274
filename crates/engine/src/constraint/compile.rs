use super::{Constraint, reason::reason};
use crate::EngineError;
use llguidance::{
    Logger, Matcher, ParserFactory,
    api::{GrammarInit, ParserLimits, TopLevelGrammar},
    toktrie::InferenceCapabilities,
};
use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// The longest time that a grammar is compiled for.
const TIME: Duration = Duration::from_secs(10);
/// The compiler descends into what a grammar refers to, as deep as a chain of references goes.
const STACK: usize = 256 << 20;

/// What a grammar may cost: to compile, in steps of its lexer, and at each token, in milliseconds rather than seconds.
pub(super) fn limits(compile_steps: u64) -> ParserLimits {
    ParserLimits {
        initial_lexer_fuel: compile_steps,
        step_max_items: 10_000,
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// Compiles `grammar`, and finds out which tokens may come first.
///
/// # Errors
/// What is wrong with it, or that it is too much.
pub(super) fn compile(
    factory: &Arc<ParserFactory>,
    kind: &'static str,
    grammar: TopLevelGrammar,
    limits: ParserLimits,
) -> Result<Constraint, EngineError> {
    let refused = |reason: String| EngineError::Grammar { kind, reason };
    let factory = factory.clone();
    let (done, result) = mpsc::channel();
    let compiler = thread::Builder::new().name("grammar".to_owned()).stack_size(STACK);
    // Nothing interrupts the compiler; what it makes of a grammar that nobody waits for any more is dropped.
    let started = compiler.spawn(move || {
        let _ = done.send(matcher(&factory, grammar, limits));
    });
    started.map_err(|error| refused(format!("there is no thread to compile it: {error}")))?;
    let matcher = match result.recv_timeout(TIME) {
        Ok(matcher) => matcher.map_err(|message| refused(reason(&message)))?,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            return Err(refused(format!("it takes more than {} s to compile", TIME.as_secs())));
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => return Err(refused("it is too complex".to_owned())),
    };
    Ok(Constraint { kind, fresh: Arc::new(matcher) })
}

fn matcher(
    factory: &ParserFactory,
    grammar: TopLevelGrammar,
    limits: ParserLimits,
) -> Result<Matcher, String> {
    let parser = factory.create_parser_from_init_ext(
        GrammarInit::Serialized(grammar),
        Logger::new(0, 0),
        InferenceCapabilities::default(),
        limits,
    );
    let mut matcher = Matcher::new(Ok(parser.map_err(|error| format!("{error}"))?));
    // A grammar that no text fits, or whose first token already is too much, is refused now and not while a text is made.
    matcher.compute_mask().map_err(|error| error.to_string())?;
    Ok(matcher)
}
