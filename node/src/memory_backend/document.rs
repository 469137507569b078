//! What a backend is told of memories, entities and relations, what it is asked, and how far it is.
//!
//! A document carries two marks: the version is the entry of the log up to which it was read, so that what comes late never takes
//! the place of something newer; the digest is of all that it says, so that what is the same is not sent twice.

use caxton_memory::proto::{EntityId, MemoryId, RelationId, Scope};
use caxton_memory::{Condition, Filter, Memory, MemoryEntity, MemoryRelation, Permit, word_counts};
use caxton_proto::{Digest, WorkspaceId};
use serde::{Deserialize, Serialize};

/// Counts the forms of documents: another one makes every digest another.
const FORM: u32 = 1;
/// Stands for the end of what has none: the largest whole number that every JSON reader keeps exactly.
pub const NEVER_MS: i64 = (1 << 53) - 1;
/// Digits of a digest.
const DIGEST_DIGITS: usize = 24;

/// A memory as a backend has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// Its id, 32 hexadecimal digits.
    pub id: MemoryId,
    /// The entry of the log up to which it was read.
    pub version: u64,
    /// Of all that it says, and of the model of its vector.
    pub digest: String,
    /// What can be filtered by, and what people look at.
    #[serde(flatten)]
    pub facts: Facts,
    /// What it means: a vector of length 1.
    pub vector: Vec<f32>,
    /// The words by which it is found, in small letters and without endings, with how often each is in it.
    #[serde(skip)]
    pub words: Vec<(String, u32)>,
}

/// What is known of a memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Who shares it, as `subject:ann`.
    pub scope: String,
    /// What kind it is.
    pub kind: String,
    /// What it is about.
    pub name: Option<String>,
    /// The person or thing of which it is an observation.
    pub entity: Option<String>,
    /// What is remembered.
    pub text: String,
    /// A JSON object, as text.
    pub metadata: Option<String>,
    /// A number for each condition that the metadata meet, as hexadecimal digits.
    pub met: Vec<String>,
    /// From 0 to 100.
    pub importance: u8,
    /// It once had a source that is not trusted.
    pub untrusted: bool,
    /// When it was first kept, in milliseconds since 1970.
    pub created_ms: i64,
    /// From when it is true.
    pub valid_from_ms: i64,
    /// From when it is no longer true; [`NEVER_MS`] where that is not known.
    pub valid_to_ms: i64,
}

fn met(condition: &Condition) -> String {
    format!("{:016x}", condition.number())
}

impl Facts {
    fn of(workspace: &WorkspaceId, memory: &Memory) -> Facts {
        let what = &memory.what;
        let conditions = what.metadata.as_deref().map(Condition::met_by).unwrap_or_default();
        Facts {
            workspace: workspace.clone(),
            scope: what.scope.to_string(),
            kind: what.kind.clone(),
            name: what.name.clone(),
            entity: what.entity.clone(),
            text: what.text.clone(),
            metadata: what.metadata.clone(),
            met: conditions.iter().map(met).collect(),
            importance: what.importance,
            untrusted: memory.untrusted,
            created_ms: what.created_ms,
            valid_from_ms: what.valid_from_ms,
            valid_to_ms: what.valid_to_ms.unwrap_or(NEVER_MS),
        }
    }
}

/// The digest of what a backend is told of a memory.
pub fn digest_of(workspace: &WorkspaceId, memory: &Memory, model: &str) -> String {
    let said = serde_json::to_vec(&(FORM, model, Facts::of(workspace, memory))).unwrap_or_default();
    let mut digits = Digest::of(&said).to_string();
    if let Some(at) = digits.rfind(':') {
        digits.drain(..=at);
    }
    digits.truncate(DIGEST_DIGITS);
    digits
}

impl Document {
    /// What is told of a memory that was read when this entry of the log was applied.
    pub fn new(workspace: &WorkspaceId, memory: &Memory, vector: Vec<f32>, (version, model): (u64, &str)) -> Document {
        let words = word_counts(&caxton_memory::searchable(memory)).into_iter().collect();
        let digest = digest_of(workspace, memory, model);
        Document { id: memory.what.id, version, digest, facts: Facts::of(workspace, memory), vector, words }
    }

