//! Between commands, rows and the messages of the .proto file, one pair of functions for each type.

use super::pb::{self, command, forget, source};
use super::{DecodeError, FORMAT, field};
use crate::WorkspaceId;
use crate::memory::{
    Action, Command, Edit, Forget, NewEntity, NewMemory, NewRelation, Origin, Retain, Row, Rule, Scope, ScopeKind,
    Source,
};

type Result<T> = std::result::Result<T, DecodeError>;

/// An id of 16 bytes.
pub(super) fn id<T: for<'a> TryFrom<&'a [u8]>>(bytes: &[u8], name: &'static str) -> Result<T> {
    T::try_from(bytes).map_err(|_| field(name))
}

fn ids<T: for<'a> TryFrom<&'a [u8]>>(ids: Vec<Vec<u8>>) -> Result<Vec<T>> {
    ids.iter().map(|bytes| id(bytes, "id")).collect()
}

fn workspace(text: String) -> Result<WorkspaceId> {
    text.parse().map_err(|_| field("workspace"))
}

fn importance(number: u32) -> Result<u8> {
    u8::try_from(number).map_err(|_| field("importance"))
}

fn all<A, B: TryFrom<A, Error = DecodeError>>(list: Vec<A>) -> Result<Vec<B>> {
    list.into_iter().map(TryInto::try_into).collect()
}

fn some<A, B: TryFrom<A, Error = DecodeError>>(value: Option<A>, name: &'static str) -> Result<B> {
    value.ok_or(field(name))?.try_into()
}

impl From<&Scope> for pb::Scope {
    fn from(scope: &Scope) -> Self {
        Self { kind: scope.kind().number(), name: scope.name().to_owned() }
    }
}

impl TryFrom<pb::Scope> for Scope {
    type Error = DecodeError;
    fn try_from(scope: pb::Scope) -> Result<Self> {
        let kind = ScopeKind::from_number(scope.kind).ok_or(field("scope"))?;
        Scope::from_parts(kind, scope.name).ok_or(field("scope"))
    }
}

impl From<&Source> for pb::Source {
    fn from(source: &Source) -> Self {
        let origin = match source.origin.clone() {
            Origin::Turn { conversation, turn, position } => {
                source::Origin::Turn(pb::Turn { conversation, turn, position })
            }
            Origin::Agent { agent } => source::Origin::Agent(agent),
            Origin::Subject { subject } => source::Origin::Subject(subject),
            Origin::Tool { tool } => source::Origin::Tool(tool),
            Origin::Import { import } => source::Origin::Import(import),
        };
        Self { origin: Some(origin), at_ms: source.at_ms, untrusted: source.untrusted }
    }
}

impl TryFrom<pb::Source> for Source {
    type Error = DecodeError;
    fn try_from(source: pb::Source) -> Result<Self> {
        let origin = match source.origin.ok_or(field("origin"))? {
            source::Origin::Turn(pb::Turn { conversation, turn, position }) => {
                Origin::Turn { conversation, turn, position }
            }
            source::Origin::Agent(agent) => Origin::Agent { agent },
            source::Origin::Subject(subject) => Origin::Subject { subject },
            source::Origin::Tool(tool) => Origin::Tool { tool },
            source::Origin::Import(import) => Origin::Import { import },
        };
        Ok(Self { origin, at_ms: source.at_ms, untrusted: source.untrusted })
    }
}

impl From<&NewMemory> for pb::NewMemory {
    fn from(memory: &NewMemory) -> Self {
        Self {
            id: memory.id.as_bytes().to_vec(),
            scope: Some((&memory.scope).into()),
            kind: memory.kind.clone(),
            name: memory.name.clone(),
            text: memory.text.clone(),
            metadata: memory.metadata.clone(),
            importance: memory.importance.into(),
            pinned: memory.pinned,
            sources: memory.sources.iter().map(Into::into).collect(),
            created_ms: memory.created_ms,
            valid_from_ms: memory.valid_from_ms,
            valid_to_ms: memory.valid_to_ms,
            replaces: memory.replaces.map(|id| id.as_bytes().to_vec()),
            entity: memory.entity.clone(),
        }
    }
}

