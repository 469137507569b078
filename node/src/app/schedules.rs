//! Schedules: agents are sent messages at their ticks, each once in the cluster, by the node that leads the workspace's shard.
//!
//! What a schedule has reached is in the shard's tables, and changes in one entry with the message that is sent: whoever leads
//! next goes on from there. Ticks that nobody could send are made up for by one message, that of the newest of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use caxton_messages::acl::{Address, Content, Message, MessageId, Performative};
use caxton_messages::mailbox::{Action, Fate, Outcome, Submission};
use caxton_messages::{Reached, schedules};
use caxton_proto::manifest::agent::{Schedule, Ticks};
use caxton_proto::{AgentName, WorkspaceId};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::mailboxes::MailboxesError;
use crate::authz::{Permit, ReadDeployed};
use crate::catalog::Catalog;
use crate::errors::chain;
use crate::invoke::{Freshness, Invoker};
use crate::mailbox::{MailboxError, Mailboxes, ShardMailboxes};
use crate::time::rfc3339_of;

/// The longest pause between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long it is waited for to lead the shard before it is looked whether to stop.
const LEAD_WAIT: Duration = Duration::from_millis(500);
/// How long it is waited after something could not be written.
const FAILED_WAIT: Duration = Duration::from_secs(1);
/// How long it is waited before files that could not be read are read again.
const UNREAD_WAIT: Duration = Duration::from_secs(30);
/// Ticks that are proposed at once: their entries are synced together.
const PROPOSED_AT_ONCE: usize = 64;

/// A schedule of a deployed agent.
#[derive(Debug, Clone)]
struct Planned {
    workspace: WorkspaceId,
    agent: AgentName,
    schedule: Schedule,
    ticks: Ticks,
    /// When it ticks, in words.
    words: String,
}

impl Planned {
    /// Its name among the schedules of the workspace.
    fn name(&self) -> String {
        format!("{}/{}", self.agent, self.schedule.name)
    }

    /// What its agent is sent at a tick. It is the same message whichever node sends it.
    fn submission(&self, first_ms: i64, tick_ms: i64) -> Submission {
        let name = self.name();
        let mut message =
            Message::new(Performative::Request, [Address::Agent(self.agent.clone())]).stamped(Address::Platform);
        message.content = Some(Content::text(self.schedule.message.clone()));
        message.reply_to = self.schedule.reply_to.clone().into_iter().collect();
        message.extensions.insert("X-schedule".to_owned(), self.schedule.name.clone());
        message.extensions.insert("X-tick".to_owned(), rfc3339_of(tick_ms));
        if first_ms < tick_ms {
            message.extensions.insert("X-missed-since".to_owned(), rfc3339_of(first_ms));
        }
        let id = MessageId::derived(&[name.as_bytes(), self.words.as_bytes(), &tick_ms.to_be_bytes()]);
        let (priority, key) = (self.schedule.priority, Some(format!("{name}@{tick_ms}")));
        Submission { priority, key, ..Submission::new(id, message) }
    }
}

/// What a round of a shard has to do, and when the next one is due.
#[derive(Debug, Default)]
struct Round {
    actions: Vec<(WorkspaceId, Action)>,
    next_ms: Option<i64>,
}

/// What is to be done now, by what is deployed, what has been reached and what time it is. `known` are the workspaces of which
/// it is known what is deployed.
fn round(planned: &[Planned], known: &BTreeSet<WorkspaceId>, reached: &[Reached], now_ms: i64) -> Round {
    let at: HashMap<(&WorkspaceId, &str), &Reached> =
        reached.iter().map(|it| ((&it.workspace, it.schedule.as_str()), it)).collect();
    let mut round = Round::default();
    let mut names = BTreeSet::new();
    for one in planned {
        let (schedule, words) = (one.name(), one.words.clone());
        let kept = at.get(&(&one.workspace, schedule.as_str())).filter(|it| it.words == words);
        let tick = kept.and_then(|it| {
            let newest = one.ticks.newest(it.reached_ms, now_ms)?;
            Some((one.ticks.after(it.reached_ms).unwrap_or(newest), newest))
        });
        let submission = tick.map(|(first, newest)| Box::new(one.submission(first, newest)));
        if kept.is_none() || submission.is_some() {
            let tick_ms = tick.map_or(now_ms, |(_, newest)| newest);
            let fire = Action::Fire { schedule: schedule.clone(), words, tick_ms, submission };
            round.actions.push((one.workspace.clone(), fire));
        }
        let next = one.ticks.after(now_ms);
        round.next_ms = round.next_ms.into_iter().chain(next).min();
        names.insert((one.workspace.clone(), schedule));
    }
    for old in reached {
        if known.contains(&old.workspace) && !names.contains(&(old.workspace.clone(), old.schedule.clone())) {
            round.actions.push((old.workspace.clone(), Action::Unschedule(vec![old.schedule.clone()])));
        }
    }
    round
}

