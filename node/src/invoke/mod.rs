//! THE REQUEST WALK: from a message to its answer. Read [`Invoker::message`] as the table of contents.
//!
//! Nothing here happens without an [`Access`]; nothing is answered before it is recorded.

mod check;

mod error;

mod waiting;

mod world;

pub mod seams;

pub mod takeover;

mod bind;

mod chat_tool;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use caxton_proto::log::Role;
use caxton_proto::{AgentName, WorkspaceId};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

pub use check::ClientTurn;
pub use error::InvokeError;
pub use seams::{Routes, Toolbox};
pub use world::AgentsCache;

use crate::activity::{Activity, TurnLog};
use crate::agent::Agent;
use crate::agent::attachments::{Shelf, Visible};
use crate::agent::driver::{AgentHealth, Driver, Events, Ledger, Progress, Run};
use crate::agent::turn::{Next, Outcome};
use crate::agent::world::World;
use crate::api::messages::{ApprovalInfo, MessageAnswer, MessageRequest, Route, TurnEvent};
use crate::auth::Access;
use crate::capability::Load;
use crate::catalog::{Catalog, Catalogs};
use crate::conversations::log::Turn as TurnRecord;
use crate::conversations::{Conversations, NotHere, Shard};
use crate::llm::models::Models;
use crate::llm::{ToolCall, reasons};
use waiting::PutDown;
use world::CatalogWorld;

/// What earlier turns of a conversation may add to a request, in bytes.
pub const HISTORY_BYTES_MAX: usize = 96 << 10;
/// How long a message waits for the shard of its workspace to be led.
const LEAD_WAIT: Duration = Duration::from_secs(3);
/// Turns at the same time; more are refused.
pub const TURNS_MAX: usize = 1_024;

/// Answers messages. A clone is a handle on the same.
#[derive(Clone)]
pub struct Invoker {
    shared: Arc<Shared>,
}

/// What an invoker works with.
pub struct Parts {
    /// What is served.
    pub catalogs: Catalogs,
    /// What was said.
    pub conversations: Conversations,
    /// The models.
    pub models: Arc<Models>,
    /// Which agent can do what.
    pub routes: Arc<dyn Routes>,
    /// The tools.
    pub toolbox: Arc<dyn Toolbox>,
    /// What happens, for people who look.
    pub activity: Activity,
    /// What each agent has under way.
    pub load: Load,
}

struct Shared {
    parts: Parts,
    agents: AgentsCache,
    health: Arc<AgentHealth>,
    turns: Arc<Semaphore>,
    /// One turn at a time in a conversation.
    conversations: Mutex<HashMap<(WorkspaceId, String), Weak<tokio::sync::Mutex<()>>>>,
}

/// How a message ended.
#[derive(Debug)]
pub enum Ended {
    /// With an answer, which is recorded.
    Answered(Box<MessageAnswer>),
    /// With calls for the sender to make; nothing is recorded before the sender comes back with their results.
    SenderCalls(Box<SenderCalls>),
    /// A person has to decide first.
    Waiting {
        /// The conversation.
        conversation: String,
        /// The turn.
        turn: String,
        /// What there is to decide.
        approvals: Vec<ApprovalInfo>,
    },
}

/// Calls that the sender of a message is to make.
#[derive(Debug)]
pub struct SenderCalls {
    /// Who calls.
    pub agent: AgentName,
    /// What was said with it.
    pub text: String,
    /// The calls.
    pub calls: Vec<ToolCall>,
    /// What it took so far.
    pub usage: crate::llm::Usage,
}

/// A turn on its way.
struct Underway {
    workspace: WorkspaceId,
    conversation: String,
    turn: String,
    subject: String,
    route: Route,
    shelf: Shelf,
    log: Arc<TurnLog>,
    /// The files that came with the message.
    brought: Visible,
    ledger: Ledger,
    /// The term under which this node leads the workspace's shard.
    term: u64,
    began: Instant,
    /// Milliseconds before it was put down, if it was.
    before_ms: u64,
}

impl Invoker {
    /// An invoker of these parts.
    pub fn new(parts: Parts) -> Invoker {
        let shared = Shared {
            parts,
            agents: AgentsCache::default(),
            health: Arc::default(),
            turns: Arc::new(Semaphore::new(TURNS_MAX)),
            conversations: Mutex::default(),
        };
        Invoker { shared: Arc::new(shared) }
    }

    /// Answers a message.
    pub async fn message(
        &self,
        access: &Access,
        workspace: &WorkspaceId,
        request: MessageRequest,
        client: ClientTurn,
        events: Events,
    ) -> Result<Ended, InvokeError> {
        access.require(Role::Caller, workspace)?;
        let checked = check::check(request)?;
        let _permit = self.admit()?;
        let term = self.lead(workspace).await?;
        let _alone = self.alone(workspace, &checked.conversation).await;
        let world = self.world(workspace)?;
        let history = self.history(workspace, &checked, &client).await?;
        let turn = uuid::Uuid::now_v7().simple().to_string();
        let log = self.log(workspace, &checked.conversation, &turn, access.subject());
        let routed = self.route(&world, &checked).await;
        let (agent, route) = routed.inspect_err(|error| log.refused(reasons(error)))?;

        let events = events.noted(Arc::clone(&log));
        let mut underway = underway(workspace, &checked, route.clone(), log, term);
        let opening = checked.into_opening(&mut underway.shelf, client, history)?;
        underway.brought.clone_from(&opening.visible);
        let (conversation, turn) = (underway.conversation.clone(), underway.turn.clone());
        let name = agent.manifest.name.clone();
        events.emit(|| TurnEvent::Routed { conversation, turn, agent: name, route }).await;

        let run = Run::begin(&agent, opening, &underway.shelf);
        self.finish(underway, world, agent, run, events).await
    }

