//! Vectors of phrases, by the phrase: what a deployment did not change is not embedded again.
//!
//! They are kept in memory and, if a folder is given, in a file that a restart reads. The file is derived data: one
//! that is missing, cut off, or of another model is made anew, and losing it costs time only. No vector leaves its node:
//! each embeds for itself, so that nodes with different models never mix theirs.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use caxton_embed::{Model, Vector, dot_bytes};
use caxton_proto::Digest;

use super::MESSAGE_TOKENS_MAX;

/// Opens the file, before the model's id; changes whenever the form does.
const MAGIC: &[u8; 16] = b"caxton-vectors-2";
/// What stands before a record's numbers: the phrase's digest and the scale.
const RECORD_HEAD_BYTES: usize = 32 + 4;
/// The most that are kept: 200 MB of memory.
const VECTORS_MAX: usize = 500_000;

/// A vector in eight bits: an error of less than a hundredth in a similarity, for a quarter of the memory.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedVector {
    scale: f32,
    values: Box<[i8]>,
}

impl PackedVector {
    fn new(vector: &Vector) -> Self {
        let most = vector.as_slice().iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let scale = if most > 0.0 { most / 127.0 } else { 1.0 };
        let values = vector.as_slice().iter().map(|value| (value / scale).round() as i8);
        Self { scale, values: values.collect() }
    }

    /// In floats again.
    pub fn unpacked(&self) -> Vector {
        Vector::new(self.values.iter().map(|value| f32::from(*value)).collect::<Vec<f32>>())
    }

    /// The cosine of the angle to another.
    pub fn similarity(&self, other: &Self) -> f32 {
        dot_bytes(&self.values, &other.values) as f32 * self.scale * other.scale
    }
}

impl From<&Vector> for PackedVector {
    fn from(vector: &Vector) -> Self {
        Self::new(vector)
    }
}

/// Vectors in eight bits that lie one after another, so that a message is compared with thousands as fast as memory is read.
#[derive(Default)]
pub struct Rows {
    dimensions: usize,
    scales: Vec<f32>,
    values: Vec<i8>,
}

