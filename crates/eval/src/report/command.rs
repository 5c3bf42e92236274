//! Commands to paste into a shell.

use super::{escape::escape, name::typed};
use crate::{
    format,
    results::{Cell, Finished},
};

/// What runs the model of `finished` in its cache.
pub(super) fn run(finished: &Finished) -> String {
    let kv = quoted(&typed(&finished.cell));
    format!("sketchkv run --model {} --kv {kv} 'Once upon a time'", model(finished))
}

/// What measures caches at this share of the bytes, in percent, as `finished` was.
pub(super) fn measure(finished: &Finished, percent: &str) -> String {
    format!("sketchkv experiment compare --model {} --budgets {percent}%", model(finished))
}

/// A command with a button that copies it; where no script runs, a text to select.
pub(super) fn copyable(command: &str) -> String {
    format!(
        "<div class=\"copy\"><pre tabindex=\"0\" aria-label=\"command\"><code>{}</code></pre>\
         <button type=\"button\" hidden>Copy</button><span role=\"status\"></span></div>",
        escape(command)
    )
}

/// The model as it was asked for: of a file, the results have the name only.
fn model(finished: &Finished) -> String {
    let Finished { cell: Cell { model, .. }, command, .. } = finished;
    let words = words(command);
    let after = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1).cloned()
    };
    let joined = || words.iter().find_map(|word| word.strip_prefix("--model=").map(str::to_owned));
    after("--model").or_else(|| after("-m")).or_else(joined).unwrap_or_else(|| quoted(model))
}

/// The words of a shell's line, with their quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut inside, mut escaped) = (Vec::new(), String::new(), false, false);
    for letter in line.chars() {
        match letter {
            ' ' if !inside && !escaped => words.push(std::mem::take(&mut word)),
            _ => word.push(letter),
        }
        inside ^= letter == '\'' && !escaped;
        escaped = letter == '\\' && !inside && !escaped;
    }
    words.push(word);
    words
}

fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format::in_quotes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_quotes() {
        let line = r"sketchkv experiment all --model 'my models/it'\''s.gguf' --quick";
        assert_eq!(words(line)[4], r"'my models/it'\''s.gguf'");
        assert_eq!(words(line).last().unwrap(), "--quick");
    }

    #[test]
    fn what_a_shell_would_read_is_quoted() {
        assert_eq!(quoted("smollm2-135m"), "smollm2-135m");
        assert_eq!(quoted("h2o(decay=0.9)@25%"), "'h2o(decay=0.9)@25%'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
