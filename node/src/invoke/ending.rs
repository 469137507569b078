//! How a turn ends: its record, and the same answer again for whoever asks for it later.

use caxton_proto::shard::{Abandon, DocumentKind, Ending, Message, Route, TIME_MS_MAX, TurnRecord};
use caxton_proto::{AgentName, Revision, WorkspaceId};
use caxton_raft::ProposeError;
use tracing::info;

use super::mail_turns::is_mailed;
use super::{InvokeError, Invoker, SenderCalls, TurnEnd, Underway};
use crate::agent::attachments::{Attachment, Visible};
use crate::agent::run::Run;
use crate::agent::turn::{Failure, Next, Outcome};
use crate::api::messages::MessageAnswer;
use crate::conversations::{Documents, Keeping, RecordError};
use crate::shard::tenant;
use crate::telemetry::labels;

/// Files of an answer that are kept in its record itself, in bytes together; larger ones get entries of their own.
const FILES_INLINE_BYTES_MAX: usize = 64 << 10;

impl Invoker {
    /// Records a run that is over, and only then tells.
    pub(super) async fn record(
        &self,
        underway: &Underway,
        revision: Revision,
        run: Run,
    ) -> Result<TurnEnd, InvokeError> {
        let Next::Over(outcome) = run.turn.next() else { return Err(InvokeError::Unfinished) };
        let spent = run.turn.spent();
        let duration_ms = underway.before_ms.saturating_add(underway.began.elapsed().as_millis() as u64);
        let (failure, cut) = match outcome {
            Outcome::Answered { cut, .. } => (None, *cut),
            Outcome::Failed { failure } => (Some(failure.clone()), false),
            Outcome::SenderCalls { text, calls } => {
                let (agent, text, calls) = (run.agent.clone(), text.clone(), calls.clone());
                self.abandon(underway).await?;
                return Ok(TurnEnd::SenderCalls(Box::new(SenderCalls { agent, text, calls, usage: spent.usage })));
            }
        };
        let own: Visible = run.visible.difference(&underway.earlier).cloned().collect();
        let made = own.difference(&underway.brought).filter_map(|name| underway.shelf.get(name));
        let made: Vec<Attachment> = made.map(|file| (*file).clone()).collect();
        let (files, files_omitted) = self.keep_files(underway, &made).await?;
        self.keep_brought(underway, &made).await?;
        let outcome_name = failure.as_ref().map_or("answered", |failure| failure.code());
        let ending = Ending {
            route: underway.route.clone(),
            truncated: cut,
            steps: spent.steps,
            failure: failure.clone().map(Into::into),
            files,
            files_omitted,
            request_digest: underway.asked.clone(),
            request: self.request_of(underway),
        };
        let record = TurnRecord {
            workspace: underway.workspace.clone(),
            conversation: underway.conversation.clone(),
            turn: underway.turn.clone(),
            agent: run.agent.clone(),
            subject: underway.subject.clone(),
            time_ms: crate::authn::now_ms().min(TIME_MS_MAX),
            messages: run.said().into_iter().map(Into::into).collect(),
            attachments: underway.shelf.infos(&own),
            usage: spent.usage.into(),
            spent: underway.ledger.all().into_iter().map(|(agent, spent)| (agent, spent.into())).collect(),
            duration_ms: duration_ms.min(TIME_MS_MAX),
            revision,
            failure: failure.as_ref().map(ToString::to_string),
            ending: Some(ending),
            term: underway.term,
        };
        let answer = answer_of(&record, made, 0);
        self.taken(underway, self.conversations().of(&underway.workspace).record(record).await).await?;
        let why = failure.as_ref().map(ToString::to_string);
        self.learn(underway, &run.agent, failure.as_ref());
        metrics::histogram!("caxton_turn_duration_seconds", "outcome" => outcome_name).record(duration_ms as f64 / 1e3);
        let turn = underway.turn.as_str();
        // Whoever begins a turn settles its delivery, unless it was put down.
        if is_mailed(turn) && underway.resumed {
            self.shared.mailed_over.send_modify(|count| *count = count.wrapping_add(1));
        }
        underway.log.ended(run.agent.as_str(), why, spent.usage.total(), duration_ms);
        info!(workspace = %underway.workspace, agent = %run.agent, turn, outcome = outcome_name, duration_ms, "turn over");
        answer
    }

    /// Notes how the agent did, and what each that took part used.
    fn learn(&self, underway: &Underway, agent: &AgentName, failure: Option<&Failure>) {
        let workspace = &underway.workspace;
        match failure {
            None => self.shared.health.learn(workspace, agent, Ok(())),
            // Whoever stops a turn says nothing of the agent.
            Some(Failure::Stopped) => {}
            Some(failure) => self.shared.health.learn(workspace, agent, Err(&failure.to_string())),
        }
        for (agent, spent) in underway.ledger.all() {
            let labels = [
                ("workspace", labels::bounded("workspace", workspace.as_str())),
                ("agent", labels::bounded("agent", agent.as_str())),
            ];
            metrics::counter!("caxton_agent_tokens_total", &labels).increment(spent.tokens);
            metrics::counter!("caxton_agent_cost_microusd_total", &labels).increment(spent.cost);
        }
    }

