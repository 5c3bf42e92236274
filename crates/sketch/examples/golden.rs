//! Writes a small sketch of every kind into a folder: the golden files of the byte format.
//!
//! Files of a released format version are never written again; a new version gets a folder of its own:
//!
//!     cargo run -p sketchkv-sketch --example golden -- crates/sketch/tests/golden/v1

use std::path::PathBuf;

use sketchkv_sketch::{
    CountMin, CountSketch, Projection, Race, SimHash, SpaceSaving, TopK, VectorCountSketch, VectorRace,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("give the folder to write to")?);
    std::fs::create_dir_all(&folder)?;
    for (name, bytes) in samples()? {
        std::fs::write(folder.join(name).with_extension("skch"), bytes)?;
    }
    Ok(())
}

fn samples() -> Result<Vec<(&'static str, Vec<u8>)>, sketchkv_sketch::SketchError> {
    let words = ["to", "be", "or", "not", "to", "be"];

    let mut count_min_u32 = CountMin::<u32>::new(32, 3, 1)?;
    let mut count_min_u64 = CountMin::<u64>::new(32, 2, 2)?;
    let mut count_min_f32 = CountMin::<f32>::new(32, 2, 3)?;
    let mut count_sketch_i32 = CountSketch::<i32>::new(64, 3, 4)?;
    let mut count_sketch_i64 = CountSketch::<i64>::new(64, 3, 5)?;
    let mut count_sketch_f32 = CountSketch::<f32>::new(64, 3, 6)?;
    let mut vectors = VectorCountSketch::new(32, 3, 2, 7)?;
    let mut saving = SpaceSaving::<String, u64>::new(4, 13)?;
    let mut top = TopK::<String, _>::new(CountMin::<u32>::new(32, 3, 14)?, 2)?;
    for word in words {
        saving.update(word.to_string(), 1);
        top.update(word.to_string(), 1);
        count_min_u32.update(word, 1);
        count_min_u64.update_conservative(word, 1 << 40);
        count_min_f32.decay(0.75);
        count_min_f32.update(word, 1.5);
        count_sketch_i32.update(word, -2);
        count_sketch_i64.update(word, 1 << 40);
        count_sketch_f32.decay(0.75);
        count_sketch_f32.update(word, 0.5);
        vectors.update(word, &[1.0, -2.0], 0.5);
    }

    let mut race = Race::new(3, 2, 3, 8)?;
    let mut vector_race = VectorRace::new(3, 2, 3, 2, 9)?;
    for x in [[1.0, 0.0, 0.5], [0.0, 1.0, -0.5], [1.0, 0.25, 0.5]] {
        race.decay(0.5);
        race.add(&x, 1.0);
        vector_race.add(&x, &[1.0, 2.0], 0.5);
    }

    Ok(vec![
        ("count_min_u32", count_min_u32.to_bytes()),
        ("count_min_u64", count_min_u64.to_bytes()),
        ("count_min_f32", count_min_f32.to_bytes()),
        ("count_sketch_i32", count_sketch_i32.to_bytes()),
        ("count_sketch_i64", count_sketch_i64.to_bytes()),
        ("count_sketch_f32", count_sketch_f32.to_bytes()),
        ("vector_count_sketch", vectors.to_bytes()),
        ("simhash_gaussian", SimHash::new(3, 5, Projection::Gaussian, 10)?.to_bytes()),
        ("simhash_orthogonal", SimHash::new(3, 5, Projection::Orthogonal, 11)?.to_bytes()),
        ("simhash_hadamard", SimHash::new(3, 5, Projection::Hadamard, 12)?.to_bytes()),
        ("race", race.to_bytes()),
        ("vector_race", vector_race.to_bytes()),
        ("space_saving", saving.to_bytes()),
        ("top_k", top.to_bytes()),
    ])
}
