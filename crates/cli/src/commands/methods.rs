use crate::{failure::usage, output};
use anyhow::Result;
use serde_json::{Value, json};
use sketchkv_cache::{
    Registry,
    method::{Choice, Kind, Method, Parameter},
    registry::{PRESETS, Preset},
};
use std::fmt::Write;

/// List the methods a cache is composed of, or explain one.
#[derive(clap::Args)]
#[command(after_help = "\
A spec joins at most one method of each choice by `+`, parameters in parentheses, the cap after `@`:
  h2o(decay=0.99)+k=kivi4+v=q4@25%     @64MiB and @512tok are caps too
What is not named has its default: full, f16, none, all, uniform, no cap.")]
pub(crate) struct Arguments {
    /// Explain this method or preset.
    name: Option<String>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Print the table of the documentation.
    #[arg(long, hide = true, conflicts_with_all = ["json", "name"])]
    markdown: bool,
    /// Print the page of the documentation.
    #[arg(long, hide = true, conflicts_with_all = ["json", "name", "markdown"])]
    page: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let methods: Vec<_> = Registry::builtin().methods().collect();
        let Some(name) = self.name else {
            if self.json {
                return output::json(&json!({
                    "methods": methods.iter().map(|method| method_json(method)).collect::<Vec<_>>(),
                    "presets": PRESETS.iter().map(preset_json).collect::<Vec<_>>(),
                }));
            }
            return output::line(match (self.markdown, self.page) {
                (true, _) => markdown(&methods),
                (_, true) => page(&methods),
                _ => overview(&methods),
            });
        };
        let named: Vec<_> = methods.iter().filter(|method| method.name == name).collect();
        let preset = PRESETS.iter().find(|preset| preset.name == name);
        match (&named[..], preset) {
            ([], None) => {
                let names = methods.iter().map(|method| method.name);
                let names: Vec<_> = names.chain(PRESETS.iter().map(|preset| preset.name)).collect();
                Err(usage(format!("no method is called {name:?}: there are {}", names.join(", "))))
            }
            ([method], None) if self.json => output::json(&method_json(method)),
            ([], Some(preset)) if self.json => output::json(&preset_json(preset)),
            _ if self.json => output::json(&json!({
                "methods": named.iter().map(|method| method_json(method)).collect::<Vec<_>>(),
                "presets": preset.into_iter().map(preset_json).collect::<Vec<_>>(),
            })),
            _ => {
                let methods = named.iter().map(|method| explained(method));
                let preset = preset.map(|preset| {
                    let Preset { spec, capped, summary, .. } = preset;
                    format!("{name} (preset): {summary}\n\n  alone       {spec}\n  with a cap  {capped}@…")
                });
                output::line(methods.chain(preset).collect::<Vec<_>>().join("\n\n"))
            }
        }
    }
}

/// One block for each choice.
fn overview(methods: &[&Method]) -> String {
    let mut text = String::new();
    for choice in Choice::ALL {
        let of_choice: Vec<_> = methods.iter().filter(|method| method.choice == choice).collect();
        if of_choice.is_empty() {
            continue;
        }
        let rows = of_choice
            .iter()
            .map(|m| vec![call(m), m.summary.to_owned(), m.state.to_owned(), m.paper.to_owned()]);
        let title = format!("{choice}: {}", question(choice));
        let table = output::table(&["method", "what it does", "state", "source"], &[], rows);
        // Writing to a string cannot fail.
        let _ = write!(text, "{title}\n{table}\n\n");
    }
    if !PRESETS.is_empty() {
        let rows =
            PRESETS.iter().map(|p| vec![p.name.into(), p.spec.into(), p.capped.into(), p.summary.into()]);
        let header = ["preset", "alone", "with a cap", "what for"];
        let _ = write!(text, "presets\n{}", output::table(&header, &[], rows));
    }
    text.trim_end().to_owned()
}

/// One table of all, for the documentation.
fn markdown(methods: &[&Method]) -> String {
    let mut text =
        String::from("| choice | method | what it does | state | source |\n|---|---|---|---|---|\n");
    for method in methods {
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {} | {} |",
            method.choice,
            call(method),
            cell(method.summary),
            cell(method.state),
            cell(method.paper)
        );
    }
    text
}

