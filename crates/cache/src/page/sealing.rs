//! Strips of a page that are sealed, opened again, or sealed in fewer bits.

use super::channels::{Channels, range};
use super::grid::with_floats;
use super::{PAGE, Page};
use crate::format::{Env, Format};
use crate::grading::Grading;
use sketchkv_kernels::attention::graded::Grades;
use sketchkv_kernels::attention::layout::STRIP;
use sketchkv_kernels::attention::{GridMut, decode_values, drop_bits, fit_grid};
use sketchkv_kernels::half::{f16_to_f32, f32_to_f16};
use std::sync::Arc;

impl Page {
    /// The page with `open` open strips instead: strips are sealed, or opened again.
    ///
    /// The grid of a first sealed strip is chosen from all slots in `live`, for the next ones will come upon it; so are the
    /// bits of its channels, where they are `graded`.
    pub(crate) fn reopened(
        &self,
        env: Env<'_>,
        open: usize,
        live: u64,
        graded: Option<&mut Grading>,
    ) -> Page {
        if live & self.sealed_slots() == 0 || self.grid.is_empty() {
            return self.on_fresh_grid(env, open, live, graded);
        }
        let mut page = self.zeros(env.format, self.strips, open, self.grades.as_ref());
        if !page.grid.is_empty() {
            page.grid.copy_from_slice(&self.grid);
        }
        self.copied_to(page, env.format, live)
    }

    /// As [`Page::reopened`] makes it where nothing that counts is sealed yet.
    fn on_fresh_grid(&self, env: Env<'_>, open: usize, live: u64, graded: Option<&mut Grading>) -> Page {
        let format = env.format;
        let mut page = self.zeros(format, self.strips, open, None);
        if page.grid.is_empty() {
            return self.copied_to(page, format, live);
        }
        let kept = live & !Self::slots(0..self.front());
        let dim = format.keys.dim;
        // `[strip][channel][16]`
        let mut keys = vec![0.0; self.strips * dim * STRIP];
        self.decode_keys(env.level, format, 0..self.strips, &mut keys);
        let (by_slot, slots) = (&keys, (0..PAGE).filter(move |slot| kept >> slot & 1 == 1));
        let by_channel = |channel: usize| {
            slots.clone().map(move |slot| by_slot[(slot / STRIP * dim + channel) * STRIP + slot % STRIP])
        };
        let Some(grading) = graded else {
            let channels = Channels::new(format.keys.layout(Some(self.rung())), None);
            for channel in 0..dim {
                let (low, high) = range(by_channel(channel));
                page.set_grid(channel, dim, channels.steps(channel).fit(low, high));
            }
            // The grid holds all: nothing will be widened.
            return self.copied_to(page, format, live);
        };
        let grades = grading.of_page(self.rung(), |channel| variance(&by_channel(channel)));
        let mut codes = vec![0; keys.len()];
        page.regrid(dim, |grid| fit_grid(env.level, &grades, &keys, kept, grid, &mut codes));
        page.pack(format, &grades, &codes[page.front() * dim * STRIP..]);
        page.grades = Some(grades);
        page.take_open_keys(self, format, live);
        page.take_values(self, env, live);
        page
    }

