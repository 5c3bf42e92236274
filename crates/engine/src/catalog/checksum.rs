//! What a file's content must hash to.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

/// A hash of a file's content, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256 of the content: what the hub gives for large files.
    Sha256(Cow<'static, str>),
    /// SHA-1 of the content as a git blob: what the hub gives for small files.
    GitBlob(Cow<'static, str>),
}

impl Checksum {
    /// A SHA-256 known when this program was written.
    pub(super) const fn from_sha256(hexadecimal: &'static str) -> Self {
        Checksum::Sha256(Cow::Borrowed(hexadecimal))
    }

    /// The checksum an entity tag stands for, `None` when it is neither a SHA-256 nor a git blob hash.
    pub(super) fn from_entity_tag(tag: &str) -> Option<Self> {
        let digits = tag.trim().trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        match digits.len() {
            64 => Some(Checksum::Sha256(digits.into())),
            40 => Some(Checksum::GitBlob(digits.into())),
            _ => None,
        }
    }

    /// The hexadecimal digits.
    pub(super) fn digits(&self) -> &str {
        match self {
            Checksum::Sha256(digits) | Checksum::GitBlob(digits) => digits,
        }
    }

    /// The same kind of checksum of the file at `path`.
    pub(super) fn of_file(&self, path: &Path) -> io::Result<Checksum> {
        match self {
            Checksum::Sha256(_) => Ok(Checksum::Sha256(sha256(path)?.into())),
            Checksum::GitBlob(_) => {
                let file = File::open(path)?;
                let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", file.metadata()?.len()));
                feed(&mut hasher, file)?;
                Ok(Checksum::GitBlob(hexadecimal(&hasher.finalize()).into()))
            }
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Checksum::Sha256(_) => "SHA-256",
            Checksum::GitBlob(_) => "git blob",
        };
        write!(f, "{kind} {}", self.digits())
    }
}

/// The SHA-256 of the file at `path`, in hexadecimal.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    feed(&mut hasher, File::open(path)?)?;
    Ok(hexadecimal(&hasher.finalize()))
}

fn feed(hasher: &mut impl Digest, mut file: File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_of_both_kinds_are_read() {
        let sha256 = "B179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
        let lower = sha256.to_lowercase();
        assert_eq!(Checksum::from_entity_tag(&format!("\"{sha256}\"")), Some(Checksum::Sha256(lower.into())));
        let blob = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(Checksum::from_entity_tag(&format!("W/\"{blob}\"")), Some(Checksum::GitBlob(blob.into())));
        assert_eq!(Checksum::from_entity_tag("\"5f-60a1\""), None);
        assert_eq!(Checksum::from_entity_tag("\"xyz\""), None);
    }

    #[test]
    fn a_git_blob_hashes_as_git_does() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello\n").unwrap();
        // `printf 'hello\n' | git hash-object --stdin`
        let git = Checksum::from_entity_tag("\"ce013625030ba8dba906f756967f9e9ca394464a\"").unwrap();
        assert_eq!(git.of_file(file.path()).unwrap(), git);
    }
}