impl TryFrom<pb::NewMemory> for NewMemory {
    type Error = DecodeError;
    fn try_from(memory: pb::NewMemory) -> Result<Self> {
        Ok(Self {
            id: id(&memory.id, "id")?,
            scope: some(memory.scope, "scope")?,
            kind: memory.kind,
            name: memory.name,
            text: memory.text,
            metadata: memory.metadata,
            importance: importance(memory.importance)?,
            pinned: memory.pinned,
            sources: all(memory.sources)?,
            created_ms: memory.created_ms,
            valid_from_ms: memory.valid_from_ms,
            valid_to_ms: memory.valid_to_ms,
            replaces: memory.replaces.map(|bytes| id(&bytes, "replaces")).transpose()?,
            entity: memory.entity,
        })
    }
}

impl From<&NewEntity> for pb::NewEntity {
    fn from(entity: &NewEntity) -> Self {
        Self {
            scope: Some((&entity.scope).into()),
            name: entity.name.clone(),
            kind: entity.kind.clone(),
            metadata: entity.metadata.clone(),
            sources: entity.sources.iter().map(Into::into).collect(),
            created_ms: entity.created_ms,
        }
    }
}

impl TryFrom<pb::NewEntity> for NewEntity {
    type Error = DecodeError;
    fn try_from(entity: pb::NewEntity) -> Result<Self> {
        Ok(Self {
            scope: some(entity.scope, "scope")?,
            name: entity.name,
            kind: entity.kind,
            metadata: entity.metadata,
            sources: all(entity.sources)?,
            created_ms: entity.created_ms,
        })
    }
}

impl From<&NewRelation> for pb::NewRelation {
    fn from(relation: &NewRelation) -> Self {
        Self {
            id: relation.id.as_bytes().to_vec(),
            scope: Some((&relation.scope).into()),
            from: relation.from.clone(),
            kind: relation.kind.clone(),
            to: relation.to.clone(),
            metadata: relation.metadata.clone(),
            sources: relation.sources.iter().map(Into::into).collect(),
            created_ms: relation.created_ms,
            valid_from_ms: relation.valid_from_ms,
            valid_to_ms: relation.valid_to_ms,
        }
    }
}

impl TryFrom<pb::NewRelation> for NewRelation {
    type Error = DecodeError;
    fn try_from(relation: pb::NewRelation) -> Result<Self> {
        Ok(Self {
            id: id(&relation.id, "id")?,
            scope: some(relation.scope, "scope")?,
            from: relation.from,
            kind: relation.kind,
            to: relation.to,
            metadata: relation.metadata,
            sources: all(relation.sources)?,
            created_ms: relation.created_ms,
            valid_from_ms: relation.valid_from_ms,
            valid_to_ms: relation.valid_to_ms,
        })
    }
}

impl From<&Edit> for pb::Edit {
    fn from(edit: &Edit) -> Self {
        Self {
            memory: edit.memory.as_bytes().to_vec(),
            text: edit.text.clone(),
            kind: edit.kind.clone(),
            name: edit.name.clone(),
            metadata: edit.metadata.clone(),
            importance: edit.importance.map(Into::into),
            pinned: edit.pinned,
            valid_from_ms: edit.valid_from_ms,
            valid_to: edit.valid_to_ms.map(|at_ms| pb::ValidTo { at_ms }),
        }
    }
}

impl TryFrom<pb::Edit> for Edit {
    type Error = DecodeError;
    fn try_from(edit: pb::Edit) -> Result<Self> {
        Ok(Self {
            memory: id(&edit.memory, "memory")?,
            text: edit.text,
            kind: edit.kind,
            name: edit.name,
            metadata: edit.metadata,
            importance: edit.importance.map(importance).transpose()?,
            pinned: edit.pinned,
            valid_from_ms: edit.valid_from_ms,
            valid_to_ms: edit.valid_to.map(|to| to.at_ms),
        })
    }
}

impl From<&Forget> for forget::What {
    fn from(forget: &Forget) -> Self {
        match forget {
            Forget::Memories(ids) => {
                Self::Memories(pb::Ids { ids: ids.iter().map(|id| id.as_bytes().to_vec()).collect() })
            }
            Forget::Entities(ids) => {
                Self::Entities(pb::Ids { ids: ids.iter().map(|id| id.as_bytes().to_vec()).collect() })
            }
            Forget::Scope(scope) => Self::Scope(scope.into()),
            Forget::Everything => Self::Everything(true),
        }
    }
}

