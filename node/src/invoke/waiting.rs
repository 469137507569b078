//! Turns as they are kept in the shard's log: how one begins, how one that waits for a person goes on, and how one goes on
//! that another node began.

use std::sync::Arc;

use caxton_proto::shard::{self, Approval, DocumentKind, JsonText, Route, Suspension, TurnRecord};
use caxton_proto::{Digest, NodeId, WorkspaceId};
use caxton_raft::{Group, ReadError as GroupError};

use super::journal::TurnJournal;
use super::memory::Asker;
use super::{Ended, InvokeError, Invoker, Underway};
use crate::agent::attachments::{Attachment, Shelf, Visible};
use crate::agent::driver::{Ledger, Pending, Run};
use crate::agent::events::Events;
use crate::agent::journal::{Doubt, Journal, Step};
use crate::agent::turn::{Action, Decision, Returned};
use crate::agent::world::World;
use crate::authz::{Converse, DecideApprovals, Permit, ReadConversations};
use crate::conversations::{Documents, ReadError, State};

/// How often a turn is taken up by another leader before it is given up: it may be what ends the nodes.
const TAKE_UPS_MAX: u32 = 3;

/// How a turn began: with the steps that came after it, all that is needed to go on.
#[derive(Debug, Clone)]
pub(super) struct Beginning {
    pub(super) workspace: WorkspaceId,
    pub(super) conversation: String,
    pub(super) turn: String,
    pub(super) subject: String,
    pub(super) route: Route,
    pub(super) brought: Visible,
    pub(super) files: Vec<Arc<Attachment>>,
    /// When, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// A digest of what was asked, where the sender gave it a key.
    pub(super) asked: Option<String>,
    pub(super) run: Run,
}

/// What a shard's state knows of a turn.
pub(super) enum Known {
    Nothing,
    Over(Box<TurnRecord>),
    /// It waits for a person, with its journal.
    Waits(Box<Suspension>, Documents),
    /// It began, and is not over.
    Begun(Documents),
}

/// A turn as it was when its last step was kept.
struct Replayed {
    beginning: Beginning,
    run: Run,
    shelf: Shelf,
    ledger: Ledger,
    taken_up: u32,
    /// The number of the journal's next piece.
    next: u32,
}

impl Underway {
    /// Another node goes on with the turn, if it knows of it. `known` says that it may.
    pub(super) fn adrift(&self, known: bool, why: Option<crate::conversations::RecordError>) -> InvokeError {
        let unkept = (!known).then_some(self.term);
        InvokeError::Adrift { turn: self.turn.clone(), unkept, why: why.map(Box::new) }
    }
}

impl Invoker {
    pub(super) async fn known(&self, workspace: &WorkspaceId, turn: &str) -> Result<Known, InvokeError> {
        let (name, turn) = (workspace.clone(), turn.to_owned());
        let known = move |state: &State| -> Result<Known, ReadError> {
            if let Some(record) = state.turn(&name, &turn)? {
                return Ok(Known::Over(Box::new(record)));
            }
            let waiting = state.waits(&name, &turn)?;
            let documents = state.kept(&name, &turn, DocumentKind::Journal)?;
            if let Some(waiting) = waiting {
                return Ok(Known::Waits(Box::new(waiting), documents));
            }
            Ok(if documents.whole.is_empty() { Known::Nothing } else { Known::Begun(documents) })
        };
        Ok(self.conversations().of(workspace).read_few(known).await?)
    }

    /// How a turn ended, or what it waits for; waits a while for one that is under way.
    pub async fn turn(&self, permit: &Permit<Converse>, turn: &str) -> Result<Ended, InvokeError> {
        let workspace = permit.workspace();
        let none = || InvokeError::NoTurn { workspace: workspace.clone(), turn: turn.to_owned() };
        // Whoever may not read it is not told that it is there.
        let readable = |subject: &str| subject == permit.subject() || permit.also(ReadConversations).is_ok();
        let underway = || InvokeError::Underway { turn: turn.to_owned() };
        let alone = tokio::time::timeout(self.limits().turn_wait, self.alone_with(workspace, turn)).await;
        let _alone = alone.map_err(|_| underway())?;
        match self.known(workspace, turn).await? {
            Known::Nothing => Err(none()),
            Known::Over(record) if !readable(&record.subject) => Err(none()),
            Known::Waits(_, documents) | Known::Begun(documents) if !readable(&subject(&documents)?) => Err(none()),
            Known::Over(record) => self.again(workspace, *record).await,
            Known::Waits(waiting, _) => Ok(waits(*waiting)),
            // Whoever leads the shard is about to take it up.
            Known::Begun(_) => Err(underway()),
        }
    }

