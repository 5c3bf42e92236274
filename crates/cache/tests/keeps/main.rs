//! Every keep against its formula: the same tokens kept at every step, the same outputs.
//!
//! A reference in f64 follows a cache chunk by chunk, of one token or of many: it computes the attention over what is kept,
//! lets a [`Rule`] judge every token from the stream itself, and says which tokens must go. Where the cache chooses otherwise the two
//! importances must be equal to rounding; the reference then goes on from the cache's choice.

#[path = "../common/mod.rs"]
mod common;
mod formulas;
mod sketches;

use common::{Random, Stream};
use formulas::Rule;
use sketchkv_cache::Context;
use sketchkv_cache::{Cache, CacheShape, LayerShape, OutputProjection, Rotation, Spec};
use sketchkv_kernels::ThreadPool;

const SEED: u64 = 1;

/// One KV head's view of a stream, in f64.
pub(crate) struct View<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) kv_head: usize,
    pub(crate) terms: Terms,
}

/// Who may go, and how many.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    sinks: usize,
    recent: usize,
    batch: usize,
    limit: usize,
    /// Tokens that come at once.
    chunk: usize,
}

impl Terms {
    /// How many of `count` candidates must go.
    pub(crate) fn excess(&self, count: usize) -> usize {
        match count.saturating_sub(self.limit) {
            0 => 0,
            over => over.max(self.batch.min((count - self.sinks - self.chunk.min(self.limit / 4)) / 4)),
        }
    }

    /// Whether the token at `position` may go when `next` is the position after the newest.
    pub(crate) fn is_free(&self, position: usize, next: usize) -> bool {
        position >= self.sinks && position + self.recent < next
    }
}

impl View<'_> {
    pub(crate) fn d(&self) -> usize {
        self.stream.shape.layers[0].key_dim
    }

    pub(crate) fn group(&self) -> usize {
        self.stream.shape.layers[0].group()
    }

    fn row<'a>(&self, all: &'a [f32], token: usize, rows: usize, row: usize) -> &'a [f32] {
        &all[(token * rows + row) * self.d()..][..self.d()]
    }

    pub(crate) fn key(&self, token: usize) -> &[f32] {
        self.row(&self.stream.k[0], token, self.stream.shape.layers[0].kv_heads, self.kv_head)
    }

    pub(crate) fn value(&self, token: usize) -> &[f32] {
        self.row(&self.stream.v[0], token, self.stream.shape.layers[0].kv_heads, self.kv_head)
    }

    pub(crate) fn query(&self, token: usize, member: usize) -> &[f32] {
        let head = self.kv_head * self.group() + member;
        self.row(&self.stream.q[0], token, self.stream.shape.layers[0].heads, head)
    }

    /// Attention weights of a query over some tokens.
    pub(crate) fn attention(&self, query: &[f64], tokens: &[usize]) -> Vec<f64> {
        let logit = |&t: &usize| dot(query, &wide(self.key(t))) / (self.d() as f64).sqrt();
        softmax(&tokens.iter().map(logit).collect::<Vec<_>>())
    }

    /// Attention weights of the newest token, mean over the group.
    fn mass(&self, token: usize, tokens: &[usize]) -> Vec<f64> {
        let group = self.group();
        let mut mass = vec![0.0; tokens.len()];
        for member in 0..group {
            let weights = self.attention(&wide(self.query(token, member)), tokens);
            mass.iter_mut().zip(weights).for_each(|(m, w)| *m += w / group as f64);
        }
        mass
    }

    pub(crate) fn own_seed(&self) -> u64 {
        Context::new(&self.stream.shape, 0, self.kv_head, SEED).own_seed()
    }
}

pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| x as f64).collect()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(crate) fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

pub(crate) fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

fn shape(head_dim: usize, rope: bool) -> CacheShape {
    let pairs = head_dim / 2;
    let rotation = rope.then(|| Rotation {
        inverse_frequencies: (0..pairs).map(|i| 10_000f32.powf(-(i as f32) / pairs as f32)).collect(),
    });
    let output = Some(OutputProjection::new(move || vec![common::output_grams(2, head_dim)]));
    let layer = LayerShape { rotation, ..LayerShape::new(6, 2, head_dim) };
    CacheShape { output, ..CacheShape::uniform(1, layer, 4096) }
}

