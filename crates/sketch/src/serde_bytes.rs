//! `serde` for every sketch, by way of the crate's own byte format: the same checks guard both doors.
//!
//! Binary formats get the bytes; formats for people (JSON, TOML) get them as a string of hexadecimal digits.

use std::fmt;
use std::hash::Hash;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    CountMin, CountSketch, Counter, FrequencySketch, Race, SignedCounter, SimHash, SpaceSaving, StoredKey,
    TopK, VectorCountSketch, VectorRace,
};

macro_rules! by_bytes {
    ($type:ty $(, $($bounds:tt)*)?) => {
        impl $(<$($bounds)*>)? Serialize for $type {
            fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
                serialize(&self.to_bytes(), serializer)
            }
        }
        impl<'de $(, $($bounds)*)?> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::from_bytes(&deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    };
}

by_bytes!(CountMin<C>, C: Counter);
by_bytes!(CountSketch<C>, C: SignedCounter);
by_bytes!(VectorCountSketch);
by_bytes!(SimHash);
by_bytes!(Race);
by_bytes!(VectorRace);
by_bytes!(SpaceSaving<K, C>, K: StoredKey + Hash + Eq, C: Counter);
by_bytes!(TopK<K, S>, K: StoredKey + Hash + Eq, S: FrequencySketch);

fn serialize<Z: Serializer>(bytes: &[u8], serializer: Z) -> Result<Z::Ok, Z::Error> {
    if serializer.is_human_readable() {
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16");
        let hex: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        serializer.serialize_str(&hex)
    } else {
        serializer.serialize_bytes(bytes)
    }
}

fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(Bytes)
    } else {
        deserializer.deserialize_byte_buf(Bytes)
    }
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the bytes of a sketch, or their hexadecimal digits")
    }

    fn visit_str<E: Error>(self, hex: &str) -> Result<Vec<u8>, E> {
        let digit = |character: u8| char::from(character).to_digit(16).map(|digit| digit as u8);
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err(E::custom("an odd number of hexadecimal digits"));
        }
        let bytes: Option<Vec<u8>> = pairs.iter().map(|&[a, b]| Some(digit(a)? << 4 | digit(b)?)).collect();
        bytes.ok_or_else(|| E::custom("a character that is no hexadecimal digit"))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = sequence.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}
