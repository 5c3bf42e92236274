//! How text is split into words before byte-level BPE: what the names of `tokenizer.ggml.pre` stand for.

use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

/// Splits of the pre-tokenizers, as their models were trained.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// One after the other, digits last. The letters of the first are those with case that Unicode had when it was written.
#[rustfmt::skip]
const DEEPSEEK_LLM: [&str; 5] = [
    r"[\r\n]",
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u{1f7d}ᾀ-ᾴᾶ-ᾼ\u{1fbe}ῂ-ῄῆ-ῌῐ-\u{1fd3}ῖ-\u{1fdb}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u{2126}ℨ\u{212a}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+",
    "\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+",
    r"\s+$",
    "[一-龥ࠀ-一가-퟿]+",
];
const DEEPSEEK_CODER: [&str; 4] = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"];

/// What a name stands for.
pub(super) struct Splitter {
    pub(super) words: PreTokenizerWrapper,
    /// Characters are composed before the text is split.
    pub(super) composes: bool,
    /// A word that is a token is taken whole, before any merge.
    pub(super) whole: bool,
    /// The models expect the begin token.
    pub(super) begins: bool,
}

impl Splitter {
    pub(super) fn named(name: &str) -> Result<Splitter, String> {
        let words = match name {
            "gpt-2" | "gpt2" | "default" | "phi-2" | "olmo" => ByteLevel::new(false, true, true).into(),
            // Digits one by one, then GPT-2's words.
            "smollm" | "refact" | "starcoder" | "command-r" | "codeshell" => {
                sequence([Digits::new(true).into(), ByteLevel::new(false, true, true).into()])
            }
            "llama-bpe" | "llama3" | "llama-v3" | "dbrx" | "smaug-bpe" => splits(&[LLAMA3], None)?,
            "qwen2" | "deepseek-r1-qwen" => splits(&[QWEN2], None)?,
            "qwen35" => splits(&[QWEN35], None)?,
            "tekken" => splits(&[TEKKEN], None)?,
            "gpt-4o" | "llama4" => splits(&[GPT4O], None)?,
            "deepseek-llm" => splits(&DEEPSEEK_LLM, Some(Digits::new(true)))?,
            "deepseek-coder" => splits(&DEEPSEEK_CODER, Some(Digits::new(true)))?,
            other => {
                return Err(format!(
                    "`tokenizer.ggml.pre` is `{other}`, which is not supported; gpt-2, smollm, refact, llama-bpe, \
                     dbrx, qwen2, qwen35, tekken, gpt-4o, llama4, deepseek-llm and deepseek-coder are"
                ));
            }
        };
        let llama3 = matches!(name, "llama-bpe" | "llama3" | "llama-v3");
        Ok(Splitter {
            words,
            composes: matches!(name, "qwen2" | "qwen35" | "command-r"),
            whole: llama3 || matches!(name, "smaug-bpe" | "tekken"),
            begins: llama3 || name == "tekken",
        })
    }
}

/// How text is split for the models of an architecture that were all trained with one tokenizer.
pub(super) fn usual_splitter(architecture: &str) -> Option<&'static str> {
    match architecture {
        "gpt2" => Some("gpt-2"),
        "qwen2" | "qwen3" | "qwen3moe" => Some("qwen2"),
        _ => None,
    }
}

/// Splits by one pattern after the other, then bytes as characters.
fn splits(patterns: &[&str], digits: Option<Digits>) -> Result<PreTokenizerWrapper, String> {
    let split = |pattern: &&str| {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map(PreTokenizerWrapper::from)
    };
    let steps: Result<Vec<_>, _> = patterns.iter().map(split).collect();
    let last = digits.map(PreTokenizerWrapper::from).into_iter();
    let last = last.chain([ByteLevel::new(false, true, false).into()]);
    Ok(sequence(steps.map_err(|e| e.to_string())?.into_iter().chain(last)))
}

fn sequence(steps: impl IntoIterator<Item = PreTokenizerWrapper>) -> PreTokenizerWrapper {
    Sequence::new(steps.into_iter().collect()).into()
}
