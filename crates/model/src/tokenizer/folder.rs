//! The tokenizer of a Hugging Face folder.

use super::Parts;
use super::frame::frame;
use crate::ModelError;
use crate::file::Folder;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn read(folder: &Folder) -> Result<Parts, ModelError> {
    let path = folder.path().join("tokenizer.json");
    if !folder.files().has("tokenizer.json") {
        let reason = "no tokenizer.json here: save the tokenizer with transformers' fast format first";
        return Err(ModelError::format(folder.path(), reason));
    }
    let bytes = folder.files().read("tokenizer.json")?;
    let mut inner = tokenizers::Tokenizer::from_bytes(bytes)
        .map_err(|e| ModelError::format(&path, format!("no valid tokenizer: {e}")))?;
    // Saved settings of a training run; a prompt is never cut or filled up.
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| ModelError::format(&path, e.to_string()))?;
    let config = folder.json("tokenizer_config.json")?.unwrap_or_default();
    let generation = folder.json("generation_config.json")?.unwrap_or_default();
    let mut named = BTreeMap::new();
    for name in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] {
        named.extend(token_text(&config[name]).map(|text| (name.to_owned(), text)));
    }
    let special = |name: &str| {
        let text = named.get(name)?;
        Some((inner.token_to_id(text)?, text))
    };
    let (begin, end) = (special("bos_token"), special("eos_token"));
    // As transformers has it: either flag, if it is there at all, goes before what tokenizer.json adds.
    let flag = |name: &str| config[name].as_bool();
    let mut ends = BTreeSet::new();
    ids(&generation["eos_token_id"], &mut ends);
    ids(&folder.config()["eos_token_id"], &mut ends);
    ends.extend(end.map(|(id, _)| id));
    if flag("add_bos_token").or(flag("add_eos_token")).is_some() {
        let wanted = |name: &str| flag(name).unwrap_or(false);
        let (begin, end) =
            (begin.filter(|_| wanted("add_bos_token")), end.filter(|_| wanted("add_eos_token")));
        frame(&mut inner, begin, end).map_err(|reason| ModelError::format(&path, reason))?;
    }
    let notes = suggested(&generation).into_iter().collect();
    Ok(Parts { template: template(folder, &config)?, inner, ends, named, notes })
}

/// The remark about what `generation_config.json` suggests, which flags decide here.
fn suggested(generation: &Value) -> Option<String> {
    const KEYS: [&str; 6] = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "stop_strings"];
    let given = KEYS.iter().filter(|key| !generation[**key].is_null());
    let given: Vec<String> = given.map(|key| format!("{key} {}", generation[*key])).collect();
    let list = given.join(", ");
    (!given.is_empty())
        .then(|| format!("generation_config.json suggests {list}: not used unless flags say so"))
}

/// One id, a list of ids, or nothing.
fn ids(value: &Value, out: &mut BTreeSet<u32>) {
    match value {
        Value::Array(list) => list.iter().for_each(|id| ids(id, out)),
        id => out.extend(id.as_u64().and_then(|id| u32::try_from(id).ok())),
    }
}

/// A special token, written as text or as an object with its `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// The template beside the tokenizer, or within its config: one, or the one called `default`.
fn template(folder: &Folder, config: &Value) -> Result<Option<String>, ModelError> {
    let name = "chat_template.jinja";
    if folder.files().has(name) {
        let bytes = folder.files().read(name)?.into_owned();
        let not_text = |_| ModelError::format(&folder.path().join(name), "not UTF-8 text");
        return String::from_utf8(bytes).map(Some).map_err(not_text);
    }
    let named = |list: &Vec<Value>| {
        let default = list.iter().find(|entry| entry["name"] == "default").or(list.first())?;
        default["template"].as_str().map(str::to_owned)
    };
    let value = &config["chat_template"];
    Ok(value.as_str().map(str::to_owned).or_else(|| value.as_array().and_then(named)))
}
