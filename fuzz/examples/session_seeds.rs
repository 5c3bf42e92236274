//! Writes the seeds of `session` anew, after a change of the format of saved caches.
//!
//!     cargo run -p sketchkv-fuzz --example session_seeds

use std::{fs, path::Path};

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/session");
    fs::create_dir_all(&folder)?;
    for (i, spec) in sketchkv_fuzz::SESSIONS.iter().enumerate() {
        fs::write(folder.join(format!("cache-{i}")), sketchkv_fuzz::saved(spec))?;
    }
    Ok(())
}
