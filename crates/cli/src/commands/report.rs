use crate::output;
use anyhow::Result;
use sketchkv_eval::{report::report, results::Results};
use std::path::PathBuf;

/// Make one page of a results file: it opens in any browser without a network.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The results file.
    #[arg(value_name = "FILE", default_value = "results.sqlite", conflicts_with = "named")]
    results: PathBuf,
    /// The same: how it was named before.
    #[arg(long = "results", value_name = "FILE", hide = true)]
    named: Option<PathBuf>,
    /// The page.
    #[arg(long, short, alias = "out", value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
    /// Print one JSON document: the page, and the cells that are on it.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let results = self.named.unwrap_or(self.results);
        let cells = Results::open_existing(&results)?.finished()?;
        output::file(&self.output, report(&cells).as_bytes())?;
        let (page, results) = (self.output.display().to_string(), results.display().to_string());
        eprintln!("wrote {page}");
        if self.json {
            output::json(&serde_json::json!({ "page": page, "results": results, "cells": cells.len() }))?;
        }
        Ok(())
    }
}
