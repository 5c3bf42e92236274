//! How kernels read packed codes: a line of 64 bytes holds four codes a lane, see [`super::layout`].

use super::layout::{Codes, Levels, nearest};
use super::simd::{Cache, Multipliers, Simd, fetch};
use crate::Scale;

/// The unsigned bytes that stand for a code in integer products: level(u) = unit · (byte(u) − offset).
pub(super) struct ByteLevels {
    pub(super) table: Option<[u8; 16]>,
    pub(super) offset: u8,
    pub(super) unit: f32,
}

impl ByteLevels {
    pub(super) fn new(codes: &Codes) -> Self {
        match codes.levels {
            Levels::Linear { offset } => ByteLevels { table: None, offset, unit: 1.0 },
            Levels::Table(table) => {
                let max = table.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let Scale { scale, inverse } = Scale::new(max, 127.0);
                let byte = |x: f32| (nearest(x * inverse) + 128) as u8;
                ByteLevels { table: Some(table.map(byte)), offset: 128, unit: scale }
            }
        }
    }
}

/// Runs `$body` with the number of bits of `$codes` and whether they have a table as constants, so that the unpacking is
/// unrolled and free of branches.
macro_rules! for_each_kind {
    ($codes:expr, |$bits:ident, $table:ident| $body:expr) => {{
        macro_rules! kind {
            ($b:literal, $t:literal) => {{
                const $bits: u32 = $b;
                const $table: bool = $t;
                $body
            }};
        }
        match ($codes.bits, matches!($codes.levels, Levels::Table(_))) {
            (8, _) => kind!(8, false),
            (4, false) => kind!(4, false),
            (4, true) => kind!(4, true),
            (3, false) => kind!(3, false),
            (3, true) => kind!(3, true),
            (_, false) => kind!(2, false),
            (_, true) => kind!(2, true),
        }
    }};
}
pub(super) use for_each_kind;

/// Fields of a line of so many bits.
const fn fields(bits: u32) -> usize {
    match bits {
        8 => 1,
        4 => 2,
        _ => 4,
    }
}

/// The bytes that stand for the codes of group `group`, four a lane. A strip has `dim / 4` groups.
///
/// # Safety
/// As [`Simd`]; the strip has this group.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, const BITS: u32, const TABLE: bool>(
    strip: *const u8,
    dim: usize,
    group: usize,
    table: S::B,
) -> S::B {
    let (line, field) = (group / fields(BITS), (group % fields(BITS)) as u32);
    // SAFETY: the caller's.
    let code = unsafe {
        match BITS {
            8 => S::load_bytes(strip.add(64 * line)),
            4 => S::field(S::load_bytes(strip.add(64 * line)), field * 4, 15),
            2 => S::field(S::load_bytes(strip.add(64 * line)), field * 2, 3),
            _ => {
                let low = S::field(S::load_bytes(strip.add(64 * line)), field * 2, 3);
                let high = S::load_bytes(strip.add(64 * (dim / 16 + group / 8)));
                S::join(low, S::field(high, (group % 8) as u32, 1))
            }
        }
    };
    // SAFETY: the caller's.
    if TABLE { unsafe { S::lookup(table, code) } } else { code }
}

/// What sums of [`dot`] begin with, so that [`total`] adds `base` to them.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn begin<S: Simd, const BITS: u32, const TABLE: bool>(base: i32) -> S::I {
    // SAFETY: the caller's.
    unsafe { if short::<S, BITS, TABLE>() { S::zero_i() } else { S::splat_i(base) } }
}

/// `acc + Σ` of the products of a group's bytes; at most [`Simd::SMALL`] before [`total`].
///
/// # Safety
/// As [`Simd`]; `n` is below 4.
#[inline(always)]
pub(super) unsafe fn dot<S: Simd, const BITS: u32, const TABLE: bool>(
    acc: S::I,
    bytes: S::B,
    x: &Multipliers,
    n: usize,
) -> S::I {
    // SAFETY: the caller's.
    unsafe {
        if small::<BITS, TABLE>() { S::dot4_small(acc, bytes, x, n) } else { S::dot4(acc, bytes, x, n) }
    }
}

/// `base` and what [`dot`] added up since [`begin`], as ordinary integers.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn total<S: Simd, const BITS: u32, const TABLE: bool>(acc: S::I, base: i32) -> S::I {
    // SAFETY: the caller's.
    unsafe { if short::<S, BITS, TABLE>() { S::add_i(S::widen(acc), S::splat_i(base)) } else { acc } }
}

/// What [`dot`] added up since a beginning of zeros, as ordinary integers.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn widen<S: Simd, const BITS: u32, const TABLE: bool>(acc: S::I) -> S::I {
    // SAFETY: the caller's.
    if short::<S, BITS, TABLE>() { unsafe { S::widen(acc) } } else { acc }
}

/// Whether sums are of another form until they are widened.
const fn short<S: Simd, const BITS: u32, const TABLE: bool>() -> bool {
    small::<BITS, TABLE>() && S::SMALL != usize::MAX
}

/// Whether all bytes are below 16.
pub(super) const fn small<const BITS: u32, const TABLE: bool>() -> bool {
    BITS <= 4 && !TABLE
}

/// What codes of so many bits are asked for into.
pub(super) const fn cache(bits: u32) -> Cache {
    if bits < 8 { Cache::First } else { Cache::Second }
}

/// Asks for the lines of a strip that [`load`] reads first at group `group`.
#[inline(always)]
pub(super) fn fetch_group<const BITS: u32>(strip: *const u8, dim: usize, group: usize) {
    if group.is_multiple_of(fields(BITS)) {
        fetch(strip.wrapping_add(64 * (group / fields(BITS))), cache(BITS));
    }
    if BITS == 3 && group.is_multiple_of(8) {
        fetch(strip.wrapping_add(64 * (dim / 16 + group / 8)), cache(BITS));
    }
}

/// Asks for the lines of the `bytes` bytes from `at` on.
#[inline(always)]
pub(super) fn fetch_lines(at: *const u8, bytes: usize, cache: Cache) {
    for line in (0..bytes).step_by(64) {
        fetch(at.wrapping_add(line), cache);
    }
}