/// Keys around a dozen centres that come back again and again, and queries that look for them.
fn recurring(shape: &CacheShape, tokens: usize, seed: u64) -> Stream {
    let mut stream = Stream::new(shape, tokens, seed);
    let mut random = Random::new(seed ^ 0x5eed);
    let d = shape.layers[0].key_dim;
    let centres: Vec<f32> = (0..12 * d).map(|_| random.normal()).collect();
    let mut centre = |x: &mut [f32], noise: f32| {
        let at = (random.uniform() * 12.0) as usize * d;
        x.iter_mut().zip(&centres[at..]).for_each(|(x, centre)| *x = *x * noise + centre);
    };
    stream.k[0].chunks_exact_mut(d).for_each(|k| centre(k, 0.2));
    stream.q[0].chunks_exact_mut(d).for_each(|q| centre(q, 0.5));
    stream
}

/// What the reference follows the cache with.
struct Case<'a> {
    spec: &'a str,
    terms: Terms,
    same_in_all_heads: bool,
    /// Relative difference of importances that counts as rounding.
    rounding: f64,
    /// Of how many that go at most one may be another one of equal importance.
    untied: usize,
}

impl Case<'_> {
    /// The tokens that must go, of `candidates` in ascending order.
    fn victims(&self, candidates: &[usize], importance: &[f64]) -> Vec<usize> {
        let excess = self.terms.excess(candidates.len());
        let next = candidates.last().unwrap() + 1;
        let mut free: Vec<(f64, usize)> = candidates
            .iter()
            .zip(importance)
            .filter(|&(&position, _)| self.terms.is_free(position, next))
            .map(|(&position, &importance)| (importance, position))
            .collect();
        free.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut victims: Vec<usize> = free[..excess].iter().map(|x| x.1).collect();
        victims.sort();
        victims
    }

    fn follow(&self, stream: &Stream, rule: &dyn Fn(&View<'_>) -> Box<dyn Rule>) {
        let shape = &stream.shape;
        let spec: Spec = self.spec.parse().unwrap();
        let mut cache = Cache::new(shape.clone(), &spec, SEED).unwrap();
        let pool = ThreadPool::new(1);
        let views: Vec<View<'_>> = (0..shape.layers[0].kv_heads)
            .map(|kv_head| View { stream, kv_head, terms: self.terms })
            .collect();
        let mut rules: Vec<Box<dyn Rule>> = views.iter().map(rule).collect();
        let mut kept = vec![vec![]; shape.layers[0].kv_heads];
        let (mut chosen, mut ties) = (0, 0);
        let (heads, d) = (shape.layers[0].heads, shape.layers[0].key_dim);
        for first in (0..stream.tokens).step_by(self.terms.chunk) {
            let end = (first + self.terms.chunk).min(stream.tokens);
            let token = end - 1;
            let outputs = stream.run(&mut cache, &pool, first, end - first, end - first);
            let mut importances = vec![];
            for ((view, rule), kept) in views.iter().zip(&mut rules).zip(&mut kept) {
                let old = kept.len();
                for token in first..end {
                    kept.push(token);
                    for member in 0..view.group() {
                        let head = view.kv_head * view.group() + member;
                        let want = stream.attention(0, head, token, kept);
                        let got = &outputs[0][((token - first) * heads + head) * d..][..d];
                        let off = common::largest_difference(got, &want);
                        assert!(off < 2e-5, "{}: token {token}, head {head}: output off by {off}", self.spec);
                    }
                    rule.see(view, token, kept, &view.mass(token, kept));
                }
                rule.arrive(view, &kept[..old], &kept[old..]);
                // Importance is of use, and may be dear, only when something must go.
                let full = kept.len() > self.terms.limit;
                importances.push(if full {
                    rule.importance(view, token, kept)
                } else {
                    vec![0.0; kept.len()]
                });
            }
            if self.same_in_all_heads {
                let heads = importances.len() as f64;
                let mean = |i: usize| importances.iter().map(|all| all[i]).sum::<f64>() / heads;
                let mean: Vec<f64> = (0..importances[0].len()).map(mean).collect();
                importances.fill(mean);
            }
            for ((head, kept), importance) in kept.iter_mut().enumerate().zip(&importances) {
                let want = self.victims(kept, importance);
                let now = cache.positions(0, head);
                let got: Vec<usize> = kept.iter().copied().filter(|p| !now.contains(p)).collect();
                assert_eq!(got.len(), want.len(), "{}: token {token}, head {head}", self.spec);
                assert_eq!(now.len() + got.len(), kept.len(), "{}: token {token}, head {head}", self.spec);
                chosen += want.len();
                let of = |p: &usize| importance[kept.binary_search(p).unwrap()];
                for instead in got.iter().filter(|p| !want.contains(p)) {
                    ties += 1;
                    let nearest =
                        want.iter().filter(|p| !got.contains(p)).map(of).fold(f64::NEG_INFINITY, f64::max);
                    let x = of(instead);
                    assert!(
                        (x - nearest).abs() <= self.rounding * (x.abs() + nearest.abs()),
                        "{}: token {token}, head {head}: evicted {got:?} where {want:?} belong: {x} and {nearest}",
                        self.spec
                    );
                }
                *kept = now;
            }
        }
        let Case { spec, terms: Terms { chunk, .. }, untied, .. } = self;
        assert!(chosen > 400, "{spec}, {chunk} at once: only {chosen} evicted");
        assert!(ties * untied <= chosen, "{spec}, {chunk} at once: {ties} ties in {chosen}");
    }
}

