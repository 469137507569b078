//! THE REQUEST WALK: from a message to its answer. Read [`Invoker::message`] as the table of contents.
//!
//! Nothing here happens without a [`Permit`]; nothing is answered before it is recorded.

mod check;

mod questions;

mod belongs;

mod sender_calls;

mod error;

mod durable;

mod earlier;

mod journal;

mod ending;

mod kept;

mod replay;

mod resume;

mod follow;

mod approvals;

mod world;

mod extract;
mod memory;
mod sharing;

pub mod mail;

mod mail_turns;

pub mod takeover;

pub mod retention;

pub mod deletion;

mod stop;

mod routing;

mod toolbox;

mod chat_tool;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use caxton_proto::shard::{Approval, Route};
use caxton_proto::{AgentName, WorkspaceId};
use caxton_raft::ReadError as GroupError;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, watch};

pub use check::ClientTurn;
use check::MessageKey;
pub use error::InvokeError;
pub use stop::StoppedTurn;
use stop::{RunningTurn, RunningTurns};
pub use world::AgentsCache;

use crate::activity::{Activity, TurnLog};
use crate::agent::Agent;
use crate::agent::attachments::{Shelf, Visible};
use crate::agent::driver::Driver;
use crate::agent::events::Events;
use crate::agent::health::{AgentHealth, AgentState};
use crate::agent::journal::Journal;
use crate::agent::ledger::Ledger;
use crate::agent::run::{Progress, Run};
use crate::agent::world::World;
use crate::api::messages::{MessageAnswer, MessageRequest, TurnEvent};
use crate::artifacts::Space;
use crate::authz::{Converse, Deploy, Permit};
use crate::capability::{Load, Router};
use crate::catalog::{Catalog, Catalogs};
use crate::config::Limits;
use crate::conversations::Conversations;
use crate::llm::models::Models;
use crate::llm::{ReplyOptions, ToolCall, reasons};
use crate::mailbox::Mailboxes;
use crate::memory::Memories;
use crate::memory_backend::MemoryBackends;
use crate::shard::{NotHere, Shard};
use crate::tools::Tools;
use extract::ExtractionQueue;
use journal::{BEGIN_AFTER, TurnJournal};
use kept::{Beginning, TurnStatus};
use memory::{Asker, exchange};
use questions::Questions;
use sender_calls::KeptCalls;
use world::CatalogWorld;

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
    /// What is remembered.
    pub memories: Memories,
    /// What finds it.
    pub memory_backends: MemoryBackends,
    /// What agents and people send each other.
    pub mailboxes: Mailboxes,
    /// Whether workspaces may share it.
    pub memory: crate::config::Memory,
    pub models: Arc<Models>,
    /// Which agent can do what.
    pub router: Router,
    pub tools: Tools,
    /// What happens, for people who look.
    pub activity: Activity,
    /// What each agent has under way.
    pub load: Load,
    /// How much may be under way, and for how long it is waited for.
    pub limits: Limits,
    /// The disk on which all of it is kept.
    pub space: Space,
}

struct Shared {
    parts: Parts,
    agents: AgentsCache,
    health: Arc<AgentHealth>,
    turns: Arc<Semaphore>,
    questions: Questions,
    kept_calls: KeptCalls,
    extractions: ExtractionQueue,
    running: RunningTurns,
    /// Counts the turns that ended here and that a message of a mailbox had begun.
    mailed_over: watch::Sender<u64>,
    /// One turn at a time in a conversation.
    conversations: Mutex<HashMap<(WorkspaceId, String), Weak<tokio::sync::Mutex<()>>>>,
}

/// How current a state has to be that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// All that was acknowledged before is in it.
    Current,
    /// What this node has, which may be behind.
    Stale,
}

/// How a message ended.
#[derive(Debug)]
pub enum TurnEnd {
    /// With an answer, which is recorded.
    Answered(Box<MessageAnswer>),
    /// With calls for the sender to make; nothing is recorded before the sender comes back with their results.
    SenderCalls(Box<SenderCalls>),
    /// A person has to decide first, or, where there is nothing to decide, others have to answer what the turn asked them.
    Waiting {
        conversation: String,
        turn: String,
        /// What there is to decide.
        approvals: Vec<Approval>,
    },
}

