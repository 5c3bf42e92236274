//! How 16 slots of one KV head lie in memory: a *strip*. A page is a run of up to four strips.
//!
//! Floats of keys lie dimension-major, so that one register holds one dimension of 16 slots; those of values slot-major.
//! Codes lie in *groups* of 64, four in each of the 16 lanes of a register, because that is what integer products sum:
//! of keys a lane is a slot and the four are dimensions; of values a lane is a dimension and the four are slots. Groups
//! are packed so that a register unpacks by one shift and one mask, whatever the number of bits:
//!
//! | bits | field f of line j holds group |
//! |---|---|
//! | 8 | j |
//! | 4 | 2j+f |
//! | 2 | 4j+f |
//! | 3 | the low two bits as above, then lines of one bit: 8j+f |
//!
//! Field f of a byte starts at bit f·bits. Group g of keys is dimensions 4g to 4g+3; of values, slots 4s to 4s+3 of
//! dimensions 16c to 16c+15, with g = s·dim/16 + c.
//! The f16 scales follow, `[scale group][slot]`, then the f16 minima where the code has them.

use super::graded::{self, Grades};
use crate::half::{bf16, f16, to_bf16, to_f16};

/// Slots in a strip.
pub const STRIP: usize = 16;
/// Dimensions that share a scale in [`ScaleGroup::Block`].
pub const BLOCK: usize = 32;
/// Dimensions of the widest head.
pub const MAX_DIM: usize = 512;

/// How wide a strip is whose vectors have `width` dimensions: whole blocks.
pub fn padded(width: usize) -> usize {
    width.next_multiple_of(BLOCK)
}

/// The integer nearest to `x`, ties to even, for |x| ≤ 2^22. Without SSE4.1 every `round_ties_even` is a call of the C
/// library; adding 1.5·2^23 leaves the integer in the low bits of the sum.
pub fn nearest(x: f32) -> i32 {
    const UNIT: f32 = 12_582_912.0;
    ((x + UNIT).to_bits() as i32).wrapping_sub(UNIT.to_bits() as i32)
}

/// How numbers are encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Encoding {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// bfloat16.
    Bf16,
    /// Small integers with scales.
    Codes(Codes),
    /// Integers whose bits are the channel's own, on the [`Grid`] of a page (keys only). What is in a strip is known to
    /// [`Grades`] alone.
    Graded {
        /// Lines of 64 bytes a strip.
        lines: u16,
    },
}

/// What a code u in 0..2^bits stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Levels {
    /// u − offset.
    Linear {
        /// The code of zero.
        offset: u8,
    },
    /// table\[u\]; at most 16 levels.
    Table([f32; 16]),
}

/// What shares a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleGroup {
    /// 32 dimensions of one slot.
    Block,
    /// All dimensions of one slot.
    Slot,
    /// One dimension of all slots of a page (keys only): the [`Grid`] lies outside the strip.
    Channel,
}

/// Codes with scales: value = scale · level(u) (+ minimum).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Codes {
    /// Bits of a code: 2, 3, 4 or 8.
    pub bits: u32,
    /// What a code stands for before scaling.
    pub levels: Levels,
    /// What shares a scale.
    pub group: ScaleGroup,
    /// Whether each scale comes with an additive minimum (values only).
    pub minimum: bool,
}

impl Codes {
    /// level(u), the value of a code before scaling.
    pub fn level(&self, code: u8) -> f32 {
        match self.levels {
            Levels::Linear { offset } => code as f32 - offset as f32,
            Levels::Table(table) => table[code as usize],
        }
    }

    /// The largest code.
    pub fn max_code(&self) -> u8 {
        ((1u32 << self.bits) - 1) as u8
    }

    fn groups(&self, dim: usize) -> usize {
        match self.group {
            ScaleGroup::Block => dim / BLOCK,
            ScaleGroup::Slot => 1,
            ScaleGroup::Channel => 0,
        }
    }
}

/// Scale and zero of every dimension of a page's keys: key = zero + scale · level(u).
#[derive(Debug, Clone, Copy)]
pub struct Grid<'a> {
    /// `[dim]`.
    pub scale: &'a [f32],
    /// `[dim]`.
    pub zero: &'a [f32],
    /// Bits of each dimension, where they are its own.
    pub grades: Option<&'a Grades>,
}

fn put_f16(bytes: &mut [u8], index: usize, x: f32) {
    bytes[2 * index..][..2].copy_from_slice(&to_f16(x).to_le_bytes());
}

fn get_f16(bytes: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32()
}

/// The side of a strip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Dimension-major.
    Keys,
    /// Slot-major.
    Values,
}

