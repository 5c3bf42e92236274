use super::{Parts, Sample, Test, Work, sample::mean_and_deviation};
use crate::metrics::median;
use crate::{EvalError, Failure, Footprint, Machine};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{Cache, Part, Spec};
use sketchkv_engine::EngineError;
use sketchkv_kernels::{MemoryProbe, int8_peak};
use sketchkv_model::{Logits, Model, Sampler, Sampling, Sequence, Workspace};
use std::{
    slice::from_mut,
    time::{Duration, Instant},
};

/// Several times the last-level cache of a processor of this time.
const MEMORY_BYTES: usize = 512 << 20;
/// Tokens between two readings of memory.
const PROBE_INTERVAL: usize = 4;

/// What to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchOptions {
    /// The caches, measured in turn within each repetition, so that a noisy moment hits all of them.
    pub specs: Vec<Spec>,
    /// The tests, as [`Test::all`] orders them.
    pub tests: Vec<Test>,
    /// Samples of each test.
    pub repetitions: usize,
    /// Whether generation is run once more for the time of its parts, and what the machine gives at best is measured in
    /// turn with it.
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
    /// Caches that could not be measured, or not to the end.
    pub failed: Vec<Failure>,
    /// What to know before reading the rows: caps below the least that a cache needs.
    pub warnings: Vec<String>,
}

/// One test with one cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    /// `pp512`, `tg128 @ d4096`.
    pub test: String,
    /// Tokens of the prompt; 0 where tokens are generated.
    pub n_prompt: usize,
    /// Tokens generated, of each sequence; 0 where a prompt is taken in.
    pub n_gen: usize,
    /// Sequences that are run together, a cache each.
    #[serde(default = "alone")]
    pub n_seq: usize,
    /// Tokens in the cache before.
    pub n_depth: usize,
    /// The preset that the spec was written as.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The cache.
    pub spec: String,
    /// Mean of the samples, in tokens per second, of all sequences.
    pub avg_ts: f64,
    /// Their standard deviation.
    pub stddev_ts: f64,
    /// Tokens per second of each repetition.
    pub samples_ts: Vec<f64>,
    /// 8-bit multiply-adds per second of the products with weights, of a prompt; the mean.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub multiply_adds_per_s: Option<f64>,
    /// What the processor gives at best, of a prompt, if asked for: the median of measurements in turn with the repetitions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peak_multiply_adds_per_s: Option<f64>,
    /// The cache of one sequence after the test.
    #[serde(flatten)]
    pub footprint: Footprint,
    /// Where the time of a generated token goes, if asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub profile: Option<Parts>,
}

fn alone() -> usize {
    1
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

    /// A cache failed; the others go on without it.
    ///
    /// # Errors
    /// To end the benchmark.
    fn failed(&mut self, failure: &Failure) -> Result<(), EvalError>;
}

/// Measures every test with every cache on `tokens`, which go round when they end.
///
/// A cache is filled to each depth once, by prefill; every repetition starts from a copy of it. Before generated tokens
/// are timed, one is generated to warm up. As in llama-bench, nothing is sampled: the tokens are known. A cache that the
/// model refuses, or that fails on the way, is left out from there on.
///
/// # Errors
/// When the model refuses every spec, a test is longer than the context, there are no tokens, or the listener says so.
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
        failed: vec![],
        warnings: vec![],
    };
    let mut lanes = Lanes { going: vec![], failed: vec![], listener };
    let mut refused = vec![];
    for spec in &options.specs {
        match Cache::new(model.cache_shape(), spec, options.seed) {
            Ok(cache) => lanes.going.push(Lane { spec, cache, row: None, peaks: vec![] }),
            Err(error) => refused.push((spec, error)),
        }
    }
    if let (Some((_, error)), true) = (refused.first(), lanes.going.is_empty()) {
        return Err(error.clone().into());
    }
    for (spec, error) in refused {
        lanes.fail(spec, error)?;
    }
    let is_profiled = |test: &Test| matches!(test.work, Work::Generate { sequences: 1, .. });
    let memory = (options.profile && options.tests.iter().any(is_profiled))
        .then(|| MemoryProbe::new(model.pool(), MEMORY_BYTES));
    let mut bed = Bed { model, tokens, workspace: Workspace::new() };
    bed.warm_up(&options.tests, options.seed);
    for test in &options.tests {
        lanes.each(|lane| lane.way_to(test.depth), |lane, way| bed.fill(lane, way))?;
        lanes.going.iter_mut().for_each(|lane| lane.row = None);
        for repetition in 0..options.repetitions {
            lanes.each(
                |_| Some(*test),
                |lane, test| {
                    let before = bed.workspace.multiply_adds();
                    let is_prompt = matches!(test.work, Work::Prompt(_));
                    let peak = if options.profile && is_prompt { int8_peak(model.pool()) } else { None };
                    let sample = bed.time(lane, test, repetition)?;
                    let row = lane.row.get_or_insert_with(|| row(test, lane.spec, sample.footprint));
                    row.samples_ts.push(sample.rate());
                    if let Work::Prompt(count) = test.work {
                        let each = (bed.workspace.multiply_adds() - before) as f64 / count as f64;
                        row.multiply_adds_per_s = Some(each);
                    }
                    lane.peaks.extend(peak);
                    Ok(sample)
                },
            )?;
        }
        if let (Some(memory), Work::Generate { tokens, sequences: 1 }) = (&memory, test.work) {
            lanes.each_untold(|lane| {
                let profile = bed.profile(lane, tokens, options.seed, memory)?;
                lane.row.iter_mut().for_each(|row| row.profile = Some(profile.clone()));
                Ok(())
            })?;
        }
        for lane in &mut lanes.going {
            let Some(mut row) = lane.row.take() else { continue };
            (row.avg_ts, row.stddev_ts) = mean_and_deviation(&row.samples_ts);
            // Of a token, till now.
            row.multiply_adds_per_s = row.multiply_adds_per_s.map(|each| each * row.avg_ts);
            row.peak_multiply_adds_per_s = median(std::mem::take(&mut lane.peaks));
            bench.rows.push(row);
        }
    }
    bench.failed = lanes.failed;
    let warnings = bench.rows.iter().filter_map(|row| row.footprint.warning(&row.spec));
    bench.warnings = warnings.collect();
    Ok(bench)
}

