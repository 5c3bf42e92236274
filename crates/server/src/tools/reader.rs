//! Calls read out of an answer while it comes.

use super::ToolFormat;

/// What a piece of an answer brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// Text that belongs to no call.
    Text(String),
    /// A call begins.
    Call { index: usize, name: String },
    /// More of its arguments, as text in JSON.
    Arguments { index: usize, text: String },
}

/// Reads an answer that may hold calls.
#[derive(Clone)]
pub(crate) struct Reader {
    format: ToolFormat,
    /// The functions that may be called: small models call them without the marker.
    names: Vec<String>,
    /// Whether the call stands in a fence of Markdown.
    fenced: bool,
    /// What was not read yet.
    rest: String,
    state: State,
    calls: usize,
    /// Whether anything but white space was read.
    begun: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Text,
    /// Within a call's object, before its arguments.
    Head,
    /// Within its arguments.
    Arguments(Json),
    /// Behind them.
    Tail(Json),
}

impl Reader {
    pub(crate) fn new(format: ToolFormat, names: Vec<String>) -> Self {
        Reader {
            format,
            names,
            fenced: false,
            rest: String::new(),
            state: State::Text,
            calls: 0,
            begun: false,
        }
    }

    /// How many calls have begun.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// Reads on.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Read> {
        self.rest.push_str(text);
        let mut reads = vec![];
        while self.step(&mut reads) {}
        reads
    }

    /// The answer is over: what was held back is text, or what there was of a call.
    pub(crate) fn finish(&mut self) -> Vec<Read> {
        let rest = std::mem::take(&mut self.rest);
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text if rest.is_empty() => vec![],
            // The answer was cut off in what stands between calls.
            State::Text if self.calls > 0 && self.gaps().iter().any(|gap| gap.starts_with(rest.trim())) => {
                vec![]
            }
            State::Text => vec![Read::Text(rest)],
            // It never became a call.
            State::Head => vec![Read::Text(format!("{}{rest}", self.format.marker()))],
            State::Arguments(_) | State::Tail(_) => vec![],
        }
    }

    /// Reads what can be read; whether there is more.
    fn step(&mut self, reads: &mut Vec<Read>) -> bool {
        match &mut self.state {
            State::Text => self.read_text(reads),
            State::Head => self.read_head(reads),
            State::Arguments(json) => {
                let end = json.end(&self.rest);
                let text: String = self.rest.drain(..end.unwrap_or(self.rest.len())).collect();
                if !text.is_empty() {
                    reads.push(Read::Arguments { index: self.calls - 1, text });
                }
                if end.is_some() {
                    self.state = State::Tail(Json::within_object());
                }
                end.is_some()
            }
            State::Tail(json) => {
                let end = json.end(&self.rest);
                self.rest.drain(..end.unwrap_or(self.rest.len()));
                if end.is_some() {
                    self.state = State::Text;
                }
                end.is_some()
            }
        }
    }

    fn read_text(&mut self, reads: &mut Vec<Read>) -> bool {
        // Between calls and behind them there is what the template puts there.
        if self.calls > 0 {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.rest.drain(..blank);
            let gap = self.gaps().into_iter().find(|gap| !gap.is_empty() && self.rest.starts_with(gap));
            if let Some(length) = gap.map(str::len) {
                self.rest.drain(..length);
                return true;
            }
            // It may come to be one.
            if self.gaps().iter().any(|gap| !gap.is_empty() && gap.starts_with(&*self.rest)) {
                return false;
            }
        }
        if self.calls == 0 && !self.begun {
            match self.bare() {
                Bare::Call { at, fenced } => {
                    self.rest.drain(..at);
                    (self.fenced, self.state) = (fenced, State::Head);
                    return true;
                }
                Bare::Perhaps => return false,
                Bare::None => {}
            }
        }
        let marker = self.format.marker();
        if marker.is_empty() {
            let text = std::mem::take(&mut self.rest);
            self.say(text, reads);
            return false;
        }
        if let Some(at) = self.rest.find(marker) {
            let text: String = self.rest.drain(..at).collect();
            self.rest.drain(..marker.len());
            self.say(text, reads);
            self.state = State::Head;
            return true;
        }
        let held = (1..marker.len().min(self.rest.len() + 1))
            .rev()
            .find(|&length| marker.is_char_boundary(length) && self.rest.ends_with(&marker[..length]));
        let sure = self.rest.len() - held.unwrap_or(0);
        let text: String = self.rest.drain(..sure).collect();
        self.say(text, reads);
        false
    }

    /// What the template puts between calls and behind them, white space aside.
    fn gaps(&self) -> [&str; 3] {
        let between = self.format.between.as_deref().unwrap_or_default().trim();
        let between = between.strip_suffix(self.format.marker()).unwrap_or(between);
        [between.trim(), self.format.close.trim(), if self.fenced { FENCE } else { "" }]
    }

    /// Whether the answer begins with the object of a call, perhaps in a fence, and without the marker.
    fn bare(&self) -> Bare {
        let text = self.rest.trim_start();
        let fence = ["```json", FENCE].into_iter().find_map(|fence| text.strip_prefix(fence));
        let body = fence.unwrap_or(text).trim_start();
        if text.is_empty() || body.is_empty() || FENCE.starts_with(text) || "```json".starts_with(text) {
            return Bare::Perhaps;
        }
        if !body.starts_with('{') {
            return Bare::None;
        }
        match string_value(body, "name") {
            Some(name) if self.names.contains(&name) => {
                Bare::Call { at: self.rest.len() - body.len(), fenced: fence.is_some() }
            }
            Some(_) => Bare::None,
            None if Json::default().end(body).is_some() => Bare::None,
            None => Bare::Perhaps,
        }
    }

    fn say(&mut self, text: String, reads: &mut Vec<Read>) {
        let is_blank = text.trim().is_empty();
        if text.is_empty() || is_blank && self.calls > 0 {
            return;
        }
        self.begun |= !is_blank;
        reads.push(Read::Text(text));
    }

    /// Reads the object up to its arguments.
    fn read_head(&mut self, reads: &mut Vec<Read>) -> bool {
        let Some(start) = self.rest.find('{') else { return false };
        let Some(at) = key_value(&self.rest[start..], &self.format.arguments) else {
            return self.read_no_call(start, reads);
        };
        let Some(name) = string_value(&self.rest[start..start + at], "name") else {
            return self.read_no_call(start, reads);
        };
        self.rest.drain(..start + at);
        reads.push(Read::Call { index: self.calls, name });
        self.calls += 1;
        self.state = State::Arguments(Json::default());
        true
    }

    /// An object that closes without having been a call is text, or a call without arguments.
    fn read_no_call(&mut self, start: usize, reads: &mut Vec<Read>) -> bool {
        let Some(end) = Json::default().end(&self.rest[start..]) else { return false };
        let object: String = self.rest.drain(..start + end).collect();
        match string_value(&object[start..], "name") {
            Some(name) => {
                // The arguments came before the name, or not at all.
                let arguments = key_value(&object[start..], &self.format.arguments).map(|at| {
                    let value = &object[start + at..];
                    value[..Json::default().end(value).unwrap_or(value.len())].to_owned()
                });
                reads.push(Read::Call { index: self.calls, name });
                reads.push(Read::Arguments { index: self.calls, text: arguments.unwrap_or("{}".into()) });
                self.calls += 1;
            }
            None => self.say(format!("{}{object}", self.format.marker()), reads),
        }
        self.begun = true;
        self.state = State::Text;
        true
    }
}

