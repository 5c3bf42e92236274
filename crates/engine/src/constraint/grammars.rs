use super::{
    Constraint,
    compile::{compile, limits},
    schema, vocabulary,
};
use crate::EngineError;
use llguidance::{
    ParserFactory, api::TopLevelGrammar, earley::SlicedBiasComputer, toktrie::InferenceCapabilities,
};
use serde_json::{Value, json};
use sketchkv_model::Model;
use std::{fmt, sync::Arc};

/// The longest grammar, in bytes.
const GRAMMAR: usize = 64 << 10;
/// What compiling may cost, in steps of the lexer. Schemas need the more, grammars can be made to take longer for each.
const SCHEMA_STEPS: u64 = 500_000;
const GRAMMAR_STEPS: u64 = 50_000;

/// Makes constraints for the texts of one model. Made once; a clone is the same and costs nothing.
///
/// ```no_run
/// use sketchkv_engine::{GenerateOptions, Grammars, Source};
/// use sketchkv_model::LoadOptions;
///
/// let model = Source::find("tiny-gpt2")?.load(&LoadOptions::default())?;
/// let grammars = Grammars::new(&model)?;
/// let options = GenerateOptions { constraint: Some(grammars.regex("(yes|no)[.!]")?), ..GenerateOptions::default() };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Grammars {
    factory: Arc<ParserFactory>,
}

impl Grammars {
    /// Puts the model's tokens in order: some tenths of a second, some ten MiB.
    ///
    /// # Errors
    /// When they are none that a text can be held to.
    pub fn new(model: &Model) -> Result<Self, EngineError> {
        let refused = |reason: String| EngineError::Grammar { kind: "vocabulary", reason };
        let vocabulary = vocabulary::vocabulary(model.tokenizer()).map_err(refused)?;
        let factory = ParserFactory::new(
            &vocabulary,
            InferenceCapabilities::default(),
            &SlicedBiasComputer::general_slices(),
        );
        let mut factory = factory.map_err(|error| refused(super::reason::reason(&error.to_string())))?;
        factory.quiet();
        Ok(Grammars { factory: Arc::new(factory) })
    }

    /// JSON that a schema (draft 2020-12, or the one that its `$schema` names) allows. Members come in the order of its
    /// `properties`, further ones after them.
    ///
    /// # Errors
    /// When it is no schema, has a keyword that is not supported (the message names it), is more than is compiled, or
    /// nothing fits it.
    pub fn json_schema(&self, schema: &Value) -> Result<Constraint, EngineError> {
        let kind = "JSON schema";
        let schema = schema::prepare(schema).map_err(|reason| EngineError::Grammar { kind, reason })?;
        compile(&self.factory, kind, TopLevelGrammar::from_json_schema(schema), limits(SCHEMA_STEPS))
    }

    /// Any JSON object.
    ///
    /// # Errors
    /// When the model has no tokens to write one.
    pub fn json_object(&self) -> Result<Constraint, EngineError> {
        self.json_schema(&json!({"type": "object"}))
    }

    /// What `regex` matches, from its first character to its last. The syntax is that of Rust's crate regex, without
    /// look-around, word boundaries and back references; `^` at the beginning and `$` at the end say nothing new.
    ///
    /// # Errors
    /// When it is no regex, is more than is compiled, or nothing fits it.
    pub fn regex(&self, regex: &str) -> Result<Constraint, EngineError> {
        let kind = "regex";
        let refused = |reason: String| EngineError::Grammar { kind, reason };
        if regex.len() > schema::REGEX {
            return Err(refused(format!("it has more than {} bytes", schema::REGEX)));
        }
        if is_escaped(regex) {
            return Err(refused("it ends with a backslash".to_owned()));
        }
        let regex = regex.strip_prefix('^').unwrap_or(regex);
        let regex = match regex.strip_suffix('$') {
            Some(rest) if !is_escaped(rest) => rest,
            _ => regex,
        };
        compile(&self.factory, kind, TopLevelGrammar::from_regex(regex), limits(GRAMMAR_STEPS))
    }

    /// What a grammar gives from its rule `start`, written in [the dialect of Lark that llguidance reads][syntax].
    ///
    /// [syntax]: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
    ///
    /// # Errors
    /// When it is no grammar (the message says line and column), is more than is compiled, or nothing fits it.
    pub fn lark(&self, grammar: &str) -> Result<Constraint, EngineError> {
        let kind = "grammar";
        if grammar.len() > GRAMMAR {
            return Err(EngineError::Grammar { kind, reason: format!("it has more than {GRAMMAR} bytes") });
        }
        compile(&self.factory, kind, TopLevelGrammar::from_lark(grammar.to_owned()), limits(GRAMMAR_STEPS))
    }
}

/// Whether what follows `regex` would stand for itself.
fn is_escaped(regex: &str) -> bool {
    regex.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

impl fmt::Debug for Grammars {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Grammars").finish_non_exhaustive()
    }
}
