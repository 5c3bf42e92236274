use super::{
    Rule,
    words::{coded, distinct, number},
};
use crate::Rng;
use serde::{Deserialize, Serialize};

/// The tasks, each made anew from a seed at any length.
///
/// The needle and RULER-style tasks follow the definitions of RULER (arXiv 2404.06654), with fewer and shorter answers
/// so that small models can do them at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// One needle in a haystack of text.
    NiahSingle,
    /// Four needles with different keys; one is asked for.
    NiahMultikey,
    /// One key with three values; all are asked for.
    NiahMultivalue,
    /// Four needles with different keys; three are asked for.
    NiahMultiquery,
    /// A chain of assignments `X2 = X1`; which variables hold the value?
    VariableTracking,
    /// A long list of words; which are the most common?
    CommonWords,
    /// Made-up words with Zipf's frequencies; which three are the most frequent?
    FrequentWords,
    /// A list of keys with values; the value of one is asked for.
    KeyValue,
    /// Some words of the text come again: how do they go on?
    Copy,
    /// Sums after many worked examples.
    Arithmetic,
}

/// What a task puts before the model, still without its filling.
pub(super) struct Puzzle {
    /// What must be found, in the order it stands in the text.
    pub(super) pieces: Vec<String>,
    /// Where each piece goes, as a share of the length.
    pub(super) places: Vec<f64>,
    /// What the length is filled up with.
    pub(super) filling: Filling,
    /// What is asked after the text.
    pub(super) question: String,
    /// The beginning of the answer, given to the model.
    pub(super) opening: String,
    pub(super) answers: Vec<String>,
    pub(super) rule: Rule,
}

/// What fills a task to its length.
pub(super) enum Filling {
    /// Sentences of the haystack.
    Haystack,
    /// These lines in turn, over and over, before the pieces' places are computed.
    Lines(Box<dyn Fn(&mut Rng) -> String>),
    /// Nothing: the pieces are as many as fit.
    None,
}

impl TaskKind {
    /// All tasks.
    pub const ALL: [TaskKind; 10] = [
        TaskKind::NiahSingle,
        TaskKind::NiahMultikey,
        TaskKind::NiahMultivalue,
        TaskKind::NiahMultiquery,
        TaskKind::VariableTracking,
        TaskKind::CommonWords,
        TaskKind::FrequentWords,
        TaskKind::KeyValue,
        TaskKind::Copy,
        TaskKind::Arithmetic,
    ];

    /// The name in results and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            TaskKind::NiahSingle => "niah_single",
            TaskKind::NiahMultikey => "niah_multikey",
            TaskKind::NiahMultivalue => "niah_multivalue",
            TaskKind::NiahMultiquery => "niah_multiquery",
            TaskKind::VariableTracking => "variable_tracking",
            TaskKind::CommonWords => "common_words",
            TaskKind::FrequentWords => "frequent_words",
            TaskKind::KeyValue => "key_value",
            TaskKind::Copy => "copy",
            TaskKind::Arithmetic => "arithmetic",
        }
    }

    /// The task of this name.
    pub fn find(name: &str) -> Option<TaskKind> {
        TaskKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether the depth of the needle is a parameter of the task.
    pub fn has_depth(self) -> bool {
        matches!(self, TaskKind::NiahSingle)
    }

    /// The puzzle, for about `room` tokens of text. `depth` is the needle's place, 0 to 1, where there is one needle.
    pub(super) fn puzzle(self, rng: &mut Rng, room: usize, depth: f64) -> Puzzle {
        match self {
            TaskKind::NiahSingle => needles(rng, 1, 1, 1, Some(depth)),
            TaskKind::NiahMultikey => needles(rng, 4, 1, 1, None),
            TaskKind::NiahMultivalue => needles(rng, 1, 3, 1, None),
            TaskKind::NiahMultiquery => needles(rng, 4, 1, 3, None),
            TaskKind::VariableTracking => variables(rng),
            TaskKind::CommonWords => common_words(rng, room),
            TaskKind::FrequentWords => frequent_words(rng),
            TaskKind::KeyValue => key_value(rng, room),
            TaskKind::Copy => copy(),
            TaskKind::Arithmetic => arithmetic(rng),
        }
    }
}

fn spread(rng: &mut Rng, count: usize) -> Vec<f64> {
    let mut places: Vec<f64> = (0..count).map(|_| rng.unit()).collect();
    places.sort_by(f64::total_cmp);
    places
}

fn needles(rng: &mut Rng, keys: usize, values: usize, asked: usize, depth: Option<f64>) -> Puzzle {
    let names = distinct(rng, keys);
    let numbers: Vec<Vec<String>> =
        names.iter().map(|_| (0..values).map(|_| number(rng, 5)).collect()).collect();
    let mut pieces: Vec<String> = names
        .iter()
        .zip(&numbers)
        .flat_map(|(name, numbers)| {
            numbers.iter().map(move |n| format!("The secret number of the {name} is {n}."))
        })
        .collect();
    rng.shuffle(&mut pieces);
    let places = depth.map_or_else(|| spread(rng, pieces.len()), |depth| vec![depth]);
    let answers = numbers[..asked].concat();
    let (question, opening) = if answers.len() == 1 {
        let name = &names[0];
        (format!("What is the secret number of the {name}?"), format!("The secret number of the {name} is"))
    } else {
        let list = names[..asked].join(", the ");
        (
            format!("What are all the secret numbers of the {list}?"),
            format!("The secret numbers of the {list} are"),
        )
    };
    Puzzle { pieces, places, filling: Filling::Haystack, question, opening, answers, rule: Rule::AllOf }
}

