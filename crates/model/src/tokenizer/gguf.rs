//! A tokenizer built from GGUF metadata.

use super::Parts;
use super::frame::frame;
use super::splitter::{Splitter, usual_splitter};
use super::spm_merges::spm_merges;
use super::unigram::unigram;
use crate::ModelError;
use crate::config::unused_keys;
use crate::file::{Gguf, Value};
use std::collections::{BTreeMap, BTreeSet};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::prepend::Prepend;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, Tokenizer};

/// Token types of `tokenizer.ggml.token_type`.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
pub(super) const BYTE: i64 = 6;

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

pub(super) fn read(gguf: &Gguf) -> Result<Parts, ModelError> {
    let fail = |reason: String| ModelError::format(gguf.path(), reason);
    let tokens = gguf.texts("tokenizer.ggml.tokens")?.ok_or_else(|| {
        fail("metadata key `tokenizer.ggml.tokens` is missing: this file has no tokenizer".into())
    })?;
    let kind = gguf.text("tokenizer.ggml.model")?.unwrap_or_default();
    let mut notes = vec![];
    // With each the begin and end tokens that its models expect.
    let (mut inner, begins, is_ended) = match kind {
        "gpt2" => {
            let (inner, begins) = byte_level(gguf, tokens, &mut notes)?;
            (inner, begins, false)
        }
        "llama" => (sentence_piece(gguf, tokens, scores(gguf, tokens)?)?, true, false),
        "t5" => (unigram(gguf, tokens, scores(gguf, tokens)?)?, false, true),
        other => {
            return Err(fail(format!(
                "`tokenizer.ggml.model` is `{other}`, which is not supported; gpt2 (byte-level BPE), llama \
                 (SentencePiece BPE) and t5 (SentencePiece unigram) are"
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
    let add_end = gguf.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(is_ended);
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
    notes.extend(unused_keys(&unknown_keys(gguf)));
    Ok(Parts { inner, ends, template, named, notes })
}

/// Keys of `tokenizer.ggml.` that are read here, and then those that say nothing about how text becomes tokens.
const KNOWN: [&str; 37] = [
    "add_bos_token",
    "add_eos_token",
    "add_space_prefix",
    "bos_token_id",
    "cls_token_id",
    "eom_token_id",
    "eos_token_id",
    "eot_token_id",
    "mask_token_id",
    "merges",
    "model",
    "padding_token_id",
    "pre",
    "precompiled_charsmap",
    "remove_extra_whitespaces",
    "scores",
    "seperator_token_id",
    "token_type",
    "tokens",
    "unknown_token_id",
    "add_sep_token",
    "fim_mid_token_id",
    "fim_middle_token_id",
    "fim_pad_token_id",
    "fim_pre_token_id",
    "fim_prefix_token_id",
    "fim_rep_token_id",
    "fim_repo_token_id",
    "fim_sep_token_id",
    "fim_separator_token_id",
    "fim_suf_token_id",
    "fim_suffix_token_id",
    "middle_token_id",
    "prefix_token_id",
    "suffix_token_id",
    "separator_token_id",
    "token_type_count",
];

fn unknown_keys(gguf: &Gguf) -> Vec<String> {
    let is_known = |key: &str| key.strip_prefix("tokenizer.ggml.").is_none_or(|key| KNOWN.contains(&key));
    gguf.header().metadata().keys().filter(|key| !is_known(key)).cloned().collect()
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
    let splitter = Splitter::named(pre).map_err(fail)?;
    let model =
        BPE::builder().vocab_and_merges(vocabulary(tokens), merges).ignore_merges(splitter.whole).build();
    let mut inner =
        Tokenizer::new(model.map_err(|e| fail(format!("the tokenizer does not fit together: {e}")))?);
    inner.with_pre_tokenizer(Some(splitter.words));
    if splitter.composes {
        inner.with_normalizer(Some(NFC)).map_err(|e| fail(e.to_string()))?;
    }
    inner.with_decoder(Some(ByteLevel::new(false, true, true)));
    Ok((inner, splitter.begins))
}

/// SentencePiece BPE: the merges follow from the scores, bytes without a token of their own fall back to `<0x..>`.
fn sentence_piece(gguf: &Gguf, tokens: &[String], scores: &[f32]) -> Result<Tokenizer, ModelError> {
    let fail = |reason: String| ModelError::format(gguf.path(), reason);
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
    // Before every piece of text between special tokens, as llama.cpp and the tokenizer.json of these models do.
    if prefix {
        inner.with_normalizer(Some(Prepend::new("▁".into()))).map_err(|e| fail(e.to_string()))?;
    }
    inner.with_pre_tokenizer(Some(Metaspace::new('▁', PrependScheme::Never, false)));
    let scheme = if prefix { PrependScheme::First } else { PrependScheme::Never };
    inner.with_decoder(Some(Metaspace::new('▁', scheme, false)));
    Ok(inner)
}

fn vocabulary(tokens: &[String]) -> ahash::AHashMap<String, u32> {
    tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect()
}

fn scores<'g>(gguf: &'g Gguf, tokens: &[String]) -> Result<&'g [f32], ModelError> {
    let scores = gguf.header().value("tokenizer.ggml.scores").and_then(Value::floats);
    scores.filter(|scores| scores.len() == tokens.len()).ok_or_else(|| {
        ModelError::format(gguf.path(), "`tokenizer.ggml.scores` must hold one number for each token")
    })
}

/// What each token is, where the file says so.
pub(super) fn token_types<'g>(gguf: &'g Gguf, tokens: &[String]) -> Result<Option<&'g [i64]>, String> {
    let Some(types) = gguf.header().value("tokenizer.ggml.token_type") else { return Ok(None) };
    let types = types.integers().filter(|types| types.len() == tokens.len());
    types.map(Some).ok_or_else(|| "`tokenizer.ggml.token_type` must hold one number for each token".into())
}

/// Control and user-defined tokens are matched whole in the text.
fn add_special(gguf: &Gguf, tokens: &[String], inner: &mut Tokenizer) -> Result<(), String> {
    let Some(types) = token_types(gguf, tokens)? else { return Ok(()) };
    let added = tokens.iter().zip(types).filter_map(|(token, kind)| match *kind {
        UNKNOWN | CONTROL => Some(AddedToken::from(token.as_str(), true).normalized(false)),
        USER_DEFINED => Some(AddedToken::from(token.as_str(), false).normalized(false)),
        _ => None,
    });
    inner.add_tokens(added).map_err(|e| format!("the special tokens do not fit together: {e}"))?;
    Ok(())
}
