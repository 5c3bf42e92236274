use crate::EvalError;
use sha2::{Digest, Sha256};
use sketchkv_model::Model;
use std::path::{Path, PathBuf};

/// Texts, each with the name of where it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Corpus {
    texts: Vec<(String, String)>,
    repeats: bool,
}

/// Documents of equal length, as tokens of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSample {
    /// Where they came from.
    pub name: String,
    /// `[document][token]`.
    pub documents: Vec<Vec<u32>>,
}

impl Corpus {
    /// The one text `text`, called `name`.
    pub fn of(name: impl Into<String>, text: impl Into<String>) -> Self {
        Corpus { texts: vec![(name.into(), text.into())], repeats: false }
    }

    /// The texts of `named`, pairs of a name and a text.
    pub fn of_all<N: Into<String>, T: Into<String>>(named: impl IntoIterator<Item = (N, T)>) -> Self {
        let texts = named.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
        Corpus { texts, repeats: false }
    }

    /// Makes every other document a passage that comes twice.
    ///
    /// On plain prose a small model hardly looks back further than a sliding window reaches; on a passage that comes
    /// again it shows at once what was dropped.
    pub fn with_repeats(self) -> Self {
        Corpus { repeats: true, ..self }
    }

    /// Reads files and folders (all text files in them, in the order of their names): `.jsonl` by its `text` fields,
    /// `.parquet` by its `text` column, everything else as plain text.
    ///
    /// # Errors
    /// When a file cannot be read, is no UTF-8, or has no `text`.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Self, EvalError> {
        let mut corpus = Corpus::default();
        for path in paths {
            corpus.add(path.as_ref())?;
        }
        if corpus.texts.iter().all(|(_, text)| text.trim().is_empty()) {
            let names: Vec<String> = paths.iter().map(|p| p.as_ref().display().to_string()).collect();
            return Err(EvalError::Input(format!("there is no text in {}", names.join(", "))));
        }
        Ok(corpus)
    }

    /// Whether every other document is a passage that comes twice.
    pub fn repeats(&self) -> bool {
        self.repeats
    }

    /// Names of the texts, with commas.
    pub fn name(&self) -> String {
        let mut names: Vec<&str> = self.texts.iter().map(|(name, _)| name.as_str()).collect();
        names.dedup();
        names.join(", ") + if self.repeats { ", every other passage twice" } else { "" }
    }

    /// Name and text of each text.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Cuts `count` documents of `context` tokens out of the texts, in turn and evenly spread over each; each begins
    /// with the tokens that the model's tokenizer puts before a prompt.
    ///
    /// # Errors
    /// When the texts together are too short for one document, or do not encode.
    pub fn sample(&self, model: &Model, context: usize, count: usize) -> Result<TextSample, EvalError> {
        self.sample_from(model, context, count, 0)
    }

    /// As [`Corpus::sample`], without the first `skip` tokens of each text: others are measured on those.
    ///
    /// # Errors
    /// As [`Corpus::sample`].
    pub fn sample_from(
        &self,
        model: &Model,
        context: usize,
        count: usize,
        skip: usize,
    ) -> Result<TextSample, EvalError> {
        let tokenizer = model.tokenizer();
        let prefix = prefix(model)?;
        let body = context.saturating_sub(prefix.len()).max(2);
        let mut documents = Vec::new();
        let mut longest = 0;
        let shares = self.texts.len().max(1);
        for (index, (_, text)) in self.texts.iter().enumerate() {
            let want = count / shares + usize::from(index < count % shares);
            if want == 0 {
                continue;
            }
            let tokens = tokenizer.encode_literal(text)?;
            let tokens = &tokens[skip.min(tokens.len())..];
            longest = longest.max(tokens.len());
            // Of an odd number, even texts get one more plain passage, odd texts one more that comes twice.
            let plain = if self.repeats { (want + (index + 1) % 2) / 2 } else { want };
            documents.extend(cut(tokens, body, plain).map(|passage| [&prefix[..], passage].concat()));
            let twice = cut(tokens, body / 2, want - plain);
            documents.extend(twice.map(|passage| [&prefix[..], passage, passage].concat()));
        }
        if documents.is_empty() {
            return Err(EvalError::Input(format!(
                "{} has {longest} tokens, which is less than one document of {body}: give a longer text or a \
                 shorter context",
                self.name()
            )));
        }
        Ok(TextSample { name: self.name(), documents })
    }

    fn add(&mut self, path: &Path) -> Result<(), EvalError> {
        let failed = |source| EvalError::File { path: path.to_owned(), source };
        if path.is_dir() {
            let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
                .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
                .map_err(failed)?;
            entries.sort();
            return entries
                .iter()
                .filter(|entry| entry.is_dir() || is_text(entry))
                .try_for_each(|entry| self.add(entry));
        }
        let name =
            path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        match path.extension().and_then(|e| e.to_str()) {
            Some("parquet") => {
                let texts = super::parquet::read_text_column(path)?;
                self.texts.extend(texts.into_iter().map(|text| (name.clone(), text)));
            }
            Some("jsonl" | "ndjson") => {
                let file = crate::read_input_text(path).map_err(failed)?;
                for (index, line) in file.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                    let text = json_text(line).ok_or_else(|| {
                        let place = format!("{}, line {}", path.display(), index + 1);
                        EvalError::Input(format!("{place}: not a JSON object with a string `text`"))
                    })?;
                    self.texts.push((name.clone(), text));
                }
            }
            _ => self.texts.push((name, crate::read_input_text(path).map_err(failed)?)),
        }
        Ok(())
    }
}

impl TextSample {
    /// SHA-256 of the tokens, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for document in &self.documents {
            hasher.update((document.len() as u64).to_le_bytes());
            document.iter().for_each(|token| hasher.update(token.to_le_bytes()));
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// As many of `count` passages of `length` as there are without overlap, evenly spread.
fn cut(tokens: &[u32], length: usize, count: usize) -> impl Iterator<Item = &[u32]> {
    let have = (tokens.len() / length).min(count);
    let stride = if have > 1 { (tokens.len() - length) / (have - 1) } else { 0 };
    (0..have).map(move |i| &tokens[i * stride..i * stride + length])
}

/// The tokens that the tokenizer puts before a prompt by its own convention.
pub(crate) fn prefix(model: &Model) -> Result<Vec<u32>, EvalError> {
    let (bare, prompt) = (model.tokenizer().encode("a")?, model.tokenizer().encode_prompt("a")?);
    let at = prompt.windows(bare.len().max(1)).position(|window| window == bare).unwrap_or(0);
    Ok(prompt[..at].to_vec())
}

fn json_text(line: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(value.get("text")?.as_str()?.to_owned())
}

fn is_text(path: &Path) -> bool {
    const TEXT: [&str; 12] =
        ["txt", "md", "jsonl", "ndjson", "parquet", "rs", "py", "c", "h", "tex", "rst", "html"];
    path.extension().and_then(|e| e.to_str()).is_some_and(|extension| TEXT.contains(&extension))
}
