use crate::{failure::usage, format, output};
use anyhow::Result;
use serde_json::{Value, json};
use sketchkv_engine::{
    EMBEDDED, EMBEDDED_ABOUT, Source,
    catalog::{ENTRIES, Entry, Manifest, ModelsFolder},
};

/// List the models: built in, pulled, and known by name; or remove pulled ones.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Remove pulled models.
    Rm {
        /// Names, as `sketchkv models` lists them.
        #[arg(required = true, value_name = "MODEL")]
        names: Vec<String>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

struct Row {
    name: String,
    about: String,
    entry: Option<&'static Entry>,
    state: State,
    shape: Option<Shape>,
}

/// What a model's file says of its context.
struct Shape {
    context: usize,
    /// Bytes by which a token makes a full f16 cache grow.
    kv_bytes: usize,
}

impl Shape {
    /// `None` where the model is not here or not one that runs.
    fn read(name: &str) -> Option<Shape> {
        let file = Source::find(name).ok()?.open().ok()?;
        // A layer with a window grows no more once that is full.
        let growing = file.config().layers.iter().filter(|layer| layer.window.is_none());
        let kv_bytes = growing.map(|layer| layer.f16_bytes_per_token()).sum();
        Some(Shape { context: file.config().context, kv_bytes })
    }
}

enum State {
    Embedded,
    Pulled(Manifest),
    Known,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let folder = ModelsFolder::from_environment()?;
        if let Some(Command::Rm { names, json }) = self.command {
            return remove(&folder, &names, json);
        }
        let rows = rows(folder.manifests()?);
        if self.json {
            let models: Vec<Value> = rows.iter().map(|row| row.json(&folder)).collect();
            return output::json(&json!({ "folder": folder.path(), "models": models }));
        }
        let cells = rows.iter().map(Row::cells);
        let heads = ["model", "state", "size", "licence", "context", "KV a token", "about"];
        output::line(output::table(&heads, &[2, 4, 5], cells))?;
        eprintln!("models are kept in {}", folder.path().display());
        Ok(())
    }
}

/// The embedded model, then the catalog, then what else was pulled.
fn rows(mut pulled: Vec<Manifest>) -> Vec<Row> {
    let row = |name: &str, about: &str, entry, state| {
        let shape = if matches!(state, State::Known) { None } else { Shape::read(name) };
        Row { name: name.into(), about: about.into(), entry, state, shape }
    };
    let mut rows = vec![row(EMBEDDED, EMBEDDED_ABOUT, None, State::Embedded)];
    for entry in ENTRIES {
        let state = match pulled.iter().position(|manifest| manifest.name == entry.name) {
            Some(index) => State::Pulled(pulled.remove(index)),
            None => State::Known,
        };
        rows.push(row(entry.name, entry.title, Some(entry), state));
    }
    for manifest in pulled {
        rows.push(row(&manifest.name.clone(), &manifest.source.clone(), None, State::Pulled(manifest)));
    }
    rows
}

/// Removes pulled models; none of them when one is not there.
fn remove(folder: &ModelsFolder, names: &[String], json: bool) -> Result<()> {
    for name in names {
        if folder.manifest(name)?.is_none() {
            return Err(usage(format!(
                "no model `{name}` was pulled: `sketchkv models` lists those that were"
            )));
        }
    }
    for name in names {
        folder.remove(name)?;
        eprintln!("removed {name}");
    }
    if json { output::json(&json!({ "removed": names })) } else { Ok(()) }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let state = match &self.state {
            State::Embedded => "built in",
            State::Pulled(_) => "pulled",
            State::Known => "to pull",
        };
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        vec![
            self.name.clone(),
            state.into(),
            or_none(self.bytes().map(format::bytes)),
            or_none(self.entry.map(|entry| entry.licence.name.into())),
            or_none(self.context().map(|context| format::count(context as u64))),
            or_none(self.kv_bytes().map(|bytes| format::bytes(bytes as u64))),
            self.about.clone(),
        ]
    }

    /// Bytes of its files, as far as they are known before a download.
    fn bytes(&self) -> Option<u64> {
        match &self.state {
            State::Pulled(manifest) => Some(manifest.bytes()),
            _ => self.entry.and_then(Entry::bytes),
        }
    }

    fn kv_bytes(&self) -> Option<usize> {
        self.shape.as_ref().map(|shape| shape.kv_bytes).or(self.entry.map(|entry| entry.kv_bytes_per_token))
    }

    fn context(&self) -> Option<usize> {
        self.shape.as_ref().map(|shape| shape.context).or(self.entry.map(|entry| entry.context))
    }

    fn json(&self, folder: &ModelsFolder) -> Value {
        let state = match self.state {
            State::Embedded => "embedded",
            State::Pulled(_) => "pulled",
            State::Known => "known",
        };
        let mut row = json!({
            "name": self.name,
            "about": self.about,
            "state": state,
            "bytes": self.bytes(),
            "licence": self.entry.map(|entry| entry.licence.name),
            "context": self.context(),
            "f16_kv_bytes_per_token": self.kv_bytes(),
        });
        if let State::Pulled(manifest) = &self.state {
            row["path"] = json!(manifest.load_path(&folder.folder(&manifest.name)));
            row["source"] = json!(manifest.source);
            row["files"] = json!(manifest.files);
        }
        row
    }
}
