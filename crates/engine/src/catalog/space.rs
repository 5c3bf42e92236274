use super::CatalogError;
use std::path::Path;

/// Makes sure that the disk of `folder` has room for `needed` bytes of `file`, where the system says what room it has.
pub(super) fn check(folder: &Path, file: &Path, needed: u64) -> Result<(), CatalogError> {
    match free(folder) {
        Some(free) if free < needed => Err(CatalogError::NoSpace {
            path: file.to_owned(),
            reason: format!("{free} bytes are free"),
            needed: format!("; {needed} bytes are needed"),
        }),
        _ => Ok(()),
    }
}

/// Bytes that this user may still write on the disk of `folder`.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(not(unix))]
fn free(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.gguf");
        check(folder.path(), &file, 1).unwrap();
        let error = check(folder.path(), &file, 1 << 60).unwrap_err().to_string();
        assert!(
            error.contains("bytes are free") && error.contains("1152921504606846976 bytes are needed"),
            "{error}"
        );
        assert!(error.contains("SKETCHKV_MODELS"), "{error}");
    }
}
