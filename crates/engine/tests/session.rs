//! Sessions in files: whole or not at all, one writer at a time, and no damage goes unseen.

mod common;

use common::*;
use sketchkv_cache::Cache;
use sketchkv_engine::{GenerateOptions, Generation, SessionError, SessionFile};
use sketchkv_model::{LoadOptions, Model, Sampler, Sampling, Workspace};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

static MODEL: LazyLock<Model> =
    LazyLock::new(|| load_with(&tiny_gpt2(), &LoadOptions { threads: 1, ..LoadOptions::default() }));

fn generation(tokens: usize) -> Generation {
    let cache = Cache::new(MODEL.cache_shape(), &"window@128tok".parse().unwrap(), 0).unwrap();
    let mut generation = Generation::new(cache, Sampler::new(Sampling::greedy()).unwrap());
    let options = GenerateOptions { max_tokens: Some(tokens), ..GenerateOptions::default() };
    generation.feed(&MODEL, &[5, 6, 7], &options).unwrap();
    generation.complete(&MODEL, &mut Workspace::new()).unwrap();
    generation
}

fn load(path: &Path) -> Result<bool, SessionError> {
    SessionFile::open(path)?.load(&MODEL, Sampling::greedy()).map(|session| session.is_some())
}

fn message(path: &Path) -> String {
    let message = load(path).unwrap_err().to_string();
    assert!(message.contains(path.to_str().unwrap()) && !message.contains('\n'), "{message}");
    message
}

/// The names in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A folder, and a session in it.
fn saved() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.kv");
    SessionFile::open(&path).unwrap().save_text(&MODEL, &mut generation(3)).unwrap();
    (folder, path)
}

#[test]
fn nothing_is_left_of_a_session_that_was_never_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.kv");
    let mut session = SessionFile::open(&path).unwrap();
    assert!(session.load(&MODEL, Sampling::greedy()).unwrap().is_none());
    assert_eq!(names(folder.path()), ["text.kv"]);
    drop(session);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_session_is_one_file_that_only_its_owner_reads() {
    let (folder, path) = saved();
    assert_eq!(names(folder.path()), ["text.kv"]);
    assert!(load(&path).unwrap());
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Whatever was there before, and whatever a killed process left.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(folder.path().join(".text.kv.part"), "half").unwrap();
        SessionFile::open(&path).unwrap().save_text(&MODEL, &mut generation(4)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["text.kv"]);
    }
}

#[cfg(unix)]
#[test]
fn a_link_is_followed() {
    let (folder, path) = saved();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let before = fs::read(&path).unwrap();
    SessionFile::open(&link).unwrap().save_text(&MODEL, &mut generation(9)).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_ne!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_second_writer_is_told_at_once() {
    let (_folder, path) = saved();
    let mut first = SessionFile::open(&path).unwrap();
    let told = || message(&path).contains("is in use: another process goes on with it");
    assert!(told());
    // A save puts another file in its place; it is still the first's.
    first.save_text(&MODEL, &mut generation(5)).unwrap();
    assert!(told());
    first.save_text(&MODEL, &mut generation(6)).unwrap();
    assert!(told());
    drop(first);
    assert!(load(&path).unwrap());
    // The same before anything was saved.
    let fresh = path.with_file_name("fresh.kv");
    let first = SessionFile::open(&fresh).unwrap();
    assert!(message(&fresh).contains("is in use"));
    drop(first);
    assert!(!load(&fresh).unwrap());
}

/// Whoever gets it, gets what the one before saved: no lock is ever had on a file that lost its name.
#[test]
fn writers_in_turn_never_mix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.kv");
    let write = || {
        let mut generation = generation(1);
        let mut saved = 0;
        while saved < 5 {
            match SessionFile::open(&path) {
                Ok(mut session) => {
                    session.load(&MODEL, Sampling::greedy()).unwrap();
                    session.save_text(&MODEL, &mut generation).unwrap();
                    session.save_text(&MODEL, &mut generation).unwrap();
                    saved += 1;
                }
                Err(SessionError::InUse { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(write))));
    assert_eq!(names(folder.path()), ["text.kv"]);
    assert!(load(&path).unwrap());
}

#[test]
fn a_place_that_cannot_be_written_is_noticed_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    assert!(message(&folder.path().join("no/folder")).contains("cannot write the session"));
    assert!(message(folder.path()).contains("cannot write the session"));
    #[cfg(target_os = "linux")]
    {
        assert!(message(Path::new("/dev/null")).contains("no regular file"));
        // Here a file can be written, and none be made.
        assert!(message(Path::new("/proc/self/comm")).contains("cannot write the session"));
    }
}

#[test]
fn damage_is_an_error_and_the_file_is_left_alone() {
    let (_folder, path) = saved();
    let bytes = fs::read(&path).unwrap();
    let with = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let message = message(&path);
        assert_eq!(fs::read(&path).unwrap(), bytes);
        message
    };
    for at in (0..bytes.len()).step_by(211).chain([0, 7, 8, 39, 40, 48, bytes.len() - 1]) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let message = with(&damaged);
        let expected = if at < 8 { "sketchkv" } else { "its checksum is wrong" };
        assert!(message.contains(expected), "byte {at}: {message}");
    }
    for end in [1, 7, 8, 20, 40, 47, bytes.len() - 1] {
        let message = with(&bytes[..end]);
        assert!(
            message.contains("no session of sketchkv") || message.contains("damaged"),
            "{end}: {message}"
        );
    }
    assert!(with(b"Once upon a time").contains("is no session of sketchkv: name another file"));
    let version = |digit: u8| [&bytes[..7], &[digit], &bytes[8..]].concat();
    assert!(with(&version(b'3')).contains("a newer sketchkv wrote it"));
    assert!(with(&version(b'1')).contains("an older sketchkv wrote it"));
}

#[test]
fn another_model_is_refused_by_name() {
    let (_folder, path) = saved();
    let other = load_with(&repository("crates/model/tests/golden/gpt2"), &LoadOptions::default());
    let refused = SessionFile::open(&path).unwrap().load(&other, Sampling::greedy()).err().unwrap();
    assert!(matches!(refused, SessionError::OtherModel { .. }));
    assert!(refused.to_string().contains("was begun with the model tiny-gpt2"), "{refused}");
}