/// What opens and closes code in Markdown.
const FENCE: &str = "```";

/// What an answer begins with.
enum Bare {
    /// A call's object, there.
    Call { at: usize, fenced: bool },
    /// Too little to tell.
    Perhaps,
    /// Something else.
    None,
}

/// Where a value in JSON ends, as its text comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Json {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Json {
    /// The rest of an object, up to its bracket.
    fn within_object() -> Self {
        Json { depth: 1, ..Json::default() }
    }

    /// Looks at more of the text; gives where the value ends in it, if it does.
    fn end(&mut self, text: &str) -> Option<usize> {
        for (at, byte) in text.bytes().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                if !self.in_string && self.depth == 0 {
                    return Some(at + 1);
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                // A bare value ends where what is around it goes on.
                b'}' | b']' | b',' if self.depth == 0 => return Some(at),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// Where the value of `key` begins in an object's text, if it has come so far: at the object's own level.
fn key_value(object: &str, key: &str) -> Option<usize> {
    let mut json = Json::default();
    let bytes = object.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if json.depth == 1 && !json.in_string && bytes[at] == b'"' {
            let rest = &object[at + 1..];
            if let Some(after) = rest.strip_prefix(key).and_then(|rest| rest.strip_prefix('"')) {
                let value = after.trim_start();
                if let Some(value) = value.strip_prefix(':') {
                    let value = value.trim_start();
                    return (!value.is_empty()).then(|| object.len() - value.len());
                }
            }
        }
        // Byte by byte, so that its level is known at every place.
        json.end(object.get(at..at + 1).unwrap_or(" "));
        at += 1;
    }
    None
}

/// The string that is the value of `key` in an object's text.
fn string_value(object: &str, key: &str) -> Option<String> {
    let value = &object[key_value(object, key)?..];
    let mut values = serde_json::Deserializer::from_str(value).into_iter::<String>();
    values.next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hermes() -> ToolFormat {
        ToolFormat {
            open: "<tool_call>\n".into(),
            between: Some("\n</tool_call>\n<tool_call>\n".into()),
            close: "\n</tool_call>".into(),
            arguments: "arguments".into(),
        }
    }

    /// What comes of a text that arrives in pieces of so many characters, joined.
    fn read(format: ToolFormat, text: &str, piece: usize) -> (String, Vec<(String, String)>) {
        let mut reader = Reader::new(format, vec!["f".into(), "weather".into()]);
        let chars: Vec<char> = text.chars().collect();
        let mut reads: Vec<Read> =
            chars.chunks(piece).flat_map(|piece| reader.push(&piece.iter().collect::<String>())).collect();
        reads.extend(reader.finish());
        let (mut said, mut calls) = (String::new(), vec![]);
        for read in reads {
            match read {
                Read::Text(text) => said.push_str(&text),
                Read::Call { index, name } => {
                    assert_eq!(index, calls.len());
                    calls.push((name, String::new()));
                }
                Read::Arguments { index, text } => calls[index].1.push_str(&text),
            }
        }
        (said, calls)
    }

    #[test]
    fn calls_are_read_however_they_arrive() {
        let text = "Let me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"a}\\\"b\", \"n\": [1, {}]}}\n\
                    </tool_call>\n<tool_call>\n{\"arguments\": {}, \"name\": \"time\"}\n</tool_call>";
        for piece in [1, 2, 3, 7, 1000] {
            let (said, calls) = read(hermes(), text, piece);
            assert_eq!(said, "Let me look.\n", "{piece}");
            assert_eq!(
                calls[0],
                ("weather".into(), "{\"city\": \"a}\\\"b\", \"n\": [1, {}]}".into()),
                "{piece}"
            );
            assert_eq!(calls[1].0, "time", "{piece}");
            assert_eq!(calls.len(), 2);
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_behind_a_call_says_nothing_more() {
        let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n";
        let call = text.find('}').unwrap() + 2;
        for end in call..text.len() - "<tool_call>\n".len() {
            let (said, calls) = read(hermes(), &text[..end], 3);
            assert_eq!((said.as_str(), calls.len()), ("", 1), "{:?}", &text[call..end]);
        }
        let (said, _) = read(hermes(), &format!("{}\nThere.", &text[..call]), 3);
        assert_eq!(said, "There.");
    }

    #[test]
    fn what_is_no_call_is_text() {
        for text in ["plain", "a < b <tool", "<tool_call>\nnothing", "{\"name\": \"x\"}"] {
            for piece in [1, 4, 1000] {
                assert_eq!(read(hermes(), text, piece), (text.to_owned(), vec![]), "{piece}");
            }
        }
    }

    #[test]
    fn a_call_without_the_marker_is_one_if_there_is_such_a_tool() {
        let object = "{\"name\": \"weather\", \"arguments\": {\"city\": \"a\"}}";
        for text in [object.to_owned(), format!("```json\n{object}\n```"), format!(" ```\n{object}\n```\n")] {
            for piece in [1, 3, 1000] {
                let called = vec![("weather".to_owned(), "{\"city\": \"a\"}".to_owned())];
                assert_eq!(read(hermes(), &text, piece), (String::new(), called), "{text}");
                let other = text.replace("weather", "whether");
                assert_eq!(read(hermes(), &other, piece), (other, vec![]));
            }
        }
        let code = "```python\nprint({})\n```";
        assert_eq!(read(hermes(), code, 2), (code.to_owned(), vec![]));
    }

    #[test]
    fn without_a_marker_a_call_is_all_there_is() {
        let format = ToolFormat {
            open: String::new(),
            between: None,
            close: String::new(),
            arguments: "parameters".into(),
        };
        let text = "{\"name\": \"f\", \"parameters\": {\"é\": 1}}";
        for piece in [1, 5, 1000] {
            let called = vec![("f".to_owned(), "{\"é\": 1}".to_owned())];
            assert_eq!(read(format.clone(), text, piece), (String::new(), called));
            let text = "Here: {\"a\": 1}";
            assert_eq!(read(format.clone(), text, piece), (text.to_owned(), vec![]));
        }
    }
}
