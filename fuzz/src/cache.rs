use sketchkv_cache::{AttentionWorkspace, Cache, CacheError, CacheShape, LayerShape};
use sketchkv_kernels::ThreadPool;

/// Before the body: the magic, the version, the body's CRC-32.
const HEADER: usize = 16;
/// Tokens of a seed: some are evicted, under a cap of 40.
const TOKENS: usize = 90;

/// Saved caches to begin with: every store's pages and every kind of method's state is in one of them.
pub const CACHES: [&str; 10] = [
    "full+f32",
    "full+q8+topk(k=16,bits=16)",
    "h2o(recent=8)+kivi4@40tok",
    "cms(width=16,depth=2,recent=8)+k=q8+v=q4+buckets(n=16)@40tok",
    "snapkv(window=2,recent=8)+q4h+countsketch(width=2,newest=4)@40tok",
    "expected(recent=8)+k=tq3+v=bf16+race(bits=2)@40tok",
    "hashevict(recent=8)+merge+quest(k=16,page=16)@40tok",
    "h2o(recent=8)+graded(bits=2)@64tok",
    "expected(recent=8)+progressive@14KiB",
    "foreseen(recent=8)+k=tq3+v=bf16+adaptive@14KiB",
];

/// The shape they are of.
pub fn shape() -> CacheShape {
    CacheShape::uniform(1, LayerShape::new(2, 1, 32), 256)
}

/// Runs tokens through a cache.
fn run(cache: &mut Cache, tokens: usize) -> Result<(), CacheError> {
    let LayerShape { heads, kv_heads, key_dim, .. } = cache.shape().layers[0];
    let row = |n: usize, seed: usize| -> Vec<f32> {
        (0..tokens * n * key_dim).map(|i| ((i * 37 + seed) % 101) as f32 / 50.0 - 1.0).collect()
    };
    let (q, k, v) = (row(heads, 1), row(kv_heads, 2), row(kv_heads, 3));
    let (pool, mut workspace) = (ThreadPool::new(1), AttentionWorkspace::default());
    let mut pass = cache.begin(tokens, &mut workspace)?;
    pass.attend(0, &pool, &mut workspace, &q, &k, &v, &mut vec![0.0; q.len()])?;
    pass.finish(&pool, &mut workspace)
}

/// A seed: the bytes of a cache of this spec that has seen some tokens.
///
/// # Panics
/// When the spec is none.
pub fn saved(spec: &str) -> Vec<u8> {
    let spec = spec.parse().expect("the specs of seeds parse");
    let mut cache = Cache::new(shape(), &spec, 1).expect("they fit the shape");
    [TOKENS - 2, 1, 1].into_iter().for_each(|tokens| run(&mut cache, tokens).expect("the tokens are finite"));
    cache.to_bytes()
}

/// Reads bytes as a saved cache: an error, or a cache that is written back the same and goes on.
///
/// The checksum would stop nearly every mutation at the door, so the bytes are tried as they are and once more with the
/// checksum put right.
pub fn cache(data: &[u8]) {
    read(data);
    if data.len() >= HEADER {
        let mut repaired = data.to_vec();
        let checksum = crc32fast::hash(&data[HEADER..]);
        repaired[HEADER - 4..HEADER].copy_from_slice(&checksum.to_le_bytes());
        read(&repaired);
    }
}

fn read(data: &[u8]) {
    let Ok(mut cache) = Cache::from_bytes(data, shape()) else { return };
    let written = cache.to_bytes();
    let again = Cache::from_bytes(&written, shape()).map(|cache| cache.to_bytes());
    assert_eq!(again.as_ref(), Ok(&written));
    // Errors are fine here: what was stored may be anything.
    for tokens in [1, 3] {
        let _ = run(&mut cache, tokens);
    }
    cache.to_bytes();
}
