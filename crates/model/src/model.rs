//! Models and the files they come from.

use crate::arch::Network;
use crate::file::{Checkpoint, EmbeddedFolder, Files, Tensor, TensorEntry, content_hash};
use crate::forward::Rotations;
use crate::weights::Weights;
use crate::{Config, ModelError, Tokenizer};
use sketchkv_cache::{CacheShape, LayerShape, OutputProjection, Scorer};
use sketchkv_kernels::{Activations, Matrix, ThreadPool, WeightFormat};
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Tokens of a chunk unless set otherwise.
const CHUNK: usize = 512;

/// How to load a model.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// How weights are held and multiplied.
    pub weights: WeightFormat,
    /// How finely the inputs of products are rounded where weights are integers: 16 bits unless set.
    pub activations: Activations,
    /// Threads of the engine's pool, the caller's included; 0 takes one per core available to the process.
    pub threads: usize,
    /// Most tokens that one pass through the layers takes; longer inputs are cut. 512 unless set.
    pub chunk: usize,
    /// Lets models with rotary positions go past their context, for streaming; refused for learned positions.
    pub beyond_context: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            weights: WeightFormat::Native,
            activations: Activations::Bits16,
            threads: 0,
            chunk: CHUNK,
            beyond_context: false,
        }
    }
}

/// One tensor of a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Its shape, rows first.
    pub shape: Vec<usize>,
    /// Its element or block format, as the file format names it: `Q4_1`, `F16`, …
    pub format: String,
    /// Bytes it takes in the file.
    pub bytes: usize,
}

/// A model file or folder that is opened and checked, its weights not yet loaded.
#[derive(Debug)]
pub struct ModelFile {
    checkpoint: Checkpoint,
    config: Config,
}

impl ModelFile {
    /// Opens a GGUF file or a Hugging Face folder and reads everything but the weights.
    ///
    /// The file is mapped into memory and must not be changed while it is open.
    ///
    /// # Errors
    /// When it cannot be read, is truncated or corrupt, or holds a model that this engine does not run.
    pub fn open(path: &Path) -> Result<ModelFile, ModelError> {
        ModelFile::of(Checkpoint::open(path)?)
    }

    /// As [`ModelFile::open`], of a folder that is part of the program.
    ///
    /// # Errors
    /// As [`ModelFile::open`].
    pub fn embedded(folder: EmbeddedFolder) -> Result<ModelFile, ModelError> {
        ModelFile::of(Checkpoint::reopen(&Files::Embedded(folder))?)
    }

