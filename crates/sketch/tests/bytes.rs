//! The byte format: what is written is read, files of old versions stay readable, damage is an error.

mod support;

use std::path::Path;

use proptest::prelude::*;
use sketchkv_sketch::{
    CountMin, CountSketch, Projection, Race, SimHash, SketchError, SpaceSaving, TopK, VectorCountSketch,
    VectorRace,
};
use support::Random;

fn golden(version: &str, name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version);
    std::fs::read(folder.join(name).with_extension("skch")).unwrap()
}

/// What `examples/golden.rs` put into the files of version 1. These answers must never change: they also pin the
/// hash functions, without which a table is worth nothing.
#[test]
fn files_of_version_1_are_read_and_answer_as_they_did() {
    let sketch = CountMin::<u32>::from_bytes(&golden("v1", "count_min_u32")).unwrap();
    assert_eq!((sketch.width(), sketch.depth(), sketch.seed(), sketch.total()), (32, 3, 1, 6.0));
    assert_eq!(["to", "be", "or", "not"].map(|word| sketch.query(word)), [2, 2, 1, 1]);
    let sketch = CountMin::<u64>::from_bytes(&golden("v1", "count_min_u64")).unwrap();
    assert_eq!(sketch.query("to") >> 40, 2);
    assert!(sketch.clone().subtract(&sketch).is_err(), "that it saw conservative updates is in the file");
    let sketch = CountMin::<f32>::from_bytes(&golden("v1", "count_min_f32")).unwrap();
    assert!((sketch.query("be") - 1.5 * (1.0 + 0.75f32.powi(4))).abs() < 1e-5, "{}", sketch.query("be"));
    let sketch = CountSketch::<i32>::from_bytes(&golden("v1", "count_sketch_i32")).unwrap();
    assert_eq!(sketch.query("to"), -4);
    let sketch = CountSketch::<i64>::from_bytes(&golden("v1", "count_sketch_i64")).unwrap();
    assert_eq!(sketch.query("to") >> 40, 2);
    let sketch = CountSketch::<f32>::from_bytes(&golden("v1", "count_sketch_f32")).unwrap();
    assert!((sketch.query("be") - 0.5 * (1.0 + 0.75f32.powi(4))).abs() < 1e-5, "{}", sketch.query("be"));

    let sketch = VectorCountSketch::from_bytes(&golden("v1", "vector_count_sketch")).unwrap();
    let mut out = [0.0; 2];
    sketch.reconstruct("to", &mut out);
    assert_eq!(out, [1.0, -2.0]);

    for (name, projection, seed) in [
        ("simhash_gaussian", Projection::Gaussian, 10),
        ("simhash_orthogonal", Projection::Orthogonal, 11),
        ("simhash_hadamard", Projection::Hadamard, 12),
    ] {
        let hash = SimHash::from_bytes(&golden("v1", name)).unwrap();
        assert_eq!(hash, SimHash::new(3, 5, projection, seed).unwrap(), "directions of a seed do not change");
    }

    let sketch = Race::from_bytes(&golden("v1", "race")).unwrap();
    // The third vector in all rows, the first, two steps old, in all, the second, one step old, in one of three.
    let expected = 1.0 + 0.25 + 0.5 / 3.0;
    assert!((sketch.query(&[1.0, 0.25, 0.5]) - expected).abs() < 1e-6, "{}", sketch.query(&[1.0, 0.25, 0.5]));
    let sketch = VectorRace::from_bytes(&golden("v1", "vector_race")).unwrap();
    let weight = sketch.query(&[1.0, 0.25, 0.5], &mut out);
    assert_eq!((weight, out), (1.0, [1.0, 2.0]));

    let summary = SpaceSaving::<String, u64>::from_bytes(&golden("v1", "space_saving")).unwrap();
    assert_eq!((summary.query("to"), summary.query("be"), summary.total()), (2, 2, 6.0));
    let top = TopK::<String, CountMin<u32>>::from_bytes(&golden("v1", "top_k")).unwrap();
    assert_eq!(top.top().iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 2]);
}