/// As many tokens come one at a time, and in chunks of which three quarters go at once.
const CHUNKS: [usize; 2] = [1, 240];

/// Follows `name(parameters)` on random, on recurring and on real keys.
fn check(name: &str, parameters: &str, batch: usize, rule: &dyn Fn(&View<'_>) -> Box<dyn Rule>) {
    check_under(name, parameters, "", batch, rule);
}

/// The same under a budget, written with its `+`.
fn check_under(
    name: &str,
    parameters: &str,
    budget: &str,
    batch: usize,
    rule: &dyn Fn(&View<'_>) -> Box<dyn Rule>,
) {
    for (head_dim, rope, tokens) in [(64, true, 330), (40, false, 330)] {
        let shape = shape(head_dim, rope);
        let streams = [(Stream::new(&shape, tokens, 7), 60), (recurring(&shape, tokens, 8), 48)];
        let real = rope.then(|| (Stream::real(), 60));
        for (stream, limit) in streams.into_iter().chain(real) {
            let full = format!("{name}(sinks=2,recent=9{parameters})+f32{budget}@{limit}tok");
            for chunk in CHUNKS {
                let case = Case {
                    spec: &full,
                    terms: Terms { sinks: 2, recent: 9, batch, limit, chunk },
                    same_in_all_heads: name == "tova",
                    rounding: 3e-4,
                    // Of what nobody has looked at all counts as the mean, which does not move when such a token goes.
                    untied: if name == "kvzip" { 2 } else { 50 },
                };
                case.follow(&stream, rule);
            }
        }
    }
}

#[test]
fn h2o() {
    for decay in [1.0, 0.9] {
        let rule = |_: &View<'_>| -> Box<dyn Rule> { Box::new(formulas::HeavyHitters::new(decay)) };
        check("h2o", &format!(",decay={decay}"), 1, &rule);
    }
}

#[test]
fn critical() {
    for interval in [1, 8] {
        let rule = |view: &View<'_>| -> Box<dyn Rule> {
            Box::new(formulas::Critical::new(formulas::HeavyHitters::new(0.9), view))
        };
        let budget = format!("+critical(interval={interval})");
        check_under("h2o", ",decay=0.9", &budget, interval, &rule);
    }
    assert!(
        "h2o+critical+ada@25%".parse::<Spec>().is_ok() && "h2o+critical+pyramid@25%".parse::<Spec>().is_ok()
    );
    let error = |spec: &str, shape: CacheShape| {
        Cache::new(shape, &spec.parse().unwrap(), SEED).err().unwrap().to_string()
    };
    assert!(error("window+critical@64tok", shape(64, true)).contains("`h2o`, `snapkv` or `expected`"));
    let blind = CacheShape { output: None, ..shape(64, true) };
    assert!(error("h2o+critical@64tok", blind).contains("output projection, which was not given"));
}

/// Where heads compete the least important of all go together, when three quarters of a chunk do: within a layer as they are,
/// in the whole cache relative to the sum over their head; no head falls below its floor.
#[test]
fn heads_compete_when_three_quarters_of_a_chunk_go() {
    const TOKENS: usize = 240;
    let (shape, terms) = (shape(64, true), Terms { sinks: 2, recent: 9, batch: 1, limit: 60, chunk: TOKENS });
    let mut stream = recurring(&shape, TOKENS, 11);
    // The values of the second head are three times as large.
    stream.v[0].chunks_exact_mut(64).skip(1).step_by(2).flatten().for_each(|v| *v *= 3.0);
    let all: Vec<usize> = (0..TOKENS).collect();
    let importances: Vec<Vec<f64>> = (0..2)
        .map(|kv_head| {
            let view = View { stream: &stream, kv_head, terms };
            let mut rule = formulas::Expected { cov: "diag", horizon: 300, weighs_values: true };
            rule.importance(&view, TOKENS - 1, &all)
        })
        .collect();
    for (budget, relative) in [("ada", false), ("adaptive", true)] {
        for floor in [0.2, 0.95] {
            let mut free = vec![];
            for (head, importance) in importances.iter().enumerate() {
                let sum = if relative { importance.iter().sum() } else { 1.0 };
                let may_go = all.iter().filter(|&&position| terms.is_free(position, TOKENS));
                free.extend(may_go.map(|&position| (importance[position] / sum, position, head)));
            }
            free.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
            let (mut gone, mut excess) = ([vec![], vec![]], 2 * (TOKENS - terms.limit));
            for (_, position, head) in free {
                if excess > 0 && TOKENS - gone[head].len() > (terms.limit as f64 * floor) as usize {
                    gone[head].push(position);
                    excess -= 1;
                }
            }
            let spec = format!(
                "expected(cov=diag,horizon=300,interval=1,sinks=2,recent=9)+f32+{budget}(floor={floor})@60tok"
            );
            let mut cache = Cache::new(shape.clone(), &spec.parse().unwrap(), SEED).unwrap();
            stream.run(&mut cache, &ThreadPool::new(2), 0, TOKENS, TOKENS);
            for (kv_head, gone) in gone.iter().enumerate() {
                let mut want = all.clone();
                want.retain(|position| !gone.contains(position));
                assert_eq!(cache.positions(0, kv_head), want, "{spec}, head {kv_head}");
            }
            let kept = cache.kept(0);
            assert_eq!(kept.iter().sum::<usize>(), 2 * terms.limit, "{spec}");
            // The louder head takes all that the other may give, unless heads are compared with themselves.
            let least = (terms.limit as f64 * floor) as usize;
            assert!(relative || kept[0] < kept[1], "{spec}: {kept:?}");
            assert!(relative || floor == 0.2 || kept[0] == least, "{spec}: {kept:?}");
        }
    }
}

/// A keep that weighs values itself leaves that to the refinement: they count once.
#[test]
fn expected_and_critical() {
    let rule = |view: &View<'_>| -> Box<dyn Rule> {
        let expected = formulas::Expected { cov: "diag", horizon: 300, weighs_values: false };
        Box::new(formulas::Critical::new(expected, view))
    };
    check_under("expected", ",cov=diag,horizon=300,interval=6", "+critical(interval=6)", 6, &rule);
}

