use super::{Parts, Sample, Test, Work, sample::mean_and_deviation};
use crate::{EvalError, Machine};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{Cache, Part, Spec};
use sketchkv_engine::EngineError;
use sketchkv_model::{Logits, Model, Sampler, Sampling, Sequence, Workspace};
use std::time::Instant;

/// What to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchOptions {
    /// The caches, measured in turn within each repetition, so that a noisy moment hits all of them.
    pub specs: Vec<Spec>,
    /// The tests, as [`Test::all`] orders them.
    pub tests: Vec<Test>,
    /// Samples of each test.
    pub repetitions: usize,
    /// Whether generation is run once more for the time of its parts.
    pub profile: bool,
    /// Seed of the caches.
    pub seed: u64,
}

/// A finished benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// The model's name.
    pub model: String,
    /// Bytes of its weights in memory.
    pub weight_bytes: usize,
    /// Threads that ran it.
    pub threads: usize,
    /// Seed of the caches.
    pub seed: u64,
    /// The machine.
    pub machine: Machine,
    /// By test, then by cache.
    pub rows: Vec<BenchRow>,
}

/// One test with one cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    /// `pp512`, `tg128 @ d4096`.
    pub test: String,
    /// Tokens of the prompt; 0 where tokens are generated.
    pub n_prompt: usize,
    /// Tokens generated; 0 where a prompt is taken in.
    pub n_gen: usize,
    /// Tokens in the cache before.
    pub n_depth: usize,
    /// The preset that the spec was written as.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The cache.
    pub spec: String,
    /// Mean of the samples, in tokens per second.
    pub avg_ts: f64,
    /// Their standard deviation.
    pub stddev_ts: f64,
    /// Tokens per second of each repetition.
    pub samples_ts: Vec<f64>,
    /// Bytes of the cache after the test.
    pub kv_bytes: usize,
    /// The same in percent of an f16 cache of all tokens seen.
    pub kv_percent: f64,
    /// Where the time of a generated token goes, if asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub profile: Option<Parts>,
}

/// Hears of a benchmark as it goes, and may make it wait.
pub trait Listener {
    /// `test` will be timed with `spec`. What this takes is not timed.
    ///
    /// # Errors
    /// To end the benchmark.
    fn before(&mut self, test: &Test, spec: &Spec) -> Result<(), EvalError>;

    /// It was timed; also when the cache was filled to the next depth.
    ///
    /// # Errors
    /// To end the benchmark.
    fn after(&mut self, sample: &Sample) -> Result<(), EvalError>;
}

/// Measures every test with every cache on `tokens`, which go round when they end.
///
/// A cache is filled to each depth once, by prefill; every repetition starts from a copy of it. Before generated tokens
/// are timed, one is generated to warm up. As in llama-bench, nothing is sampled: the tokens are known.
///
/// # Errors
/// When a spec does not fit the model, a test is longer than the context, there are no tokens, or the listener says so.
pub fn bench(
    model: &Model,
    tokens: &[u32],
    options: &BenchOptions,
    listener: &mut dyn Listener,
) -> Result<Bench, EvalError> {
    if tokens.is_empty() || options.repetitions == 0 {
        return Err(EvalError::Input("a benchmark needs tokens and at least one repetition".into()));
    }
    let mut bench = Bench {
        model: model.config().name.clone(),
        weight_bytes: model.weight_bytes(),
        threads: model.pool().threads(),
        seed: options.seed,
        machine: Machine::this(),
        rows: vec![],
    };
    let mut lanes = options
        .specs
        .iter()
        .map(|spec| Ok(Lane { spec, cache: Cache::new(model.cache_shape(), spec, options.seed)? }))
        .collect::<Result<Vec<Lane<'_>>, EvalError>>()?;
    let mut bed = Bed { model, tokens, workspace: Workspace::new() };
    bed.warm_up(&options.tests, options.seed)?;
    for test in &options.tests {
        for lane in &mut lanes {
            bed.fill(lane, test.depth, listener)?;
        }
        let mut rows: Vec<BenchRow> = lanes.iter().map(|lane| row(test, lane.spec)).collect();
        for repetition in 0..options.repetitions {
            for (lane, row) in lanes.iter().zip(&mut rows) {
                listener.before(test, lane.spec)?;
                let sample = bed.time(lane, test, repetition)?;
                row.samples_ts.push(sample.rate());
                row.kv_bytes = sample.kv_bytes;
                listener.after(&sample)?;
            }
        }
        let full = test.length() * model.cache_shape().f16_bytes_per_token();
        for (lane, row) in lanes.iter().zip(&mut rows) {
            (row.avg_ts, row.stddev_ts) = mean_and_deviation(&row.samples_ts);
            row.kv_percent = 100.0 * row.kv_bytes as f64 / full as f64;
            if let (true, Work::Generate(count)) = (options.profile, test.work) {
                row.profile = Some(bed.profile(lane, count, options.seed)?);
            }
        }
        bench.rows.extend(rows);
    }
    Ok(bench)
}

