//! A tokenizer built from GGUF metadata.

use super::Parts;
use super::frame::frame;
use super::spm_merges::spm_merges;
use crate::ModelError;
use crate::file::{Gguf, Value};
use std::collections::{BTreeMap, BTreeSet};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

/// Token types of `tokenizer.ggml.token_type`.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Ends of a turn or text that files often fail to name as such.
const KNOWN_ENDS: [&str; 7] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
];

/// Splits of the pre-tokenizers, as their models were trained.
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub(super) fn read(gguf: &Gguf) -> Result<Parts, ModelError> {
    let fail = |reason: String| ModelError::format(gguf.path(), reason);
    let tokens = gguf.texts("tokenizer.ggml.tokens")?.ok_or_else(|| {
        fail("metadata key `tokenizer.ggml.tokens` is missing: this file has no tokenizer".into())
    })?;
    let kind = gguf.text("tokenizer.ggml.model")?.unwrap_or_default();
    let mut notes = vec![];
    let (mut inner, begins) = match kind {
        "gpt2" => byte_level(gguf, tokens, &mut notes)?,
        "llama" => (sentence_piece(gguf, tokens)?, true),
        other => {
            return Err(fail(format!(
                "tokenizer `{other}` is not supported; `gpt2` (byte-level BPE) and `llama` (SentencePiece) are"
            )));
        }
    };
    add_special(gguf, tokens, &mut inner).map_err(fail)?;
    let special = |name: &str| -> Result<Option<(u32, &String)>, ModelError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = gguf.number(&key)? else { return Ok(None) };
        let token = tokens.get(id).ok_or_else(|| fail(format!("`{key}` is {id}, beyond the vocabulary")))?;
        Ok(Some((id as u32, token)))
    };
    let (begin, end) = (special("bos")?, special("eos")?);
    let add_begin = gguf.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(begins);
    let add_end = gguf.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    frame(&mut inner, begin.filter(|_| add_begin), end.filter(|_| add_end)).map_err(fail)?;
    let mut ends: BTreeSet<u32> = KNOWN_ENDS.iter().filter_map(|text| inner.token_to_id(text)).collect();
    ends.retain(|id| inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(id));
    for name in ["eos", "eot", "eom"] {
        ends.extend(special(name)?.map(|(id, _)| id));
    }
    let mut named = BTreeMap::new();
    // GGUF's names, one of them misspelled in the format itself, and transformers'.
    for (name, called) in [
        ("bos", "bos_token"),
        ("eos", "eos_token"),
        ("unknown", "unk_token"),
        ("padding", "pad_token"),
        ("seperator", "sep_token"),
        ("cls", "cls_token"),
        ("mask", "mask_token"),
    ] {
        named.extend(special(name)?.map(|(_, text)| (called.to_owned(), text.clone())));
    }
    let template = gguf.text("tokenizer.chat_template")?.map(str::to_owned);
    Ok(Parts { inner, ends, template, named, notes })
}