/// Calls that the sender of a message is to make.
#[derive(Debug, Clone)]
pub struct SenderCalls {
    pub agent: AgentName,
    /// What was said with it.
    pub text: String,
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
    /// The files of earlier turns of the conversation that it has too.
    earlier: Visible,
    /// What was said, as it was said; none for a turn that an older program began.
    request: Option<String>,
    /// It was taken up from what was kept of it.
    resumed: bool,
    /// A digest of what was asked, where the sender gave it a key.
    asked: Option<String>,
    ledger: Ledger,
    journal: Arc<TurnJournal>,
    /// Its place among the turns that run here.
    running: RunningTurn,
    /// The term under which this node leads the workspace's shard.
    term: u64,
    began: Instant,
    /// Milliseconds before it was put down, if it was.
    before_ms: u64,
}

impl Invoker {
    /// An invoker of these parts.
    pub fn new(parts: Parts) -> Invoker {
        let turns_max = usize::try_from(parts.limits.turns_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let agents_kept = usize::try_from(parts.limits.agents_kept).unwrap_or(usize::MAX);
        let shared = Shared {
            parts,
            agents: AgentsCache::new(agents_kept),
            health: Arc::default(),
            turns: Arc::new(Semaphore::new(turns_max)),
            questions: Questions::default(),
            kept_calls: KeptCalls::default(),
            extractions: ExtractionQueue::default(),
            running: RunningTurns::default(),
            mailed_over: watch::Sender::new(0),
            conversations: Mutex::default(),
        };
        Invoker { shared: Arc::new(shared) }
    }

    /// Answers a message. One that is sent again with the key of an earlier one gets the answer of that.
    pub async fn message(
        &self,
        permit: &Permit<Converse>,
        request: MessageRequest,
        client: ClientTurn,
        events: Events,
    ) -> Result<TurnEnd, InvokeError> {
        let ended = self.message_here(permit, request, client, events).await;
        let ended = self.or_follow(permit.workspace(), ended).await;
        self.or_answers(permit.workspace(), ended).await
    }

    async fn message_here(
        &self,
        permit: &Permit<Converse>,
        request: MessageRequest,
        mut client: ClientTurn,
        events: Events,
    ) -> Result<TurnEnd, InvokeError> {
        let (workspace, subject) = (permit.workspace(), permit.subject());
        let keyed = MessageKey::of(workspace, subject, &request, &client);
        let mut checked = check::check(request, client.mailed)?;
        let _place = self.admit()?;
        let term = self.lead(workspace).await?;
        let turn = keyed.as_ref().map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), |it| it.turn.clone());
        let _asker = keyed.as_ref().map(|keyed| self.shared.questions.ask(keyed)).transpose()?;
        let _alone = self.alone_with(workspace, &turn).await;
        if let Some(keyed) = &keyed
            && let Some(ended) = self.earlier(workspace, keyed, term, &events).await
        {
            return ended;
        }
        // What runs is finished on what is kept free for it; nothing new begins there.
        self.shared.parts.space.check(0)?;
        let _in_turn = self.alone(workspace, &checked.conversation).await;
        let asker = Asker::new(subject, &checked.conversation, &turn);
        let world = self.world(workspace, asker)?;
        let before = self.before(permit, &checked, &client).await?;
        let log = self.log(workspace, &checked.conversation, &turn, subject);
        let routed = self.route(&world, &checked, before.agent.as_ref()).await;
        let (agent, route) = routed.inspect_err(|error| log.refused(reasons(error)))?;
        honours(&agent, &client.options)?;
        client.speak_as_sender(permit.also(Deploy).is_ok());

