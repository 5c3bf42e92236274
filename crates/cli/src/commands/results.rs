use crate::output;
use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use sketchkv_eval::results::{Format, Results};
use std::{
    io::{self, Write},
    path::PathBuf,
};

/// Look into results files, merge and export them.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Say what a file holds.
    Show {
        /// The results file.
        #[arg(default_value = "results.sqlite")]
        file: PathBuf,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Take the finished cells of other files over into one.
    Merge {
        /// The file to merge into; made if it is not there.
        into: PathBuf,
        /// The files to merge.
        #[arg(required = true)]
        from: Vec<PathBuf>,
    },
    /// Write the finished cells in another format.
    Export {
        /// The results file.
        #[arg(default_value = "results.sqlite")]
        file: PathBuf,
        /// The format.
        #[arg(long, value_enum, default_value_t = Kind::Json)]
        format: Kind,
        /// Where to [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Everything measured.
    Json,
    /// One row a cell, numbers and texts as columns.
    Csv,
    /// The same as a parquet file.
    Parquet,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        match self.action {
            Action::Show { file, json } => show(&Results::open_existing(&file)?, json),
            Action::Merge { into, from } => {
                let mut results = Results::open(&into, "")?;
                for file in from {
                    let merged = results.merge(&file)?;
                    output::line(format!(
                        "{}: {} cells taken over, {} known before",
                        file.display(),
                        merged.added,
                        merged.known
                    ))?;
                }
                Ok(())
            }
            Action::Export { file, format, out } => {
                let results = Results::open_existing(&file)?;
                let format = match format {
                    Kind::Json => Format::Json,
                    Kind::Csv => Format::Csv,
                    Kind::Parquet => Format::Parquet,
                };
                let mut bytes = Vec::new();
                results.export(format, &mut bytes)?;
                match out {
                    Some(path) => output::file(&path, &bytes),
                    None => Ok(io::stdout().lock().write_all(&bytes)?),
                }
            }
        }
    }
}

fn show(results: &Results, json: bool) -> Result<()> {
    let [running, done, failed] = results.counts()?;
    let mut groups = std::collections::BTreeMap::<_, (usize, f64)>::new();
    for cell in results.finished()? {
        let group = groups.entry((cell.cell.model, cell.cell.experiment)).or_default();
        group.0 += 1;
        group.1 += cell.duration_s;
    }
    if json {
        let list: Vec<_> = groups
            .iter()
            .map(|((model, experiment), (cells, seconds))| {
                serde_json::json!({"model": model, "experiment": experiment, "cells": cells, "seconds": seconds})
            })
            .collect();
        return output::json(&serde_json::json!({
            "running": running, "done": done, "failed": failed, "experiments": list,
        }));
    }
    let rows = groups.iter().map(|((model, experiment), (cells, seconds))| {
        vec![model.clone(), experiment.clone(), cells.to_string(), format!("{:.1} min", seconds / 60.0)]
    });
    output::line(output::table(&["model", "experiment", "cells", "time"], &[2, 3], rows).to_string())?;
    output::line(format!("{done} done, {failed} failed, {running} running or interrupted"))
}
