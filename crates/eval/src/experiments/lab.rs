use super::{
    Experiment, Grid, Settings, attention, baseline, compare, grid,
    job::{Common, Job, Scored, Work},
    pareto, tasks,
};
use crate::{
    EvalError, Row,
    machine::{peak_resident, reset_peak_resident},
    metrics::DivergenceTable,
    progress::{Counter, Progress},
    results::{Claim, Finished, Results, State},
    row::resampling_units,
    scoring::Scorer,
    tasks::{Corpus, TaskMaker},
};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sketchkv_cache::Spec;
use sketchkv_model::{Model, Workspace};
use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

/// One part of an experiment that is split over machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl std::str::FromStr for Shard {
    type Err = EvalError;

    fn from_str(text: &str) -> Result<Self, EvalError> {
        let wrong = || EvalError::Input(format!("`{text}` is no shard: write `2/5` for the second of five"));
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let shard =
            Shard { index: index.parse().map_err(|_| wrong())?, of: of.parse().map_err(|_| wrong())? };
        if (1..=shard.of).contains(&shard.index) { Ok(shard) } else { Err(wrong()) }
    }
}

/// Which cells a process measures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    /// One part of an experiment that is split over machines; all of it if `None`.
    pub shard: Option<Shard>,
    /// Whether cells that failed before are tried again.
    pub retry_failed: bool,
}

/// How an experiment went.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Every cell of the experiment that came to an end, done or failed, in the experiment's order.
    pub cells: Vec<Finished>,
    /// Cells measured now.
    pub measured: usize,
    /// Cells that were finished before.
    pub known: usize,
    /// Cells that another process works on.
    pub taken: usize,
}

impl Outcome {
    /// How many of the cells could not be measured, now or before.
    pub fn failed(&self) -> usize {
        self.cells.iter().filter(|cell| cell.state == State::Failed).count()
    }

    /// What to know before reading the cells: specs whose caps are below the least that they need, each once, at the
    /// longest text where that is so.
    pub fn warnings(&self) -> Vec<String> {
        let mut longest: BTreeMap<&str, (usize, String)> = BTreeMap::new();
        for cell in &self.cells {
            let spec = cell.cell.spec.as_str();
            for footprint in cell.footprints() {
                let tokens = footprint.kv_tokens;
                if longest.get(spec).is_some_and(|(known, _)| *known >= tokens) {
                    continue;
                }
                if let Some(warning) = footprint.warning(spec) {
                    longest.insert(spec, (tokens, warning));
                }
            }
        }
        longest.into_values().map(|(_, warning)| warning).collect()
    }

    /// Takes in the cells and counts of another.
    pub fn extend(&mut self, other: Outcome) {
        self.cells.extend(other.cells);
        self.measured += other.measured;
        self.known += other.known;
        self.taken += other.taken;
    }
}

/// A model, a text and a results file.
pub struct Lab<'a> {
    pub(super) model: &'a Model,
    pub(super) corpus: &'a Corpus,
    pub(super) settings: Settings,
    pub(super) workspace: Workspace,
    results: &'a mut Results,
    scope: Scope,
    model_hash: String,
    text_name: String,
    text_hash: String,
    /// The reference of the last scored schedule: cells of one schedule stand together.
    scorer: Option<(Work, Scorer<'a>)>,
    maker: Option<TaskMaker<'a>>,
    /// Greedy continuations by the uncompressed cache, of the last schedule asked for.
    pub(super) uncompressed: Option<(Work, Vec<String>)>,
}