/// The layout of the keys or the values of a strip: what kernels trust when they read and write without checks, hence
/// made by [`StripLayout::new`] alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StripLayout {
    side: Side,
    encoding: Encoding,
    dim: usize,
    /// What [`StripLayout::strip_bytes`] says: it is asked for again and again.
    bytes: usize,
}

/// Bits of the codes of a strip: those of `fields` groups share a line.
#[derive(Clone, Copy)]
struct Pieces {
    first_line: usize,
    fields: usize,
    bits: u32,
    /// Where they belong in the code.
    to: u32,
}

impl Pieces {
    /// Where the line of a group begins, and which bits of its bytes are the group's.
    fn of(&self, group: usize) -> (usize, Bits) {
        let mask = ((1u32 << self.bits) - 1) as u8;
        let shift = (group % self.fields) as u32 * self.bits;
        (64 * (self.first_line + group / self.fields), Bits { shift, mask })
    }
}

/// Some bits of a byte.
#[derive(Clone, Copy)]
struct Bits {
    shift: u32,
    /// Before it is shifted.
    mask: u8,
}

impl Bits {
    fn get(self, byte: u8) -> u8 {
        byte >> self.shift & self.mask
    }

    fn put(self, byte: &mut u8, bits: u8) {
        *byte = *byte & !(self.mask << self.shift) | (bits & self.mask) << self.shift;
    }
}

impl StripLayout {
    /// A layout for `dim` dimensions, a multiple of 32 (pad with zeros).
    ///
    /// # Panics
    /// When `dim` is no multiple of 32 or above 512; when codes have another number of bits than 2, 3, 4 and 8; when a
    /// table is of 8 bits, or has a level beyond ±256, which is for scales to reach; when values are to have per-channel
    /// scales or be graded, or keys minima; when graded keys have no bits, or more than 8 a channel.
    pub fn new(side: Side, encoding: Encoding, dim: usize) -> Self {
        assert!(
            dim.is_multiple_of(BLOCK) && (BLOCK..=MAX_DIM).contains(&dim),
            "{dim} dimensions: a strip has a multiple of {BLOCK}, at most {MAX_DIM}"
        );
        if let Encoding::Codes(codes) = encoding {
            assert!(
                matches!(codes.bits, 2 | 3 | 4 | 8),
                "codes of {} bits: 2, 3, 4 or 8 are packed",
                codes.bits
            );
            assert!(
                side == Side::Keys || codes.group != ScaleGroup::Channel,
                "values have no per-channel scales"
            );
            assert!(side == Side::Values || !codes.minimum, "keys have no minima");
            if let Levels::Table(table) = codes.levels {
                assert!(codes.bits <= 4, "a table has 16 levels at most, codes of {} bits more", codes.bits);
                assert!(table.iter().all(|level| level.abs() <= 256.0), "levels beyond ±256: {table:?}");
            }
        }
        if let Encoding::Graded { lines } = encoding {
            assert!(side == Side::Keys, "values have no bits by channel");
            assert!((1..=dim / 4).contains(&usize::from(lines)), "{lines} lines for {dim} channels");
        }
        let mut layout = StripLayout { side, encoding, dim, bytes: 0 };
        layout.bytes = layout.code_bytes() + layout.scale_bytes();
        layout
    }

    /// Keys or values.
    pub fn side(&self) -> Side {
        self.side
    }

    /// How numbers are encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Dimensions, a multiple of 32.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many strips `bytes` are.
    ///
    /// # Panics
    /// When they are no whole number of strips of this side.
    pub(super) fn count(&self, side: Side, bytes: &[u8]) -> usize {
        assert!(self.side == side, "a layout of {:?} where {side:?} are read", self.side);
        let (count, rest) = (bytes.len() / self.strip_bytes(), bytes.len() % self.strip_bytes());
        assert!(rest == 0, "{} bytes are no whole strips of {}", bytes.len(), self.strip_bytes());
        count
    }

    /// Bytes of the numbers or codes of a strip, without scales.
    pub fn code_bytes(&self) -> usize {
        let d = self.dim;
        STRIP
            * match self.encoding {
                Encoding::F32 => 4 * d,
                Encoding::F16 | Encoding::Bf16 => 2 * d,
                Encoding::Codes(codes) => d * codes.bits as usize / 8,
                Encoding::Graded { lines } => 64 / STRIP * usize::from(lines),
            }
    }

    /// Bytes of the scales and minima of a strip.
    pub fn scale_bytes(&self) -> usize {
        2 * STRIP * self.groups() * (1 + self.minimum() as usize)
    }

    /// Bytes of a strip.
    pub fn strip_bytes(&self) -> usize {
        self.bytes
    }

    /// Scales per slot.
    pub fn groups(&self) -> usize {
        match self.encoding {
            Encoding::Codes(codes) => codes.groups(self.dim),
            _ => 0,
        }
    }

