//! Methods of Python's strings, those that minijinja's own set lacks or does otherwise.

use minijinja::value::{Kwargs, Tuple, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// The longest text a method may pad to, in characters.
const WIDEST: usize = 1 << 20;

/// The method `name` of a string; None when it is not one of those here.
pub(super) fn method(
    state: &State,
    text: &str,
    name: &str,
    arguments: &[Value],
) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "find" | "rfind" => search(text, name == "rfind", arguments)?.map_or(Value::from(-1), Value::from),
        "index" | "rindex" => match search(text, name == "rindex", arguments)? {
            Some(at) => at.into(),
            None => return Err(refused("substring not found")),
        },
        "count" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(arguments)?;
            part(text, start, end).map_or(0, |(part, _)| part.matches(wanted).count()).into()
        }
        "startswith" => affix(text, arguments, |text, prefix| text.starts_with(prefix))?,
        "endswith" => affix(text, arguments, |text, suffix| text.ends_with(suffix))?,
        "strip" => strip(text, arguments, true, true)?,
        "lstrip" => strip(text, arguments, true, false)?,
        "rstrip" => strip(text, arguments, false, true)?,
        "split" => split(text, arguments, false)?,
        "rsplit" => split(text, arguments, true)?,
        "splitlines" => split_lines(text, arguments)?,
        "partition" => partition(text, arguments, false)?,
        "rpartition" => partition(text, arguments, true)?,
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "zfill" => zero_fill(text, arguments)?,
        "ljust" => pad(text, arguments, |missing, _| (0, missing))?,
        "rjust" => pad(text, arguments, |missing, _| (missing, 0))?,
        // The odd blank goes to the left when the width is odd, as in CPython.
        "center" => pad(text, arguments, |missing, width| {
            let left = missing / 2 + (missing & width & 1);
            (left, missing - left)
        })?,
        "expandtabs" => expand_tabs(state, text, arguments)?,
        "title" => no_arguments(arguments).map(|()| title(text).into())?,
        "swapcase" => no_arguments(arguments).map(|()| swap_case(text).into())?,
        "isspace" => no_arguments(arguments).map(|()| every(text, is_space).into())?,
        "isdigit" | "isdecimal" => no_arguments(arguments).and_then(|()| is_digits(text, name))?,
        "join" => join(state, text, arguments)?,
        _ => return Ok(None),
    }))
}

fn refused(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

pub(super) fn no_arguments(arguments: &[Value]) -> Result<(), Error> {
    from_args::<()>(arguments)
}

/// What Python takes for white space: Unicode's, and the separators U+001C to U+001F.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn every(text: &str, holds: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(holds)
}

