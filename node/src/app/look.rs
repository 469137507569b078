//! What a round of a shard's dispatch finds in the tables: what is due, which waits are over, and which deliveries get places.
//!
//! It is one read. What is under way, and what is deployed, is known before it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use caxton_messages::acl::Address;
use caxton_messages::{EndedWait, Limits, Ready, due, ended_waits, next, old, waiting};
use caxton_proto::WorkspaceId;
use caxton_proto::manifest::agent::Messages;
use rusqlite::{Connection, Result};

use super::places::{Claim, MailboxOf, Places, Room};
use crate::catalog::Catalogs;

/// The most turns that waited and are gone on with at a time.
pub(super) const RESUMED_MAX: usize = 64;
/// The most mailboxes that are looked at in one round.
const MAILBOXES_MAX: usize = 1_000;
/// The most messages for one agent of another workspace that are being carried.
const CARRIED_MAX: usize = 8;

/// What is known before the tables are looked at.
pub(super) struct Known {
    /// What is deployed.
    pub(super) catalogs: Catalogs,
    /// How many messages of each mailbox are under way.
    pub(super) busy: HashMap<MailboxOf, usize>,
    /// The workspace that was given the last place.
    pub(super) served: Option<WorkspaceId>,
    /// How many more may be under way.
    pub(super) room: Room,
    /// What is only old is looked for, too.
    pub(super) old: bool,
    /// The number of the last mailbox that was looked at: it is gone on after it.
    pub(super) last: u64,
}

/// What there is to do.
pub(super) struct Look {
    /// The workspaces in which a tick has something to do. Where there are any, the rest may be another after those ticks.
    pub(super) due: Vec<WorkspaceId>,
    /// Some of them only have something to forget.
    pub(super) has_old: bool,
    /// The waits that are over.
    pub(super) ended: Vec<EndedWait>,
    /// What is started next.
    pub(super) plan: Plan,
}

/// Who gets the free places.
pub(super) struct Plan {
    /// The deliveries of each workspace, with whose they are.
    pub(super) ready: BTreeMap<WorkspaceId, Vec<(Address, Ready)>>,
    /// The workspace that is given the last place.
    pub(super) served: Option<WorkspaceId>,
    /// After which mailbox the next look begins.
    pub(super) last: u64,
}

impl Look {
    /// Looks at the tables of a shard.
    pub(super) fn at(rows: &Connection, known: Known, term: u64, now_ms: i64) -> Result<Look> {
        let limits = Limits::default();
        let mut all = due(rows, now_ms, term, &limits)?;
        let old = if known.old { old(rows, now_ms, &limits)? } else { Vec::new() };
        let has_old = !old.is_empty();
        all.extend(old);
        all.sort();
        all.dedup();
        Ok(Look {
            due: all,
            has_old,
            ended: ended_waits(rows, now_ms, RESUMED_MAX)?,
            plan: known.plan(rows, now_ms, &limits)?,
        })
    }
}

impl Known {
    fn plan(mut self, rows: &Connection, now_ms: i64, limits: &Limits) -> Result<Plan> {
        let found = waiting(rows, now_ms, self.last, MAILBOXES_MAX)?;
        // Where not all were looked at, the rest comes next, so that no agent's mailbox waits behind those nobody empties.
        if found.len() >= MAILBOXES_MAX {
            self.last = found.last().map_or(0, |(number, ..)| *number);
        }
        let claims = found.into_iter().filter_map(|(_, workspace, owner)| self.claim((workspace, owner))).collect();
        let mut busy: HashMap<WorkspaceId, usize> = HashMap::new();
        self.busy.iter().for_each(|((workspace, _), count)| *busy.entry(workspace.clone()).or_default() += count);
        let mut places = Places::new(claims, &busy, self.served.as_ref(), self.room);
        let mut read: HashMap<MailboxOf, VecDeque<Ready>> = HashMap::new();
        let mut ready: BTreeMap<WorkspaceId, Vec<(Address, Ready)>> = BTreeMap::new();
        while let Some(owner) = places.turn().cloned() {
            if !read.contains_key(&owner) {
                let all = next(rows, &owner.0, &owner.1, now_ms, places.most(&owner), limits)?;
                read.insert(owner.clone(), all.into());
            }
            match read.get_mut(&owner).and_then(VecDeque::pop_front) {
                None => places.pass(&owner),
                Some(one) => {
                    places.take(&owner);
                    self.served = Some(owner.0.clone());
                    ready.entry(owner.0).or_default().push((owner.1, one));
                }
            }
        }
        Ok(Plan { ready, served: self.served, last: self.last })
    }

    /// What a mailbox may have under way beside what it has; nothing of an agent that is not deployed, which keeps its messages.
    fn claim(&self, owner: MailboxOf) -> Option<Claim> {
        let busy = self.busy.get(&owner).copied().unwrap_or_default();
        let (most, priority) = match &owner.1 {
            Address::Agent(agent) => {
                let catalog = self.catalogs.get(&owner.0)?;
                let manifest = catalog.agents().get(agent)?.manifest().ok()?;
                (manifest.messages.concurrency as usize, manifest.messages.priority)
            }
            Address::Elsewhere { .. } => (CARRIED_MAX, Messages::default().priority),
            Address::Capability(_)
            | Address::Subject(_)
            | Address::Topic(_)
            | Address::Broadcast
            | Address::Platform => return None,
        };
        Some(Claim { owner, priority, free: most.saturating_sub(busy) })
    }
}
