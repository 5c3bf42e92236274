use std::fmt;

/// What a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// So many tokens taken in at once.
    Prompt(usize),
    /// Tokens one by one, in sequences that are run together, a cache each: every step reads the weights once.
    Generate {
        /// Of each sequence.
        tokens: usize,
        /// How many, at least one.
        sequences: usize,
    },
}

/// Some work over a cache that has seen some tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// What is timed.
    pub work: Work,
    /// Tokens in the cache before.
    pub depth: usize,
}

impl Test {
    /// The tests of every work at every depth, depths ascending.
    pub fn all(works: &[Work], depths: &[usize]) -> Vec<Test> {
        let mut depths = depths.to_vec();
        depths.sort_unstable();
        depths.dedup();
        let at = |depth| works.iter().map(move |&work| Test { work, depth });
        depths.into_iter().flat_map(at).collect()
    }

    /// Tokens whose time is taken.
    pub fn tokens(&self) -> usize {
        match self.work {
            Work::Prompt(tokens) => tokens,
            Work::Generate { tokens, sequences } => tokens * sequences,
        }
    }

    /// The length of a sequence when the test is over, the step that warms up included.
    pub fn length(&self) -> usize {
        self.depth
            + match self.work {
                Work::Prompt(tokens) => tokens,
                Work::Generate { tokens, .. } => 1 + tokens,
            }
    }
}

/// As llama-bench writes it: `pp512`, `tg128 @ d4096`; `tg128 x8` in eight sequences.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.work {
            Work::Prompt(tokens) => write!(f, "pp{tokens}")?,
            Work::Generate { tokens, sequences: 1 } => write!(f, "tg{tokens}")?,
            Work::Generate { tokens, sequences } => write!(f, "tg{tokens} x{sequences}")?,
        }
        match self.depth {
            0 => Ok(()),
            depth => write!(f, " @ d{depth}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_llama_bench() {
        let works = [Work::Prompt(512), Work::Generate { tokens: 128, sequences: 1 }];
        let names: Vec<String> = Test::all(&works, &[4096, 0]).iter().map(Test::to_string).collect();
        assert_eq!(names, ["pp512", "tg128", "pp512 @ d4096", "tg128 @ d4096"]);
    }

    #[test]
    fn lengths_include_the_step_that_warms_up() {
        assert_eq!(Test { work: Work::Generate { tokens: 8, sequences: 1 }, depth: 100 }.length(), 109);
        assert_eq!(Test { work: Work::Prompt(8), depth: 100 }.length(), 108);
        let together = Test { work: Work::Generate { tokens: 8, sequences: 4 }, depth: 100 };
        assert_eq!((together.length(), together.tokens()), (109, 32));
        assert_eq!(together.to_string(), "tg8 x4 @ d100");
    }
}
