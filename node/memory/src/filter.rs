//! Who may read, and of what: a permit, and conditions inside it.

use std::collections::BTreeSet;

use caxton_proto::WorkspaceId;
use caxton_proto::memory::{NewMemory, Scope};

/// What somebody may read: scopes of one workspace. Nothing is read without one, and nothing outside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    workspace: WorkspaceId,
    scopes: Option<BTreeSet<Scope>>,
}

impl Permit {
    /// The scopes that are named, and no other.
    pub fn of(workspace: WorkspaceId, scopes: impl IntoIterator<Item = Scope>) -> Permit {
        Permit { workspace, scopes: Some(scopes.into_iter().collect()) }
    }

    /// Every scope of the workspace: for whoever administers it.
    pub fn everything(workspace: WorkspaceId) -> Permit {
        Permit { workspace, scopes: None }
    }

    /// The workspace.
    pub fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }

    /// Whether a scope may be read.
    pub fn allows(&self, scope: &Scope) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.contains(scope))
    }

    /// The scopes, or nothing where it is every one.
    pub fn scopes(&self) -> Option<&BTreeSet<Scope>> {
        self.scopes.as_ref()
    }
}

/// Which memories of those that may be read. What is empty or absent says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Only these scopes.
    pub scopes: Option<BTreeSet<Scope>>,
    /// Only these kinds.
    pub kinds: BTreeSet<String>,
    /// Only observations of this entity, by its name.
    pub entity: Option<String>,
    /// Only those kept at this time or later.
    pub created_from_ms: Option<i64>,
    /// Only those kept before this time.
    pub created_to_ms: Option<i64>,
    /// Only those whose metadata meet every condition.
    pub metadata: Vec<Condition>,
    /// Only those, or without those, that have a source which is not trusted.
    pub untrusted: Option<bool>,
}

/// A value that metadata have to have somewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Where: names of fields with dots between them. A list has each of its values.
    pub path: String,
    /// What.
    pub value: Value,
}

/// A value of metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// Nothing.
    Null,
}

impl Value {
    fn of(value: &serde_json::Value) -> Option<Value> {
        Some(match value {
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Number(number) => Value::Number(number.as_f64()?),
            serde_json::Value::Bool(is) => Value::Bool(*is),
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => return None,
        })
    }
}

impl Condition {
    /// Every condition that metadata meet, each once.
    pub fn met_by(metadata: &str) -> Vec<Condition> {
        let mut all = Vec::new();
        if let Ok(value) = serde_json::from_str(metadata) {
            leaves(&value, &mut String::new(), &mut all);
        }
        all
    }

    /// A number for it, by which an index finds the memories that meet it. Two that differ may share one, so whoever finds
    /// by it looks again.
    pub fn number(&self) -> u64 {
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        hash.take(self.path.as_bytes());
        match &self.value {
            Value::Text(text) => {
                hash.take(&[0, 1]);
                hash.take(text.as_bytes());
            }
            // 1 and 1.0 are one number, and so are both zeros.
            Value::Number(number) => {
                hash.take(&[0, 2]);
                hash.take(&(number + 0.0).to_bits().to_le_bytes());
            }
            Value::Bool(is) => hash.take(&[0, 3, u8::from(*is)]),
            Value::Null => hash.take(&[0, 4]),
        }
        hash.0
    }
}

fn leaves(value: &serde_json::Value, path: &mut String, all: &mut Vec<Condition>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let end = path.len();
                if end > 0 {
                    path.push('.');
                }
                path.push_str(name);
                leaves(value, path, all);
                path.truncate(end);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| leaves(value, path, all)),
        leaf => {
            let condition = Value::of(leaf).map(|value| Condition { path: path.clone(), value });
            all.extend(condition.filter(|condition| !all.contains(condition)));
        }
    }
}

/// FNV-1a: small, and the same everywhere.
struct Fnv(u64);

impl Fnv {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Filter {
    /// Whether a memory is one of those, by all that can be told from it alone.
    pub fn allows(&self, memory: &NewMemory, untrusted: bool) -> bool {
        let fits = |condition: &Condition, met: &[Condition]| met.contains(condition);
        self.scopes.as_ref().is_none_or(|scopes| scopes.contains(&memory.scope))
            && (self.kinds.is_empty() || self.kinds.contains(&memory.kind))
            && (self.entity.is_none() || self.entity == memory.entity)
            && self.created_from_ms.is_none_or(|from| memory.created_ms >= from)
            && self.created_to_ms.is_none_or(|to| memory.created_ms < to)
            && self.untrusted.is_none_or(|is| is == untrusted)
            && (self.metadata.is_empty() || {
                let met = memory.metadata.as_deref().map(Condition::met_by).unwrap_or_default();
                self.metadata.iter().all(|condition| fits(condition, &met))
            })
    }
}

/// Whether something is true at a time.
pub(crate) fn is_true(from_ms: i64, to_ms: Option<i64>, at_ms: i64) -> bool {
    from_ms <= at_ms && to_ms.is_none_or(|to| at_ms < to)
}
