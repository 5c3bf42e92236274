//! From named tensors of a checkpoint to matrices and vectors of the shapes a network needs.

use crate::ModelError;
use crate::file::{Checkpoint, Tensor};
use sketchkv_kernels::{Activations, Matrix, Rows, ThreadPool, WeightFormat};
use std::borrow::Cow;

/// A tensor's name in Hugging Face folders and in GGUF, without `.weight` or `.bias`; `{}` is the layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    pub(crate) hub: &'static str,
    pub(crate) gguf: &'static str,
}

/// How a tensor's rows lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[output][input]`.
    Rows,
    /// `[input][output]`: GPT-2's Conv1D in Hugging Face folders.
    Transposed,
    /// `[output][input]`, the rows of each of so many heads reordered for interleaved rotation: Llama's Q and K in
    /// GGUF. Row 2i + h of a head there is row i + h·d/2 here, where the rotation pairs the two halves.
    Interleaved { heads: usize },
}

/// A part of a matrix: one tensor of `rows` outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) name: Name,
    pub(crate) rows: usize,
    pub(crate) layout: Layout,
}

impl Part {
    pub(crate) fn new(name: Name, rows: usize) -> Part {
        Part { name, rows, layout: Layout::Rows }
    }

    pub(crate) fn layout(self, layout: Layout) -> Part {
        Part { layout, ..self }
    }
}

/// A matrix with its bias, if the checkpoint has one.
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Linear {
    /// Lets the input be rounded to 8 bits.
    ///
    /// Over 512 tokens of SmolLM2 (Q4_1) inputs of 8 bits cost a mean KL of 0.00007 behind attention, whose output is
    /// an average, but 0.0014 before it, 0.0009 and 0.0015 in the feed-forward and 0.0008 before the logits, where a few
    /// large values of each block drown the others; all together change 5 % of the top tokens.
    pub(crate) fn with_coarse_input(self) -> Linear {
        Linear { matrix: self.matrix.with_activations(Activations::Bits8), ..self }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.matrix.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
    }
}

/// Reads the tensors of a checkpoint.
pub(crate) struct Weights<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) pool: &'a ThreadPool,
    pub(crate) format: WeightFormat,
}

impl<'a> Weights<'a> {
    /// Several tensors of `cols` inputs, stacked, with their biases; a missing bias beside others is zero.
    pub(crate) fn linear(&self, parts: &[Part], layer: usize, cols: usize) -> Result<Linear, ModelError> {
        let matrix = self.matrix(parts, layer, cols)?;
        let mut bias = Vec::new();
        let mut any = false;
        for part in parts {
            let start = bias.len();
            match self.find(&self.name(part.name, layer, "bias")) {
                Some(tensor) => {
                    let values = self.decode(&tensor, &[part.rows])?;
                    let row = |i: usize| source_row(part.layout, part.rows, i);
                    bias.extend((0..part.rows).map(|i| values[row(i)]));
                    any = true;
                }
                None => bias.resize(start + part.rows, 0.0),
            }
        }
        Ok(Linear { matrix, bias: any.then_some(bias) })
    }

    /// Several tensors of `cols` inputs, stacked.
    pub(crate) fn matrix(&self, parts: &[Part], layer: usize, cols: usize) -> Result<Matrix, ModelError> {
        let tensors = parts
            .iter()
            .map(|part| {
                let name = self.name(part.name, layer, "weight");
                let tensor = self.find(&name).ok_or_else(|| self.missing(&name))?;
                Ok((tensor, self.rows(&tensor, *part, cols)?))
            })
            .collect::<Result<Vec<_>, ModelError>>()?;
        let mut rows = Vec::with_capacity(parts.len());
        for ((tensor, bytes), part) in tensors.iter().zip(parts) {
            let format = tensor.format().map_err(|reason| self.error(reason))?;
            rows.push(Rows { format, rows: part.rows, bytes });
        }
        let stack = |rows: &[Rows<'_>]| Matrix::stack(cols, rows, self.format, self.pool);
        let matrix = stack(&rows).map_err(|error| {
            // The error does not say which part it is in; alone, that part fails again.
            let culprit = rows.iter().position(|part| stack(&[*part]).is_err()).unwrap_or(0);
            self.error(format!("tensor `{}`: {error}", tensors[culprit].0.entry.name))
        })?;
        tensors.iter().for_each(|(tensor, _)| self.checkpoint.release(tensor));
        Ok(matrix.with_activations(Activations::Bits16))
    }

    /// A tensor of `length` values as f32: norms and biases.
    pub(crate) fn vector(
        &self,
        name: Name,
        layer: usize,
        suffix: &str,
        length: usize,
    ) -> Result<Vec<f32>, ModelError> {
        let name = self.name(name, layer, suffix);
        let tensor = self.find(&name).ok_or_else(|| self.missing(&name))?;
        self.decode(&tensor, &[length])
    }

    /// Whether the checkpoint has this tensor.
    pub(crate) fn has(&self, name: Name) -> bool {
        self.find(&self.name(name, 0, "weight")).is_some()
    }

    pub(crate) fn is_gguf(&self) -> bool {
        matches!(self.checkpoint, Checkpoint::Gguf(_))
    }

    fn name(&self, name: Name, layer: usize, suffix: &str) -> String {
        let pattern = if self.is_gguf() { name.gguf } else { name.hub };
        format!("{}.{suffix}", pattern.replace("{}", &layer.to_string()))
    }

    /// The tensor of this name, or of its rest: checkpoints of a base model leave the first component out.
    fn find(&self, name: &str) -> Option<Tensor<'a>> {
        let bare = || name.split_once('.').and_then(|(_, bare)| self.checkpoint.tensor(bare));
        self.checkpoint.tensor(name).or_else(bare)
    }

