//! Chat templates: Jinja as transformers runs it.

mod filters;
pub(super) mod forms;
mod lists;
mod python_json;
mod python_text;
mod source;
mod strftime;
mod strings;

use super::chat::ChatRequest;
use crate::ModelError;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::thread;

/// Steps a template may take: plenty for any conversation, and an end for a hostile one.
const FUEL: u64 = 2_000_000;

/// Stack for a template, most of it never touched: lists within lists, as deep as the steps allow, are let go of one
/// within the other.
const STACK: usize = 1 << 30;

/// The longest text a template may make, in bytes.
const LONGEST: usize = 64 << 20;

/// A model's chat template, with the special tokens it may name.
pub struct ChatTemplate {
    /// The source, or why it cannot be rendered.
    source: Result<String, String>,
    /// The source as the model brought it.
    given: String,
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// A template that knows the begin and end of a text as `bos_token` and `eos_token`.
    pub fn new(source: String, begin: String, end: String) -> Self {
        let tokens = [("bos_token", begin), ("eos_token", end)];
        Self::with_tokens(source, tokens.map(|(name, text)| (name.to_owned(), text)).into())
    }

    /// A template that knows `tokens` by their names in transformers: `bos_token`, `eos_token`, `unk_token`,
    /// `sep_token`, `pad_token`, `cls_token`, `mask_token`. Those the tokenizer lacks are left out.
    pub fn with_tokens(source: String, tokens: BTreeMap<String, String>) -> Self {
        ChatTemplate { source: source::as_minijinja_reads_it(&source), given: source, tokens }
    }

    /// Its source, in Jinja.
    pub fn source(&self) -> &str {
        &self.given
    }

    /// The text of a conversation.
    ///
    /// # Errors
    ///
    /// When the template refuses the conversation, is no valid template, asks for what is not supported, or takes too
    /// many steps or too much text.
    pub fn render(&self, request: &ChatRequest) -> Result<String, ModelError> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || self.text(request));
            let failed = |reason: String| ModelError::Template(reason);
            let text =
                thread.map_err(|error| failed(format!("no thread for the chat template: {error}")))?.join();
            text.unwrap_or_else(|_| Err(failed("the chat template's library failed".into())))
        })
    }

    fn text(&self, request: &ChatRequest) -> Result<String, ModelError> {
        let source = self.source.as_ref().map_err(|reason| ModelError::Template(reason.clone()))?;
        let clock = strftime::Clock::new(request.now()).map_err(ModelError::Template)?;
        let mut environment = environment();
        environment.add_function("strftime_now", move |format: &str| clock.format(format));
        let template = environment.template_from_str(source).map_err(failed)?;
        let mut text = Text::default();
        let done = template.render_captured_to(Value::from(request.variables(&self.tokens)), &mut text);
        if text.full {
            let reason = format!("the chat template makes more than {} MiB of text", LONGEST >> 20);
            return Err(ModelError::Template(reason));
        }
        done.map_err(failed)?;
        String::from_utf8(text.bytes).map_err(|error| ModelError::Template(error.to_string()))
    }
}

fn failed(error: Error) -> ModelError {
    let said = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    ModelError::Template(format!("the chat template fails{line}: {said}"))
}

/// What a template has written, up to [`LONGEST`].
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Text {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        self.full |= self.bytes.len() + more.len() > LONGEST;
        if self.full {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, state, value| match (state.auto_escape(), value.as_str()) {
        (AutoEscape::None, None) => out.write_str(&python_text::str(value)?).map_err(Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.add_function("raise_exception", |said: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, said))
    });
    filters::add(&mut environment);
    environment
}

/// The methods that Python's types have.
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let found = match value.kind() {
        ValueKind::String => strings::method(state, value.as_str().unwrap_or_default(), name, arguments)?,
        ValueKind::Seq | ValueKind::Iterable => lists::list_method(value, name, arguments)?,
        ValueKind::Map => lists::map_method(value, name, arguments)?,
        _ => None,
    };
    match found {
        Some(value) => Ok(value),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::super::chat::ChatMessage;
    use super::*;

    fn render(source: &str) -> Result<String, ModelError> {
        let request = ChatRequest::new(&[ChatMessage::new("user", " Hi \"you\" ")]).answer(true);
        ChatTemplate::new(source.into(), "<s>".into(), "</s>".into()).render(&request)
    }

    #[test]
    fn messages_and_tokens_are_there() {
        let cases = [
            (
                "{{ bos_token }}{% for m in messages %}[{{ m['content'].strip() }}]{% endfor %}",
                "<s>[Hi \"you\"]",
            ),
            ("{%- if add_generation_prompt %}\nA\n{%- endif %}", "A"),
            ("{{ messages | tojson }}", r#"[{"role": "user", "content": " Hi \"you\" "}]"#),
            ("{{ tools is none }}{{ documents is none }}{{ pad_token is defined }}", "TrueTrueFalse"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn a_template_can_refuse() {
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err().to_string();
        assert_eq!(error, "the chat template fails (line 1): roles must alternate");
        let error = render("{% for %}").unwrap_err().to_string();
        assert!(error.starts_with("the chat template fails (line 1): "), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn hostile_templates_end() {
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let long = "{% set x = 'abcdefgh' * 1000000 %}{% for i in range(100) %}{{ x }}{% endfor %}";
        let nest =
            "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}";
        for print in ["{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x | string }}"] {
            let error = render(&format!("{nest}{print}")).unwrap_err().to_string();
            assert!(error.contains("levels deep"), "{error}");
        }
        for source in
            [endless, long, "{{ 'a'.ljust(10000000000) }}", "{{ ('\\t' * 99999).expandtabs(99999) }}"]
        {
            let error = render(source).unwrap_err().to_string();
            assert!(error.starts_with("the chat template "), "{error}");
        }
    }

    #[test]
    fn a_request_carries_more_than_messages() {
        let message = serde_json::json!({"role": "assistant", "content": null, "reasoning": "Hm."});
        let request = ChatRequest::new(&[message])
            .tools(&[serde_json::json!({"name": "f"})])
            .documents(&["d"])
            .argument("eos_token", &1.5)
            .at("2025-03-07T09:05:03");
        let source = "{{ messages }}{{ tools }}{{ documents }}{{ eos_token }}{{ strftime_now('%j') }}";
        let text = ChatTemplate::new(source.into(), String::new(), "</s>".into()).render(&request).unwrap();
        // Without the None, and with the reasoning by the names that templates know.
        let message =
            "{'thinking': 'Hm.', 'role': 'assistant', 'reasoning': 'Hm.', 'reasoning_content': 'Hm.'}";
        assert_eq!(text, format!("[{message}][{{'name': 'f'}}]['d']1.5066"));
    }
}