/// What of a value the output does not see moves importance of its own, and not that which is refined.
#[test]
fn under_critical_no_keep_weighs_values() {
    let d = 64;
    // Of the value all but the first number is projected.
    let gram =
        move || (0..2 * d * d).map(|at| f32::from(at % (d * d) % (d + 1) == 0 && at % d > 0)).collect();
    let output = Some(OutputProjection::new(move || vec![gram()]));
    let shape = CacheShape { output, ..shape(d, true) };
    let stream = Stream::new(&shape, 330, 7);
    let mut louder = Stream::new(&shape, 330, 7);
    let mut random = Random::new(3);
    louder.v[0].chunks_exact_mut(d).for_each(|v| v[0] += 40.0 * random.normal());
    let kept = |stream: &Stream, spec: &str, chunk: usize| {
        let mut cache = Cache::new(shape.clone(), &spec.parse().unwrap(), SEED).unwrap();
        stream.run(&mut cache, &ThreadPool::new(1), 0, stream.tokens, chunk);
        [cache.positions(0, 0), cache.positions(0, 1)]
    };
    for keep in ["expected(interval=6)", "foreseen(interval=6)"] {
        for chunk in [1, 240] {
            let alone = format!("{keep}+f32@60tok");
            assert_ne!(kept(&stream, &alone, chunk), kept(&louder, &alone, chunk), "{alone}, chunk {chunk}");
            let refined = format!("{keep}+f32+critical(interval=6)@60tok");
            assert_eq!(
                kept(&stream, &refined, chunk),
                kept(&louder, &refined, chunk),
                "{refined}, chunk {chunk}"
            );
        }
    }
}

