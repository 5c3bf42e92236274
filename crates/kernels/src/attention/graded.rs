//! Keys whose channels have bits of their own: four channels of the same number of bits are a group, and the groups of a
//! strip lie one after the other, those of most bits first.
//!
//! A code of b bits is ⌊b/2⌋ *pairs* of bits, the lowest first, and, where b is odd, a *single* bit, its highest. All pairs
//! of a strip fill the fields of lines of 64 bytes (see [`super::layout`]), four to a line, then all singles, eight to a
//! line: so every number of bits is unpacked by shifts and masks, and no bit is lost to padding.

use super::Queries;
use super::keys::{LANES, MAX_BLOCKS, MAX_QUERIES};
use super::layout::{BLOCK, Grid, MAX_DIM, STRIP, StripLayout};
use super::packed::fetch_lines;
use super::simd::{Cache, Multipliers, Simd};
use super::strips::Stream;
use crate::Scale;
use crate::cpu::Level;
use std::mem::MaybeUninit;

/// Channels of a group.
pub const GROUP: usize = 4;
/// The most bits of a channel.
pub const MOST_BITS: u8 = 8;
/// Bits of the channels of a group that fill a line, over all groups: a strip is whole lines.
const LINE: usize = 8;
/// Bytes of a line.
const LINE_BYTES: usize = 64;

/// How many bits each channel of some keys has, and the order in which they lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grades {
    /// `[place]`: the channel that lies there.
    channels: Box<[u16]>,
    /// `[channel]`: where it lies.
    places: Box<[u16]>,
    /// `[group]`: bits of its channels, descending.
    bits: Box<[u8]>,
    /// How many pairs a strip has.
    pairs: usize,
}

impl Grades {
    /// The bits of every channel, `[dim]`; `None` when the width is no multiple of 32 or above 512, a channel has more than
    /// 8 bits, the channels of some number of bits are no multiple of 4, or all bits together are none or no multiple of 32.
    pub fn new(bits: &[u8]) -> Option<Self> {
        let dim = bits.len();
        if !dim.is_multiple_of(BLOCK) || !(BLOCK..=MAX_DIM).contains(&dim) {
            return None;
        }
        let mut channels: Vec<u16> = (0..dim as u16).collect();
        channels.sort_by_key(|&channel| std::cmp::Reverse(bits[usize::from(channel)]));
        let mut places = vec![0; dim];
        for (place, &channel) in channels.iter().enumerate() {
            places[usize::from(channel)] = place as u16;
        }
        let of_place = |place: usize| bits[usize::from(channels[place])];
        let groups: Box<[u8]> = (0..dim / GROUP).map(|group| of_place(group * GROUP)).collect();
        let alike = (0..dim).all(|place| of_place(place) == groups[place / GROUP]);
        let total: usize = groups.iter().map(|&bits| usize::from(bits)).sum();
        if !alike || groups[0] > MOST_BITS || total == 0 || !total.is_multiple_of(LINE) {
            return None;
        }
        let pairs = groups.iter().map(|&bits| usize::from(bits / 2)).sum();
        Some(Grades { channels: channels.into(), places: places.into(), bits: groups, pairs })
    }

    /// Number of channels.
    pub fn dim(&self) -> usize {
        self.channels.len()
    }

    /// Bits of a channel.
    pub fn bits(&self, channel: usize) -> u8 {
        self.bits[usize::from(self.places[channel]) / GROUP]
    }

    /// Lines of 64 bytes that a strip takes.
    pub fn lines(&self) -> usize {
        self.bits.iter().map(|&bits| usize::from(bits)).sum::<usize>() / LINE
    }

    /// Heap bytes of those of `dim` channels.
    pub fn bytes(dim: usize) -> usize {
        2 * size_of::<u16>() * dim + dim / GROUP
    }

    /// The groups: how many bits their channels have, and which these are.
    pub fn groups(&self) -> impl Iterator<Item = (u8, &[u16; GROUP])> {
        self.bits.iter().copied().zip(self.channels.as_chunks().0)
    }

    /// Where the codes of a channel lie.
    pub fn place(&self, channel: usize) -> Place {
        let place = usize::from(self.places[channel]);
        let before = &self.bits[..place / GROUP];
        let pair: usize = before.iter().map(|&bits| usize::from(bits / 2)).sum();
        let single: usize = before.iter().map(|&bits| usize::from(bits % 2)).sum();
        let bits = usize::from(self.bits[place / GROUP]);
        Place { within: place % GROUP, pair: 2 * pair, single: 2 * self.pairs + single, bits }
    }

