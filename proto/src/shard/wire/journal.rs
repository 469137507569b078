//! Between the documents of a turn and the messages of the .proto file.

use std::sync::Arc;

use super::message::{all, each, read_route, time, workspace};
use super::pb::{self, decision, step};
use super::{DecodeError, field};
use crate::shard::{Beginning, CallResult, Decision, Finish, Reply, Step};

impl From<&Beginning> for pb::Beginning {
    fn from(it: &Beginning) -> Self {
        Self {
            workspace: it.workspace.to_string(),
            conversation: it.conversation.clone(),
            turn: it.turn.clone(),
            subject: it.subject.clone(),
            route: Some((&it.route).into()),
            brought: it.brought.iter().cloned().collect(),
            files: it.files.iter().map(|file| (&**file).into()).collect(),
            time_ms: it.time_ms,
            request_digest: it.request_digest.clone(),
            request: it.request.clone(),
            run: Some((&it.run).into()),
        }
    }
}

impl TryFrom<pb::Beginning> for Beginning {
    type Error = DecodeError;
    fn try_from(it: pb::Beginning) -> Result<Self, DecodeError> {
        Ok(Self {
            workspace: workspace(it.workspace)?,
            conversation: it.conversation,
            turn: it.turn,
            subject: it.subject,
            route: read_route(it.route)?,
            brought: it.brought.into_iter().collect(),
            files: it.files.into_iter().map(|file| file.try_into().map(Arc::new)).collect::<Result<_, _>>()?,
            time_ms: time(it.time_ms),
            request_digest: it.request_digest,
            request: it.request,
            run: it.run.ok_or(field("run"))?.try_into()?,
        })
    }
}

impl From<&Step> for pb::Step {
    fn from(it: &Step) -> Self {
        let body = match it {
            Step::Answered { way, reply, spent, elapsed_ms } => step::Body::ModelAnswered(pb::ModelAnswered {
                way: way.clone(),
                reply: Some(reply.into()),
                spent: Some((*spent).into()),
                elapsed_ms: *elapsed_ms,
            }),
            Step::Delegated { way, call, run } => step::Body::Delegated(pb::Delegated {
                way: way.clone(),
                call: call.clone(),
                run: Some((&**run).into()),
            }),
            Step::Returned { way, call, result, files, visible } => step::Body::CallReturned(pb::CallReturned {
                way: way.clone(),
                call: call.clone(),
                result: Some(result.into()),
                files: each(files),
                visible: visible.iter().cloned().collect(),
            }),
            Step::Decided { way, decision } => {
                let body = match decision {
                    Decision::Approved => decision::Body::Approved(pb::Empty {}),
                    Decision::Denied { reason } => decision::Body::Denied(reason.clone()),
                };
                let decision = Some(pb::Decision { body: Some(body) });
                step::Body::Decided(pb::Decided { way: way.clone(), decision })
            }
            Step::TakenUp { term } => step::Body::TakenUp(pb::TakenUp { term: *term }),
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<pb::Step> for Step {
    type Error = DecodeError;
    fn try_from(it: pb::Step) -> Result<Self, DecodeError> {
        Ok(match it.body.ok_or(field("step"))? {
            step::Body::ModelAnswered(pb::ModelAnswered { way, reply, spent, elapsed_ms }) => {
                let reply = reply.ok_or(field("reply"))?.try_into()?;
                Step::Answered { way, reply, spent: spent.into(), elapsed_ms: time(elapsed_ms) }
            }
            step::Body::Delegated(pb::Delegated { way, call, run }) => {
                Step::Delegated { way, call, run: Box::new(run.ok_or(field("run"))?.try_into()?) }
            }
            step::Body::CallReturned(pb::CallReturned { way, call, result, files, visible }) => Step::Returned {
                way,
                call,
                result: result.ok_or(field("result"))?.into(),
                files: all(files)?,
                visible: visible.into_iter().collect(),
            },
            step::Body::Decided(pb::Decided { way, decision }) => {
                let decision = match decision.and_then(|decision| decision.body).ok_or(field("decision"))? {
                    decision::Body::Approved(pb::Empty {}) => Decision::Approved,
                    decision::Body::Denied(reason) => Decision::Denied { reason },
                };
                Step::Decided { way, decision }
            }
            step::Body::TakenUp(pb::TakenUp { term }) => Step::TakenUp { term },
        })
    }
}

impl From<&Reply> for pb::Reply {
    fn from(it: &Reply) -> Self {
        let finish = match it.finish {
            Finish::Stop => pb::Finish::Stop,
            Finish::Calls => pb::Finish::Calls,
            Finish::Length => pb::Finish::Length,
            Finish::Refused => pb::Finish::Refused,
        };
        Self {
            text: it.text.clone(),
            calls: each(&it.calls),
            usage: Some(it.usage.into()),
            finish: finish.into(),
            model: it.model.clone(),
            echo: it.echo.clone(),
        }
    }
}

impl TryFrom<pb::Reply> for Reply {
    type Error = DecodeError;
    fn try_from(it: pb::Reply) -> Result<Self, DecodeError> {
        let finish = match it.finish() {
            pb::Finish::Unspecified => return Err(field("finish")),
            pb::Finish::Stop => Finish::Stop,
            pb::Finish::Calls => Finish::Calls,
            pb::Finish::Length => Finish::Length,
            pb::Finish::Refused => Finish::Refused,
        };
        let calls = it.calls.into_iter().map(Into::into).collect();
        Ok(Self { text: it.text, calls, usage: it.usage.into(), finish, model: it.model, echo: it.echo })
    }
}

impl From<&CallResult> for pb::CallResult {
    fn from(it: &CallResult) -> Self {
        let CallResult { text, failed, usage, truncated } = it;
        Self { text: text.clone(), failed: *failed, usage: Some((*usage).into()), truncated: *truncated }
    }
}

impl From<pb::CallResult> for CallResult {
    fn from(pb::CallResult { text, failed, usage, truncated }: pb::CallResult) -> Self {
        Self { text, failed, usage: usage.into(), truncated }
    }
}
