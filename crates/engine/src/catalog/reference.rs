//! How a user names a model that can be pulled.

use super::{CatalogError, ENTRIES, Entry, Source, hub::HubSource};
use std::fmt;

/// A name of the catalogue, or a file or the whole of a hub repository.
pub enum Reference {
    /// A model of the catalogue.
    Entry(&'static Entry),
    /// `organisation/repository[@revision][:file]`.
    Hub {
        /// `organisation/repository`.
        repository: String,
        /// A branch, tag or commit.
        revision: Option<String>,
        /// A file of it.
        file: Option<String>,
    },
}

impl Reference {
    /// Reads a name; `None` when it is neither in the catalog nor of the form of a hub name.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(entry) = ENTRIES.iter().find(|entry| entry.name == text) {
            return Some(Reference::Entry(entry));
        }
        let (rest, file) = match text.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (text, None),
        };
        let (repository, revision) = match rest.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (rest, None),
        };
        let (organisation, name) = repository.split_once('/')?;
        let parts = [organisation, name]
            .into_iter()
            .chain(revision)
            .chain(file.into_iter().flat_map(|f| f.split('/')));
        for part in parts {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if part.is_empty() || part.starts_with('.') || !part.bytes().all(plain) {
                return None;
            }
        }
        Some(Reference::Hub {
            repository: repository.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        })
    }

    /// As [`Reference::parse`].
    ///
    /// # Errors
    /// When it is neither; the message lists the catalogue.
    pub fn parse_or_explain(text: &str) -> Result<Self, CatalogError> {
        Self::parse(text).ok_or_else(|| CatalogError::Unknown { text: text.to_owned(), known: names() })
    }

    /// The name under which the model is kept.
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// The terms it comes under, where it is not a licence that lets everyone do everything.
    pub(super) fn terms(&self) -> Option<&'static str> {
        match self {
            Reference::Entry(entry) => entry.licence.terms,
            Reference::Hub { .. } => None,
        }
    }

    /// Where to get it, the first that works.
    pub(super) fn sources(&self) -> Vec<Source> {
        match self {
            Reference::Entry(entry) => entry.sources.to_vec(),
            Reference::Hub { repository, revision, file } => vec![Source::Hub(HubSource {
                repository: repository.clone().into(),
                revision: revision.clone().unwrap_or_else(|| "main".into()).into(),
                file: file.clone().map(Into::into),
                pinned: None,
                bytes: None,
            })],
        }
    }
}

/// The names of the catalogue, for a message.
pub(crate) fn names() -> String {
    ENTRIES.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Entry(entry) => f.write_str(entry.name),
            Reference::Hub { repository, revision, file } => {
                f.write_str(repository)?;
                if let Some(revision) = revision {
                    write!(f, "@{revision}")?;
                }
                if let Some(file) = file {
                    write!(f, ":{file}")?;
                }
                Ok(())
            }
        }
    }
}
