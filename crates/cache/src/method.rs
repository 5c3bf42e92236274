//! What every method says of itself: one declaration that the grammar, the help, the docs and the tests derive from.

use crate::CacheError;
use std::fmt;

/// The question a method answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Choice {
    /// Which tokens stay as exact slots?
    Keep,
    /// How is their importance refined before the least important go?
    Refine,
    /// How is a kept key or value encoded?
    Store,
    /// What is remembered of tokens no longer kept?
    Tail,
    /// Which kept slots does a query look at?
    Read,
    /// Who gets how many bytes?
    Budget,
}

impl Choice {
    /// All choices, in the order of a spec.
    pub const ALL: [Choice; 6] =
        [Choice::Keep, Choice::Refine, Choice::Store, Choice::Tail, Choice::Read, Choice::Budget];

    /// The word that specs, tables and files use.
    pub fn name(self) -> &'static str {
        match self {
            Choice::Keep => "keep",
            Choice::Refine => "refine",
            Choice::Store => "store",
            Choice::Tail => "tail",
            Choice::Read => "read",
            Choice::Budget => "budget",
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A whole number within bounds, both included.
    Integer(i64, i64),
    /// A number within bounds, both included.
    Real(f64, f64),
    /// One of these words.
    Word(&'static [&'static str]),
}

/// A parameter of a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// Its name in a spec.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Its default, as one would write it; `auto` lets the method choose from the budget.
    pub default: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
}

/// A method, described.
#[derive(Debug, PartialEq)]
pub struct Method {
    /// Its name in a spec; unique within a choice.
    pub name: &'static str,
    /// The choice it belongs to.
    pub choice: Choice,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The rule, as a formula.
    pub formula: &'static str,
    /// Its state in bytes.
    pub state: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// What differs from the paper; empty when nothing does.
    pub differs: &'static str,
    /// Its parameters.
    pub parameters: &'static [Parameter],
}

impl Method {
    /// Whether it has a parameter of this name.
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.parameters.iter().any(|parameter| parameter.name == name)
    }

    /// Whether a spec can name it and what it prints as reads back; if not, why.
    pub(crate) fn check(&self) -> Result<(), String> {
        let words = |kind| if let Kind::Word(words) = kind { words } else { &[] };
        let of_parameters = self.parameters.iter().flat_map(|p| [&p.name].into_iter().chain(words(p.kind)));
        for name in [&self.name].into_iter().chain(of_parameters) {
            let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || !name.chars().all(is_part) {
                return Err(format!("`{name}` is no word of ASCII letters, digits, `-`, `_` and `.`"));
            }
        }
        for (i, parameter) in self.parameters.iter().enumerate() {
            if self.parameters[..i].iter().any(|before| before.name == parameter.name) {
                return Err(format!("it declares `{}` twice", parameter.name));
            }
            if let Err(error) = parameter.parse(self.name, parameter.default) {
                return Err(format!("a default is wrong: {error}"));
            }
        }
        Ok(())
    }
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// The method chooses.
    Auto,
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// A word.
    Word(&'static str),
}

impl Parameter {
    /// Reads a value, or says what would be one.
    fn parse(&self, method: &str, text: &str) -> Result<Value, CacheError> {
        if text == "auto" && self.default == "auto" {
            return Ok(Value::Auto);
        }
        let wrong = |wants: String| {
            CacheError::Spec(format!("`{method}({}={text})`: `{}` is {wants}", self.name, self.name))
        };
        match self.kind {
            Kind::Integer(low, high) => match text.parse() {
                Ok(n) if (low..=high).contains(&n) => Ok(Value::Integer(n)),
                _ => Err(wrong(format!("a whole number from {low} to {high}"))),
            },
            Kind::Real(low, high) => match text.parse() {
                Ok(x) if (low..=high).contains(&x) => Ok(Value::Real(x)),
                _ => Err(wrong(format!("a number from {low} to {high}"))),
            },
            Kind::Word(words) => match words.iter().find(|&&word| word == text) {
                Some(word) => Ok(Value::Word(word)),
                None => Err(wrong(format!("one of {}", words.join(", ")))),
            },
        }
    }
}

