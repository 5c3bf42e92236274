use super::{
    data::ModelResults,
    figure::{cells, figure},
    name::named,
    table::{Field, Table},
};

/// BLEU of greedy continuations.
pub(super) fn generated(model: &ModelResults<'_>) -> String {
    if model.generated.is_empty() {
        return String::new();
    }
    let bleu = |bleu: f64| Field::number(bleu, format!("{bleu:.1}")).with_bar(bleu / 100.0);
    let rows = model
        .generated
        .iter()
        .map(|g| {
            vec![
                Field::html(named(&g.cell.cell.spec, &g.of.footprint)),
                bleu(g.of.bleu_uncompressed),
                Field::number(g.of.identical as f64, format!("{} of {}", g.of.identical, g.of.samples)),
                bleu(g.of.bleu_reference),
                Field::text(g.of.example.chars().take(80).collect::<String>()),
            ]
        })
        .collect();
    let table = Table {
        caption: "Continuations",
        header: vec!["spec", "BLEU to uncompressed", "identical", "BLEU to the text", "begins"],
        sorted_by: None,
        rows,
    };
    let words = "Greedy continuations of the same prompts. A small change of one token changes all that follow, so a low \
                 BLEU need not mean a worse text; the same letters mean the same cache to a reader.";
    figure(model, "generation", "What it writes", words, &table.html(), &cells(&model.generated))
}
