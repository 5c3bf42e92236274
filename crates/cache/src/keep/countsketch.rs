use super::sketched::{DIFFERS, STATE, parameters, tabled};
use super::{Context, Keep};
use crate::method::{Call, Choice, Method};
use sketchkv_sketch::CountSketch;

pub(super) static METHOD: Method = Method {
    name: "countsketch",
    choice: Choice::Keep,
    summary: "heavy hitters counted in a Count-Sketch, whose errors go either way, so that tokens alike share what was learned of them",
    formula: "C_r[h_r(x_i)] ← γ·C_r[h_r(x_i)] + s_r(x_i)·w_i in every row r, s_r = ±1, x_i as in cms; \
              evict argmin_i median_r s_r(x_i)·C_r[h_r(x_i)]",
    state: STATE,
    paper: "Charikar, Chen & Farach-Colton, Finding frequent items in data streams, 2002",
    differs: DIFFERS,
    parameters: &parameters("3"),
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    tabled(call, context, CountSketch::new)
}
