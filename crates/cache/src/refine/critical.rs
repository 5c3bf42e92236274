use super::Refine;
use crate::context::Context;
use crate::method::{Call, Choice, Kind, Method, Parameter};
use crate::{CacheError, OutputProjection};

pub(super) static METHOD: Method = Method {
    name: "critical",
    choice: Choice::Refine,
    summary: "half of what stays by attention, the other half by attention times what the value does to the output",
    formula: "of the B that stay the B/2 of largest s stay whatever their values are; of all others \
              argmin s_i·√(Σ_h ‖W_O,h·v_i‖²) is evicted, h over the query heads of the group",
    state: "0; of the model, once for all caches, 4d² B a KV head",
    paper: "CriticalKV, arXiv 2502.03805",
    differs: "The paper sums absolute values, ‖W_O·v‖₁, which for projections that look normal is the same up to a \
              factor. Norms are computed when tokens are evicted, `interval` at a time, instead of stored. Sinks and recent \
              tokens, which cannot go, are counted in neither half. Needs a keep whose importance is attention, which \
              leaves out its own weight of values, and a model that says what its output projection is.",
    parameters: &[Parameter {
        name: "interval",
        kind: Kind::Integer(1, 4096),
        default: "32",
        help: "tokens evicted at a time, at most a quarter of those that may be; more is cheaper, and holds fewer",
    }],
};

pub(super) fn build(
    call: &Call,
    context: &Context<'_>,
    is_attention: bool,
) -> Result<Option<Box<dyn Refine>>, CacheError> {
    if !is_attention {
        return Err(CacheError::Unsupported(
            "`critical` multiplies attention, which this keep does not look at: choose another, as `h2o`, \
             `snapkv` or `expected`"
                .to_owned(),
        ));
    }
    let Some(output) = context.shape.output.clone() else {
        return Err(CacheError::Unsupported(
            "`critical` needs the model's output projection, which was not given: leave it out".to_owned(),
        ));
    };
    Ok(Some(Box::new(Critical { output, interval: call.count("interval") })))
}

struct Critical {
    output: OutputProjection,
    interval: usize,
}

impl Refine for Critical {
    fn importance(&self, importance: f32, layer: usize, kv_head: usize, value: &[f32]) -> f32 {
        importance.max(0.0) * self.output.norm(layer, kv_head, value)
    }

    fn batch(&self) -> usize {
        self.interval
    }
}
