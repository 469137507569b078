//! What a shard asks of its tenants. A tenant has tables in the shard's file and commands in the shard's log; the shard
//! knows it by its number alone.
//!
//! [`Tenant::apply`] runs on every replica, and all replicas have to come to the same: it reads no clock, no randomness, no
//! settings and nothing but its own rows. What the bytes of an entry decide is therefore a [`Refusal`], which every replica
//! records alike before it goes on. What only this replica knows, or only a newer program can know, is a [`Stop`].

use bytes::Bytes;
use caxton_proto::{Format, WorkspaceId};
use rusqlite::{Connection, ErrorCode};

/// The longest reason for a refusal that is kept, in bytes.
const REASON_BYTES_MAX: usize = 300;

/// One kind of state that the shards of a cluster have. A shard has an instance of its own, made before its file is opened.
pub trait Tenant: Send + Sync + 'static {
    /// Stands for the tenant in the log and in snapshots, for ever. Counts from 1, because 0 is the shard itself.
    fn number(&self) -> u32;

    /// Its name in messages, in metrics and in snapshots.
    fn name(&self) -> &'static str;

    /// The newest version of its commands that this program knows, from 1. A newer one stops the shard's group.
    fn commands(&self) -> u32;

    /// The version of its tables, from 1. Whoever changes their SQL raises it: a file with tables of another version is made
    /// anew from the group's snapshot and its log, and a snapshot with tables of a newer one is not restored.
    fn layout(&self) -> u32;

    /// Its tables. Their names are unlike those of every other tenant.
    fn tables(&self) -> &'static [Table];

    /// Reads a command without doing anything. It fails for the same reasons, and in the same way, as [`Tenant::apply`]
    /// would before it looks at the rows: what fails here is not proposed.
    fn check(&self, command: &Command<'_>) -> Result<(), ApplyError>;

    /// Does what a command says. It changes nothing but its own rows: what an entry did is taken back where that entry, or
    /// one that is applied together with it, is refused, and the others are applied once more.
    fn apply(&self, command: &Command<'_>, rows: &Connection) -> Result<Answer, ApplyError>;

    /// Fills in what is not in a snapshot after one was restored: the tables that are [`Content::Derived`], and columns for
    /// which a default value is not enough. `layout` is the version of the tenant's tables in the snapshot, 0 where it had
    /// none or did not say. It is part of the restore: all of it is committed, or nothing.
    fn derive(&self, rows: &Connection, layout: u32) -> Result<(), ApplyError> {
        let _ = (rows, layout);
        Ok(())
    }

    /// Takes rows of a workspace away because it was deleted, at most `rows_max` of each table. It is called with one entry after
    /// the other until nothing is left, and which rows go first is the same on every replica.
    fn clear(&self, workspace: &WorkspaceId, rows_max: u32, rows: &Connection) -> Result<Clearance, ApplyError>;

    /// How much it keeps of a workspace: a name in the plural for each kind of thing that people know of, and how many.
    fn count(&self, workspace: &WorkspaceId, rows: &Connection) -> rusqlite::Result<Vec<(&'static str, u64)>>;

    /// Since which format there is such a tenant. Snapshots for readers of an older one leave it out, where it has no rows.
    fn since(&self) -> Format {
        Format::JSON
    }

    /// What it left behind before entries had envelopes and snapshots named their columns. At most one tenant says so.
    fn legacy(&self) -> Option<&'static Legacy> {
        None
    }
}

/// A table of a tenant.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    pub name: &'static str,
    /// The statements that make it and its indexes. It is `STRICT`, and a column that was added later has a `DEFAULT`, which
    /// is what rows of older snapshots get.
    pub sql: &'static str,
    /// Whether it is in snapshots.
    pub content: Content,
}

/// Where the rows of a table come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// From the log: they are in snapshots.
    Rows,
    /// From other rows of the same tenant: [`Tenant::derive`] makes them after a restore.
    Derived,
}

/// What a tenant left behind before it had a number. Its entries are JSON objects without an envelope, and its tables stand
/// in snapshots of the first format by number, each row with the values of these columns.
#[derive(Debug, Clone, Copy)]
pub struct Legacy {
    /// The tables of snapshots of the first format.
    pub tables: &'static [Positional],
}

/// A table of a snapshot of the first format: number, name, and columns in their order.
pub type Positional = (u8, &'static str, &'static [&'static str]);

/// A command as a tenant gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command<'a> {
    /// The version in which it is written; 0 for a JSON object without an envelope.
    pub version: u32,
    /// The term of the leader that proposed it. The shard has compared it with the envelope's; a command without an envelope
    /// is compared by its tenant.
    pub term: u64,
    /// What it says.
    pub body: &'a [u8],
}

/// What became of an entry that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is applied.
    Applied,
    /// It was applied before, and changed nothing now.
    Repeated,
    /// Another leader came between the moment in which it was meant and this entry: nothing was changed.
    Fenced,
}

