//! Gives what lies in agents' mailboxes to them, on the node that leads the shard, and goes on with what waited.
//!
//! A delivery is started in the log before anything is done with it, and settled when that is over (`delivery.rs`). What an older
//! leader had started is started again here; a turn that was put down is looked at when a turn ends, and whenever this node has
//! come to lead.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use caxton_messages::acl::Address;
use caxton_messages::mailbox::{Action, Outcome};
use caxton_messages::{EndedWait, Limits, due, is_started_before, parked, roster};
use caxton_proto::{AgentName, Revision, WorkspaceId};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::delivery::{Courier, now_ms};
use super::look::{Known, Look, Plan, RESUMED_MAX};
use super::places::{MailboxOf, Room};
use super::post::Post;
use crate::catalog::{Catalog, LoadError};
use crate::errors::chain;
use crate::invoke::{InvokeError, Invoker};
use crate::mailbox::{MailboxError, ShardMailboxes};

/// The longest pause between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked for what is only old. Where there is some, it is looked again until there is none.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// How long it is waited for to lead the shard before it is looked whether to stop.
const LEAD_WAIT: Duration = Duration::from_millis(500);
/// The most messages of one shard's mailboxes that are being handled.
const TURNS_MAX: usize = 64;
/// The most beside these, which are only for workspaces that have none under way.
const SPARE_MAX: usize = 16;
/// The most messages beside these that pause because what they need is not there: those of sixteen workspaces.
const PAUSING_MAX: usize = 4_096;
/// How many rounds of ticks release what was started before.
const RELEASES_MAX: usize = 100;
/// How long a workspace is left alone after files of its agents could not be read.
const UNREAD_WAIT: Duration = Duration::from_secs(5);
/// How many turns that were put down are looked at in one go.
const PARKED_PAGE: usize = 100;

/// Which wait of which turn.
type WaitKey = (WorkspaceId, String, String);

/// Something that is being done beside the rounds, and is over.
enum Job {
    /// A message was handled.
    Given(MailboxOf),
    /// A turn went on.
    Resumed(WaitKey),
    /// It was looked whether turns that were put down are over.
    Looked,
}

/// Gives out the deliveries of one shard.
pub struct Dispatcher {
    invoker: Invoker,
    mailboxes: ShardMailboxes,
    courier: Arc<Courier>,
    jobs: JoinSet<Job>,
    /// How many messages of each mailbox are under way.
    busy: HashMap<MailboxOf, usize>,
    /// The workspace that was given the last place.
    served: Option<WorkspaceId>,
    resumed: HashSet<WaitKey>,
    /// The number of the last mailbox that was looked at: the next round goes on after it.
    last: u64,
    /// The revision of each workspace whose programs are known, and the term in which that was looked up.
    rosters: HashMap<WorkspaceId, (u64, Revision)>,
    /// Until when the workspaces are left alone of which files could not be read.
    unread: HashMap<WorkspaceId, tokio::time::Instant>,
    /// The term in which the turns that were put down were looked at.
    looked: u64,
    /// The last term in which everything was released that others, or this node before it was started again, had started.
    released: u64,
    looking: bool,
    /// When it is looked next for what is only old.
    forgets_at: tokio::time::Instant,
    /// Turns have ended since they were looked at.
    look_again: bool,
}

impl Dispatcher {
    /// For the mailboxes of one shard.
    pub fn new(invoker: Invoker, mailboxes: ShardMailboxes, post: Post) -> Dispatcher {
        let courier = Arc::new(Courier::new(invoker.clone(), mailboxes.clone(), post));
        Dispatcher {
            invoker,
            mailboxes,
            courier,
            jobs: JoinSet::new(),
            busy: HashMap::new(),
            served: None,
            resumed: HashSet::new(),
            last: 0,
            rosters: HashMap::new(),
            unread: HashMap::new(),
            released: 0,
            looked: 0,
            looking: false,
            forgets_at: tokio::time::Instant::now(),
            look_again: false,
        }
    }

