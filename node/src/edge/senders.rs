//! What the protocols have in common whose senders keep the conversation: whom a model's name stands for, which of its
//! messages is to be answered, and what is said of an answer before it is whole.

use caxton_proto::{AgentName, WorkspaceId};

use super::Services;
use super::problem::{Code, Problem};
use crate::agent::events::Heard;
use crate::api::messages::{MessageRequest, TurnEvent};
use crate::app::turns::{StartedTurn, TurnEnding};
use crate::authz::{Converse, Permit, UnscopedToken};
use crate::invoke::{ClientTurn, TurnEnd};
use crate::llm::{Message, Part, ReplyOptions, ToolDefinition};

/// The model that stands for "whoever can do it".
pub const AUTO: &str = "auto";

/// Which workspace and agent a model's name stands for; no agent for `auto`.
pub fn model_of(
    unscoped: &UnscopedToken<Converse>,
    services: &Services,
    model: &str,
) -> Result<(Permit<Converse>, Option<AgentName>), Problem> {
    let unknown = |detail: String| {
        Problem::new(Code::NotFound, detail)
            .with("param", "model")
            .help("GET /v1/models lists the models; they are named WORKSPACE/AGENT")
    };
    if model == AUTO {
        let served = services.app.turns.served(unscoped);
        let mut own = served.iter().map(|catalog| &catalog.workspace);
        return match (own.next(), own.next()) {
            (Some(only), None) => Ok((unscoped.permit(only)?, None)),
            (None, _) => Err(unknown("nothing is deployed that this token is for".to_owned())),
            (Some(_), Some(_)) => {
                Err(unknown("the token is for several workspaces: name one, as in WORKSPACE/auto".to_owned()))
            }
        };
    }
    let Some((workspace, agent)) = model.split_once('/') else {
        return Err(unknown(format!("`{model}` names no model here")));
    };
    let workspace: WorkspaceId = workspace.parse().map_err(|_| unknown(format!("`{workspace}` names no workspace")))?;
    let permit = unscoped.permit(&workspace)?;
    match agent {
        AUTO => Ok((permit, None)),
        name => {
            let name: AgentName = name.parse().map_err(|_| unknown(format!("`{name}` names no agent")))?;
            Ok((permit, Some(name)))
        }
    }
}

/// The newest thing that a person said is the request; what came before it, and the results of calls after it, go along.
pub fn request_of(
    mut messages: Vec<Message>,
    agent: Option<AgentName>,
    tools: Vec<ToolDefinition>,
    options: ReplyOptions,
) -> Result<(MessageRequest, ClientTurn), Problem> {
    let wanted = messages.iter().rposition(|message| matches!(message, Message::User { .. }));
    let wanted = wanted.ok_or_else(|| invalid("messages", "no message has the role `user`"))?;
    let after = messages.split_off(wanted + 1);
    let Some(Message::User { parts }) = messages.pop() else { return Err(invalid("messages", "no message to answer")) };
    let mut request = MessageRequest { agent, ..MessageRequest::default() };
    for part in parts {
        match part {
            Part::Text { text } if request.text.is_empty() => request.text = text,
            Part::Text { text } => request.text = format!("{}\n{text}", request.text),
            Part::Image { url } => request.images.push(url),
        }
    }
    Ok((request, ClientTurn { keeps_history: true, history: messages, after, tools, options, ..ClientTurn::default() }))
}

/// What is wrong with a part of a request.
pub fn invalid(param: &str, detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidRequest, detail).with("param", param)
}

/// What a client is told that cannot wait for a person.
pub fn approval_needed(ended: TurnEnd) -> Problem {
    let ids: Vec<String> = match ended {
        TurnEnd::Waiting { approvals, .. } => approvals.into_iter().map(|approval| approval.id).collect(),
        TurnEnd::Answered(_) | TurnEnd::SenderCalls(_) => Vec::new(),
    };
    let problem = Problem::new(Code::ApprovalNeeded, "a person has to approve a call first");
    problem.with("approvals", &ids).help(format!("caxton approvals approve {}", ids.join(" ")))
}

/// What the first agent says, piece by piece as it says it.
pub struct Pieces {
    heard: Heard,
    ending: TurnEnding,
    /// What was told since the last call: the beginning of the answer.
    told: String,
    said_before: bool,
    withdrawn: bool,
}

impl Pieces {
    /// Those of a turn.
    pub fn of(turn: StartedTurn) -> Pieces {
        let (heard, ending) = turn.split();
        Pieces { heard, ending, told: String::new(), said_before: false, withdrawn: false }
    }

    /// The next piece; none when the turn is over.
    pub async fn next(&mut self) -> Option<String> {
        while let Some(event) = self.heard.recv().await {
            match event {
                TurnEvent::Text { depth: 0, text, .. } => {
                    self.told.push_str(&text);
                    return Some(text);
                }
                // What is said before a call is not the answer; a blank line tells them apart.
                TurnEvent::ModelAnswered { depth: 0, calls: 1.., .. } if !self.told.is_empty() => {
                    self.told.clear();
                    self.said_before = true;
                    return Some("\n\n".to_owned());
                }
                TurnEvent::TextWithdrawn { depth: 0, .. } if !self.told.is_empty() => {
                    self.withdrawn = true;
                    return None;
                }
                _ => {}
            }
        }
        None
    }

    /// How the turn ended, and what of its text was not told yet.
    pub async fn end(self, text_of: impl Fn(&TurnEnd) -> &str) -> Result<(TurnEnd, String), Problem> {
        drop(self.heard);
        if self.withdrawn {
            // Nobody gets the answer: with nobody waiting, a turn without a key stops.
            let problem = Problem::new(Code::Unavailable, "the model's answer broke off and was begun anew");
            return Err(problem.help("ask again; without `stream` only whole answers are sent"));
        }
        let ended = self.ending.wait().await?;
        let text = text_of(&ended);
        let rest = rest_of(&self.told, text, self.said_before).to_owned();
        Ok((ended, rest))
    }
}

/// What of a text was not told. What was said before a call of the sender's is the text of the answer that has the call.
fn rest_of<'a>(told: &str, text: &'a str, said_before: bool) -> &'a str {
    match text.strip_prefix(told) {
        Some(_) if told.is_empty() && said_before && text.is_empty() => "",
        Some(rest) => rest,
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::rest_of;

    #[test]
    fn what_a_slow_reader_missed_is_told_at_the_end() {
        assert_eq!(rest_of("the ans", "the answer", false), "wer");
        assert_eq!(rest_of("the answer", "the answer", false), "");
        assert_eq!(rest_of("", "the answer", false), "the answer");
        assert_eq!(rest_of("something else", "the answer", false), "the answer");
    }
}
