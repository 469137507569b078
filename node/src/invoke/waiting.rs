//! Turns that wait for a person: put down as plain data, listed, decided on, and taken up again.

use std::sync::Arc;
use std::time::Instant;

use caxton_proto::log::Role;
use caxton_proto::{Digest, WorkspaceId};
use serde::{Deserialize, Serialize};

use super::{Ended, InvokeError, Invoker, Underway};
use crate::activity::TurnLog;
use crate::agent::attachments::{Shelf, Visible};
use crate::agent::driver::{Events, Ledger, Pending, Run};
use crate::agent::turn::{Action, Decision};
use crate::agent::world::World;
use crate::api::messages::{ApprovalInfo, Attachment, Route};
use crate::auth::Access;
use crate::conversations::State;
use crate::conversations::log::Kept;
use crate::llm::budget::Spent;

/// A turn that was put down: all that is needed to go on with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PutDown {
    workspace: WorkspaceId,
    conversation: String,
    turn: String,
    subject: String,
    route: Route,
    brought: Visible,
    files: Vec<Attachment>,
    spent: Vec<(caxton_proto::AgentName, Spent)>,
    spent_ms: u64,
    since_ms: u64,
    run: Run,
}

impl PutDown {
    pub(super) fn of(underway: &Underway, run: Run) -> PutDown {
        PutDown {
            workspace: underway.workspace.clone(),
            conversation: underway.conversation.clone(),
            turn: underway.turn.clone(),
            subject: underway.subject.clone(),
            route: underway.route.clone(),
            brought: underway.brought.clone(),
            files: underway.shelf.all(),
            spent: underway.ledger.all(),
            spent_ms: underway.before_ms.saturating_add(underway.began.elapsed().as_millis() as u64),
            since_ms: crate::auth::now_ms(),
            run,
        }
    }

    /// What there is to decide.
    pub(super) fn approvals(&self) -> Vec<ApprovalInfo> {
        let info = |pending: Pending| {
            let arguments = match &pending.call.action {
                Action::Tool { arguments, .. } => serde_json::Value::Object(arguments.clone()),
                Action::AskCapability(_) | Action::ListCapabilities(_) | Action::Refuse { .. } => {
                    serde_json::Value::Null
                }
            };
            ApprovalInfo {
                id: approval_id(&self.turn, &pending.way),
                workspace: self.workspace.clone(),
                conversation: self.conversation.clone(),
                agent: pending.agent,
                tool: pending.call.action.tool().to_owned(),
                arguments,
                since: crate::conversations::rfc3339(self.since_ms),
            }
        };
        self.run.pending().into_iter().map(info).collect()
    }

    fn take_up(self, log: Arc<TurnLog>, term: u64) -> Result<(Underway, Run), InvokeError> {
        let shelf = Shelf::default();
        for file in self.files {
            shelf.add(file).map_err(|full| InvokeError::Invalid { problems: vec![full.to_string()] })?;
        }
        let underway = Underway {
            workspace: self.workspace,
            conversation: self.conversation,
            turn: self.turn,
            subject: self.subject,
            route: self.route,
            shelf,
            log,
            brought: self.brought,
            ledger: Ledger::of(self.spent),
            term,
            began: Instant::now(),
            before_ms: self.spent_ms,
        };
        Ok((underway, self.run))
    }
}

impl Invoker {
    /// What waits for a person in a workspace, the oldest first.
    pub async fn approvals(&self, access: &Access, workspace: &WorkspaceId) -> Result<Vec<ApprovalInfo>, InvokeError> {
        access.require(Role::Viewer, workspace)?;
        let name = workspace.clone();
        let waiting = self.conversations().read(workspace, move |state| state.waiting(&name)).await?;
        Ok(waiting.into_iter().flat_map(|waiting| waiting.approvals).collect())
    }

    /// Decides on a call that waits, and goes on with its turn to the end or to the next call that waits.
    pub async fn decide(
        &self,
        access: &Access,
        workspace: &WorkspaceId,
        id: &str,
        decision: Decision,
        events: Events,
    ) -> Result<Ended, InvokeError> {
        access.require(Role::Deployer, workspace)?;
        let _permit = self.admit()?;
        let none = || InvokeError::NoApproval { workspace: workspace.clone(), id: id.to_owned() };
        let turn = id.split_once('.').map(|(turn, _)| turn.to_owned()).ok_or_else(none)?;
        // One decision on a turn at a time: the second finds what the first left.
        let _alone = self.alone(workspace, &format!("turn {turn}")).await;
        let name = workspace.clone();
        let kept = move |state: &State| match state.waits(&name, &turn)? {
            Some(_) => state.kept(&name, &turn, Kept::Journal).map(|kept| kept.whole.into_iter().next()),
            None => Ok(None),
        };
        let term = self.lead(workspace).await?;
        let text = self.conversations().read(workspace, kept).await?.ok_or_else(none)?;
        let mut put_down: PutDown = serde_json::from_str(&text).map_err(InvokeError::PutDown)?;
        let way = put_down.run.pending().into_iter().map(|pending| pending.way);
        let way = way.into_iter().find(|way| approval_id(&put_down.turn, way) == id).ok_or_else(none)?;
        put_down.run.decided(&way, decision).map_err(|_| none())?;
        let log = self.log(workspace, &put_down.conversation, &put_down.turn, &put_down.subject);
        let events = events.noted(Arc::clone(&log));
        let (underway, run) = put_down.take_up(log, term)?;
        let world = self.world(workspace)?;
        let agent = world.agent(&run.agent).await?;
        self.finish(underway, world, agent, run, events).await
    }
}

/// Calls have ids that models wrote; what a person types is a digest of them.
fn approval_id(turn: &str, way: &[String]) -> String {
    let parts = way.iter().flat_map(|call| [call.as_bytes(), b"\0"]);
    format!("{turn}.{}", Digest::of_parts(parts).short())
}
