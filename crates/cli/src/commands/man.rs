use crate::output;
use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;
use std::{fs, path::PathBuf};

/// Print the manual page, or write one for every command into a folder.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Writes sketchkv.1, sketchkv-run.1, … here.
    folder: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let mut command = crate::Arguments::command();
        command.build();
        let Some(folder) = self.folder else {
            return output::piece(&page(command)?);
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let children = command.get_subcommands().filter(|child| !child.is_hide_set()).cloned();
        let pages: Vec<_> = children.collect();
        for command in pages.into_iter().chain([command]) {
            let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
            let path = folder.join(format!("{name}.1"));
            fs::write(&path, page(command)?).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn page(command: clap::Command) -> Result<String> {
    let mut text = Vec::new();
    Man::new(command).render(&mut text).context("cannot render the manual page")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
