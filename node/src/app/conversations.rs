//! What was said, for those whose conversation it is and for those who may read everybody's.

use caxton_proto::WorkspaceId;
use caxton_proto::memory::Scope as MemoryScope;
use caxton_proto::shard::TurnRecord;

use crate::authz::{Converse, ForgetConversations, Permit, ReadConversations};
use crate::conversations::{ReadError, RecordError, State, Summary, check_id};
use crate::invoke::{Freshness, Invoker};
use crate::memory::MemoryError;

/// Turns of a conversation that are shown, the newest.
const TURNS_SHOWN_MAX: usize = 1_000;
/// Conversations that are looked at for one page: whoever has few among very many finds the next ones on the next page.
const LOOKED_AT_MAX: usize = 5_000;

/// Why a conversation was not listed, shown or removed.
#[derive(Debug, thiserror::Error)]
pub enum ConversationsError {
    /// There is none of that name, or it is not for the reader.
    #[error("there is no conversation `{id}` in workspace `{workspace}`")]
    None {
        workspace: WorkspaceId,
        /// The id that was asked for.
        id: String,
    },
    /// Whether this node is up to date is not known.
    #[error(transparent)]
    Current(#[from] caxton_raft::ReadError),
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The removal could not be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What is remembered of it could not be forgotten; the conversation is still there.
    #[error("what is remembered of the conversation could not be forgotten")]
    Memory(#[from] MemoryError),
}

/// A page of conversations, the newest first.
pub struct ConversationPage {
    /// Each with its id.
    pub conversations: Vec<(String, Summary)>,
    /// Where the next page begins, if there is one.
    pub next: Option<Vec<u8>>,
}

/// The conversations of all workspaces.
pub struct Conversations {
    invoker: Invoker,
}

/// Whose turns somebody may read: everybody's, or those of one subject.
#[derive(Clone)]
struct Readable(Option<String>);

impl Readable {
    fn by(permit: &Permit<Converse>) -> Readable {
        Readable(permit.also(ReadConversations).is_err().then(|| permit.subject().to_owned()))
    }

    fn has(&self, turn: &TurnRecord) -> bool {
        self.0.as_ref().is_none_or(|subject| *subject == turn.subject)
    }
}

impl Conversations {
    /// Those of which `invoker` has the state.
    pub fn new(invoker: Invoker) -> Conversations {
        Conversations { invoker }
    }

    /// At most `limit` conversations from `cursor` on.
    pub async fn list(
        &self,
        permit: &Permit<Converse>,
        cursor: Option<Vec<u8>>,
        limit: usize,
        freshness: Freshness,
    ) -> Result<ConversationPage, ConversationsError> {
        let workspace = permit.workspace().clone();
        self.invoker.current(&workspace, freshness).await?;
        let readable = Readable::by(permit);
        let read = move |state: &State| page(state, &workspace, cursor, limit, &readable);
        Ok(self.invoker.conversations().read(permit.workspace(), read).await?)
    }

    /// A conversation with its newest turns, the newest first.
    pub async fn show(
        &self,
        permit: &Permit<Converse>,
        id: &str,
        freshness: Freshness,
    ) -> Result<(Summary, Vec<TurnRecord>), ConversationsError> {
        let none = || ConversationsError::None { workspace: permit.workspace().clone(), id: id.to_owned() };
        check_id(id).map_err(|_| none())?;
        self.invoker.current(permit.workspace(), freshness).await?;
        let (workspace, wanted, readable) = (permit.workspace().clone(), id.to_owned(), Readable::by(permit));
        let read = move |state: &State| {
            let mut left = TURNS_SHOWN_MAX;
            let mut turns = state.turns(&workspace, &wanted, |_| {
                left -= 1;
                left == 0
            })?;
            turns.retain(|turn| readable.has(turn));
            let visible = readable.0.is_none() || !turns.is_empty();
            let summary = state.summary(&workspace, &wanted)?.filter(|_| visible);
            Ok(summary.map(|summary| (summary, turns)))
        };
        self.invoker.conversations().read(permit.workspace(), read).await?.ok_or_else(none)
    }

    /// Removes a conversation with all that was said and what is remembered of it; gives what it was.
    pub async fn forget(&self, permit: &Permit<ForgetConversations>, id: &str) -> Result<Summary, ConversationsError> {
        let none = || ConversationsError::None { workspace: permit.workspace().clone(), id: id.to_owned() };
        check_id(id).map_err(|_| none())?;
        let conversations = self.invoker.conversations();
        let (workspace, wanted) = (permit.workspace().clone(), id.to_owned());
        let found = conversations.read(permit.workspace(), move |state| state.summary(&workspace, &wanted)).await?;
        let summary = found.ok_or_else(none)?;
        // First, so that whoever tries again after a failure still finds the conversation.
        let scope = MemoryScope::Conversation(id.to_owned());
        self.invoker
            .memories()
            .of(permit.workspace())
            .forget_scope(permit.workspace(), scope, permit.subject())
            .await?;
        conversations.of(permit.workspace()).forget(permit.workspace(), id).await?;
        Ok(summary)
    }
}

/// A page of those that are readable. Whose a conversation is says its newest turn: nobody else can go on with it.
fn page(
    state: &State,
    workspace: &WorkspaceId,
    mut cursor: Option<Vec<u8>>,
    limit: usize,
    readable: &Readable,
) -> Result<ConversationPage, ReadError> {
    let (mut found, mut looked_at) = (Vec::new(), 0);
    loop {
        let rows = state.list(workspace, cursor.as_deref(), limit + 1)?;
        let more = rows.len() > limit;
        for (at, id, summary) in rows.into_iter().take(limit) {
            if found.len() == limit {
                return Ok(ConversationPage { conversations: found, next: cursor });
            }
            let readable =
                readable.0.is_none() || state.turns(workspace, &id, |_| true)?.iter().all(|it| readable.has(it));
            cursor = Some(at);
            looked_at += 1;
            if readable {
                found.push((id, summary));
            }
        }
        if !more {
            return Ok(ConversationPage { conversations: found, next: None });
        }
        if found.len() == limit || looked_at >= LOOKED_AT_MAX {
            return Ok(ConversationPage { conversations: found, next: cursor });
        }
    }
}
