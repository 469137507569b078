//! The files of a conversation's earlier turns: those that came with a request and those that came of an answer are there
//! in the next turn too, as far back as the model is told what was said.

use caxton_proto::shard::DocumentKind;
use caxton_proto::{Format, WorkspaceId};

use super::kept::Beginning;
use super::{InvokeError, Invoker, Underway};
use crate::agent::attachments::{Attachment, Shelf, Visible};
use crate::conversations::{Keeping, ReadError, RecordError, State, TurnFiles};

/// So much of what was said is kept as it was said, in bytes; what the model was told of it is kept beside it.
const REQUEST_BYTES_KEPT: usize = 16 << 10;

/// Puts files of earlier turns on the shelf, and says under which names.
pub(super) fn shelve(shelf: &Shelf, files: Vec<Attachment>) -> Visible {
    // What is too much for a shelf is left out: the turn itself may need the room.
    files.into_iter().filter_map(|file| shelf.add(file).ok()).collect()
}

impl Invoker {
    /// What these turns left, the oldest first and the newest of a name, and the names of what is no longer there.
    pub(super) async fn files_of(
        &self,
        workspace: &WorkspaceId,
        turns: Vec<TurnFiles>,
    ) -> Result<(Vec<Attachment>, Vec<String>), InvokeError> {
        if turns.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let bytes_max = self.limits().answer_files_bytes_max.as_usize();
        let name = workspace.clone();
        let read = move |state: &State| -> Result<_, ReadError> {
            let (mut files, mut lost, mut bytes) = (Vec::<Attachment>::new(), Vec::new(), 0);
            for turn in turns {
                let mut kept = turn.inline;
                for kind in [DocumentKind::Brought, DocumentKind::Files] {
                    for document in state.kept(&name, &turn.turn, kind)?.whole {
                        kept.push(Attachment::decode(&document)?);
                    }
                }
                for wanted in turn.names {
                    if files.iter().any(|file| file.name == wanted) {
                        continue;
                    }
                    let found = kept.iter().position(|file| file.name == wanted).map(|at| kept.swap_remove(at));
                    match found.filter(|file| bytes + file.content.len() <= bytes_max) {
                        Some(file) => {
                            bytes += file.content.len();
                            files.push(file);
                        }
                        None => lost.push(wanted),
                    }
                }
            }
            files.reverse();
            Ok((files, lost))
        };
        Ok(self.conversations().read(workspace, read).await?)
    }

    /// The files of earlier turns that a turn had when it was put down, on its shelf again.
    pub(super) async fn earlier_again(&self, beginning: &Beginning, shelf: &Shelf) -> Result<Visible, InvokeError> {
        let Beginning { workspace, conversation, run, .. } = beginning;
        if run.visible.iter().all(|name| shelf.get(name).is_some()) {
            return Ok(Visible::new());
        }
        let bytes_max = self.limits().history_bytes_max.as_usize();
        let history = self.conversations().history(workspace, conversation, bytes_max).await?;
        let (files, _) = self.files_of(workspace, history.files).await?;
        let had = files.into_iter().filter(|file| run.visible.contains(&file.name) && shelf.get(&file.name).is_none());
        let had: Vec<_> = had.map(std::sync::Arc::new).collect();
        let names = had.iter().map(|file| file.name.clone()).collect();
        shelf.put_back(had);
        Ok(names)
    }

    /// Keeps the files that came with a request, beside those that were `made`: what is too large together has to come again.
    pub(super) async fn keep_brought(&self, underway: &Underway, made: &[Attachment]) -> Result<(), InvokeError> {
        let conversations = self.conversations().of(&underway.workspace);
        let format = conversations.format();
        let brought: Vec<_> = underway.brought.iter().filter_map(|name| underway.shelf.get(name)).collect();
        let bytes = |file: &Attachment| file.content.len();
        let together: usize = made.iter().map(bytes).chain(brought.iter().map(|file| bytes(file))).sum();
        if brought.is_empty() || format < Format::DELETION || together > self.limits().answer_files_bytes_max.as_usize()
        {
            return Ok(());
        }
        let documents: Result<Vec<Vec<u8>>, _> = brought.iter().map(|file| file.encode(format)).collect();
        let documents = documents.map_err(RecordError::from)?;
        let (workspace, turn) = (&underway.workspace, underway.turn.as_str());
        let keeping = Keeping { workspace, turn, term: underway.term, kind: DocumentKind::Brought };
        let kept = conversations.keep(&keeping, &documents, 0).await;
        self.taken(underway, kept.map(|(outcome, _)| outcome)).await
    }

    /// What was said, as the turn's record has it; nothing where a node of an older program may have to read it.
    pub(super) fn request_of(&self, underway: &Underway) -> Option<String> {
        let format = self.conversations().of(&underway.workspace).format();
        let said = underway.request.as_ref().filter(|said| format >= Format::DELETION && !said.is_empty())?;
        let kept = said.floor_char_boundary(REQUEST_BYTES_KEPT);
        match kept < said.len() {
            true => Some(format!("{}\n[{kept} of {} bytes kept]", &said[..kept], said.len())),
            false => Some(said.clone()),
        }
    }
}
