//! How the slots of a layer are encoded: both stores, bound to the widths of its heads.

use crate::LayerShape;
use crate::store::{Store, Turn};
use sketchkv_kernels::attention::layout::{Codes, Encoding, STRIP, ScaleGroup, Side, StripLayout, padded};
use sketchkv_kernels::cpu::Level;
use sketchkv_sketch::SplitMix64;

/// One side of the slots: keys or values.
pub(crate) struct SideFormat {
    /// What sealed strips may be: of the store, then of ever coarser ones.
    rungs: Vec<Rung>,
    /// Of open strips: as the finest that are sealed, but f16 where these are codes of less than 8 bits.
    open: StripLayout,
    /// What codes those, where it is not what seals.
    opened: Option<Box<dyn Store>>,
    turn: Turn,
    /// Signs of [`Turn::SignedHadamard`], `[width]`.
    signs: Vec<f32>,
    /// Width of a key or value.
    pub(crate) width: usize,
    /// `width` rounded up to a multiple of 32.
    pub(crate) dim: usize,
}

/// A store, and how strips lie in memory that it has sealed.
struct Rung {
    layout: StripLayout,
    store: Box<dyn Store>,
}

impl SideFormat {
    /// # Panics
    /// When the coarser stores turn vectors otherwise, or keep other grids.
    fn new(store: Box<dyn Store>, side: Side, width: usize, exactly: bool) -> Self {
        let dim = padded(width);
        let turn = store.turn(side);
        let mut rungs = vec![];
        let mut next = Some(store);
        while let Some(store) = next {
            assert!(store.turn(side) == turn, "a coarser store turns vectors otherwise");
            next = store.coarser();
            rungs.push(Rung { layout: StripLayout::new(side, store.encoding(side), dim), store });
        }
        rungs.shrink_to_fit();
        let grids = |rung: &Rung| (has_grid(&rung.layout), graded_lines(&rung.layout).is_some());
        assert!(rungs.iter().all(|rung| grids(rung) == grids(&rungs[0])), "a coarser store has another grid");
        let opened = rungs[0].store.open(side).filter(|_| !exactly);
        let open = match &opened {
            Some(store) => StripLayout::new(side, store.encoding(side), dim),
            None if is_coarse(&rungs[0].layout) => StripLayout::new(side, Encoding::F16, dim),
            None => rungs[0].layout,
        };
        // A fixed sequence: the signs are part of the code, not of a run's seed.
        let mut random = SplitMix64::new(0x5165_4b56);
        let signed = if turn == Turn::SignedHadamard { width } else { 0 };
        let signs = (0..signed).map(|_| if random.next_u64() & 1 == 0 { 1.0 } else { -1.0 }).collect();
        SideFormat { rungs, open, opened, turn, signs, width, dim }
    }

    fn rung(&self, rung: usize) -> &Rung {
        &self.rungs[rung.min(self.rungs.len() - 1)]
    }

    /// The layout of strips that are sealed on a rung, or of open ones.
    pub(crate) fn layout(&self, sealed: Option<usize>) -> &StripLayout {
        match sealed {
            Some(rung) => &self.rung(rung).layout,
            None => &self.open,
        }
    }

    /// Bits of a number on a rung, without scales.
    pub(crate) fn bits(&self, rung: usize) -> f64 {
        self.bits_of(Some(rung))
    }

    /// The same of strips that are sealed on a rung, or of open ones.
    pub(crate) fn bits_of(&self, sealed: Option<usize>) -> f64 {
        self.layout(sealed).code_bytes() as f64 * 8.0 / (STRIP * self.dim) as f64
    }

    /// The largest magnitude of a coordinate, in the space of the codes, that it can hold whatever the others are: scales
    /// and open strips are f16.
    pub(crate) fn largest(&self) -> f32 {
        let f16 = half::f16::MAX.to_f32();
        match self.open.encoding() {
            Encoding::F32 => f32::MAX,
            Encoding::Bf16 => half::bf16::MAX.to_f32(),
            // A coarser code has scales of the size of the numbers themselves.
            Encoding::Codes(Codes { bits: 8, .. }) if self.rungs.len() == 1 => 127.0 * f16,
            _ => f16,
        }
    }

