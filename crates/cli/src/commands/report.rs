use crate::output;
use anyhow::Result;
use sketchkv_eval::{report::report, results::Results};
use std::path::PathBuf;

/// Make one page of a results file: it opens in any browser without a network.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The results file.
    #[arg(long, value_name = "FILE", default_value = "results.sqlite")]
    results: PathBuf,
    /// The page.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let page = report(&Results::open_existing(&self.results)?.finished()?);
        output::file(&self.out, page.as_bytes())?;
        eprintln!("wrote {}", self.out.display());
        Ok(())
    }
}