    /// The codes of one slot of a strip, `[channel]`.
    pub fn codes(&self, strip: &[u8], lane: usize, codes: &mut [u8]) {
        codes.fill(0);
        for Field { group, at, mask, shift } in self.fields() {
            let bytes = &strip[at / 8 * LINE_BYTES + GROUP * lane..][..GROUP];
            for (&channel, byte) in self.channels[group * GROUP..][..GROUP].iter().zip(bytes) {
                codes[usize::from(channel)] |= (byte >> (at % 8) & mask) << shift;
            }
        }
    }

    /// Writes the codes of one slot of a strip, `[channel]`, of which only the bits that a channel has count.
    pub fn put_codes(&self, strip: &mut [u8], lane: usize, codes: &[u8]) {
        for Field { group, at, mask, shift } in self.fields() {
            let bytes = &mut strip[at / 8 * LINE_BYTES + GROUP * lane..][..GROUP];
            for (&channel, byte) in self.channels[group * GROUP..][..GROUP].iter().zip(bytes) {
                let code = codes[usize::from(channel)] >> shift & mask;
                *byte = *byte & !(mask << (at % 8)) | code << (at % 8);
            }
        }
    }
}

/// Where the codes of a channel lie in a strip.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its place within its group.
    within: usize,
    /// The position of its first pair, and that of its single; position p is line p / 8, from bit p mod 8 on.
    pair: usize,
    single: usize,
    bits: usize,
}

impl Place {
    /// The code of one slot of a strip.
    pub fn code(&self, strip: &[u8], lane: usize) -> u8 {
        let byte = GROUP * lane + self.within;
        let field = |at: usize, mask: u8| strip[at / 8 * LINE_BYTES + byte] >> (at % 8) & mask;
        let mut code = if self.bits % 2 == 1 { field(self.single, 1) } else { 0 };
        for pair in (self.pair..self.pair + self.bits / 2 * 2).step_by(2).rev() {
            code = code << 2 | field(pair, 3);
        }
        code
    }

    /// Writes the code of one slot of a strip.
    pub fn put(&self, strip: &mut [u8], lane: usize, code: u8) {
        let byte = GROUP * lane + self.within;
        let mut put = |at: usize, mask: u8, field: u8| {
            let byte = &mut strip[at / 8 * LINE_BYTES + byte];
            *byte = *byte & !(mask << (at % 8)) | (field & mask) << (at % 8);
        };
        let mut rest = code;
        for pair in (self.pair..self.pair + self.bits / 2 * 2).step_by(2) {
            put(pair, 3, rest & 3);
            rest >>= 2;
        }
        if self.bits % 2 == 1 {
            put(self.single, 1, rest);
        }
    }
}

/// Some bits of the codes of a group: where they lie, as in [`Place`], and where they belong in the codes.
struct Field {
    group: usize,
    at: usize,
    mask: u8,
    shift: usize,
}

impl Grades {
    fn fields(&self) -> impl Iterator<Item = Field> + '_ {
        let (mut pair, mut single) = (0, 2 * self.pairs);
        self.bits.iter().enumerate().flat_map(move |(group, &bits)| {
            let (first, pairs) = (pair, usize::from(bits / 2));
            pair += 2 * pairs;
            let odd = (bits % 2 == 1).then_some(Field { group, at: single, mask: 1, shift: 2 * pairs });
            single += usize::from(bits % 2);
            let pairs = (0..pairs).map(move |i| Field { group, at: first + 2 * i, mask: 3, shift: 2 * i });
            pairs.chain(odd)
        })
    }

    /// All codes of a strip, `[channel][16]`.
    ///
    /// # Panics
    /// When the strip or `codes` is of another size.
    pub fn unpack(&self, strip: &[u8], codes: &mut [u8]) {
        self.check_sizes(strip.len(), codes.len());
        codes.fill(0);
        let (lines, codes) = (strip.as_chunks::<LINE_BYTES>().0, codes.as_chunks_mut::<STRIP>().0);
        for Field { group, at, mask, shift } in self.fields() {
            let line = &lines[at / 8];
            for (i, &channel) in self.channels[group * GROUP..][..GROUP].iter().enumerate() {
                for (lane, code) in codes[usize::from(channel)].iter_mut().enumerate() {
                    *code |= (line[GROUP * lane + i] >> (at % 8) & mask) << shift;
                }
            }
        }
    }

    /// Writes all codes of a strip, `[channel][16]`, of which only the bits that a channel has count.
    ///
    /// # Panics
    /// When the strip or `codes` is of another size.
    pub fn pack(&self, codes: &[u8], strip: &mut [u8]) {
        self.check_sizes(strip.len(), codes.len());
        strip.fill(0);
        let (lines, codes) = (strip.as_chunks_mut::<LINE_BYTES>().0, codes.as_chunks::<STRIP>().0);
        for Field { group, at, mask, shift } in self.fields() {
            let line = &mut lines[at / 8];
            for (i, &channel) in self.channels[group * GROUP..][..GROUP].iter().enumerate() {
                for (lane, code) in codes[usize::from(channel)].iter().enumerate() {
                    line[GROUP * lane + i] |= (code >> shift & mask) << (at % 8);
                }
            }
        }
    }

    fn check_sizes(&self, strip: usize, codes: usize) {
        let fits = strip == LINE_BYTES * self.lines() && codes == STRIP * self.dim();
        assert!(fits, "a strip of {strip} bytes and {codes} codes for {} channels", self.dim());
    }
}

