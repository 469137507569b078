//! The files of a conversation's earlier turns: those that came with a request and those that came of an answer are there
//! in the next turn too, as far back as the model is told what was said.

use caxton_proto::shard::DocumentKind;
use caxton_proto::{Format, WorkspaceId};

use super::kept::Beginning;
use super::{InvokeError, Invoker, Underway};
use crate::agent::attachments::{Attachment, SHELF_BYTES_MAX, Shelf, Visible};
use crate::conversations::{Keeping, ReadError, RecordError, State, TurnFiles};

/// So much of what was said is kept as it was said, in bytes; what the model was told of it is kept beside it.
const REQUEST_BYTES_KEPT: usize = 16 << 10;

/// Files of earlier turns that a turn has at most: a shelf holds more, and the turn makes some itself.
const EARLIER_FILES_MAX: usize = 32;
const EARLIER_BYTES_MAX: usize = SHELF_BYTES_MAX / 2;

/// Puts files of earlier turns on the shelf, and says under which names.
pub(super) fn shelve(shelf: &Shelf, files: Vec<Attachment>) -> Visible {
    // They fit: a shelf holds twice as much.
    files.into_iter().filter_map(|file| shelf.add(file).ok()).collect()
}

impl Invoker {
    /// The files of these turns, the newest of a name, of those that `takes` wants; the oldest first, and the names of what is not
    /// there or too much.
    pub(super) async fn files_of(
        &self,
        workspace: &WorkspaceId,
        turns: Vec<TurnFiles>,
        takes: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<(Vec<Attachment>, Vec<String>), InvokeError> {
        if turns.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let bytes_max = self.limits().answer_files_bytes_max.as_usize().min(EARLIER_BYTES_MAX);
        let name = workspace.clone();
        let read = move |state: &State| -> Result<_, ReadError> {
            let (mut files, mut lost, mut bytes) = (Vec::<Attachment>::new(), Vec::new(), 0);
            for turn in turns {
                let mut wanted = turn.infos;
                wanted.retain(|info| {
                    let known = files.iter().any(|file| file.name == info.name) || lost.contains(&info.name);
                    takes(&info.name) && !known
                });
                // What is too much is not read.
                let mut count = files.len();
                wanted.retain(|info| {
                    let more = usize::try_from(info.bytes).unwrap_or(usize::MAX);
                    let fits = count < EARLIER_FILES_MAX && more <= bytes_max.saturating_sub(bytes);
                    if fits {
                        (count, bytes) = (count + 1, bytes + more);
                    } else {
                        lost.push(info.name.clone());
                    }
                    fits
                });
                let mut kept = turn.inline;
                for kind in [DocumentKind::Brought, DocumentKind::Files] {
                    if wanted.iter().all(|info| kept.iter().any(|file| file.name == info.name)) {
                        break;
                    }
                    for document in state.kept(&name, &turn.turn, kind)?.whole {
                        kept.push(Attachment::decode(&document)?);
                    }
                }
                for info in wanted {
                    match kept.iter().position(|file| file.name == info.name) {
                        Some(at) => files.push(kept.swap_remove(at)),
                        None => lost.push(info.name),
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
        let Beginning { workspace, conversation, run, time_ms, .. } = beginning;
        let absent: Visible = run.visible.iter().filter(|name| shelf.get(name).is_none()).cloned().collect();
        if absent.is_empty() {
            return Ok(absent);
        }
        let bytes_max = self.limits().history_bytes_max.as_usize();
        let mut history = self.conversations().history(workspace, conversation, bytes_max).await?;
        // What came of turns since is none of this one's.
        history.files.retain(|turn| turn.time_ms <= *time_ms);
        let (files, _) = self.files_of(workspace, history.files, move |name| absent.contains(name)).await?;
        let names = files.iter().map(|file| file.name.clone()).collect();
        shelf.put_back(files.into_iter().map(std::sync::Arc::new));
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