impl TryFrom<pb::Forget> for Forget {
    type Error = DecodeError;
    fn try_from(forget: pb::Forget) -> Result<Self> {
        match forget.what.ok_or(field("what"))? {
            forget::What::Memories(list) => ids(list.ids).map(Self::Memories),
            forget::What::Entities(list) => ids(list.ids).map(Self::Entities),
            forget::What::Scope(scope) => scope.try_into().map(Self::Scope),
            forget::What::Everything(true) => Ok(Self::Everything),
            forget::What::Everything(false) => Err(field("everything")),
        }
    }
}

impl From<&Rule> for pb::Rule {
    fn from(rule: &Rule) -> Self {
        Self {
            scope: rule.scope.map(ScopeKind::number),
            kind: rule.kind.clone(),
            age_ms_max: rule.age_ms_max,
            count_max: rule.count_max,
            bytes_max: rule.bytes_max,
        }
    }
}

impl TryFrom<pb::Rule> for Rule {
    type Error = DecodeError;
    fn try_from(rule: pb::Rule) -> Result<Self> {
        let scope = rule.scope.map(|number| ScopeKind::from_number(number).ok_or(field("scope")));
        Ok(Self {
            scope: scope.transpose()?,
            kind: rule.kind,
            age_ms_max: rule.age_ms_max,
            count_max: rule.count_max,
            bytes_max: rule.bytes_max,
        })
    }
}

impl From<&Command> for pb::Command {
    fn from(command: &Command) -> Self {
        let body = match &command.action {
            Action::Remember { entities, memories, relations } => command::Body::Remember(pb::Remember {
                entities: entities.iter().map(Into::into).collect(),
                memories: memories.iter().map(Into::into).collect(),
                relations: relations.iter().map(Into::into).collect(),
            }),
            Action::Edit(edit) => command::Body::Edit(edit.into()),
            Action::Undo { memory } => command::Body::Undo(pb::Undo { memory: memory.as_bytes().to_vec() }),
            Action::Forget(forget) => command::Body::Forget(pb::Forget { what: Some(forget.into()) }),
            Action::EndRelations { relations, valid_to_ms } => command::Body::EndRelations(pb::EndRelations {
                relations: relations.iter().map(|id| id.as_bytes().to_vec()).collect(),
                valid_to_ms: *valid_to_ms,
            }),
            Action::Retain(retain) => {
                command::Body::Retain(pb::Retain { rules: retain.rules.iter().map(Into::into).collect() })
            }
        };
        let scopes = |scopes: &Vec<Scope>| pb::Permit { scopes: scopes.iter().map(Into::into).collect() };
        Self {
            version: FORMAT,
            workspace: command.workspace.to_string(),
            time_ms: command.time_ms,
            actor: command.actor.clone(),
            permit: command.permit.as_ref().map(scopes),
            body: Some(body),
        }
    }
}

impl TryFrom<pb::Command> for Command {
    type Error = DecodeError;
    fn try_from(command: pb::Command) -> Result<Self> {
        let action = match command.body.ok_or(field("body"))? {
            command::Body::Remember(new) => Action::Remember {
                entities: all(new.entities)?,
                memories: all(new.memories)?,
                relations: all(new.relations)?,
            },
            command::Body::Edit(edit) => Action::Edit(edit.try_into()?),
            command::Body::Undo(undo) => Action::Undo { memory: id(&undo.memory, "memory")? },
            command::Body::Forget(forget) => Action::Forget(forget.try_into()?),
            command::Body::EndRelations(end) => {
                Action::EndRelations { relations: ids(end.relations)?, valid_to_ms: end.valid_to_ms }
            }
            command::Body::Retain(retain) => Action::Retain(Retain { rules: all(retain.rules)? }),
        };
        Ok(Self {
            workspace: workspace(command.workspace)?,
            time_ms: command.time_ms,
            actor: command.actor,
            permit: command.permit.map(|permit| all(permit.scopes)).transpose()?,
            action,
        })
    }
}

impl From<&Row> for pb::MemoryRow {
    fn from(row: &Row) -> Self {
        Self {
            workspace: row.workspace.to_string(),
            memory: Some((&row.memory).into()),
            changed_ms: row.changed_ms,
            untrusted: row.untrusted,
        }
    }
}

impl TryFrom<pb::MemoryRow> for Row {
    type Error = DecodeError;
    fn try_from(row: pb::MemoryRow) -> Result<Self> {
        Ok(Row {
            workspace: workspace(row.workspace)?,
            memory: some(row.memory, "memory")?,
            changed_ms: row.changed_ms,
            untrusted: row.untrusted,
        })
    }
}
