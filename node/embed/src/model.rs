//! The sentence model that a node uses: the built-in one, or one out of a folder.
//!
//! Vectors of different models have nothing to do with each other, even where they are equally long: whoever keeps
//! vectors keeps [`Model::id`] with them.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use crate::folder::{self, OpenError, Shape, WEIGHTS_BYTES_MAX};
use crate::transformer::Transformer;
use crate::{DIMENSIONS, Embedder, Reading, TOKENS_MAX, Vector, weights};

/// More of a text is not read by a model out of a folder.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// What a model is tried with before it is used.
const TRIAL: &str = "restart the ingestion pipeline";

/// A handle on a sentence model; clones share it.
#[derive(Clone, Default)]
pub struct Model(Option<Arc<Own>>);

/// A model out of a folder.
struct Own {
    id: [u8; 32],
    tokenizer: Tokenizer,
    transformer: Transformer,
}

impl Model {
    /// The one inside the binary, which is read when it is first needed.
    pub fn built_in() -> Model {
        Model(None)
    }

    /// The one in a folder: reads all of it and tries it out. Takes about a second for each gigabyte.
    pub fn open(folder: &Path) -> Result<Model, OpenError> {
        let shape = Shape::read(folder)?;
        let (tokenizer_file, weights_file) = (folder.join("tokenizer.json"), folder.join("model.safetensors"));
        let pieces = folder::read_text(&tokenizer_file)?;
        let tokenizer =
            tokenizer(&pieces).map_err(|source| OpenError::Form { file: tokenizer_file.clone(), source })?;
        let known = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if known > shape.pieces {
            let problem = format!("it has ids up to {}, and config.json has {} pieces", known - 1, shape.pieces);
            return Err(OpenError::Form { file: tokenizer_file, source: problem.into() });
        }
        let bytes = folder::read(&weights_file, WEIGHTS_BYTES_MAX)?;
        // What a vector depends on: two folders with the same of it hold the same model.
        let mut id = Sha256::new();
        id.update(format!("{shape:?}").as_bytes());
        id.update(Sha256::digest(&pieces));
        id.update(Sha256::digest(&bytes));
        let transformer = Transformer::read(shape, &weights_file, &bytes)?;
        let model = Model(Some(Arc::new(Own { id: id.finalize().into(), tokenizer, transformer })));
        if model.embed(TRIAL) == Vector::ZERO {
            return Err(OpenError::Trial { folder: folder.to_owned() });
        }
        Ok(model)
    }

    /// What tells models apart: a hash of all that their vectors depend on.
    pub fn id(&self) -> [u8; 32] {
        match &self.0 {
            None => weights::checksum(),
            Some(own) => own.id,
        }
    }

    /// How many numbers its vectors have.
    pub fn dimensions(&self) -> usize {
        match &self.0 {
            None => DIMENSIONS,
            Some(own) => own.transformer.shape().width,
        }
    }

    /// How many numbers its wordings have: none if it does not make any.
    pub fn wording_dimensions(&self) -> usize {
        match &self.0 {
            None => DIMENSIONS,
            Some(_) => 0,
        }
    }

    /// The most tokens of a text that it looks at.
    pub fn tokens_max(&self) -> usize {
        match &self.0 {
            None => TOKENS_MAX,
            Some(own) => own.transformer.shape().tokens_max,
        }
    }

    /// A text's meaning, from its first [`Model::tokens_max`] tokens.
    pub fn embed(&self, text: &str) -> Vector {
        self.embed_start(text, self.tokens_max())
    }

    /// A text's meaning, from its first `tokens_max` tokens (at least 3). A text without a token has none.
    pub fn embed_start(&self, text: &str, tokens_max: usize) -> Vector {
        match &self.0 {
            None => Embedder::shared().embed_start(text, tokens_max),
            Some(own) => own.embed(text, tokens_max.clamp(3, self.tokens_max().max(3))),
        }
    }

    /// A text's meaning and wording, from its first `tokens_max` tokens (at least 3).
    pub fn read_start(&self, text: &str, tokens_max: usize) -> Reading {
        match &self.0 {
            None => Embedder::shared().read_start(text, tokens_max),
            Some(_) => Reading { meaning: self.embed_start(text, tokens_max), wording: Vector::ZERO },
        }
    }
}

/// Text is never read as a special token, nothing is padded, and cutting is ours.
fn tokenizer(bytes: &[u8]) -> Result<Tokenizer, tokenizers::Error> {
    let mut tokenizer = Tokenizer::from_bytes(bytes)?;
    tokenizer.with_truncation(None)?;
    tokenizer.with_padding(None);
    tokenizer.set_encode_special_tokens(true);
    Ok(tokenizer)
}

impl Own {
    /// The shapes were checked when the model was opened, so that neither step has a reason to fail; if one does, the
    /// text is similar to nothing, and is refused as such.
    fn embed(&self, text: &str, tokens_max: usize) -> Vector {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        let Ok(encoding) = self.tokenizer.encode_fast(text, true) else { return Vector::ZERO };
        let mut ids = encoding.get_ids().to_vec();
        let tokens_max = tokens_max.min(self.transformer.shape().tokens_max);
        if let Some(last) = ids.last().copied().filter(|_| ids.len() > tokens_max) {
            // What closes a sequence closes a cut one too.
            ids.truncate(tokens_max);
            if let Some(end) = ids.last_mut() {
                *end = last;
            }
        }
        if ids.is_empty() {
            return Vector::ZERO;
        }
        self.transformer.embed(&ids).map(Vector::new).unwrap_or(Vector::ZERO)
    }
}