#[test]
fn tova() {
    check("tova", "", 1, &|_| Box::new(formulas::Tova::default()));
}

#[test]
fn snapkv() {
    for (window, pool, interval) in [(6, 5, 1), (16, 1, 7), (9, 4, 100)] {
        let rule = |_: &View<'_>| -> Box<dyn Rule> { Box::new(formulas::SnapKv { window, pool }) };
        check("snapkv", &format!(",window={window},pool={pool},interval={interval}"), interval, &rule);
    }
}

#[test]
fn kvzip() {
    for interval in [1, 6] {
        let rule = |_: &View<'_>| -> Box<dyn Rule> { Box::new(formulas::KvZip::default()) };
        check("kvzip", &format!(",interval={interval}"), interval, &rule);
    }
}

#[test]
fn keydiff() {
    for interval in [1, 8] {
        let rule = |_: &View<'_>| -> Box<dyn Rule> { Box::new(formulas::KeyDifference) };
        check("keydiff", &format!(",interval={interval}"), interval, &rule);
    }
}

#[test]
fn knorm() {
    check("knorm", "", 1, &|_| Box::new(formulas::KeyNorm));
}

#[test]
fn expected() {
    for (cov, horizon, interval) in [("full", 40, 8), ("diag", 300, 6), ("none", 1, 3)] {
        let rule = |_: &View<'_>| -> Box<dyn Rule> {
            Box::new(formulas::Expected { cov, horizon, weighs_values: true })
        };
        check("expected", &format!(",cov={cov},horizon={horizon},interval={interval}"), interval, &rule);
    }
}

#[test]
fn hashevict() {
    for bits in [16, 37, 100] {
        let rule = |view: &View<'_>| -> Box<dyn Rule> { Box::new(sketches::HashEvict::new(view, bits)) };
        check("hashevict", &format!(",bits={bits}"), 1, &rule);
    }
}

#[test]
fn cms() {
    for (width, depth, key, bits, decay, interval) in
        [(512, 4, "content", 12, 0.97, 5), (31, 2, "content", 5, 1.0, 1), (64, 3, "position", 12, 0.9, 9)]
    {
        let rule = |view: &View<'_>| -> Box<dyn Rule> {
            let counts = sketches::CountMinRows::new(view, width, depth);
            Box::new(sketches::Counted::new(view, key, bits, decay, Box::new(counts)))
        };
        let parameters =
            format!(",width={width},depth={depth},key={key},bits={bits},decay={decay},interval={interval}");
        check("cms", &parameters, interval, &rule);
    }
}

#[test]
fn a_wide_count_min_sketch_is_an_exact_dictionary() {
    for key in ["content", "position"] {
        let rule = |view: &View<'_>| -> Box<dyn Rule> {
            Box::new(sketches::Counted::new(view, key, 9, 0.95, Box::new(sketches::Exact::default())))
        };
        check("cms", &format!(",width=100000,depth=5,key={key},bits=9,decay=0.95,interval=4"), 4, &rule);
    }
}

