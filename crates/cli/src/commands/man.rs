use crate::output;
use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;
use std::{
    fs,
    path::{Path, PathBuf},
};

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
        write_pages(&command, &folder)
    }
}

/// The page of `command`, and those of the commands below it.
fn write_pages(command: &clap::Command, folder: &Path) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = folder.join(format!("{name}.1"));
    fs::write(&path, page(command.clone())?).with_context(|| format!("cannot write {}", path.display()))?;
    let children = command.get_subcommands().filter(|child| !child.is_hide_set());
    children.into_iter().try_for_each(|child| write_pages(child, folder))
}

fn page(command: clap::Command) -> Result<String> {
    let mut text = Vec::new();
    Man::new(command).render(&mut text).context("cannot render the manual page")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