/// Walks through the groups of a strip.
struct Cursor {
    strip: *const u8,
    pair: usize,
    single: usize,
}

impl Cursor {
    #[inline(always)]
    fn new(strip: *const u8, grades: &Grades) -> Self {
        Cursor { strip, pair: 0, single: 2 * grades.pairs }
    }

    #[inline(always)]
    unsafe fn pair<S: Simd>(&mut self) -> S::B {
        let at = self.pair;
        self.pair += 2;
        // SAFETY: the caller's.
        unsafe { S::field(S::load_bytes(self.strip.add(at / 8 * LINE_BYTES)), (at % 8) as u32, 3) }
    }

    #[inline(always)]
    unsafe fn single<S: Simd>(&mut self) -> S::B {
        let at = self.single;
        self.single += 1;
        // SAFETY: the caller's.
        unsafe { S::field(S::load_bytes(self.strip.add(at / 8 * LINE_BYTES)), (at % 8) as u32, 1) }
    }

    /// The codes of the next group, which has `bits` bits and at least one.
    ///
    /// # Safety
    /// As [`Simd`]; the strip has this group.
    #[inline(always)]
    unsafe fn next<S: Simd>(&mut self, bits: u8) -> S::B {
        // SAFETY: the caller's.
        unsafe {
            match bits {
                1 => self.single::<S>(),
                2 => self.pair::<S>(),
                3 => S::join(self.pair::<S>(), self.single::<S>()),
                4 => S::join(self.pair::<S>(), self.pair::<S>()),
                5 => S::join(self.pair::<S>(), S::join(self.pair::<S>(), self.single::<S>())),
                6 => S::join(self.pair::<S>(), S::join(self.pair::<S>(), self.pair::<S>())),
                bits => {
                    let low = self.pair::<S>();
                    let next = self.pair::<S>();
                    let third = self.pair::<S>();
                    let high = if bits == 7 { self.single::<S>() } else { self.pair::<S>() };
                    S::join(low, S::join(next, S::join(third, high)))
                }
            }
        }
    }
}

/// Queries in the order of the places, with the scales of a grid folded into them: with codes u and their middles m,
/// q·(z + s∘u) = q·(z + s∘m) + (q∘s)·u − (q∘s)·m, of which all but the first product is of integers.
struct Folded {
    /// Those of the blocks and queries that there are.
    packed: [[MaybeUninit<Multipliers>; MAX_DIM / LANES]; MAX_QUERIES],
    unit: [[f32; MAX_BLOCKS]; MAX_QUERIES],
    rest: [[i32; MAX_BLOCKS]; MAX_QUERIES],
    constant: [f32; MAX_QUERIES],
}

impl Folded {
    fn empty() -> Self {
        Folded {
            packed: [[MaybeUninit::uninit(); MAX_DIM / LANES]; MAX_QUERIES],
            unit: [[0.0; MAX_BLOCKS]; MAX_QUERIES],
            rest: [[0; MAX_BLOCKS]; MAX_QUERIES],
            constant: [0.0; MAX_QUERIES],
        }
    }

