//! Bits by channel: how the keys of a head share them.
//!
//! An error e_c of a key's channel c changes a score by q_c·e_c. With b bits the square of e_c is about D(b)·σ_c², so the bits
//! go where they lessen Σ_c E[q_c²]·σ_c²·D(b_c) most: reverse water-filling, in groups of four channels.

use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::graded::{GROUP, Grades, MOST_BITS};
use std::mem::size_of;
use std::sync::Arc;

/// Tokens after which the weight of a query has fallen to 1/e.
const MEMORY: f32 = 1024.0;

/// The largest moment: times the variance of keys in f16 it is within f32.
const MOST_MOMENT: f32 = 1e28;

/// D(b): mean squared error of a uniform quantizer of b bits, as a share of the variance of a Gaussian.
const DISTORTION: [f32; MOST_BITS as usize + 1] =
    [1.0, 0.3634, 0.1188, 0.0374, 0.01154, 0.00349, 0.00104, 0.000304, 0.0000868];

/// How far beyond the ends of a grid of 1, 2 and 3 bits, in its lengths, a number may lie before the grid is widened.
const REACH: [f32; 3] = [1.25, 0.5, 0.25];

/// How the keys of a head are graded: by what the first page that is sealed and the queries up to it ask for.
#[derive(Clone)]
pub(crate) struct Grading {
    /// Second moments of the queries, by channel, up to a factor.
    moments: Box<[f32]>,
    /// What an error of a channel weighs: its moment times the variance of its keys. None before a page was sealed.
    weights: Option<Box<[f32]>>,
    rungs: Box<[Rung]>,
}

/// The grades of the pages on one rung.
#[derive(Clone)]
struct Rung {
    /// Lines of a strip.
    lines: usize,
    /// Since they were first asked for.
    grades: Option<Arc<Grades>>,
}

/// Rungs whose grades are held at a time.
const HELD: usize = 2;

impl Grading {
    /// Of `dim` channels, whose keys take as many lines a strip on each rung.
    pub(crate) fn new(dim: usize, lines: &[usize]) -> Self {
        let rungs = lines.iter().map(|&lines| Rung { lines, grades: None }).collect();
        Grading { moments: vec![0.0; dim].into(), weights: None, rungs }
    }

    /// Heap bytes, and the structure's own, when as many grades are held as may be.
    pub(crate) fn bytes(&self) -> usize {
        let dim = self.moments.len();
        let grades = 2 * size_of::<usize>() + size_of::<Grades>() + Grades::bytes(dim);
        size_of::<Grading>()
            + 2 * dim * size_of::<f32>()
            + size_of_val(&*self.rungs)
            + grades * self.rungs.len().min(HELD)
    }

    /// Counts the squares of the queries of `tokens` tokens, summed by channel.
    pub(crate) fn observe(&mut self, squares: &[f32], tokens: usize) {
        let decay = (-(tokens as f32) / MEMORY).exp();
        for (moment, square) in self.moments.iter_mut().zip(squares) {
            *moment = (*moment * decay + square).min(MOST_MOMENT);
        }
    }

    /// The grades of a page on `rung`, `variance` being that of its keys by channel.
    pub(crate) fn of_page(&mut self, rung: usize, variance: impl Fn(usize) -> f32) -> Arc<Grades> {
        if self.weights.is_none() {
            // A channel that no query has looked at yet counts as the others do, if only a little.
            let mean = self.moments.iter().sum::<f32>() / self.moments.len() as f32;
            let least = if mean > 0.0 { mean * 1e-3 } else { 1.0 };
            let weighed = |(channel, moment): (usize, &f32)| (moment + least) * variance(channel);
            self.weights = Some(self.moments.iter().enumerate().map(weighed).collect());
            self.rungs.iter_mut().for_each(|rung| rung.grades = None);
        }
        self.on_rung(rung)
    }

