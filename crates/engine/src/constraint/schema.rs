use llguidance::JsonCompileOptions;
use serde_json::{Map, Value, json};

/// The largest schema that is read, in bytes of its texts and in values.
const BYTES: usize = 256 << 10;
const VALUES: usize = 20_000;
/// How deep values may lie in each other.
const DEPTH: usize = 64;
/// The longest regex, in bytes: what it costs to compile grows by the square.
pub(super) const REGEX: usize = 8 << 10;

/// White space between what the JSON consists of: a space, or a new line with as much indentation as anyone needs. A small
/// model would else write nothing but white space to the end of its context.
const WHITE_SPACE: &str = r" |\n[ \t]{0,32}";

/// The schema as the compiler is to see it.
///
/// # Errors
/// Why it is not taken.
pub(super) fn prepare(schema: &Value) -> Result<Value, String> {
    let mut object = match schema {
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return Err("no JSON fits `false`".to_owned()),
        Value::Object(object) => object.clone(),
        other => return Err(format!("a schema is an object, not {}", kind(other))),
    };
    if object.contains_key("x-guidance") {
        return Err("the keyword \"x-guidance\" is not supported".to_owned());
    }
    let mut size = Size::default();
    size.add(schema, 0)?;
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITE_SPACE.to_owned()),
        ..JsonCompileOptions::default()
    };
    object.insert("x-guidance".to_owned(), json!(options));
    Ok(Value::Object(object))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What has been seen of a schema.
#[derive(Default)]
struct Size {
    bytes: usize,
    values: usize,
}

impl Size {
    fn add(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        self.values += 1;
        if depth > DEPTH {
            return Err(format!("its values lie in each other more than {DEPTH} deep"));
        }
        match value {
            Value::String(text) => self.bytes += text.len(),
            Value::Array(items) => items.iter().try_for_each(|item| self.add(item, depth + 1))?,
            Value::Object(members) => {
                for (key, member) in members {
                    self.bytes += key.len();
                    let pattern = if key == "pattern" { member.as_str() } else { None };
                    if key.len().max(pattern.map_or(0, str::len)) > REGEX {
                        return Err(format!("a name or pattern in it has more than {REGEX} bytes"));
                    }
                    self.add(member, depth + 1)?;
                }
            }
            _ => {}
        }
        if self.bytes > BYTES || self.values > VALUES {
            return Err(format!("it has more than {BYTES} bytes or {VALUES} values"));
        }
        Ok(())
    }
}
