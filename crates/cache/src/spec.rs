//! Specs: a full composition of the five choices, as one line of text.

use crate::chosen::Chosen;
use crate::method::{Call, Choice, Method};
use crate::registry::{Build, PRESETS, Registry};
use crate::{CacheError, CacheShape, budget, keep, read, refine, store, tail};
use std::fmt;
use std::str::FromStr;

/// How much the cache may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cap {
    /// As much as it needs.
    None,
    /// Bytes, everything included.
    Bytes(usize),
    /// Slots per KV head, on average over the heads where the budget moves them.
    Tokens(usize),
    /// A share, in percent, of what an f16 cache would take: of the tokens that are to come where [`Spec::for_context`] was told
    /// how many, else of those seen so far.
    Percent(f64),
    /// A share, in percent, of what an f16 cache of all tokens seen so far would take. Of a short text that is little.
    PercentSeen(f64),
}

impl FromStr for Cap {
    type Err = CacheError;

    fn from_str(text: &str) -> Result<Self, CacheError> {
        let wrong = |hint: &str| {
            CacheError::Spec(format!(
                "`@{text}` is no cap{hint}: write bytes `@64MiB` (B, KiB, MiB, GiB, KB, MB, GB), a share of the context `@25%`, of \
                 what was seen so far `@25%seen`, or tokens `@512tok`"
            ))
        };
        let plain: String =
            text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
        let is_unit = |c: char| !c.is_ascii_digit() && c != '.';
        let Some(split) = plain.find(is_unit) else {
            return Err(wrong(&format!(" (`{plain}` of what? {plain}MiB, {plain}KiB, {plain}tok)")));
        };
        let (number, unit) = plain.split_at(split);
        let number: f64 = number.parse().map_err(|_| wrong(""))?;
        let scale = match unit {
            "%" if number > 0.0 && number <= 100.0 => return Ok(Cap::Percent(number)),
            "%seen" if number > 0.0 && number <= 100.0 => return Ok(Cap::PercentSeen(number)),
            "tok" | "token" | "tokens" if number >= 1.0 && number.fract() == 0.0 => {
                return Ok(Cap::Tokens(number as usize));
            }
            "b" => 1.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "kib" | "k" => 1024.0,
            "mib" | "m" => 1024f64.powi(2),
            "gib" | "g" => 1024f64.powi(3),
            _ => return Err(wrong("")),
        };
        let bytes = (number * scale).round();
        if bytes >= 1.0 && bytes < 2f64.powi(53) { Ok(Cap::Bytes(bytes as usize)) } else { Err(wrong("")) }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cap::None => Ok(()),
            Cap::Tokens(n) => write!(f, "@{n}tok"),
            Cap::Percent(p) => write!(f, "@{p}%"),
            Cap::PercentSeen(p) => write!(f, "@{p}%seen"),
            Cap::Bytes(n) => {
                let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];
                let (size, unit) = units.into_iter().find(|(size, _)| n % size == 0).expect("1 divides all");
                write!(f, "@{}{unit}", n / size)
            }
        }
    }
}

/// A full composition of all choices and a cap.
///
/// Names joined by `+`, parameters in parentheses, the cap after `@`; what is not named has its default:
/// `full`, `f16`, `none`, `all`, `uniform`, no cap. A bare store is for keys and values alike; `k=` and `v=` choose
/// them separately. Where a keep and a tail have one name (`race`, `countsketch`), it is the keep first: `race+race`.
///
/// ```
/// use sketchkv_cache::Spec;
/// let spec: Spec = "h2o(decay=0.9,sinks=4)+k=kivi4+v=q4@12.5%".parse()?;
/// assert_eq!(spec.keep.method().name, "h2o");
/// assert_eq!(spec.to_string(), "h2o(decay=0.9)+k=kivi4+v=q4@12.5%");
/// let twins: Spec = "race+race(bits=3)@25%".parse()?;
/// assert_eq!((twins.keep.method().name, twins.tail.to_string().as_str()), ("race", "race(bits=3)"));
/// assert!("h20@25%".parse::<Spec>().unwrap_err().to_string().contains("`h2o`"));
/// # Ok::<(), sketchkv_cache::CacheError>(())
/// ```
/// Specs are equal when they describe the same cache; the name of a preset is only how one was written. One that was put
/// together by hand may contradict itself: [`Cache::new`](crate::Cache::new) refuses it as the parser does.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Which tokens stay as exact slots.
    pub keep: Chosen<keep::Build>,
    /// How the importance of tokens is refined before the least important go.
    pub refine: Chosen<refine::Build>,
    /// How kept keys are encoded.
    pub keys: Chosen<store::Build>,
    /// How kept values are encoded.
    pub values: Chosen<store::Build>,
    /// What is remembered of tokens no longer kept.
    pub tail: Chosen<tail::Build>,
    /// Which kept slots a query looks at.
    pub read: Chosen<read::Build>,
    /// Who gets how many bytes.
    pub budget: Chosen<budget::Build>,
    /// How many bytes there are.
    pub cap: Cap,
    /// The preset this spec was written as, if any.
    pub preset: Option<&'static str>,
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.cap == other.cap && self.calls() == other.calls()
    }
}