    /// Of at most [`MAX_QUERIES`] queries, `[query][dim]`.
    ///
    /// # Safety
    /// As [`Simd`]; the grid is as wide as the grades.
    #[inline(always)]
    unsafe fn set<S: Simd>(&mut self, grades: &Grades, grid: Grid<'_>, queries: &[f32]) {
        // SAFETY: the caller's; channels are below `dim`, which is the length of a query, and no more of a block is read than
        // it has.
        unsafe {
            let mut constants = [S::splat(0.0); MAX_QUERIES];
            for (block, channels) in grades.channels.as_chunks::<BLOCK>().0.iter().enumerate() {
                let of_block = |x: &[f32]| {
                    let mut placed = [0.0; BLOCK];
                    for (placed, &channel) in placed.iter_mut().zip(channels) {
                        *placed = *x.get_unchecked(usize::from(channel));
                    }
                    placed
                };
                let bits = &grades.bits[block * (BLOCK / GROUP)..][..BLOCK / GROUP];
                let middles: [f32; BLOCK] = std::array::from_fn(|i| middle(bits[i / GROUP]));
                let (scales, zeros) = (of_block(grid.scale), of_block(grid.zero));
                let halves = |x: &[f32; BLOCK]| [S::load(x.as_ptr()), S::load(x.as_ptr().add(LANES))];
                let (scales, zeros, middles) = (halves(&scales), halves(&zeros), halves(&middles));
                for (g, q) in queries.chunks_exact(grades.dim()).enumerate() {
                    let q = halves(&of_block(q));
                    let folded = [S::mul(q[0], scales[0]), S::mul(q[1], scales[1])];
                    let mut magnitude = S::splat(0.0);
                    for half in 0..2 {
                        magnitude = S::max(magnitude, S::abs(folded[half]));
                        constants[g] = S::fma(q[half], zeros[half], constants[g]);
                        constants[g] = S::fma(folded[half], middles[half], constants[g]);
                    }
                    let unit = Scale::new(S::maximum(magnitude), 127.0);
                    let mut rest = S::splat(0.0);
                    for half in 0..2 {
                        let rounded = S::round(S::mul(folded[half], S::splat(unit.inverse)));
                        // Whole numbers, whose sum is below 2^24.
                        rest = S::fma(rounded, middles[half], rest);
                        self.packed[g][block * (BLOCK / LANES) + half].write(S::multipliers(rounded));
                    }
                    (self.unit[g][block], self.rest[g][block]) = (unit.scale, -S::sum(rest) as i32);
                }
            }
            for (constant, sums) in self.constant.iter_mut().zip(constants) {
                *constant = S::sum(sums);
            }
        }
    }
}

/// The code in the middle of those of so many bits.
#[inline(always)]
fn middle(bits: u8) -> f32 {
    (1u32 << bits >> 1) as f32
}

/// The grid and the grades of graded keys.
///
/// # Panics
/// When they are missing, or are not of this layout.
fn parts<'a>(layout: &StripLayout, grid: Option<Grid<'a>>) -> (Grid<'a>, &'a Grades) {
    let grid = grid.expect("graded codes need their grid");
    let grades = grid.grades.expect("graded codes need their grades");
    let fits = grades.dim() == layout.dim() && LINE_BYTES * grades.lines() == layout.strip_bytes();
    assert!(fits, "grades of {} channels in {} lines for {layout:?}", grades.dim(), grades.lines());
    assert!(grid.scale.len() >= grades.dim() && grid.zero.len() >= grades.dim(), "the grid is too narrow");
    (grid, grades)
}

/// Decodes one slot, as [`StripLayout::get`].
pub(super) fn get(layout: &StripLayout, strip: &[u8], lane: usize, grid: Option<Grid<'_>>, out: &mut [f32]) {
    let (grid, grades) = parts(layout, grid);
    let mut codes = [0; MAX_DIM];
    let codes = &mut codes[..grades.dim()];
    grades.codes(strip, lane, codes);
    for ((out, &mut code), (zero, scale)) in out.iter_mut().zip(codes).zip(grid.zero.iter().zip(grid.scale)) {
        *out = zero + scale * f32::from(code);
    }
}

