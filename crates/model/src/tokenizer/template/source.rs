//! A template's source, rewritten where minijinja reads it otherwise than transformers' Jinja.

/// Normalises newlines, as Jinja does everywhere in a source, and turns `{% generation %}` blocks into `{% with %}`:
/// transformers only notes where such a block lies, and variables set in it end with it.
pub(super) fn as_minijinja_reads_it(source: &str) -> String {
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
        match tag_name(tag) {
            "generation" => out.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
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
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(2) {
        match quote {
            None if text[at..].starts_with(close) => return at + close.len(),
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            _ => {}
        }
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