/// A tenant's answer to whoever proposed a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What became of it.
    pub effect: Effect,
    /// What else the tenant says, in a form of its own. It does not leave the node.
    pub body: Bytes,
}

impl From<Effect> for Answer {
    fn from(effect: Effect) -> Answer {
        Answer { effect, body: Bytes::new() }
    }
}

/// How far a workspace's rows are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clearance {
    /// None is left.
    Clear,
    /// Some may be left: the same again goes on.
    More,
}

impl Clearance {
    /// Both together: there is more where one of them has more.
    pub fn and(self, other: Clearance) -> Clearance {
        if self == Clearance::Clear { other } else { Clearance::More }
    }

    /// Of a table from which `gone` rows went, where `rows_max` were the most.
    pub fn of(gone: usize, rows_max: u32) -> Clearance {
        if gone < rows_max as usize { Clearance::Clear } else { Clearance::More }
    }
}

/// Why an entry changes nothing on any replica. It must not depend on anything that two replicas could see differently, and
/// holds nothing that was said by a person or a model, because it goes to the log of the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    reason: String,
}

impl Refusal {
    /// For this reason, of which the first 300 bytes are kept.
    pub fn new(reason: impl Into<String>) -> Refusal {
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        Refusal { reason }
    }

    /// The reason, for a person.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Why a replica must not go on. Nothing of the entry, and nothing after it, is applied before the node is started again.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// A newer program wrote the entry, and its replicas apply it.
    #[error(
        "entry {index} of the shard's log has version {found} of the commands of `{tenant}`, and this program knows version \
         {known}; upgrade it"
    )]
    NewerCommand {
        index: u64,
        /// Whose command it is.
        tenant: &'static str,
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// A newer program wrote the entry for a tenant that this one does not have.
    #[error("entry {index} of the shard's log is for tenant {tenant}, which this program does not know; upgrade it")]
    NewerTenant {
        index: u64,
        /// The tenant's number.
        tenant: u32,
    },
    /// A newer program wrote a legacy entry: its body says the version.
    #[error("an entry of the shard's log was written by a newer program; upgrade this one")]
    Newer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The shard's file cannot be read or written.
    #[error("the shard's database failed")]
    Database(#[from] rusqlite::Error),
}

/// Why an entry was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Every replica finds the same: the entry is recorded as refused, and the next one is applied.
    #[error("the entry is refused")]
    Refused(#[from] Refusal),
    /// Other replicas may do better: this one stops.
    #[error(transparent)]
    Stop(#[from] Stop),
}

impl From<rusqlite::Error> for ApplyError {
    /// What SQLite has against the values comes from the entry and the rows, which are the same everywhere; all else is about
    /// this replica's file.
    fn from(error: rusqlite::Error) -> ApplyError {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
                // The code alone: SQLite's text may quote a value.
                let code = error.sqlite_error().map_or(0, |error| error.extended_code);
                ApplyError::Refused(Refusal::new(format!(
                    "its values do not fit into the tables (SQLite's code {code})"
                )))
            }
            Some(_) | None => ApplyError::Stop(Stop::Database(error)),
        }
    }
}

/// Why tenants cannot live together: a defect of the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tenants of a shard do not fit together: {why}")]
pub struct Misfit {
    why: String,
}

/// The tenants of one shard, in the order of their numbers.
pub struct Tenants(Vec<Box<dyn Tenant>>);

impl Tenants {
    /// Puts tenants together, whose numbers and tables have to differ.
    pub fn new(tenants: impl IntoIterator<Item = Box<dyn Tenant>>) -> Result<Tenants, Misfit> {
        let mut tenants: Vec<_> = tenants.into_iter().collect();
        tenants.sort_by_key(|tenant| tenant.number());
        let mut numbers = std::collections::BTreeSet::from([0]);
        let mut tables = std::collections::BTreeSet::new();
        for tenant in &tenants {
            let fits = numbers.insert(tenant.number()) && tenant.tables().iter().all(|table| tables.insert(table.name));
            if !fits {
                return Err(Misfit { why: format!("`{}` has a number or a table of another one", tenant.name()) });
            }
        }
        if tenants.iter().filter(|tenant| tenant.legacy().is_some()).count() > 1 {
            return Err(Misfit { why: "entries without an envelope belong to more than one".to_owned() });
        }
        Ok(Tenants(tenants))
    }

    /// The one with this number.
    pub(super) fn of(&self, number: u32) -> Option<&dyn Tenant> {
        self.iter().find(|tenant| tenant.number() == number)
    }

    /// The one whose entries have no envelope.
    pub(super) fn legacy(&self) -> Option<(&dyn Tenant, &'static Legacy)> {
        self.iter().find_map(|tenant| tenant.legacy().map(|legacy| (tenant, legacy)))
    }

    /// All of them, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn Tenant> {
        self.0.iter().map(AsRef::as_ref)
    }
}