    /// How much of a request it takes, in bytes, about.
    pub fn bytes(&self) -> usize {
        let metadata = self.facts.metadata.as_ref().map_or(0, String::len);
        self.facts.text.len() + metadata + 12 * self.vector.len() + 24 * self.words.len() + 512
    }
}

/// An entity as a backend that keeps a graph has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntityNode {
    /// Its id, 32 hexadecimal digits.
    pub id: EntityId,
    /// Who shares it.
    pub scope: String,
    /// What it is called.
    pub name: String,
    /// What kind of thing it is.
    pub kind: String,
    /// The words of its name.
    pub words: Vec<String>,
}

impl From<&MemoryEntity> for EntityNode {
    fn from(entity: &MemoryEntity) -> EntityNode {
        let what = &entity.what;
        let words = word_counts(&what.name).into_keys().collect();
        let (scope, name, kind) = (what.scope.to_string(), what.name.clone(), what.kind.clone());
        EntityNode { id: what.id(), scope, name, kind, words }
    }
}

/// A relation as a backend that keeps a graph has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RelationEdge {
    /// Its id, 32 hexadecimal digits.
    pub id: RelationId,
    /// Where it begins.
    pub from: EntityId,
    /// Where it ends.
    pub to: EntityId,
    /// Who shares it.
    pub scope: String,
    /// How the two relate.
    pub kind: String,
    /// From when it is true, in milliseconds since 1970.
    pub valid_from_ms: i64,
    /// From when it is no longer true; [`NEVER_MS`] where that is not known.
    pub valid_to_ms: i64,
}

impl From<&MemoryRelation> for RelationEdge {
    fn from(relation: &MemoryRelation) -> RelationEdge {
        let what = &relation.what;
        RelationEdge {
            id: what.id,
            from: EntityId::of(&what.scope, &what.from),
            to: EntityId::of(&what.scope, &what.to),
            scope: what.scope.to_string(),
            kind: what.kind.clone(),
            valid_from_ms: what.valid_from_ms,
            valid_to_ms: what.valid_to_ms.unwrap_or(NEVER_MS),
        }
    }
}

/// Which documents may be candidates: what the permit and the filter of a search let through. It only spares candidates that
/// would not count: the node looks at each of them again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Within {
    pub workspace: WorkspaceId,
    /// Only these scopes; nothing for all.
    pub scopes: Option<Vec<String>>,
    /// Only these kinds; empty for all.
    pub kinds: Vec<String>,
    /// Only observations of this person or thing.
    pub entity: Option<String>,
    /// Only those kept at this time or later, in milliseconds since 1970.
    pub created_from_ms: Option<i64>,
    /// Only those kept before this time.
    pub created_to_ms: Option<i64>,
    /// Only those, or without those, that have a source which is not trusted.
    pub untrusted: Option<bool>,
    /// Only those with all of these among what their metadata meet.
    pub met: Vec<String>,
    /// Only what was true at this time; nothing for what was ever true.
    pub true_at_ms: Option<i64>,
}

impl Within {
    /// What a permit and a filter let through.
    pub fn of(permit: &Permit, filter: &Filter, as_of_ms: Option<i64>) -> Within {
        let scopes: Option<Vec<&Scope>> = match (permit.scopes(), &filter.scopes) {
            (None, None) => None,
            (Some(all), None) | (None, Some(all)) => Some(all.iter().collect()),
            (Some(may), Some(wanted)) => Some(may.intersection(wanted).collect()),
        };
        Within {
            workspace: permit.workspace().clone(),
            scopes: scopes.map(|scopes| scopes.into_iter().map(Scope::to_string).collect()),
            kinds: filter.kinds.iter().cloned().collect(),
            entity: filter.entity.clone(),
            created_from_ms: filter.created_from_ms,
            created_to_ms: filter.created_to_ms,
            untrusted: filter.untrusted,
            met: filter.metadata.iter().map(met).collect(),
            true_at_ms: as_of_ms,
        }
    }
}

