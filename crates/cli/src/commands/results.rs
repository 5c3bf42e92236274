use crate::output;
use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use sketchkv_eval::{
    Failure, Footprint,
    results::{Format, Results, State, failures},
};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
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
    /// Take over into one file the cells of others that are done, and those that failed and are not known there.
    Merge {
        /// The file to merge into; made if it is not there.
        into: PathBuf,
        /// The files to merge.
        #[arg(required = true)]
        from: Vec<PathBuf>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
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
        #[arg(long, short, alias = "out", value_name = "FILE")]
        output: Option<PathBuf>,
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
            Action::Merge { into, from, json } => merge(&into, &from, json),
            Action::Export { file, format, output } => {
                let results = Results::open_existing(&file)?;
                let format = match format {
                    Kind::Json => Format::Json,
                    Kind::Csv => Format::Csv,
                    Kind::Parquet => Format::Parquet,
                };
                let mut bytes = Vec::new();
                results.export(format, &mut bytes)?;
                match output {
                    Some(path) => output::file(&path, &bytes),
                    None => Ok(io::stdout().lock().write_all(&bytes)?),
                }
            }
        }
    }
}

/// Merges files, none of which is touched before all of them are known to be results.
fn merge(into: &Path, from: &[PathBuf], json: bool) -> Result<()> {
    from.iter().try_for_each(|file| Results::open_existing(file).map(drop))?;
    let mut results = Results::open(into, "")?;
    let mut files = Vec::with_capacity(from.len());
    for file in from {
        let merged = results.merge(file)?;
        let name = file.display();
        if !json {
            output::line(format!(
                "{name}: {} cells taken over, {} known before",
                merged.added, merged.known
            ))?;
        }
        let (added, known) = (merged.added, merged.known);
        files.push(serde_json::json!({ "file": name.to_string(), "added": added, "known": known }));
    }
    if json {
        output::json(&serde_json::json!({ "into": into.display().to_string(), "files": files }))
    } else {
        Ok(())
    }
}

/// What a file holds of one model and experiment.
#[derive(Default)]
struct Group {
    cells: usize,
    seconds: f64,
    /// Cells of caches that took over 2 % more than their caps.
    missed: usize,
}

fn show(results: &Results, json: bool) -> Result<()> {
    let [running, done, failed] = results.counts()?;
    let cells = results.finished()?;
    let failures = failures(&cells);
    let mut groups = BTreeMap::<_, Group>::new();
    for cell in cells.iter().filter(|cell| cell.state == State::Done) {
        let group = groups.entry((&cell.cell.model, &cell.cell.experiment)).or_default();
        group.cells += 1;
        group.seconds += cell.duration_s;
        group.missed += usize::from(cell.footprints().iter().any(Footprint::missed));
    }
    if json {
        let list: Vec<_> = groups
            .iter()
            .map(|((model, experiment), Group { cells, seconds, missed })| {
                serde_json::json!({
                    "model": model, "experiment": experiment, "cells": cells, "seconds": seconds, "missed": missed,
                })
            })
            .collect();
        return output::json(&serde_json::json!({
            "running": running, "done": done, "failed": failed, "experiments": list, "failures": failures,
        }));
    }
    let rows = groups.iter().map(|((model, experiment), Group { cells, seconds, missed })| {
        let time = format!("{:.1} min", seconds / 60.0);
        vec![model.to_string(), experiment.to_string(), cells.to_string(), missed.to_string(), time]
    });
    let header = ["model", "experiment", "cells", "missed caps", "time"];
    output::line(output::table(&header, &[2, 3, 4], rows))?;
    for Failure { spec, error, .. } in &failures {
        output::line(format!("failed: `{spec}`: {error}"))?;
    }
    output::line(format!("{done} done, {failed} failed, {running} running or interrupted"))
}