    /// Waits until the state shows how a turn ended that another leader goes on with. Of one that ran under the term `unkept`
    /// nothing was kept but perhaps its record: where a later leader's log has none, it was not done and can be asked for again.
    pub(super) async fn follow(
        &self,
        workspace: &WorkspaceId,
        turn: &str,
        unkept: Option<u64>,
    ) -> Result<Ended, InvokeError> {
        let group = self.shard(workspace).group();
        let mut applied = group.applied();
        let until = tokio::time::Instant::now() + self.limits().turn_wait;
        let (mut decided, mut is_decided) = (std::pin::pin!(decided(group, unkept)), false);
        loop {
            applied.borrow_and_update();
            match self.known(workspace, turn).await? {
                Known::Over(record) => return self.again(workspace, *record).await,
                Known::Waits(waiting, _) => return Ok(waits(*waiting)),
                Known::Nothing if is_decided => return Err(elsewhere(group.status().borrow().leader)),
                Known::Nothing | Known::Begun(_) => {}
            }
            let more = tokio::select! {
                () = decided.as_mut(), if !is_decided => {
                    is_decided = true;
                    true
                }
                changed = applied.changed() => changed.is_ok(),
                () = tokio::time::sleep_until(until) => false,
            };
            if !more {
                return Err(InvokeError::Underway { turn: turn.to_owned() });
            }
        }
    }

    /// Goes on with a turn that another leader of the shard began.
    pub(super) async fn resume(&self, workspace: &WorkspaceId, turn: &str, term: u64) -> Result<(), InvokeError> {
        let _alone = self.alone_with(workspace, turn).await;
        match self.known(workspace, turn).await? {
            Known::Begun(documents) => self.go_on(documents, term, Events::none()).await.map(drop),
            Known::Nothing | Known::Over(_) | Known::Waits(..) => Ok(()),
        }
    }

    /// The same, for whoever is alone with the turn.
    pub(super) async fn go_on(&self, documents: Documents, term: u64, events: Events) -> Result<Ended, InvokeError> {
        let Replayed { beginning, mut run, shelf, ledger, taken_up, next } = replay(documents)?;
        let workspace = beginning.workspace.clone();
        let _in_turn = self.alone(&workspace, &beginning.conversation).await;
        let mut settled = self.catalogs().settled();
        // What is not loaded by then fails below.
        _ = tokio::time::timeout(self.limits().takeover_wait, settled.wait_for(|settled| *settled)).await;
        let asker = Asker::new(&beginning.subject, &beginning.conversation, &beginning.turn);
        let world = self.world(&workspace, asker)?;
        self.models().budgets().take_over(crate::llm::models::today(), &workspace, &ledger.all());
        let underway = self.taken_up(beginning, shelf, ledger, term, next);
        let log = Arc::clone(&underway.log);
        underway.journal.later(Step::TakenUp { term });
        if taken_up >= TAKE_UPS_MAX {
            run.turn.give_up(format!("{taken_up} nodes began to go on with it, and none of them came to its end"));
        }
        for doubt in run.doubts() {
            if let Some(returned) = unknown(&*world, &doubt).await {
                underway.journal.later(run.settle(&doubt, returned).map_err(InvokeError::Replay)?);
            }
        }
        // Before anything is done: a turn that ends one node after the other is given up in the end.
        if underway.journal.all().await.is_err() {
            return Err(self.lost(&underway).await);
        }
        match world.agent(&run.agent).await {
            Ok(agent) => self.finish(underway, world, agent, run, events.noted(log)).await,
            Err(problem) => {
                run.turn.give_up(problem.to_string());
                self.record(&underway, world.revision(), run).await
            }
        }
    }

    fn taken_up(&self, beginning: Beginning, shelf: Shelf, ledger: Ledger, term: u64, next: u32) -> Underway {
        let log = self.log(&beginning.workspace, &beginning.conversation, &beginning.turn, &beginning.subject);
        let shard = self.conversations().of(&beginning.workspace);
        let journal = |beginning| Arc::new(TurnJournal::resumed(shard, beginning, term, next));
        self.underway(beginning, (shelf, ledger), log, term, journal)
    }