/// A method with the values of its parameters: one piece of a spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    method: &'static Method,
    values: Vec<Value>,
}

impl Call {
    /// A method with its defaults.
    ///
    /// # Panics
    /// When a default is no value of its parameter; no method of a [`Registry`](crate::Registry) has such a one.
    pub fn new(method: &'static Method) -> Self {
        let default = |p: &Parameter| p.parse(method.name, p.default).expect("defaults are valid");
        Call { method, values: method.parameters.iter().map(default).collect() }
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<Value>()
    }

    /// The method called.
    pub fn method(&self) -> &'static Method {
        self.method
    }

    /// Sets a parameter from text.
    ///
    /// # Errors
    /// When the method has no such parameter, or the text is no value of it.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), CacheError> {
        let parameters = self.method.parameters;
        let Some(at) = parameters.iter().position(|p| p.name == name) else {
            let known = match parameters {
                [] => "takes no parameters".to_owned(),
                _ => format!("takes {}", parameters.iter().map(|p| p.name).collect::<Vec<_>>().join(", ")),
            };
            return Err(CacheError::Spec(format!(
                "`{}` has no parameter `{name}`: it {known}",
                self.method.name
            )));
        };
        self.values[at] = parameters[at].parse(self.method.name, text)?;
        Ok(())
    }

    fn value(&self, name: &str) -> Value {
        let at = self.method.parameters.iter().position(|p| p.name == name);
        self.values[at.unwrap_or_else(|| panic!("`{}` declares no `{name}`", self.method.name))]
    }

    /// A whole number; `None` for `auto`.
    ///
    /// # Panics
    /// When the method declares no such parameter.
    pub fn integer(&self, name: &str) -> Option<usize> {
        match self.value(name) {
            Value::Integer(n) => Some(n as usize),
            _ => None,
        }
    }

    /// A whole number without `auto`.
    ///
    /// # Panics
    /// When the method declares no such parameter, or it is no whole number.
    pub fn count(&self, name: &str) -> usize {
        self.integer(name).unwrap_or_else(|| panic!("`{name}` of `{}` is no whole number", self.method.name))
    }

    /// A number; `None` for `auto`.
    ///
    /// # Panics
    /// When the method declares no such parameter.
    pub fn optional_real(&self, name: &str) -> Option<f32> {
        match self.value(name) {
            Value::Real(x) => Some(x as f32),
            _ => None,
        }
    }

    /// A number.
    ///
    /// # Panics
    /// When the method declares no such parameter, or it is no number.
    pub fn real(&self, name: &str) -> f32 {
        match self.value(name) {
            Value::Real(x) => x as f32,
            Value::Integer(n) => n as f32,
            _ => panic!("`{name}` of `{}` is no number", self.method.name),
        }
    }

    /// A word.
    ///
    /// # Panics
    /// When the method declares no such parameter, or it is no word.
    pub fn word(&self, name: &str) -> &'static str {
        match self.value(name) {
            Value::Word(word) => word,
            _ => panic!("`{name}` of `{}` is no word", self.method.name),
        }
    }
}

/// As one writes it in a spec: only what differs from the defaults in parentheses.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.method.name)?;
        let defaults = Call::new(self.method);
        let mut open = false;
        for (i, parameter) in self.method.parameters.iter().enumerate() {
            if self.values[i] == defaults.values[i] {
                continue;
            }
            write!(f, "{}{}=", if open { ',' } else { '(' }, parameter.name)?;
            open = true;
            match self.values[i] {
                Value::Auto => f.write_str("auto")?,
                Value::Integer(n) => write!(f, "{n}")?,
                Value::Real(x) => write!(f, "{x}")?,
                Value::Word(word) => f.write_str(word)?,
            }
        }
        if open { f.write_str(")") } else { Ok(()) }
    }
}