    /// The first of some vectors, `[vector][width]`, that has a coordinate beyond [`SideFormat::largest`], and the magnitude
    /// of that one; not finite where it is not.
    pub(crate) fn first_beyond(&self, x: &[f32]) -> Option<(usize, f32)> {
        let most = self.largest();
        // A turn can gather what all coordinates have in one.
        let sure = if self.turns() { most / (self.width as f32).sqrt() } else { most };
        if largest(x) <= sure {
            return None;
        }
        let mut turned = vec![0.0; self.dim];
        let beyond = |x: &[f32]| {
            self.turn(x, &mut turned);
            Some(largest(&turned)).filter(|largest| largest.is_nan() || *largest > most)
        };
        let mut vectors = x.chunks_exact(self.width).map(beyond).enumerate();
        vectors.find_map(|(index, largest)| largest.map(|largest| (index, largest)))
    }

    /// Whether codes share a grid over a page.
    pub(crate) fn has_grid(&self) -> bool {
        has_grid(&self.rungs[0].layout)
    }

    /// Lines that a strip of graded keys takes on each rung; none where keys are not graded.
    pub(crate) fn graded_lines(&self) -> Vec<usize> {
        self.rungs.iter().filter_map(|rung| graded_lines(&rung.layout)).collect()
    }

    /// Whether codes are in another space than the vectors they stand for.
    pub(crate) fn turns(&self) -> bool {
        !matches!(self.turn, Turn::None)
    }

    /// Turns `x[width]` into the space of the codes, padded with zeros to `out[dim]`.
    pub(crate) fn turn(&self, x: &[f32], out: &mut [f32]) {
        out[..x.len()].copy_from_slice(x);
        out[x.len()..].fill(0.0);
        match self.turn {
            Turn::None => {}
            Turn::Hadamard => hadamard(&mut out[..self.width]),
            Turn::SignedHadamard => {
                out.iter_mut().zip(&self.signs).for_each(|(x, sign)| *x *= sign);
                hadamard(&mut out[..self.width]);
            }
        }
    }

    /// Turns `x[dim]`, in the space of the codes, back; the first `width` numbers count.
    pub(crate) fn turn_back(&self, x: &mut [f32]) {
        match self.turn {
            Turn::None => {}
            Turn::Hadamard => hadamard(&mut x[..self.width]),
            Turn::SignedHadamard => {
                hadamard(&mut x[..self.width]);
                x.iter_mut().zip(&self.signs).for_each(|(x, sign)| *x *= sign);
            }
        }
    }

    /// Encodes one turned and padded vector into a lane of a strip that is sealed on a rung, or open. Not for codes on a grid.
    pub(crate) fn write(&self, sealed: Option<usize>, strip: &mut [u8], lane: usize, x: &[f32]) {
        let layout = self.layout(sealed);
        match layout.encoding() {
            Encoding::Codes(codes) => {
                let mut u = [0u8; 512];
                let (mut scales, mut minima) = ([0.0f32; 16], [0.0f32; 16]);
                let groups = layout.groups();
                let minima = &mut minima[..if codes.minimum { groups } else { 0 }];
                let seals = &self.rung(sealed.unwrap_or(0)).store;
                let store = self.opened.as_ref().filter(|_| sealed.is_none()).unwrap_or(seals);
                store.quantize(x, &mut u[..x.len()], &mut scales[..groups], minima);
                layout.put_codes(strip, lane, &u[..x.len()], &scales[..groups], minima);
            }
            _ => layout.put(strip, lane, x),
        }
    }
}

/// The largest magnitude; infinite or NaN where one is.
pub(crate) fn largest(x: &[f32]) -> f32 {
    // The bits of magnitudes are in the order of the magnitudes, infinity and NaN beyond all others.
    f32::from_bits(x.iter().map(|x| x.to_bits() & 0x7fff_ffff).fold(0, u32::max))
}

fn has_grid(layout: &StripLayout) -> bool {
    match layout.encoding() {
        Encoding::Codes(codes) => codes.group == ScaleGroup::Channel,
        Encoding::Graded { .. } => true,
        Encoding::F32 | Encoding::F16 | Encoding::Bf16 => false,
    }
}

fn graded_lines(layout: &StripLayout) -> Option<usize> {
    match layout.encoding() {
        Encoding::Graded { lines } => Some(lines.into()),
        _ => None,
    }
}

