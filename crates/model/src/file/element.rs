/// How a tensor's elements are encoded: a GGUF block type or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementType {
    /// The name the formats use: `Q4_1`, `F16`, …
    pub name: &'static str,
    /// Elements of one block.
    pub block_len: usize,
    /// Bytes of one block.
    pub block_bytes: usize,
}

/// GGUF type number, name, elements a block, bytes a block. Types that are not run are listed too, so that
/// `info` can show a file and an error can name what stands in the way.
const GGML: &[(u32, &str, usize, usize)] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

impl ElementType {
    /// The type of a GGUF type number.
    pub(crate) fn from_ggml(id: u32) -> Option<ElementType> {
        let &(_, name, block_len, block_bytes) = GGML.iter().find(|row| row.0 == id)?;
        Some(ElementType { name, block_len, block_bytes })
    }

    /// The type of a safetensors element; `None` for those that no weight here has.
    pub(crate) fn from_safetensors(dtype: safetensors::Dtype) -> Option<ElementType> {
        use safetensors::Dtype;
        let (name, bytes) = match dtype {
            Dtype::F64 => ("F64", 8),
            Dtype::F32 => ("F32", 4),
            Dtype::F16 => ("F16", 2),
            Dtype::BF16 => ("BF16", 2),
            Dtype::I64 => ("I64", 8),
            Dtype::I32 => ("I32", 4),
            Dtype::I16 => ("I16", 2),
            Dtype::I8 => ("I8", 1),
            Dtype::U8 => ("U8", 1),
            Dtype::BOOL => ("BOOL", 1),
            _ => return None,
        };
        Some(ElementType { name, block_len: 1, block_bytes: bytes })
    }
}
