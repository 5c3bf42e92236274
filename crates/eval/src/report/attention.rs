use super::{
    data::{Measured, ModelResults, specs_of},
    figure::{cells, figure, scrolled},
    heat::{Group, Heat, HeatMap},
};
use crate::{experiments::AttentionMeasured, format::divergence};

const HEADING: &str = "Attention, layer by layer";

/// Layer × query head of the divergence of attention, one map a cache.
pub(super) fn attention(model: &ModelResults<'_>) -> String {
    if model.attention.is_empty() {
        return String::new();
    }
    let maps: Vec<String> = specs_of(model.attention.iter().map(|one| one.cell))
        .iter()
        .filter_map(|spec| model.attention.iter().find(|one| one.cell.cell.spec == *spec))
        .map(map)
        .collect();
    let words = "KL divergence of each query head's attention weights from those of an uncompressed f32 cache on the same \
                 text, mean over single-token steps. Weight that a tail or an estimate holds counts as spread evenly over \
                 the positions it stands for; a position that has none counts as 1e-10, about 23 nats times the mass lost.";
    let content = scrolled(HEADING, &format!("<div class=\"maps\">{}</div>", maps.concat()));
    figure(model, "attention", HEADING, words, &content, &cells(&model.attention))
}

fn map(one: &Measured<'_, AttentionMeasured>) -> String {
    let of = &one.of;
    let mark = of.footprint.mark().map(|mark| format!(" ({mark})")).unwrap_or_default();
    let caption = format!(
        "{}{mark}: KL {}, cosine {:.3}, {:.0} % of the top 64 found",
        one.cell.cell.spec,
        divergence(of.mean.kl),
        of.mean.cosine,
        100.0 * of.mean.topk_recall
    );
    // From a divergence of 1 nat, the worst shade, to 0.001.
    let cell = |&kl: &f64| Some(Heat(divergence(kl), -kl.max(1e-9).log10() / 3.0));
    let row = |(layer, heads): (usize, &Vec<f64>)| (layer.to_string(), heads.iter().map(cell).collect());
    HeatMap {
        caption: &caption,
        row_title: "layer",
        column_title: "head",
        columns: (0..of.kl.first().map_or(0, Vec::len)).map(|head| head.to_string()).collect(),
        groups: vec![Group { title: None, rows: of.kl.iter().enumerate().map(row).collect() }],
    }
    .html()
}