    /// Works until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut over = self.invoker.mailed_over();
        loop {
            while let Some(ended) = self.jobs.try_join_next() {
                self.release(ended);
            }
            let led = tokio::select! {
                () = stop.cancelled() => return,
                led = self.mailboxes.shard().lead(LEAD_WAIT) => led,
            };
            if let Ok(term) = led
                && let Err(error) = self.round(term).await
            {
                debug!(reason = %chain(&error), "mailboxes were not looked at");
            }
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                () = self.mailboxes.changed(), if led.is_ok() => None,
                changed = over.changed(), if led.is_ok() => {
                    self.look_again |= changed.is_ok();
                    None
                }
                ended = self.jobs.join_next(), if !self.jobs.is_empty() => ended,
                () = tokio::time::sleep(LOOK_EVERY) => None,
            };
            if let Some(ended) = ended {
                self.release(ended);
            }
        }
    }

    fn release(&mut self, ended: Result<Job, JoinError>) {
        match ended {
            Ok(Job::Given(owner)) => {
                if let Some(count) = self.busy.get_mut(&owner) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.busy.remove(&owner);
                    }
                }
            }
            Ok(Job::Resumed(wait)) => _ = self.resumed.remove(&wait),
            Ok(Job::Looked) => self.looking = false,
            Err(error) => {
                // Nobody knows whose it was: what is still under way is found in the tables.
                warn!(reason = %chain(&error), "what was done for a mailbox broke");
                self.busy.clear();
                self.resumed.clear();
                self.looking = false;
            }
        }
    }

    /// Has everything tried again that was started before this dispatcher leads under the term. A node that is alone leads in
    /// the same term after it was started again, so that the term does not tell what it had under way.
    async fn release_started(&self, term: u64, now_ms: i64) -> Result<(), MailboxError> {
        let (limits, next) = (Limits::default(), term.saturating_add(1));
        for _ in 0..RELEASES_MAX {
            if !self.mailboxes.read(move |rows| is_started_before(rows, next)).await? {
                break;
            }
            let due = self.mailboxes.read(move |rows| due(rows, now_ms, next, &limits)).await?;
            for workspace in due {
                of_one(&workspace, self.mailboxes.write(&workspace, term, Action::Tick { term: next }).await)?;
            }
        }
        Ok(())
    }

    /// Does what is due, goes on with what waited, and starts what can be started.
    async fn round(&mut self, term: u64) -> Result<(), MailboxError> {
        let now_ms = now_ms();
        if self.released != term {
            self.release_started(term, now_ms).await?;
            self.released = term;
        }
        self.note_programs(term).await?;
        let is_time = tokio::time::Instant::now() >= self.forgets_at;
        let mut found = self.look(term, now_ms, is_time).await?;
        if is_time && !found.has_old {
            self.forgets_at = tokio::time::Instant::now() + FORGET_EVERY;
        }
        if !found.due.is_empty() {
            for workspace in found.due {
                of_one(&workspace, self.mailboxes.write(&workspace, term, Action::Tick { term }).await)?;
            }
            found = self.look(term, now_ms, false).await?;
        }
        found.ended.into_iter().for_each(|wait| self.resume(term, wait));
        if (self.looked != term || self.look_again) && !self.looking {
            (self.looked, self.look_again, self.looking) = (term, false, true);
            self.look_at_parked(term);
        }
        // On a full disk nothing new is begun: what lies there is given out when there is room.
        if self.invoker.has_space().is_err() {
            return Ok(());
        }
        self.start(term, found.plan).await
    }

    /// Looks at the tables, once for everything: each look costs a change of threads.
    async fn look(&self, term: u64, now_ms: i64, old: bool) -> Result<Look, MailboxError> {
        let known = Known {
            catalogs: self.invoker.catalogs().clone(),
            busy: self.busy.clone(),
            served: self.served.clone(),
            room: self.room(),
            old,
            last: self.last,
        };
        self.mailboxes.read(move |rows| Look::at(rows, known, term, now_ms)).await
    }

    /// Tells programs that are new in their workspace that they are there.
    async fn note_programs(&mut self, term: u64) -> Result<(), MailboxError> {
        for catalog in self.invoker.catalogs().all() {
            let (workspace, revision) = (&catalog.workspace, catalog.revision);
            if self.rosters.get(workspace) == Some(&(term, revision)) {
                continue;
            }
            if self.invoker.conversations().shards().of(workspace).id() != self.mailboxes.shard().id() {
                self.rosters.insert(workspace.clone(), (term, revision));
                continue;
            }
            if self.unread.get(workspace).is_some_and(|until| tokio::time::Instant::now() < *until) {
                continue;
            }
            let Ok(Some(programs)) = crate::tasks::blocking({
                let catalog = Arc::clone(&catalog);
                move || programs(&catalog)
            })
            .await
            else {
                // Who is new is not known before all of them can be read.
                self.unread.insert(workspace.clone(), tokio::time::Instant::now() + UNREAD_WAIT);
                continue;
            };
            self.unread.remove(workspace);
            let of = workspace.clone();
            let (known_at, known) = self.mailboxes.read(move |rows| roster(rows, &of)).await?;
            let same = known.len() == programs.len() && programs.iter().all(|agent| known.contains(agent));
            if known_at < revision.0 && !same {
                let roster = Action::Roster { revision: revision.0, programs };
                of_one(workspace, self.mailboxes.write(workspace, term, roster).await)?;
            }
            self.rosters.insert(workspace.clone(), (term, revision));
        }
        Ok(())
    }

    /// Goes on with a turn that waited for answers.
    fn resume(&mut self, term: u64, wait: EndedWait) {
        let key = (wait.workspace.clone(), wait.turn.clone(), wait.way.clone());
        if self.resumed.len() >= RESUMED_MAX || !self.resumed.insert(key.clone()) {
            return;
        }
        let invoker = self.invoker.clone();
        self.jobs.spawn(async move {
            match invoker.go_on_with(&wait, term).await {
                Ok(()) => {}
                Err(error @ (InvokeError::Adrift { .. } | InvokeError::Elsewhere { .. } | InvokeError::Busy { .. })) => {
                    debug!(turn = wait.turn, reason = %chain(&error), "a turn that waited goes on later or elsewhere");
                }
                Err(error) => {
                    warn!(workspace = %wait.workspace, turn = wait.turn, reason = %chain(&error), "a turn that waited cannot go on");
                }
            }
            Job::Resumed(key)
        });
    }

    /// Settles what is over of the deliveries whose turns were put down.
    fn look_at_parked(&mut self, term: u64) {
        let (mailboxes, courier) = (self.mailboxes.clone(), Arc::clone(&self.courier));
        self.jobs.spawn(async move {
            let mut after = 0;
            loop {
                let page = match mailboxes.read(move |rows| parked(rows, after, PARKED_PAGE)).await {
                    Ok(page) => page,
                    Err(error) => {
                        warn!(reason = %chain(&error), "deliveries whose turns were put down cannot be read");
                        break;
                    }
                };
                let Some((_, _, last)) = page.last() else { break };
                after = last.delivery;
                for (workspace, owner, ready) in page {
                    if let Address::Agent(agent) = owner {
                        courier.look(term, &(workspace, agent), &ready).await;
                    }
                }
            }
            Job::Looked
        });
    }

    /// Starts what was given a place, one entry for all of a workspace's.
    async fn start(&mut self, term: u64, plan: Plan) -> Result<(), MailboxError> {
        (self.last, self.served) = (plan.last, plan.served);
        for (workspace, all) in plan.ready {
            let numbers: Vec<u64> = all.iter().map(|(_, ready)| ready.delivery).collect();
            if numbers.is_empty() {
                continue;
            }
            let outcome = self.mailboxes.write(&workspace, term, Action::Start(numbers)).await;
            let Some(Outcome::Started(started)) = of_one(&workspace, outcome)? else { continue };
            for (owner, ready) in all.into_iter().filter(|(_, ready)| started.contains(&ready.delivery)) {
                let of = (workspace.clone(), owner);
                *self.busy.entry(of.clone()).or_default() += 1;
                let courier = Arc::clone(&self.courier);
                self.jobs.spawn(async move {
                    if let Address::Agent(agent) = &of.1 {
                        courier.give(term, &(of.0.clone(), agent.clone()), ready).await;
                    } else {
                        courier.carry(term, &of, ready).await;
                    }
                    Job::Given(of)
                });
            }
        }
        Ok(())
    }

    /// How many more messages may be under way. Those that pause count only where there are very many.
    fn room(&self) -> Room {
        let started: usize = self.busy.values().sum();
        let running = started.saturating_sub(self.courier.pausing().min(PAUSING_MAX));
        let usual = TURNS_MAX.saturating_sub(running);
        Room { usual, spare: (TURNS_MAX + SPARE_MAX).saturating_sub(running).min(SPARE_MAX) }
    }
}