/// The caches that are still measured, and those that failed.
struct Lanes<'a> {
    going: Vec<Lane<'a>>,
    failed: Vec<Failure>,
    listener: &'a mut dyn Listener,
}

impl<'a> Lanes<'a> {
    fn fail(&mut self, spec: &Spec, error: impl ToString) -> Result<(), EvalError> {
        let failure = Failure::of(spec, error);
        self.listener.failed(&failure)?;
        self.failed.push(failure);
        Ok(())
    }

    /// Lets every cache do what `test` says, if anything, and tells the listener. A cache that fails is left out.
    fn each(
        &mut self,
        test: impl Fn(&Lane<'a>) -> Option<Test>,
        mut run: impl FnMut(&mut Lane<'a>, &Test) -> Result<Sample, EvalError>,
    ) -> Result<(), EvalError> {
        for mut lane in std::mem::take(&mut self.going) {
            if let Some(test) = test(&lane) {
                self.listener.before(&test, lane.spec)?;
                match run(&mut lane, &test) {
                    Ok(sample) => self.listener.after(&sample)?,
                    Err(error) => {
                        self.fail(lane.spec, error)?;
                        continue;
                    }
                }
            }
            self.going.push(lane);
        }
        Ok(())
    }

    /// As [`Lanes::each`] for what the listener need not know of.
    fn each_untold(
        &mut self,
        mut run: impl FnMut(&mut Lane<'a>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        for mut lane in std::mem::take(&mut self.going) {
            match run(&mut lane) {
                Ok(()) => self.going.push(lane),
                Err(error) => self.fail(lane.spec, error)?,
            }
        }
        Ok(())
    }
}

fn row(test: &Test, spec: &Spec, footprint: Footprint) -> BenchRow {
    let (n_prompt, n_gen, n_seq) = match test.work {
        Work::Prompt(tokens) => (tokens, 0, 1),
        Work::Generate { tokens, sequences } => (0, tokens, sequences),
    };
    BenchRow {
        test: test.to_string(),
        n_prompt,
        n_gen,
        n_seq,
        n_depth: test.depth,
        name: spec.preset.map(str::to_owned),
        spec: spec.to_string(),
        avg_ts: 0.0,
        stddev_ts: 0.0,
        samples_ts: vec![],
        multiply_adds_per_s: None,
        peak_multiply_adds_per_s: None,
        footprint,
        profile: None,
    }
}

/// A cache, filled as deep as the tests have come.
struct Lane<'a> {
    spec: &'a Spec,
    cache: Cache,
    /// What the test that is being run has given.
    row: Option<BenchRow>,
    /// What the processor gave at best before each repetition.
    peaks: Vec<f64>,
}

impl Lane<'_> {
    /// The prompt that takes the cache to `depth`; `None` when it is there.
    fn way_to(&self, depth: usize) -> Option<Test> {
        let seen = self.cache.position();
        let count = depth.checked_sub(seen).filter(|&count| count > 0)?;
        Some(Test { work: Work::Prompt(count), depth: seen })
    }
}

