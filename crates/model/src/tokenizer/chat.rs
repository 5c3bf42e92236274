//! Chat templates: Jinja as transformers runs it.

use super::{python_json, strftime};
use crate::ModelError;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use std::time::SystemTime;

/// Steps a template may take: plenty for any conversation, and an end for a hostile one.
const FUEL: u64 = 50_000_000;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl ChatMessage {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        ChatMessage { role: role.into(), content: content.into() }
    }
}

pub(super) struct ChatTemplate {
    source: String,
    begin: String,
    end: String,
}

impl ChatTemplate {
    pub(super) fn new(source: String, begin: String, end: String) -> Self {
        ChatTemplate { source, begin, end }
    }

    pub(super) fn render(&self, messages: &[ChatMessage], answer: bool) -> Result<String, ModelError> {
        let failed = |error: Error| {
            let said = error.detail().map_or_else(|| error.to_string(), str::to_owned);
            let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
            ModelError::Template(format!("the chat template fails{line}: {said}"))
        };
        let environment = environment();
        let template = environment.template_from_str(&self.source).map_err(failed)?;
        let rendered = template.render(context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt => answer,
            bos_token => self.begin.as_str(),
            eos_token => self.end.as_str(),
        });
        rendered.map_err(failed)
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |said: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, said))
    });
    environment.add_function("strftime_now", |format: String| strftime::format(&format, SystemTime::now()));
    environment.add_filter("tojson", |value: Value, options: Kwargs| -> Result<Value, Error> {
        let indent = options.get::<Option<usize>>("indent")?;
        // Those that change nothing for text as Rust knows it.
        for known in ["ensure_ascii", "sort_keys", "separators"] {
            let _: Option<Value> = options.get(known)?;
        }
        options.assert_all_used()?;
        let json = python_json::to_string(&value, indent);
        json.map(Value::from_safe_string).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
    });
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, ModelError> {
        let messages = [ChatMessage::new("user", " Hi \"you\" ")];
        ChatTemplate::new(source.into(), "<s>".into(), "</s>".into()).render(&messages, true)
    }

    #[test]
    fn templates_run_as_in_transformers() {
        // Expected texts are what transformers' Jinja environment renders.
        let cases = [
            (
                "{{ bos_token }}{% for m in messages %}[{{ m['content'].strip() }}]{% endfor %}",
                "<s>[Hi \"you\"]",
            ),
            ("{%- if add_generation_prompt %}\nA\n{%- endif %}", "A"),
            ("{% if true %}\n  B\n{% endif %}\n", "  B\n"),
            ("{{ messages | tojson }}", r#"[{"role": "user", "content": " Hi \"you\" "}]"#),
            (
                "{{ {'a': [1, 2.5, none, true]} | tojson(indent=2) }}",
                "{\n  \"a\": [\n    1,\n    2.5,\n    null,\n    true\n  ]\n}",
            ),
            ("{{ messages[0].role.upper() }}{{ 'a,b'.split(',')[1] }}", "USERb"),
            (
                "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
                "3",
            ),
            ("{% if tools is defined or messages[0].tool_calls is defined %}A{% else %}B{% endif %}", "B"),
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
}