fn row(test: &Test, spec: &Spec) -> BenchRow {
    let (n_prompt, n_gen) = match test.work {
        Work::Prompt(tokens) => (tokens, 0),
        Work::Generate(tokens) => (0, tokens),
    };
    BenchRow {
        test: test.to_string(),
        n_prompt,
        n_gen,
        n_depth: test.depth,
        name: spec.preset.map(str::to_owned),
        spec: spec.to_string(),
        avg_ts: 0.0,
        stddev_ts: 0.0,
        samples_ts: vec![],
        kv_bytes: 0,
        kv_percent: 0.0,
        profile: None,
    }
}

/// A cache, filled as deep as the tests have come.
struct Lane<'a> {
    spec: &'a Spec,
    cache: Cache,
}

/// What the caches are measured on.
struct Bed<'a> {
    model: &'a Model,
    tokens: &'a [u32],
    workspace: Workspace,
}

impl Bed<'_> {
    /// Runs the widest chunk of the tests once, so that the first cache does not pay for buffers that all share.
    fn warm_up(&mut self, tests: &[Test], seed: u64) -> Result<(), EvalError> {
        let widest = tests.iter().map(|test| test.depth.max(test.tokens())).max().unwrap_or(1);
        let mut cache = Cache::new(self.model.cache_shape(), &Spec::default(), seed)?;
        let tokens = widest.min(self.model.chunk()).min(self.model.config().context);
        self.run(&mut cache, tokens)
    }

    /// Runs the `count` tokens that come next, at once.
    fn run(&mut self, cache: &mut Cache, count: usize) -> Result<(), EvalError> {
        let from = cache.position();
        let tokens: Vec<u32> =
            (from..from + count).map(|position| self.tokens[position % self.tokens.len()]).collect();
        let mut batch = [Sequence { tokens: &tokens, cache }];
        self.model.forward(&mut batch, &mut self.workspace, Logits::Last)?;
        Ok(())
    }

    /// Takes `lane` to `depth`.
    fn fill(
        &mut self,
        lane: &mut Lane<'_>,
        depth: usize,
        listener: &mut dyn Listener,
    ) -> Result<(), EvalError> {
        let seen = lane.cache.position();
        let Some(count) = depth.checked_sub(seen).filter(|&count| count > 0) else { return Ok(()) };
        let test = Test { work: Work::Prompt(count), depth: seen };
        listener.before(&test, lane.spec)?;
        let begin = Instant::now();
        self.run(&mut lane.cache, count)?;
        let seconds = begin.elapsed().as_secs_f64();
        listener.after(&sample(&test, lane.spec, 0, seconds, &lane.cache))
    }

    /// A copy of the lane's cache that shares no page with it: the first write to a shared one would copy it.
    fn copy(&self, lane: &Lane<'_>) -> Cache {
        let mut cache = lane.cache.fork();
        cache.unshare();
        cache
    }

    fn time(&mut self, lane: &Lane<'_>, test: &Test, repetition: usize) -> Result<Sample, EvalError> {
        let mut cache = self.copy(lane);
        let seconds = match test.work {
            Work::Prompt(count) => {
                let begin = Instant::now();
                self.run(&mut cache, count)?;
                begin.elapsed()
            }
            Work::Generate(count) => {
                self.run(&mut cache, 1)?;
                let begin = Instant::now();
                for _ in 0..count {
                    self.run(&mut cache, 1)?;
                }
                begin.elapsed()
            }
        };
        Ok(sample(test, lane.spec, repetition, seconds.as_secs_f64(), &cache))
    }

    /// Generates `count` tokens with the clocks running, and samples from what the model gives.
    fn profile(&mut self, lane: &Lane<'_>, count: usize, seed: u64) -> Result<Parts, EvalError> {
        let mut cache = self.copy(lane);
        let mut sampler = Sampler::new(Sampling { seed, ..Sampling::default() })?;
        self.run(&mut cache, 1)?;
        cache.start_profile();
        self.workspace.start_profile();
        let begin = Instant::now();
        let mut sampling = std::time::Duration::ZERO;
        for _ in 0..count {
            self.run(&mut cache, 1)?;
            let begin = Instant::now();
            sampler.sample(self.workspace.logits()).map_err(EngineError::from)?;
            sampling += begin.elapsed();
        }
        let seconds = begin.elapsed().as_secs_f64();
        let mut profile = self.workspace.stop_profile();
        profile += cache.stop_profile();
        profile.add(Part::Sampling, sampling);
        Ok(Parts::of(&profile, count, seconds, self.model, &cache))
    }
}

fn sample(test: &Test, spec: &Spec, repetition: usize, seconds: f64, cache: &Cache) -> Sample {
    Sample {
        test: test.to_string(),
        spec: spec.to_string(),
        repetition,
        tokens: test.tokens(),
        seconds,
        kv_bytes: cache.ledger().total(),
    }
}
