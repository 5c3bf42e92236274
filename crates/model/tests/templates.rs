//! Chat templates against transformers: `scripts/golden/templates.py` makes the expected texts.

use serde::Deserialize;
use sketchkv_model::{ChatRequest, ChatTemplate};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/templates").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What transformers makes of a case.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Expected {
    Text(String),
    /// The template's own words.
    Refused {
        refused: String,
    },
    /// Jinja's or Python's words, which are not ours.
    Error {
        error: String,
    },
}

impl Expected {
    /// How `rendered` differs.
    fn difference(&self, rendered: Result<String, impl ToString>) -> Option<String> {
        let rendered = rendered.map_err(|error| error.to_string());
        let (agrees, expected) = match (self, &rendered) {
            (Expected::Text(expected), rendered) => (rendered.as_ref() == Ok(expected), expected),
            (Expected::Refused { refused }, Err(said)) => (said.ends_with(&format!(": {refused}")), refused),
            (Expected::Error { error }, Err(_)) => (true, error),
            (Expected::Refused { refused: reason } | Expected::Error { error: reason }, Ok(_)) => {
                (false, reason)
            }
        };
        (!agrees).then(|| format!("expected {expected:?}\n     got {rendered:?}"))
    }
}

#[derive(Deserialize)]
struct Conversations {
    now: String,
    tokens: BTreeMap<String, String>,
    requests: Vec<(String, ChatRequest)>,
    /// By template, an entry for each request.
    expected: BTreeMap<String, Vec<Expected>>,
}

#[test]
fn conversations_render_as_in_transformers() {
    let conversations: Conversations = serde_json::from_str(&golden("conversations.json")).unwrap();
    let mut cases = 0;
    let mut failures = Vec::new();
    for (name, expected) in &conversations.expected {
        let source = golden(&format!("{name}.jinja"));
        let template = ChatTemplate::with_tokens(source, conversations.tokens.clone());
        assert_eq!(expected.len(), conversations.requests.len());
        for ((about, request), expected) in conversations.requests.iter().zip(expected) {
            cases += 1;
            let rendered = template.render(&request.clone().at(&conversations.now));
            failures.extend(expected.difference(rendered).map(|how| format!("{name}, {about}: {how}")));
        }
    }
    println!("{cases} conversations");
    assert!(failures.is_empty(), "{} of {cases} differ\n{}", failures.len(), failures.join("\n"));
}

#[derive(Deserialize)]
struct Expressions {
    now: String,
    request: ChatRequest,
    cases: Vec<(String, Expected)>,
}

/// The expressions in which we still differ.
#[derive(Deserialize)]
struct Differences {
    /// Not supported: we say so.
    refused: Vec<String>,
    /// Rendered, with this text of ours, where Jinja has an error or another text.
    rendered: BTreeMap<String, String>,
}

impl Differences {
    fn instead_of(&self, source: &str, expected: &Expected) -> Expected {
        match self.rendered.get(source) {
            Some(ours) => Expected::Text(ours.clone()),
            None if self.refused.iter().any(|refused| refused == source) => {
                Expected::Error { error: String::new() }
            }
            None => expected.clone(),
        }
    }
}

#[test]
fn expressions_render_as_in_jinja() {
    let expressions: Expressions = serde_json::from_str(&golden("expressions.json")).unwrap();
    let request = expressions.request.at(expressions.now);
    let differences: Differences = serde_json::from_str(&golden("differences.json")).unwrap();
    let mut failures = Vec::new();
    for (source, expected) in &expressions.cases {
        let rendered = ChatTemplate::with_tokens(source.clone(), BTreeMap::new()).render(&request);
        let expected = differences.instead_of(source, expected);
        failures.extend(expected.difference(rendered).map(|how| format!("{source}\n{how}")));
    }
    println!("{} expressions", expressions.cases.len());
    assert!(
        failures.is_empty(),
        "{} of {} differ\n{}",
        failures.len(),
        expressions.cases.len(),
        failures.join("\n")
    );
}

/// Nothing a template does ends the program.
#[test]
fn lists_within_lists_end_in_an_error() {
    let nested = "{% set ns = namespace(x=0) %}{% for i in range(90000) %}{% for j in range(90000) %}\
                  {% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
    let template = ChatTemplate::new(nested.into(), String::new(), String::new());
    assert!(template.render(&ChatRequest::default()).is_err());
}
