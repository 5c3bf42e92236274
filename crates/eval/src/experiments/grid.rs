use super::{
    Experiment, Settings,
    job::{Common, Job, Work},
};
use crate::EvalError;
use serde::Deserialize;
use sketchkv_cache::Spec;
use std::{collections::BTreeMap, path::Path};

/// Spec templates with lists of values for their placeholders.
///
/// ```
/// let grid = sketchkv_eval::experiments::Grid::parse(
///     "[[grid]]\nspec = 'cms(width={width})@{k}tok'\nvalues = { width = [128, 256], k = [32] }",
/// )?;
/// assert_eq!(grid.specs(), ["cms(width=128)@32tok", "cms(width=256)@32tok"]);
/// # Ok::<(), sketchkv_eval::EvalError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    grid: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    spec: String,
    #[serde(default)]
    values: BTreeMap<String, Vec<toml::Value>>,
}

impl Grid {
    /// The original's grid: sketches of width 128-1024 and depth 2-6, both strategies, 32-128 exact slots.
    pub fn original() -> Self {
        toml::from_str(include_str!("original.toml")).unwrap_or(Grid { grid: Vec::new() })
    }

    /// Reads a grid in TOML.
    ///
    /// # Errors
    /// When the text is no TOML, a field is unknown, or a placeholder has no values.
    pub fn parse(text: &str) -> Result<Self, EvalError> {
        let grid: Grid =
            toml::from_str(text).map_err(|error| EvalError::Input(format!("the grid: {error}")))?;
        for block in &grid.grid {
            let names =
                block.spec.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
            for name in names {
                if block.values.get(name).is_none_or(Vec::is_empty) {
                    let spec = &block.spec;
                    return Err(EvalError::Input(format!(
                        "the grid: `{spec}` has no values for `{{{name}}}`"
                    )));
                }
            }
        }
        Ok(grid)
    }

    /// Reads a grid from a file.
    ///
    /// # Errors
    /// As [`Grid::parse`], and when the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let text = crate::read_input_text(path)
            .map_err(|source| EvalError::File { path: path.to_owned(), source })?;
        Grid::parse(&text)
    }

    /// Every combination as the text of a spec.
    pub fn specs(&self) -> Vec<String> {
        let mut specs = Vec::new();
        for block in &self.grid {
            let mut filled = vec![block.spec.clone()];
            for (name, values) in
                block.values.iter().filter(|(name, _)| block.spec.contains(&format!("{{{name}}}")))
            {
                let text =
                    |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                filled = filled
                    .iter()
                    .flat_map(|spec| values.iter().map(|v| spec.replace(&format!("{{{name}}}"), &text(v))))
                    .collect();
            }
            specs.extend(filled);
        }
        specs
    }
}

/// Two documents a cell at most: a grid is for seeing the shape of a surface.
pub(super) fn jobs(
    common: &Common<'_>,
    settings: &Settings,
    file: Option<&Grid>,
) -> Result<Vec<Job>, EvalError> {
    let mut specs = match file {
        // What a user wrote must parse; what this build does not know is left out of the original's.
        Some(grid) => grid.specs().iter().map(|text| Ok(text.parse()?)).collect::<Result<_, EvalError>>()?,
        None => Grid::original().specs().iter().filter_map(|text| text.parse().ok()).collect::<Vec<Spec>>(),
    };
    if file.is_none() && settings.samples <= 2 {
        // The quick look: corners and centre.
        let step = specs.len().div_ceil(12).max(1);
        specs = specs.into_iter().step_by(step).collect();
    }
    let &Settings { context, samples, schedule, .. } = settings;
    let mut jobs = Vec::new();
    for &seed in &settings.seeds {
        for spec in &specs {
            let work = Work::Score { context, samples: samples.min(2), schedule };
            jobs.push(common.job(Experiment::Grid, spec, seed, work));
        }
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_grid_is_there() {
        let specs = Grid::original().specs();
        assert!(specs.len() >= 48, "{}", specs.len());
        assert!(specs.iter().all(|spec| !spec.contains('{')), "{specs:?}");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("[[grid]]\nspec = 'a{b}'", "no values for `{b}`"),
            ("[[grid]]\nspec = 'a{b}'\nvalues = { b = [] }", "no values for `{b}`"),
            ("[[grid]]\nspec = 'a'\nvalue = 3", "value"),
            ("grid", "the grid"),
        ] {
            let error = Grid::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
