//! How a cache is called on the page.

use super::escape::escape;
use crate::{Footprint, results::Cell};
use sketchkv_cache::Spec;

/// What to type for this cache: by the preset that it was written as, where that still stands for it.
pub(super) fn typed(cell: &Cell) -> String {
    let cap = cell.spec.rsplit_once('@').map_or(String::new(), |(_, cap)| format!("@{cap}"));
    let preset = cell.name.as_ref().map(|name| format!("{name}{cap}"));
    let stands = |typed: &String| typed.parse::<Spec>().is_ok_and(|spec| spec.to_string() == cell.spec);
    preset.filter(stands).unwrap_or_else(|| cell.spec.clone())
}

/// `name` in at most `letters` letters; what is left out is left out before the cap.
pub(super) fn shortened(name: &str, letters: usize) -> String {
    let count = name.chars().count();
    if count <= letters {
        return name.to_owned();
    }
    let cap = name.rsplit_once('@').map_or(String::new(), |(_, cap)| format!("@{cap}"));
    let head = letters.saturating_sub(cap.chars().count() + 1);
    name.chars().take(head).chain(['…']).chain(cap.chars()).collect()
}

/// A spec as a row's name; behind it, where it missed its cap, what it took and what it was asked to take.
pub(super) fn named(spec: &str, footprint: &Footprint) -> String {
    let mark = footprint.mark().map(|mark| format!(" <strong class=\"missed\">{mark}</strong>"));
    format!("<code>{}</code>{}", escape(spec), mark.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::example;

    #[test]
    fn a_preset_is_typed_by_its_name_while_it_stands_for_the_cache() {
        let spec: Spec = "auto@25%".parse().unwrap();
        let cell = Cell { name: Some("auto".into()), ..example(&spec.to_string()) };
        assert_eq!(typed(&cell), "auto@25%");
        let other = Cell { name: Some("auto".into()), ..example("h2o@25%") };
        assert_eq!(typed(&other), "h2o@25%");
    }

    #[test]
    fn a_short_name_keeps_its_cap() {
        assert_eq!(shortened("h2o@25%", 12), "h2o@25%");
        assert_eq!(shortened("expected+buckets@12.5%", 14), "expecte…@12.5%");
    }
}
