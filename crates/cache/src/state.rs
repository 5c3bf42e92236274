//! Little-endian reading and writing of saved state.

/// What is wrong with saved state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The file ends too early.
    #[error("the saved cache is cut short at byte {0}: save it again")]
    Truncated(usize),
    /// The file is damaged, or something else.
    #[error("the saved cache is damaged or no saved cache: {0}")]
    Corrupt(String),
    /// The file belongs to another model, spec or version.
    #[error("the saved cache does not fit: {0}")]
    Mismatch(String),
}

/// Bytes being written.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Raw bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A number.
    pub fn u64(&mut self, x: u64) {
        self.raw(&x.to_le_bytes());
    }

    /// A length and that many bytes.
    pub fn blob(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A length and that many words.
    pub fn words(&mut self, words: &[u32]) {
        self.u64(words.len() as u64);
        words.iter().for_each(|x| self.raw(&x.to_le_bytes()));
    }

    /// A length and that many floats.
    pub fn floats(&mut self, floats: &[f32]) {
        self.u64(floats.len() as u64);
        floats.iter().for_each(|x| self.raw(&x.to_le_bytes()));
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Bytes being read.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// From the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn raw(&mut self, n: usize) -> Result<&'a [u8], StateError> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(StateError::Truncated(self.bytes.len()))?;
        let piece = &self.bytes[self.at..end];
        self.at = end;
        Ok(piece)
    }

    /// A number.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn u64(&mut self) -> Result<u64, StateError> {
        Ok(u64::from_le_bytes(self.raw(8)?.try_into().expect("8 bytes")))
    }

    /// A length that is at most `limit`.
    ///
    /// # Errors
    /// When the bytes end or the length is larger.
    pub fn length(&mut self, limit: usize) -> Result<usize, StateError> {
        let n = self.u64()?;
        usize::try_from(n)
            .ok()
            .filter(|&n| n <= limit)
            .ok_or_else(|| StateError::Corrupt(format!("a length of {n} where {limit} is the most")))
    }

    /// A length and that many bytes.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn blob(&mut self) -> Result<&'a [u8], StateError> {
        let n = self.length(self.bytes.len())?;
        self.raw(n)
    }

    /// A length and that many words, `expected` of them.
    ///
    /// # Errors
    /// When the bytes end or the length differs.
    pub fn words(&mut self, expected: usize) -> Result<Vec<u32>, StateError> {
        self.expect(expected)?;
        let bytes = self.raw(expected.checked_mul(4).ok_or(StateError::Truncated(self.bytes.len()))?)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect())
    }

    /// A length and that many floats, `expected` of them.
    ///
    /// # Errors
    /// When the bytes end or the length differs.
    pub fn floats(&mut self, expected: usize) -> Result<Vec<f32>, StateError> {
        Ok(self.words(expected)?.into_iter().map(f32::from_bits).collect())
    }

    fn expect(&mut self, expected: usize) -> Result<(), StateError> {
        let n = self.u64()?;
        if n != expected as u64 {
            return Err(StateError::Corrupt(format!("{n} entries where {expected} belong")));
        }
        Ok(())
    }

    /// Whether all bytes are read.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }
}
