use super::{Evicted, Tail};
use crate::context::{Buffers, Context, Neighbours, Partial};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::state::{Reader, StateError, Writer};
use sketchkv_sketch::mix;

pub(super) static METHOD: Method = Method {
    name: "merge",
    choice: Choice::Tail,
    summary: "evicted values live on in the tokens after them",
    formula: "with probability min(1, a_i/mean a): v_j ← v_j + v_i/m for the m kept tokens j that follow i",
    state: "0",
    paper: "CaM, ICML 2024, PMLR 235:58840",
    differs: "a_i is the attention of the step that evicts, as the keep counts it or, where the keep watches none, of \
              the newest query, and the mean is over all tokens. Tokens of the chunk that evicts are not in slots yet \
              and take nothing in; fewer than m tokens share alike.",
    parameters: &[Parameter {
        name: "m",
        kind: Kind::Integer(1, 1024),
        default: "16",
        help: "kept tokens that a value is shared out to",
    }],
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Option<Box<dyn Tail>> {
    Some(Box::new(Merge { m: call.count("m"), seed: context.own_seed() }))
}

#[derive(Clone)]
struct Merge {
    m: usize,
    seed: u64,
}

/// Whether the token of a position is merged: with this probability, by a draw that depends on seed and position alone.
fn drawn(seed: u64, position: usize, probability: f32) -> bool {
    let uniform = (mix(seed ^ mix(position as u64)) >> 40) as f32 / (1u64 << 24) as f32;
    uniform < probability
}

impl Tail for Merge {
    fn clone_box(&self) -> Box<dyn Tail> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        0
    }

    fn watches(&self) -> bool {
        true
    }

    fn absorb(&mut self, token: &Evicted<'_>, neighbours: &mut dyn Neighbours, buffers: &mut Buffers) {
        if !drawn(self.seed, token.position, token.relative_mass) {
            return;
        }
        // In the order of positions, as numbers.
        let mut next = buffers.words();
        neighbours.for_each_staying(&mut |position, slot| {
            if position > token.position {
                next.push((position as u64) << 32 | slot as u64);
            }
        });
        if next.len() > self.m {
            next.select_nth_unstable(self.m);
            next.truncate(self.m);
        }
        let share = 1.0 / next.len() as f32;
        let (mut key, mut value) = (buffers.floats(token.key.len()), buffers.floats(token.value.len()));
        for &next in &next {
            let slot = next as u32 as usize;
            neighbours.load(slot, &mut key, &mut value);
            value.iter_mut().zip(token.value).for_each(|(v, x)| *v += share * x);
            neighbours.set_value(slot, &value);
        }
        buffers.give_words(next);
        buffers.give_floats([key, value]);
    }

    fn attend(&self, _: &[f32], _: &mut Partial, _: &mut Buffers) {}

    fn save(&self, _: &mut Writer) {}

    fn load(&mut self, _: &mut Reader<'_>) -> Result<(), StateError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::drawn;

    #[test]
    fn tokens_are_drawn_with_their_probability() {
        for probability in [0.0, 0.1, 0.5, 0.9, 1.0, 3.0] {
            let count = (0..20_000).filter(|&position| drawn(7, position, probability)).count();
            let want = 20_000.0 * probability.min(1.0);
            assert!((count as f32 - want).abs() < 300.0, "{probability}: {count}");
        }
        let other = (0..1000).filter(|&p| drawn(7, p, 0.5) != drawn(8, p, 0.5)).count();
        assert!(other > 400, "seeds draw alike: {other}");
    }
}