/// The schedules of a catalog; nothing where an agent's file cannot be read now.
fn planned(catalog: &Catalog, workspace: &WorkspaceId) -> Option<Vec<Planned>> {
    let mut all = Vec::new();
    for (agent, entry) in catalog.agents() {
        let manifest = match entry.manifest() {
            Ok(manifest) => manifest,
            Err(error) => {
                warn!(%workspace, %agent, reason = %chain(&error), "the schedules of an agent cannot be read");
                return None;
            }
        };
        for schedule in &manifest.schedules {
            // What is not one was refused when the file was read.
            let Ok(ticks) = schedule.when.ticks() else { continue };
            let (workspace, agent, words) = (workspace.clone(), agent.clone(), schedule.when.to_string());
            all.push(Planned { workspace, agent, schedule: schedule.clone(), ticks, words });
        }
    }
    Some(all)
}

/// Sends what the schedules of one shard's workspaces say.
pub struct Scheduler {
    invoker: Invoker,
    mailboxes: ShardMailboxes,
}

/// What is deployed in the workspaces of a shard.
#[derive(Default)]
struct Plan {
    planned: Vec<Planned>,
    known: BTreeSet<WorkspaceId>,
    /// Something of it could not be read.
    incomplete: bool,
}

impl Scheduler {
    /// For the workspaces of one shard.
    pub fn new(invoker: Invoker, mailboxes: ShardMailboxes) -> Scheduler {
        Scheduler { invoker, mailboxes }
    }

    /// Works until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut deployed = self.invoker.catalogs().changed();
        deployed.mark_changed();
        let mut plan = Arc::new(Plan::default());
        let mut planned_at = tokio::time::Instant::now();
        loop {
            let led = tokio::select! {
                () = stop.cancelled() => return,
                led = self.mailboxes.shard().lead(LEAD_WAIT) => led,
            };
            let wait = match led {
                Err(_) => LEAD_WAIT,
                Ok(term) => {
                    let unread = plan.incomplete && planned_at.elapsed() >= UNREAD_WAIT;
                    if unread || deployed.has_changed().unwrap_or(false) {
                        deployed.mark_unchanged();
                        plan = Arc::new(self.plan().await);
                        planned_at = tokio::time::Instant::now();
                    }
                    // What is cut off in the middle is sent by the next round: a tick is sent once.
                    let ticked = stop.run_until_cancelled(self.tick(term, &plan)).await;
                    let Some(ticked) = ticked else { return };
                    ticked.unwrap_or_else(|error| {
                        debug!(reason = %chain(&error), "schedules were not looked at");
                        FAILED_WAIT
                    })
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                changed = deployed.changed(), if led.is_ok() => match changed {
                    // Seen when the plan is made anew.
                    Ok(()) => deployed.mark_changed(),
                    Err(_) => return,
                },
            }
        }
    }

    /// What is deployed now.
    async fn plan(&self) -> Plan {
        let shards = self.invoker.conversations().shards().clone();
        let (own, catalogs) = (self.mailboxes.shard().id(), self.invoker.catalogs().all());
        let read = move || {
            let mut plan = Plan::default();
            for catalog in catalogs.iter().filter(|catalog| shards.of(&catalog.workspace).id() == own) {
                let workspace = &catalog.workspace;
                if let Some(planned) = planned(catalog, workspace) {
                    plan.planned.extend(planned);
                    plan.known.insert(workspace.clone());
                } else {
                    plan.incomplete = true;
                }
            }
            plan
        };
        super::blocking(read).await.unwrap_or_else(|error| {
            warn!(reason = %chain(&error), "the schedules of this shard cannot be read");
            Plan { incomplete: true, ..Plan::default() }
        })
    }