/// `text[start:end]` in characters with the character it starts at; None where it starts behind the text.
fn part(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(&str, usize)> {
    if start.is_none() && end.is_none() {
        return Some((text, 0));
    }
    let length = text.chars().count() as i64;
    let bound = |at: i64| if at < 0 { (length + at).max(0) } else { at };
    let (start, end) = (bound(start.unwrap_or(0)), bound(end.unwrap_or(length)).min(length));
    if start > end {
        return None;
    }
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    Some((&text[byte(start)..byte(end)], start as usize))
}

fn search(text: &str, last: bool, arguments: &[Value]) -> Result<Option<usize>, Error> {
    let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(arguments)?;
    let Some((part, from)) = part(text, start, end) else { return Ok(None) };
    let found = if last { part.rfind(wanted) } else { part.find(wanted) };
    Ok(found.map(|at| from + part[..at].chars().count()))
}

fn affix(text: &str, arguments: &[Value], holds: impl Fn(&str, &str) -> bool) -> Result<Value, Error> {
    let (affixes, start, end): (&Value, Option<i64>, Option<i64>) = from_args(arguments)?;
    let one = |affix: &Value| match affix.as_str() {
        Some(affix) => Ok(part(text, start, end).is_some_and(|(part, _)| holds(part, affix))),
        None => Err(refused(format!("a string begins and ends with strings, not with a {}", affix.kind()))),
    };
    if !affixes.is_tuple() {
        return one(affixes).map(Value::from);
    }
    for affix in affixes.try_iter()? {
        if one(&affix)? {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn strip(text: &str, arguments: &[Value], left: bool, right: bool) -> Result<Value, Error> {
    let (characters,): (Option<&str>,) = from_args(arguments)?;
    let goes = |c: char| characters.map_or_else(|| is_space(c), |characters| characters.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    Ok(if right { text.trim_end_matches(goes) } else { text }.into())
}

fn split(text: &str, arguments: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, limit, named): (Option<Value>, Option<i64>, Kwargs) = from_args(arguments)?;
    let separator = separator.or(named.get::<Option<Value>>("sep")?).filter(|value| !value.is_none());
    let limit = limit.or(named.get("maxsplit")?).and_then(|limit| usize::try_from(limit).ok());
    named.assert_all_used()?;
    let limit = limit.unwrap_or(usize::MAX);
    let Some(separator) = separator else { return Ok(split_at_spaces(text, limit, from_right)) };
    let Some(separator) = separator.as_str().filter(|separator| !separator.is_empty()) else {
        return Err(refused("a string is split at a string that is not empty"));
    };
    let pieces = limit.saturating_add(1);
    if from_right {
        let mut pieces: Vec<Value> = text.rsplitn(pieces, separator).map(Value::from).collect();
        pieces.reverse();
        return Ok(pieces.into());
    }
    Ok(text.splitn(pieces, separator).map(Value::from).collect())
}

fn split_at_spaces(text: &str, limit: usize, from_right: bool) -> Value {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        rest = if from_right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
        let space = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(space) = space.filter(|_| pieces.len() < limit) else { break };
        let width = rest[space..].chars().next().map_or(1, char::len_utf8);
        let (before, after) = (&rest[..space], &rest[space + width..]);
        let (piece, left) = if from_right { (after, before) } else { (before, after) };
        pieces.push(Value::from(piece));
        rest = left;
    }
    if !rest.is_empty() {
        pieces.push(rest.into());
    }
    if from_right {
        pieces.reverse();
    }
    pieces.into()
}

fn split_lines(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (keep, named): (Option<bool>, Kwargs) = from_args(arguments)?;
    let keep = keep.or(named.get("keepends")?).unwrap_or(false);
    named.assert_all_used()?;
    let ends = ['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut lines: Vec<Value> = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(ends) {
        let width = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(rest[..if keep { end + width } else { end }].into());
        rest = &rest[end + width..];
    }
    if !rest.is_empty() {
        lines.push(rest.into());
    }
    Ok(lines.into())
}

fn partition(text: &str, arguments: &[Value], last: bool) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(arguments)?;
    if separator.is_empty() {
        return Err(refused("empty separator"));
    }
    let found = if last { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if last => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Tuple::from(parts.map(Value::from)).into())
}

fn pad(
    text: &str,
    arguments: &[Value],
    sides: impl Fn(usize, usize) -> (usize, usize),
) -> Result<Value, Error> {
    let (width, fill): (i64, Option<char>) = from_args(arguments)?;
    let (width, missing) = missing(text, width)?;
    let (left, right) = sides(missing, width);
    let fill = fill.unwrap_or(' ');
    let side = |count| std::iter::repeat_n(fill, count);
    Ok(side(left).chain(text.chars()).chain(side(right)).collect::<String>().into())
}

/// The width asked for, and the characters that `text` lacks to it.
fn missing(text: &str, width: i64) -> Result<(usize, usize), Error> {
    let width = usize::try_from(width).unwrap_or(0);
    if width > WIDEST {
        return Err(refused(format!("text padded to more than {WIDEST} characters")));
    }
    Ok((width, width.saturating_sub(text.chars().count())))
}

fn zero_fill(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (width,): (i64,) = from_args(arguments)?;
    let (_, missing) = missing(text, width)?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = &text[..text.len() - digits.len()];
    Ok(format!("{sign}{}{digits}", "0".repeat(missing)).into())
}

fn expand_tabs(state: &State, text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (size, named): (Option<i64>, Kwargs) = from_args(arguments)?;
    let size = size.or(named.get("tabsize")?).unwrap_or(8);
    named.assert_all_used()?;
    let (size, _) = missing("", size)?;
    let mut out = String::new();
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let blanks = if size == 0 { 0 } else { size - column % size };
                state.consume_fuel(blanks as u64)?;
                out.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            }
            _ => {
                out.push(c);
                column = if c == '\n' || c == '\r' { 0 } else { column + 1 };
            }
        }
    }
    Ok(out.into())
}

/// `str.title`: capitals at every start of a run of letters, even behind an apostrophe.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            // Of a letter that becomes several, such as the German ß, only the first stays large.
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            out.extend(upper.flat_map(char::to_lowercase));
        }
        in_word = c.is_lowercase() || c.is_uppercase();
    }
    out
}

fn swap_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
    }
    out
}

/// Whether all are digits; which numerals beyond ASCII are digits, Rust does not know.
fn is_digits(text: &str, name: &str) -> Result<Value, Error> {
    if let Some(c) = text.chars().find(|c| !c.is_ascii() && c.is_numeric()) {
        return Err(refused(format!("{name} knows digits of ASCII only, not `{c}`")));
    }
    Ok(every(text, |c| c.is_ascii_digit()).into())
}

fn join(state: &State, separator: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (items,): (&Value,) = from_args(arguments)?;
    let mut out = String::new();
    for (at, item) in items.try_iter()?.enumerate() {
        let Some(item) = item.as_str() else {
            return Err(refused(format!("sequence item {at}: expected str instance, {} found", item.kind())));
        };
        if at > 0 {
            out.push_str(separator);
        }
        out.push_str(item);
        state.consume_fuel(((separator.len() + item.len()) / 64) as u64)?;
    }
    Ok(out.into())
}
