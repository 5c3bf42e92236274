//! A keep that this crate does not have: described, built, registered and run by another one.
//!
//!     cargo run --example own_keep

use sketchkv_cache::Context;
use sketchkv_cache::keep::{Arrival, Keep, RECENT, SINKS};
use sketchkv_cache::method::{Call, Choice, Kind, Method, Parameter};
use sketchkv_cache::registry::Build;
use sketchkv_cache::{
    AttentionWorkspace, Cache, CacheError, CacheShape, Candidates, LayerShape, Registry, Spec,
};
use sketchkv_kernels::ThreadPool;

static METHOD: Method = Method {
    name: "vnorm",
    choice: Choice::Keep,
    summary: "the tokens whose values are long",
    formula: "evict argmin_i ‖v_i‖_p",
    state: "4 B a slot",
    paper: "",
    differs: "",
    parameters: &[
        Parameter { name: "p", kind: Kind::Integer(1, 8), default: "2", help: "p of the norm" },
        SINKS,
        RECENT,
    ],
};

fn build(call: &Call, _: &Context<'_>) -> Box<dyn Keep> {
    Box::new(ValueNorm { p: call.count("p") as i32 })
}

#[derive(Clone)]
struct ValueNorm {
    p: i32,
}

impl Keep for ValueNorm {
    fn clone_box(&self) -> Box<dyn Keep> {
        Box::new(self.clone())
    }

    /// ‖v‖, as the bits of an f32.
    fn words(&self) -> usize {
        1
    }

    fn arrive(&mut self, token: &Arrival<'_>, state: &mut [u32]) {
        let sum: f32 = token.value.iter().map(|x| x.abs().powi(self.p)).sum();
        state[0] = sum.powf(1.0 / self.p as f32).to_bits();
    }

    fn importance(&mut self, candidates: &Candidates<'_>, out: &mut [f32]) {
        for (out, &norm) in out.iter_mut().zip(&*candidates.state) {
            *out = f32::from_bits(norm);
        }
    }
}

/// Positions that a cache of this spec keeps of 200 tokens, every tenth of which has a long value.
fn kept(spec: &str) -> Result<Vec<usize>, CacheError> {
    let registry = Registry::builtin().with(&METHOD, Build::Keep(build))?;
    let spec = Spec::parse_with(spec, &registry)?;
    let shape = CacheShape::uniform(1, LayerShape::new(2, 1, 32), 256);
    let mut cache = Cache::new(shape, &spec, 0)?;
    let (pool, mut workspace) = (ThreadPool::new(1), AttentionWorkspace::new());
    let (q, k, mut out) = ([0.1; 64], [0.1; 32], [0.0; 64]);
    for token in 0..200 {
        let v = [if token % 10 == 0 { 1.0 } else { 0.01 }; 32];
        let mut pass = cache.begin(1, &mut workspace)?;
        pass.attend(0, &pool, &mut workspace, &q, &k, &v, &mut out)?;
        pass.finish(&pool, &mut workspace)?;
    }
    Ok(cache.positions(0, 0))
}

fn main() -> Result<(), CacheError> {
    for spec in ["vnorm(recent=8)@32tok", "window@32tok"] {
        println!("{spec:24}{:?}", kept(spec)?);
    }
    Ok(())
}

#[test]
fn long_values_stay() {
    let kept = kept("vnorm(p=1,recent=8)+q8@32tok").unwrap();
    let long = |from: usize| (from..200).step_by(10);
    assert!(long(0).all(|position| kept.contains(&position)), "{kept:?}");
    assert!(kept.len() <= 32 && kept.iter().filter(|position| *position % 10 != 0).count() <= 12, "{kept:?}");
}
