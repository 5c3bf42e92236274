use serde::{Deserialize, Serialize};

/// How an answer is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The share of the expected answers that occur in the output.
    AllOf,
    /// The share of the expected words that the output begins with, in order and without a gap.
    InOrder,
    /// 1 when the first number of the output is the expected one, else 0.
    FirstNumber,
}

impl Rule {
    /// The score of `output`, 0 to 1, where `answers` are expected.
    ///
    /// Answers are compared without regard to case, and only as whole words: `12` does not occur in `4123`.
    pub fn score(self, output: &str, answers: &[String]) -> f64 {
        if answers.is_empty() {
            return 0.0;
        }
        let hits = match self {
            Rule::AllOf => answers.iter().filter(|answer| occurs(output, answer)).count(),
            Rule::InOrder => {
                let words = output.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
                words.zip(answers).take_while(|(word, answer)| word.eq_ignore_ascii_case(answer)).count()
            }
            Rule::FirstNumber => {
                let first = output.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
                return f64::from(u8::from(first == Some(&answers[0])));
            }
        };
        hits as f64 / answers.len() as f64
    }
}

/// Whether `answer` occurs in `text` with no letter or digit right before or after it.
fn occurs(text: &str, answer: &str) -> bool {
    let (text, answer) = (text.to_lowercase(), answer.to_lowercase());
    text.match_indices(&answer).any(|(start, found)| {
        let before = text[..start].chars().next_back();
        let after = text[start + found.len()..].chars().next();
        !answer.is_empty() && ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(rule: Rule, output: &str, answers: &[&str]) -> f64 {
        rule.score(output, &answers.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn answers_count_as_whole_words_anywhere() {
        for (output, expected) in [
            ("7341882", 1.0),
            (" It is 7341882.", 1.0),
            ("17341882", 0.0),
            ("73418821", 0.0),
            ("734-1882", 0.0),
            ("the numbers are 1, 2 and 7341882!", 1.0),
            ("x73418829 and 7341882", 1.0),
            ("", 0.0),
        ] {
            assert_eq!(score(Rule::AllOf, output, &["7341882"]), expected, "{output:?}");
        }
        assert_eq!(score(Rule::AllOf, "RIVER, Stone", &["river", "stone", "cloud", "tree"]), 0.5);
        assert_eq!(score(Rule::AllOf, "anything", &[]), 0.0);
        assert_eq!(score(Rule::AllOf, "anything", &[""]), 0.0);
    }

    #[test]
    fn a_copy_counts_up_to_its_first_mistake() {
        let answers = ["one", "two", "three", "four"];
        for (output, expected) in [
            (" one two three four five", 1.0),
            ("one, two. Three", 0.75),
            ("one three four", 0.25),
            ("two one", 0.0),
            ("", 0.0),
        ] {
            assert_eq!(score(Rule::InOrder, output, &answers), expected, "{output:?}");
        }
    }

    #[test]
    fn the_first_number_counts() {
        for (output, expected) in [
            (" 42", 1.0),
            ("= 42. 7 + 8 = 15", 1.0),
            ("421", 0.0),
            ("4 2", 0.0),
            ("7, not 42", 0.0),
            ("none", 0.0),
        ] {
            assert_eq!(score(Rule::FirstNumber, output, &["42"]), expected, "{output:?}");
        }
    }
}
