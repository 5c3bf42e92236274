use super::{Multipliers, Simd};

/// The reference: arrays and loops, on any CPU.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

fn map<T: Copy, U: Copy + Default>(a: [T; 16], f: impl Fn(T) -> U) -> [U; 16] {
    let mut out = [U::default(); 16];
    for (o, a) in out.iter_mut().zip(a) {
        *o = f(a);
    }
    out
}

fn zip(a: [f32; 16], b: [f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

// SAFETY throughout: plain Rust but for the reads and writes through pointers, which the caller vouches for.
impl Simd for Scalar {
    const VALUES: usize = 8;
    const QUERIES: usize = 1;
    const SMALL: usize = usize::MAX;
    type F = [f32; 16];
    type I = [i32; 16];
    type B = [u8; 64];
    type W = [u16; 64];

    unsafe fn run<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    unsafe fn splat(x: f32) -> Self::F {
        [x; 16]
    }
    unsafe fn load(p: *const f32) -> Self::F {
        // SAFETY: see the note on the impl.
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    unsafe fn store(p: *mut f32, x: Self::F) {
        // SAFETY: see the note on the impl.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(x) }
    }
    unsafe fn load_f16(p: *const u16) -> Self::F {
        // SAFETY: see the note on the impl.
        map(unsafe { p.cast::<[u16; 16]>().read_unaligned() }, |x| half::f16::from_bits(x).to_f32())
    }
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        // SAFETY: see the note on the impl.
        map(unsafe { p.cast::<[u16; 16]>().read_unaligned() }, |x| f32::from_bits((x as u32) << 16))
    }
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    unsafe fn abs(x: Self::F) -> Self::F {
        map(x, f32::abs)
    }
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    unsafe fn round(x: Self::F) -> Self::F {
        map(x, f32::round_ties_even)
    }
    unsafe fn exp2i(x: Self::F) -> Self::F {
        map(x, |x| f32::from_bits(((x as i32 + 127) as u32) << 23))
    }
    unsafe fn sum(a: Self::F) -> f32 {
        a.iter().sum()
    }
    unsafe fn maximum(a: Self::F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    unsafe fn zero_i() -> Self::I {
        [0; 16]
    }
    unsafe fn splat_i(x: i32) -> Self::I {
        [x; 16]
    }
    unsafe fn to_f(a: Self::I) -> Self::F {
        map(a, |a| a as f32)
    }
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] + b[i])
    }
    unsafe fn multipliers(x: Self::F) -> Multipliers {
        Multipliers::new(x.map(|x| x as i8))
    }
    unsafe fn dot4(acc: Self::I, bytes: Self::B, x: &Multipliers, n: usize) -> Self::I {
        let x = x.words[n].to_le_bytes();
        std::array::from_fn(|lane| {
            (0..4).fold(acc[lane], |sum, i| sum + bytes[4 * lane + i] as i32 * (x[i] as i8) as i32)
        })
    }
    unsafe fn dot4_small(acc: Self::I, bytes: Self::B, x: &Multipliers, n: usize) -> Self::I {
        // SAFETY: see the note on the impl.
        unsafe { Self::dot4(acc, bytes, x, n) }
    }
    unsafe fn widen(acc: Self::I) -> Self::I {
        acc
    }
    unsafe fn load_bytes(p: *const u8) -> Self::B {
        // SAFETY: see the note on the impl.
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    unsafe fn field(b: Self::B, n: u32, mask: u8) -> Self::B {
        b.map(|b| (b >> n) & mask)
    }
    unsafe fn byte(b: Self::B, n: u32) -> Self::F {
        std::array::from_fn(|lane| b[4 * lane + n as usize] as f32)
    }
    unsafe fn join(low: Self::B, high: Self::B) -> Self::B {
        std::array::from_fn(|i| low[i] | high[i] << 2)
    }
    unsafe fn table(table: &[u8; 16]) -> Self::B {
        std::array::from_fn(|i| table[i % 16])
    }
    unsafe fn lookup(table: Self::B, index: Self::B) -> Self::B {
        index.map(|i| table[i as usize])
    }
    unsafe fn add_bytes(a: Self::B, b: Self::B) -> Self::B {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    unsafe fn zero_w() -> Self::W {
        [0; 64]
    }
    unsafe fn add_w(acc: Self::W, bytes: Self::B) -> Self::W {
        std::array::from_fn(|i| acc[i].wrapping_add(bytes[i] as u16))
    }
    unsafe fn store_w(p: *mut u16, x: Self::W) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: see the note on the impl.
            unsafe { p.add(i % 2 * 32 + i / 2).write_unaligned(x) }
        }
    }
    unsafe fn load_u16(p: *const u16) -> Self::I {
        // SAFETY: see the note on the impl.
        map(unsafe { p.cast::<[u16; 16]>().read_unaligned() }, |x| x as i32)
    }
}
