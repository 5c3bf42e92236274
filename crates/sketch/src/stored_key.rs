//! Keys that can be written to the byte format.

/// A key that a summary can write and read; implement it for a key type of your own to store summaries of it.
pub trait StoredKey: Sized {
    /// The key as bytes, the same on every machine.
    fn to_key_bytes(&self) -> Vec<u8>;
    /// The key of such bytes, if they are one.
    fn from_key_bytes(bytes: &[u8]) -> Option<Self>;
}

macro_rules! integer_key {
    ($($type:ty),*) => {
        $(impl StoredKey for $type {
            fn to_key_bytes(&self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
            fn from_key_bytes(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_le_bytes)
            }
        })*
    };
}

integer_key!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);

impl StoredKey for String {
    fn to_key_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn from_key_bytes(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

impl StoredKey for Vec<u8> {
    fn to_key_bytes(&self) -> Vec<u8> {
        self.clone()
    }
    fn from_key_bytes(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}
