use super::sketched::{DIFFERS, STATE, parameters, tabled};
use super::{Context, Keep};
use crate::method::{Call, Choice, Method};
use sketchkv_sketch::CountMin;

pub(super) static METHOD: Method = Method {
    name: "cms",
    choice: Choice::Keep,
    summary: "heavy hitters counted in a Count-Min sketch, so that tokens alike share what was learned of them",
    formula: "C_r[h_r(x_i)] ← γ·C_r[h_r(x_i)] + w_i in every row r, x_i = sign(P·(k_i − mean k)) or the position; \
              evict argmin_i min_r C_r[h_r(x_i)]",
    state: STATE,
    paper: "Cormode & Muthukrishnan, J. Algorithms 55, 2005",
    differs: DIFFERS,
    parameters: &parameters("4"),
};

pub(super) fn build(call: &Call, context: &Context<'_>) -> Box<dyn Keep> {
    tabled(call, context, CountMin::new)
}