impl<'a> Lab<'a> {
    /// A lab that measures what `results` does not have and is in `scope`.
    ///
    /// # Errors
    /// When the model cannot be hashed.
    pub fn new(
        model: &'a Model,
        corpus: &'a Corpus,
        settings: Settings,
        results: &'a mut Results,
        scope: Scope,
    ) -> Result<Self, EvalError> {
        let mut hasher = Sha256::new();
        corpus.texts().for_each(|(_, text)| hasher.update(text.as_bytes()));
        hasher.update([u8::from(corpus.repeats())]);
        let text_hash = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Lab {
            model,
            corpus,
            settings,
            workspace: Workspace::new(),
            results,
            scope,
            model_hash: model.content_hash()?,
            text_name: corpus.name(),
            text_hash,
            scorer: None,
            maker: None,
            uncompressed: None,
        })
    }

    /// Runs one experiment; `file` is the grid to run instead of the original's.
    ///
    /// # Errors
    /// When the results file, the disk or the uncompressed cache fails, or a spec does not parse. A cell that cannot be
    /// measured is marked as failed and the others go on.
    pub fn run(
        &mut self,
        experiment: Experiment,
        file: Option<&Grid>,
        progress: &mut dyn Progress,
    ) -> Result<Outcome, EvalError> {
        let specs = self.own_specs()?;
        let jobs = {
            let common = self.common();
            let settings = &self.settings;
            match experiment {
                Experiment::Baseline => baseline::jobs(&common, settings, &specs),
                Experiment::Grid => grid::jobs(&common, settings, file)?,
                Experiment::Compare => compare::jobs(&common, settings, &specs, self.model),
                Experiment::Attention => attention::jobs(&common, settings, &specs, self.model),
                Experiment::Tasks => tasks::jobs(&common, settings, &specs),
                Experiment::Speed => super::speed::jobs(&common, settings, &specs),
                Experiment::Pareto => pareto::first_round(&common, settings, self.model),
            }
        };
        let mut outcome = self.measure(jobs, progress)?;
        if experiment == Experiment::Pareto {
            let second = pareto::second_round(&self.common(), &self.settings, &outcome.cells);
            outcome.extend(self.measure(second, progress)?);
        }
        Ok(outcome)
    }

    fn common(&self) -> Common<'_> {
        Common {
            model: &self.model.config().name,
            model_hash: &self.model_hash,
            text: &self.text_name,
            text_hash: &self.text_hash,
        }
    }

    /// The specs of the settings.
    fn own_specs(&self) -> Result<Vec<Spec>, EvalError> {
        self.settings.specs.iter().map(|text| Ok(text.parse()?)).collect()
    }

    /// Measures `jobs`, those of this shard that are not finished.
    pub(crate) fn measure(
        &mut self,
        jobs: Vec<Job>,
        progress: &mut dyn Progress,
    ) -> Result<Outcome, EvalError> {
        let Scope { shard, retry_failed } = self.scope;
        let mine = |job: &Job| shard.is_none_or(|shard| job.cell.shard(shard.of) == shard.index - 1);
        let jobs: Vec<Job> = jobs.into_iter().filter(mine).collect();
        let mut outcome = Outcome::default();
        let known = |cell: &Finished| cell.state == State::Done || !retry_failed;
        let known: HashMap<String, Finished> =
            self.results.finished()?.into_iter().filter(known).map(|cell| (cell.key.clone(), cell)).collect();
        let total = jobs.iter().filter(|job| !known.contains_key(&job.cell.key())).map(|job| job.cost).sum();
        let mut done = 0;
        for job in &jobs {
            if let Some(cell) = known.get(&job.cell.key()) {
                outcome.known += 1;
                outcome.cells.push(cell.clone());
                continue;
            }
            match self.results.claim(&job.cell, retry_failed)? {
                Claim::Finished(cell) => {
                    outcome.known += 1;
                    outcome.cells.push(*cell);
                }
                Claim::Taken => outcome.taken += 1,
                Claim::Mine => self.measure_one(job, (done, total), &mut outcome, progress)?,
            }
            done += job.cost;
        }
        Ok(outcome)
    }

    fn measure_one(
        &mut self,
        job: &Job,
        (done, total): (u64, u64),
        outcome: &mut Outcome,
        progress: &mut dyn Progress,
    ) -> Result<(), EvalError> {
        let started = Instant::now();
        let name = format!("{} {}", job.cell.experiment, job.cell.spec);
        // A job's own count is in other units than its cost; what is shown never runs past the job.
        let mut within = |step: crate::Step<'_>| {
            let share = job.cost * step.done.min(step.total) / step.total.max(1);
            progress.step(crate::Step { what: &name, done: done + share, total });
        };
        let measured = self.work(job, &mut within);
        let took = started.elapsed();
        match measured {
            Ok(measured) => {
                self.results.finish(&job.cell, &measured, took)?;
                outcome.measured += 1;
            }
            Err(error) if error.stops_all() => return Err(error),
            Err(error) => self.results.fail(&job.cell, &error.to_string(), took)?,
        }
        if let Claim::Finished(cell) = self.results.claim(&job.cell, false)? {
            outcome.cells.push(*cell);
        }
        progress.step(crate::Step { what: &name, done: done + job.cost, total });
        Ok(())
    }

    fn work(&mut self, job: &Job, progress: &mut dyn Progress) -> Result<Value, EvalError> {
        fn json(measured: impl Serialize) -> Result<Value, EvalError> {
            serde_json::to_value(measured)
                .map_err(|error| EvalError::Input(format!("what was measured is no JSON: {error}")))
        }
        let (work, spec, seed) = (&job.work, &job.spec, job.cell.seed);
        match work {
            Work::Score { .. } => json(self.score(work, spec, seed, progress)?),
            Work::Generate { .. } => json(self.generate(work, spec, seed, progress)?),
            Work::Attention { .. } => json(self.attention(work, spec, seed, progress)?),
            Work::Speed { depths, timed } => json(self.speed(depths, *timed, spec, seed, progress)?),
            Work::Task { .. } => {
                self.ensure_maker()?;
                json(self.task(work, spec, seed, progress)?)
            }
        }
    }

    fn ensure_maker(&mut self) -> Result<(), EvalError> {
        if self.maker.is_none() {
            self.maker = Some(TaskMaker::new(self.model, self.corpus)?);
        }
        Ok(())
    }

    pub(super) fn maker(&self) -> Option<&TaskMaker<'a>> {
        self.maker.as_ref()
    }

    fn score(
        &mut self,
        work: &Work,
        spec: &Spec,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Result<Scored, EvalError> {
        let &Work::Score { context, samples, schedule } = work else { unreachable!("scored work") };
        let ready = self.scorer.as_ref().is_some_and(|(of, _)| of == work);
        let runs = if ready { 1 } else { 2 };
        let mut counter = Counter::new(progress, (runs * samples * context) as u64);
        if !ready {
            // The old reference's file goes first.
            self.scorer = None;
            let text = self.corpus.sample(self.model, context, samples)?;
            let scorer = Scorer::new(self.model, text.documents, schedule, &mut counter)?;
            self.scorer = Some((work.clone(), scorer));
        }
        let Some((_, scorer)) = self.scorer.as_mut() else { unreachable!("made above") };
        reset_peak_resident();
        let run = scorer.run(spec, seed, &mut counter)?;
        let peak = peak_resident().unwrap_or(0);
        let (units, _) = resampling_units(&run.scores);
        let base = scorer.reference_scores()?.concat();
        Ok(Scored {
            row: Row::of(spec, &run, &units, seed, peak)?,
            reference_ppl: DivergenceTable::of(&base).map_or(f64::NAN, |table| table.ppl.mean),
            scored_tokens: base.len(),
            units,
        })
    }
}
