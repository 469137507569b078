//! THE REQUEST WALK: from a message to its answer. Read [`Invoker::message`] as the table of contents.
//!
//! Nothing here happens without an [`Access`]; nothing is answered before it is recorded.

mod check;

mod asked;

mod error;

mod durable;

mod journal;

mod ending;

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
use caxton_proto::shard::{Approval, Route};
use caxton_proto::{AgentName, WorkspaceId};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use asked::Asked;
pub use check::ClientTurn;
use check::Keyed;
pub use error::InvokeError;
pub use seams::{Routes, Toolbox};
pub use world::AgentsCache;

use crate::activity::{Activity, TurnLog};
use crate::agent::Agent;
use crate::agent::attachments::{Shelf, Visible};
use crate::agent::driver::{Driver, Ledger, Progress, Run};
use crate::agent::events::Events;
use crate::agent::health::AgentHealth;
use crate::agent::journal::Journal;
use crate::agent::world::World;
use crate::api::messages::{MessageAnswer, MessageRequest, TurnEvent};
use crate::auth::Access;
use crate::capability::Load;
use crate::catalog::{Catalog, Catalogs};
use crate::conversations::Conversations;
use crate::llm::models::Models;
use crate::llm::{ToolCall, reasons};
use crate::shard::{NotHere, Shard};
use journal::{BEGIN_AFTER, TurnJournal};
use waiting::{Beginning, Known};
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
    asked: Asked,
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
        approvals: Vec<Approval>,
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
    /// A digest of what was asked, where the sender gave it a key.
    asked: Option<String>,
    ledger: Ledger,
    journal: Arc<TurnJournal>,
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
            asked: Asked::default(),
            conversations: Mutex::default(),
        };
        Invoker { shared: Arc::new(shared) }
    }

    /// Answers a message. One that is sent again with the key of an earlier one gets the answer of that.
    pub async fn message(
        &self,
        access: &Access,
        workspace: &WorkspaceId,
        request: MessageRequest,
        client: ClientTurn,
        events: Events,
    ) -> Result<Ended, InvokeError> {
        access.require(Role::Caller, workspace)?;
        let ended = self.message_here(access, workspace, request, client, events).await;
        self.or_follow(workspace, ended).await
    }

    async fn message_here(
        &self,
        access: &Access,
        workspace: &WorkspaceId,
        request: MessageRequest,
        client: ClientTurn,
        events: Events,
    ) -> Result<Ended, InvokeError> {
        let keyed = Keyed::of(workspace, access.subject(), &request);
        let checked = check::check(request)?;
        let _permit = self.admit()?;
        let term = self.lead(workspace).await?;
        let turn = keyed.as_ref().map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), |it| it.turn.clone());
        let _asker = keyed.as_ref().map(|keyed| self.shared.asked.ask(keyed)).transpose()?;
        let _alone = self.alone_with(workspace, &turn).await;
        if let Some(keyed) = &keyed
            && let Some(ended) = self.earlier(workspace, keyed, term, &events).await
        {
            return ended;
        }
        let _in_turn = self.alone(workspace, &checked.conversation).await;
        let world = self.world(workspace)?;
        let history = self.history(workspace, &checked, &client).await?;
        let log = self.log(workspace, &checked.conversation, &turn, access.subject());
        let routed = self.route(&world, &checked).await;
        let (agent, route) = routed.inspect_err(|error| log.refused(reasons(error)))?;

        let events = events.noted(Arc::clone(&log));
        let (conversation, shelf) = (checked.conversation.clone(), Shelf::default());
        let opening = checked.into_opening(&shelf, client, history)?;
        let brought = opening.visible.clone();
        let run = Run::begin(&agent, opening, &shelf);
        let beginning = Beginning {
            workspace: workspace.clone(),
            conversation,
            turn,
            subject: access.subject().to_owned(),
            route,
            brought,
            files: shelf.shared(),
            time_ms: crate::auth::now_ms(),
            asked: keyed.map(|keyed| keyed.asked),
            run: run.clone(),
        };
        let underway = self.begun(beginning, shelf, log, term);
        let routed = || TurnEvent::Routed {
            conversation: underway.conversation.clone(),
            turn: underway.turn.clone(),
            agent: agent.manifest.name.clone(),
            route: underway.route.clone().into(),
        };
        events.emit(routed).await;
        self.finish(underway, world, agent, run, events).await
    }

    /// What became of a message that was sent before with the same key; nothing where none was, or nothing is known of it.
    async fn earlier(
        &self,
        workspace: &WorkspaceId,
        keyed: &Keyed,
        term: u64,
        events: &Events,
    ) -> Option<Result<Ended, InvokeError>> {
        let same = |asked: Option<&str>| asked.is_none_or(|asked| asked == keyed.asked);
        let reused = || Some(Err(InvokeError::KeyReused { turn: keyed.turn.clone() }));
        match self.known(workspace, &keyed.turn).await {
            Err(error) => Some(Err(error)),
            Ok(Known::Nothing) => None,
            Ok(Known::Over(record)) => {
                let asked = record.ending.as_ref().and_then(|ending| ending.request_digest.as_deref());
                if same(asked) { Some(self.again(workspace, *record).await) } else { reused() }
            }
            Ok(Known::Waits(waiting, documents)) => match waiting::asked(&documents) {
                Ok(asked) if same(asked.as_deref()) => Some(Ok(waiting::waits(*waiting))),
                Ok(_) => reused(),
                Err(error) => Some(Err(error)),
            },
            Ok(Known::Begun(documents)) => match waiting::asked(&documents) {
                Ok(asked) if same(asked.as_deref()) => Some(self.go_on(documents, term, events.clone()).await),
                Ok(_) => reused(),
                Err(error) => Some(Err(error)),
            },
        }
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
            journal: Arc::clone(&underway.journal) as Arc<dyn Journal>,
        };
        let journal = Arc::clone(&underway.journal);
        // A turn that takes its time is kept from its beginning on, whatever its steps are.
        let begins = async move {
            tokio::time::sleep(BEGIN_AFTER).await;
            // Where this fails, the next step or the record does too, and says why.
            _ = journal.all().await;
            std::future::pending::<std::convert::Infallible>().await
        };
        let progress = tokio::select! {
            biased;
            progress = driver.drive(&mut run, &agent) => progress,
            never = begins => match never {},
        };
        match progress {
            Progress::Waiting => self.put_down(&underway, &run).await,
            Progress::Over => self.record(&underway, agent.revision, run).await,
            Progress::Lost => Err(self.lost(&underway).await),
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
        // What is kept has to be a number.
        let score = if found.score.is_finite() { found.score } else { 0.0 };
        Ok((agent, Route::Capability { capability: found.capability, score }))
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

    fn begun(&self, beginning: Beginning, shelf: Shelf, log: Arc<TurnLog>, term: u64) -> Underway {
        let shard = self.conversations().of(&beginning.workspace);
        let journal = |beginning| Arc::new(TurnJournal::new(shard, beginning, term));
        underway(beginning, (shelf, Ledger::default()), log, term, journal)
    }

    /// Waits until nobody else goes on with the turn.
    async fn alone_with(&self, workspace: &WorkspaceId, turn: &str) -> OwnedMutexGuard<()> {
        // No conversation has such an id.
        self.alone(workspace, &format!("turn {turn}")).await
    }

    /// Waits until no other turn of the conversation is under way.
    async fn alone(&self, workspace: &WorkspaceId, conversation: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut held = self.shared.conversations.lock().unwrap_or_else(PoisonError::into_inner);
            if held.len() > 8 * TURNS_MAX {
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
        self.shared.parts.conversations.shards().of(workspace)
    }

    /// The term under which this node answers for the workspace.
    pub async fn lead(&self, workspace: &WorkspaceId) -> Result<u64, InvokeError> {
        self.shard(workspace).lead(LEAD_WAIT).await.map_err(|NotHere { leader }| InvokeError::Elsewhere { leader })
    }
}

fn underway(
    beginning: Beginning,
    (shelf, ledger): (Shelf, Ledger),
    log: Arc<TurnLog>,
    term: u64,
    journal: impl FnOnce(Beginning) -> Arc<TurnJournal>,
) -> Underway {
    Underway {
        workspace: beginning.workspace.clone(),
        conversation: beginning.conversation.clone(),
        turn: beginning.turn.clone(),
        subject: beginning.subject.clone(),
        route: beginning.route.clone(),
        asked: beginning.asked.clone(),
        brought: beginning.brought.clone(),
        shelf,
        log,
        ledger,
        term,
        journal: journal(beginning),
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
                let approvals = approvals.into_iter().map(Into::into).collect();
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
