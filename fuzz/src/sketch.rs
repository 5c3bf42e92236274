use sketchkv_sketch::{
    CountMin, CountSketch, Race, SimHash, SpaceSaving, TopK, VectorCountSketch, VectorRace,
};

/// Reads bytes as every kind of sketch: each is an error or a sketch that works and is written back the same.
///
/// The checksum would stop nearly every mutation at the door, so the bytes are tried as they are and once more with
/// the header's magic, version and length and the checksum put right.
pub fn sketch(data: &[u8]) {
    read_as_all(data);
    if data.len() >= 20 {
        let mut repaired = data.to_vec();
        let end = repaired.len() - 4;
        let payload = (end - 16) as u64;
        repaired[..6].copy_from_slice(b"SKCH\x01\x00");
        repaired[8..16].copy_from_slice(&payload.to_le_bytes());
        let checksum = crc32fast::hash(&repaired[..end]);
        repaired[end..].copy_from_slice(&checksum.to_le_bytes());
        read_as_all(&repaired);
    }
}

fn read_as_all(data: &[u8]) {
    if let Ok(mut sketch) = CountMin::<u32>::from_bytes(data) {
        assert_eq!(sketch.to_bytes(), data);
        sketch.update("key", 1);
        sketch.query("key");
    }
    if let Ok(mut sketch) = CountMin::<u64>::from_bytes(data) {
        assert_eq!(sketch.to_bytes(), data);
        sketch.update_batch(&[1, 2, 3]);
        sketch.query_hash(1);
        let _ = sketch.inner_product(&sketch);
    }
    if let Ok(mut sketch) = CountMin::<f32>::from_bytes(data) {
        assert_eq!(sketch.to_bytes(), data);
        sketch.decay(0.5);
        sketch.update("key", 1.0);
        sketch.query("key");
    }
    if let Ok(mut sketch) = CountSketch::<i32>::from_bytes(data) {
        assert_eq!(sketch.to_bytes(), data);
        sketch.update("key", -1);
        sketch.query("key");
    }
    if let Ok(sketch) = CountSketch::<i64>::from_bytes(data) {
        assert_eq!(sketch.to_bytes(), data);
        sketch.l2_norm();
    }
    if let Ok(mut sketch) = CountSketch::<f32>::from_bytes(data) {
        assert_eq!(sketch.to_bytes(), data);
        sketch.update("key", -1.0);
        sketch.query("key");
    }
    if let Ok(mut sketch) = VectorCountSketch::from_bytes(data) {
        assert_eq!(sketch.to_bytes(), data);
        let mut vector = vec![1.0; sketch.dim()];
        sketch.update_hash(1, &vector, 2.0);
        sketch.reconstruct_hash(1, &mut vector);
    }
    if let Ok(hash) = SimHash::from_bytes(data) {
        assert_eq!(hash.to_bytes(), data);
        let mut code = vec![0; hash.words()];
        hash.encode(&vec![1.0; hash.dim()], &mut code);
    }
    if let Ok(mut sketch) = Race::from_bytes(data) {
        assert_eq!(sketch.to_bytes(), data);
        let vector = vec![1.0; sketch.dim()];
        sketch.add(&vector, 1.0);
        sketch.query(&vector);
    }
    if let Ok(mut sketch) = VectorRace::from_bytes(data) {
        assert_eq!(sketch.to_bytes(), data);
        let (vector, mut value) = (vec![1.0; sketch.dim()], vec![1.0; sketch.value_dim()]);
        sketch.add(&vector, &value, 1.0);
        sketch.query(&vector, &mut value);
    }
    if let Ok(mut summary) = SpaceSaving::<String, u64>::from_bytes(data) {
        summary.update("key".to_string(), 1);
        summary.top(3);
    }
    if let Ok(mut top) = TopK::<String, CountMin<u32>>::from_bytes(data) {
        top.update("key".to_string(), 1);
        top.top();
    }
}
