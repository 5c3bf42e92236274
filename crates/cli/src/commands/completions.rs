use crate::output;
use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// Print the completions for a shell.
#[derive(clap::Args)]
#[command(after_help = "\
bash: sketchkv completions bash > ~/.local/share/bash-completion/completions/sketchkv
zsh:  sketchkv completions zsh > a folder of $fpath, as _sketchkv
fish: sketchkv completions fish > ~/.config/fish/completions/sketchkv.fish")]
pub(crate) struct Arguments {
    /// The shell.
    shell: Shell,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let mut script = Vec::new();
        generate(self.shell, &mut crate::Arguments::command(), "sketchkv", &mut script);
        output::piece(&String::from_utf8_lossy(&script))
    }
}
