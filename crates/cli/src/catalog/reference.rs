//! How a user names a model that can be pulled.

use super::{ENTRIES, Entry, Source, hub::HubSource};
use crate::failure::usage;
use anyhow::Result;
use std::fmt;

/// A catalog name, or a file or the whole of a hub repository.
pub(crate) enum Reference {
    /// A model of the catalog.
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
    pub(crate) fn parse(text: &str) -> Option<Self> {
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

    /// As [`Reference::parse`]; anything else is an error that lists the catalog.
    pub(crate) fn parse_or_explain(text: &str) -> Result<Self> {
        Self::parse(text).ok_or_else(|| {
            let names: Vec<_> = ENTRIES.iter().map(|entry| entry.name).collect();
            usage(format!(
                "{text:?} is no model to pull: use one of {}, or organisation/repository[@revision][:file]",
                names.join(", ")
            ))
        })
    }

    /// The name under which the model is kept.
    pub(crate) fn name(&self) -> String {
        self.to_string()
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
            })],
        }
    }
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
