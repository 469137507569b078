//! What a folder with a sentence model says of itself, checked before anything of it is used.
//!
//! It has the form in which such models are published: `config.json`, `tokenizer.json`, `model.safetensors`, and where
//! `sentence-transformers` saved it, `modules.json`, `sentence_bert_config.json` and the pooling's `config.json`. What
//! is not understood is refused and never guessed: a model that is run in another way than it was trained gives
//! vectors that look right and mean nothing.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The largest `model.safetensors`, in bytes.
pub const WEIGHTS_BYTES_MAX: u64 = 4 << 30;
/// The largest of the other files, in bytes.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// The most numbers of a vector.
pub const DIMENSIONS_MAX: usize = 4_096;
/// The most layers.
const LAYERS_MAX: usize = 128;
/// The longest sequence that is ever put to a model.
const TOKENS_MAX: usize = 4_096;

/// Why a folder's model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file is not there, or cannot be read.
    #[error("{} cannot be read; the folder of a sentence model has config.json, tokenizer.json and model.safetensors", .file.display())]
    Read {
        /// The file that could not be read.
        file: PathBuf,
        /// What the file system answered.
        #[source]
        source: io::Error,
    },
    /// A file is larger than anything that belongs there.
    #[error("{} has {bytes} bytes, and {bytes_max} is the most", .file.display())]
    TooLarge {
        /// The file that is larger than one of its kind ever is.
        file: PathBuf,
        /// Its size, in bytes.
        bytes: u64,
        /// The most bytes that are read of such a file.
        bytes_max: u64,
    },
    /// A file does not have the form that it should.
    #[error("{} is not what it should be", .file.display())]
    Form {
        /// The file whose content is not what its name promises.
        file: PathBuf,
        /// What is wrong with its content.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The model is of a kind that is not run here.
    #[error("{}: {problem}; only BERT and DistilBERT are run, with the mean or the first token as the sentence", .file.display())]
    Unsupported {
        /// The file that says so.
        file: PathBuf,
        /// What is not supported.
        problem: String,
    },
    /// The weights do not fit what config.json says.
    #[error("{} has no tensor `{tensor}` of the shape {wanted:?} that config.json asks for: {found}", .file.display())]
    Tensor {
        /// The file with the weights.
        file: PathBuf,
        /// The name under which the tensor was looked for.
        tensor: String,
        /// Its shape by config.json.
        wanted: Vec<usize>,
        /// What is there.
        found: TensorProblem,
    },
    /// A trial gave no direction: the weights hold numbers that are none.
    #[error("the model in {} gives no meaning to a sentence: its weights are damaged", .folder.display())]
    Trial {
        /// The folder whose model gave a wrong answer.
        folder: PathBuf,
    },
}

/// What a file has in the place of a tensor.
#[derive(Debug)]
pub enum TensorProblem {
    /// The file has no tensor of that name.
    Nothing,
    /// The tensor is there with this shape, which does not fit the model.
    Shape(Vec<usize>),
}

impl fmt::Display for TensorProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorProblem::Nothing => f.write_str("it has none of that name"),
            TensorProblem::Shape(shape) => write!(f, "it has {shape:?}"),
        }
    }
}

/// How the parts of a model are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Tensors have the names that BERT's have.
    Bert,
    /// Tensors have the names that DistilBERT's have, which knows no token types.
    DistilBert,
}

/// What stands between the two halves of a layer's feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The exact one.
    Gelu,
    /// The one by the hyperbolic tangent.
    GeluTanh,
    /// Negative numbers become 0.
    Relu,
}

/// Which of the last layer's rows make the sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all.
    Mean,
    /// The first one.
    First,
}

/// A model's shape and rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    pub family: Family,
    pub pieces: usize,
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    pub inner: usize,
    pub positions: usize,
    /// Of token types; DistilBERT has none.
    pub kinds: usize,
    pub epsilon: f64,
    pub activation: Activation,
    pub pooling: Pooling,
    /// The longest sequence that it is given.
    pub tokens_max: usize,
}

#[derive(Deserialize)]
struct Config {
    model_type: String,
    vocab_size: usize,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default)]
    type_vocab_size: Option<usize>,
    #[serde(default)]
    layer_norm_eps: Option<f64>,
    #[serde(default, alias = "activation")]
    hidden_act: Option<String>,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

/// Reads a file that has to be there.
pub fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>, OpenError> {
    let failed = |source| OpenError::Read { file: file.to_owned(), source };
    let bytes = fs::metadata(file).map_err(failed)?.len();
    if bytes > bytes_max {
        return Err(OpenError::TooLarge { file: file.to_owned(), bytes, bytes_max });
    }
    fs::read(file).map_err(failed)
}