/// [`super::key_scores`] of graded keys, whose sizes it has checked.
pub(super) fn scores(
    level: Level,
    layout: &StripLayout,
    grid: Option<Grid<'_>>,
    queries: &Queries,
    strips: Stream<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let (grid, grades) = parts(layout, grid);
    // SAFETY: the level was detected on this CPU, and the sizes are checked.
    for_level!(level, |S| {
        let mut folded = Folded::empty();
        for first in (0..queries.count()).step_by(S::QUERIES) {
            let (left, out) = (queries.count() - first, &mut out[first * stride..]);
            let plain = &queries.plain()[first * grades.dim()..][..left.min(S::QUERIES) * grades.dim()];
            S::run(
                #[inline(always)]
                || folded.set::<S>(grades, grid, plain),
            );
            for_queries!(S, left, |G| S::run(
                #[inline(always)]
                || scores_of::<S, G>(grades, &folded, strips, out, stride)
            ))
        }
    });
}

#[inline(always)]
unsafe fn scores_of<S: Simd, const G: usize>(
    grades: &Grades,
    queries: &Folded,
    strips: Stream<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let bytes = LINE_BYTES * grades.lines();
    // SAFETY: strips, queries and out are as long as `key_scores` checked; all that is read of the queries was set.
    unsafe {
        for (index, (strip, ahead)) in strips.each(bytes).enumerate() {
            fetch_lines(ahead, bytes, Cache::First);
            let mut cursor = Cursor::new(strip.as_ptr(), grades);
            let mut sums = [S::splat(0.0); G];
            for (sum, constant) in sums.iter_mut().zip(queries.constant) {
                *sum = S::splat(constant);
            }
            for (block, groups) in grades.bits.as_chunks::<{ BLOCK / GROUP }>().0.iter().enumerate() {
                // All that follows has no bits either.
                if groups[0] == 0 {
                    break;
                }
                let mut products = [S::zero_i(); G];
                for (g, product) in products.iter_mut().enumerate() {
                    *product = S::splat_i(queries.rest[g][block]);
                }
                for (t, &bits) in groups.iter().enumerate() {
                    if bits == 0 {
                        break;
                    }
                    let code = cursor.next::<S>(bits);
                    for (g, product) in products.iter_mut().enumerate() {
                        let x = queries.packed[g]
                            .get_unchecked(block * (BLOCK / LANES) + t / 4)
                            .assume_init_ref();
                        *product = S::dot4(*product, code, x, t % 4);
                    }
                }
                for (g, sum) in sums.iter_mut().enumerate() {
                    *sum = S::fma(S::to_f(products[g]), S::splat(queries.unit[g][block]), *sum);
                }
            }
            for (g, sums) in sums.iter().enumerate() {
                S::store(out.as_mut_ptr().add(g * stride + index * STRIP), *sums);
            }
        }
    }
}

/// [`super::decode_keys`] of graded keys, whose sizes it has checked.
pub(super) fn decode(
    level: Level,
    layout: &StripLayout,
    grid: Option<Grid<'_>>,
    strips: &[u8],
    out: &mut [f32],
) {
    let (grid, grades) = parts(layout, grid);
    // SAFETY: the level was detected on this CPU, and the sizes are checked.
    for_level!(level, |S| S::run(
        #[inline(always)]
        || decode_of::<S>(grades, grid, strips, out)
    ));
}

#[inline(always)]
unsafe fn decode_of<S: Simd>(grades: &Grades, grid: Grid<'_>, strips: &[u8], out: &mut [f32]) {
    let (dim, bytes) = (grades.dim(), LINE_BYTES * grades.lines());
    for index in 0..strips.len() / bytes {
        // SAFETY: strips, grid and out are as long as `decode_keys` and `parts` checked; channels are below `dim`.
        unsafe {
            let mut cursor = Cursor::new(strips.as_ptr().add(index * bytes), grades);
            let out = out.as_mut_ptr().add(index * dim * STRIP);
            for (channels, &bits) in grades.channels.as_chunks::<GROUP>().0.iter().zip(&grades.bits) {
                if bits == 0 {
                    for &channel in channels {
                        let zero = *grid.zero.get_unchecked(usize::from(channel));
                        S::store(out.add(usize::from(channel) * STRIP), S::splat(zero));
                    }
                    continue;
                }
                let code = cursor.next::<S>(bits);
                for (i, &channel) in channels.iter().enumerate() {
                    let channel = usize::from(channel);
                    let scale = S::splat(*grid.scale.get_unchecked(channel));
                    let zero = S::splat(*grid.zero.get_unchecked(channel));
                    S::store(out.add(channel * STRIP), S::fma(S::byte(code, i as u32), scale, zero));
                }
            }
        }
    }
}
