//! Truncated, corrupt and hostile files: each a one-line error that names the file and what is wrong, never a panic,
//! never an allocation that the file does not pay for.

mod common;

use common::*;
use sketchkv_model::{GgufHeader, LoadOptions, Model, ModelFile, safetensors_entries};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Bytes that a file of some hundred kilobytes may cost before it is refused: one block of 32 MiB that weights are put into,
/// and what is small beside it.
const MOST_BYTES: u64 = 40 << 20;

/// Loads `path`, which must fail, and returns the message.
fn refusal(path: &Path) -> String {
    let options = LoadOptions { threads: 1, ..LoadOptions::default() };
    let mut loaded = None;
    let calls = allocation_counter::measure(|| loaded = Some(Model::load(path, &options)));
    assert!(calls.bytes_max < MOST_BYTES, "{} took {} bytes", path.display(), calls.bytes_max);
    let message = loaded.unwrap().err().expect("the file is bad").to_string();
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
    assert!(message.contains("metadata key `general.architecture`: architecture `bloom` is not supported; these are: gpt2, llama"), "{message}");
    let message = edited(|bytes| {
        let value = after(bytes, "llama.attention.head_count_kv") + 4;
        put(bytes, value, &3u32.to_le_bytes());
    });
    assert!(message.contains("4 heads (`num_attention_heads`, "), "{message}");
    assert!(message.contains("do not divide into 3 KV heads (`num_key_value_heads`, "), "{message}");
    let message = edited(|bytes| {
        let value = after(bytes, "llama.block_count") + 4;
        put(bytes, value, &0u32.to_le_bytes());
    });
    assert!(message.contains("0 is impossible for the layers (`num_hidden_layers`, "), "{message}");
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
fn changed(name: &str, file: &str, edit: impl FnOnce(&mut Vec<u8>)) -> TempDir {
    let folder = copied(name);
    let path = folder.path().join(file);
    let mut bytes = fs::read(&path).unwrap();
    edit(&mut bytes);
    fs::write(&path, bytes).unwrap();
    folder
}

/// Why that is refused.
fn refused(name: &str, file: &str, edit: impl FnOnce(&mut Vec<u8>)) -> String {
    refusal(changed(name, file, edit).path())
}

fn replaced(name: &str, file: &str, from: &str, to: &str) -> String {
    refused(name, file, |bytes| {
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
    assert!(refused("gpt2", "config.json", Vec::clear).contains("no valid JSON"));
    assert!(
        replaced("gpt2", "config.json", "\"model_type\": \"gpt2\"", "\"model_type\": \"mamba\"")
            .contains("`model_type`: architecture `mamba`")
    );
    assert!(replaced("gpt2", "config.json", "\"n_layer\": 2", "\"n_layer\": -2").contains("`n_layer` is -2"));
    assert!(
        replaced("gpt2", "config.json", "\"n_layer\": 2", "\"n_layer\": 3")
            .contains("tensors of 2 layers, and its config says 3")
    );
    assert!(
        replaced("gpt2", "config.json", "gelu_new", "relu")
            .contains("`activation_function`: activation `relu`")
    );
    let message = replaced("llama3", "config.json", "\"rope_type\": \"llama3\"", "\"rope_type\": \"yarn\"");
    assert!(
        message.contains("`rope_parameters.high_freq_factor` is not supported in rope scaling `yarn`"),
        "{message}"
    );
    let message = replaced("llama3", "config.json", "\"rope_type\": \"llama3\"", "\"rope_type\": \"mrope\"");
    assert!(
        message.contains(
            "`rope_parameters.rope_type`: rope scaling `mrope` is not supported; these are: default, linear"
        ),
        "{message}"
    );
    // Of two kinds, versions of transformers take one or the other.
    let message = replaced(
        "llama3",
        "config.json",
        "\"rope_type\": \"llama3\"",
        "\"rope_type\": \"llama3\", \"type\": \"yarn\"",
    );
    assert!(
        message.contains("`rope_parameters.rope_type` is `llama3` and `rope_parameters.type` is `yarn`"),
        "{message}"
    );
    let message = replaced("llama", "config.json", "\"hidden_size\": 64", "\"hidden_size\": 4000000000");
    assert!(message.contains("impossible"), "{message}");
}

#[test]
fn safetensors_that_lie() {
    let header = |edit: fn(&mut Vec<u8>)| refused("gpt2", "model.safetensors", edit);
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
    assert!(message.contains("tensors of 2 layers, and its config says 1"), "{message}");
    let message = edited(|bytes| {
        let value = after(bytes, "llama.block_count") + 4;
        put(bytes, value, &1u32.to_le_bytes());
    });
    assert!(message.contains("tensors of 2 layers, and its config says 1"), "{message}");
    // More than it has, by however much: nothing is sized by that number.
    let message = edited(|bytes| {
        let value = after(bytes, "llama.block_count") + 4;
        put(bytes, value, &4096u32.to_le_bytes());
    });
    assert!(message.contains("tensors of 2 layers, and its config says 4096"), "{message}");
    // Norms on q and k under an architecture without them.
    let message = replaced("qwen3", "config.json", "\"model_type\": \"qwen3\"", "\"model_type\": \"llama\"");
    assert!(message.contains("4 of the file's tensors have no place in this model"), "{message}");
    // An output projection that the config promises.
    let message =
        replaced("qwen2", "config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    assert!(message.contains("tensor `lm_head.weight` is missing"), "{message}");
    // The biases of Qwen2.
    let message = refused("qwen2", "model.safetensors", |bytes| {
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

/// The types of metadata.
const U32: u32 = 4;
const F32: u32 = 6;

/// The golden `name` with `more` keys before the others, each with its type and its four bytes.
fn with_keys(name: &str, more: &[(&str, u32, u32)]) -> Vec<u8> {
    let mut bytes = fs::read(golden(name)).unwrap();
    let entry = |(key, kind, value): (&str, u32, u32)| {
        let length = (key.len() as u64).to_le_bytes();
        [&length[..], key.as_bytes(), &kind.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    let mut entries: Vec<u8> = more.iter().flat_map(|&more| entry(more)).collect();
    // The data begins at a multiple of 32 behind the header: what is put in keeps that.
    let filler = entry(("", U32, 0)).len();
    entries.extend(entry((
        &"x".repeat((entries.len() + filler).next_multiple_of(32) - entries.len() - filler),
        U32,
        0,
    )));
    let count = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) + more.len() as u64 + 1;
    put(&mut bytes, 16, &count.to_le_bytes());
    bytes.splice(24..24, entries);
    bytes
}

fn opened(bytes: &[u8]) -> Result<ModelFile, String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    ModelFile::open(&path).map_err(|error| error.to_string())
}

/// Every key that changes the numbers is followed, refused or remarked on.
#[test]
fn metadata_that_is_not_followed() {
    // Sliding windows of OLMo 3, which carries the name of OLMo 2.
    let said = |name: &str, more: &[(&str, u32, u32)]| match opened(&with_keys(name, more)) {
        Ok(file) => {
            let tokenizer = file.tokenizer().unwrap();
            file.config().notes.iter().chain(tokenizer.notes()).cloned().collect::<Vec<_>>().join("\n")
        }
        Err(error) => error,
    };
    let message = said("olmo2.gguf", &[("olmo2.attention.sliding_window", U32, 24)]);
    assert!(message.contains("`olmo2.attention.sliding_window` is 24: sliding windows are not"), "{message}");
    let message = said("granite.gguf", &[("granite.attention.sliding_window", U32, 24)]);
    assert_eq!(message, "the file has keys that were not used: `granite.attention.sliding_window`");
    let message = said("llama.gguf", &[("tokenizer.ggml.ad_space_prefix", U32, 0)]);
    assert_eq!(message, "the file has keys that were not used: `tokenizer.ggml.ad_space_prefix`");
    let message = said("llama.gguf", &[("llama.rope.scaling.attn_factor", U32, 2)]);
    assert!(message.contains("not used: `llama.rope.scaling.attn_factor`"), "{message}");
    assert!(said("llama.gguf", &[("llama.attention.head_count", U32, 4)]).contains("appears twice"));
    assert!(said("llama.gguf", &[("general.alignment", U32, 33)]).contains("not a power of two"));
}

/// What older files say otherwise, or not at all, is taken as they meant it.
#[test]
fn older_files_are_read_as_they_were_meant() {
    let frequencies =
        |file: &ModelFile| file.config().layers[0].rotation.clone().unwrap().inverse_frequencies;
    let scaled =
        opened(&with_keys("llama.gguf", &[("llama.rope.scale_linear", F32, 4f32.to_bits())])).unwrap();
    assert!(scaled.config().notes.is_empty(), "{:?}", scaled.config().notes);
    let plain = ModelFile::open(&golden("llama.gguf")).unwrap();
    assert_eq!(frequencies(&plain)[0], 4.0 * frequencies(&scaled)[0]);

    let mut second = fs::read(golden("llama.gguf")).unwrap();
    put(&mut second, 4, &2u32.to_le_bytes());
    assert_eq!(opened(&second).unwrap().config().layers, plain.config().layers);

    // Without the key, text is split as the family does; the remark says so.
    let mut nameless = fs::read(golden("qwen2.gguf")).unwrap();
    let at = after(&nameless, "tokenizer.ggml.pre");
    put(&mut nameless, at - 3, b"was");
    let (found, known) = (opened(&nameless).unwrap().tokenizer().unwrap(), tokenizer(&golden("qwen2.gguf")));
    assert!(found.notes()[0].contains("text is split as qwen2 models do"), "{:?}", found.notes());
    let text = "It's 2,026 o'clock:\n\n  the SEA's calm...";
    assert_eq!(found.encode(text).unwrap(), known.encode(text).unwrap());
}

/// An embedding and an output projection that are one count once, by whatever names.
#[test]
fn what_a_file_holds_twice_is_known() {
    let gpt2 = spoiled::spoiled(&[]);
    assert_eq!(ModelFile::open(gpt2.path()).unwrap().repeated().unwrap().name, "lm_head.weight");
    let other = spoiled::spoiled(&[("lm_head.weight", 0..64, 3.0)]);
    assert!(ModelFile::open(other.path()).unwrap().repeated().is_none());
}

/// What a file holds twice, or under another family's name.
#[test]
fn tensors_that_do_not_belong() {
    let renamed = |name: &str, from: &str, to: &str| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.gguf");
        let mut bytes = fs::read(golden(name)).unwrap();
        let at = after(&bytes, from) - from.len();
        assert_eq!(from.len(), to.len());
        put(&mut bytes, at, to.as_bytes());
        fs::write(&path, bytes).unwrap();
        refusal(&path)
    };
    let message = renamed("llama.gguf", "blk.1.ffn_up.weight", "blk.0.ffn_up.weight");
    assert!(message.contains("tensor `blk.0.ffn_up.weight` appears twice"), "{message}");
    // Factors for long texts alone scale nothing.
    let message = renamed("phi3.gguf", "rope_factors_short.weight", "rope_factors_shirt.weight");
    assert!(message.contains("have no place in this model, as `rope_factors_"), "{message}");
    // Biases of Qwen2 in GGUF.
    let message = renamed("qwen2.gguf", "blk.0.attn_k.bias", "blk.0.attn_k.bios");
    assert!(message.contains("tensor `blk.0.attn_k.bias` is missing"), "{message}");
    let folder = copied("mistral");
    fs::copy(
        folder.path().join("model-00001-of-00002.safetensors"),
        folder.path().join("model-00002-of-00002.safetensors"),
    )
    .unwrap();
    assert!(refusal(folder.path()).contains("is also in another shard"));
}

/// An output projection beside an embedding that is said to stand for it.
#[test]
fn an_output_of_its_own_is_used() {
    let tied = |edit: fn(&mut Vec<u8>)| {
        let folder = changed("llama", "model.safetensors", edit);
        let config = folder.path().join("config.json");
        let text = fs::read_to_string(&config).unwrap();
        let untied = "\"tie_word_embeddings\": false";
        assert!(text.contains(untied));
        fs::write(&config, text.replace(untied, "\"tie_word_embeddings\": true")).unwrap();
        ModelFile::open(folder.path()).unwrap()
    };
    let file = tied(|_| {});
    assert!(!file.config().tied_embeddings);
    assert!(file.config().notes[0].contains("`lm_head.weight` is another"), "{:?}", file.config().notes);
    assert!(file.repeated().is_none());
    let file = tied(|bytes| {
        let range = |name: &str| {
            let entries = safetensors_entries(bytes).unwrap();
            let entry = entries.iter().find(|entry| entry.name == name).unwrap();
            entry.start..entry.end
        };
        let (embedding, output) = (range("model.embed_tokens.weight"), range("lm_head.weight"));
        let values = bytes[embedding].to_vec();
        put(bytes, output.start, &values);
    });
    assert!(file.config().tied_embeddings && file.config().notes.is_empty());
    assert_eq!(file.repeated().unwrap().name, "lm_head.weight");
}

/// An embedding of no rows, or of no matrix, is refused and not divided by.
#[test]
fn an_embedding_that_is_none() {
    for shape in ["[0,64]", "[]"] {
        let folder = changed("llama", "model.safetensors", |bytes| {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
            for name in ["model.embed_tokens.weight", "lm_head.weight"] {
                let shape: serde_json::Value = serde_json::from_str(shape).unwrap();
                let elements = shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>();
                header[name]["shape"] = shape;
                let start = header[name]["data_offsets"][0].as_u64().unwrap();
                header[name]["data_offsets"][1] = (start + 2 * elements).into();
            }
            let header = serde_json::to_vec(&header).unwrap();
            *bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]].concat();
        });
        if let Ok(file) = ModelFile::open(folder.path()) {
            let _ = file.repeated();
        }
        let message = refusal(folder.path());
        assert!(message.contains("safetensors") || message.contains("shape"), "{message}");
    }
}
