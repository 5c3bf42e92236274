//! The report: one HTML file made of a results file, that opens without a network.

mod answer;
mod attention;
mod budgets;
mod command;
mod data;
mod depth;
mod escape;
mod family;
mod figure;
mod frontier;
mod generated;
mod heat;
mod labels;
mod name;
mod needles;
mod page;
mod plot;
mod provenance;
mod scale;
mod scored;
mod speed;
mod summary;
mod table;
mod tasks;

use crate::results::Finished;
use data::ModelResults;

/// A part of a model's section; empty where nothing of it was measured.
type Part = fn(&ModelResults<'_>) -> String;

/// In the order of a reader who decides: the answer, what it rests on, then everything measured.
const PARTS: [Part; 12] = [
    answer::answer,
    summary::summary,
    frontier::frontier,
    needles::needles,
    depth::cost,
    depth::memory,
    scored::comparison,
    tasks::tasks,
    generated::generated,
    attention::attention,
    scored::grid,
    scored::baseline,
];

/// The page of everything measured: for every model what to use, plots, heat maps and sortable tables.
///
/// Figures are inline SVG and carry the command that made them; scripts only sort tables and copy commands. Nothing is
/// loaded.
pub fn report(cells: &[Finished]) -> String {
    let models = data::by_model(cells);
    let body: String = models.iter().flat_map(|model| PARTS.iter().map(|part| part(model))).collect();
    page::page(&models, &(body + &provenance::provenance(cells)))
}
