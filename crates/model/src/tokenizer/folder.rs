//! The tokenizer of a Hugging Face folder.

use super::Parts;
use super::frame::frame;
use crate::ModelError;
use crate::config::Json;
use crate::file::Folder;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokenizers::Tokenizer;

pub(super) fn read(folder: &Folder) -> Result<Parts, ModelError> {
    let path = folder.path().join("tokenizer.json");
    if !folder.files().has("tokenizer.json") {
        let reason = "no tokenizer.json here: save the tokenizer with transformers' fast format first";
        return Err(ModelError::format(folder.path(), reason));
    }
    let bytes = folder.files().read("tokenizer.json")?;
    let mut inner = Tokenizer::from_bytes(bytes)
        .map_err(|e| ModelError::format(&path, format!("no valid tokenizer: {e}")))?;
    // Saved settings of a training run; a prompt is never cut or filled up.
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| ModelError::format(&path, e.to_string()))?;
    let json = |name: &str| Ok(folder.json(name)?.unwrap_or_else(|| Value::Object(Map::new())));
    let (config, special_tokens) = (json("tokenizer_config.json")?, json("special_tokens_map.json")?);
    let mut named = BTreeMap::new();
    for name in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] {
        let text = token_text(&config[name]).or_else(|| token_text(&special_tokens[name]));
        named.extend(text.map(|text| (name.to_owned(), text)));
    }
    let special = |name: &str| {
        let text = named.get(name)?;
        Some((inner.token_to_id(text)?, text.clone()))
    };
    let (begin, end) = (special("bos_token"), special("eos_token"));
    let generation = json("generation_config.json")?;
    let generation_path = folder.path().join("generation_config.json");
    let generation = Json::new(&generation_path, &generation)?;
    let config_path = folder.path().join("config.json");
    let mut ends: BTreeSet<u32> = generation.ids("eos_token_id")?.into_iter().collect();
    ends.extend(Json::new(&config_path, folder.config())?.ids("eos_token_id")?);
    ends.extend(end.as_ref().map(|(id, _)| *id));
    let config_path = folder.path().join("tokenizer_config.json");
    let config = Json::new(&config_path, &config)?;
    let mut notes = reframe(&mut inner, &path, &config, begin, end)?;
    notes.extend(prefix(&inner, &config)?);
    notes.extend(suggested(&generation));
    Ok(Parts { template: template(folder, &config)?, inner, ends, named, notes })
}

/// Puts the begin and end tokens around a prompt as the flags of the config say; where one says nothing, as
/// tokenizer.json does. Remarks on a flag that cannot be followed.
fn reframe(
    inner: &mut Tokenizer,
    path: &Path,
    config: &Json<'_>,
    begin: Option<(u32, String)>,
    end: Option<(u32, String)>,
) -> Result<Vec<String>, ModelError> {
    let fail = |reason: String| ModelError::format(path, reason);
    let (add_begin, add_end) = (config.flag("add_bos_token")?, config.flag("add_eos_token")?);
    if add_begin.or(add_end).is_none() {
        return Ok(vec![]);
    }
    let ids = |special| Ok(inner.encode("a", special).map_err(|e| fail(e.to_string()))?.get_ids().to_vec());
    let (bare, framed) = (ids(false)?, ids(true)?);
    let at = framed.windows(bare.len().max(1)).position(|part| part == bare).unwrap_or(0);
    let mut notes = vec![];
    let mut side = |flag: Option<bool>, key: &str, token: Option<(u32, String)>, now: &[u32]| {
        if flag == Some(false) {
            return Ok(None);
        }
        if flag == Some(true) && token.is_some() {
            return Ok(token);
        }
        if flag == Some(true) {
            notes
                .push(format!("tokenizer_config.json has `{key}` and no such token: tokenizer.json decides"));
        }
        match now {
            [] => Ok(None),
            [id] => Ok(inner.id_to_token(*id).map(|text| (*id, text))),
            _ => Err(fail(format!("`{key}` beside {} tokens around a prompt is not supported", now.len()))),
        }
    };
    let begin = side(add_begin, "add_bos_token", begin, &framed[..at])?;
    let end = side(add_end, "add_eos_token", end, &framed[(at + bare.len()).min(framed.len())..])?;
    let [begin, end] = [&begin, &end].map(|token| token.as_ref().map(|(id, text)| (*id, text)));
    frame(inner, begin, end).map_err(fail)?;
    Ok(notes)
}

/// The remark about a flag for the space before a text that tokenizer.json does not follow.
fn prefix(inner: &Tokenizer, config: &Json<'_>) -> Result<Option<String>, ModelError> {
    let Some(flag) = config.flag("add_prefix_space")? else { return Ok(None) };
    let first = inner.encode("a", false).ok().and_then(|encoding| encoding.get_tokens().first().cloned());
    let has = first.is_some_and(|token| token.starts_with(['▁', 'Ġ']));
    Ok((has != flag).then(|| {
        format!("tokenizer_config.json has `add_prefix_space` {flag}, which tokenizer.json does not follow: it decides")
    }))
}

/// The remark about what `generation_config.json` suggests, which flags decide here.
fn suggested(generation: &Json<'_>) -> Option<String> {
    /// What says nothing about which token comes next.
    const INERT: [&str; 14] = [
        "_from_model_config",
        "bos_token_id",
        "cache_implementation",
        "decoder_start_token_id",
        "do_sample",
        "eos_token_id",
        "max_length",
        "max_new_tokens",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "return_dict_in_generate",
        "transformers_version",
        "use_cache",
    ];
    INERT.iter().for_each(|key| generation.ignore(key));
    let given: Vec<String> =
        generation.unread_values().map(|(key, value)| format!("{key} {value}")).collect();
    let list = given.join(", ");
    (!given.is_empty())
        .then(|| format!("generation_config.json suggests {list}: not used unless flags say so"))
}

/// A special token, written as text or as an object with its `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// The template beside the tokenizer, or within its config: one, or the one called `default`.
fn template(folder: &Folder, config: &Json<'_>) -> Result<Option<String>, ModelError> {
    let name = "chat_template.jinja";
    if folder.files().has(name) {
        let bytes = folder.files().read(name)?.into_owned();
        let not_text = |_| ModelError::format(&folder.path().join(name), "not UTF-8 text");
        return String::from_utf8(bytes).map(Some).map_err(not_text);
    }
    let named = |list: &[Value]| {
        let default = list.iter().find(|entry| entry["name"] == "default").or(list.first())?;
        default["template"].as_str().map(str::to_owned)
    };
    config.text_or_list("chat_template", named)
}
