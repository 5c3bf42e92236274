use thiserror::Error;

/// What can be wrong with weights handed to the kernels.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// The bytes are not as many as the shape needs.
    #[error(
        "{what}: {found} given where the shape needs {needed}; the file is truncated or its shape is wrong"
    )]
    Length {
        /// What was counted, with its unit.
        what: &'static str,
        /// How many the shape needs.
        needed: usize,
        /// How many there are.
        found: usize,
    },
    /// A row does not consist of whole blocks.
    #[error(
        "{cols} columns are not a multiple of the {block} weights in a {format} block; the tensor is malformed"
    )]
    PartialBlock {
        /// Columns of the tensor.
        cols: usize,
        /// Weights in one block.
        block: usize,
        /// Name of the format.
        format: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error("row {row} holds a weight that is NaN or infinite; the file is damaged, fetch it again")]
    NotFinite {
        /// First row found with such a weight.
        row: usize,
    },
    /// Matrices stacked on each other differ in width.
    #[error("stacked matrices have {first} and {other} columns; the tensors do not belong together")]
    Width {
        /// Columns of the first matrix.
        first: usize,
        /// Columns of the one that differs.
        other: usize,
    },
    /// Rows times columns does not fit this machine's memory.
    #[error("a matrix of {rows} rows and {cols} columns is too large for this machine")]
    TooLarge {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
    },
}
