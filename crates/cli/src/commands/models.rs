use crate::{format, output};
use anyhow::Result;
use serde_json::{Value, json};
use sketchkv_engine::{
    EMBEDDED, EMBEDDED_ABOUT,
    catalog::{ENTRIES, Manifest, ModelsFolder},
};

/// List the models: built in, pulled, and known by name.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

struct Row {
    name: String,
    about: String,
    state: State,
}

enum State {
    Embedded,
    Pulled(Manifest),
    Known,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let folder = ModelsFolder::from_environment()?;
        let rows = rows(folder.manifests()?);
        if self.json {
            let models: Vec<Value> = rows.iter().map(|row| row.json(&folder)).collect();
            return output::json(&json!({ "folder": folder.path(), "models": models }));
        }
        let cells = rows.iter().map(|row| vec![row.name.clone(), row.state_text(), row.about.clone()]);
        output::line(output::table(&["model", "state", "about"], &[], cells).to_string())?;
        eprintln!("models are kept in {}", folder.path().display());
        Ok(())
    }
}

/// The embedded model, then the catalog, then what else was pulled.
fn rows(pulled: Vec<Manifest>) -> Vec<Row> {
    let mut rows = vec![Row { name: EMBEDDED.into(), about: EMBEDDED_ABOUT.into(), state: State::Embedded }];
    rows.extend(ENTRIES.iter().map(|entry| Row {
        name: entry.name.into(),
        about: format!("{}, context {}", entry.title, format::count(entry.context as u64)),
        state: State::Known,
    }));
    for manifest in pulled {
        match rows.iter_mut().find(|row| row.name == manifest.name) {
            Some(row) => row.state = State::Pulled(manifest),
            None => rows.push(Row {
                name: manifest.name.clone(),
                about: manifest.source.clone(),
                state: State::Pulled(manifest),
            }),
        }
    }
    rows
}

impl Row {
    fn state_text(&self) -> String {
        match &self.state {
            State::Embedded => "built in".into(),
            State::Pulled(manifest) => format!("pulled, {}", format::bytes(manifest.bytes())),
            State::Known => "to pull".into(),
        }
    }

    fn json(&self, folder: &ModelsFolder) -> Value {
        let state = match self.state {
            State::Embedded => "embedded",
            State::Pulled(_) => "pulled",
            State::Known => "known",
        };
        let mut row = json!({ "name": self.name, "about": self.about, "state": state });
        if let State::Pulled(manifest) = &self.state {
            row["path"] = json!(manifest.load_path(&folder.folder(&manifest.name)));
            row["source"] = json!(manifest.source);
            row["bytes"] = json!(manifest.bytes());
            row["files"] = json!(manifest.files);
        }
        row
    }
}
