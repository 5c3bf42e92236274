use super::{
    data::{Measured, ModelResults, largest, specs_of},
    figure::{cells, figure},
    name::named,
    table::{Field, Table},
};
use crate::{experiments::TaskMeasured, format};
use std::collections::BTreeSet;

type Task<'r> = Measured<'r, TaskMeasured>;

/// A column: a task, its length, and when its question comes.
type Kind = (String, usize, &'static str);

/// Task scores by cache, the question known before the text and not.
pub(super) fn tasks(model: &ModelResults<'_>) -> String {
    if model.tasks.is_empty() {
        return String::new();
    }
    let kinds: BTreeSet<Kind> = model.tasks.iter().map(kind).collect();
    let heads: Vec<String> = kinds.iter().map(|kind| head(model, kind)).collect();
    let rows = specs_of(model.tasks.iter().map(|task| task.cell))
        .iter()
        .map(|spec| {
            let of_spec: Vec<&Task<'_>> =
                model.tasks.iter().filter(|task| task.cell.cell.spec == *spec).collect();
            row(spec, &of_spec, &kinds)
        })
        .collect();
    let table = Table {
        caption: "Task scores",
        header: std::iter::once("spec").chain(heads.iter().map(String::as_str)).collect(),
        sorted_by: None,
        rows,
    };
    let words = "Score in percent. A question that comes after the text only is what a conversation about a document is \
                 like; one that comes before it too lets a cache keep what will be asked for. A dagger marks a cache that took \
                 over 2 % more than it was asked to.";
    figure(model, "tasks", "Tasks", words, &table.html(), &cells(&model.tasks))
}

fn kind(task: &Task<'_>) -> Kind {
    let asked =
        if task.cell.setting("awareness") == "aware" { "asked before and after" } else { "asked after" };
    (task.cell.setting("task"), task.cell.cell.context, asked)
}

fn head(model: &ModelResults<'_>, of: &Kind) -> String {
    let full: Vec<&Task<'_>> =
        model.tasks.iter().filter(|task| task.cell.cell.spec == "full" && kind(task) == *of).collect();
    let failed = !full.is_empty() && mean(&full) < 0.5;
    let (name, length, asked) = of;
    format!(
        "{}, {} tokens, {asked}{}",
        name.replace('_', " "),
        format::count(*length as u64),
        if failed { " (model fails)" } else { "" }
    )
}

fn row(spec: &str, of_spec: &[&Task<'_>], kinds: &BTreeSet<Kind>) -> Vec<Field> {
    let name = largest(of_spec).map_or_else(String::new, |largest| named(spec, &largest.of.footprint));
    let score = |of: &Kind| {
        let tasks: Vec<&Task<'_>> = of_spec.iter().copied().filter(|task| kind(task) == *of).collect();
        if tasks.is_empty() {
            return Field::none();
        }
        let missed = if tasks.iter().any(|task| task.of.footprint.missed()) { " †" } else { "" };
        let score = mean(&tasks);
        Field::number(score, format!("{:.0}{missed}", 100.0 * score)).with_bar(score)
    };
    std::iter::once(Field::html(name)).chain(kinds.iter().map(score)).collect()
}

fn mean(tasks: &[&Task<'_>]) -> f64 {
    tasks.iter().map(|task| task.of.score).sum::<f64>() / tasks.len() as f64
}