    fn minimum(&self) -> bool {
        matches!(self.encoding, Encoding::Codes(Codes { minimum: true, .. }))
    }

    /// Byte offset of one float of the uncoded encodings, in elements.
    fn element(&self, lane: usize, dim: usize) -> usize {
        match self.side {
            Side::Keys => dim * STRIP + lane,
            Side::Values => lane * self.dim + dim,
        }
    }

    /// What codes of so many bits are made of: one kind of pieces, or two for 3 bits.
    fn pieces(&self, bits: u32) -> [Option<Pieces>; 2] {
        let pieces = |first_line, fields, bits, to| Some(Pieces { first_line, fields, bits, to });
        match bits {
            8 => [pieces(0, 1, 8, 0), None],
            4 => [pieces(0, 2, 4, 0), None],
            2 => [pieces(0, 4, 2, 0), None],
            _ => [pieces(0, 4, 2, 0), pieces(self.dim / 16, 8, 1, 2)],
        }
    }

    /// The group that a dimension of a slot is in, and its byte in a line.
    fn group(&self, lane: usize, dim: usize) -> (usize, usize) {
        match self.side {
            Side::Keys => (dim / 4, 4 * lane + dim % 4),
            Side::Values => (lane / 4 * (self.dim / 16) + dim / 16, 4 * (dim % 16) + lane % 4),
        }
    }

    /// Where one code lies: (byte, bits of it, shift in the code), once or twice.
    fn places(&self, bits: u32, lane: usize, dim: usize) -> impl Iterator<Item = (usize, Bits, u32)> {
        let (group, byte) = self.group(lane, dim);
        let pieces = self.pieces(bits).into_iter().flatten();
        pieces.map(move |pieces| {
            let (line, bits) = pieces.of(group);
            (line + byte, bits, pieces.to)
        })
    }

    /// Calls `f(byte, bits, dim, shift in the code)` for all pieces of the codes of a slot.
    #[inline(always)]
    fn for_each_place(&self, bits: u32, lane: usize, mut f: impl FnMut(usize, Bits, usize, u32)) {
        // Dimensions of a group, and how far apart their bytes are.
        let (dims, step) = match self.side {
            Side::Keys => (4, 1),
            Side::Values => (16, 4),
        };
        for pieces in self.pieces(bits).into_iter().flatten() {
            for first in (0..self.dim).step_by(dims) {
                let (group, byte) = self.group(lane, first);
                let (line, bits) = pieces.of(group);
                for i in 0..dims {
                    f(line + byte + step * i, bits, first + i, pieces.to);
                }
            }
        }
    }

    /// Reads all codes of a slot, `[dim]`.
    fn codes(&self, bits: u32, strip: &[u8], lane: usize, codes: &mut [u8]) {
        codes.fill(0);
        self.for_each_place(bits, lane, |byte, bits, dim, to| codes[dim] |= bits.get(strip[byte]) << to);
    }

    /// Writes all codes of a slot, `[dim]`.
    fn set_codes(&self, bits: u32, strip: &mut [u8], lane: usize, codes: &[u8]) {
        self.for_each_place(bits, lane, |byte, bits, dim, from| {
            bits.put(&mut strip[byte], codes[dim] >> from)
        });
    }

    /// Writes one slot of an uncoded layout; `x` is `[dim]`.
    ///
    /// # Panics
    /// When the layout is coded.
    pub fn put(&self, strip: &mut [u8], lane: usize, x: &[f32]) {
        for (dim, &x) in x.iter().enumerate() {
            let at = self.element(lane, dim);
            match self.encoding {
                Encoding::F32 => strip[4 * at..][..4].copy_from_slice(&x.to_le_bytes()),
                Encoding::F16 => put_f16(strip, at, x),
                Encoding::Bf16 => strip[2 * at..][..2].copy_from_slice(&to_bf16(x).to_le_bytes()),
                Encoding::Codes(_) | Encoding::Graded { .. } => panic!("put on a coded layout"),
            }
        }
    }

    /// Writes the codes of one slot, `[dim]`, its scales `[groups]` and its minima (`[groups]` or empty).
    ///
    /// # Panics
    /// When the layout is not coded.
    pub fn put_codes(&self, strip: &mut [u8], lane: usize, codes: &[u8], scales: &[f32], minima: &[f32]) {
        let Encoding::Codes(Codes { bits, .. }) = self.encoding else { panic!("put_codes on plain floats") };
        self.set_codes(bits, strip, lane, codes);
        let tail = &mut strip[self.code_bytes()..];
        for (i, &x) in scales.iter().chain(minima).enumerate() {
            put_f16(tail, i * STRIP + lane, x);
        }
    }