/// Reads a file of text that has to be there.
pub fn read_text(file: &Path) -> Result<Vec<u8>, OpenError> {
    read(file, TEXT_BYTES_MAX)
}

fn parse<T: DeserializeOwned>(file: &Path, bytes: &[u8]) -> Result<T, OpenError> {
    serde_json::from_slice(bytes).map_err(|error| OpenError::Form { file: file.to_owned(), source: error.into() })
}

/// A file that may be missing.
fn optional<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, OpenError> {
    match read_text(file) {
        Ok(bytes) => parse(file, &bytes).map(Some),
        Err(OpenError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Shape {
    /// Reads everything but the pieces and the weights.
    pub fn read(folder: &Path) -> Result<Shape, OpenError> {
        let file = folder.join("config.json");
        let config: Config = parse(&file, &read_text(&file)?)?;
        let unsupported = |problem: String| OpenError::Unsupported { file: file.clone(), problem };
        let family = match config.model_type.as_str() {
            "bert" => Family::Bert,
            "distilbert" => Family::DistilBert,
            other => return Err(unsupported(format!("the model is of the type `{other}`"))),
        };
        if config.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
            return Err(unsupported("its positions are relative".to_owned()));
        }
        let activation = match config.hidden_act.as_deref().unwrap_or("gelu") {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => return Err(unsupported(format!("the activation is `{other}`"))),
        };
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        let sizes = [
            ("the width of a row", width, DIMENSIONS_MAX),
            ("the number of layers", config.num_hidden_layers, LAYERS_MAX),
            ("the number of heads", heads, width),
            ("the width inside a layer", config.intermediate_size, 16 * DIMENSIONS_MAX),
            ("the number of pieces", config.vocab_size, 1 << 24),
            ("the number of positions", config.max_position_embeddings, 1 << 20),
        ];
        if let Some((what, size, most)) = sizes.into_iter().find(|(_, size, most)| *size == 0 || size > most) {
            return Err(unsupported(format!("{what} is {size}, and has to be between 1 and {most}")));
        }
        if width % heads != 0 {
            return Err(unsupported(format!("rows of {width} cannot be shared by {heads} heads")));
        }
        let (pooling, longest) = sentence(folder)?;
        let positions = config.max_position_embeddings;
        Ok(Shape {
            family,
            pieces: config.vocab_size,
            width,
            layers: config.num_hidden_layers,
            heads,
            inner: config.intermediate_size,
            positions,
            kinds: if family == Family::Bert { config.type_vocab_size.unwrap_or(2) } else { 0 },
            epsilon: config.layer_norm_eps.unwrap_or(1e-12),
            activation,
            pooling,
            tokens_max: longest.unwrap_or(positions).min(positions).clamp(1, TOKENS_MAX),
        })
    }
}

/// How rows become a sentence, and how many tokens it may have, where the folder says so.
fn sentence(folder: &Path) -> Result<(Pooling, Option<usize>), OpenError> {
    let modules_file = folder.join("modules.json");
    let modules: Vec<Module> = optional(&modules_file)?.unwrap_or_default();
    let mut place = "1_Pooling".to_owned();
    for module in modules {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            // The vectors are made as long as 1 in any case.
            "Transformer" | "Normalize" => {}
            "Pooling" => place = module.path,
            other => {
                let problem = format!("the model has a part of the kind `{other}`");
                return Err(OpenError::Unsupported { file: modules_file, problem });
            }
        }
    }
    let file = folder.join(place).join("config.json");
    let config: Option<PoolingConfig> = optional(&file)?;
    let longest: SentenceConfig = optional(&folder.join("sentence_bert_config.json"))?.unwrap_or_default();
    let Some(config) = config else { return Ok((Pooling::Mean, longest.max_seq_length)) };
    let others = config.pooling_mode_max_tokens
        || config.pooling_mode_mean_sqrt_len_tokens
        || config.pooling_mode_weightedmean_tokens
        || config.pooling_mode_lasttoken;
    let pooling = match (config.pooling_mode_mean_tokens, config.pooling_mode_cls_token, others) {
        (true, false, false) => Pooling::Mean,
        (false, true, false) => Pooling::First,
        _ => return Err(OpenError::Unsupported { file, problem: "the rows are pooled in another way".to_owned() }),
    };
    Ok((pooling, longest.max_seq_length))
}
