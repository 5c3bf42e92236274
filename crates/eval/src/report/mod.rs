//! The report: one HTML file made of a results file, that opens without a network.

mod budgets;
mod data;
mod figures;
mod heat;
mod page;
mod plot;
mod scale;
mod summary;
mod tables;

use crate::results::Finished;

/// The page of everything measured: a summary in plain words, plots, heat maps and sortable tables, for every model.
///
/// Figures are inline SVG and carry the command that made them; the only script sorts tables. Nothing is loaded.
pub fn report(cells: &[Finished]) -> String {
    let models = data::by_model(cells);
    let mut body = String::new();
    for model in &models {
        body.push_str(&summary::section(model));
        body.push_str(&figures::frontier(model));
        body.push_str(&figures::speed(model));
        body.push_str(&figures::memory(model));
        body.push_str(&heat::attention(model));
        body.push_str(&heat::needles(model));
        body.push_str(&tables::tasks(model));
        body.push_str(&tables::scored(model));
        body.push_str(&tables::generated(model));
        body.push_str(&tables::grid(model));
        body.push_str(&tables::baseline(model));
    }
    body.push_str(&tables::provenance(cells));
    page::page(&models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", "), &body)
}