    /// Lets `f` choose scales and zeros anew.
    fn regrid(&mut self, dim: usize, f: impl FnOnce(GridMut<'_>)) {
        with_floats(2 * dim, |wide| {
            f16_to_f32(&self.grid, wide);
            let (scale, zero) = wide.split_at_mut(dim);
            f(GridMut { scale, zero });
            f32_to_f16(wide, &mut self.grid);
        });
    }

    /// Writes the codes of all sealed keys, `[strip][channel][16]`.
    fn pack(&mut self, format: &Format, grades: &Grades, codes: &[u8]) {
        let span = self.span(&format.keys, self.sealed_strips());
        let bytes = format.keys.layout(Some(self.rung())).strip_bytes();
        let strips = self.keys[span].chunks_exact_mut(bytes);
        for (strip, codes) in strips.zip(codes.chunks_exact(format.keys.dim * STRIP)) {
            grades.pack(codes, strip);
        }
    }

    /// The page on a rung further down: the codes of its keys lose their lowest bits, values that are coded otherwise there
    /// are coded anew. What is open stays as it is.
    pub(crate) fn coarsened(
        &self,
        env: Env<'_>,
        rung: usize,
        live: u64,
        graded: Option<&mut Grading>,
    ) -> Page {
        let format = env.format;
        let next = Page { front: self.front, rung: rung as u8, ..Page::default() };
        let mut page = next.zeros(format, self.strips, self.open, None);
        page.grid = self.grid.clone();
        match (&self.grades, graded) {
            (Some(grades), Some(grading)) => {
                page.drop_bits(self, env, grades, grading.on_rung(next.rung()), live);
                page.take_open_keys(self, format, live);
            }
            _ => page.keys = self.keys.clone(),
        }
        page.take_values(self, env, live);
        page
    }

    /// Takes the codes of the sealed keys of a page over in fewer bits, and fits the grid to what is left of them.
    fn drop_bits(&mut self, from: &Page, env: Env<'_>, before: &Grades, after: Arc<Grades>, live: u64) {
        let (keys, sealed) = (&env.format.keys, self.sealed_strips());
        let mut codes = vec![0; sealed.len() * keys.dim * STRIP];
        let strips = from.keys_of(env.format, sealed.clone());
        let strips = strips.chunks_exact(keys.layout(Some(from.rung())).strip_bytes());
        for (strip, codes) in strips.zip(codes.chunks_exact_mut(keys.dim * STRIP)) {
            before.unpack(strip, codes);
        }
        let live = (live & self.sealed_slots()) >> (sealed.start * STRIP);
        self.regrid(keys.dim, |grid| drop_bits(env.level, before, &after, live, grid, &mut codes));
        self.pack(env.format, &after, &codes);
        self.grades = Some(after);
    }

    /// Takes the keys of open strips over from a page.
    fn take_open_keys(&mut self, from: &Page, format: &Format, live: u64) {
        let sealed = self.sealed_strips();
        for strip in (0..self.strips).filter(|strip| !sealed.contains(strip)) {
            if from.sealed_strips().contains(&strip) {
                slots_of(strip, live).for_each(|slot| self.copy_key(format, slot, from, slot, 0));
            } else {
                let span = self.span(&format.keys, strip..strip + 1);
                self.keys[span].copy_from_slice(from.keys_of(format, strip..strip + 1));
            }
        }
    }

    /// Takes all values over from a page.
    fn take_values(&mut self, from: &Page, env: Env<'_>, live: u64) {
        let (format, values) = (env.format, &env.format.values);
        let mut decoded = vec![];
        for strip in (0..self.strips).filter(|&strip| slots_of(strip, live).next().is_some()) {
            let [sealed, source_sealed] = [&*self, from].map(|page| page.strip_of(strip * STRIP).0);
            let span = self.span(values, strip..strip + 1);
            let (to, source) = (&mut self.values[span], from.values_of(format, strip..strip + 1));
            if values.layout(sealed) == values.layout(source_sealed) {
                to.copy_from_slice(source);
                continue;
            }
            decoded.resize(STRIP * values.dim, 0.0);
            decode_values(env.level, values.layout(source_sealed), source, &mut decoded);
            for lane in slots_of(strip, live).map(|slot| slot % STRIP) {
                values.write(sealed, to, lane, &decoded[lane * values.dim..][..values.dim]);
            }
        }
    }

    /// `page` with the slots of this one.
    fn copied_to(&self, mut page: Page, format: &Format, live: u64) -> Page {
        let fresh = live & self.sealed_slots() == 0;
        let mut written = 0u64;
        // Codes that stay as they are come first: a widened grid encodes others once more.
        for strip in 0..self.strips {
            if !page.codes_alike(self, format, strip) {
                continue;
            }
            let [keys, values] = [&format.keys, &format.values].map(|side| page.span(side, strip..strip + 1));
            page.keys[keys].copy_from_slice(self.keys_of(format, strip..strip + 1));
            page.values[values].copy_from_slice(self.values_of(format, strip..strip + 1));
            written |= live & Self::slots(strip..strip + 1);
        }
        for slot in (0..self.strips * STRIP).filter(|slot| live >> slot & 1 == 1) {
            if written >> slot & 1 == 0 {
                page.copy(format, slot, self, slot, if fresh { live } else { written });
                written |= 1 << slot;
            }
        }
        page
    }

    /// Whether a strip lies in memory as it does in another page.
    fn codes_alike(&self, other: &Page, format: &Format, strip: usize) -> bool {
        let [own, others] = [self, other].map(|page| page.strip_of(strip * STRIP).0);
        let same = |side: &crate::format::SideFormat| side.layout(own) == side.layout(others);
        let on_grid = format.keys.has_grid() && own.is_some();
        same(&format.keys) && same(&format.values) && (!on_grid || self.has_grid_of(other))
    }
}

/// The slots of a strip that are in `live`.
fn slots_of(strip: usize, live: u64) -> impl Iterator<Item = usize> {
    (strip * STRIP..(strip + 1) * STRIP).filter(move |slot| live >> slot & 1 == 1)
}

/// Mean square of the distance to the mean; of nothing, 1.
fn variance(x: &(impl Iterator<Item = f32> + Clone)) -> f32 {
    let count = x.clone().count() as f32;
    if count == 0.0 {
        return 1.0;
    }
    let mean = x.clone().map(|x| x / count).sum::<f32>();
    x.clone().map(|x| (x - mean).powi(2) / count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LayerShape;
    use crate::method::Call;
    use crate::store::STORES;

    /// What a page loses rung by rung is about what it would have lost at once.
    #[test]
    fn steps_cost_no_more_than_a_jump() {
        let (method, build) = STORES.iter().find(|(method, _)| method.name == "progressive").unwrap();
        let mut call = Call::new(method);
        call.set("least", "2").unwrap();
        let format = Format::new(build(&call, 64), build(&call, 64), &LayerShape::new(1, 1, 64), false);
        let mut random = sketchkv_sketch::SplitMix64::new(3);
        let mut normal = || (0..12).map(|_| random.unit() as f32).sum::<f32>() - 6.0;
        let mut page = Page::empty(&format, false, 0);
        let (mut keys, mut values) = (vec![], vec![]);
        for slot in 0..PAGE {
            if slot % STRIP == 0 {
                page.push_strip(&format);
            }
            // Some channels have far outliers.
            let spread =
                |c: usize, x: f32| if c.is_multiple_of(5) { x.powi(3) } else { x * (1.0 + (c % 7) as f32) };
            let key: Vec<f32> = (0..64).map(|c| spread(c, normal()) + c as f32).collect();
            let value: Vec<f32> = (0..64).map(|_| normal()).collect();
            page.write(&format, slot, &key, &value, 0);
            keys.push(key);
            values.push(value);
        }
        let error = |page: &Page| {
            let mut sums = [0.0f32; 2];
            let (mut key, mut value) = ([0.0; 64], [0.0; 64]);
            for slot in 0..PAGE {
                page.key(&format, slot, &mut key);
                page.value(&format, slot, &mut value);
                sums[0] += key.iter().zip(&keys[slot]).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
                sums[1] += value.iter().zip(&values[slot]).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            }
            sums.map(|sum| sum / (PAGE * 64) as f32)
        };
        let env = Env { format: &format, level: sketchkv_kernels::cpu::level() };
        let lines = format.keys.graded_lines();
        let mut grading = Grading::new(64, &lines);
        let mut stepped = page.reopened(env, 0, u64::MAX, Some(&mut grading));
        for rung in 1..format.rungs() {
            stepped = stepped.coarsened(env, rung, u64::MAX, Some(&mut grading));
            page.rung = rung as u8;
            let jumped = page.reopened(env, 0, u64::MAX, Some(&mut grading));
            let (stepped, jumped) = (error(&stepped), error(&jumped));
            assert!(stepped[0] < 1.1 * jumped[0] && stepped[1] < 1.1 * jumped[1], "{stepped:?}, {jumped:?}");
        }
    }
}
