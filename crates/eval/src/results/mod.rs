//! The results file: every measured cell of every experiment, in one SQLite file.
//!
//! A cell is one measurement fully described by its inputs; its key is a hash of them. A finished cell is never
//! redone, an interrupted one is taken up again, and any number of processes may fill one file.

mod cell;
mod export;
mod owner;
mod store;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use cell::example;
pub use cell::{Cell, Finished, State, failures};
pub use export::Format;
pub use store::{Claim, Merged, Results};