/// Everything of every method, for the documentation.
fn page(methods: &[&Method]) -> String {
    // A formula may hold what Markdown would take for emphasis or a table.
    let cell = |text: &str| text.replace('|', "\\|").replace('*', "\\*");
    let mut text = String::new();
    for choice in Choice::ALL {
        let _ = writeln!(text, "## {choice}: {}\n", question(choice));
        for method in methods.iter().filter(|method| method.choice == choice) {
            let _ = writeln!(text, "### `{}`\n\n{}.\n", method.name, sentence(method.summary));
            for (label, value) in facts(method) {
                let _ = writeln!(text, "- **{label}**: {}", cell(value));
            }
            if !method.parameters.is_empty() {
                text.push_str("\n| parameter | default | values | what it does |\n|---|---|---|---|\n");
            }
            for parameter in method.parameters {
                let (name, default, help) = (parameter.name, parameter.default, cell(parameter.help));
                let _ = writeln!(text, "| `{name}` | {default} | {} | {help} |", values(parameter));
            }
            text.push('\n');
        }
    }
    text.push_str("## Presets\n\n| preset | alone | with a cap | what for |\n|---|---|---|---|\n");
    for Preset { name, spec, capped, summary } in PRESETS {
        let _ = writeln!(text, "| `{name}` | `{spec}` | `{capped}@…` | {summary} |");
    }
    text
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// What a method says of itself beside its summary.
fn facts(method: &Method) -> impl Iterator<Item = (&'static str, &'static str)> {
    [("rule", method.formula), ("state", method.state), ("source", method.paper), ("differs", method.differs)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
}

fn explained(method: &Method) -> String {
    let mut text = format!("{} ({}): {}\n", method.name, method.choice, method.summary);
    for (label, value) in facts(method) {
        let _ = write!(text, "\n  {label:<8} {value}");
    }
    if !method.parameters.is_empty() {
        let rows = method.parameters.iter().map(|parameter| {
            vec![
                parameter.name.to_owned(),
                parameter.default.to_owned(),
                values(parameter),
                parameter.help.to_owned(),
            ]
        });
        let header = ["parameter", "default", "values", "what it does"];
        let _ = write!(text, "\n\n{}", output::table(&header, &[], rows));
    }
    text
}

/// The question a choice answers.
fn question(choice: Choice) -> &'static str {
    match choice {
        Choice::Keep => "which tokens stay as exact slots?",
        Choice::Refine => "how is importance refined before the least important go?",
        Choice::Store => "how is a kept key or value encoded? k= and v= choose separately",
        Choice::Tail => "what is remembered of tokens no longer kept?",
        Choice::Read => "which kept slots does a query look at?",
        Choice::Budget => "who gets how many bytes?",
    }
}

/// A method with its parameters and their defaults, as one would write it.
fn call(method: &Method) -> String {
    if method.parameters.is_empty() {
        return method.name.to_owned();
    }
    let parameters: Vec<_> = method.parameters.iter().map(|p| format!("{}={}", p.name, p.default)).collect();
    format!("{}({})", method.name, parameters.join(","))
}

fn values(parameter: &Parameter) -> String {
    match parameter.kind {
        Kind::Integer(low, high) => format!("{low} to {high}"),
        Kind::Real(low, high) => format!("{low} to {high}"),
        Kind::Word(words) => words.join(", "),
    }
}

fn method_json(method: &Method) -> Value {
    let parameters: Vec<_> = method
        .parameters
        .iter()
        .map(|p| json!({ "name": p.name, "default": p.default, "values": values(p), "help": p.help }))
        .collect();
    json!({
        "name": method.name,
        "choice": method.choice.name(),
        "summary": method.summary,
        "formula": method.formula,
        "state": method.state,
        "paper": method.paper,
        "differs": method.differs,
        "parameters": parameters,
    })
}

fn preset_json(preset: &Preset) -> Value {
    json!({ "name": preset.name, "spec": preset.spec, "capped": preset.capped, "summary": preset.summary })
}
