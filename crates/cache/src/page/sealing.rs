//! Strips of a page that are sealed, opened again, or sealed in fewer bits.

use super::channels::{Channels, fitted};
use super::{PAGE, Page};
use crate::format::Format;
use crate::grading::Grading;
use sketchkv_kernels::attention::graded::Grades;
use sketchkv_kernels::attention::layout::STRIP;
use std::sync::Arc;

impl Page {
    /// The page with `open` open strips instead: strips are sealed, or opened again.
    ///
    /// The grid of a first sealed strip is chosen from all slots in `live`, for the next ones will come upon it; so are the
    /// bits of its channels, where they are `graded`.
    pub(crate) fn reopened(
        &self,
        format: &Format,
        open: usize,
        live: u64,
        graded: Option<&mut Grading>,
    ) -> Page {
        if live & self.sealed_slots() == 0 || self.grid.is_empty() {
            return self.on_fresh_grid(format, open, live, graded);
        }
        let mut page = self.zeros(format, self.strips, open, self.grades.as_ref());
        if !page.grid.is_empty() {
            page.grid.copy_from_slice(&self.grid);
        }
        self.copied_to(page, format, live)
    }

    /// As [`Page::reopened`] makes it where nothing that counts is sealed yet.
    fn on_fresh_grid(&self, format: &Format, open: usize, live: u64, graded: Option<&mut Grading>) -> Page {
        let mut page = self.zeros(format, self.strips, open, None);
        if page.grid.is_empty() {
            return self.copied_to(page, format, live);
        }
        let kept = live & !Self::slots(0..self.front());
        let slots: Vec<usize> = (0..PAGE).filter(|slot| kept >> slot & 1 == 1).collect();
        let dim = format.keys.dim;
        // `[channel][slot]`
        let mut keys = vec![0.0; dim * slots.len()];
        let mut key = vec![0.0; dim];
        for (at, &slot) in slots.iter().enumerate() {
            self.key(format, slot, &mut key);
            key.iter().enumerate().for_each(|(channel, &x)| keys[channel * slots.len() + at] = x);
        }
        let by_channel = || keys.chunks_exact(slots.len().max(1));
        page.grades = graded.map(|grading| {
            let mut variances: Vec<f32> = by_channel().map(variance).collect();
            // Of no key nothing is known.
            variances.resize(dim, 1.0);
            grading.of_page(self.rung(), &variances)
        });
        let grades = page.grades.clone();
        let channels = Channels::new(format.keys.layout(Some(self.rung())), grades.as_deref());
        // As [`Page::code_at`] finds them.
        let mut codes = vec![0u8; if grades.is_some() { PAGE * dim } else { 0 }];
        let mut of_channel = vec![0; slots.len()];
        for (channel, x) in by_channel().enumerate() {
            let (low, high) = channels.ends(channel, x);
            let mut grid = channels.fit(channel, low, high);
            if grades.is_some() {
                for ((code, &slot), &x) in of_channel.iter_mut().zip(&slots).zip(x) {
                    *code = channels.encode(channel, grid, x);
                    codes[Self::code_at(dim, slot, channel)] = *code;
                }
                grid = fitted(&of_channel, x).0;
            }
            page.set_grid(channel, dim, grid);
        }
        let Some(grades) = grades else {
            // The grid holds all: nothing will be widened.
            return self.copied_to(page, format, live);
        };
        page.pack(format, &grades, &codes);
        for slot in (0..PAGE).filter(|slot| live >> slot & 1 == 1) {
            if page.strip_of(slot).0.is_none() {
                page.copy_key(format, slot, self, slot, live);
            }
            page.copy_value(format, slot, self, slot);
        }
        page
    }

    /// Where [`Page::pack`] looks for the code of a channel: `[strip][channel][16]`.
    fn code_at(dim: usize, slot: usize, channel: usize) -> usize {
        (slot / STRIP * dim + channel) * STRIP + slot % STRIP
    }

    /// Writes the codes of all sealed keys.
    fn pack(&mut self, format: &Format, grades: &Grades, codes: &[u8]) {
        let (dim, sealed) = (format.keys.dim, self.sealed_strips());
        let (span, layout) = (self.span(&format.keys, sealed.clone()), format.keys.layout(Some(self.rung())));
        let strips = self.keys[span].chunks_exact_mut(layout.strip_bytes());
        for (strip, bytes) in sealed.zip(strips) {
            grades.pack(&codes[strip * dim * STRIP..][..dim * STRIP], bytes);
        }
    }