/// Whether codes are of less than 8 bits.
fn is_coarse(layout: &StripLayout) -> bool {
    match layout.encoding() {
        Encoding::Codes(codes) => codes.bits < 8,
        Encoding::Graded { .. } => true,
        Encoding::F32 | Encoding::F16 | Encoding::Bf16 => false,
    }
}

/// Both sides.
pub(crate) struct Format {
    pub(crate) keys: SideFormat,
    pub(crate) values: SideFormat,
}

/// What the operations on slots share.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) format: &'a Format,
    pub(crate) level: Level,
}

impl Format {
    /// Of the keys and values of this layer; keys wait `exactly` to be sealed, in f16, and always where they have biases: a scale
    /// for many channels is too coarse for all but those that are large by a bias.
    pub(crate) fn new(
        keys: Box<dyn Store>,
        values: Box<dyn Store>,
        layer: &LayerShape,
        exactly: bool,
    ) -> Self {
        let &LayerShape { key_dim, value_dim, biased_keys, .. } = layer;
        Format {
            keys: SideFormat::new(keys, Side::Keys, key_dim, biased_keys || exactly),
            values: SideFormat::new(values, Side::Values, value_dim, false),
        }
    }

    /// Heap bytes of the format itself.
    pub(crate) fn bytes(&self) -> usize {
        let rungs = |side: &SideFormat| {
            let stores = side.rungs.iter().map(|rung| &rung.store).chain(&side.opened);
            let stores = stores.map(|store| size_of_val(&**store)).sum::<usize>();
            side.rungs.capacity() * size_of::<Rung>() + stores
        };
        let side = |side: &SideFormat| side.signs.capacity() * 4 + rungs(side);
        side(&self.keys) + side(&self.values)
    }

    /// Whether new tokens wait in open strips before they are coded. The newest tokens draw the most attention, and
    /// codes of less than 8 bits are too coarse for them; per-channel codes need many keys to choose a grid from.
    pub(crate) fn opens(&self) -> bool {
        let coarse = |side: &SideFormat| side.rungs.iter().any(|rung| is_coarse(&rung.layout));
        coarse(&self.keys) || coarse(&self.values)
    }

    /// The number of rungs: pages go down from one to the next where a cap in bytes leaves no room for all.
    pub(crate) fn rungs(&self) -> usize {
        self.keys.rungs.len().max(self.values.rungs.len())
    }

    /// The error of codes on a rung relative to that of two bits, which a bit more divides by four: half of it is of keys, half
    /// of values.
    pub(crate) fn loss_on(&self, rung: usize) -> f64 {
        let of_bits = |bits: f64| 4f64.powf(2.0 - bits) / 2.0;
        of_bits(self.keys.bits(rung)) + of_bits(self.values.bits(rung))
    }

    /// Whether the first strip of a head is never sealed: its tokens draw attention from all others, and their keys are like
    /// no others', so that a grid which holds them has no room between its levels for these.
    pub(crate) fn keeps_front(&self) -> bool {
        graded_lines(&self.keys.rungs[0].layout).is_some()
    }

    /// Bytes of the keys and values of one strip that is sealed on a rung.
    pub(crate) fn strip_bytes(&self, rung: usize) -> usize {
        let bytes = |side: &SideFormat| lines(side.layout(Some(rung)).strip_bytes());
        bytes(&self.keys) + bytes(&self.values)
    }

    /// Bytes of the keys and values of one open strip.
    pub(crate) fn open_strip_bytes(&self) -> usize {
        lines(self.keys.open.strip_bytes()) + lines(self.values.open.strip_bytes())
    }

    /// Bytes of the grid of a sealed page.
    pub(crate) fn grid_bytes(&self) -> usize {
        if self.keys.has_grid() { 2 * 2 * self.keys.dim } else { 0 }
    }
}

/// Buffers are whole cache lines.
fn lines(bytes: usize) -> usize {
    debug_assert!(bytes.is_multiple_of(STRIP));
    bytes.next_multiple_of(64)
}

/// The orthonormal Walsh-Hadamard transform, its own inverse, over blocks of the largest power of two that divides
/// the length.
pub(crate) fn hadamard(x: &mut [f32]) {
    let size = 1 << x.len().trailing_zeros();
    let scale = 1.0 / (size as f32).sqrt();
    for block in x.chunks_exact_mut(size) {
        let mut half = 1;
        while half < size {
            for pair in block.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        block.iter_mut().for_each(|x| *x *= scale);
    }
}
