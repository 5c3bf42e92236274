//! Files that a user names, read without waiting for ever.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

/// How long it is waited for somebody to write to a pipe.
const PATIENCE: Duration = Duration::from_millis(500);

/// Opens a file for reading. To open a pipe takes until somebody opens it for writing: when nobody does it is an error.
///
/// # Errors
/// As [`File::open`], and for a pipe that nobody writes to.
pub fn open_input(path: &Path) -> io::Result<File> {
    if !is_pipe(&fs::metadata(path)?) {
        return File::open(path);
    }
    let (opened, waiting) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || opened.send(File::open(path)));
    let nobody = || io::Error::new(io::ErrorKind::TimedOut, "a pipe that nobody writes to: give a file");
    waiting.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(nobody()))
}

/// Reads a file whole, as [`open_input`] opens it.
///
/// # Errors
/// As [`open_input`] and [`Read::read_to_end`].
pub fn read_input(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_input(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file of text whole, as [`open_input`] opens it.
///
/// # Errors
/// As [`read_input`], and when it is not UTF-8.
pub fn read_input_text(path: &Path) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "not text in UTF-8: give another file");
    String::from_utf8(read_input(path)?).map_err(not_text)
}

#[cfg(unix)]
fn is_pipe(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type())
}

#[cfg(not(unix))]
fn is_pipe(_: &fs::Metadata) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_pipe_is_read_when_somebody_writes_and_refused_when_nobody_does() {
        let folder = tempfile::tempdir().unwrap();
        let [lonely, pipe] = ["lonely", "pipe"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").args([&lonely, &pipe]).status().unwrap().success());
        assert_eq!(read_input(&lonely).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let writer = thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, "some text")
        });
        assert_eq!(read_input_text(&pipe).unwrap(), "some text");
        writer.join().unwrap().unwrap();
    }
}
