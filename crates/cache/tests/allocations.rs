//! A decode step asks for no memory but that of a new strip.

mod common;

use common::{Stream, cache, shape};
use sketchkv_cache::AttentionWorkspace;
use sketchkv_kernels::ThreadPool;
#[test]
fn a_decode_step_allocates_nothing() {
    let stream = Stream::new(&shape(), 400, 2);
    // One thread: with two, which of them first runs beside the other, and so needs room of its own, is the machine's choice.
    let pool = ThreadPool::new(1);
    let mut out = vec![0.0; 384];
    // At a cap every step frees the slot that it takes; without one, a strip of 16 slots is new every 16 tokens.
    let specs = ["full", "full+q8", "h2o@96tok", "window+q8@64tok", "tova+f32@96tok", "knorm@96tok"];
    for spec in specs {
        let mut cache = cache(&stream.shape, spec);
        let mut workspace = AttentionWorkspace::new();
        for at in 0..400 {
            let calls = allocation_counter::measure(|| {
                let mut pass = cache.begin(1, &mut workspace).unwrap();
                for layer in 0..2 {
                    let [q, k, v] =
                        [&stream.q, &stream.k, &stream.v].map(|all| stream.rows(&all[layer], at, 1));
                    pass.attend(layer, &pool, &mut workspace, q, k, v, &mut out).unwrap();
                }
                pass.finish(&pool, &mut workspace).unwrap();
            })
            .count_total;
            // With a new strip come new pages, then longer buffers.
            let grows = spec.starts_with("full") && at % 16 < 2;
            assert!(calls == 0 || grows || at < 300, "{spec}: {calls} allocations at {at}");
        }
    }
}
