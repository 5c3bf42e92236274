//! From named tensors of a checkpoint to matrices and vectors of the shapes a network needs.

use crate::ModelError;
use crate::config::{Architecture, Bias, Config};
use crate::file::{Checkpoint, Tensor};
use sketchkv_kernels::{Activations, Matrix, Rows, ThreadPool, WeightFormat};
use sketchkv_sketch::mix;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// A tensor's name in Hugging Face folders and in GGUF, without `.weight` or `.bias`; `{}` is the layer, `{e}` the expert.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    pub(crate) hub: &'static str,
    pub(crate) gguf: &'static str,
}

/// In which order a tensor's rows lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// `[output][input]`.
    Outputs,
    /// `[input][output]`: GPT-2's Conv1D in Hugging Face folders.
    Inputs,
    /// `[output][input]`, the rows of each of so many heads reordered for interleaved rotation: Llama's Q and K in
    /// GGUF. Row 2i + h of a head there is row i + h·d/2 here, where the rotation pairs the two halves.
    Interleaved { heads: usize },
}

/// The tensor that `rows` outputs of a matrix come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    name: Name,
    rows: usize,
    order: RowOrder,
    /// Which expert's, of how many.
    expert: Option<(usize, usize)>,
}

impl Source {
    pub(crate) fn new(name: Name, rows: usize) -> Source {
        Source { name, rows, order: RowOrder::Outputs, expert: None }
    }

    /// That of expert `index` of `count`: GGUF has those of a layer in one tensor.
    pub(crate) fn expert(self, index: usize, count: usize) -> Source {
        Source { expert: Some((index, count)), ..self }
    }

    pub(crate) fn order(self, order: RowOrder) -> Source {
        Source { order, ..self }
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
        self.matrix.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * size_of::<f32>())
    }
}

/// Which norm an architecture has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// x / √(mean(x²) + ε) · weight
    Rms,
    /// (x − mean(x)) / √(variance(x) + ε) · weight + bias
    Layer,
}

/// A norm over as many values as it has weights.
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    /// A layer norm has a bias, an RMS norm none.
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) epsilon: f32,
}

impl Norm {
    pub(crate) fn bytes(&self) -> usize {
        (self.weight.len() + self.bias.as_ref().map_or(0, Vec::len)) * size_of::<f32>()
    }
}

/// Reads the tensors of a checkpoint.
pub(crate) struct Weights<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) pool: &'a ThreadPool,
    pub(crate) format: WeightFormat,
    pub(crate) activations: Activations,
    /// Added to the variance in every norm.
    pub(crate) norm_epsilon: f32,
    /// Added to the weights of every norm.
    pub(crate) norm_offset: f32,
    /// Names of the tensors that were read.
    pub(crate) used: RefCell<BTreeSet<String>>,
    /// Of the weights of all norms read so far.
    pub(crate) fingerprint: Cell<u64>,
}

impl<'a> Weights<'a> {
    /// Several tensors of `cols` inputs, stacked, with their biases.
    pub(crate) fn linear(
        &self,
        sources: &[Source],
        layer: usize,
        cols: usize,
        bias: Bias,
    ) -> Result<Linear, ModelError> {
        let matrix = self.matrix(sources, layer, cols)?;
        let is_there = |source: &Source| self.checkpoint.named(&self.name(source, layer, "bias")).is_some();
        let has_bias = match bias {
            Bias::Absent => false,
            Bias::Present => true,
            Bias::AsInFile => sources.iter().any(is_there),
        };
        let bias = |source: &Source| {
            let values = self.vector(&self.name(source, layer, "bias"), source.rows)?;
            Ok((0..source.rows).map(|i| values[file_row(source.order, source.rows, i)]).collect())
        };
        let biases = || sources.iter().map(bias).collect::<Result<Vec<Vec<f32>>, ModelError>>();
        Ok(Linear { matrix, bias: if has_bias { Some(biases()?.concat()) } else { None } })
    }

