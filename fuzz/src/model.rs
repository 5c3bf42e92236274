use sketchkv_model::{EmbeddedFolder, GgufHeader, LoadOptions, Model, ModelFile};
use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::OnceLock,
};

const SMALLEST: EmbeddedFolder = EmbeddedFolder {
    name: "smallest",
    files: &[
        ("config.json", include_bytes!("../seeds/config/smallest")),
        ("model.safetensors", include_bytes!("../seeds/safetensors/gpt2")),
        ("tokenizer.json", include_bytes!("tokenizer.json")),
    ],
};

/// Reads the header of a GGUF file, and of a sound one everything else.
pub fn gguf(data: &[u8]) {
    if GgufHeader::parse(data).is_ok() {
        let path = scratch("gguf").join("model.gguf");
        write(&path, data);
        open(&path);
    }
}

/// Opens and loads a Hugging Face folder whose `model.safetensors` is `data`.
pub fn safetensors(data: &[u8]) {
    folder("safetensors", "model.safetensors", data);
}

/// Opens and loads a Hugging Face folder whose `config.json` is `data`.
pub fn config(data: &[u8]) {
    folder("config", "config.json", data);
}

/// The smallest model, with one of its files replaced by `data`.
fn folder(name: &str, file: &str, data: &[u8]) {
    let folder = scratch(name);
    if !folder.join("tokenizer.json").exists() {
        SMALLEST.files.iter().for_each(|(file, data)| write(&folder.join(file), data));
    }
    write(&folder.join(file), data);
    open(folder);
}

/// The smallest model, loaded.
pub(crate) fn smallest() -> Model {
    let options = LoadOptions { threads: 1, ..LoadOptions::default() };
    let loaded = ModelFile::embedded(SMALLEST).and_then(|file| file.load(&options));
    loaded.expect("the smallest model is sound")
}

fn open(path: &Path) {
    let Ok(file) = ModelFile::open(path) else { return };
    file.tensors();
    file.content_hash();
    // Errors are fine here too.
    let _ = file.tokenizer().map(|tokenizer| tokenizer.encode("a <s> b"));
    let _ = file.load(&LoadOptions { threads: 1, ..LoadOptions::default() });
}

/// Files are written anew each time: the one before may still be mapped.
fn write(path: &Path, data: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, data).expect("the scratch folder can be written");
}

/// A folder of this target's and process's own: several may search for the same target at once.
fn scratch(target: &str) -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let own = format!("{target}-{}", process::id());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz-scratch").join(own);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the target folder can be written");
        path
    })
}
