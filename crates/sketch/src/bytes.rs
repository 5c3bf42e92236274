//! The byte format of every sketch: little-endian, versioned, checksummed.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | `SKCH` |
//! | 4 | 2 | format version |
//! | 6 | 1 | kind of sketch |
//! | 7 | 1 | 0, reserved |
//! | 8 | 8 | length of the payload |
//! | 16 | … | payload, by kind |
//! | last 4 | 4 | CRC-32 (IEEE) of everything before |
//!
//! A reader accepts every version up to its own. It never allocates more than a small multiple of the bytes it was
//! given: each table's size is checked against what is left before the table is made.

use crate::SketchError;

const MAGIC: [u8; 4] = *b"SKCH";
/// The version written. Version 1 is the first.
const VERSION: u16 = 1;
const HEADER: usize = 16;
const CHECKSUM: usize = 4;

/// What follows the header. The numbers are part of the format and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    CountMin = 1,
    CountSketch = 2,
    VectorCountSketch = 3,
    SimHash = 4,
    Race = 5,
    VectorRace = 6,
    SpaceSaving = 7,
    TopK = 8,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::CountMin => "Count-Min sketch",
            Self::CountSketch => "Count-Sketch",
            Self::VectorCountSketch => "vector Count-Sketch",
            Self::SimHash => "SimHash",
            Self::Race => "RACE sketch",
            Self::VectorRace => "vector RACE sketch",
            Self::SpaceSaving => "Space-Saving summary",
            Self::TopK => "top-k summary",
        }
    }

    pub(crate) fn error(self, why: impl Into<String>) -> SketchError {
        SketchError::Decode { kind: self.name(), why: why.into() }
    }
}

/// Builds the bytes of one sketch.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(kind: Kind) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([kind as u8, 0]);
        bytes.extend([0; 8]);
        Self { bytes }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, x: u8) {
        self.raw(&[x]);
    }

    pub(crate) fn u32(&mut self, x: u32) {
        self.raw(&x.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, x: u64) {
        self.raw(&x.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, x: f32) {
        self.raw(&x.to_le_bytes());
    }

    pub(crate) fn f64(&mut self, x: f64) {
        self.raw(&x.to_le_bytes());
    }

    pub(crate) fn f32s(&mut self, xs: &[f32]) {
        self.bytes.reserve(4 * xs.len());
        for &x in xs {
            self.f32(x);
        }
    }

    /// Bytes with their length before them.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.raw(bytes);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let payload = (self.bytes.len() - HEADER) as u64;
        self.bytes[8..HEADER].copy_from_slice(&payload.to_le_bytes());
        let checksum = crc32fast::hash(&self.bytes);
        self.bytes.extend(checksum.to_le_bytes());
        self.bytes
    }
}

/// Reads the payload of one sketch; every method gives nothing where the bytes end too early.
#[derive(Debug)]
pub struct Reader<'a> {
    kind: Kind,
    payload: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn open(kind: Kind, bytes: &'a [u8]) -> Result<Self, SketchError> {
        if bytes.len() < HEADER + CHECKSUM {
            return Err(kind.error(format!("{} bytes are shorter than a header", bytes.len())));
        }
        let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
        let (header, payload) = body.split_at(HEADER);
        if header[..4] != MAGIC {
            return Err(kind.error("it does not begin with SKCH"));
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if version == 0 || version > VERSION {
            return Err(kind.error(format!(
                "it is of format version {version}, and this release reads 1 to {VERSION}: use a newer release"
            )));
        }
        if header[6] != kind as u8 {
            return Err(kind.error(format!("it holds another kind of sketch (number {})", header[6])));
        }
        if header[7] != 0 {
            return Err(kind.error("the reserved byte is not 0"));
        }
        let length = header[8..].iter().rev().fold(0u64, |length, &byte| length << 8 | u64::from(byte));
        if length != payload.len() as u64 {
            return Err(kind.error(format!("its payload is {} bytes, but should be {length}", payload.len())));
        }
        if crc32fast::hash(body).to_le_bytes() != checksum {
            return Err(kind.error("its checksum does not match: the bytes are damaged"));
        }
        Ok(Self { kind, payload })
    }

    pub(crate) fn raw<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.payload.split_first_chunk::<N>()?;
        self.payload = rest;
        Some(*bytes)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.raw::<1>().map(|[x]| x)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.raw().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.raw().map(u64::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Option<f32> {
        self.raw().map(f32::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Option<f64> {
        self.raw().map(f64::from_le_bytes)
    }

    /// A count of things, as the machine counts them.
    pub(crate) fn size(&mut self) -> Option<usize> {
        self.u32().map(|x| x as usize)
    }

    /// What [`Writer::chunk`] wrote.
    pub(crate) fn chunk(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        let (bytes, rest) = self.payload.split_at_checked(length)?;
        self.payload = rest;
        Some(bytes)
    }

    /// `n` floats; nothing where there are fewer left.
    pub(crate) fn f32s(&mut self, n: usize) -> Option<Vec<f32>> {
        if self.payload.len() / 4 < n {
            return None;
        }
        // Collecting options would not know how many there are and allocate too much.
        let mut floats = Vec::with_capacity(n);
        for _ in 0..n {
            floats.push(self.f32()?);
        }
        Some(floats)
    }

    /// Whether `n` values of `bytes` bytes each can still be here.
    pub(crate) fn holds(&self, n: usize, bytes: usize) -> bool {
        n.checked_mul(bytes).is_some_and(|total| total <= self.payload.len())
    }

    /// Ends the reading: `sketch` if every field was there and sound and nothing is left over.
    pub(crate) fn close<T>(self, sketch: Option<T>) -> Result<T, SketchError> {
        match sketch {
            None => Err(self.kind.error("a field is missing or out of range")),
            Some(_) if !self.payload.is_empty() => {
                Err(self.kind.error(format!("{} bytes are left over", self.payload.len())))
            }
            Some(sketch) => Ok(sketch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Kind::Race);
        writer.u32(5);
        writer.f32s(&[1.0, -2.0]);
        writer.finish()
    }

    fn read(bytes: &[u8]) -> Result<(u32, Vec<f32>), SketchError> {
        let mut reader = Reader::open(Kind::Race, bytes)?;
        let fields = (|| Some((reader.u32()?, reader.f32s(2)?)))();
        reader.close(fields)
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&sample()).unwrap(), (5, vec![1.0, -2.0]));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = sample();
        for i in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[i / 8] ^= 1 << (i % 8);
            assert!(read(&damaged).is_err(), "bit {i}");
        }
        for n in 0..bytes.len() {
            assert!(read(&bytes[..n]).is_err(), "cut at {n}");
        }
    }

    #[test]
    fn a_later_version_is_refused_with_advice() {
        let mut bytes = sample();
        bytes[4] = 2;
        assert!(read(&bytes).unwrap_err().to_string().contains("newer release"));
    }
}