    /// Several tensors of `cols` inputs, stacked.
    pub(crate) fn matrix(&self, sources: &[Source], layer: usize, cols: usize) -> Result<Matrix, ModelError> {
        let tensors = sources
            .iter()
            .map(|source| {
                let tensor = self.take(&self.name(source, layer, "weight"))?;
                Ok((tensor, self.rows(&tensor, *source, cols)?))
            })
            .collect::<Result<Vec<_>, ModelError>>()?;
        let mut rows = Vec::with_capacity(sources.len());
        for ((tensor, bytes), source) in tensors.iter().zip(sources) {
            let format = tensor.format().map_err(|reason| self.error(reason))?;
            rows.push(Rows { format, rows: source.rows, bytes });
        }
        // Bytes that were put in another order are a copy, and those of the file are given back below.
        let taken = |bytes: &[u8]| self.checkpoint.release(bytes);
        let stack = |rows: &[Rows<'_>]| Matrix::stack_releasing(cols, rows, self.format, self.pool, &taken);
        let matrix = stack(&rows).map_err(|error| {
            // The error does not say which tensor it is in; alone, that one fails again.
            let culprit = rows.iter().position(|rows| stack(&[*rows]).is_err()).unwrap_or(0);
            self.error(format!("tensor `{}`: {error}", tensors[culprit].0.entry.name))
        })?;
        tensors.iter().for_each(|(tensor, _)| self.checkpoint.release(tensor.bytes));
        Ok(matrix.with_activations(self.activations))
    }

    /// A norm over `width` values.
    pub(crate) fn norm(
        &self,
        kind: NormKind,
        name: Name,
        layer: usize,
        width: usize,
    ) -> Result<Norm, ModelError> {
        let vector = |suffix| self.vector(&self.name(&Source::new(name, width), layer, suffix), width);
        let mut weight = vector("weight")?;
        weight.iter_mut().for_each(|weight| *weight += self.norm_offset);
        let mixed = weight
            .iter()
            .fold(self.fingerprint.get(), |hash, weight| mix(hash ^ u64::from(weight.to_bits())));
        self.fingerprint.set(mixed);
        let bias = if kind == NormKind::Layer { Some(vector("bias")?) } else { None };
        Ok(Norm { weight, bias, epsilon: self.norm_epsilon })
    }

    /// Whether every tensor that changes the numbers was read.
    ///
    /// # Errors
    /// When one was not.
    pub(crate) fn check_all_used(&self, config: &Config) -> Result<(), ModelError> {
        let used = self.used.borrow();
        let of_config = |name: &str| config.read_tensors.iter().any(|read| read == name);
        let is_left = |name: &&str| !used.contains(*name) && !of_config(name) && !is_inert(name, config);
        let left: Vec<&str> = self.checkpoint.entries().map(|entry| &*entry.name).filter(is_left).collect();
        let [first, ..] = left[..] else { return Ok(()) };
        Err(self.error(format!(
            "{} of the file's tensors have no place in this model, as `{first}`: the file is of another architecture, \
             or of more layers, than it says",
            left.len()
        )))
    }

    pub(crate) fn is_gguf(&self) -> bool {
        matches!(self.checkpoint, Checkpoint::Gguf(_))
    }

    fn name(&self, source: &Source, layer: usize, suffix: &str) -> String {
        let pattern = if self.is_gguf() { source.name.gguf } else { source.name.hub };
        let name = pattern.replace("{}", &layer.to_string());
        let expert = source.expert.map_or(String::new(), |(index, _)| index.to_string());
        format!("{}.{suffix}", name.replace("{e}", &expert))
    }

    /// The tensor of this name, which must be there.
    fn take(&self, name: &str) -> Result<Tensor<'a>, ModelError> {
        let tensor = self.checkpoint.named(name).ok_or_else(|| self.missing(name))?;
        self.used.borrow_mut().insert(tensor.entry.name.clone());
        Ok(tensor)
    }

    /// The values of the tensor of this name, which must be there.
    fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>, ModelError> {
        self.decode(&self.take(name)?, &[width])
    }

    /// The bytes of a tensor as `[output][input]` in the order the network wants.
    fn rows(&self, tensor: &Tensor<'a>, source: Source, cols: usize) -> Result<Cow<'a, [u8]>, ModelError> {
        let Source { rows, order, .. } = source;
        if let Some((index, count)) = source.expert.filter(|_| self.is_gguf()) {
            self.check_shape(tensor, &[count, rows, cols])?;
            let bytes = tensor.bytes.len() / count;
            return Ok(Cow::Borrowed(&tensor.bytes[index * bytes..][..bytes]));
        }
        self.check_shape(tensor, &if order == RowOrder::Inputs { [cols, rows] } else { [rows, cols] })?;
        match order {
            RowOrder::Outputs => Ok(Cow::Borrowed(tensor.bytes)),
            RowOrder::Inputs => transpose(tensor, rows, cols).map(Cow::Owned).map_err(|e| self.error(e)),
            RowOrder::Interleaved { .. } => {
                let row_bytes = tensor.bytes.len() / rows;
                let mut bytes = Vec::with_capacity(tensor.bytes.len());
                for i in 0..rows {
                    let from = file_row(order, rows, i);
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

/// Whether a tensor may be left unread: masks and frequencies that follow from the config, which old files hold, and an
/// output projection beside an embedding that stands for it.
fn is_inert(name: &str, config: &Config) -> bool {
    let ends: &[&str] = match config.architecture {
        Architecture::Gpt2 => &[".attn.bias", ".attn.masked_bias"],
        _ => &["rotary_emb.inv_freq"],
    };
    ends.iter().any(|end| name.ends_with(end))
        || config.tied_embeddings && matches!(name, "lm_head.weight" | "output.weight")
}

/// Where row `i` of what the network wants lies in the file.
fn file_row(order: RowOrder, rows: usize, i: usize) -> usize {
    let RowOrder::Interleaved { heads } = order else { return i };
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
            (0..heads * d).map(|i| file[file_row(RowOrder::Interleaved { heads }, heads * d, i)]).collect();
        assert_eq!(back, (0..heads * d).collect::<Vec<_>>());
    }
}
