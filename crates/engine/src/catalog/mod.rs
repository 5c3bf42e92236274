//! Models by name: where they come from, where they lie, and how they get there whole.

mod checksum;
mod entries;
mod error;
mod fetch;
mod hub;
mod models_folder;
mod progress;
mod pull;
mod reference;
mod space;
mod wheel;

pub use entries::{ENTRIES, Entry, Licence};
pub use error::CatalogError;
pub use hub::Hub;
pub(crate) use hub::split_model;
pub use models_folder::{Manifest, ManifestFile, ModelsFolder};
pub use progress::Progress;
pub use pull::{Pulled, pull};
pub use reference::Reference;
pub(crate) use reference::names;

use hub::HubSource;
use wheel::WheelSource;

/// A place a model comes from.
#[derive(Debug, Clone)]
enum Source {
    Wheel(WheelSource),
    Hub(HubSource),
}
