//! The measurements behind `docs/sketches.md`, one table each:
//!
//!     cargo run --release -p sketchkv-sketch --example measure -- frequency
//!     cargo run --release -p sketchkv-sketch --example measure -- positions
//!     cargo run --release -p sketchkv-sketch --example measure -- simhash
//!     cargo run --release -p sketchkv-sketch --example measure -- race
//!     cargo run --release -p sketchkv-sketch --example measure -- reconstruction docs/sketches-cosine.svg
//!
//! Everything is seeded: the numbers come out the same every time.

mod frequency;
mod plot;
mod positions;
mod random;
mod reconstruction;
mod similarity;

use std::process::ExitCode;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome =
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["frequency"] => frequency::table(),
            ["positions"] => positions::table(),
            ["simhash"] => similarity::simhash_table(),
            ["race"] => similarity::race_table(),
            ["reconstruction"] => reconstruction::table(None),
            ["reconstruction", svg] => reconstruction::table(Some(svg)),
            _ => Err("say what to measure: frequency, positions, simhash, race or reconstruction [FILE.svg]"
                .into()),
        };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