    /// Writes one code.
    ///
    /// # Panics
    /// When the layout is not coded.
    pub fn put_code(&self, strip: &mut [u8], lane: usize, dim: usize, code: u8) {
        let Encoding::Codes(Codes { bits, .. }) = self.encoding else { panic!("put_code on plain floats") };
        self.places(bits, lane, dim).for_each(|(byte, bits, from)| bits.put(&mut strip[byte], code >> from));
    }

    /// Reads one code.
    ///
    /// # Panics
    /// When the layout is not coded.
    pub fn code(&self, strip: &[u8], lane: usize, dim: usize) -> u8 {
        let Encoding::Codes(Codes { bits, .. }) = self.encoding else { panic!("code on plain floats") };
        self.places(bits, lane, dim).fold(0, |code, (byte, bits, to)| code | bits.get(strip[byte]) << to)
    }

    /// Decodes one slot into `out`, `[dim]`. `grid` is needed for per-channel and graded codes.
    ///
    /// # Panics
    /// When such codes come without their grid.
    pub fn get(&self, strip: &[u8], lane: usize, grid: Option<Grid<'_>>, out: &mut [f32]) {
        if let Encoding::Graded { .. } = self.encoding {
            return graded::get(self, strip, lane, grid, out);
        }
        if let Encoding::Codes(codes) = self.encoding {
            return self.get_codes(codes, strip, lane, grid, out);
        }
        for (dim, out) in out.iter_mut().enumerate() {
            let at = self.element(lane, dim);
            *out = match self.encoding {
                Encoding::F32 => f32::from_le_bytes(strip[4 * at..][..4].try_into().expect("4 bytes")),
                Encoding::F16 => get_f16(strip, at),
                Encoding::Bf16 => bf16::from_le_bytes([strip[2 * at], strip[2 * at + 1]]).to_f32(),
                Encoding::Codes(_) | Encoding::Graded { .. } => unreachable!("codes were read above"),
            };
        }
    }

    fn get_codes(&self, codes: Codes, strip: &[u8], lane: usize, grid: Option<Grid<'_>>, out: &mut [f32]) {
        let mut units = [0; MAX_DIM];
        let units = &mut units[..self.dim];
        self.codes(codes.bits, strip, lane, units);
        let levels = out.iter_mut().zip(units).map(|(out, &mut unit)| (out, codes.level(unit)));
        if codes.group == ScaleGroup::Channel {
            let grid = grid.expect("per-channel codes need their grid");
            for ((out, level), (zero, scale)) in levels.zip(grid.zero.iter().zip(grid.scale)) {
                *out = zero + scale * level;
            }
            return;
        }
        let (tail, groups) = (&strip[self.code_bytes()..], codes.groups(self.dim));
        let of_group = |g: usize| {
            let minimum = if codes.minimum { get_f16(tail, (groups + g) * STRIP + lane) } else { 0.0 };
            (get_f16(tail, g * STRIP + lane), minimum)
        };
        let mut scales = [(0.0, 0.0); MAX_DIM / BLOCK];
        scales.iter_mut().enumerate().take(groups).for_each(|(g, scale)| *scale = of_group(g));
        let dims = self.dim / groups;
        for (dim, (out, level)) in levels.enumerate() {
            let (scale, minimum) = scales[dim / dims];
            *out = scale * level + minimum;
        }
    }

    /// Copies one slot from a strip to a strip of the same layout, bit for bit.
    pub fn copy(&self, from: &[u8], from_lane: usize, to: &mut [u8], to_lane: usize) {
        let mut bytes = |at: usize, to_at: usize, n: usize| {
            to[to_at..to_at + n].copy_from_slice(&from[at..at + n]);
        };
        match self.encoding {
            Encoding::F32 | Encoding::F16 | Encoding::Bf16 => {
                let width = if self.encoding == Encoding::F32 { 4 } else { 2 };
                for dim in 0..self.dim {
                    let at = |lane| width * self.element(lane, dim);
                    bytes(at(from_lane), at(to_lane), width);
                }
            }
            Encoding::Graded { lines } => {
                for line in 0..usize::from(lines) {
                    bytes(64 * line + 4 * from_lane, 64 * line + 4 * to_lane, 4);
                }
            }
            Encoding::Codes(codes) => {
                let (start, rows) = (self.code_bytes(), self.groups() * (1 + codes.minimum as usize));
                for row in 0..rows {
                    let at = |lane| start + 2 * (row * STRIP + lane);
                    bytes(at(from_lane), at(to_lane), 2);
                }
                let mut units = [0; MAX_DIM];
                let units = &mut units[..self.dim];
                self.codes(codes.bits, from, from_lane, units);
                self.set_codes(codes.bits, to, to_lane, units);
            }
        }
    }
}