        let events = events.noted(Arc::clone(&log));
        let (conversation, shelf) = (checked.conversation.clone(), Shelf::default());
        let request = checked.text.clone();
        let recalled = world.recall(&agent, &request).await;
        let left = client.left.take();
        let earlier = earlier::shelve(&shelf, before.files);
        let brought = checked.shelve(&shelf)?;
        let mut opening = checked.into_opening(client, before.messages, recalled);
        (opening.visible, opening.earlier, opening.lost) = (brought.clone(), earlier.clone(), before.lost);
        let run = Run::begin(&agent, opening, &shelf);
        let beginning = Beginning {
            workspace: workspace.clone(),
            conversation,
            turn,
            subject: subject.to_owned(),
            route,
            files: brought.iter().filter_map(|name| shelf.get(name)).collect(),
            brought,
            time_ms: crate::authn::now_ms(),
            asked: keyed.as_ref().map(|keyed| keyed.asked.clone()),
            request: Some(request),
            run: run.clone(),
        };
        let mut underway = self.begun(beginning, shelf, log, term);
        underway.earlier = earlier;
        underway.running.ends_with(left);
        let routed = || TurnEvent::Routed {
            conversation: underway.conversation.clone(),
            turn: underway.turn.clone(),
            agent: agent.manifest.name.clone(),
            route: underway.route.clone().into(),
        };
        events.emit(routed);
        let ended = self.finish(underway, world, agent, run, events).await;
        if let (Some(keyed), Ok(TurnEnd::SenderCalls(calls))) = (&keyed, &ended) {
            self.shared.kept_calls.keep(keyed, calls);
        }
        ended
    }

    /// What became of a message that was sent before with the same key; nothing where none was, or nothing is known of it.
    async fn earlier(
        &self,
        workspace: &WorkspaceId,
        keyed: &MessageKey,
        term: u64,
        events: &Events,
    ) -> Option<Result<TurnEnd, InvokeError>> {
        if let Some(calls) = self.shared.kept_calls.of(keyed) {
            return Some(calls.map(|calls| TurnEnd::SenderCalls(Box::new(calls))));
        }
        // Older programs kept a digest of the words for messages of mailboxes too.
        let is_mailed = mail_turns::is_mailed(&keyed.turn);
        let same = |asked: Option<&str>| is_mailed || asked.is_none_or(|asked| asked == keyed.asked);
        let reused = || Some(Err(InvokeError::KeyReused { turn: keyed.turn.clone() }));
        match self.known(workspace, &keyed.turn).await {
            Err(error) => Some(Err(error)),
            Ok(TurnStatus::Nothing) => None,
            Ok(TurnStatus::Over(record)) => {
                let asked = record.ending.as_ref().and_then(|ending| ending.request_digest.as_deref());
                if same(asked) { Some(self.again(workspace, *record).await) } else { reused() }
            }
            Ok(TurnStatus::Waits(waiting, documents)) => match kept::request_digest(&documents) {
                Ok(asked) if same(asked.as_deref()) => Some(Ok(kept::waits(*waiting))),
                Ok(_) => reused(),
                Err(error) => Some(Err(error)),
            },
            Ok(TurnStatus::Begun(documents)) => match kept::request_digest(&documents) {
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
    ) -> Result<TurnEnd, InvokeError> {
        let waiting_in = Arc::clone(&world);
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
            progress = driver.drive(&mut run, &agent) => Ok(progress),
            // What is under way is let go with the drive.
            by = underway.running.stopped() => Err(by),
            never = begins => match never {},
        };
        match progress {
            Ok(Progress::Waiting) => self.put_down(&underway, &waiting_in, &run).await,
            Ok(Progress::Over) => {
                let exchange = exchange(&underway, &agent, &run);
                let ended = self.record(&underway, agent.revision, run).await;
                if let (Ok(TurnEnd::Answered(_)), Some(exchange)) = (&ended, exchange) {
                    self.keep_exchange(&agent, exchange).await;
                }
                ended
            }
            Ok(Progress::Lost) => Err(self.lost(&underway).await),
            Err(by) => {
                run.turn.stop();
                underway.log.stopped(&by);
                self.record(&underway, agent.revision, run).await
            }
        }
    }

    /// Where the steps of a turn are noted.
    fn log(&self, workspace: &WorkspaceId, conversation: &str, turn: &str, subject: &str) -> Arc<TurnLog> {
        let activity = self.shared.parts.activity.clone();
        Arc::new(TurnLog::new(activity, workspace, conversation, turn, subject))
    }

    /// The workspace as it is served now; the turn keeps this revision to its end.
    fn world(&self, workspace: &WorkspaceId, asker: Asker) -> Result<Arc<CatalogWorld>, InvokeError> {
        let catalog = self.catalog(workspace)?;
        Ok(Arc::new(CatalogWorld::new(catalog, Arc::clone(&self.shared), asker)))
    }

    fn catalog(&self, workspace: &WorkspaceId) -> Result<Arc<Catalog>, InvokeError> {
        let catalog = self.shared.parts.catalogs.get(workspace);
        catalog.ok_or_else(|| InvokeError::NoWorkspace { workspace: workspace.clone() })
    }

    fn admit(&self) -> Result<OwnedSemaphorePermit, InvokeError> {
        Arc::clone(&self.shared.turns)
            .try_acquire_owned()
            .map_err(|_| InvokeError::Busy { turns_max: self.limits().turns_max })
    }

    fn begun(&self, beginning: Beginning, shelf: Shelf, log: Arc<TurnLog>, term: u64) -> Underway {
        let shard = self.conversations().of(&beginning.workspace);
        let journal = |beginning| Arc::new(TurnJournal::new(shard, beginning, term));
        self.underway(beginning, (shelf, Ledger::default()), log, term, journal)
    }

    fn underway(
        &self,
        beginning: Beginning,
        (shelf, ledger): (Shelf, Ledger),
        log: Arc<TurnLog>,
        term: u64,
        journal: impl FnOnce(Beginning) -> Arc<TurnJournal>,
    ) -> Underway {
        let running = self.shared.running.enter(&beginning.workspace, &beginning.turn, &beginning.subject);
        Underway {
            workspace: beginning.workspace.clone(),
            conversation: beginning.conversation.clone(),
            turn: beginning.turn.clone(),
            subject: beginning.subject.clone(),
            route: beginning.route.clone(),
            asked: beginning.asked.clone(),
            brought: beginning.brought.clone(),
            earlier: Visible::new(),
            request: beginning.request.clone(),
            resumed: false,
            shelf,
            log,
            ledger,
            term,
            running,
            journal: journal(beginning),
            began: Instant::now(),
            before_ms: 0,
        }
    }

    /// Waits until nobody else goes on with the turn.
    async fn alone_with(&self, workspace: &WorkspaceId, turn: &str) -> OwnedMutexGuard<()> {
        // No conversation has such an id.
        self.alone(workspace, &format!("turn {turn}")).await
    }

    /// Waits until no other turn of the conversation is under way.
    async fn alone(&self, workspace: &WorkspaceId, conversation: &str) -> OwnedMutexGuard<()> {
        self.lock_of(workspace, conversation).lock_owned().await
    }

    /// What a turn of the conversation holds while it is under way.
    fn lock_of(&self, workspace: &WorkspaceId, conversation: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut held = self.shared.conversations.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() as u64 > self.limits().turns_max.saturating_mul(8) {
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
    }

    /// Whether there is room for anything new: what is kept free of the disk is for what runs already.
    pub fn has_space(&self) -> Result<(), crate::artifacts::DiskFull> {
        self.shared.parts.space.check(0)
    }

    /// How the agents of a workspace did lately on this node.
    pub fn health(&self, workspace: &WorkspaceId) -> Vec<AgentState> {
        self.shared.health.of(workspace)
    }

    /// What is remembered, for those who search and change it.
    pub fn memories(&self) -> &Memories {
        &self.shared.parts.memories
    }

    /// What finds what is remembered.
    pub fn memory_backends(&self) -> &MemoryBackends {
        &self.shared.parts.memory_backends
    }

    /// The conversations, for those who list and read them.
    pub fn conversations(&self) -> &Conversations {
        &self.shared.parts.conversations
    }

    /// How busy it is: turns under way over the most there may be, 0.0 to 1.0.
    pub fn load(&self) -> f64 {
        1.0 - self.shared.turns.available_permits() as f64 / self.limits().turns_max as f64
    }

    fn limits(&self) -> &Limits {
        &self.shared.parts.limits
    }

    /// Changes whenever a turn ended here that a message of a mailbox had begun.
    pub fn mailed_over(&self) -> watch::Receiver<u64> {
        self.shared.mailed_over.subscribe()
    }

    /// What happens, for people who look.
    pub fn activity(&self) -> &Activity {
        &self.shared.parts.activity
    }

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

    /// Waits until this node has all of the workspace's shard that was acknowledged, unless what it has is enough.
    pub async fn current(&self, workspace: &WorkspaceId, freshness: Freshness) -> Result<(), GroupError> {
        match freshness {
            Freshness::Current => self.shard(workspace).group().read_index().await.map(drop),
            Freshness::Stale => Ok(()),
        }
    }

    /// The term under which this node answers for the workspace.
    pub async fn lead(&self, workspace: &WorkspaceId) -> Result<u64, InvokeError> {
        self.shard(workspace)
            .lead(self.limits().lead_wait)
            .await
            .map_err(|NotHere { leader }| InvokeError::Elsewhere { leader })
    }
}

/// Whether some model of the agent's chain takes what the sender asks of its replies.
fn honours(agent: &Agent, options: &ReplyOptions) -> Result<(), InvokeError> {
    if options.is_empty() {
        return Ok(());
    }
    let mut first = None;
    for target in &agent.targets {
        let refused = target.refuses(options);
        if refused.is_empty() {
            return Ok(());
        }
        first.get_or_insert((target.provider.clone(), refused));
    }
    match first {
        Some((provider, options)) => {
            Err(InvokeError::Options { agent: agent.manifest.name.clone(), provider, options })
        }
        None => Ok(()),
    }
}

impl TurnEnd {
    /// The last event of a stream.
    pub fn event(self) -> Option<TurnEvent> {
        match self {
            TurnEnd::Answered(answer) => Some(TurnEvent::Answered(answer)),
            TurnEnd::Waiting { conversation, turn, approvals } => {
                let approvals = approvals.into_iter().map(Into::into).collect();
                Some(TurnEvent::Waiting { conversation, turn, approvals })
            }
            TurnEnd::SenderCalls(_) => None,
        }
    }
}
