//! The `serde` feature.

use sketchkv_sketch::{
    CountMin, CountSketch, Projection, Race, SimHash, SpaceSaving, TopK, VectorCountSketch, VectorRace,
};

fn check<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T, bytes: impl Fn(&T) -> Vec<u8>) {
    let json = serde_json::to_string(value).unwrap();
    assert!(json.starts_with("\"534b4348"), "hexadecimal digits of SKCH: {json}");
    assert_eq!(bytes(&serde_json::from_str(&json).unwrap()), bytes(value));
    let binary = postcard::to_stdvec(value).unwrap();
    assert!(binary.len() <= bytes(value).len() + 5, "the bytes and their length");
    assert_eq!(bytes(&postcard::from_bytes(&binary).unwrap()), bytes(value));
}

#[test]
fn every_sketch_survives_text_and_binary_formats() {
    let mut min = CountMin::<u32>::new(8, 2, 1).unwrap();
    min.update("key", 3);
    check(&min, CountMin::to_bytes);
    check(&CountSketch::<f32>::new(8, 3, 1).unwrap(), CountSketch::to_bytes);
    check(&VectorCountSketch::new(4, 3, 2, 1).unwrap(), VectorCountSketch::to_bytes);
    check(&SimHash::new(4, 70, Projection::Orthogonal, 1).unwrap(), SimHash::to_bytes);
    check(&Race::new(3, 2, 4, 1).unwrap(), Race::to_bytes);
    check(&VectorRace::new(3, 2, 4, 2, 1).unwrap(), VectorRace::to_bytes);
    let mut saving = SpaceSaving::<String, u64>::new(3, 1).unwrap();
    saving.update("key".to_string(), 3);
    check(&saving, SpaceSaving::to_bytes);
    let mut top = TopK::<u32, _>::new(min, 2).unwrap();
    top.update(7, 1);
    check(&top, TopK::to_bytes);
}

#[test]
fn damage_is_an_error() {
    let json = serde_json::to_string(&CountMin::<u32>::new(8, 2, 1).unwrap()).unwrap();
    for damaged in [json.replace("534b", "534c"), json.replace("534b", "53"), json.replace("534b", "5zzb")] {
        assert!(serde_json::from_str::<CountMin<u32>>(&damaged).is_err());
    }
    assert!(serde_json::from_str::<CountMin<u32>>("\"534\"").is_err());
    assert!(serde_json::from_str::<CountMin<u64>>(&json).is_err(), "other counters");
    assert!(serde_json::from_str::<CountSketch<i32>>(&json).is_err(), "another sketch");
}
