//! Calls that a person decides on: what waits, putting a turn down until then, and going on after the decision.
//!
//! A decision is about what was shown: the id of an approval is made of the call's place, its arguments and the tool's files.
//! When the tool was deployed anew in between, an approval of the old one makes no call; it is asked for again.

use std::sync::Arc;

use caxton_proto::shard::{Approval, DocumentKind, JsonText, Suspension};
use caxton_proto::{Digest, WorkspaceId};
use serde_json::{Value, json};
use tracing::info;

use super::kept::subject;
use super::memory::Asker;
use super::replay::{ReplayedTurn, replay};
use super::world::CatalogWorld;
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
            Some(waits) => Ok(Some((waits, state.kept(&name, &turn, DocumentKind::Journal)?))),
            None => Ok::<_, ReadError>(None),
        };
        let (waits, documents) = self.conversations().read(workspace, kept).await?.ok_or_else(none)?;
        let ReplayedTurn { beginning, mut run, shelf, ledger, next, taken_up: _ } = replay(documents)?;
        let asker = Asker::new(&beginning.subject, &beginning.conversation, &beginning.turn);
        let world = self.world(workspace, asker)?;
        let pending = run.pending();
        let ids = ids_of(&beginning.turn, &world, &pending).await;
        // What was shown stands in the order of what is pending.
        let shown = waits.approvals.iter().map(|shown| shown.id.as_str()).take(pending.len());
        let is_same = ids.iter().any(|now| now == id);
        let place = ids.iter().position(|now| now == id).or_else(|| shown.into_iter().position(|shown| shown == id));
        let way = place.and_then(|place| pending.get(place)).map(|pending| pending.way.clone()).ok_or_else(none)?;
        if !is_same && decision == Decision::Approved {
            let underway = self.taken_up(beginning, shelf, ledger, term, next).await?;
            info!(%workspace, turn = underway.turn, "a call that was approved waits anew: its tool is not the one that was shown");
            return self.put_down(&underway, &world, &run).await;
        }
        run.decided(&way, decision.clone()).map_err(|_| none())?;
        let agent = world.agent(&run.agent).await?;
        let underway = self.taken_up(beginning, shelf, ledger, term, next).await?;
        if underway.journal.now(Step::Decided { way, decision }).await.is_err() {
            return Err(self.lost(&underway).await);
        }
        let events = events.noted(Arc::clone(&underway.log));
        self.finish(underway, world, agent, run, events).await
    }

    /// Lets a run wait for a person.
    pub(super) async fn put_down(
        &self,
        underway: &Underway,
        world: &CatalogWorld,
        run: &Run,
    ) -> Result<TurnEnd, InvokeError> {
        if underway.journal.all().await.is_err() {
            return Err(self.lost(underway).await);
        }
        let approvals = approvals_of(underway, world, run).await;
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
async fn approvals_of(underway: &Underway, world: &CatalogWorld, run: &Run) -> Vec<Approval> {
    let since = crate::conversations::rfc3339(crate::authn::now_ms());
    let pending = run.pending();
    let ids = ids_of(&underway.turn, world, &pending).await;
    let info = |(pending, id): (Pending, String)| Approval {
        id,
        workspace: underway.workspace.clone(),
        conversation: underway.conversation.clone(),
        agent: pending.agent,
        tool: pending.call.action.tool().to_owned(),
        arguments: JsonText::of(&arguments_of(&pending.call.action)),
        since: since.clone(),
    };
    pending.into_iter().zip(ids).map(info).collect()
}

/// The arguments of a call, as a person is shown them.
fn arguments_of(action: &Action) -> Value {
    match action {
        Action::Tool { arguments, .. } => Value::Object(arguments.clone()),
        Action::AskCapability(ask) => json!({ "request": ask.request, "capability": ask.capability }),
        Action::ListCapabilities(list) => json!({ "about": list.about }),
        Action::Refuse { .. } => Value::Null,
    }
}

/// The ids of what is pending, in its order, for the tools as they are deployed now.
async fn ids_of(turn: &str, world: &CatalogWorld, pending: &[Pending]) -> Vec<String> {
    let mut ids = Vec::with_capacity(pending.len());
    for one in pending {
        let agent = world.agent(&one.agent).await.ok();
        let tool = one.call.action.tool();
        let server = agent.as_deref().and_then(|agent| agent.tool(tool)).map(|tool| &tool.server);
        ids.push(approval_id(turn, one, world.files_of(server)));
    }
    ids
}

/// Calls have ids that models wrote; what a person types is a digest of them, with what they are to decide on.
fn approval_id(turn: &str, pending: &Pending, tool: Digest) -> String {
    let arguments = arguments_of(&pending.call.action).to_string();
    let way = pending.way.iter().flat_map(|call| [call.as_bytes(), b"\0"]);
    let shown = [tool.as_bytes().as_slice(), arguments.as_bytes()];
    format!("{turn}.{}", Digest::of_parts(way.chain(shown)).short())
}
