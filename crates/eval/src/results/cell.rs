use crate::{Failure, Footprint, Machine};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Raised when the same inputs come to be measured otherwise, or what is measured is written otherwise.
const MEASURES: u32 = 2;

/// Everything that determines a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The experiment it belongs to: `baseline`, `grid`, …
    pub experiment: String,
    /// The model's name, for people.
    pub model: String,
    /// Names the model's weights.
    pub model_hash: String,
    /// The preset that the spec was written as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The cache.
    pub spec: String,
    /// Tokens of context.
    pub context: usize,
    /// The text's or task's name, for people.
    pub text: String,
    /// Names the tokens.
    pub text_hash: String,
    /// Seed of caches, tasks and resampling.
    pub seed: u64,
    /// Everything else that changes the numbers.
    pub settings: Map<String, Value>,
}

impl Cell {
    /// A hash of all inputs and of this program's version, in hexadecimal; names for people do not count.
    pub fn key(&self) -> String {
        let mut inputs = serde_json::json!([
            env!("CARGO_PKG_VERSION"),
            MEASURES,
            self.experiment,
            self.model_hash,
            self.spec,
            self.context,
            self.text_hash,
            self.seed,
            self.settings,
        ]);
        // In the order of their names, so that equal settings are equal text.
        inputs.sort_all_objects();
        let digest = Sha256::digest(inputs.to_string());
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The index of the shard, of `shards`, that runs this cell: the same on every machine.
    pub fn shard(&self, shards: usize) -> usize {
        let head = u64::from_str_radix(&self.key()[..15], 16).unwrap_or(0);
        (head % shards.max(1) as u64) as usize
    }
}

/// Where a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A process works on it, or died doing so.
    Running,
    /// Measured.
    Done,
    /// It cannot be measured; `error` says why.
    Failed,
}

/// A cell that came to an end, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The hash of its inputs.
    pub key: String,
    /// Its inputs.
    #[serde(flatten)]
    pub cell: Cell,
    /// Done or failed.
    pub state: State,
    /// Version of the program that measured it.
    pub version: String,
    /// Where it was measured.
    pub machine: Machine,
    /// When it began, in seconds since 1970.
    pub started_at: i64,
    /// Seconds it took.
    pub duration_s: f64,
    /// The command that made it.
    pub command: String,
    /// What was measured.
    pub measured: Value,
    /// Why it failed.
    pub error: Option<String>,
}

impl Finished {
    /// A setting as text; empty when the cell has none of this name.
    pub fn setting(&self, name: &str) -> String {
        match self.cell.settings.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        }
    }

    /// What was measured; `None` unless the cell is done, its work is `work`, and this version wrote it: what another
    /// one measured otherwise is left out rather than misread.
    pub fn measured_as<T: DeserializeOwned>(&self, work: &str) -> Option<T> {
        let is_of = self.state == State::Done && self.setting("work") == work;
        serde_json::from_value(is_of.then(|| self.measured.clone())?).ok()
    }

    /// The caches that were measured: one, or one a depth.
    pub fn footprints(&self) -> Vec<Footprint> {
        let read = |value: &Value| serde_json::from_value(value.clone()).ok();
        match self.measured.get("points").and_then(Value::as_array) {
            Some(points) => points.iter().filter_map(read).collect(),
            None => read(&self.measured).into_iter().collect(),
        }
    }
}

/// What failed of `cells` and why, each once: a cache may fail alike in many cells.
pub fn failures(cells: &[Finished]) -> Vec<Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.state == State::Failed) {
        let failure = Failure {
            name: cell.cell.name.clone(),
            spec: cell.cell.spec.clone(),
            error: cell.error.clone().unwrap_or_default(),
        };
        if !failures.contains(&failure) {
            failures.push(failure);
        }
    }
    failures
}

#[cfg(test)]
pub(crate) fn example(spec: &str) -> Cell {
    Cell {
        experiment: "compare".into(),
        model: "tiny".into(),
        model_hash: "abc".into(),
        name: None,
        spec: spec.into(),
        context: 1024,
        text: "novel, \"quoted\"".into(),
        text_hash: "def".into(),
        seed: 1,
        settings: Map::from_iter([("stream".to_owned(), Value::from(1))]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_counts_and_no_name_does() {
        let cell = example("full");
        let name = Some("best-quality".into());
        let same = Cell { model: "another name".into(), text: "t".into(), name, ..cell.clone() };
        assert_eq!(cell.key(), same.key());
        let ordered = |names: [&str; 2]| {
            let settings = names.map(|name| (name.to_owned(), Value::from(1)));
            Cell { settings: Map::from_iter(settings), ..cell.clone() }.key()
        };
        assert_eq!(ordered(["stream", "prefill"]), ordered(["prefill", "stream"]));
        let mut settings = cell.settings.clone();
        settings.insert("stream".into(), Value::from(2));
        for other in [
            Cell { experiment: "grid".into(), ..cell.clone() },
            Cell { model_hash: "abd".into(), ..cell.clone() },
            Cell { spec: "window@25%".into(), ..cell.clone() },
            Cell { context: 512, ..cell.clone() },
            Cell { text_hash: "deg".into(), ..cell.clone() },
            Cell { seed: 2, ..cell.clone() },
            Cell { settings, ..cell.clone() },
        ] {
            assert_ne!(cell.key(), other.key(), "{other:?}");
        }
    }

    #[test]
    fn shards_split_the_cells() {
        let mut counts = [0; 4];
        (0..400).for_each(|i| counts[example(&format!("window@{i}tok")).shard(4)] += 1);
        assert!(counts.iter().all(|&count| count > 60), "{counts:?}");
    }
}