/// What was written for a workspace; nothing where only that workspace is at fault, so that the others of its shard go on.
fn of_one(workspace: &WorkspaceId, written: Result<Outcome, MailboxError>) -> Result<Option<Outcome>, MailboxError> {
    match written {
        Ok(outcome) => Ok(Some(outcome)),
        Err(error) if error.is_of_one() => {
            debug!(%workspace, reason = %chain(&error), "nothing is written for a workspace");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The agents of a workspace that are programs; nothing where the file of one cannot be read now. Reads files.
fn programs(catalog: &Catalog) -> Option<Vec<AgentName>> {
    let mut programs = Vec::new();
    for (name, entry) in catalog.agents() {
        match entry.manifest() {
            Ok(manifest) if manifest.module.is_some() => programs.push(name.clone()),
            // What this version does not take for an agent's file is no program of its.
            Ok(_) | Err(LoadError::Invalid { .. } | LoadError::Absent { .. }) => {}
            Err(error @ (LoadError::Unreadable { .. } | LoadError::Tree { .. })) => {
                warn!(workspace = %catalog.workspace, agent = %name, reason = %chain(&error), "an agent's file cannot be read");
                return None;
            }
        }
    }
    Some(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_that_is_deleted_holds_no_other_up_and_a_shard_that_cannot_be_written_does() {
        let workspace = "w".parse().expect("a name");
        assert!(matches!(of_one(&workspace, Err(MailboxError::Deleted)), Ok(None)));
        assert!(matches!(of_one(&workspace, Err(MailboxError::TooLong { bytes: 1 << 20 })), Ok(None)));
        let older = of_one(&workspace, Err(MailboxError::OlderMembers));
        assert!(matches!(older, Err(MailboxError::OlderMembers)), "{older:?}");
        assert!(matches!(of_one(&workspace, Ok(Outcome::Stale)), Ok(Some(Outcome::Stale))));
    }
}