impl Rows {
    /// None yet, of so many dimensions.
    pub fn new(dimensions: usize) -> Rows {
        Rows { dimensions, ..Rows::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Adds one at the end.
    pub fn push(&mut self, vector: &PackedVector) {
        self.scales.push(vector.scale);
        self.values.extend_from_slice(&vector.values);
        // A phrase without a meaning has no numbers.
        self.values.resize(self.scales.len() * self.dimensions, 0);
    }

    /// Gives back the room for more.
    pub fn shrink_to_fit(&mut self) {
        self.scales.shrink_to_fit();
        self.values.shrink_to_fit();
    }

    /// The cosine of the angle between each and another, in order.
    pub fn similarities(&self, other: &PackedVector) -> impl Iterator<Item = f32> {
        let rows = self.values.chunks_exact(self.dimensions.max(1)).zip(&self.scales);
        rows.map(|(row, scale)| dot_bytes(row, &other.values) as f32 * scale * other.scale)
    }

    /// Each in floats, in order.
    pub fn unpacked(&self) -> impl Iterator<Item = Vector> {
        let rows = self.values.chunks_exact(self.dimensions.max(1));
        rows.map(|row| Vector::new(row.iter().map(|value| f32::from(*value)).collect::<Vec<f32>>()))
    }
}

/// A handle on the vectors that a process knows; clones share them.
#[derive(Clone, Default)]
pub struct Vectors(Arc<Shared>);

#[derive(Default)]
struct Shared {
    model: Model,
    known: Mutex<KnownVectors>,
}

#[derive(Default)]
struct KnownVectors {
    by_phrase: HashMap<Digest, Arc<PackedVector>>,
    file: Option<PathBuf>,
    /// Whether the file was looked for.
    read: bool,
    /// How many the file has.
    written: usize,
}

impl Vectors {
    /// Those of a model in `dir`'s `vectors.bin`, which is read when the first one is wanted: a start does not wait for
    /// it.
    pub fn at(dir: &Path, model: Model) -> Self {
        let known = KnownVectors { file: Some(dir.join("vectors.bin")), ..KnownVectors::default() };
        Self(Arc::new(Shared { model, known: Mutex::new(known) }))
    }

    /// The model that they are of.
    pub fn model(&self) -> &Model {
        &self.0.model
    }

    /// The vector of a phrase, if it is known.
    pub fn get(&self, phrase: &str) -> Option<Arc<PackedVector>> {
        self.known().by_phrase.get(&Digest::of(phrase.as_bytes())).cloned()
    }

    /// The vector of a phrase, computed if it is new. Takes one to three milliseconds then.
    pub fn of(&self, phrase: &str) -> Arc<PackedVector> {
        if let Some(known) = self.get(phrase) {
            return known;
        }
        let digest = Digest::of(phrase.as_bytes());
        // Not under the lock: others need not wait for the model.
        let packed = Arc::new(PackedVector::new(&self.model().embed_start(phrase, MESSAGE_TOKENS_MAX)));
        let mut known = self.known();
        if known.by_phrase.len() >= VECTORS_MAX {
            // Those of live revisions are held by their indexes.
            known.by_phrase.retain(|_, vector| Arc::strong_count(vector) > 1);
        }
        known.by_phrase.entry(digest).or_insert(packed).clone()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known().by_phrase.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes them down, if there are new ones: those in use, and none that nobody needs any more. Blocks on the disk.
    pub fn save(&self) -> std::io::Result<()> {
        let (file, bytes, count) = {
            let known = self.known();
            let Some(file) = known.file.clone() else { return Ok(()) };
            if known.by_phrase.len() == known.written {
                return Ok(());
            }
            (file, encode(self.model(), &known.by_phrase), known.by_phrase.len())
        };
        if let Some(dir) = file.parent() {
            crate::files::private_dir(dir).map_err(std::io::Error::other)?;
        }
        let draft = file.with_extension("draft");
        let mut out = std::fs::File::create(&draft)?;
        out.write_all(&bytes)?;
        std::fs::rename(&draft, &file)?;
        self.known().written = count;
        Ok(())
    }

    /// What is known, read from the file by the first who asks. Blocks on the disk.
    fn known(&self) -> std::sync::MutexGuard<'_, KnownVectors> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = known.file.as_ref().filter(|_| !known.read) {
            let bytes = std::fs::read(file).ok();
            known.by_phrase = bytes.and_then(|bytes| decode(self.model(), &bytes)).unwrap_or_default();
            known.written = known.by_phrase.len();
            known.read = true;
        }
        known
    }
}

fn encode(model: &Model, vectors: &HashMap<Digest, Arc<PackedVector>>) -> Vec<u8> {
    let record_bytes = RECORD_HEAD_BYTES + model.dimensions();
    let mut bytes = Vec::with_capacity(MAGIC.len() + 32 + vectors.len() * record_bytes + 32);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&model.id());
    for (digest, vector) in vectors {
        bytes.extend_from_slice(digest.as_bytes());
        bytes.extend_from_slice(&vector.scale.to_le_bytes());
        // A phrase without a meaning has no numbers, and is written down as zeros.
        let end = bytes.len() + model.dimensions();
        bytes.extend(vector.values.iter().map(|value| value.cast_unsigned()));
        bytes.resize(end, 0);
    }
    let checksum = Digest::of(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

fn decode(model: &Model, bytes: &[u8]) -> Option<HashMap<Digest, Arc<PackedVector>>> {
    let (content, checksum) = bytes.split_last_chunk::<32>()?;
    if Digest::of(content).as_bytes() != checksum {
        return None;
    }
    let records = content.strip_prefix(MAGIC)?.strip_prefix(&model.id())?;
    let records = records.chunks_exact(RECORD_HEAD_BYTES + model.dimensions());
    let mut seen = HashSet::new();
    let vectors = records.map(|record| {
        let (digest, rest) = record.split_first_chunk::<32>()?;
        let (scale, values) = rest.split_first_chunk::<4>()?;
        let values = values.iter().map(|value| value.cast_signed()).collect();
        let packed = PackedVector { scale: f32::from_le_bytes(*scale), values };
        seen.insert(*digest).then(|| (Digest::from_bytes(*digest), Arc::new(packed)))
    });
    vectors.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_finds_what_was_embedded() {
        let dir = tempfile::tempdir().unwrap();
        let vectors = Vectors::at(dir.path(), Model::built_in());
        let first = vectors.of("plot a chart");
        vectors.save().unwrap();
        let again = Vectors::at(dir.path(), Model::built_in());
        assert_eq!(again.len(), 1);
        assert_eq!(again.of("plot a chart"), first);
    }

    #[test]
    fn a_damaged_file_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let vectors = Vectors::at(dir.path(), Model::built_in());
        vectors.of("plot a chart");
        vectors.save().unwrap();
        let file = dir.path().join("vectors.bin");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[60] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert!(Vectors::at(dir.path(), Model::built_in()).is_empty());
        std::fs::write(&file, &bytes[..20]).unwrap();
        assert!(Vectors::at(dir.path(), Model::built_in()).is_empty());
    }

    #[test]
    fn a_phrase_without_a_meaning_is_similar_to_nothing_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let vectors = Vectors::at(dir.path(), Model::built_in());
        let chart = vectors.of("plot a chart");
        let none = PackedVector::new(&Vector::ZERO);
        vectors.known().by_phrase.insert(Digest::of(b"nothing"), Arc::new(none));
        vectors.save().unwrap();
        let again = Vectors::at(dir.path(), Model::built_in());
        assert_eq!((again.len(), again.of("nothing").similarity(&chart)), (2, 0.0));
        assert_eq!(again.of("nothing").unpacked(), Vector::ZERO);
    }

    #[test]
    fn packing_hardly_turns_a_vector() {
        let vector = Model::built_in().embed("plot a chart of the temperatures");
        let packed = PackedVector::new(&vector);
        assert!(packed.unpacked().similarity(&vector) > 0.999);
        assert!((packed.similarity(&packed) - 1.0).abs() < 0.01);
    }
}
