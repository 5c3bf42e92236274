//! A template's source, rewritten where minijinja reads it otherwise than transformers' Jinja.

/// Normalises newlines, as Jinja does everywhere in a source, and turns `{% generation %}` blocks into `{% with %}`:
/// transformers only notes where such a block lies, and variables set in it end with it.
///
/// Refuses what minijinja would read in another sense without a word: a macro whose default names an argument before
/// it, a backslash at the end of a line in a string.
pub(super) fn as_minijinja_reads_it(source: &str) -> Result<String, String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(open) = rest.find("{") {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let length = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(rest.len(), |end| end + 2),
            Some(b'{') => tag_length(rest, "}}"),
            Some(b'%') if tag_name(rest) == "raw" => raw_length(rest),
            Some(b'%') => tag_length(rest, "%}"),
            _ => 1,
        };
        let (tag, after) = rest.split_at(length);
        if matches!(tag.get(..2), Some("{{" | "{%")) && tag.contains("\\\n") && tag_name(tag) != "raw" {
            return Err(format!("a string that goes on over the end of a line is not supported: {tag}"));
        }
        match tag_name(tag) {
            "generation" => out.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            "macro" if defaults_name_arguments(tag) => {
                return Err(format!("a macro's default that names an argument is not supported: {tag}"));
            }
            "raw" => out.push_str(tag),
            _ if tag.starts_with("{#") => out.push_str(tag),
            _ => format_calls(tag, &mut out),
        }
        rest = after;
    }
    Ok(out + rest)
}

/// Writes a tag in which `"…" % value` becomes `"…" | format(value)`: minijinja has no such operator on text.
fn format_calls(tag: &str, out: &mut String) {
    let mut at = 0;
    while let Some(quote) = tag[at..].find(['"', '\'']) {
        let end = at + quote + quoted_length(&tag[at + quote..]);
        out.push_str(&tag[at..end]);
        at = end;
        let rest = tag[end..].trim_start();
        if let Some(operand) = rest.strip_prefix('%').filter(|operand| !operand.starts_with('}')) {
            let operand = operand.trim_start();
            let (value, after) = operand.split_at(operand_length(operand));
            // In Python a tuple is several values.
            let value = value.strip_prefix('(').and_then(|value| value.strip_suffix(')')).unwrap_or(value);
            *out += &format!(" | format({value})");
            at = tag.len() - after.len();
        }
    }
    out.push_str(&tag[at..]);
}

/// Bytes of the value that `text` begins with: a literal, a name, or what stands in brackets, with what is called,
/// looked up and indexed of it.
fn operand_length(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(c) = text[at..].chars().next() {
        match c {
            '"' | '\'' => {
                at += quoted_length(&text[at..]);
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            _ if depth > 0 || c.is_alphanumeric() || c == '_' || c == '.' => {}
            _ => break,
        }
        at += c.len_utf8();
    }
    at
}

/// The word that a `{% tag %}` begins with; empty for what is no such tag.
fn tag_name(tag: &str) -> &str {
    let Some(inner) = tag.strip_prefix("{%") else { return "" };
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start();
    let end = inner.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inner.len());
    &inner[..end]
}

/// Bytes up to the end of the tag that `text` begins with; what stands in quotes ends none.
fn tag_length(text: &str, close: &str) -> usize {
    let mut at = 2;
    while let Some(c) = text[at..].chars().next() {
        at += match c {
            _ if text[at..].starts_with(close) => return at + close.len(),
            '"' | '\'' => quoted_length(&text[at..]),
            _ => c.len_utf8(),
        };
    }
    text.len()
}

/// Bytes of a raw block with both its tags.
fn raw_length(text: &str) -> usize {
    let mut at = tag_length(text, "%}");
    while let Some(next) = text[at..].find("{%") {
        at += next;
        if tag_name(&text[at..]) == "endraw" {
            return at + tag_length(&text[at..], "%}");
        }
        at += 2;
    }
    text.len()
}

/// Whether a default in the signature of a macro names an argument before it.
fn defaults_name_arguments(tag: &str) -> bool {
    let signature = tag.find('(').map_or("", |open| &tag[open..]);
    let mut arguments = Vec::new();
    let (mut depth, mut in_default, mut at) = (0, false, 0);
    while let Some(c) = signature[at..].chars().next() {
        let rest = &signature[at..];
        at += match c {
            '"' | '\'' => quoted_length(rest),
            _ if c.is_alphabetic() || c == '_' => {
                let word =
                    &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())];
                match in_default {
                    false => arguments.push(word),
                    true if arguments.contains(&word) && !signature[..at].ends_with('.') => return true,
                    true => {}
                }
                word.len()
            }
            _ => {
                match c {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth -= 1,
                    '=' => in_default = true,
                    ',' if depth == 1 => in_default = false,
                    _ => {}
                }
                c.len_utf8()
            }
        };
        if depth == 0 {
            break;
        }
    }
    false
}

/// Bytes of the quoted text that `text` begins with.
fn quoted_length(text: &str) -> usize {
    let quote = text.chars().next();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if Some(c) == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
