//! Between outcomes and the messages of the .proto file.

use super::{Result, id};
use crate::acl::wire::{DecodeError, address, field, pb};
use crate::mailbox::{Fate, Outcome, Reason, Receipt, Settlement};

impl From<&Reason> for pb::Reason {
    fn from(reason: &Reason) -> Self {
        use pb::reason::Reason as Body;
        let body = match reason.clone() {
            Reason::Full { receiver, retry_after_ms, dead } => {
                Body::Full(pb::Full { receiver: receiver.to_string(), retry_after_ms, dead })
            }
            Reason::NotUnderstood { why } => Body::NotUnderstood(why),
            Reason::Limit { what, found, most } => Body::Limit(pb::Limit { what, found, most }),
            Reason::Field { field } => Body::Field(field),
            Reason::NotFound => Body::NotFound(true),
            Reason::Expired => Body::Expired(true),
            Reason::Circle { agents } => Body::Circle(pb::Circle { agents }),
        };
        Self { reason: Some(body) }
    }
}

impl TryFrom<pb::Reason> for Reason {
    type Error = DecodeError;
    fn try_from(reason: pb::Reason) -> Result<Self> {
        use pb::reason::Reason as Body;
        Ok(match reason.reason.ok_or(field("reason"))? {
            Body::Full(pb::Full { receiver, retry_after_ms, dead }) => {
                Reason::Full { receiver: address(&receiver, "receiver")?, retry_after_ms, dead }
            }
            Body::NotUnderstood(why) => Reason::NotUnderstood { why },
            Body::Limit(pb::Limit { what, found, most }) => Reason::Limit { what, found, most },
            Body::Field(field) => Reason::Field { field },
            Body::NotFound(_) => Reason::NotFound,
            Body::Expired(_) => Reason::Expired,
            Body::Circle(pb::Circle { agents }) => Reason::Circle { agents },
        })
    }
}

impl From<&Receipt> for pb::Receipt {
    fn from(receipt: &Receipt) -> Self {
        let fate = match &receipt.fate {
            Fate::Accepted { conversation, event, deliveries, position } => pb::receipt::Fate::Accepted(pb::Accepted {
                conversation: conversation.clone(),
                event: *event,
                deliveries: *deliveries,
                position: *position,
            }),
            Fate::Duplicate(id) => pb::receipt::Fate::Duplicate(id.as_bytes().to_vec()),
            Fate::Refused(reason) => pb::receipt::Fate::Refused(reason.into()),
        };
        Self { id: receipt.id.as_bytes().to_vec(), fate: Some(fate) }
    }
}

impl TryFrom<pb::Receipt> for Receipt {
    type Error = DecodeError;
    fn try_from(receipt: pb::Receipt) -> Result<Self> {
        let fate = match receipt.fate.ok_or(field("fate"))? {
            pb::receipt::Fate::Accepted(pb::Accepted { conversation, event, deliveries, position }) => {
                Fate::Accepted { conversation, event, deliveries, position }
            }
            pb::receipt::Fate::Duplicate(bytes) => Fate::Duplicate(id(&bytes)?),
            pb::receipt::Fate::Refused(reason) => Fate::Refused(reason.try_into()?),
        };
        Ok(Receipt { id: id(&receipt.id)?, fate })
    }
}

fn receipts(all: Vec<pb::Receipt>) -> Result<Vec<Receipt>> {
    all.into_iter().map(TryInto::try_into).collect()
}

impl From<&Outcome> for pb::outcome::Body {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Sent(all) => Self::Sent(pb::Receipts { receipts: all.iter().map(Into::into).collect() }),
            Outcome::Started(all) => Self::Started(pb::Deliveries { deliveries: all.clone() }),
            Outcome::Settled { settlement, receipts } => {
                let settlement = match settlement.clone() {
                    Settlement::Done => pb::settled::Settlement::Done(true),
                    Settlement::Retry { at_ms } => pb::settled::Settlement::RetryAtMs(at_ms),
                    Settlement::Dead { reason } => pb::settled::Settlement::Dead(reason),
                };
                let receipts = receipts.iter().map(Into::into).collect();
                Self::Settled(pb::Settled { settlement: Some(settlement), receipts })
            }
            Outcome::Stale => Self::Stale(true),
            Outcome::Ticked { changed, more } => Self::Ticked(pb::Ticked { changed: *changed, more: *more }),
            Outcome::Moved(all) => Self::Moved(pb::Deliveries { deliveries: all.clone() }),
            Outcome::Subscribed { position } => Self::Subscribed(pb::Subscribed { position: *position }),
            Outcome::Keyed(key) => Self::Keyed(key.as_bytes().to_vec()),
            Outcome::Refused(reason) => Self::Refused(reason.into()),
        }
    }
}

impl TryFrom<pb::outcome::Body> for Outcome {
    type Error = DecodeError;
    fn try_from(body: pb::outcome::Body) -> Result<Self> {
        use pb::outcome::Body;
        Ok(match body {
            Body::Sent(all) => Outcome::Sent(receipts(all.receipts)?),
            Body::Started(all) => Outcome::Started(all.deliveries),
            Body::Settled(settled) => Outcome::Settled {
                settlement: match settled.settlement.ok_or(field("settlement"))? {
                    pb::settled::Settlement::Done(_) => Settlement::Done,
                    pb::settled::Settlement::RetryAtMs(at_ms) => Settlement::Retry { at_ms },
                    pb::settled::Settlement::Dead(reason) => Settlement::Dead { reason },
                },
                receipts: receipts(settled.receipts)?,
            },
            Body::Stale(_) => Outcome::Stale,
            Body::Ticked(pb::Ticked { changed, more }) => Outcome::Ticked { changed, more },
            Body::Moved(all) => Outcome::Moved(all.deliveries),
            Body::Subscribed(pb::Subscribed { position }) => Outcome::Subscribed { position },
            Body::Keyed(key) => Outcome::Keyed(super::key_id(&key)?),
            Body::Refused(reason) => Outcome::Refused(reason.try_into()?),
        })
    }
}