    /// Calls the model by another name than its own.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    fn of(checkpoint: Checkpoint) -> Result<ModelFile, ModelError> {
        let mut config = Config::read(&checkpoint)?;
        check_layers(&checkpoint, &config)?;
        // As transformers has it.
        if config.tied_embeddings
            && let Some([embedding, output]) = embeddings(&checkpoint, &config)
            && !holds_twice(&embedding, &output)
        {
            config.tied_embeddings = false;
            config.notes.push(format!(
                "the embedding is said to be the output projection too, yet `{}` is another: it is used",
                output.entry.name
            ));
        }
        Ok(ModelFile { checkpoint, config })
    }

    /// The numbers that define the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every tensor of the file, in file order.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        self.checkpoint.entries().map(info).collect()
    }

    /// Tensors whose values the file holds a second time: the output projection of a model whose embedding is both,
    /// which some converters write twice, coded differently.
    pub fn repeated(&self) -> Option<TensorInfo> {
        let [embedding, output] = embeddings(&self.checkpoint, &self.config)?;
        holds_twice(&embedding, &output).then(|| info(output.entry))
    }

    /// The tokenizer of the file or folder.
    ///
    /// # Errors
    /// When there is none, or it does not fit together.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        Tokenizer::read(&self.checkpoint)
    }

    /// A SHA-256 over the file's size, header and sampled bytes, in hexadecimal: names the weights in results.
    pub fn content_hash(&self) -> String {
        content_hash(&self.checkpoint)
    }

    /// Loads the weights.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape than the config says, or holds NaN or infinity; when the tokenizer
    /// does not fit the model; or when an option is out of range.
    pub fn load(self, options: &LoadOptions) -> Result<Model, ModelError> {
        let ModelFile { checkpoint, mut config } = self;
        if options.chunk == 0 {
            return Err(ModelError::Argument("the chunk must be at least 1 token".into()));
        }
        if options.beyond_context && !config.is_rotated() {
            return Err(ModelError::Argument(format!(
                "this model has learned positions and none beyond its context of {} tokens",
                config.context
            )));
        }
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let pool = ThreadPool::new(threads);
        // The tokenizer is a matter of hash maps, the weights one of memory bandwidth: they go side by side.
        let (tokenizer, network) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::read(&checkpoint));
            let weights = Weights {
                checkpoint: &checkpoint,
                pool: &pool,
                format: options.weights,
                activations: options.activations,
                norm_epsilon: config.norm_epsilon,
                norm_offset: config.norm_offset,
                used: RefCell::default(),
                fingerprint: Cell::default(),
            };
            let network = Network::load(&config, &weights);
            (tokenizer.join(), network.map(|network| (network, weights.fingerprint.get())))
        });
        let tokenizer = tokenizer
            .map_err(|_| ModelError::Tokenizer("the tokenizer library failed on this file".into()))??;
        if tokenizer.base_vocabulary() > config.vocabulary {
            return Err(ModelError::Tokenizer(format!(
                "the tokenizer has {} tokens and the model {}: it is the tokenizer of another model",
                tokenizer.base_vocabulary(),
                config.vocabulary
            )));
        }
        let (network, fingerprint) = network?;
        let network = Arc::new(network);
        config.notes.extend_from_slice(tokenizer.notes());
        let mut shape = config.cache_shape();
        shape.output = Some(output_projection(&network, &config.layers));
        let origin = checkpoint.origin();
        drop(checkpoint);
        give_heap_back();
        Ok(Model {
            rotations: Rotations::new(
                config.rotary.iter().zip(config.layers.iter().map(|layer| layer.key_dim)),
            ),
            shape,
            config,
            tokenizer,
            network,
            pool: Arc::new(pool),
            origin,
            fingerprint,
            chunk: options.chunk,
            beyond_context: options.beyond_context,
            content_hash: OnceLock::new(),
        })
    }
}

/// Gives the pages back that hold nothing any more: a vocabulary and its merges are hundreds of thousands of strings, made by
/// another thread, whose memory the C library would keep for it.
fn give_heap_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn info(entry: &TensorEntry) -> TensorInfo {
    TensorInfo {
        name: entry.name.clone(),
        shape: entry.shape.clone(),
        format: entry.element.name.to_owned(),
        bytes: entry.end - entry.start,
    }
}

/// The embedding of tokens and the projection to logits, of a checkpoint that has both.
fn embeddings<'a>(checkpoint: &'a Checkpoint, config: &Config) -> Option<[Tensor<'a>; 2]> {
    let [embedding, output] = config.architecture.embedding_names();
    Some([checkpoint.weight(embedding)?, checkpoint.weight(output)?])
}

/// Whether two matrices are one: to the last bit, or where they are coded differently, by some of their rows.
fn holds_twice(a: &Tensor<'_>, b: &Tensor<'_>) -> bool {
    if a.entry.shape != b.entry.shape {
        return false;
    }
    if a.entry.element == b.entry.element {
        return a.bytes == b.bytes;
    }
    let rows = a.entry.shape.first().map_or(0, |rows| *rows);
    (0..16)
        .map(|i| i * (rows / 16))
        .all(|row| matches!((a.row(row), b.row(row)), (Ok(a), Ok(b)) if alike(&a, &b)))
}

/// Whether the checkpoint has tensors of as many layers as its config says, before anything is sized by that number.
fn check_layers(checkpoint: &Checkpoint, config: &Config) -> Result<(), ModelError> {
    // The first number in a tensor's name is its layer.
    let layer = |name: &str| name.split('.').find_map(|part| part.parse::<usize>().ok());
    let last = checkpoint.entries().filter_map(|entry| layer(&entry.name)).max();
    // A file of a tokenizer alone has none.
    let Some(found) = last.map(|last| last.saturating_add(1)) else { return Ok(()) };
    let said = config.layers.len();
    if found == said {
        return Ok(());
    }
    let reason = format!(
        "the file has tensors of {found} layers, and its config says {said}: it is incomplete or corrupt"
    );
    Err(ModelError::format(checkpoint.path(), reason))
}

