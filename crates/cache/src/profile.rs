//! Where the time of a forward pass goes.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// A part of a token's way through the model and the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Products with the weights, with the norms and activations that are fused into them.
    Products,
    /// Attention over the pages, the tail and the chunk itself.
    Attention,
    /// What the keep sees and weighs, and the choice of what goes.
    Keep,
    /// Freeing what goes and, where there is a tail, taking it in.
    Tail,
    /// Encoding keys and values into slots.
    Store,
    /// Choosing which slots to look at.
    Read,
    /// From logits to a token.
    Sampling,
    /// Embeddings, rotations and copies between the products.
    Rest,
}

impl Part {
    /// All of them, in the order of a report.
    pub const ALL: [Part; 8] = [
        Part::Products,
        Part::Attention,
        Part::Keep,
        Part::Tail,
        Part::Store,
        Part::Read,
        Part::Sampling,
        Part::Rest,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Part::Products => "products",
            Part::Attention => "attention",
            Part::Keep => "keep",
            Part::Tail => "tail",
            Part::Store => "store",
            Part::Read => "read",
            Part::Sampling => "sampling",
            Part::Rest => "rest",
        }
    }
}

/// Wall time per part, as the thread that drives the model saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Profile {
    times: [Duration; Part::ALL.len()],
}

impl Profile {
    /// Adds `time` to a part.
    pub fn add(&mut self, part: Part, time: Duration) {
        self.times[part as usize] += time;
    }

    /// The time of a part.
    pub fn time(&self, part: Part) -> Duration {
        self.times[part as usize]
    }

    /// The time of all parts.
    pub fn total(&self) -> Duration {
        self.times.iter().sum()
    }
}

impl AddAssign for Profile {
    fn add_assign(&mut self, other: Profile) {
        self.times.iter_mut().zip(other.times).for_each(|(own, other)| *own += other);
    }
}

/// Cuts the time since it was started into parts. One that is off reads no clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stopwatch(Option<(Profile, Instant)>);

impl Stopwatch {
    /// Starts one, or one that is off.
    pub fn start(on: bool) -> Self {
        Stopwatch(on.then(|| (Profile::default(), Instant::now())))
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The time since the start or the last lap was that of `part`.
    pub fn lap(&mut self, part: Part) {
        if let Some((profile, since)) = &mut self.0 {
            let now = Instant::now();
            profile.add(part, now - *since);
            *since = now;
        }
    }

    /// The time since the start or the last lap is another watch's to report.
    pub fn skip(&mut self) {
        if let Some((_, since)) = &mut self.0 {
            *since = Instant::now();
        }
    }

    /// The wall time since the start or the last lap was that of a parallel region: it is shared out in proportion to
    /// what the watches of its tasks saw, and is `otherwise`'s when they saw nothing.
    pub fn lap_shared(&mut self, tasks: impl IntoIterator<Item = Profile>, otherwise: Part) {
        let Some((profile, since)) = &mut self.0 else { return };
        let mut seen = Profile::default();
        tasks.into_iter().for_each(|task| seen += task);
        let (now, total) = (Instant::now(), seen.total().as_secs_f64());
        let wall = now - *since;
        *since = now;
        if total == 0.0 {
            return profile.add(otherwise, wall);
        }
        for part in Part::ALL {
            profile.add(part, wall.mul_f64(seen.time(part).as_secs_f64() / total));
        }
    }

    /// What it saw; nothing if it was off.
    pub fn stop(self) -> Profile {
        self.0.map(|(profile, _)| profile).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart() {
        for (place, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, place);
        }
        let mut watch = Stopwatch::start(true);
        std::thread::sleep(Duration::from_millis(4));
        watch.lap(Part::Products);
        watch.lap(Part::Attention);
        let seen = watch.stop();
        assert!(seen.time(Part::Products) >= Duration::from_millis(4));
        assert!(seen.time(Part::Attention) < seen.time(Part::Products));
        assert_eq!(seen.total(), seen.time(Part::Products) + seen.time(Part::Attention));
    }

    #[test]
    fn a_region_is_shared_out_as_its_tasks_say() {
        let mut task = Profile::default();
        task.add(Part::Keep, Duration::from_millis(30));
        task.add(Part::Store, Duration::from_millis(10));
        let mut watch = Stopwatch::start(true);
        std::thread::sleep(Duration::from_millis(4));
        watch.lap_shared([task, task], Part::Keep);
        let seen = watch.stop();
        let (keep, store) = (seen.time(Part::Keep).as_secs_f64(), seen.time(Part::Store).as_secs_f64());
        assert!((keep / store - 3.0).abs() < 1e-3, "{keep} {store}");
        assert!(seen.total() >= Duration::from_micros(3990));
    }

    #[test]
    fn off_sees_nothing() {
        let mut watch = Stopwatch::start(false);
        watch.lap(Part::Keep);
        watch.lap_shared([], Part::Store);
        assert_eq!(watch.stop(), Profile::default());
    }
}