fn variables(rng: &mut Rng) -> Puzzle {
    const HOPS: usize = 3;
    let value = number(rng, 5);
    let mut names: Vec<String> = Vec::new();
    while names.len() <= HOPS {
        let name = coded(rng, 4).to_uppercase();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut pieces = vec![format!("VAR {} = {value}.", names[0])];
    pieces.extend(names.windows(2).map(|pair| format!("VAR {} = VAR {}.", pair[1], pair[0])));
    Puzzle {
        places: spread(rng, pieces.len()),
        pieces,
        filling: Filling::Haystack,
        question: format!("Which variables hold the value {value}?"),
        opening: format!("The variables that hold the value {value} are"),
        answers: names,
        rule: Rule::AllOf,
    }
}

fn common_words(rng: &mut Rng, room: usize) -> Puzzle {
    const COMMON: usize = 4;
    // About 2.5 tokens a word with its comma; a common word comes ten times as often as another.
    let places = (room * 2 / 5).max(60);
    let others = (places / 6).max(10);
    let words = distinct(rng, COMMON + others);
    let often = (places / 2 / COMMON).max(2);
    let mut list: Vec<&str> =
        words[..COMMON].iter().flat_map(|word| std::iter::repeat_n(word.as_str(), often)).collect();
    list.extend(words[COMMON..].iter().cycle().take(places / 2).map(String::as_str));
    rng.shuffle(&mut list);
    Puzzle {
        pieces: vec![format!("List of words: {}.", list.join(", "))],
        places: vec![0.0],
        filling: Filling::None,
        question: format!("What are the {COMMON} most common words in the list?"),
        opening: format!("The {COMMON} most common words in the list are"),
        answers: words[..COMMON].to_vec(),
        rule: Rule::AllOf,
    }
}

fn frequent_words(rng: &mut Rng) -> Puzzle {
    let mut words: Vec<String> = Vec::new();
    while words.len() < 60 {
        let word = coded(rng, 6);
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let answers = words[..3].to_vec();
    // P(rank) ∝ 1/rank², as in RULER.
    let weights: Vec<f64> = (1..=words.len()).map(|rank| 1.0 / (rank * rank) as f64).collect();
    let total: f64 = weights.iter().sum();
    let draw = move |rng: &mut Rng| {
        let mut left = rng.unit() * total;
        let found = weights.iter().position(|weight| {
            left -= weight;
            left <= 0.0
        });
        words[found.unwrap_or(0)].clone()
    };
    let line = move |rng: &mut Rng| (0..8).map(|_| draw(rng)).collect::<Vec<_>>().join(" ");
    Puzzle {
        pieces: Vec::new(),
        places: Vec::new(),
        filling: Filling::Lines(Box::new(line)),
        question: "What are the three most frequent words in the text above?".into(),
        opening: "The three most frequent words are".into(),
        answers,
        rule: Rule::AllOf,
    }
}

fn key_value(rng: &mut Rng, room: usize) -> Puzzle {
    // A line takes at least 8 tokens; too many are taken back by the maker.
    let lines = (room / 8).max(4);
    let keys = distinct(rng, lines);
    let values: Vec<String> = keys.iter().map(|_| number(rng, 5)).collect();
    let asked = rng.below(lines);
    let pieces: Vec<String> =
        keys.iter().zip(&values).map(|(key, value)| format!("{key}: {value}")).collect();
    Puzzle {
        pieces: vec![pieces.join("\n")],
        places: vec![0.0],
        filling: Filling::None,
        question: format!("Which number stands beside {} in the list above?", keys[asked]),
        opening: format!("{}:", keys[asked]),
        answers: vec![values[asked].clone()],
        rule: Rule::AllOf,
    }
}

/// The passage is chosen from the filling once that is there: see [`Puzzle::recite`].
fn copy() -> Puzzle {
    Puzzle {
        pieces: Vec::new(),
        places: Vec::new(),
        filling: Filling::Haystack,
        question: String::new(),
        opening: String::new(),
        answers: Vec::new(),
        rule: Rule::InOrder,
    }
}

impl Puzzle {
    /// Asks how the text of `sentences` goes on after eight words of it; nothing when it is too short.
    pub(super) fn recite(&mut self, rng: &mut Rng, sentences: &[&str]) {
        const SHOWN: usize = 8;
        const ASKED: usize = 6;
        let words: Vec<&str> = sentences.iter().flat_map(|sentence| sentence.split(' ')).collect();
        let bare = |word: &str| word.trim_matches(|c: char| c.is_ascii_punctuation()).to_owned();
        let plain = |word: &&str| {
            let word = bare(word);
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic())
        };
        let places: Vec<&[&str]> =
            words.windows(SHOWN + ASKED).filter(|window| window[SHOWN..].iter().all(plain)).collect();
        if !places.is_empty() {
            let place = rng.pick(&places);
            self.opening = place[..SHOWN].join(" ");
            self.answers = place[SHOWN..].iter().map(|word| bare(word)).collect();
        }
    }
}

fn arithmetic(rng: &mut Rng) -> Puzzle {
    let (a, b) = (2 + rng.below(48), 2 + rng.below(48));
    let line = |rng: &mut Rng| {
        let (a, b) = (2 + rng.below(48), 2 + rng.below(48));
        format!("{a} + {b} = {}", a + b)
    };
    Puzzle {
        pieces: Vec::new(),
        places: Vec::new(),
        filling: Filling::Lines(Box::new(line)),
        question: String::new(),
        opening: format!("{a} + {b} ="),
        answers: vec![(a + b).to_string()],
        rule: Rule::FirstNumber,
    }
}
