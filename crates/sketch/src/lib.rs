//! Probabilistic sketches.
