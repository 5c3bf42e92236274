use super::Store;
use crate::method::{Call, Choice, Method};
use sketchkv_kernels::attention::layout::{Encoding, Side};

macro_rules! float {
    ($method:ident, $build:ident, $encoding:expr, $name:literal, $summary:literal, $state:literal) => {
        pub(super) static $method: Method = Method {
            name: $name,
            choice: Choice::Store,
            summary: $summary,
            formula: "x̂ = round(x)",
            state: $state,
            paper: "",
            differs: "",
            parameters: &[],
        };

        pub(super) fn $build(_: &Call, _: usize) -> Box<dyn Store> {
            Box::new(Float($encoding))
        }
    };
}

float!(F32, f32, Encoding::F32, "f32", "32-bit floats: the reference", "32 bits a value");
float!(F16, f16, Encoding::F16, "f16", "IEEE half floats: what uncompressed caches hold", "16 bits a value");
float!(
    BF16,
    bf16,
    Encoding::Bf16,
    "bf16",
    "bfloat16: the range of f32, 8 bits of precision",
    "16 bits a value"
);

struct Float(Encoding);

impl Store for Float {
    fn encoding(&self, _: Side) -> Encoding {
        self.0
    }
}
