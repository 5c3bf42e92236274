use super::{Arrival, Context, Feedback, Keep, MOST_RECENT, RECENT, SINKS, Step, interval, norm};
use crate::context::{Candidates, EMPTY};
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::shape::{ByDistance, Distances, NEAR, bin_of};
use crate::state::{Reader, StateError, Writer};
use crate::{HeadScorer, LayerShape, Scorer};

pub(super) static METHOD: Method = Method {
    name: "foreseen",
    choice: Choice::Keep,
    summary: "the tokens that queries to come will look at, by their age and by what each has drawn beyond its age",
    formula: "g(a) = mean attention at distance a, of the head; r_i = attention drawn over that expected by age, beginning \
              with exp(w·features_i) where the model has a scorer, with 1 where not: r += (m − r·e)/(E + e) for attention m where \
              e was expected, within a pass from queries 64 tokens after it on; \
              evict argmin r_i·Σ_{a=age_i}^{age_i+horizon} g(a)·‖v_i‖",
    state: "4 B a slot; 336 B a head",
    paper: "ours; a prior learned from keys and values after KVzap, arXiv 2601.07891",
    differs: "The posterior mean of a Gamma-Poisson model of how much attention a token draws; KVzap's score is fixed when a \
              token comes in and knows no age.",
    parameters: &[
        Parameter {
            name: "horizon",
            kind: Kind::Integer(1, 1 << 20),
            default: "128",
            help: "coming queries over which attention is foreseen",
        },
        Parameter {
            name: "trust",
            kind: Kind::Real(0.001, 1000.0),
            default: "auto",
            help: "how much what is known of a token beforehand counts beside what it draws, in shares of what the mean \
                   token draws between the ages of 64 and 4,096; auto is 0.3 with a scorer, 0.1 without",
        },
        Parameter {
            name: "stride",
            kind: Kind::Integer(1, 64),
            default: "8",
            help: "of single tokens only one of so many is looked at",
        },
        interval("64"),
        SINKS,
        RECENT,
    ],
};

/// Where the distances end over which `trust` counts.
const FAR: usize = 4096;
/// Pairs of a query and a token that a scorer's attention by distance counts for, in each bin.
const KNOWN_PAIRS: f32 = 65_536.0;

pub(super) fn build(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    let scorer = context.shape.scorer.as_ref();
    let known = scorer.and_then(|scorer| scorer.head(context.layer, context.head));
    let distances = match known {
        Some(head) => Distances::new(&head.by_distance, KNOWN_PAIRS),
        None => Distances::unknown(),
    };
    Box::new(Foreseen {
        horizon: call.count("horizon"),
        trust: call.optional_real("trust").unwrap_or(if known.is_some() { 0.3 } else { 0.1 }),
        stride: call.count("stride"),
        interval: call.count("interval"),
        weighs_values: !context.values_weighed,
        layer: context.layer().clone(),
        place: (context.layer, context.head),
        scorer: scorer.filter(|_| known.is_some()).cloned(),
        distances,
        position: 0,
        norms: 0.0,
        seen: 0,
    })
}

#[derive(Clone)]
struct Foreseen {
    horizon: usize,
    trust: f32,
    stride: usize,
    interval: usize,
    /// Whether importance counts the norm of the value.
    weighs_values: bool,
    layer: LayerShape,
    /// Layer and KV head.
    place: (usize, usize),
    scorer: Option<Scorer>,
    distances: Distances,
    /// Position of the next token.
    position: usize,
    /// Sum of the codes of the norms of all values seen.
    norms: f64,
    /// How many those are.
    seen: u64,
}

/// The state of a slot: r, its lowest bits replaced by a code of ‖v‖.
struct Slot;

impl Slot {
    const CODE: u32 = 0xff;
    /// Codes an e-fold.
    const STEPS: f32 = 12.0;

    fn code(norm: f32) -> u32 {
        (norm.max(f32::MIN_POSITIVE).ln() * Self::STEPS + 128.0).round().clamp(0.0, 255.0) as u32
    }

    fn pack(ratio: f32, code: u32) -> u32 {
        // Rounded to what is left.
        ratio.to_bits().saturating_add(Self::CODE.div_ceil(2)) & !Self::CODE | code
    }

    fn ratio(word: u32) -> f32 {
        f32::from_bits(word & !Self::CODE)
    }
}

/// The ratio of a token of which `so_far` was expected, when it draws `mass` where `expected` more was.
fn learned(ratio: f32, so_far: f32, mass: f32, expected: f32) -> f32 {
    let next = ratio + (mass - ratio * expected) / (so_far + expected).max(f32::MIN_POSITIVE);
    next.clamp(1e-6, 1e6)
}