/// The bytes of one sketch of every kind.
fn every_kind(seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut size = |n: u64| 1 + (random.next() % n) as usize;
    let mut min = CountMin::<f32>::new(size(9), size(5), seed).unwrap();
    let mut signed = CountSketch::<i64>::new(size(9), size(5), seed).unwrap();
    let mut vectors = VectorCountSketch::new(size(9), size(5), 3, seed).unwrap();
    let mut race = Race::new(size(5), size(4), 3, seed).unwrap();
    let mut vector_race = VectorRace::new(size(5), size(4), 3, size(4), seed).unwrap();
    let mut saving = SpaceSaving::<u64, u32>::new(size(9), seed).unwrap();
    let mut top =
        TopK::<Vec<u8>, _>::new(CountMin::<u64>::new(size(9), size(5), seed).unwrap(), size(9)).unwrap();
    let hash = SimHash::new(size(20), size(100), Projection::Hadamard, seed).unwrap();
    let value = vec![0.5; vector_race.value_dim()];
    for key in 0..30u64 {
        let x = random.vector(3);
        min.decay(0.5);
        min.update(&key, 1.0);
        signed.update(&key, -3);
        vectors.update_hash(key, &x, 2.0);
        race.decay(0.9);
        race.add(&x, 1.0);
        vector_race.add(&x, &value, 1.0);
        saving.update(key, 2);
        top.update(key.to_le_bytes().to_vec(), 1);
    }
    vec![
        min.to_bytes(),
        signed.to_bytes(),
        vectors.to_bytes(),
        hash.to_bytes(),
        race.to_bytes(),
        vector_race.to_bytes(),
        saving.to_bytes(),
        top.to_bytes(),
    ]
}

/// Reads bytes as the i-th of [`every_kind`] and writes them again.
fn rewritten(kind: usize, bytes: &[u8]) -> Result<Vec<u8>, SketchError> {
    Ok(match kind {
        0 => CountMin::<f32>::from_bytes(bytes)?.to_bytes(),
        1 => CountSketch::<i64>::from_bytes(bytes)?.to_bytes(),
        2 => VectorCountSketch::from_bytes(bytes)?.to_bytes(),
        3 => SimHash::from_bytes(bytes)?.to_bytes(),
        4 => Race::from_bytes(bytes)?.to_bytes(),
        5 => VectorRace::from_bytes(bytes)?.to_bytes(),
        6 => SpaceSaving::<u64, u32>::from_bytes(bytes)?.to_bytes(),
        _ => TopK::<Vec<u8>, CountMin<u64>>::from_bytes(bytes)?.to_bytes(),
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(seed: u64) {
        for (kind, bytes) in every_kind(seed).iter().enumerate() {
            for reader in 0..8 {
                match rewritten(reader, bytes) {
                    Ok(again) => {
                        prop_assert_eq!(reader, kind);
                        if kind < 6 {
                            prop_assert_eq!(&again, bytes);
                        } else {
                            // A heap may be laid out anew, once.
                            prop_assert_eq!(&rewritten(kind, &again).unwrap(), &again);
                            prop_assert_eq!(again.len(), bytes.len());
                        }
                    }
                    Err(error) => prop_assert!(reader != kind, "{}: {}", kind, error),
                }
            }
        }
    }

    #[test]
    fn damage_is_an_error(seed: u64, place: prop::sample::Index, bit in 0u8..8, cut: prop::sample::Index) {
        for (kind, bytes) in every_kind(seed).into_iter().enumerate() {
            prop_assert!(rewritten(kind, &bytes[..cut.index(bytes.len())]).is_err());
            let mut longer = bytes.clone();
            longer.push(0);
            prop_assert!(rewritten(kind, &longer).is_err());
            let mut damaged = bytes;
            let place = place.index(damaged.len());
            damaged[place] ^= 1 << bit;
            prop_assert!(rewritten(kind, &damaged).is_err());
        }
    }

    #[test]
    fn a_restored_sketch_goes_on_as_if_nothing_had_happened(
        keys in prop::collection::vec(any::<u16>(), 1..200), cut: prop::sample::Index, seed: u64,
    ) {
        let mut whole = CountMin::<f32>::new(50, 3, seed).unwrap();
        let mut part = whole.clone();
        for (i, key) in keys.iter().enumerate() {
            if i == cut.index(keys.len()) {
                part = CountMin::from_bytes(&part.to_bytes()).unwrap();
            }
            for sketch in [&mut whole, &mut part] {
                sketch.decay(0.9);
                sketch.update(key, 1.0);
            }
        }
        prop_assert_eq!(part, whole);
    }
}

#[test]
fn a_header_that_promises_much_allocates_nothing() {
    // A true checksum over a payload that claims 2^32 - 1 columns, and so on for every size field.
    for mut bytes in every_kind(1) {
        let kind = bytes[6];
        let end = bytes.len() - 4;
        for place in 16..end.min(60) {
            let saved: Vec<u8> = bytes.clone();
            for byte in &mut bytes[place..(place + 4).min(end)] {
                *byte = 0xff;
            }
            let checksum = crc32fast::hash(&bytes[..end]);
            bytes[end..].copy_from_slice(&checksum.to_le_bytes());
            // Any answer will do but a panic or an attempt to allocate what was promised.
            let _ = rewritten(usize::from(kind) % 8, &bytes);
            for reader in 0..8 {
                let _ = rewritten(reader, &bytes);
            }
            bytes = saved;
        }
    }
}
