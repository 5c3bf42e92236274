//! The automatic cache beside one that knows the future: how much of its loss comes of having to foresee what later queries
//! will look at.
//!
//!     cargo run --release -p sketchkv-eval --example oracle -- MODEL TEXT CAP...
//!
//! A first run under an uncapped cache notes what every token draws from the queries of each later pass. In the runs that are
//! compared the keep `oracle` then knows for every token the sum of what it will draw to the end of the document, where `auto`
//! has to foresee it; all else is the same.

use sketchkv_cache::keep::{Arrival, Feedback, Keep, RECENT, SINKS, Step};
use sketchkv_cache::method::{Call, Choice, Kind, Method, Parameter};
use sketchkv_cache::registry::Build;
use sketchkv_cache::{Candidates, Context, Registry, Spec};
use sketchkv_engine::Source;
use sketchkv_eval::tasks::Corpus;
use sketchkv_eval::{CompareOptions, Schedule, compare};
use sketchkv_model::LoadOptions;
use std::collections::HashMap;
use std::error::Error;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Where documents end.
const LAST_POSITION: usize = 4096;

/// What the tokens of a head, by position, drew from the queries of a pass, with the position of the first query.
type Draws = Vec<(usize, Vec<f32>)>;

/// By layer and head.
static FUTURE: LazyLock<Mutex<HashMap<(usize, usize), Draws>>> = LazyLock::new(Mutex::default);

static WITNESS: Method = Method {
    name: "witness",
    choice: Choice::Keep,
    summary: "all tokens, and notes what each of them draws",
    formula: "nothing is evicted",
    state: "none",
    paper: "",
    differs: "",
    parameters: &[],
};

static ORACLE: Method = Method {
    name: "oracle",
    choice: Choice::Keep,
    summary: "the tokens that queries to come will look at, which a witness has seen",
    formula: "evict argmin_i Σ_{t to come} a_t(i)·‖v_i‖",
    state: "4 B a slot",
    paper: "",
    differs: "",
    parameters: &[
        Parameter {
            name: "interval",
            kind: Kind::Integer(1, 4096),
            default: "64",
            help: "tokens that go at a time",
        },
        SINKS,
        RECENT,
    ],
};

#[derive(Clone)]
struct Witness {
    place: (usize, usize),
}

fn witness(_: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    Box::new(Witness { place: (context.layer, context.head) })
}

impl Keep for Witness {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    fn feedback(&self, _tokens: usize) -> Option<Feedback> {
        Some(Feedback::Sum(1.0))
    }

    fn observe(&mut self, step: &Step<'_>, _: &mut [u32]) {
        let mut draws = vec![0.0; step.position];
        for (&position, &mass) in step.positions.iter().zip(step.mass).filter(|(at, _)| **at != u32::MAX) {
            draws[position as usize] = mass;
        }
        let mut future = FUTURE.lock().unwrap_or_else(PoisonError::into_inner);
        future.entry(self.place).or_default().push((step.position, draws));
    }
}

#[derive(Clone)]
struct Oracle {
    place: (usize, usize),
    interval: usize,
    /// Position of the next token.
    position: usize,
}

fn oracle(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    Box::new(Oracle { place: (context.layer, context.head), interval: call.count("interval"), position: 0 })
}

impl Keep for Oracle {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    /// The norm of the value.
    fn words(&self) -> usize {
        1
    }

    fn is_attention(&self) -> bool {
        true
    }

    fn is_comparable(&self) -> bool {
        true
    }

    fn horizon(&self) -> Option<usize> {
        Some(LAST_POSITION.saturating_sub(self.position).max(1))
    }

    fn batch(&self) -> usize {
        self.interval
    }

    /// As that of `foreseen`.
    fn most_recent(&self) -> usize {
        128
    }

    fn observe(&mut self, step: &Step<'_>, _: &mut [u32]) {
        self.position = step.position + step.tokens;
    }

    fn arrive(&mut self, token: &Arrival<'_>, state: &mut [u32]) {
        state[0] = token.value.iter().map(|x| x * x).sum::<f32>().sqrt().to_bits();
    }

    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        let future = FUTURE.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = future.get(&self.place).into_iter().flatten();
        for (_, draws) in passes.filter(|(first, _)| *first >= self.position) {
            for (out, &position) in out.iter_mut().zip(candidates.positions) {
                *out += draws.get(position as usize).copied().unwrap_or(0.0);
            }
        }
        out.iter_mut().zip(&*candidates.state).for_each(|(out, &norm)| *out *= f32::from_bits(norm));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(text)) = (arguments.next(), arguments.next()) else {
        return Err("usage: oracle MODEL TEXT CAP...".into());
    };
    let caps: Vec<String> = arguments.collect();
    let registry =
        Registry::builtin().with(&WITNESS, Build::Keep(witness))?.with(&ORACLE, Build::Keep(oracle))?;
    let of_cap =
        |cap: &String| ["auto", "oracle+progressive(least=2)+adaptive"].map(|spec| format!("{spec}@{cap}"));
    let specs = ["witness".to_owned()].into_iter().chain(caps.iter().flat_map(of_cap));
    let specs = specs.map(|spec| Spec::parse_with(&spec, &registry)).collect::<Result<Vec<_>, _>>()?;
    let model = Source::find(&model)?.load(&LoadOptions::default())?;
    let text = Corpus::read(&[text])?.sample(&model, LAST_POSITION, 1)?;
    let schedule = Schedule { prefill: 2560, stream: 256, timed: 64 };
    let comparison = compare(
        &model,
        &text,
        &CompareOptions { specs, schedule, seed: 0 },
        &mut |_: sketchkv_eval::Step<'_>| {},
    )?;
    println!("| cache | KL |\n|---|--:|");
    for row in comparison.measured() {
        println!("| `{}` | {:.4} |", row.spec, row.kl_mean);
    }
    Ok(())
}