impl Default for Spec {
    fn default() -> Self {
        fn of<B: Copy>(named: &str, table: &[(&'static Method, B)]) -> Chosen<B> {
            let entry = table.iter().find(|(method, _)| method.name == named);
            let (method, build) = entry.expect("defaults are in the tables");
            Chosen::new(Call::new(method), *build)
        }
        Spec {
            keep: of("full", keep::KEEPS),
            refine: of("plain", refine::REFINES),
            keys: of("f16", store::STORES),
            values: of("f16", store::STORES),
            tail: of("none", tail::TAILS),
            read: of("all", read::READS),
            budget: of("uniform", budget::BUDGETS),
            cap: Cap::None,
            preset: None,
        }
    }
}

const GRAMMAR: &str = "a spec is names joined by `+`, parameters in parentheses, a cap after `@`, \
     as in `h2o(recent=64)+k=kivi4+v=q4@25%`";

fn unknown(name: &str, registry: &Registry) -> CacheError {
    if let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) {
        return CacheError::Spec(format!(
            "`{name}` is a preset and stands alone, or with a cap; to compose, write out `{}`",
            preset.capped
        ));
    }
    let names = registry.methods().map(|m| m.name).chain(PRESETS.iter().map(|p| p.name));
    let mut near: Vec<_> = names.map(|known| (strsim::damerau_levenshtein(name, known), known)).collect();
    near.sort();
    near.dedup();
    let near: Vec<_> = near.iter().take(3).map(|(_, known)| format!("`{known}`")).collect();
    CacheError::Spec(format!(
        "no method is called `{name}`; near names: {}. {GRAMMAR}; `sketchkv methods` lists all",
        near.join(", ")
    ))
}

/// `name` or `name(parameter=value,…)`. Of a keep and another method of one name it is the keep, unless there is one already.
fn call(text: &str, has_keep: bool, registry: &Registry) -> Result<(Call, Build), CacheError> {
    let (name, parameters) = match text.split_once('(') {
        None => (text, ""),
        Some((name, rest)) => match rest.strip_suffix(')') {
            Some(parameters) => (name, parameters),
            None => {
                return Err(CacheError::Spec(format!("`{text}`: the parenthesis is not closed; {GRAMMAR}")));
            }
        },
    };
    let (method, build) = registry.find(name, has_keep).ok_or_else(|| unknown(name, registry))?;
    let mut call = Call::new(method);
    let mut given = vec![];
    for piece in parameters.split(',').filter(|piece| !piece.is_empty()) {
        let (name, value) = piece.split_once('=').ok_or_else(|| {
            CacheError::Spec(format!("`{text}`: `{piece}` has no value; write `{piece}=…`"))
        })?;
        let (name, value) = (name.trim(), value.trim());
        call.set(name, value)?;
        if given.contains(&name) {
            return Err(CacheError::Spec(format!("`{text}`: `{name}` is given twice; write it once")));
        }
        given.push(name);
    }
    Ok((call, build))
}

/// Splits at `+` outside parentheses.
fn pieces(text: &str) -> Vec<&str> {
    let mut depth = 0usize;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == '+' && depth == 0
    })
    .map(str::trim)
    .collect()
}

/// A composition of names joined by `+`, under a cap.
fn composed(body: &str, cap: Cap, registry: &Registry) -> Result<Spec, CacheError> {
    let mut spec = Spec { cap, ..Spec::default() };
    let mut named: Vec<(Choice, &str)> = vec![];
    for piece in pieces(body) {
        let (side, name) = match (piece.strip_prefix("k="), piece.strip_prefix("v=")) {
            (Some(name), _) => ("k", name),
            (_, Some(name)) => ("v", name),
            _ => ("", piece),
        };
        if name.is_empty() {
            return Err(CacheError::Spec(format!("`{body}`: a name is missing; {GRAMMAR}")));
        }
        let has_keep = named.iter().any(|(choice, _)| *choice == Choice::Keep);
        let (call, build) = call(name, has_keep, registry)?;
        let choice = build.choice();
        if !side.is_empty() && choice != Choice::Store {
            return Err(CacheError::Spec(format!(
                "`{piece}`: `{}` is no store but a {choice}; only stores are chosen by `k=` and `v=`",
                call.method().name
            )));
        }
        let twice = |&(c, s): &(Choice, &str)| c == choice && (s == side || s.is_empty() || side.is_empty());
        if named.iter().any(twice) {
            return Err(CacheError::Spec(format!(
                "`{body}`: the {choice} is chosen twice, again by `{piece}`"
            )));
        }
        named.push((choice, side));
        match build {
            Build::Keep(build) => spec.keep = Chosen::new(call, build),
            Build::Store(build) => {
                let store = Chosen::new(call, build);
                if side != "k" {
                    spec.values = store.clone();
                }
                if side != "v" {
                    spec.keys = store;
                }
            }
            Build::Refine(build) => spec.refine = Chosen::new(call, build),
            Build::Tail(build) => spec.tail = Chosen::new(call, build),
            Build::Read(build) => spec.read = Chosen::new(call, build),
            Build::Budget(build) => spec.budget = Chosen::new(call, build),
        }
    }
    spec.check()?;
    Ok(spec)
}