    /// Drives a run as far as it goes, records what came of it, and only then tells.
    async fn finish(
        &self,
        underway: Underway,
        world: Arc<CatalogWorld>,
        agent: Arc<Agent>,
        mut run: Run,
        events: Events,
    ) -> Result<Ended, InvokeError> {
        let driver = Driver {
            models: Arc::clone(&self.shared.parts.models),
            world,
            health: Arc::clone(&self.shared.health),
            events,
            shelf: underway.shelf.clone(),
            ledger: underway.ledger.clone(),
            turn_id: underway.turn.as_str().into(),
            load: self.shared.parts.load.clone(),
        };
        match driver.drive(&mut run, &agent).await {
            Progress::Waiting => self.put_down(&underway, run).await,
            Progress::Over => self.record(&underway, &agent, run).await,
        }
    }

    /// Records a run that is over.
    async fn record(&self, underway: &Underway, agent: &Agent, run: Run) -> Result<Ended, InvokeError> {
        let Next::Over(outcome) = run.turn.next() else { return Err(InvokeError::Unfinished) };
        let spent = run.turn.spent();
        let duration_ms = underway.before_ms.saturating_add(underway.began.elapsed().as_millis() as u64);
        let failure = match outcome {
            Outcome::Answered { .. } => None,
            Outcome::Failed { failure } => Some(failure.clone()),
            Outcome::SenderCalls { text, calls } => {
                let (agent, text, calls) = (run.agent.clone(), text.clone(), calls.clone());
                return Ok(Ended::SenderCalls(Box::new(SenderCalls { agent, text, calls, usage: spent.usage })));
            }
        };
        let outcome_name = failure.as_ref().map_or("answered", |failure| failure.code());
        metrics::histogram!("caxton_turn_duration_seconds", "outcome" => outcome_name).record(duration_ms as f64 / 1e3);
        let record = TurnRecord {
            workspace: underway.workspace.clone(),
            conversation: underway.conversation.clone(),
            turn: underway.turn.clone(),
            agent: run.agent.clone(),
            subject: underway.subject.clone(),
            time_ms: crate::auth::now_ms(),
            messages: run.said(),
            attachments: underway.shelf.infos(&run.visible),
            usage: spent.usage,
            spent: underway.ledger.all(),
            duration_ms,
            revision: agent.revision,
            failure: failure.as_ref().map(ToString::to_string),
            ending: None,
            term: underway.term,
        };
        self.shard(&underway.workspace).record(record).await?;
        let turn = underway.turn.as_str();
        let why = failure.as_ref().map(ToString::to_string);
        underway.log.ended(run.agent.as_str(), why, spent.usage.total(), duration_ms);
        info!(workspace = %underway.workspace, agent = %run.agent, turn, outcome = outcome_name, duration_ms, "turn over");
        match (failure, outcome) {
            (Some(failure), _) => Err(InvokeError::Turn { agent: run.agent.clone(), failure }),
            (None, Outcome::Answered { text, cut }) => {
                let made = run.visible.difference(&underway.brought).filter_map(|name| underway.shelf.get(name));
                Ok(Ended::Answered(Box::new(MessageAnswer {
                    conversation: underway.conversation.clone(),
                    turn: underway.turn.clone(),
                    agent: run.agent.clone(),
                    route: underway.route.clone(),
                    text: text.clone(),
                    cut: *cut,
                    attachments: made.map(|file| (*file).clone()).collect(),
                    usage: spent.usage,
                    steps: spent.steps,
                    duration_ms,
                    revision: agent.revision,
                })))
            }
            (None, _) => Err(InvokeError::Unfinished),
        }
    }

    /// Which agent answers, and why that one.
    async fn route(
        &self,
        world: &Arc<CatalogWorld>,
        checked: &check::Checked,
    ) -> Result<(Arc<Agent>, Route), InvokeError> {
        if let Some(name) = &checked.agent {
            return Ok((world.agent(name).await?, Route::Address));
        }
        let wanted = checked.capability.as_deref().unwrap_or(&checked.text);
        let found = world.find(wanted, &[]).await?;
        let agent = world.agent(&found.agent).await?;
        Ok((agent, Route::Capability { capability: found.capability, score: found.score }))
    }

