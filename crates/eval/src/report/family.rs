/// What kind of cache a spec is, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// The yardsticks that stand in every comparison.
    Control,
    /// Every token kept, in fewer bits.
    Coded,
    /// Fewer tokens kept, in f16.
    Evicting,
    /// Fewer tokens in fewer bits, or with a tail.
    Composed,
}

impl Family {
    pub(super) const ALL: [Family; 4] = [Family::Control, Family::Coded, Family::Evicting, Family::Composed];

    pub(super) fn of(spec: &str) -> Self {
        let (body, cap) = spec.rsplit_once('@').unwrap_or((spec, ""));
        let first = body.split(['+', '(']).next().unwrap_or(body);
        let parts = body.split('+').count();
        match (first, parts, cap) {
            ("full", 1, _) | ("window" | "random", 1, _) => Family::Control,
            ("full", 2, _) if body.ends_with("+q8") || body.ends_with("+q4h") => Family::Control,
            (_, _, "") => Family::Coded,
            (_, 1, _) => Family::Evicting,
            _ => Family::Composed,
        }
    }

    /// The class of its marks in the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Family::Control => "control",
            Family::Coded => "coded",
            Family::Evicting => "evicting",
            Family::Composed => "composed",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Family::Control => "control",
            Family::Coded => "all tokens, fewer bits",
            Family::Evicting => "fewer tokens",
            Family::Composed => "fewer tokens and bits, or a tail",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        for (spec, family) in [
            ("full", Family::Control),
            ("full+q8", Family::Control),
            ("window@25%", Family::Control),
            ("random@64MiB", Family::Control),
            ("full+k=kivi4+v=q4", Family::Coded),
            ("h2o(decay=0.99)@25%", Family::Evicting),
            ("h2o+q8@25%", Family::Composed),
            ("window+buckets@25%", Family::Composed),
        ] {
            assert_eq!(Family::of(spec), family, "{spec}");
        }
    }
}
