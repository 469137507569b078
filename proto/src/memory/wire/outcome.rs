//! Between outcomes and the messages of the .proto file.

use super::convert::id;
use super::pb::{self, item, outcome};
use super::{DecodeError, field};
use crate::memory::{Fate, Gone, Item, Outcome, Reason, Refusal, Remembered, Removed};

type Result<T> = std::result::Result<T, DecodeError>;

/// An id that is 16 bytes one way and the other.
trait Id: Copy + for<'a> TryFrom<&'a [u8]> {
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! ids {
    ($($type:ident)*) => {$(
        impl Id for crate::memory::$type {
            fn bytes(&self) -> Vec<u8> {
                self.as_bytes().to_vec()
            }
        }
    )*};
}
ids!(MemoryId EntityId RelationId);

fn items_to<T: Id>(items: &[Item<T>]) -> Vec<pb::Item> {
    let fate = |fate: &Fate<T>| match fate {
        Fate::Stored { closed } => item::Fate::Stored(pb::Stored { closed: closed.iter().map(Id::bytes).collect() }),
        Fate::Known => item::Fate::Known(true),
        Fate::Refused(refusal) => item::Fate::Refused(refusal.into()),
    };
    items.iter().map(|item| pb::Item { id: item.id.bytes(), fate: Some(fate(&item.fate)) }).collect()
}

fn items_from<T: Id>(items: Vec<pb::Item>) -> Result<Vec<Item<T>>> {
    let fate = |fate: item::Fate| match fate {
        item::Fate::Stored(stored) => {
            let closed = stored.closed.iter().map(|bytes| id(bytes, "closed")).collect::<Result<_>>()?;
            Ok(Fate::Stored { closed })
        }
        item::Fate::Known(true) => Ok(Fate::Known),
        item::Fate::Known(false) => Err(field("known")),
        item::Fate::Refused(refusal) => refusal.try_into().map(Fate::Refused),
    };
    let item =
        |item: pb::Item| Ok(Item { id: id(&item.id, "id")?, fate: item.fate.ok_or(field("fate")).and_then(fate)? });
    items.into_iter().map(item).collect()
}

impl From<&Refusal> for pb::Refusal {
    fn from(refusal: &Refusal) -> Self {
        let (reason, what, found, most) = match &refusal.reason {
            Reason::NotFound => (pb::Reason::NotFound, "", 0, 0),
            Reason::Conflict => (pb::Reason::Conflict, "", 0, 0),
            Reason::Limit { what, found, most } => (pb::Reason::Limit, what.as_str(), *found, *most),
            Reason::Field { field } => (pb::Reason::Field, field.as_str(), 0, 0),
            Reason::NotPermitted => (pb::Reason::NotPermitted, "", 0, 0),
            Reason::NoEdit => (pb::Reason::NoEdit, "", 0, 0),
        };
        let id = refusal.id.map(Vec::from).unwrap_or_default();
        Self { reason: reason.into(), id, what: what.to_owned(), found, most }
    }
}

impl TryFrom<pb::Refusal> for Refusal {
    type Error = DecodeError;
    fn try_from(refusal: pb::Refusal) -> Result<Self> {
        let (what, found, most) = (refusal.what, refusal.found, refusal.most);
        let reason = match pb::Reason::try_from(refusal.reason).unwrap_or_default() {
            pb::Reason::NotFound => Reason::NotFound,
            pb::Reason::Conflict => Reason::Conflict,
            pb::Reason::Limit => Reason::Limit { what, found, most },
            pb::Reason::Field => Reason::Field { field: what },
            pb::Reason::NotPermitted => Reason::NotPermitted,
            pb::Reason::NoEdit => Reason::NoEdit,
            pb::Reason::Unspecified => return Err(field("reason")),
        };
        let id = match refusal.id.is_empty() {
            true => None,
            false => Some(refusal.id.as_slice().try_into().map_err(|_| field("id"))?),
        };
        Ok(Self { reason, id })
    }
}

impl From<&Gone> for pb::Gone {
    fn from(gone: &Gone) -> Self {
        Self {
            id: gone.id.bytes(),
            scope: Some((&gone.scope).into()),
            kind: gone.kind.clone(),
            bytes: gone.bytes,
            rule: gone.rule,
        }
    }
}

impl TryFrom<pb::Gone> for Gone {
    type Error = DecodeError;
    fn try_from(gone: pb::Gone) -> Result<Self> {
        let scope = gone.scope.ok_or(field("scope"))?.try_into()?;
        Ok(Self { id: id(&gone.id, "id")?, scope, kind: gone.kind, bytes: gone.bytes, rule: gone.rule })
    }
}

impl From<&Outcome> for outcome::Body {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Remembered(all) => Self::Remembered(pb::Remembered {
                entities: items_to(&all.entities),
                memories: items_to(&all.memories),
                relations: items_to(&all.relations),
            }),
            Outcome::Edited { memory, number } => Self::Edited(pb::Edited { memory: memory.bytes(), number: *number }),
            Outcome::Removed(removed) => Self::Removed(pb::Removed {
                memories: removed.memories,
                entities: removed.entities,
                relations: removed.relations,
                bytes: removed.bytes,
                gone: removed.gone.iter().map(Into::into).collect(),
                more: removed.more,
            }),
            Outcome::Ended { relations } => Self::Ended(pb::Ended { relations: *relations }),
            Outcome::Refused(refusal) => Self::Refused(refusal.into()),
        }
    }
}

impl TryFrom<outcome::Body> for Outcome {
    type Error = DecodeError;
    fn try_from(body: outcome::Body) -> Result<Self> {
        Ok(match body {
            outcome::Body::Remembered(all) => Outcome::Remembered(Remembered {
                entities: items_from(all.entities)?,
                memories: items_from(all.memories)?,
                relations: items_from(all.relations)?,
            }),
            outcome::Body::Edited(edited) => {
                Outcome::Edited { memory: id(&edited.memory, "memory")?, number: edited.number }
            }
            outcome::Body::Removed(removed) => Outcome::Removed(Removed {
                memories: removed.memories,
                entities: removed.entities,
                relations: removed.relations,
                bytes: removed.bytes,
                gone: removed.gone.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
                more: removed.more,
            }),
            outcome::Body::Ended(ended) => Outcome::Ended { relations: ended.relations },
            outcome::Body::Refused(refusal) => Outcome::Refused(refusal.try_into()?),
        })
    }
}
