//! Truncated, corrupt and hostile files: each a one-line error that names the file and what is wrong, never a panic,
//! never an allocation that the file does not pay for.

mod common;

use common::*;
use sketchkv_model::{GgufHeader, LoadOptions, Model, ModelFile, safetensors_entries};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Loads `path`, which must fail, and returns the message.
fn refusal(path: &Path) -> String {
    let options = LoadOptions { threads: 1, ..LoadOptions::default() };
    let message = Model::load(path, &options).err().expect("the file is bad").to_string();
    assert!(!message.contains('\n'), "{message:?}");
    assert!(message.len() < 600, "{message}");
    message
}

/// A small GGUF, changed by `edit`.
fn edited(edit: impl FnOnce(&mut Vec<u8>)) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    let mut bytes = fs::read(golden("llama.gguf")).unwrap();
    edit(&mut bytes);
    fs::write(&path, bytes).unwrap();
    let message = refusal(&path);
    assert!(message.contains("model.gguf"), "{message}");
    message
}

/// One past the first occurrence of `needle`, which in a header is followed by a type or a count.
fn after(bytes: &[u8], needle: &str) -> usize {
    let found = bytes.windows(needle.len()).position(|window| window == needle.as_bytes());
    found.unwrap_or_else(|| panic!("{needle} is in the file")) + needle.len()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Where a tensor's description has its type and, four bytes on, its offset.
fn type_of(bytes: &[u8], tensor: &str) -> usize {
    let at = after(bytes, tensor);
    let dimensions = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    at + 4 + 8 * dimensions
}

#[test]
fn no_gguf_at_all() {
    assert!(edited(Vec::clear).contains("empty"));
    assert!(edited(|bytes| put(bytes, 0, b"PK\x03\x04")).contains("no GGUF file"));
    assert!(edited(|bytes| bytes.truncate(3)).contains("truncated"));
    assert!(edited(|bytes| put(bytes, 4, &[1, 0, 0, 0])).contains("version 1 is too old"));
    assert!(edited(|bytes| put(bytes, 4, &[0, 0, 0, 3])).contains("big-endian"));
    assert!(edited(|bytes| put(bytes, 4, &[9, 0, 0, 0])).contains("version 9 is unknown"));
    assert!(refusal(Path::new("/nowhere/model.gguf")).contains("cannot read /nowhere/model.gguf"));
}

#[test]
fn counts_that_the_file_cannot_hold() {
    let huge = u64::MAX.to_le_bytes();
    assert!(edited(|bytes| put(bytes, 8, &huge)).contains("tensors, more than the file can hold"));
    assert!(edited(|bytes| put(bytes, 16, &huge)).contains("metadata entries, more than the file can hold"));
    // The length of the first key.
    assert!(edited(|bytes| put(bytes, 24, &huge)).contains("truncated or corrupt"));
    let message = edited(|bytes| {
        let count = after(bytes, "tokenizer.ggml.tokens") + 8;
        put(bytes, count, &(u64::MAX / 8).to_le_bytes());
    });
    assert!(
        message.contains("elements in `tokenizer.ggml.tokens`, more than the file can hold"),
        "{message}"
    );
    let message = edited(|bytes| {
        let first = after(bytes, "blk.0.attn_q.weight") + 4;
        put(bytes, first, &(1u64 << 62).to_le_bytes());
    });
    assert!(message.contains("`blk.0.attn_q.weight` has an impossible shape"), "{message}");
}

#[test]
fn metadata_of_the_wrong_kind() {
    let message = edited(|bytes| {
        let kind = after(bytes, "llama.block_count");
        put(bytes, kind, &6u32.to_le_bytes());
    });
    assert!(message.contains("`llama.block_count` is not a whole number"), "{message}");
    let message = edited(|bytes| {
        let kind = after(bytes, "llama.block_count");
        put(bytes, kind, &77u32.to_le_bytes());
    });
    assert!(message.contains("unknown value type 77"), "{message}");
    let message = edited(|bytes| {
        let key = after(bytes, "llama.block_count");
        put(bytes, key - 1, b"x");
    });
    assert!(message.contains("`llama.block_count` is missing"), "{message}");
    let message = edited(|bytes| {
        let value = after(bytes, "general.architecture") + 12;
        put(bytes, value, b"bloom");
    });
    assert!(message.contains("architecture `bloom` is not supported; these are: gpt2, llama"), "{message}");
    let message = edited(|bytes| {
        let value = after(bytes, "llama.attention.head_count_kv") + 4;
        put(bytes, value, &3u32.to_le_bytes());
    });
    assert!(message.contains("4 heads do not divide into 3 KV heads"), "{message}");
    let message = edited(|bytes| {
        let value = after(bytes, "llama.block_count") + 4;
        put(bytes, value, &0u32.to_le_bytes());
    });
    assert!(message.contains("layers of 0 is impossible"), "{message}");
}

#[test]
fn tensors_that_lie_wrong() {
    let message = edited(|bytes| {
        let at = type_of(bytes, "blk.1.ffn_up.weight") + 4;
        put(bytes, at, &(1u64 << 40).to_le_bytes());
    });
    assert!(message.contains("`blk.1.ffn_up.weight`") && message.contains("beyond the end"), "{message}");
    let message = edited(|bytes| {
        let at = type_of(bytes, "blk.1.ffn_up.weight") + 4;
        put(bytes, at, &u64::MAX.to_le_bytes());
    });
    assert!(message.contains("not aligned"), "{message}");
    let message = edited(|bytes| {
        let at = type_of(bytes, "blk.1.ffn_up.weight") + 4;
        put(bytes, at, &0u64.to_le_bytes());
    });
    assert!(message.contains("overlap"), "{message}");
    let message = edited(|bytes| {
        let at = type_of(bytes, "blk.0.attn_q.weight");
        put(bytes, at, &250u32.to_le_bytes());
    });
    assert!(message.contains("unknown type 250"), "{message}");
    let message = edited(|bytes| {
        // I16 has the size of F16.
        let at = type_of(bytes, "blk.0.ffn_up.weight");
        put(bytes, at, &25u32.to_le_bytes());
    });
    assert!(message.contains("`blk.0.ffn_up.weight` is I16, which is not supported; F32,"), "{message}");
    let message = edited(|bytes| {
        let name = after(bytes, "blk.1.ffn_up.weight");
        put(bytes, name - 1, b"s");
    });
    assert!(message.contains("`blk.1.ffn_up.weight` is missing"), "{message}");
    let message = edited(|bytes| {
        let at = after(bytes, "llama.embedding_length") + 4;
        put(bytes, at, &32u32.to_le_bytes());
    });
    assert!(message.contains("where the config needs"), "{message}");
}

#[test]
fn weights_that_are_no_numbers() {
    let nan = |tensor: &str, value: [u8; 2]| {
        let tensor = tensor.to_owned();
        edited(move |bytes| {
            let header = GgufHeader::parse(bytes).unwrap();
            let start = header.tensors().iter().find(|entry| entry.name == tensor).unwrap().start;
            put(bytes, start, &value);
        })
    };
    // The scale of a block, an f16, a bf16, the upper half of an f32 in a norm.
    for tensor in ["blk.0.attn_q.weight", "token_embd.weight", "blk.1.ffn_up.weight", "blk.1.ffn_down.weight"]
    {
        let message = nan(tensor, [0xff, 0x7f]);
        assert!(message.contains(tensor) && message.contains("NaN or infinite"), "{message}");
    }
    let message = edited(|bytes| {
        let header = GgufHeader::parse(bytes).unwrap();
        let norm = header.tensors().iter().find(|entry| entry.name == "blk.1.ffn_norm.weight").unwrap().start;
        put(bytes, norm, &f32::NAN.to_le_bytes());
    });
    assert!(message.contains("`blk.1.ffn_norm.weight` holds a value that is NaN or infinite"), "{message}");
}

#[test]
fn a_tokenizer_that_does_not_fit() {
    let message = edited(|bytes| {
        let kind = after(bytes, "tokenizer.ggml.model") + 12;
        put(bytes, kind, b"bllaa");
    });
    assert!(message.contains("`tokenizer.ggml.model` is `bllaa`, which is not supported"), "{message}");
    let message = edited(|bytes| {
        let at = after(bytes, "tokenizer.ggml.eos_token_id") + 4;
        put(bytes, at, &9999u32.to_le_bytes());
    });
    assert!(message.contains("`tokenizer.ggml.eos_token_id` is 9999, beyond the vocabulary"), "{message}");
    // The folder of one model with the tokenizer of a larger one.
    let folder = copied("gpt2");
    fs::copy(tiny_gpt2().join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    assert!(
        refusal(folder.path())
            .contains("4096 tokens and the model 512: it is the tokenizer of another model")
    );
}

/// However a file is cut off, it is refused.
#[test]
fn truncation_anywhere() {
    let bytes = fs::read(golden("llama.gguf")).unwrap();
    let data = GgufHeader::parse(&bytes).unwrap().tensors()[0].start;
    for length in (0..data).step_by(97).chain((data..bytes.len()).step_by(10_007)).chain([bytes.len() - 33]) {
        assert!(GgufHeader::parse(&bytes[..length]).is_err(), "{length}");
    }
    let bytes = fs::read(golden("gpt2/model.safetensors")).unwrap();
    for length in (0..8192).step_by(61).chain((8192..bytes.len()).step_by(9_973)).chain([bytes.len() - 1]) {
        assert!(safetensors_entries(&bytes[..length]).is_err(), "{length}");
    }
}

/// A golden folder, free to be spoiled.
fn copied(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

/// A golden folder whose file `file` is changed by `edit`.
fn spoiled(name: &str, file: &str, edit: impl FnOnce(&mut Vec<u8>)) -> String {
    let folder = copied(name);
    let path = folder.path().join(file);
    let mut bytes = fs::read(&path).unwrap();
    edit(&mut bytes);
    fs::write(&path, bytes).unwrap();
    refusal(folder.path())
}

fn replaced(name: &str, file: &str, from: &str, to: &str) -> String {
    spoiled(name, file, |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{file} has {from}");
        *bytes = text.replace(from, to).into_bytes();
    })
}

#[test]
fn folders_that_are_incomplete() {
    let without = |name: &str, file: &str| {
        let folder = copied(name);
        fs::remove_file(folder.path().join(file)).unwrap();
        refusal(folder.path())
    };
    assert!(without("gpt2", "config.json").contains("no config.json here"));
    assert!(without("gpt2", "tokenizer.json").contains("no tokenizer.json here"));
    assert!(
        without("gpt2", "model.safetensors")
            .contains("no model.safetensors and no model.safetensors.index.json")
    );
    assert!(without("mistral", "model-00002-of-00002.safetensors").contains("cannot read"));
    let folder = copied("gpt2");
    fs::rename(folder.path().join("model.safetensors"), folder.path().join("pytorch_model.bin")).unwrap();
    assert!(refusal(folder.path()).contains("convert it to model.safetensors"));
    assert!(refusal(&golden("gpt2/model.safetensors")).contains("give the folder"));
}

#[test]
fn configs_that_cannot_be() {
    assert!(spoiled("gpt2", "config.json", Vec::clear).contains("no valid JSON"));
    assert!(
        replaced("gpt2", "config.json", "\"model_type\": \"gpt2\"", "\"model_type\": \"mamba\"")
            .contains("`mamba`")
    );
    assert!(replaced("gpt2", "config.json", "\"n_layer\": 2", "\"n_layer\": -2").contains("`n_layer` is -2"));
    assert!(
        replaced("gpt2", "config.json", "\"n_layer\": 2", "\"n_layer\": 3")
            .contains("h.2.ln_1.weight` is missing")
    );
    assert!(replaced("gpt2", "config.json", "gelu_new", "relu").contains("activation `relu`"));
    let message = replaced("llama3", "config.json", "\"rope_type\": \"llama3\"", "\"rope_type\": \"yarn\"");
    assert!(
        message.contains("`rope_parameters.high_freq_factor` is not supported in rope scaling `yarn`"),
        "{message}"
    );
    let message = replaced("llama3", "config.json", "\"rope_type\": \"llama3\"", "\"rope_type\": \"mrope\"");
    assert!(message.contains("rope scaling `mrope` is not supported; linear, dynamic, yarn"), "{message}");
    let message = replaced("llama", "config.json", "\"hidden_size\": 64", "\"hidden_size\": 4000000000");
    assert!(message.contains("impossible"), "{message}");
}

#[test]
fn safetensors_that_lie() {
    let header = |edit: fn(&mut Vec<u8>)| spoiled("gpt2", "model.safetensors", edit);
    assert!(header(|bytes| bytes.truncate(100)).contains("no sound safetensors file"));
    assert!(header(|bytes| put(bytes, 0, &u64::MAX.to_le_bytes())).contains("no sound safetensors file"));
    assert!(header(|bytes| put(bytes, 0, &8u64.to_le_bytes())).contains("no sound safetensors file"));
    assert!(header(|bytes| bytes.truncate(bytes.len() - 2)).contains("no sound safetensors file"));
    let message = header(|bytes| {
        let at = after(bytes, "\"dtype\":\"F") - 1;
        put(bytes, at, b"I");
    });
    assert!(message.contains("I16, which is not supported"), "{message}");
    let message = header(|bytes| {
        let last = bytes.len() - 2;
        put(bytes, last, &[0xff, 0x7f]);
    });
    assert!(message.contains("NaN or infinite"), "{message}");
    let index = "model.safetensors.index.json";
    let message = replaced("mistral", index, "model-00002-of-00002", "../model-00002-of-00002");
    assert!(message.contains("is no file name"), "{message}");
}

/// A key of the wrong type is named, and not taken as absent.
#[test]
fn config_values_of_another_type() {
    for (from, to, said) in [
        (
            "\"rope_theta\": 10000.0",
            "\"rope_theta\": \"1000000.0\"",
            "`rope_parameters.rope_theta` is \"1000000.0\", not a number",
        ),
        (
            "\"rms_norm_eps\": 1e-05",
            "\"rms_norm_eps\": \"1e-02\"",
            "`rms_norm_eps` is \"1e-02\", not a number",
        ),
        ("\"hidden_act\": \"silu\"", "\"hidden_act\": 3", "`hidden_act` is 3, not text"),
        ("\"mlp_bias\": false", "\"mlp_bias\": \"false\"", "`mlp_bias` is \"false\", not true or false"),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 2.5",
            "`num_hidden_layers` is 2.5, not a whole number",
        ),
        (
            "\"mlp_bias\": false",
            "\"quantization_config\": {\"quant_method\": \"gptq\"}",
            "weights quantized by gptq are not read",
        ),
    ] {
        let message = replaced("llama", "config.json", from, to);
        assert!(message.contains(said), "{message}");
    }
}

/// Nothing in a file is passed over without a word.
#[test]
fn tensors_without_a_place() {
    // Fewer layers than the file has.
    let message = replaced("llama", "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    assert!(
        message.contains("9 of the file's tensors have no place in this model, as `model.layers.1."),
        "{message}"
    );
    let message = edited(|bytes| {
        let value = after(bytes, "llama.block_count") + 4;
        put(bytes, value, &1u32.to_le_bytes());
    });
    assert!(message.contains("9 of the file's tensors have no place in this model, as `blk.1."), "{message}");
    // Norms on q and k under an architecture without them.
    let message = replaced("qwen3", "config.json", "\"model_type\": \"qwen3\"", "\"model_type\": \"llama\"");
    assert!(message.contains("4 of the file's tensors have no place in this model"), "{message}");
    // An output projection that the config promises.
    let message =
        replaced("qwen2", "config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    assert!(message.contains("tensor `lm_head.weight` is missing"), "{message}");
    // The biases of Qwen2.
    let message = spoiled("qwen2", "model.safetensors", |bytes| {
        let text = b"model.layers.0.self_attn.k_proj.bias";
        let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
        put(bytes, at, b"model.layers.0.self_attn.k_prox");
    });
    assert!(message.contains("tensor `model.layers.0.self_attn.k_proj.bias` is missing"), "{message}");
}

/// What a config says and this engine does not know is told.
#[test]
fn unknown_keys_are_remarks() {
    let folder = copied("llama");
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap().replacen('{', "{\"attention_sinks\": 4,", 1);
    fs::write(&path, text).unwrap();
    let file = ModelFile::open(folder.path()).unwrap();
    assert_eq!(file.config().notes, ["the file has keys that were not used: `attention_sinks`"]);
}

/// `rope_scaling` goes before `rope_parameters`, as in transformers.
#[test]
fn the_older_scaling_is_not_lost() {
    let folder = copied("llama");
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let scaled = text.replacen('{', "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0},", 1);
    fs::write(&path, scaled).unwrap();
    let rotation = |path: &Path| {
        let file = ModelFile::open(path).unwrap();
        file.config().layers[0].rotation.clone().unwrap().inverse_frequencies
    };
    let (plain, scaled) = (rotation(&golden("llama")), rotation(folder.path()));
    assert_eq!(plain[0], 4.0 * scaled[0]);
}