/// Whether two vectors point the same way, but for the rounding of their codes.
fn alike(a: &[f32], b: &[f32]) -> bool {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) > 0.98 * (dot(a, a) * dot(b, b)).sqrt()
}

/// What the output projection makes of values, computed from the weights when a cache first asks.
fn output_projection(network: &Arc<Network>, layers: &[LayerShape]) -> OutputProjection {
    let (network, layers) = (network.clone(), layers.to_vec());
    OutputProjection::new(move || {
        network.attention_outputs().zip(&layers).map(|(matrix, layer)| output_grams(matrix, layer)).collect()
    })
}

/// `[kv_head][value_dim][value_dim]`: the sum of W_hᵀ·W_h over the query heads h of each KV head.
fn output_grams(matrix: &Matrix, layer: &LayerShape) -> Vec<f32> {
    let d = layer.value_dim;
    let mut grams = vec![0.0; layer.kv_heads * d * d];
    let mut row = vec![0.0; matrix.cols()];
    for index in 0..matrix.rows() {
        matrix.row(index, &mut row);
        for (head, w) in row.chunks_exact(d).enumerate() {
            let gram = &mut grams[head / layer.group() * d * d..][..d * d];
            for (gram, &x) in gram.chunks_exact_mut(d).zip(w) {
                gram.iter_mut().zip(w).for_each(|(g, &y)| *g += x * y);
            }
        }
    }
    grams
}

/// A model ready to run.
///
/// Shared between threads by reference; each forward pass brings its own caches and [`Workspace`](crate::Workspace).
pub struct Model {
    pub(crate) config: Config,
    pub(crate) network: Arc<Network>,
    pub(crate) rotations: Rotations,
    pub(crate) pool: Arc<ThreadPool>,
    pub(crate) beyond_context: bool,
    shape: CacheShape,
    tokenizer: Tokenizer,
    origin: Files,
    fingerprint: u64,
    chunk: usize,
    /// Taken when it is first asked for.
    content_hash: OnceLock<String>,
}

impl Model {
    /// Loads a GGUF file or a Hugging Face folder.
    ///
    /// # Errors
    /// As [`ModelFile::open`] and [`ModelFile::load`].
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Model, ModelError> {
        ModelFile::open(path)?.load(options)
    }

    /// The numbers that define the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What a cache for this model needs to know.
    pub fn cache_shape(&self) -> CacheShape {
        self.shape.clone()
    }

    pub(crate) fn cache_shape_ref(&self) -> &CacheShape {
        &self.shape
    }

    /// A hash of the weights of its norms, which no quantization touches: it names the model, however its weights are
    /// coded. Files whose norms are rounded to fewer bits have another.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Takes another chat template: [`Tokenizer::set_chat_template`].
    ///
    /// # Errors
    /// When it is not for this model.
    pub fn set_chat_template(&mut self, template: &str) -> Result<(), ModelError> {
        self.tokenizer.set_chat_template(template)
    }

    /// Gives its caches what is known of its attention beforehand.
    pub fn set_scorer(&mut self, scorer: Scorer) {
        self.shape.scorer = Some(scorer);
    }

    /// Runs on the threads of `other` from now on, instead of its own: for models that take turns, whose threads would else
    /// wait for work on the same cores.
    pub fn share_threads(&mut self, other: &Model) {
        self.pool = other.pool.clone();
    }

    /// The threads that run the model.
    pub fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// Most tokens that one pass through the layers takes.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Where it was loaded from; the name of an embedded folder.
    pub fn path(&self) -> &Path {
        self.origin.path()
    }

    /// Bytes the weights take in memory.
    pub fn weight_bytes(&self) -> usize {
        self.network.bytes()
    }

    /// Bytes of weights that one token's products read: all but the tables of which a token takes a row.
    pub fn step_bytes(&self) -> usize {
        self.network.step_bytes()
    }

    /// As [`ModelFile::content_hash`], from the file as it is when this is first asked; later answers are the same.
    ///
    /// # Errors
    /// When the file is no longer there.
    pub fn content_hash(&self) -> Result<String, ModelError> {
        if let Some(hash) = self.content_hash.get() {
            return Ok(hash.clone());
        }
        let hash = content_hash(&Checkpoint::reopen(&self.origin)?);
        Ok(self.content_hash.get_or_init(|| hash).clone())
    }
}