impl Foreseen {
    /// What is known of a token beforehand counts as much as having expected this much of it.
    fn trust_in(&self, by_distance: &ByDistance) -> f64 {
        f64::from(self.trust) * (by_distance.before(FAR) - by_distance.before(NEAR))
    }

    fn known(&self) -> Option<&HeadScorer> {
        self.scorer.as_ref()?.head(self.place.0, self.place.1)
    }
}

impl Keep for Foreseen {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        self.distances.bytes()
    }

    fn words(&self) -> usize {
        1
    }

    fn feedback(&self, tokens: usize) -> Option<Feedback> {
        (tokens > 1 || self.position.is_multiple_of(self.stride)).then_some(Feedback::Far)
    }

    fn is_attention(&self) -> bool {
        true
    }

    fn horizon(&self) -> Option<usize> {
        Some(self.horizon)
    }

    fn batch(&self) -> usize {
        self.interval
    }

    fn most_recent(&self) -> usize {
        MOST_RECENT
    }

    fn observe(&mut self, step: &Step<'_>, state: &mut [u32]) {
        self.position = step.position + step.tokens;
        if step.mass.is_empty() {
            return;
        }
        let by_distance = self.distances.means();
        let known = self.trust_in(&by_distance) - by_distance.before(NEAR);
        // A step stands for those that were not looked at.
        let single = step.tokens == 1;
        let times = if single { self.stride as f32 } else { 1.0 };
        // Slots that are side by side are mostly of about the same age.
        let mut line = by_distance.line(NEAR);
        for ((word, &mass), &position) in state.iter_mut().zip(step.mass).zip(step.positions) {
            let age = step.position.saturating_sub(position as usize);
            if position == EMPTY || age < NEAR {
                continue;
            }
            if !line.ages.contains(&age) {
                line = by_distance.line(age);
            }
            let before = line.before(age);
            let (expected, middle) = if single {
                (line.weight, line.bin)
            } else {
                ((by_distance.before(age + step.tokens) - before) as f32, bin_of(age + step.tokens / 2))
            };
            let (expected, so_far) = (expected * times, (known + before) as f32);
            let (mass, ratio) = (mass * times, Slot::ratio(*word));
            self.distances.observe(middle, mass, ratio * step.tokens as f32 * times);
            *word = Slot::pack(learned(ratio, so_far, mass, expected), *word & Slot::CODE);
        }
    }

    fn arrive(&mut self, token: &Arrival<'_>, state: &mut [u32]) {
        let mut ratio = self.known().map_or(1.0, |known| {
            let mut features = [0.0; HeadScorer::MOST];
            let features = &mut features[..HeadScorer::width(&self.layer)];
            HeadScorer::features(&self.layer, token.key, token.value, token.position, features);
            let sum: f32 = features.iter().zip(&known.factors).map(|(x, w)| x * w).sum();
            sum.clamp(-7.0, 7.0).exp()
        });
        // Of a long chunk there are queries that have looked at the token already.
        let end = self.position.saturating_sub(token.position);
        if end > NEAR {
            let by_distance = self.distances.means();
            let expected = (by_distance.before(end) - by_distance.before(NEAR)) as f32;
            let trust = self.trust_in(&by_distance) as f32;
            self.distances.observe_range(NEAR, end, token.mass, ratio, &by_distance);
            ratio = learned(ratio, trust, token.mass, expected);
        }
        let code = Slot::code(norm(token.value));
        self.norms += f64::from(code);
        self.seen += 1;
        state[0] = Slot::pack(ratio, code);
    }

    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        let by_distance = self.distances.means();
        let mean = (self.norms / self.seen.max(1) as f64) as f32;
        for ((out, &word), &position) in out.iter_mut().zip(&*candidates.state).zip(candidates.positions) {
            if position == EMPTY {
                continue;
            }
            let age = self.position.saturating_sub(position as usize);
            let end = (age + self.horizon).min(self.layer.visible(usize::MAX)).max(age);
            let coming = (by_distance.before(end) - by_distance.before(age)) as f32;
            *out = Slot::ratio(word) * coming;
            if self.weighs_values {
                *out *= (((word & Slot::CODE) as f32 - mean) / Slot::STEPS).exp();
            }
        }
    }

    fn save(&self, out: &mut Writer) {
        out.u64(self.position as u64);
        out.u64(self.norms.to_bits());
        out.u64(self.seen);
        self.distances.save(out);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.position = from.length(u32::MAX as usize)?;
        self.norms = f64::from_bits(from.u64()?);
        self.seen = from.u64()?;
        self.distances.load(from)
    }
}
