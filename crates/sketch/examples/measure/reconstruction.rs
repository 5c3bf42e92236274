//! Getting single vectors back from a Count-Sketch of many.

use sketchkv_sketch::{VectorCountSketch, params};

use crate::Outcome;
use crate::plot::{Line, Panel, svg};
use crate::random::{Random, dot};

const DIM: usize = 64;
const VECTORS: usize = 960;
const SEEDS: u64 = 5;
/// Vectors for each bucket of a row.
const RATIOS: [f64; 9] = [0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
const DEPTHS: [usize; 3] = [1, 3, 5];

/// The mean cosine between a stored direction and its reconstruction.
fn cosine(width: usize, depth: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let mut sum = 0.0;
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let vectors: Vec<Vec<f32>> = (0..VECTORS).map(|_| random.direction(DIM)).collect();
        let mut sketch = VectorCountSketch::new(width, depth, DIM, seed)?;
        for (key, vector) in (0u64..).zip(&vectors) {
            sketch.update_hash(key, vector, 1.0);
        }
        let mut out = vec![0.0; DIM];
        for (key, vector) in (0u64..).zip(&vectors) {
            sketch.reconstruct_hash(key, &mut out);
            sum += dot(vector, &out) / dot(&out, &out).sqrt().max(f64::MIN_POSITIVE);
        }
    }
    Ok(sum / (SEEDS as usize * VECTORS) as f64)
}

pub(crate) fn table(path: Option<&str>) -> Outcome {
    println!(
        "{VECTORS} random directions of {DIM} floats, each stored under its own key; mean cosine of {SEEDS} seeds."
    );
    println!("In brackets: bytes of the vectors by bytes of the sketch.\n");
    println!("| n / width | formula, 1 row | 1 row | 3 rows | 5 rows |");
    println!("|---|---|---|---|---|");
    let mut lines: Vec<Vec<(f64, f64)>> = vec![Vec::new(); DEPTHS.len()];
    let mut formula = Vec::new();
    for ratio in RATIOS {
        let width = (VECTORS as f64 / ratio) as usize;
        let mut cells = Vec::new();
        for (line, depth) in lines.iter_mut().zip(DEPTHS) {
            let cosine = cosine(width, depth)?;
            line.push((ratio, cosine));
            cells.push(format!("{cosine:.3} ({:.2})", ratio / depth as f64));
        }
        formula.push((ratio, params::reconstruction_cosine(VECTORS, width)));
        println!("| {ratio} | {:.3} | {} |", formula[formula.len() - 1].1, cells.join(" | "));
    }
    let Some(path) = path else { return Ok(()) };
    let named = |points: &dyn Fn(usize) -> Vec<(f64, f64)>| -> Vec<Line> {
        let rows = |depth: usize| if depth == 1 { "1 row".into() } else { format!("{depth} rows") };
        (0..DEPTHS.len()).map(|i| Line { name: rows(DEPTHS[i]), points: points(i), dashed: false }).collect()
    };
    let mut by_width = named(&|i| lines[i].clone());
    by_width.push(Line { name: "1/√(1 + n/width)".into(), points: formula, dashed: true });
    let by_bytes = named(&|i| lines[i].iter().map(|&(x, y)| (x / DEPTHS[i] as f64, y)).collect());
    let panels = [
        Panel { title: "vectors per bucket of a row (n / width)", lines: by_width },
        Panel { title: "bytes of the vectors / bytes of the sketch", lines: by_bytes },
    ];
    std::fs::write(path, svg("Cosine of a vector and its Count-Sketch reconstruction", &panels))?;
    Ok(())
}
