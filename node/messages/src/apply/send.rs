//! A message is taken in: whole, or not at all.

use caxton_proto::acl::{Address, Body, Content, MessageId, Performative};
use caxton_proto::mailbox::{Fate, Reason, Receipt, Submission};
use rusqlite::{OptionalExtension, Result, params};

use super::deliver::EncodedMessage;
use super::{About, Run, quoted};
use crate::protocol::NotUnderstood;
use crate::tables::{count, given};

impl Run<'_> {
    pub(super) fn send(&self, submission: &Submission) -> Result<Receipt> {
        let id = submission.id;
        Ok(Receipt { id, fate: self.accept(submission)? })
    }

    /// What becomes of a message. One that is refused has changed nothing.
    pub(super) fn accept(&self, submission: &Submission) -> Result<Fate> {
        if let Err(reason) = self.admissible(submission) {
            return Ok(Fate::Refused(reason));
        }
        if let Some(known) = self.known(submission)? {
            return Ok(Fate::Duplicate(known));
        }
        let message = &submission.message;
        let own = submission.id.to_string();
        let conversation = message.conversation_id.as_deref().unwrap_or(&own);
        let step = match self.step(conversation, message)? {
            Ok(step) => step,
            Err(reason) => return Ok(Fate::Refused(reason)),
        };
        if let Err(full) = self.boxes(&message.receivers)? {
            return Ok(Fate::Refused(full));
        }
        let encoded = EncodedMessage::of(submission);
        for receiver in &message.receivers {
            if let Err(full) = self.room(receiver, &encoded)? {
                return Ok(Fate::Refused(full));
            }
        }
        let row = self.keep(&encoded, message.receivers.len())?;
        let (mut deliveries, mut position) = (0, None);
        for receiver in &message.receivers {
            match receiver {
                Address::Topic(topic) => position = Some(given(self.publish(row, topic)?)),
                receiver => {
                    self.deliver(row, &encoded, receiver, None)?;
                    deliveries += 1;
                }
            }
        }
        self.keep_step(&step)?;
        let event = given(self.note_event(conversation, submission)?);
        if step.late {
            self.reject_late(conversation, submission)?;
        }
        Ok(Fate::Accepted { conversation: conversation.to_owned(), event, deliveries, position })
    }

    /// What the message alone decides.
    fn admissible(&self, submission: &Submission) -> std::result::Result<(), Reason> {
        submission.check()?;
        if submission.expires_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
            return Err(Reason::Expired);
        }
        let message = &submission.message;
        for receiver in &message.receivers {
            match receiver {
                Address::Agent(_) | Address::Subject(_) | Address::Topic(_) => {}
                Address::Elsewhere { .. } if !matches!(message.sender, Some(Address::Agent(_))) => {
                    let field = format!(
                        "receiver {receiver} is in another workspace, to which only agents write; use a token of that one"
                    );
                    return Err(Reason::Field { field });
                }
                Address::Elsewhere { .. }
                    if matches!(&message.content, Some(Content { body: Body::Artifact { .. }, .. })) =>
                {
                    let field =
                        format!("content is an artifact, which stays in its workspace: {receiver} could not read it");
                    return Err(Reason::Field { field });
                }
                Address::Elsewhere { .. } => {}
                Address::Capability(_) | Address::Broadcast | Address::Platform => {
                    return Err(Reason::Field { field: format!("receiver {receiver} was not resolved by its node") });
                }
            }
        }
        Ok(())
    }

    /// The message that this one was sent as before: by its id, or by its sender's key.
    pub(super) fn known(&self, submission: &Submission) -> Result<Option<MessageId>> {
        let sender = submission.message.sender.as_ref().map(Address::to_string);
        let sql = "SELECT id FROM mailbox_message WHERE workspace = ?1 AND id = ?2
            UNION ALL SELECT id FROM mailbox_message WHERE workspace = ?1 AND sender = ?3 AND key = ?4";
        let id: Option<[u8; 16]> = self
            .db
            .prepare_cached(sql)?
            .query_row(params![self.workspace(), submission.id.as_bytes(), sender, submission.key], |row| row.get(0))
            .optional()?;
        Ok(id.map(MessageId::from_bytes))
    }

    /// The row of a message that so many mailboxes and topics hold.
    pub(super) fn keep(&self, encoded: &EncodedMessage<'_>, held: usize) -> Result<i64> {
        let submission = encoded.submission;
        let row = count(self.db, "message")?;
        let sender = submission.message.sender.as_ref().map(Address::to_string).unwrap_or_default();
        let sql = "INSERT INTO mailbox_message (message, workspace, id, sender, key, sent_ms, held, body)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let id = submission.id.as_bytes();
        self.db.prepare_cached(sql)?.execute(params![
            row,
            self.workspace(),
            id,
            sender,
            submission.key,
            self.now_ms,
            held as i64,
            encoded.body
        ])?;
        Ok(row)
    }

    /// One more holds a message that somebody holds.
    pub(super) fn hold(&self, message: i64) -> Result<()> {
        let sql = "UPDATE mailbox_message SET held = held + 1 WHERE message = ?1";
        self.db.prepare_cached(sql)?.execute([message]).map(drop)
    }

    /// Somebody holds the message no longer. What nobody holds is gone; its sender's key is known a little longer.
    pub(super) fn let_go(&self, message: i64) -> Result<()> {
        let sql = "DELETE FROM mailbox_message WHERE message = ?1 AND held <= 1 AND key IS NULL";
        if self.db.prepare_cached(sql)?.execute([message])? > 0 {
            return Ok(());
        }
        let sql = "UPDATE mailbox_message SET held = held - 1, gone_ms = CASE WHEN held <= 1 THEN ?2 END,
            body = CASE WHEN held <= 1 THEN x'' ELSE body END WHERE message = ?1";
        self.db.prepare_cached(sql)?.execute(params![message, self.now_ms]).map(drop)
    }

    /// A proposal that came after the deadline is answered, since every proposer gets an answer.
    fn reject_late(&self, conversation: &str, submission: &Submission) -> Result<()> {
        let message = &submission.message;
        let Some(sender) = &message.sender else { return Ok(()) };
        let about = About {
            key: submission.id.as_bytes(),
            conversation,
            protocol: message.protocol.as_deref(),
            in_reply_to: message.reply_with.as_deref(),
        };
        let why = "{\"reason\":\"it came after the deadline\"}".to_owned();
        self.tell(sender, Performative::RejectProposal, &about, why)
    }

    /// A receiver's own message was refused: it is kept where it would have gone, as a dead letter. A mailbox that is full keeps
    /// a limited number of them; of the rest, the receipt alone says that they were refused.
    pub(super) fn keep_refused(&self, submission: &Submission, reason: &Reason) -> Result<()> {
        let message = &submission.message;
        let has_box = |to: &&Address| matches!(to, Address::Agent(_) | Address::Elsewhere { .. } | Address::Subject(_));
        let boxes: Vec<_> = message.receivers.iter().filter(has_box).collect();
        if submission.check().is_err() || boxes.is_empty() || self.known(submission)?.is_some() {
            return Ok(());
        }
        let encoded = EncodedMessage::of(submission);
        let mut keeping = Vec::with_capacity(boxes.len());
        for receiver in boxes {
            if self.keeps_refused(receiver, &encoded)? {
                keeping.push(receiver);
            }
        }
        if !keeping.is_empty() {
            let row = self.keep(&encoded, keeping.len())?;
            for receiver in keeping {
                self.deliver(row, &encoded, receiver, Some(&reason.to_string()))?;
            }
        }
        let (Reason::NotUnderstood { why }, Some(sender)) = (reason, &message.sender) else { return Ok(()) };
        let own = submission.id.to_string();
        let about = About {
            key: submission.id.as_bytes(),
            conversation: message.conversation_id.as_deref().unwrap_or(&own),
            protocol: message.protocol.as_deref(),
            in_reply_to: message.reply_with.as_deref(),
        };
        let content = format!("{{\"message\":\"{own}\",\"reason\":{}}}", quoted(why));
        self.tell(sender, Performative::NotUnderstood, &about, content)
    }
}

impl From<NotUnderstood> for Reason {
    fn from(refused: NotUnderstood) -> Reason {
        Reason::NotUnderstood { why: refused.to_string() }
    }
}