    /// What the log's word on an entry means for the turn.
    pub(super) async fn taken(
        &self,
        underway: &Underway,
        outcome: Result<tenant::Effect, RecordError>,
    ) -> Result<(), InvokeError> {
        let (why, nothing_done) = match outcome {
            Ok(tenant::Effect::Applied) => return Ok(()),
            Ok(tenant::Effect::Repeated) => (None, false),
            Ok(tenant::Effect::Fenced) => (None, true),
            Err(error @ RecordError::Propose(ProposeError::NotLeader { .. })) => (Some(error), true),
            Err(error @ RecordError::Propose(ProposeError::Unavailable | ProposeError::Fatal { .. })) => {
                (Some(error), false)
            }
            Err(error) => return Err(error.into()),
        };
        let known = underway.journal.is_known().await;
        if nothing_done && !known {
            let leader = self.shard(&underway.workspace).group().status().borrow().leader;
            return Err(InvokeError::Elsewhere { leader });
        }
        Err(underway.adrift(known, why))
    }

    /// Nothing is to be recorded: what was kept goes.
    async fn abandon(&self, underway: &Underway) -> Result<(), InvokeError> {
        if !underway.journal.is_known().await {
            return Ok(());
        }
        let (workspace, turn) = (underway.workspace.clone(), underway.turn.clone());
        let abandon = Abandon { workspace, turn, term: underway.term };
        self.taken(underway, self.conversations().of(&underway.workspace).abandon(abandon).await).await
    }

    /// Keeps the files of an answer. Gives those that go into the record, and how many are too large to be kept.
    async fn keep_files(
        &self,
        underway: &Underway,
        made: &[Attachment],
    ) -> Result<(Vec<Attachment>, u32), InvokeError> {
        let bytes: usize = made.iter().map(|file| file.content.len()).sum();
        if bytes <= FILES_INLINE_BYTES_MAX {
            return Ok((made.to_vec(), 0));
        }
        if bytes > self.limits().answer_files_bytes_max.as_usize() {
            return Ok((Vec::new(), u32::try_from(made.len()).unwrap_or(u32::MAX)));
        }
        let (workspace, turn) = (&underway.workspace, underway.turn.as_str());
        let conversations = self.conversations().of(workspace);
        let documents: Result<Vec<Vec<u8>>, _> = made.iter().map(|file| file.encode(conversations.format())).collect();
        let documents = documents.map_err(RecordError::from)?;
        let keeping = Keeping { workspace, turn, term: underway.term, kind: DocumentKind::Files };
        let kept = conversations.keep(&keeping, &documents, 0).await;
        self.taken(underway, kept.map(|(outcome, _)| outcome)).await?;
        Ok((Vec::new(), 0))
    }

    /// What a turn that is over answered, once more.
    pub(super) async fn again(&self, workspace: &WorkspaceId, record: TurnRecord) -> Result<TurnEnd, InvokeError> {
        let (name, turn) = (workspace.clone(), record.turn.clone());
        let kept = move |state: &crate::conversations::State| state.kept(&name, &turn, DocumentKind::Files);
        let Documents { whole, .. } = self.conversations().read(workspace, kept).await?;
        let mut files: Vec<Attachment> = record.ending.as_ref().map(|ending| ending.files.clone()).unwrap_or_default();
        for document in whole {
            files.push(Attachment::decode(&document).map_err(InvokeError::PutDown)?);
        }
        let omitted = record.ending.as_ref().map_or(0, |ending| ending.files_omitted);
        answer_of(&record, files, omitted)
    }
}

/// The answer that a record stands for.
fn answer_of(record: &TurnRecord, files: Vec<Attachment>, files_omitted: u32) -> Result<TurnEnd, InvokeError> {
    let ending = record.ending.as_ref();
    if let Some(failure) = ending.and_then(|ending| ending.failure.clone()) {
        return Err(InvokeError::Turn { agent: record.agent.clone(), failure: failure.into() });
    }
    let text = match record.messages.last() {
        Some(Message::Assistant { text, .. }) => text.clone(),
        Some(_) | None => return Err(InvokeError::Unfinished),
    };
    Ok(TurnEnd::Answered(Box::new(MessageAnswer {
        conversation: record.conversation.clone(),
        turn: record.turn.clone(),
        agent: record.agent.clone(),
        route: ending.map_or(Route::Address, |ending| ending.route.clone()).into(),
        text,
        cut: ending.is_some_and(|ending| ending.truncated),
        attachments: files.into_iter().map(Into::into).collect(),
        attachments_omitted: files_omitted,
        usage: record.usage.into(),
        steps: ending.map_or(0, |ending| ending.steps),
        duration_ms: record.duration_ms,
        revision: record.revision,
    })))
}
