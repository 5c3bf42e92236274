/// The most characters of a message that are shown.
const LONGEST: usize = 240;

/// One line of what the library says of a grammar that it does not take.
pub(super) fn reason(message: &str) -> String {
    if message.starts_with("panic") {
        return "it is too large, or too complex".to_owned();
    }
    let shown = message.split("\n<").next().unwrap_or_default();
    // Errors of regexes draw a picture before they say what is wrong.
    let told = shown.lines().find_map(|line| line.strip_prefix("error: "));
    let line = told.or_else(|| shown.lines().find(|line| !line.trim().is_empty())).unwrap_or_default().trim();
    let line = match line {
        "NoExtensionBias" => "no text of the model's tokens fits it",
        _ => line,
    };
    if let Some(keywords) = line.strip_prefix("Unimplemented keys: ") {
        return format!("the keywords {keywords} are not supported");
    }
    if line.starts_with("oneOf constraints are not supported") {
        return "oneOf is not supported where more than one of it may fit: write anyOf".to_owned();
    }
    let line = line.replace(" without 'referencing' feature", "");
    let cut = line.char_indices().nth(LONGEST).map(|(at, _)| at);
    cut.map_or(line.clone(), |at| format!("{}…", &line[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line() {
        for (message, line) in [
            ("1(14): lexer error\n  1 | start: foo \"x\n", "1(14): lexer error"),
            (
                "at 1(8): invalid regex\n   (?=a)b\n   ^^^\nerror: look-around is not supported\n",
                "look-around is not supported",
            ),
            ("too many expressions\n<state>\nmuch\n</state>", "too many expressions"),
            ("panic: assertion failed\n<backtrace>", "it is too large, or too complex"),
            ("Unimplemented keys: [\"not\"]", "the keywords [\"not\"] are not supported"),
        ] {
            assert_eq!(reason(message), line);
        }
        assert_eq!(reason(&"é".repeat(999)).chars().count(), LONGEST + 1);
    }
}