/// What the caches are measured on.
struct Bed<'a> {
    model: &'a Model,
    tokens: &'a [u32],
    workspace: Workspace,
}

impl Bed<'_> {
    /// Runs the widest chunk of the tests once, so that the first cache does not pay for buffers that all share. Where
    /// that fails, it is not what was asked for, and the caches that were tell themselves.
    fn warm_up(&mut self, tests: &[Test], seed: u64) {
        let widest = tests.iter().map(|test| test.depth.max(test.tokens())).max().unwrap_or(1);
        let tokens = widest.min(self.model.chunk()).min(self.model.config().context);
        if let Ok(mut cache) = Cache::new(self.model.cache_shape(), &Spec::default(), seed) {
            let _ = self.run(from_mut(&mut cache), tokens);
        }
    }

    /// Runs the `count` tokens that come next in all of `caches`, which have seen as many, at once; the logits of the last of each.
    fn run(&mut self, caches: &mut [Cache], count: usize) -> Result<&[f32], EvalError> {
        let from = caches.first().map_or(0, Cache::position);
        let tokens: Vec<u32> =
            (from..from + count).map(|position| self.tokens[position % self.tokens.len()]).collect();
        let mut batch: Vec<Sequence<'_>> =
            caches.iter_mut().map(|cache| Sequence { tokens: &tokens, cache }).collect();
        Ok(self.model.forward(&mut batch, &mut self.workspace, Logits::Last).all()?)
    }

    /// Takes `lane` the `way` to the next depth.
    fn fill(&mut self, lane: &mut Lane<'_>, way: &Test) -> Result<Sample, EvalError> {
        let begin = Instant::now();
        self.run(from_mut(&mut lane.cache), way.tokens())?;
        let seconds = begin.elapsed().as_secs_f64();
        Ok(sample(way, lane.spec, 0, seconds, &lane.cache))
    }

    /// A copy of the lane's cache that shares no page with it: the first write to a shared one would copy it.
    fn copy(&self, lane: &Lane<'_>) -> Cache {
        let mut cache = lane.cache.fork();
        cache.unshare();
        cache
    }

    fn time(&mut self, lane: &Lane<'_>, test: &Test, repetition: usize) -> Result<Sample, EvalError> {
        let sequences = if let Work::Generate { sequences, .. } = test.work { sequences } else { 1 };
        let mut caches: Vec<Cache> = (0..sequences).map(|_| self.copy(lane)).collect();
        let seconds = match test.work {
            Work::Prompt(count) => {
                let begin = Instant::now();
                self.run(&mut caches, count)?;
                begin.elapsed()
            }
            Work::Generate { tokens, .. } => {
                self.run(&mut caches, 1)?;
                let begin = Instant::now();
                for _ in 0..tokens {
                    self.run(&mut caches, 1)?;
                }
                begin.elapsed()
            }
        };
        Ok(sample(test, lane.spec, repetition, seconds.as_secs_f64(), &caches[0]))
    }

    /// Generates `count` tokens with the clocks running, and samples from what the model gives. Every few tokens `memory` is
    /// read in between: what it gives changes from one second to the next where others share it.
    fn profile(
        &mut self,
        lane: &Lane<'_>,
        count: usize,
        seed: u64,
        memory: &MemoryProbe,
    ) -> Result<Parts, EvalError> {
        let mut cache = self.copy(lane);
        let mut sampler = Sampler::new(Sampling { seed, ..Sampling::default() })?;
        self.run(from_mut(&mut cache), 1)?;
        cache.start_profile();
        self.workspace.start_profile();
        let (mut seconds, mut sampling, mut rates) = (0.0, Duration::ZERO, vec![]);
        for token in 0..count {
            if token % PROBE_INTERVAL == 0 {
                rates.push(memory.rate(self.model.pool()));
            }
            let begin = Instant::now();
            let logits = self.run(from_mut(&mut cache), 1)?;
            let ran = begin.elapsed();
            sampler.sample(logits).map_err(EngineError::from)?;
            let all = begin.elapsed();
            sampling += all - ran;
            seconds += all.as_secs_f64();
        }
        let mut profile = self.workspace.stop_profile();
        profile += cache.stop_profile();
        profile.add(Part::Sampling, sampling);
        Ok(Parts::of(&profile, count, seconds, median(rates), self.model, &cache))
    }
}

fn sample(test: &Test, spec: &Spec, repetition: usize, seconds: f64, cache: &Cache) -> Sample {
    Sample {
        test: test.to_string(),
        spec: spec.to_string(),
        repetition,
        tokens: test.tokens(),
        seconds,
        footprint: Footprint::of(cache),
    }
}