/// [`Spec::parse_with`] the methods of this crate.
impl FromStr for Spec {
    type Err = CacheError;

    fn from_str(text: &str) -> Result<Self, CacheError> {
        Spec::parse_with(text, &Registry::builtin())
    }
}

impl Spec {
    /// Reads a spec that names methods of `registry`.
    ///
    /// # Errors
    /// When it does not parse, names what is not there, says one thing twice or contradicts itself.
    pub fn parse_with(text: &str, registry: &Registry) -> Result<Self, CacheError> {
        if text.len() > 1000 {
            return Err(CacheError::Spec(format!("a spec of {} characters; {GRAMMAR}", text.len())));
        }
        // Names and units in any case.
        let lower = text.trim().to_ascii_lowercase();
        // Bytes, or a share, alone.
        let number = lower.strip_prefix('@').unwrap_or(&lower);
        if number.starts_with(|c: char| c.is_ascii_digit()) {
            return Spec::parse_with(&format!("auto@{number}"), registry);
        }
        let (body, cap) = match lower.rsplit_once('@') {
            Some((body, _)) if body.contains('@') => {
                return Err(CacheError::Spec(format!("`{text}`: there is more than one `@`; {GRAMMAR}")));
            }
            Some((body, cap)) => (body.trim(), cap.trim().parse()?),
            None => (&*lower, Cap::None),
        };
        if let Some(preset) = PRESETS.iter().find(|p| p.name == body) {
            let mut spec = if cap == Cap::None {
                Spec::parse_with(preset.spec, registry)?
            } else {
                composed(preset.capped, cap, registry)?
            };
            spec.preset = Some(preset.name);
            return Ok(spec);
        }
        composed(body, cap, registry)
    }

    /// Refuses what contradicts itself.
    pub(crate) fn check(&self) -> Result<(), CacheError> {
        let full = self.keeps_all();
        let contradiction = if full && self.cap != Cap::None {
            format!("a cap with `full`, which evicts nothing: choose a keep, as in `h2o{}`", self.cap)
        } else if full && self.tail.method().name != "none" {
            format!("`{}` with `full`: nothing is evicted, so there is no tail to remember", self.tail)
        } else if full && self.refine.method().name != "plain" {
            format!("`{}` with `full`: nothing is evicted, so no importance counts", self.refine)
        } else if full && self.budget.method().name != "uniform" {
            format!("`{}` with `full`: nothing is evicted, so there is no budget to share out", self.budget)
        } else {
            return Ok(());
        };
        Err(CacheError::Spec(format!("`{self}` contradicts itself: {contradiction}")))
    }

    /// The spec with a share of the context as the bytes that it is of `tokens` tokens of a model of this `shape`.
    #[must_use]
    pub fn for_context(&self, shape: &CacheShape, tokens: usize) -> Spec {
        let cap = match self.cap {
            Cap::Percent(percent) => {
                let kib = percent / 100.0 * shape.f16_bytes(tokens) as f64 / 1024.0;
                Cap::Bytes(kib.round().max(1.0) as usize * 1024)
            }
            cap => cap,
        };
        Spec { cap, ..self.clone() }
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.calls().into_iter().map(Call::bytes).sum()
    }

    /// All that was chosen.
    fn calls(&self) -> [&Call; 7] {
        let Spec { keep, refine, keys, values, tail, read, budget, cap: _, preset: _ } = self;
        [keep, refine, keys, values, tail, read, budget]
    }

    /// Whether the keep is `full`, which lets no token go.
    pub fn keeps_all(&self) -> bool {
        self.keep.method().name == "full"
    }

    /// Whether anything is ever evicted.
    pub fn evicts(&self) -> bool {
        self.cap != Cap::None
    }
}

/// The canonical text: parsing it gives the same spec.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.keep)?;
        let default = Spec::default();
        if self.refine != default.refine {
            write!(f, "+{}", self.refine)?;
        }
        if self.keys == self.values {
            if self.keys != default.keys {
                write!(f, "+{}", self.keys)?;
            }
        } else {
            for (side, store) in [("k", &self.keys), ("v", &self.values)] {
                if *store != default.keys {
                    write!(f, "+{side}={store}")?;
                }
            }
        }
        let Spec { tail, read, budget, .. } = self;
        let others: [(&Call, &Call); 3] =
            [(tail, &default.tail), (read, &default.read), (budget, &default.budget)];
        for (call, default) in others {
            if call != default {
                write!(f, "+{call}")?;
            }
        }
        write!(f, "{}", self.cap)
    }
}