    /// Sends what is due; how long to wait for the next one.
    async fn tick(&self, term: u64, plan: &Arc<Plan>) -> Result<Duration, MailboxError> {
        let reached = self.mailboxes.read(schedules).await?;
        let plan = Arc::clone(plan);
        let due = super::blocking(move || round(&plan.planned, &plan.known, &reached, now_ms())).await;
        let due = due.unwrap_or_else(|error| {
            warn!(reason = %chain(&error), "it is not known which schedules are due");
            Round::default()
        });
        // On a full disk nothing is sent: it is made up for when there is room.
        if due.actions.is_empty() || self.invoker.has_space().is_err() {
            return Ok(wait_until(due.next_ms));
        }
        let write = |(workspace, action): (WorkspaceId, Action)| async move {
            let outcome = self.mailboxes.write(&workspace, term, action).await?;
            if let Outcome::Sent(receipts) = outcome {
                for receipt in receipts {
                    told(&workspace, &receipt.fate);
                }
            }
            Ok::<_, MailboxError>(())
        };
        let mut written = futures::stream::iter(due.actions.into_iter().map(write)).buffer_unordered(PROPOSED_AT_ONCE);
        // What one workspace cannot have is no reason to leave out the others.
        let mut failed = None;
        while let Some(one) = written.next().await {
            failed = failed.or(one.err().filter(|error| !matches!(error, MailboxError::Deleted)));
        }
        failed.map_or_else(|| Ok(wait_until(due.next_ms)), Err)
    }
}

/// Says where a tick's message did not go.
fn told(workspace: &WorkspaceId, fate: &Fate) {
    match fate {
        Fate::Accepted { .. } | Fate::Duplicate(_) => {
            metrics::counter!("caxton_schedule_ticks_total", "outcome" => "sent").increment(1)
        }
        Fate::Refused(reason) => {
            metrics::counter!("caxton_schedule_ticks_total", "outcome" => "refused").increment(1);
            warn!(%workspace, %reason, "the message of a schedule was refused, and its tick is over");
        }
    }
}

fn now_ms() -> i64 {
    i64::try_from(crate::time::now_ms()).unwrap_or(i64::MAX)
}

fn wait_until(next_ms: Option<i64>) -> Duration {
    let wait_ms = next_ms.map(|next_ms| u64::try_from(next_ms.saturating_sub(now_ms())).unwrap_or_default());
    wait_ms.map_or(LOOK_EVERY, |wait_ms| Duration::from_millis(wait_ms).min(LOOK_EVERY))
}

/// A schedule, as whoever looks at it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleState {
    pub agent: AgentName,
    /// What the agent's file says of it.
    pub schedule: Schedule,
    /// The last tick that was sent, or when it began; nothing before the leader has seen it.
    pub reached_ms: Option<i64>,
    /// When it ticks next; nothing where that is more than four years away.
    pub next_ms: Option<i64>,
}

/// The schedules of all workspaces, for those who look at them.
pub struct Schedules {
    invoker: Invoker,
    mailboxes: Mailboxes,
}

impl Schedules {
    /// Those in these shards, of the agents that `invoker` knows.
    pub fn new(invoker: Invoker, mailboxes: Mailboxes) -> Schedules {
        Schedules { invoker, mailboxes }
    }