    /// The bytes of a tensor as `[output][input]` in the order the network wants.
    fn rows(&self, tensor: &Tensor<'a>, part: Part, cols: usize) -> Result<Cow<'a, [u8]>, ModelError> {
        let transposed = part.layout == Layout::Transposed;
        self.check_shape(tensor, &if transposed { [cols, part.rows] } else { [part.rows, cols] })?;
        match part.layout {
            Layout::Rows => Ok(Cow::Borrowed(tensor.bytes)),
            Layout::Transposed => {
                transpose(tensor, part.rows, cols).map(Cow::Owned).map_err(|e| self.error(e))
            }
            Layout::Interleaved { .. } => {
                let row_bytes = tensor.bytes.len() / part.rows;
                let mut bytes = Vec::with_capacity(tensor.bytes.len());
                for i in 0..part.rows {
                    let from = source_row(part.layout, part.rows, i);
                    bytes.extend_from_slice(&tensor.bytes[from * row_bytes..][..row_bytes]);
                }
                Ok(Cow::Owned(bytes))
            }
        }
    }

    fn decode(&self, tensor: &Tensor<'_>, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        self.check_shape(tensor, shape)?;
        let values = tensor.floats().map_err(|reason| self.error(reason))?;
        if values.iter().any(|v| !v.is_finite()) {
            let name = &tensor.entry.name;
            return Err(self.error(format!(
                "tensor `{name}` holds a value that is NaN or infinite: the file is damaged, fetch it again"
            )));
        }
        Ok(values)
    }

    fn check_shape(&self, tensor: &Tensor<'_>, shape: &[usize]) -> Result<(), ModelError> {
        if tensor.entry.shape == shape {
            return Ok(());
        }
        let (name, found) = (&tensor.entry.name, &tensor.entry.shape);
        Err(self.error(format!("tensor `{name}` has shape {found:?} where the config needs {shape:?}")))
    }

    fn missing(&self, name: &str) -> ModelError {
        self.error(format!("tensor `{name}` is missing: the file is incomplete or of another architecture"))
    }

    fn error(&self, reason: impl Into<String>) -> ModelError {
        ModelError::format(self.checkpoint.path(), reason)
    }
}

/// Where row `i` of what the network wants lies in the file.
fn source_row(layout: Layout, rows: usize, i: usize) -> usize {
    let Layout::Interleaved { heads } = layout else { return i };
    let d = rows / heads;
    let (head, within) = (i / d, i % d);
    let (half, pair) = (within / (d / 2), within % (d / 2));
    head * d + 2 * pair + half
}

/// `[input][output]` to `[output][input]`, for elements that are numbers of their own.
fn transpose(tensor: &Tensor<'_>, rows: usize, cols: usize) -> Result<Vec<u8>, String> {
    let element = tensor.entry.element;
    if element.block_len != 1 {
        return Err(format!(
            "tensor `{}` is transposed and {}, which cannot be",
            tensor.entry.name, element.name
        ));
    }
    let width = element.block_bytes;
    let mut bytes = Vec::with_capacity(tensor.bytes.len());
    for row in 0..rows {
        for col in 0..cols {
            bytes.extend_from_slice(&tensor.bytes[(col * rows + row) * width..][..width]);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_go_back_to_halves() {
        // transformers to GGUF: [head][half][pair] becomes [head][pair][half].
        let (heads, d) = (2, 6);
        let mut file = vec![0; heads * d];
        for head in 0..heads {
            for half in 0..2 {
                for pair in 0..d / 2 {
                    file[head * d + 2 * pair + half] = head * d + half * (d / 2) + pair;
                }
            }
        }
        let back: Vec<usize> =
            (0..heads * d).map(|i| file[source_row(Layout::Interleaved { heads }, heads * d, i)]).collect();
        assert_eq!(back, (0..heads * d).collect::<Vec<_>>());
    }
}
