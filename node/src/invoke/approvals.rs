//! Calls that a person decides on: what waits, putting a turn down until then, and going on after the decision.

use std::sync::Arc;

use caxton_proto::shard::{Approval, DocumentKind, JsonText, Suspension};
use caxton_proto::{Digest, WorkspaceId};

use super::kept::subject;
use super::memory::Asker;
use super::replay::{ReplayedTurn, replay};
use super::{InvokeError, Invoker, TurnEnd, Underway};
use crate::agent::events::Events;
use crate::agent::journal::{Journal, Step};
use crate::agent::run::{Pending, Run};
use crate::agent::turn::{Action, Decision};
use crate::agent::world::World;
use crate::authz::{Converse, DecideApprovals, Permit, ReadConversations};
use crate::conversations::{ReadError, State};

impl Invoker {
    /// What waits for a person in a workspace, the oldest first: in turns of one's own, or in everybody's for whoever may read
    /// them.
    pub async fn approvals(&self, permit: &Permit<Converse>) -> Result<Vec<Approval>, InvokeError> {
        let workspace = permit.workspace();
        let name = workspace.clone();
        if permit.also(ReadConversations).is_ok() {
            let waiting = self.conversations().read(workspace, move |state| state.waiting(&name)).await?;
            return Ok(waiting.into_iter().flat_map(|waiting| waiting.approvals).collect());
        }
        let with_journals = move |state: &State| {
            let all = state.waiting(&name)?.into_iter();
            all.map(|it| Ok((state.kept(&name, &it.turn, DocumentKind::Journal)?, it)))
                .collect::<Result<Vec<_>, ReadError>>()
        };
        let mut own = Vec::new();
        for (documents, waiting) in self.conversations().read(workspace, with_journals).await? {
            if subject(&documents)? == permit.subject() {
                own.extend(waiting.approvals);
            }
        }
        Ok(own)
    }

    /// Decides on a call that waits, and goes on with its turn to the end or to the next call that waits.
    pub async fn decide(
        &self,
        permit: &Permit<DecideApprovals>,
        id: &str,
        decision: Decision,
        events: Events,
    ) -> Result<TurnEnd, InvokeError> {
        let workspace = permit.workspace();
        let decided = self.decide_here(workspace, id, decision, events).await;
        self.or_follow(workspace, decided).await
    }

    async fn decide_here(
        &self,
        workspace: &WorkspaceId,
        id: &str,
        decision: Decision,
        events: Events,
    ) -> Result<TurnEnd, InvokeError> {
        let _place = self.admit()?;
        let term = self.lead(workspace).await?;
        let none = || InvokeError::NoApproval { workspace: workspace.clone(), id: id.to_owned() };
        let turn = id.split_once('.').map(|(turn, _)| turn.to_owned()).ok_or_else(none)?;
        // One decision on a turn at a time: the second finds what the first left.
        let _alone = self.alone_with(workspace, &turn).await;
        let name = workspace.clone();
        let kept = move |state: &State| match state.waits(&name, &turn)? {
            Some(_) => state.kept(&name, &turn, DocumentKind::Journal).map(Some),
            None => Ok(None),
        };
        let documents = self.conversations().read(workspace, kept).await?.ok_or_else(none)?;
        let ReplayedTurn { beginning, mut run, shelf, ledger, next, taken_up: _ } = replay(documents)?;
        let way = run.pending().into_iter().map(|pending| pending.way);
        let way = way.into_iter().find(|way| approval_id(&beginning.turn, way) == id).ok_or_else(none)?;
        run.decided(&way, decision.clone()).map_err(|_| none())?;
        let asker = Asker::new(&beginning.subject, &beginning.conversation, &beginning.turn);
        let world = self.world(workspace, asker)?;
        let agent = world.agent(&run.agent).await?;
        let underway = self.taken_up(beginning, shelf, ledger, term, next);
        if underway.journal.now(Step::Decided { way, decision }).await.is_err() {
            return Err(self.lost(&underway).await);
        }
        let events = events.noted(Arc::clone(&underway.log));
        self.finish(underway, world, agent, run, events).await
    }

    /// Lets a run wait for a person.
    pub(super) async fn put_down(&self, underway: &Underway, run: &Run) -> Result<TurnEnd, InvokeError> {
        if underway.journal.all().await.is_err() {
            return Err(self.lost(underway).await);
        }
        let approvals = approvals_of(underway, run);
        let suspension = Suspension {
            workspace: underway.workspace.clone(),
            turn: underway.turn.clone(),
            conversation: underway.conversation.clone(),
            term: underway.term,
            approvals: approvals.clone(),
        };
        self.taken(underway, self.conversations().of(&underway.workspace).suspend(suspension).await).await?;
        let (conversation, turn) = (underway.conversation.clone(), underway.turn.clone());
        match approvals.is_empty() {
            true => underway.log.awaits(run.agent.as_str()),
            false => underway.log.waits(&approvals),
        }
        Ok(TurnEnd::Waiting { conversation, turn, approvals })
    }
}

/// What there is to decide.
fn approvals_of(underway: &Underway, run: &Run) -> Vec<Approval> {
    let since = crate::conversations::rfc3339(crate::authn::now_ms());
    let info = |pending: Pending| {
        let arguments = match &pending.call.action {
            Action::Tool { arguments, .. } => serde_json::Value::Object(arguments.clone()),
            Action::AskCapability(_) | Action::ListCapabilities(_) | Action::Refuse { .. } => serde_json::Value::Null,
        };
        Approval {
            id: approval_id(&underway.turn, &pending.way),
            workspace: underway.workspace.clone(),
            conversation: underway.conversation.clone(),
            agent: pending.agent,
            tool: pending.call.action.tool().to_owned(),
            arguments: JsonText::of(&arguments),
            since: since.clone(),
        }
    };
    run.pending().into_iter().map(info).collect()
}

/// Calls have ids that models wrote; what a person types is a digest of them.
fn approval_id(turn: &str, way: &[String]) -> String {
    let parts = way.iter().flat_map(|call| [call.as_bytes(), b"\0"]);
    format!("{turn}.{}", Digest::of_parts(parts).short())
}
