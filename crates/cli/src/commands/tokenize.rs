use crate::{
    arguments::{ModelName, TextArguments},
    config,
    failure::usage,
    output,
};
use anyhow::Result;
use serde_json::json;
use sketchkv_model::Tokenizer;

/// Show the tokens of a text, or the text of tokens.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    text: TextArguments,
    /// A name from `sketchkv models`, a GGUF file, or a Hugging Face folder.
    #[arg(long, short, default_value_t = config::usual_model())]
    model: ModelName,
    /// Take the text as token ids, separated by spaces or commas, and print what they say.
    #[arg(long)]
    decode: bool,
    /// Treat special tokens written in the text as plain text.
    #[arg(long, conflicts_with = "decode")]
    literal: bool,
    /// Add the tokens that begin and end a prompt of this model.
    #[arg(long, conflicts_with_all = ["decode", "literal"])]
    prompt: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let file = self.model.source()?.open()?;
        let tokenizer = file.tokenizer()?;
        let text = self.text.read("text")?;
        let tokens = match (self.decode, self.literal, self.prompt) {
            (true, ..) => parse_ids(&text, &tokenizer)?,
            (_, true, _) => tokenizer.encode_literal(&text)?,
            (.., true) => tokenizer.encode_prompt(&text)?,
            _ => tokenizer.encode(&text)?,
        };
        let spelled = |id: u32| tokenizer.decode(&[id]);
        if self.json {
            let list: Vec<_> = tokens.iter().map(|&id| json!({ "id": id, "text": spelled(id) })).collect();
            return output::json(&json!({
                "model": file.config().name,
                "text": tokenizer.decode(&tokens),
                "count": tokens.len(),
                "tokens": list,
            }));
        }
        if self.decode {
            return output::line(tokenizer.decode(&tokens));
        }
        for &id in &tokens {
            output::line(format!("{id}\t{:?}", spelled(id)))?;
        }
        eprintln!("{} tokens", tokens.len());
        Ok(())
    }
}

fn parse_ids(text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    words
        .map(|word| match word.parse() {
            Ok(id) if (id as usize) < tokenizer.vocabulary() => Ok(id),
            Ok(id) => Err(usage(format!("there is no token {id}: ids are below {}", tokenizer.vocabulary()))),
            Err(_) => Err(usage(format!("{word:?} is no token id"))),
        })
        .collect()
}