    /// A turn as it was when its last step was kept, for whoever ends it here.
    pub(super) fn put_back(&self, documents: Documents, term: u64) -> Result<(Underway, Run), InvokeError> {
        let Replayed { beginning, run, shelf, ledger, next, taken_up: _ } = replay(documents)?;
        Ok((self.taken_up(beginning, shelf, ledger, term, next), run))
    }

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
    ) -> Result<Ended, InvokeError> {
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
    ) -> Result<Ended, InvokeError> {
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
        let Replayed { beginning, mut run, shelf, ledger, next, taken_up: _ } = replay(documents)?;
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
    pub(super) async fn put_down(&self, underway: &Underway, run: &Run) -> Result<Ended, InvokeError> {
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
        underway.log.waits(&approvals);
        Ok(Ended::Waiting { conversation, turn, approvals })
    }

    /// This node must not go on with the turn. Where nobody else knows of it, nothing was done.
    pub(super) async fn lost(&self, underway: &Underway) -> InvokeError {
        let leader = self.shard(&underway.workspace).group().status().borrow().leader;
        let why = match underway.journal.trouble() {
            Some(super::journal::Trouble::Log(error)) => Some(error),
            Some(super::journal::Trouble::Overtaken) | None => None,
        };
        if underway.journal.is_known().await { underway.adrift(true, why) } else { elsewhere(leader) }
    }

    /// The answer of a turn that another node goes on with, if this one is told how it ended.
    pub(super) async fn or_follow(
        &self,
        workspace: &WorkspaceId,
        ended: Result<Ended, InvokeError>,
    ) -> Result<Ended, InvokeError> {
        match ended {
            Err(InvokeError::Adrift { turn, unkept, why }) => {
                let reason = why.as_deref().map(|why| crate::llm::reasons(why)).unwrap_or_default();
                tracing::info!(%workspace, turn, reason, "another node goes on with a turn");
                self.follow(workspace, &turn, unkept).await
            }
            ended => ended,
        }
    }
}

/// Waits until this node has applied all that counts of what leaders up to `term` proposed: a later one leads, and whatever its
/// log does not have is in no log that counts (Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm*,
/// sections 5.4.1 and 8). Without a term there is nothing to decide, and it waits for ever.
async fn decided(group: &Group, term: Option<u64>) {
    let Some(term) = term else { return std::future::pending().await };
    let mut status = group.status();
    loop {
        // It is closed when the group has stopped, which the question below finds out.
        _ = status.wait_for(|status| status.term > term && status.leader.is_some()).await;
        match group.catch_up().await {
            Ok(()) => return,
            Err(GroupError::NotLeader { .. } | GroupError::Unavailable) => {}
            // The node ends.
            Err(GroupError::Fatal { .. }) => std::future::pending().await,
        }
    }
}

fn elsewhere(leader: Option<NodeId>) -> InvokeError {
    InvokeError::Elsewhere { leader }
}

pub(super) fn waits(waiting: Suspension) -> Ended {
    let Suspension { conversation, turn, approvals, .. } = waiting;
    Ended::Waiting { conversation, turn, approvals }
}

/// A digest of what a turn was asked that is not over, where its sender gave it a key.
pub(super) fn asked(documents: &Documents) -> Result<Option<String>, InvokeError> {
    let Some(first) = documents.whole.first() else { return Ok(None) };
    Ok(shard::Beginning::decode(first).map_err(InvokeError::PutDown)?.request_digest)
}

/// Whose turn it is that is not over.
pub(super) fn subject(documents: &Documents) -> Result<String, InvokeError> {
    let first = documents.whole.first().ok_or(InvokeError::Unfinished)?;
    Ok(shard::Beginning::decode(first).map_err(InvokeError::PutDown)?.subject)
}

fn replay(documents: Documents) -> Result<Replayed, InvokeError> {
    let mut documents_of = documents.whole.into_iter();
    let first = documents_of.next().ok_or(InvokeError::Unfinished)?;
    let beginning = Beginning::from(shard::Beginning::decode(&first).map_err(InvokeError::PutDown)?);
    let steps: Result<Vec<Step>, _> = documents_of.map(|step| shard::Step::decode(&step).map(Step::from)).collect();
    let steps = steps.map_err(InvokeError::PutDown)?;
    let (shelf, ledger) = (Shelf::default(), Ledger::default());
    shelf.put_back(beginning.files.clone());
    let mut run = beginning.run.clone();
    let taken_up = run.replay(steps, &shelf, &ledger).map_err(InvokeError::Replay)?;
    Ok(Replayed { beginning, run, shelf, ledger, taken_up, next: documents.next })
}

/// What a model is told of a call that was perhaps made; nothing where it can simply be made again.
async fn unknown(world: &dyn World, doubt: &Doubt) -> Option<Returned> {
    let agent = world.agent(&doubt.agent).await.ok()?;
    let tool = doubt.call.action.tool();
    if agent.tool(tool)?.repeatable {
        return None;
    }
    Some(Returned::failed(format!(
        "the node that called `{tool}` stopped before the call returned: it is not known whether the call was made. Do not \
         assume either; look, if you can, or say so."
    )))
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

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