/// How far a backend is, as it is written into the backend itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Whose log it is: the cluster and the shard.
    pub source: String,
    /// In which form documents are, and with which model their vectors are made.
    pub form: String,
    /// Everything up to this entry of the log is in the backend.
    pub index: u64,
}

impl Position {
    /// One at this entry of a log, for documents with vectors of this model.
    pub fn new(source: &str, model: &str, index: u64) -> Position {
        Position { source: source.to_owned(), form: format!("{FORM}/{model}"), index }
    }

    /// As it is written.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What was written; nothing where it cannot be read, so that everything is compared.
    pub fn decode(text: &str) -> Option<Position> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use caxton_memory::proto::NewMemory;
    use proptest::prelude::*;

    use super::*;

    fn memory(text: &str) -> Memory {
        let what = NewMemory {
            id: MemoryId::imported("test", "1"),
            scope: Scope::Subject("ann".to_owned()),
            kind: "fact".to_owned(),
            name: None,
            text: text.to_owned(),
            metadata: Some(r#"{"of":{"city":["Graz","Linz"]}}"#.to_owned()),
            importance: 50,
            pinned: false,
            sources: Vec::new(),
            created_ms: 1,
            valid_from_ms: 1,
            valid_to_ms: None,
            replaces: None,
            entity: Some("Ann".to_owned()),
        };
        Memory { what, changed_ms: 1, untrusted: false }
    }

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written(source in ".{0,80}", model in ".{0,40}", index: u64) {
            let position = Position::new(&source, &model, index);
            prop_assert_eq!(Position::decode(&position.encode()), Some(position));
        }

        #[test]
        fn what_is_no_position_is_none_and_does_no_harm(text in ".{0,200}") {
            let read = Position::decode(&text);
            prop_assert!(read.is_none_or(|position| Position::decode(&position.encode()) == Some(position)));
        }
    }

    #[test]
    fn a_digest_is_of_what_is_said_and_of_the_model_and_not_of_the_version() {
        let team: WorkspaceId = "team".parse().expect("a name");
        let tea = memory("Ann likes tea");
        let new = |memory: &Memory, version, model| Document::new(&team, memory, vec![1.0], (version, model)).digest;
        assert_eq!(new(&tea, 1, "a"), new(&tea, 2, "a"));
        assert_eq!(new(&tea, 1, "a").len(), DIGEST_DIGITS);
        assert!(new(&tea, 1, "a").chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(new(&tea, 1, "a"), new(&tea, 1, "b"));
        assert_ne!(new(&tea, 1, "a"), new(&memory("Ann likes coffee"), 1, "a"));
    }

    #[test]
    fn candidates_are_asked_for_within_the_permit_whatever_the_filter_wants() {
        let team: WorkspaceId = "team".parse().expect("a name");
        let [own, others] = ["ann", "bob"].map(|name| Scope::Subject(name.to_owned()));
        let scopes = |permit: Permit, filter: Option<Vec<Scope>>| {
            let scopes = filter.map(|scopes| scopes.into_iter().collect::<BTreeSet<_>>());
            Within::of(&permit, &Filter { scopes, ..Filter::default() }, None).scopes
        };
        let (all, ann) = (Permit::everything(team.clone()), Permit::of(team, [own.clone()]));
        assert_eq!(scopes(all.clone(), None), None);
        assert_eq!(scopes(all, Some(vec![others.clone()])), Some(vec!["subject:bob".to_owned()]));
        assert_eq!(scopes(ann.clone(), None), Some(vec!["subject:ann".to_owned()]));
        assert_eq!(scopes(ann.clone(), Some(vec![others])), Some(vec![]), "nothing, and not everything");
        assert_eq!(scopes(ann, Some(vec![own])), Some(vec!["subject:ann".to_owned()]));
        let condition = Condition { path: "of.city".to_owned(), value: caxton_memory::Value::Text("Linz".to_owned()) };
        let facts = Facts::of(&"team".parse().expect("a name"), &memory("x"));
        assert!(facts.met.contains(&met(&condition)));
    }
}
