//! A turn that waited for answers goes on, on the node that leads its workspace's shard now.

use std::collections::BTreeSet;

use caxton_messages::EndedWait;
use caxton_messages::acl::{Address, Body, Message, Performative};
use caxton_messages::mailbox::Action;
use caxton_proto::WorkspaceId;
use caxton_proto::shard::{self, TurnRecord};
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::super::kept::TurnStatus;
use super::super::memory::Asker;
use super::super::replay::{ReplayedTurn, replay};
use super::super::{InvokeError, Invoker, TurnEnd};
use crate::agent::events::Events;
use crate::agent::journal::{Journal, Step};
use crate::agent::turn::Returned;
use crate::agent::world::World;
use crate::conversations::Documents;
use crate::recalled::UNTRUSTED_MARK;

impl Invoker {
    /// Hands the answers of a wait to its turn, which goes on to its end or to the next wait. The wait is over in the log once
    /// the turn has kept what it was told.
    pub async fn go_on_with(&self, wait: &EndedWait, term: u64) -> Result<(), InvokeError> {
        let (workspace, turn) = (&wait.workspace, wait.turn.as_str());
        let _place = self.admit()?;
        let _alone = self.alone_with(workspace, turn).await;
        let documents = match self.known(workspace, turn).await? {
            // It was lost before it was kept, or stopped: who answered is heard as in any other message.
            TurnStatus::Nothing => return self.end_wait(wait, term, false).await,
            TurnStatus::Over(record) => return self.end_wait(wait, term, has_answer(&record, &wait.way)).await,
            TurnStatus::Waits(_, documents) | TurnStatus::Begun(documents) => documents,
        };
        match self.tell_answers(wait, term, documents).await {
            Ok(()) | Err(InvokeError::Turn { .. }) => Ok(()),
            // It never goes on: who answered is heard as in any other message.
            Err(error @ (InvokeError::Replay(_) | InvokeError::PutDown(_))) => {
                self.end_wait(wait, term, false).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn tell_answers(&self, wait: &EndedWait, term: u64, documents: Documents) -> Result<(), InvokeError> {
        let ReplayedTurn { beginning, mut run, shelf, ledger, next, taken_up: _ } = replay(documents)?;
        let way: Vec<String> = wait.way.split('\n').map(str::to_owned).collect();
        let wait = &self.of_senders(wait).await?;
        let Ok(step) = run.take_answer(&way, Returned::good(table(wait))) else {
            debug!(turn = wait.turn, "a turn has the answers that it waited for already");
            return self.end_wait(wait, term, true).await;
        };
        let workspace = beginning.workspace.clone();
        let _in_turn = self.alone(&workspace, &beginning.conversation).await;
        let mut settled = self.catalogs().settled();
        // What is not loaded by then fails below.
        _ = tokio::time::timeout(self.limits().takeover_wait, settled.wait_for(|settled| *settled)).await;
        let world = self.world(&workspace, Asker::new(&beginning.subject, &beginning.conversation, &beginning.turn))?;
        self.models().budgets().take_over(crate::llm::models::today(), &workspace, &ledger.all());
        let underway = self.taken_up(beginning, shelf, ledger, term, next).await?;
        let kept = match step {
            Step::Returned { .. } | Step::TakenUp { .. } => underway.journal.now(step).await,
            Step::Answered { .. } | Step::Delegated { .. } | Step::Decided { .. } => {
                return Err(InvokeError::Unfinished);
            }
        };
        if kept.is_err() {
            return Err(self.lost(&underway).await);
        }
        self.end_wait(wait, term, true).await?;
        let ended = match world.agent(&run.agent).await {
            Ok(agent) => {
                let events = Events::none().noted(std::sync::Arc::clone(&underway.log));
                self.finish(underway, world, agent, run, events).await
            }
            Err(problem) => {
                run.turn.give_up(problem.to_string());
                self.record(&underway, world.revision(), run).await
            }
        };
        ended.map(drop)
    }

    /// The wait with those of its answers that are what their senders sent, where the workspace asks for that.
    async fn of_senders(&self, wait: &EndedWait) -> Result<EndedWait, InvokeError> {
        let mailboxes = self.shared.parts.mailboxes.of(&wait.workspace);
        let mut answers = Vec::with_capacity(wait.answers.len());
        for answer in &wait.answers {
            let (of, sent_ms) = (&answer.submission, answer.sent_ms);
            let verified = mailboxes.verify(&wait.workspace, Some(&wait.owner), of, sent_ms).await;
            match verified.map_err(|error| InvokeError::Mailbox(Box::new(error)))? {
                Ok(_) => answers.push(answer.clone()),
                Err(forgery) => {
                    warn!(workspace = %wait.workspace, id = %of.id, reason = %forgery, "an answer is not told to the turn that waits");
                }
            }
        }
        Ok(EndedWait { answers, ..wait.clone() })
    }

    async fn end_wait(&self, wait: &EndedWait, term: u64, taken: bool) -> Result<(), InvokeError> {
        let (owner, turn, way) = (wait.owner.clone(), wait.turn.clone(), wait.way.clone());
        let resume = Action::Resume { owner, turn, way, taken };
        let written = self.shared.parts.mailboxes.of(&wait.workspace).write(&wait.workspace, term, resume).await;
        written.map(drop).map_err(|error| InvokeError::Mailbox(Box::new(error)))
    }

    /// Waits a while for a turn that waits for answers, and for no person, unless a message began it.
    pub(in crate::invoke) async fn or_answers(
        &self,
        workspace: &WorkspaceId,
        ended: Result<TurnEnd, InvokeError>,
    ) -> Result<TurnEnd, InvokeError> {
        let Ok(TurnEnd::Waiting { turn, approvals, .. }) = &ended else { return ended };
        if !approvals.is_empty() || super::super::mail_turns::is_mailed(turn) {
            return ended;
        }
        let turn = turn.clone();
        let mut applied = self.shard(workspace).group().applied();
        let until = tokio::time::Instant::now() + self.limits().turn_wait;
        loop {
            applied.borrow_and_update();
            match self.known(workspace, &turn).await? {
                TurnStatus::Over(record) => return self.again(workspace, *record).await,
                TurnStatus::Waits(waiting, _) if !waiting.approvals.is_empty() => {
                    return Ok(super::super::kept::waits(*waiting));
                }
                TurnStatus::Nothing | TurnStatus::Waits(..) | TurnStatus::Begun(_) => {}
            }
            let more = tokio::select! {
                changed = applied.changed() => changed.is_ok(),
                () = tokio::time::sleep_until(until) => false,
            };
            if !more {
                return ended;
            }
        }
    }
}

/// Whether a turn that is over was told the answers of the call at the end of this way.
fn has_answer(record: &TurnRecord, way: &str) -> bool {
    let first = way.split('\n').next().unwrap_or_default();
    let answers = |message: &shard::Message| match message {
        shard::Message::Tool { call, .. } => call == first,
        shard::Message::System { .. } | shard::Message::User { .. } | shard::Message::Assistant { .. } => false,
    };
    record.messages.iter().any(answers)
}

/// What a model reads of the answers: proposals and other answers by who sent them, and who sent none.
fn table(wait: &EndedWait) -> String {
    let (mut proposals, mut answers) = (Vec::new(), Vec::new());
    let mut answered: BTreeSet<String> = BTreeSet::new();
    for message in wait.answers.iter().map(|answer| &answer.submission.message) {
        let content = said(message);
        // The platform answers for whoever cannot.
        let from = match (&message.sender, content["receiver"].as_str()) {
            (Some(Address::Platform), Some(receiver)) => receiver.to_owned(),
            (Some(sender), _) => sender.to_string(),
            (None, _) => String::new(),
        };
        match message.performative {
            Performative::Agree => continue,
            Performative::Inform if message.sender == Some(Address::Platform) => continue,
            Performative::Propose => proposals.push(json!({
                "from": from, "cost": content["cost"], "deadline": content["deadline"], "content": content,
            })),
            performative => {
                answers.push(json!({ "from": from, "performative": performative.name(), "content": content }));
            }
        }
        answered.insert(from);
    }
    // The cheapest first; what names no cost comes last.
    proposals.sort_by(|one, other| {
        let cost = |bid: &Value| bid["cost"].as_f64().unwrap_or(f64::INFINITY);
        cost(one).total_cmp(&cost(other))
    });
    let silent: Vec<String> =
        wait.awaited.iter().map(ToString::to_string).filter(|name| !answered.contains(name)).collect();
    json!({
        "conversation": wait.conversation, "proposals": proposals, "answers": answers, "silent": silent,
        "mark": UNTRUSTED_MARK,
    })
    .to_string()
}

/// The content of a message as JSON.
fn said(message: &Message) -> Value {
    match message.content.as_ref().map(|content| (&content.body, &content.media_type)) {
        None => Value::Null,
        Some((Body::Text(text), _)) => serde_json::from_str::<Value>(text)
            .ok()
            .filter(Value::is_object)
            .unwrap_or_else(|| Value::String(text.clone())),
        Some((Body::Json(text), _)) => serde_json::from_str(text).unwrap_or_default(),
        Some((Body::Bytes(bytes), kind)) => Value::String(format!("({} bytes of {kind})", bytes.len())),
        Some((Body::Artifact { digest, bytes }, kind)) => {
            Value::String(format!("(artifact {digest}, {bytes} bytes of {kind})"))
        }
    }
}

#[cfg(test)]
mod tests {
    use caxton_messages::AwaitedAnswer;
    use caxton_messages::acl::{Content, MessageId};
    use caxton_messages::mailbox::Submission;

    use super::*;

    #[test]
    fn bids_come_as_a_table_with_who_refused_and_who_was_silent() {
        let address = |text: &str| text.parse::<Address>().expect("an address");
        let answer = |performative, from: &str, content: Content| {
            let message = Message {
                content: Some(content),
                ..Message::new(performative, [address("ann")]).stamped(address(from))
            };
            AwaitedAnswer { sent_ms: 1, submission: Submission::new(MessageId::from_bytes([0; 16]), message) }
        };
        let wait = EndedWait {
            workspace: "w".parse().expect("a name"),
            owner: address("ann"),
            turn: "t".to_owned(),
            way: "call_1_0".to_owned(),
            conversation: "c".to_owned(),
            awaited: ["bob", "carl", "dan", "eve", "fay"].map(address).into(),
            timed_out: true,
            answers: vec![
                answer(Performative::Propose, "fay", Content::json("{\"cost\":7.5}")),
                answer(Performative::Propose, "bob", Content::text("{\"cost\": 5, \"deadline\": \"friday\"}")),
                answer(Performative::Refuse, "carl", Content::text("too busy")),
                answer(
                    Performative::Refuse,
                    "platform:",
                    Content::json("{\"receiver\":\"dan\",\"reason\":\"it broke\"}"),
                ),
                answer(Performative::Inform, "platform:", Content::json("{\"event\":\"deadline\"}")),
            ],
        };
        let table: Value = serde_json::from_str(&table(&wait)).expect("JSON");
        assert_eq!(table["proposals"][0]["cost"], 5);
        assert_eq!(
            (&table["proposals"][0]["from"], &table["proposals"][0]["deadline"]),
            (&json!("bob"), &json!("friday"))
        );
        assert_eq!(table["answers"][0], json!({ "from": "carl", "performative": "refuse", "content": "too busy" }));
        assert_eq!((&table["answers"][1]["from"], &table["silent"]), (&json!("dan"), &json!(["eve"])));
        assert_eq!(table["mark"], UNTRUSTED_MARK);
    }
}