    async fn history(
        &self,
        workspace: &WorkspaceId,
        checked: &check::Checked,
        client: &ClientTurn,
    ) -> Result<Vec<crate::llm::Message>, InvokeError> {
        if client.keeps_history || !checked.continues {
            return Ok(Vec::new());
        }
        let conversations = &self.shared.parts.conversations;
        Ok(conversations.history(workspace, &checked.conversation, HISTORY_BYTES_MAX).await?)
    }

    /// Where the steps of a turn are noted.
    fn log(&self, workspace: &WorkspaceId, conversation: &str, turn: &str, subject: &str) -> Arc<TurnLog> {
        let activity = self.shared.parts.activity.clone();
        Arc::new(TurnLog::new(activity, workspace, conversation, turn, subject))
    }

    /// The workspace as it is served now; the turn keeps this revision to its end.
    fn world(&self, workspace: &WorkspaceId) -> Result<Arc<CatalogWorld>, InvokeError> {
        let catalog = self.catalog(workspace)?;
        Ok(Arc::new(CatalogWorld::new(catalog, Arc::clone(&self.shared))))
    }

    fn catalog(&self, workspace: &WorkspaceId) -> Result<Arc<Catalog>, InvokeError> {
        let catalog = self.shared.parts.catalogs.get(workspace);
        catalog.ok_or_else(|| InvokeError::NoWorkspace { workspace: workspace.clone() })
    }

    fn admit(&self) -> Result<OwnedSemaphorePermit, InvokeError> {
        Arc::clone(&self.shared.turns).try_acquire_owned().map_err(|_| InvokeError::Busy { turns_max: TURNS_MAX })
    }

    /// Waits until no other turn of the conversation is under way.
    async fn alone(&self, workspace: &WorkspaceId, conversation: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut held = self.shared.conversations.lock().unwrap_or_else(PoisonError::into_inner);
            if held.len() > 2 * TURNS_MAX {
                held.retain(|_, lock| lock.strong_count() > 0);
            }
            let key = (workspace.clone(), conversation.to_owned());
            match held.get(&key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    held.insert(key, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }

    /// The conversations, for those who list and read them.
    pub fn conversations(&self) -> &Conversations {
        &self.shared.parts.conversations
    }

    /// How busy it is: turns under way over the most there may be, 0.0 to 1.0.
    pub fn load(&self) -> f64 {
        1.0 - self.shared.turns.available_permits() as f64 / TURNS_MAX as f64
    }

    /// The models.
    pub fn models(&self) -> &Arc<Models> {
        &self.shared.parts.models
    }

    /// What is served.
    pub fn catalogs(&self) -> &Catalogs {
        &self.shared.parts.catalogs
    }

    fn shard(&self, workspace: &WorkspaceId) -> &Shard {
        self.shared.parts.conversations.of(workspace)
    }

    /// The term under which this node answers for the workspace.
    pub async fn lead(&self, workspace: &WorkspaceId) -> Result<u64, InvokeError> {
        self.shard(workspace).lead(LEAD_WAIT).await.map_err(|NotHere { leader }| InvokeError::Elsewhere { leader })
    }

    async fn put_down(&self, underway: &Underway, run: Run) -> Result<Ended, InvokeError> {
        let put_down = PutDown::of(underway, run);
        let approvals = put_down.approvals();
        let text = serde_json::to_string(&put_down).map_err(crate::conversations::RecordError::from)?;
        let waiting = crate::conversations::log::Waiting {
            workspace: underway.workspace.clone(),
            turn: underway.turn.clone(),
            conversation: underway.conversation.clone(),
            term: underway.term,
            approvals: approvals.clone(),
        };
        let (turn, workspace, kind) = (&underway.turn, &underway.workspace, crate::conversations::log::Kept::Journal);
        let keeping = crate::conversations::Keeping { workspace, turn, term: underway.term, kind };
        self.shard(workspace).keep(&keeping, &[text], 0).await?;
        self.shard(workspace).wait(waiting).await?;
        let (conversation, turn) = (underway.conversation.clone(), underway.turn.clone());
        underway.log.waits(&approvals);
        Ok(Ended::Waiting { conversation, turn, approvals })
    }
}

fn underway(workspace: &WorkspaceId, checked: &check::Checked, route: Route, log: Arc<TurnLog>, term: u64) -> Underway {
    Underway {
        workspace: workspace.clone(),
        conversation: checked.conversation.clone(),
        turn: log.turn().to_owned(),
        subject: log.subject().to_owned(),
        route,
        shelf: Shelf::default(),
        log,
        brought: Visible::new(),
        ledger: Ledger::default(),
        term,
        began: Instant::now(),
        before_ms: 0,
    }
}

impl Ended {
    /// The last event of a stream.
    pub fn event(self) -> Option<TurnEvent> {
        match self {
            Ended::Answered(answer) => Some(TurnEvent::Answered(answer)),
            Ended::Waiting { conversation, turn, approvals } => {
                Some(TurnEvent::Waiting { conversation, turn, approvals })
            }
            Ended::SenderCalls(_) => None,
        }
    }
}

/// A failure is written to the log once, where the walk ends.
pub fn log_failure(workspace: &WorkspaceId, error: &InvokeError) {
    if error.is_ours() {
        warn!(%workspace, reason = %reasons(error), "a message was not answered");
    }
}