    /// The grades of the pages on `rung`. Pages go down together: those of other rungs than the last few are let go.
    pub(crate) fn on_rung(&mut self, rung: usize) -> Arc<Grades> {
        let Grading { moments, weights, rungs } = self;
        let rung = rung.min(rungs.len() - 1);
        if rungs[rung].grades.is_none() {
            let lines = rungs[rung].lines;
            let grades = match weights {
                Some(weights) => shared_out(weights, lines),
                None => shared_out(&vec![1.0; moments.len()], lines),
            };
            rungs[rung].grades = Some(Arc::new(grades));
            let farthest = |rungs: &[Rung]| {
                let held = (0..rungs.len()).filter(|&other| rungs[other].grades.is_some());
                held.max_by_key(|other| other.abs_diff(rung))
            };
            while rungs.iter().filter(|rung| rung.grades.is_some()).count() > HELD {
                let farthest = farthest(rungs).expect("some are held");
                rungs[farthest].grades = None;
            }
        }
        rungs[rung].grades.clone().expect("just made")
    }

    pub(crate) fn save(&self, out: &mut Writer) {
        out.floats(&self.moments);
        out.u64(self.weights.is_some().into());
        out.floats(self.weights.as_deref().unwrap_or_default());
    }

    pub(crate) fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.moments = from.floats(self.moments.len())?.into();
        let weighed = from.u64()? != 0;
        let weights = from.floats(if weighed { self.moments.len() } else { 0 })?;
        self.weights = weighed.then(|| weights.into());
        Ok(())
    }
}

/// The grades with which Σ weight·D(bits) is least, of `lines` lines a strip.
fn shared_out(weights: &[f32], lines: usize) -> Grades {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    // Channels that need alike are a group.
    let groups: Vec<f64> =
        order.chunks_exact(GROUP).map(|group| group.iter().map(|&c| f64::from(weights[c])).sum()).collect();
    let mut bits = vec![0u8; groups.len()];
    // The distortion is convex in the bits: always the one that lessens it most. Among equals, the one that has fewest.
    for _ in 0..8 * lines {
        let gain = |group: usize| {
            let b = usize::from(bits[group]);
            groups[group] * f64::from(DISTORTION[b] - DISTORTION[b + 1])
        };
        let best = (0..groups.len())
            .filter(|&group| bits[group] < MOST_BITS)
            .max_by(|&a, &b| gain(a).total_cmp(&gain(b)).then(bits[b].cmp(&bits[a])).then(b.cmp(&a)));
        if let Some(best) = best {
            bits[best] += 1;
        }
    }
    let mut of_channel = vec![0; weights.len()];
    for (place, &channel) in order.iter().enumerate() {
        of_channel[channel] = bits[place / GROUP];
    }
    Grades::new(&of_channel).expect("groups of equal bits fill whole lines")
}

/// How far beyond the ends of a grid of so many bits, in its lengths, a number may lie before the grid is widened for it.
pub(crate) fn reach(bits: u8) -> f32 {
    match bits {
        1..=3 => REACH[usize::from(bits) - 1],
        bits => 0.5 / ((1u32 << bits) - 1) as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_go_where_they_are_needed_and_none_is_lost() {
        let weights: Vec<f32> = (0..64).map(|c| if c % 8 == 3 { 100.0 } else { (c % 3) as f32 }).collect();
        for lines in 1..=16 {
            let grades = shared_out(&weights, lines);
            assert_eq!(grades.lines(), lines);
            assert!((0..64).all(|c| grades.bits(3) >= grades.bits(c)), "{grades:?}");
        }
        // Whatever they are, none has more than there are.
        for odd in [f32::NAN, -f32::NAN, f32::INFINITY] {
            let odd: Vec<f32> =
                weights.iter().map(|&weight| if weight > 1.0 { odd } else { weight }).collect();
            (1..=16).for_each(|lines| assert_eq!(shared_out(&odd, lines).lines(), lines));
        }
        let even = shared_out(&[1.0; 64], 6);
        assert!((0..64).all(|c| even.bits(c) == 3));
        let some = shared_out(&weights, 4);
        let [none, little, more, most] = [0, 1, 2, 3].map(|c| some.bits(c));
        assert!(none < little && little <= more && more < most, "{some:?}");
    }
}
