//! Topics, for whoever may send messages: subscriptions, what is published, and what was published before.
//!
//! Whoever holds [`Converse`] subscribes for themselves and reads what is published; with [`ReadConversations`] everybody's
//! subscriptions can be read, and with [`Deploy`] those of agents and of others can be made and ended.

use caxton_messages::acl::{Address, Pattern};
use caxton_messages::mailbox::{Action, Filter, Outcome};
use caxton_messages::{Replay, Subscription, TopicSummary};

use super::mailboxes::{MailboxesError, own};
use crate::authz::{Converse, Deploy, Permit, ReadConversations};
use crate::invoke::{Freshness, InvokeError, Invoker};
use crate::mailbox::Mailboxes;

/// A subscription to be made, or to be changed where one of its name is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubscription {
    /// Who receives what is published; whoever asks where it is absent.
    pub subscriber: Option<Address>,
    pub name: String,
    /// Which topics are meant.
    pub pattern: Pattern,
    /// Which messages are meant.
    pub filter: Filter,
    /// The position after which it begins.
    pub after: Option<u64>,
}

/// A subscription that was made, changed or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedSubscription {
    /// Whose it is.
    pub subscriber: Address,
    pub name: String,
    /// The last position that it has seen.
    pub position: u64,
}

/// The topics of all workspaces.
pub struct Topics {
    invoker: Invoker,
    mailboxes: Mailboxes,
}

impl Topics {
    /// Those in these shards.
    pub fn new(invoker: Invoker, mailboxes: Mailboxes) -> Topics {
        Topics { invoker, mailboxes }
    }

    /// Subscribes somebody to topics.
    pub async fn subscribe(
        &self,
        permit: &Permit<Converse>,
        new: NewSubscription,
    ) -> Result<ChangedSubscription, MailboxesError> {
        self.invoker.has_space().map_err(InvokeError::from)?;
        let NewSubscription { subscriber, name, pattern, filter, after } = new;
        let subscriber = changeable(permit, subscriber)?;
        let (whose, named) = (subscriber.clone(), name.clone());
        let action = Action::Subscribe { subscriber: whose, name: named, pattern, filter, after };
        self.change(permit, action, subscriber, name).await
    }

    /// Ends a subscription: one's own unless another subscriber is named.
    pub async fn unsubscribe(
        &self,
        permit: &Permit<Converse>,
        subscriber: Option<Address>,
        name: &str,
    ) -> Result<ChangedSubscription, MailboxesError> {
        let subscriber = changeable(permit, subscriber)?;
        let action = Action::Unsubscribe { subscriber: subscriber.clone(), name: name.to_owned() };
        self.change(permit, action, subscriber, name.to_owned()).await
    }

    async fn change(
        &self,
        permit: &Permit<Converse>,
        action: Action,
        subscriber: Address,
        name: String,
    ) -> Result<ChangedSubscription, MailboxesError> {
        use caxton_messages::mailbox::Reason;
        let workspace = permit.workspace();
        let term = self.invoker.lead(workspace).await?;
        match self.mailboxes.of(workspace).write(workspace, term, action).await? {
            Outcome::Subscribed { position } => Ok(ChangedSubscription { subscriber, name, position }),
            Outcome::Refused(Reason::NotFound) => {
                Err(MailboxesError::NoSubscription { workspace: workspace.clone(), subscriber, name })
            }
            Outcome::Refused(reason) => Err(MailboxesError::Refused(reason)),
            _ => Err(MailboxesError::Stale),
        }
    }

    /// Subscriptions after the one of a number, `most` of them: one's own, or everybody's for whoever may read them.
    pub async fn subscriptions(
        &self,
        permit: &Permit<Converse>,
        subscriber: Option<Address>,
        after: u64,
        most: usize,
        freshness: Freshness,
    ) -> Result<Vec<Subscription>, MailboxesError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        let subscriber = match permit.also(ReadConversations) {
            Ok(_) => subscriber,
            Err(_) => Some(own(permit)?),
        };
        let workspace = permit.workspace().clone();
        let read = move |rows: &rusqlite::Connection| {
            caxton_messages::subscriptions(rows, &workspace, subscriber.as_ref(), after, most)
        };
        Ok(self.mailboxes.of(permit.workspace()).read(read).await?)
    }

    /// The topics of which something is kept, after the one of a name, `most` of them.
    pub async fn topics(
        &self,
        permit: &Permit<Converse>,
        after: String,
        most: usize,
        freshness: Freshness,
    ) -> Result<Vec<TopicSummary>, MailboxesError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        let workspace = permit.workspace().clone();
        let read = move |rows: &rusqlite::Connection| caxton_messages::topics(rows, &workspace, &after, most);
        Ok(self.mailboxes.of(permit.workspace()).read(read).await?)
    }

    /// What was published after a position, as a pattern and a filter take it: `most` messages of it.
    pub async fn replay(
        &self,
        permit: &Permit<Converse>,
        (pattern, filter): (Pattern, Filter),
        after: u64,
        most: usize,
        freshness: Freshness,
    ) -> Result<Replay, MailboxesError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        let workspace = permit.workspace().clone();
        let read = move |rows: &rusqlite::Connection| {
            caxton_messages::replay(rows, &workspace, (&pattern, &filter), after, most)
        };
        Ok(self.mailboxes.of(permit.workspace()).read(read).await?)
    }
}

/// The subscriber whose subscriptions somebody may change.
fn changeable(permit: &Permit<Converse>, wanted: Option<Address>) -> Result<Address, MailboxesError> {
    let own = own(permit)?;
    match wanted {
        Some(other) if other != own => {
            permit.also(Deploy)?;
            Ok(other)
        }
        Some(_) | None => Ok(own),
    }
}
