//! To whom a conversation belongs, and which agent what continues it goes to.

use std::sync::Arc;

use caxton_proto::AgentName;
use caxton_proto::shard::{DocumentKind, Route};

use super::check::{CheckedMessage, ClientTurn};
use super::kept::subject;
use super::world::CatalogWorld;
use super::{InvokeError, Invoker, routing};
use crate::agent::Agent;
use crate::agent::attachments::Attachment;
use crate::agent::wanted::Wanted;
use crate::agent::world::World;
use crate::authz::{Converse, Permit};
use crate::conversations::{Documents, State};
use crate::llm::Message;

/// What a follow-up leaves a conversation's agent for fits another one at least so well, and by so much better than it fits
/// the agent of the conversation.
const CLEAR_SCORE: f32 = 0.5;
const CLEAR_LEAD: f32 = 0.15;
/// Candidates among which the agent of the conversation is looked for.
const CANDIDATES: usize = 8;

/// What a message goes on with.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// What was said, for the model.
    pub messages: Vec<Message>,
    /// Who answered last.
    pub agent: Option<AgentName>,
    /// The files of these turns, the oldest first.
    pub files: Vec<Attachment>,
    /// The names of those that are no longer there.
    pub lost: Vec<String>,
}

impl Invoker {
    /// What was said before in the conversation; only whose conversation it is may go on with it, and one that is not there
    /// is not begun by going on with it.
    pub(super) async fn before(
        &self,
        permit: &Permit<Converse>,
        checked: &CheckedMessage,
        client: &ClientTurn,
    ) -> Result<Before, InvokeError> {
        if !checked.continues {
            return Ok(Before::default());
        }
        let (workspace, conversation) = (permit.workspace(), &checked.conversation);
        let bytes_max = self.limits().history_bytes_max.as_usize();
        let history = self.shared.parts.conversations.history(workspace, conversation, bytes_max).await?;
        let owner = match history.owner {
            Some(owner) => Some(owner),
            None => self.owner_of_first(permit, conversation).await?,
        };
        match owner {
            Some(owner) if owner != permit.subject() => {
                return Err(InvokeError::OthersConversation { conversation: conversation.clone() });
            }
            None if !checked.creates => {
                let (workspace, id) = (workspace.clone(), conversation.clone());
                return Err(InvokeError::NoConversation { workspace, id });
            }
            Some(_) | None => {}
        }
        if client.keeps_history {
            return Ok(Before { agent: history.agent, ..Before::default() });
        }
        let (files, lost) = self.files_of(workspace, history.files, |_| true).await?;
        Ok(Before { messages: history.messages, agent: history.agent, files, lost })
    }

    /// Whose first turn of a conversation waits for a person: nothing of it is recorded yet.
    async fn owner_of_first(
        &self,
        permit: &Permit<Converse>,
        conversation: &str,
    ) -> Result<Option<String>, InvokeError> {
        let (workspace, conversation) = (permit.workspace().clone(), conversation.to_owned());
        let first = move |state: &State| {
            let waiting = state.waiting(&workspace)?.into_iter().find(|it| it.conversation == conversation);
            waiting.map(|waiting| state.kept(&workspace, &waiting.turn, DocumentKind::Journal)).transpose()
        };
        let documents: Option<Documents> = self.conversations().read(permit.workspace(), first).await?;
        documents.as_ref().map(subject).transpose()
    }

    /// Which agent answers, and why that one. What continues a conversation stays with its agent, unless the text clearly
    /// belongs to what another one can do.
    pub(super) async fn route(
        &self,
        world: &Arc<CatalogWorld>,
        checked: &CheckedMessage,
        before: Option<&AgentName>,
    ) -> Result<(Arc<Agent>, Route), InvokeError> {
        if let Some(name) = &checked.agent {
            return Ok((world.agent(name).await?, Route::Address));
        }
        let wanted = checked.capability.as_deref().map_or(Wanted::Text(&checked.text), Wanted::Capability);
        let stays = before.filter(|name| {
            checked.capability.is_none() && !checked.reroutes && world.catalog().agents().contains_key(*name)
        });
        let found = world.find(wanted, &[]).await;
        if let Some(name) = stays {
            let clearly_other = match &found {
                Ok(found) if found.agent != *name => {
                    let nearest =
                        routing::nearest(&self.shared.parts.router, world.catalog(), &checked.text, CANDIDATES).await;
                    let own = nearest.iter().filter(|near| near.agent == *name).map(|near| near.score);
                    is_clear(found.score, own.fold(0.0, f32::max))
                }
                Ok(_) | Err(_) => false,
            };
            if !clearly_other {
                return Ok((world.agent(name).await?, Route::Conversation));
            }
        }
        let found = found?;
        let agent = world.agent(&found.agent).await?;
        // What is kept has to be a number.
        let score = if found.score.is_finite() { found.score } else { 0.0 };
        Ok((agent, Route::Capability { capability: found.capability, score }))
    }
}

/// Whether a text belongs to another agent and not to the one of the conversation.
fn is_clear(other: f32, own: f32) -> bool {
    other >= CLEAR_SCORE && other - own >= CLEAR_LEAD
}

#[cfg(test)]
mod tests {
    use super::is_clear;

    #[test]
    fn a_conversation_is_left_only_for_what_fits_well_and_much_better() {
        for (other, own, leaves) in
            [(0.9, 0.2, true), (1.0, 0.0, true), (0.4, 0.0, false), (0.9, 0.8, false), (0.5, 0.35, true)]
        {
            assert_eq!(is_clear(other, own), leaves, "{other} against {own}");
        }
    }
}
