//! Prints what the benchmarks measured as a table: the fastest and the median sample of each.
//!
//!     cargo bench -p sketchkv-sketch
//!     cargo run -p sketchkv-sketch --example bench_table -- target/criterion
//!
//! On a machine with other work the fastest sample is the one to compare by: whatever disturbs a measurement makes
//! it longer.

use std::error::Error;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "target/criterion".into());
    let mut samples = Vec::new();
    find(Path::new(&folder), &mut samples)?;
    if samples.is_empty() {
        return Err(
            format!("no measurements below {folder}: run `cargo bench -p sketchkv-sketch` first").into()
        );
    }
    samples.sort();
    println!("| benchmark | fastest | median | a second, by the fastest |");
    println!("|---|---|---|---|");
    for sample in samples {
        println!("{}", row(&sample)?);
    }
    Ok(())
}

/// The folders of the last measurements.
fn find(folder: &Path, samples: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, samples)?;
        } else if path.ends_with("new/sample.json") {
            samples.push(path);
        }
    }
    Ok(())
}

fn row(sample: &Path) -> Result<String, Box<dyn Error>> {
    let read =
        |path: &Path| -> Result<Value, Box<dyn Error>> { Ok(serde_json::from_str(&read_to_string(path)?)?) };
    let (times, benchmark) = (read(sample)?, read(&sample.with_file_name("benchmark.json"))?);
    let numbers = |field: &str| -> Vec<f64> {
        times[field].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let mut each: Vec<f64> =
        numbers("times").iter().zip(numbers("iters")).map(|(time, iterations)| time / iterations).collect();
    each.sort_by(f64::total_cmp);
    let (Some(&fastest), Some(&median)) = (each.first(), each.get(each.len() / 2)) else {
        return Err(format!("{} holds no samples", sample.display()).into());
    };
    let throughput = &benchmark["throughput"];
    let (elements, bytes) = (throughput["Elements"].as_f64(), throughput["Bytes"].as_f64());
    let speed = match (elements, bytes) {
        (Some(elements), _) => {
            format!("{:.0} million ({:.2} ns each)", 1e3 * elements / fastest, fastest / elements)
        }
        (_, Some(bytes)) => format!("{:.1} GB", bytes / fastest),
        _ => String::new(),
    };
    let name = benchmark["full_id"].as_str().unwrap_or("?");
    Ok(format!("| {name} | {} | {} | {speed} |", time(fastest), time(median)))
}

/// Nanoseconds for people.
fn time(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.0} ns"),
        ..1e6 => format!("{:.2} µs", ns / 1e3),
        _ => format!("{:.2} ms", ns / 1e6),
    }
}
