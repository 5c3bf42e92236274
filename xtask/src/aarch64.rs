//! `cargo xtask aarch64`: the tests of the numeric crates with the kernels of aarch64, run by emulation.
//!
//! QEMU runs the NEON code on any machine, slowly but exactly; it says nothing of speed.

use crate::{
    command::{self, NUMERIC, cargo},
    tools::ensure_program,
};
use anyhow::{Context, Result};

const TARGET: &str = "aarch64-unknown-linux-gnu";

pub(crate) fn run() -> Result<()> {
    ensure_program(&["aarch64-linux-gnu-gcc"], &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"])?;
    ensure_program(&["qemu-aarch64"], &["qemu-user"])?;
    let mut command = cargo(["test", "--locked", "--target", TARGET]);
    command
        .args(NUMERIC.iter().flat_map(|package| ["--package", package]))
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "qemu-aarch64 -L /usr/aarch64-linux-gnu");
    command::run(&mut command).with_context(|| {
        format!("where the compiler lacks the target's library, `rustup target add {TARGET}` fetches it")
    })
}