#[test]
fn countsketch() {
    for (width, depth, key, bits, decay, interval) in
        [(512, 3, "content", 12, 0.97, 5), (40, 5, "content", 6, 1.0, 1), (64, 3, "position", 12, 0.9, 9)]
    {
        let rule = |view: &View<'_>| -> Box<dyn Rule> {
            let counts = sketches::SignedRows::new(view, width, depth);
            Box::new(sketches::Counted::new(view, key, bits, decay, Box::new(counts)))
        };
        let parameters =
            format!(",width={width},depth={depth},key={key},bits={bits},decay={decay},interval={interval}");
        check("countsketch", &parameters, interval, &rule);
    }
}

#[test]
fn race() {
    for (rows, bits, key, decay, interval) in
        [(8, 6, "content", 0.97, 5), (3, 4, "content", 1.0, 1), (8, 8, "position", 0.9, 9)]
    {
        let rule = |view: &View<'_>| -> Box<dyn Rule> {
            let counts = sketches::Buckets::new(rows, bits);
            Box::new(sketches::Counted::new(view, key, rows * bits, decay, Box::new(counts)))
        };
        let parameters = format!(",rows={rows},bits={bits},key={key},decay={decay},interval={interval}");
        check("race", &parameters, interval, &rule);
    }
}

#[test]
fn window_and_random() {
    check_plain("window(sinks=2)", 1, &|_| Box::new(formulas::Oldest));
    check_plain("random(sinks=2,recent=1)", 1, &|view| Box::new(formulas::Hashed { seed: view.own_seed() }));
}

fn check_plain(keep: &str, recent: usize, rule: &dyn Fn(&View<'_>) -> Box<dyn Rule>) {
    let stream = Stream::new(&shape(64, true), 330, 7);
    let spec = format!("{keep}+f32@60tok");
    for chunk in CHUNKS {
        let case = Case {
            spec: &spec,
            terms: Terms { sinks: 2, recent, batch: 1, limit: 60, chunk },
            same_in_all_heads: false,
            rounding: 0.0,
            untied: 1000,
        };
        case.follow(&stream, rule);
    }
}

/// Where importance is a token's own and never changes, the tokens kept do not depend on the chunk.
#[test]
fn what_does_not_depend_on_the_chunk() {
    let shape = shape(64, true);
    let stream = Stream::new(&shape, 600, 3);
    let pool = ThreadPool::new(1);
    for keep in ["window", "random(recent=20)", "knorm(recent=20)"] {
        let kept = |chunk: usize| {
            let spec: Spec = format!("{keep}+f32@100tok").parse().unwrap();
            let mut cache = Cache::new(shape.clone(), &spec, SEED).unwrap();
            stream.run(&mut cache, &pool, 0, 600, chunk);
            (cache.positions(0, 0), cache.positions(0, 1))
        };
        let one = kept(1);
        assert_eq!(one.0.len(), 100);
        for chunk in [7, 64, 512] {
            assert_eq!(kept(chunk), one, "{keep}, chunk {chunk}");
        }
    }
}

/// The seed, and nothing else, decides what a method that draws at random keeps.
#[test]
fn a_seed_decides() {
    let shape = shape(64, true);
    let stream = recurring(&shape, 300, 3);
    let pool = ThreadPool::new(1);
    for keep in ["random", "hashevict", "cms(width=32)", "countsketch(width=32)", "race(rows=2,bits=3)"] {
        let kept = |seed: u64| {
            let spec: Spec = format!("{keep}+f32@50tok").parse().unwrap();
            let mut cache = Cache::new(shape.clone(), &spec, seed).unwrap();
            stream.run(&mut cache, &pool, 0, 300, 1);
            (cache.positions(0, 0), cache.positions(0, 1))
        };
        assert_eq!(kept(5), kept(5), "{keep}");
        assert_ne!(kept(5), kept(6), "{keep}");
    }
}
