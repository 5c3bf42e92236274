//! Which experts the tokens of a pass go through.

use std::ops::Range;

/// A token's way through an expert.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Route {
    expert: usize,
    /// Its row in the pass.
    pub(super) token: usize,
    /// What the expert's output is multiplied by.
    pub(super) weight: f32,
}

/// The routes of a layer, by expert, then by token.
#[derive(Default)]
pub(crate) struct Routes {
    routes: Vec<Route>,
    /// Softmax of a token's scores, with the experts, best first.
    ranking: Vec<(f32, usize)>,
}

impl Routes {
    /// For each token the `used` experts of largest `scores`, `[token][expert]`, of two equal ones the first. Weights are
    /// the softmax over all experts, over those used alone if `normalized`.
    pub(super) fn choose(&mut self, scores: &[f32], experts: usize, used: usize, normalized: bool) {
        let Routes { routes, ranking } = self;
        routes.clear();
        for (token, scores) in scores.chunks_exact(experts).enumerate() {
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            ranking.clear();
            ranking.extend(scores.iter().map(|score| (score - largest).exp()).zip(0..));
            let all: f32 = ranking.iter().map(|(weight, _)| weight).sum();
            ranking.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            ranking.truncate(used);
            let sum = if normalized { ranking.iter().map(|(weight, _)| weight).sum() } else { all };
            let route = |&(weight, expert): &(f32, usize)| Route { expert, token, weight: weight / sum };
            routes.extend(ranking.iter().map(route));
        }
        routes.sort_unstable_by_key(|route| (route.expert, route.token));
    }

    /// Those of one expert.
    pub(crate) fn of(&self, expert: usize) -> &[Route] {
        &self.routes[self.range(expert)]
    }

    fn range(&self, expert: usize) -> Range<usize> {
        let first = |expert| self.routes.partition_point(|route| route.expert < expert);
        first(expert)..first(expert + 1)
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.routes.capacity() * size_of::<Route>() + self.ranking.capacity() * size_of::<(f32, usize)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_to_the_experts_of_largest_score() {
        let mut routes = Routes::default();
        let ln = f32::ln;
        routes.choose(&[ln(1.0), ln(3.0), ln(4.0), ln(2.0), ln(2.0), ln(1.0)], 3, 2, true);
        let of = |expert: usize| -> Vec<(usize, f32)> {
            routes.of(expert).iter().map(|route| (route.token, (route.weight * 70.0).round())).collect()
        };
        assert_eq!(of(0), [(1, 35.0)]);
        assert_eq!(of(1), [(0, 30.0), (1, 35.0)]);
        assert_eq!(of(2), [(0, 40.0)]);
        routes.choose(&[ln(1.0), ln(3.0), ln(4.0)], 3, 1, false);
        assert_eq!(routes.of(2)[0].weight, 0.5);
        assert!(routes.of(0).is_empty());
    }

    #[test]
    fn scores_that_are_no_numbers_make_weights_that_are_none() {
        let mut routes = Routes::default();
        routes.choose(&[f32::NAN, 1.0], 2, 1, true);
        assert!(routes.of(0)[0].weight.is_nan());
    }
}