    /// Every schedule of a workspace, by agent and in the order of its file.
    pub async fn list(
        &self,
        permit: &Permit<ReadDeployed>,
        freshness: Freshness,
    ) -> Result<Vec<ScheduleState>, MailboxesError> {
        let name = permit.workspace().clone();
        self.invoker.current(&name, freshness).await?;
        let reached = self.mailboxes.of(&name).read(schedules).await?;
        let Some(catalog) = self.invoker.catalogs().get(&name) else { return Ok(Vec::new()) };
        let states = move || {
            let own = reached.iter().filter(|it| it.workspace == name);
            let kept: HashMap<&str, &Reached> = own.map(|it| (it.schedule.as_str(), it)).collect();
            let (planned, now_ms) = (planned(&catalog, &name).unwrap_or_default(), now_ms());
            let state = |one: Planned| {
                let kept = kept.get(one.name().as_str()).filter(|it| it.words == one.words);
                let next_ms = one.ticks.after(now_ms);
                ScheduleState {
                    agent: one.agent,
                    schedule: one.schedule,
                    reached_ms: kept.map(|it| it.reached_ms),
                    next_ms,
                }
            };
            planned.into_iter().map(state).collect()
        };
        match super::blocking(states).await {
            Ok(states) => Ok(states),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use caxton_proto::manifest::agent::When;
    use proptest::prelude::*;

    use super::*;

    fn planned_of(name: &str, every_s: u64) -> Planned {
        let when = When::Every { every: Duration::from_secs(every_s) };
        Planned {
            workspace: "w".parse().expect("a name"),
            agent: "bob".parse().expect("a name"),
            ticks: when.ticks().expect("ticks"),
            words: when.to_string(),
            schedule: Schedule {
                name: name.to_owned(),
                when,
                message: "do it".to_owned(),
                reply_to: None,
                priority: Default::default(),
            },
        }
    }

    fn reached_of(planned: &Planned, reached_ms: i64) -> Reached {
        Reached {
            workspace: planned.workspace.clone(),
            schedule: planned.name(),
            words: planned.words.clone(),
            reached_ms,
        }
    }

    /// The tick and the message of what is to be done.
    fn fired(round: &Round) -> Vec<(i64, Option<Submission>)> {
        let fire = |action: &Action| match action {
            Action::Fire { tick_ms, submission, .. } => Some((*tick_ms, submission.as_deref().cloned())),
            _ => None,
        };
        round.actions.iter().filter_map(|(_, action)| fire(action)).collect()
    }

    #[test]
    fn a_schedule_begins_ticks_once_and_makes_up_for_what_was_missed_with_one_message() {
        let (one, known) = (planned_of("a", 60), BTreeSet::from(["w".parse().expect("a name")]));
        let at = |reached: Option<i64>, now_ms: i64| {
            let reached: Vec<Reached> = reached.map(|at_ms| reached_of(&one, at_ms)).into_iter().collect();
            round(std::slice::from_ref(&one), &known, &reached, now_ms)
        };
        assert_eq!(fired(&at(None, 90_000)), [(90_000, None)], "it begins now, and not with what would have been");
        let quiet = at(Some(90_000), 100_000);
        assert!(quiet.actions.is_empty() && quiet.next_ms == Some(120_000), "{quiet:?}");
        let on_time = fired(&at(Some(90_000), 120_010));
        let message = &on_time[0].1.as_ref().expect("a message").message;
        assert_eq!((on_time.len(), on_time[0].0), (1, 120_000));
        assert!(message.check().is_ok() && !message.extensions.contains_key("X-missed-since"), "{message:?}");
        assert_eq!(message.extensions["X-tick"], "1970-01-01T00:02:00.000Z");
        let late = fired(&at(Some(90_000), 400_000));
        let message = &late[0].1.as_ref().expect("a message").message;
        assert_eq!((late.len(), late[0].0), (1, 360_000), "the newest of them alone");
        assert_eq!(message.extensions["X-missed-since"], "1970-01-01T00:02:00.000Z");
        assert!(at(Some(360_000), 400_000).actions.is_empty());
        let other = Reached { words: "every 2m".to_owned(), ..reached_of(&one, 0) };
        assert_eq!(fired(&round(&[one], &known, &[other], 400_000)), [(400_000, None)], "other words begin anew");
    }

    #[test]
    fn what_is_deployed_no_more_is_forgotten_and_what_is_not_known_is_kept() {
        let old = reached_of(&planned_of("a", 60), 60_000);
        let known = BTreeSet::from(["w".parse().expect("a name")]);
        let gone = round(&[], &known, std::slice::from_ref(&old), 61_000);
        assert_eq!(gone.actions, [(old.workspace.clone(), Action::Unschedule(vec!["bob/a".to_owned()]))]);
        assert!(round(&[], &BTreeSet::new(), &[old], 61_000).actions.is_empty());
    }

    proptest! {
        /// Looks at any times, by leaders that see what was reached: each tick is sent once at most, in order, and whatever was
        /// missed is made up for by the next look.
        #[test]
        fn each_tick_is_sent_once_whenever_it_is_looked(every_s in 1_u64..120, steps in proptest::collection::vec(0_i64..300_000, 1..40)) {
            let (one, known) = (planned_of("a", every_s), BTreeSet::from(["w".parse().expect("a name")]));
            let (mut now_ms, mut reached, mut sent) = (1_000_000, None, Vec::new());
            for step in steps {
                now_ms += step;
                let kept: Vec<Reached> = reached.map(|at_ms| reached_of(&one, at_ms)).into_iter().collect();
                for (tick_ms, submission) in fired(&round(std::slice::from_ref(&one), &known, &kept, now_ms)) {
                    sent.extend(submission.map(|_| tick_ms));
                    reached = Some(tick_ms);
                }
                let newest = now_ms.div_euclid(every_s as i64 * 1_000) * every_s as i64 * 1_000;
                prop_assert!(reached.is_some_and(|reached| reached >= newest || sent.is_empty()));
            }
            prop_assert!(sent.windows(2).all(|pair| pair[0] < pair[1]), "{sent:?}");
        }
    }
}
