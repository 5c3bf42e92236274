//! A decode step asks for no memory but that of a new strip, and a workspace says what it holds.

mod common;

use common::{Stream, cache, shape};
use sketchkv_cache::AttentionWorkspace;
use sketchkv_kernels::ThreadPool;

#[test]
fn a_decode_step_allocates_nothing() {
    const TOKENS: usize = 700;
    let stream = Stream::new(&shape(), TOKENS, 2);
    // One thread: with two, which of them first runs beside the other, and so needs room of its own, is the machine's choice.
    let pool = ThreadPool::new(1);
    let mut out = vec![0.0; 384];
    for spec in [
        "full",
        "full+q8",
        "full+topk(k=64)",
        "full+q8+topk(k=64)",
        "full+quest(k=64)",
        "fastest",
        "h2o@96tok",
        "window+q8@64tok",
        "tova+f32@96tok",
        "knorm@96tok",
        "hashevict@96tok",
        "hashevict(bits=40)@96tok",
        "kvzip@96tok",
        "cms@96tok",
        "race@96tok",
        "h2o+kivi4@96tok",
        "h2o+topk(k=32)@96tok",
        "h2o+topk(k=32,rest=pages)@96tok",
        "h2o+quest(k=32)@96tok",
        "h2o+buckets@96tok",
        "h2o+race@96tok",
        "h2o+countsketch@96tok",
        "h2o+merge@96tok",
        "h2o+fitted@96tok",
        "h2o+critical@96tok",
        "h2o+critical+ada@96tok",
        "h2o+ada@96tok",
        "h2o+pyramid@96tok",
        "h2o+adaptive@96tok",
        "foreseen+critical+adaptive@96tok",
        "auto@100KiB",
        "aggregate@120KiB",
        "expected@96tok",
        "expected(cov=full)@96tok",
        "expected(cov=none)@96tok",
        "snapkv@96tok",
        "keydiff@96tok",
    ] {
        let mut cache = cache(&stream.shape, spec);
        let mut workspace = AttentionWorkspace::new();
        let (mut bytes, mut since) = (0, 0);
        let mut asking = vec![];
        for at in 0..TOKENS {
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
            // With a new strip come new pages, then longer buffers, of what is looked at in one step of eight later.
            since = if cache.ledger().total() == bytes { since + 1 } else { 0 };
            if calls > 0 && since > 8 && at >= 300 {
                asking.push((at, calls));
            }
            bytes = cache.ledger().total();
        }
        assert!(asking.is_empty(), "{spec}: step and allocations: {asking:?}");
    }
}

#[test]
fn a_workspace_holds_what_it_says() {
    let stream = Stream::new(&shape(), 240, 2);
    let pool = ThreadPool::new(1);
    for spec in [
        "full",
        "full+all(prompt=64)",
        "full+quest(k=32)",
        "h2o+topk(k=32,rest=pages,prompt=32)+merge@96tok",
        "tova+buckets@96tok",
        "auto@100KiB",
    ] {
        let mut cache = cache(&stream.shape, spec);
        let mut workspace = AttentionWorkspace::new();
        for (first, count) in [(0, 160), (160, 40)].into_iter().chain((200..240).map(|at| (at, 1))) {
            let mut out = vec![0.0; count * 384];
            let mut pass = cache.begin(count, &mut workspace).unwrap();
            for layer in 0..2 {
                let [q, k, v] =
                    [&stream.q, &stream.k, &stream.v].map(|all| stream.rows(&all[layer], first, count));
                pass.attend(layer, &pool, &mut workspace, q, k, v, &mut out).unwrap();
            }
            pass.finish(&pool, &mut workspace).unwrap();
        }
        let said = workspace.bytes();
        let freed = -allocation_counter::measure(|| drop(workspace)).bytes_current;
        assert_eq!(said as i64, freed, "{spec}");
    }
}