/// Byte-level BPE, and whether its models expect the begin token.
fn byte_level(
    gguf: &Gguf,
    tokens: &[String],
    notes: &mut Vec<String>,
) -> Result<(Tokenizer, bool), ModelError> {
    let fail = |reason: String| ModelError::format(gguf.path(), reason);
    let merges = gguf.texts("tokenizer.ggml.merges")?.ok_or_else(|| {
        fail("metadata key `tokenizer.ggml.merges` is missing: the tokenizer is incomplete".into())
    })?;
    let merges = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| fail("`tokenizer.ggml.merges` holds a line that is not two tokens".into()))?;
    let pre = match gguf.text("tokenizer.ggml.pre")? {
        Some(pre) => pre,
        None => {
            let family = gguf.text("general.architecture")?.unwrap_or_default();
            let pre = usual_splitter(family).ok_or_else(|| {
                let reason = "metadata key `tokenizer.ggml.pre` is missing, which says how text is split into words: \
                              convert the model again";
                fail(reason.into())
            })?;
            notes.push(format!(
                "metadata key `tokenizer.ggml.pre` is missing: text is split as {family} models do, `{pre}`"
            ));
            pre
        }
    };
    let llama3 = matches!(pre, "llama-bpe" | "llama3" | "llama-v3" | "dbrx" | "smaug-bpe");
    // Llama 3 takes a word that is a token whole, before any merge.
    let model = BPE::builder().vocab_and_merges(vocabulary(tokens), merges).ignore_merges(llama3).build();
    let mut inner =
        Tokenizer::new(model.map_err(|e| fail(format!("the tokenizer does not fit together: {e}")))?);
    let split = |pattern: &str| -> Result<PreTokenizerWrapper, ModelError> {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        let split =
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|e| fail(e.to_string()))?;
        Ok(sequence(split.into(), ByteLevel::new(false, true, false)))
    };
    let words = ByteLevel::new(false, true, true);
    let splitter = match pre {
        "gpt-2" | "gpt2" | "default" | "phi-2" | "olmo" => words.into(),
        // Digits one by one, then GPT-2's words.
        "smollm" | "refact" | "starcoder" | "command-r" | "codeshell" => {
            sequence(Digits::new(true).into(), words)
        }
        "qwen2" | "deepseek-r1-qwen" => split(QWEN2_SPLIT)?,
        _ if llama3 => split(LLAMA3_SPLIT)?,
        other => {
            return Err(fail(format!(
                "pre-tokenizer `{other}` is not supported; gpt-2, smollm, refact, llama-bpe, dbrx and qwen2 are"
            )));
        }
    };
    inner.with_pre_tokenizer(Some(splitter));
    if pre == "qwen2" {
        inner.with_normalizer(Some(NFC)).map_err(|e| fail(e.to_string()))?;
    }
    inner.with_decoder(Some(words));
    Ok((inner, llama3))
}

/// How text is split for the models of an architecture that were all trained with one tokenizer.
fn usual_splitter(architecture: &str) -> Option<&'static str> {
    match architecture {
        "gpt2" => Some("gpt-2"),
        "qwen2" | "qwen3" | "qwen3moe" => Some("qwen2"),
        _ => None,
    }
}

/// SentencePiece BPE: the merges follow from the scores, bytes without a token of their own fall back to `<0x..>`.
fn sentence_piece(gguf: &Gguf, tokens: &[String]) -> Result<Tokenizer, ModelError> {
    let fail = |reason: String| ModelError::format(gguf.path(), reason);
    let scores = gguf
        .header()
        .value("tokenizer.ggml.scores")
        .and_then(Value::floats)
        .filter(|scores| scores.len() == tokens.len())
        .ok_or_else(|| fail("`tokenizer.ggml.scores` must hold one number for each token".into()))?;
    let unknown = gguf.number("tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
    let mut builder = BPE::builder()
        .vocab_and_merges(vocabulary(tokens), spm_merges(tokens, scores))
        .byte_fallback(true)
        .fuse_unk(true);
    if let Some(token) = tokens.get(unknown) {
        builder = builder.unk_token(token.clone());
    }
    let model = builder.build().map_err(|e| fail(format!("the tokenizer does not fit together: {e}")))?;
    let mut inner = Tokenizer::new(model);
    let prefix = gguf.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let scheme = if prefix { PrependScheme::First } else { PrependScheme::Never };
    let spaces = Metaspace::new('▁', scheme, false);
    inner.with_pre_tokenizer(Some(spaces.clone()));
    inner.with_decoder(Some(spaces));
    Ok(inner)
}

fn vocabulary(tokens: &[String]) -> ahash::AHashMap<String, u32> {
    tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect()
}

fn sequence(first: PreTokenizerWrapper, then: ByteLevel) -> PreTokenizerWrapper {
    PreTokenizerWrapper::Sequence(Sequence::new(vec![first, then.into()]))
}

/// Control and user-defined tokens are matched whole in the text.
fn add_special(gguf: &Gguf, tokens: &[String], inner: &mut Tokenizer) -> Result<(), String> {
    let Some(types) = gguf.header().value("tokenizer.ggml.token_type") else { return Ok(()) };
    let types = types.integers().filter(|types| types.len() == tokens.len());
    let types = types.ok_or("`tokenizer.ggml.token_type` must hold one number for each token")?;
    let added = tokens.iter().zip(types).filter_map(|(token, kind)| match *kind {
        UNKNOWN | CONTROL => Some(AddedToken::from(token.as_str(), true).normalized(false)),
        USER_DEFINED => Some(AddedToken::from(token.as_str(), false).normalized(false)),
        _ => None,
    });
    inner.add_tokens(added).map_err(|e| format!("the special tokens do not fit together: {e}"))?;
    Ok(())
}
