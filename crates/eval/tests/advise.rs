//! Advice: what is named can be used, with the very text that is printed.

mod common;

use common::tiny_gpt2;
use sketchkv_cache::{Cache, Cap, Spec};
use sketchkv_eval::{Advice, AdviseOptions, EvalError, Silent, advise, tasks::Corpus};
use sketchkv_model::{Model, WeightFormat};
use std::path::Path;

fn limited(
    model: &Model,
    budget: usize,
    context: usize,
    min_speed: Option<f64>,
    max_kl: Option<f64>,
) -> Result<Advice, EvalError> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/persuasion.txt");
    let corpus = Corpus::read(&[data]).unwrap().with_repeats();
    let options = AdviseOptions { budget, context, samples: 1, seed: 0, min_speed, max_kl };
    advise(model, &corpus, &options, &mut Silent)
}

fn ask(model: &Model, budget: usize, context: usize) -> Result<Advice, EvalError> {
    limited(model, budget, context, None, None)
}

fn new_cache(model: &Model, spec: &str) -> Cache {
    let spec: Spec = spec.parse().unwrap();
    Cache::new(model.cache_shape(), &spec, 0).unwrap()
}

#[test]
fn every_cache_named_is_one_that_runs() {
    let model = tiny_gpt2(WeightFormat::Native);
    let full = model.cache_shape().f16_bytes(256);
    for share in [0.15, 0.6] {
        let budget = (share * full as f64) as usize;
        let advice = ask(&model, budget, 256).unwrap();
        assert!(advice.candidates.iter().any(|candidate| candidate.spec == advice.spec));
        assert_eq!((advice.budget_bytes, advice.measured_context), (budget, 256));
        for candidate in &advice.candidates {
            let cache = new_cache(&model, &candidate.spec);
            let row = &candidate.row;
            assert!(candidate.bytes <= budget && !row.footprint.missed(), "{candidate:?}");
            match cache.spec().cap {
                Cap::None => {}
                cap => {
                    assert_eq!(cap, Cap::Bytes(budget));
                    // The whole context was measured, with the cache that is named; and its cap binds.
                    assert_eq!(row.spec, candidate.spec);
                    assert!(
                        row.binds_at.is_some() || candidate.spec.contains("progressive"),
                        "{candidate:?}"
                    );
                }
            }
        }
        let reasons = advice.rejected.iter().map(|failure| failure.error.as_str());
        assert!(reasons.clone().all(|reason| !reason.is_empty() && !reason.contains('\n')));
        // At these bytes 8-bit stores keep everything: there is nothing to evict.
        let never = reasons.filter(|reason| reason.contains("never evicts")).count();
        assert_eq!(never > 0, share == 0.6, "{:?}", advice.rejected);
    }
}

#[test]
fn a_budget_below_every_floor_names_the_smallest_that_works() {
    let model = tiny_gpt2(WeightFormat::Native);
    for budget in [1, 1 << 10, 10 << 10] {
        let Err(EvalError::Input(message)) = ask(&model, budget, 256) else { panic!("{budget} is enough") };
        let spec = message.split('`').nth(1).unwrap();
        let Cap::Bytes(smallest) = new_cache(&model, spec).spec().cap else { panic!("{spec}") };
        assert!(
            smallest > budget && message.contains(&format!("raise the budget to {smallest}B")),
            "{message}"
        );
        let below = format!("{}@{}B", spec.split('@').next().unwrap(), smallest - 1);
        assert!(Cache::new(model.cache_shape(), &below.parse().unwrap(), 0).is_err(), "{message}");
        if budget == 1 {
            // And advice is to be had there.
            let advice = ask(&model, smallest, 256).unwrap();
            assert_eq!(advice.spec, spec);
        }
    }
}

#[test]
fn where_everything_fits_nothing_is_evicted() {
    let model = tiny_gpt2(WeightFormat::Native);
    let advice = ask(&model, 64 << 20, 128).unwrap();
    assert!(advice.candidates.iter().all(|candidate| !candidate.spec.contains('@')), "{advice:?}");
    let specs: Vec<&str> = advice.candidates.iter().map(|candidate| candidate.spec.as_str()).collect();
    assert!(specs.contains(&"full") && specs.contains(&"full+k=kivi4+v=q4"), "{specs:?}");
    let fits = advice.reasons.iter().any(|reason| reason.contains("keeps all 128 tokens"));
    assert!(fits && advice.reasons.iter().any(|reason| reason.contains("tokens a second")), "{advice:?}");
}

#[test]
fn limits_of_loss_and_speed_are_kept_to() {
    let model = tiny_gpt2(WeightFormat::Native);
    let half = model.cache_shape().f16_bytes(256) / 2;
    let free = ask(&model, half, 256).unwrap();
    let kl = free.candidates[0].row.kl_mean;
    let strict = limited(&model, half, 256, None, Some(kl * 1.0001 + 1e-9)).unwrap();
    assert_eq!(strict.spec, free.candidates[0].spec);
    assert!(strict.rejected.iter().any(|failure| failure.error.contains("has a mean KL of")), "{strict:?}");
    let Err(EvalError::Input(message)) = limited(&model, half, 256, Some(1e9), None) else {
        panic!("nothing is that fast")
    };
    assert!(message.contains("limits of speed and loss") && message.contains("tokens a second"), "{message}");
    let check = free.needles.unwrap();
    assert!(check.texts == 4 && check.found <= 4 && check.found_by_full <= 4, "{check:?}");
}