    /// The page on a rung further down: the codes of its keys lose their lowest bits, values that are coded otherwise there
    /// are coded anew. What is open stays as it is.
    pub(crate) fn coarsened(
        &self,
        format: &Format,
        rung: usize,
        live: u64,
        graded: Option<&mut Grading>,
    ) -> Page {
        let next = Page { front: self.front, rung: rung as u8, ..Page::default() };
        let mut page = next.zeros(format, self.strips, self.open, None);
        page.grid = self.grid.clone();
        let slots = || (0..PAGE).filter(|slot| live >> slot & 1 == 1);
        match (&self.grades, graded) {
            (Some(grades), Some(grading)) => {
                page.drop_bits(self, format, grades, grading.on_rung(next.rung()), live);
                for slot in slots().filter(|&slot| self.strip_of(slot).0.is_none()) {
                    page.copy_key(format, slot, self, slot, 0);
                }
            }
            _ => page.keys = self.keys.clone(),
        }
        slots().for_each(|slot| page.copy_value(format, slot, self, slot));
        page
    }

    /// Takes the codes of the sealed keys of a page over in fewer bits, and fits the grid to what is left of them.
    fn drop_bits(&mut self, from: &Page, format: &Format, before: &Grades, after: Arc<Grades>, live: u64) {
        let (dim, sealed) = (format.keys.dim, self.sealed_strips());
        let mut codes = vec![0u8; PAGE * dim];
        let span = from.span(&format.keys, sealed.clone());
        let strips = from.keys[span].chunks_exact(format.keys.layout(Some(from.rung())).strip_bytes());
        for (strip, bytes) in sealed.zip(strips) {
            before.unpack(bytes, &mut codes[strip * dim * STRIP..][..dim * STRIP]);
        }
        let slots: Vec<usize> =
            (0..PAGE).filter(|slot| (live & self.sealed_slots()) >> slot & 1 == 1).collect();
        let channels = Channels::Graded(&after);
        let (mut x, mut shifted, mut anew) =
            (vec![0.0; slots.len()], vec![0; slots.len()], vec![0; slots.len()]);
        for channel in 0..dim {
            let shift = before.bits(channel).saturating_sub(after.bits(channel));
            if shift == 0 {
                continue;
            }
            let grid = from.grid_at(channel, dim);
            for ((x, shifted), &slot) in x.iter_mut().zip(&mut shifted).zip(&slots) {
                let code = codes[Self::code_at(dim, slot, channel)];
                *x = channels.value(code, grid);
                *shifted = u32::from(code).unbounded_shr(shift.into()) as u8;
            }
            let mut best = fitted(&shifted, &x);
            // A grid of few bits is better without the ends of a finer one.
            let (low, high) = channels.ends(channel, &x);
            let grid = channels.fit(channel, low, high);
            anew.iter_mut().zip(&x).for_each(|(code, &x)| *code = channels.encode(channel, grid, x));
            let other = fitted(&anew, &x);
            let chosen = if other.1 < best.1 {
                best = other;
                &anew
            } else {
                &shifted
            };
            for (&slot, &code) in slots.iter().zip(chosen) {
                codes[Self::code_at(dim, slot, channel)] = code;
            }
            self.set_grid(channel, dim, best.0);
        }
        self.pack(format, &after, &codes);
        self.grades = Some(after);
    }

    /// `page` with the slots of this one.
    fn copied_to(&self, mut page: Page, format: &Format, live: u64) -> Page {
        let fresh = live & self.sealed_slots() == 0;
        // Codes that stay as they are come first: a widened grid encodes them once more.
        let (sealed, before) = (page.strips - page.open, self.strips - self.open);
        let mut written = 0u64;
        for strips in [0..sealed.min(before), 0..self.strips] {
            for slot in (strips.start * STRIP..strips.end * STRIP).filter(|slot| live >> slot & 1 == 1) {
                if written >> slot & 1 == 0 {
                    page.copy(format, slot, self, slot, if fresh { live } else { written });
                    written |= 1 << slot;
                }
            }
        }
        page
    }
}

/// Mean square of the distance to the mean.
fn variance(x: &[f32]) -> f32 {
    let count = x.len() as f32;
    let mean = x.iter().map(|x| x / count).sum::<f32>();
    x.iter().map(|x| (x - mean).powi(2) / count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Call;
    use crate::store::STORES;

    /// What a page loses rung by rung is about what it would have lost at once.
    #[test]
    fn steps_cost_no_more_than_a_jump() {
        let (method, build) = STORES.iter().find(|(method, _)| method.name == "progressive").unwrap();
        let mut call = Call::new(method);
        call.set("least", "2").unwrap();
        let format = Format::new(build(&call, 64), build(&call, 64), (64, 64));
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
        let lines = format.keys.graded_lines();
        let mut grading = Grading::new(64, &lines);
        let mut stepped = page.reopened(&format, 0, u64::MAX, Some(&mut grading));
        for rung in 1..format.rungs() {
            stepped = stepped.coarsened(&format, rung, u64::MAX, Some(&mut grading));
            page.rung = rung as u8;
            let jumped = page.reopened(&format, 0, u64::MAX, Some(&mut grading));
            let (stepped, jumped) = (error(&stepped), error(&jumped));
            assert!(stepped[0] < 1.1 * jumped[0] && stepped[1] < 1.1 * jumped[1], "{stepped:?}, {jumped:?}");
        }
    }
}
