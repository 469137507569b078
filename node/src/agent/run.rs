//! A run: one agent's turn with all that it waits for, as plain data that can be stored and taken up again.

use std::collections::BTreeMap;

use caxton_proto::AgentName;
use caxton_proto::manifest::prompt::Parameters;

use super::Agent;
use super::attachments::{Shelf, Visible};
use super::turn::{Brief, Call, Decision, Gate, Turn, UnknownCall};
use crate::llm::{Message, Part, ReplyOptions, ToolDefinition};
use crate::recalled::UNTRUSTED_MARK;

/// One agent's part in answering a message: its turn, and those of the agents that it waits for. Plain data: it can be
/// stored while it waits for a person.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub agent: AgentName,
    pub turn: Turn,
    /// The agents that asked one another to get here, this one last.
    pub(super) path: Vec<AgentName>,
    /// Where among the turn's messages the request stands.
    pub(super) request_at: usize,
    /// The calls that asked for one another to get here; none for the outermost run.
    pub way: Vec<String>,
    /// The files that it sees.
    pub visible: Visible,
    /// What the sender asks of the replies of this run's model.
    pub(super) options: ReplyOptions,
    /// Agents that were asked and wait for a person, by the call that asked them.
    pub(super) waiting: BTreeMap<String, Run>,
}

/// What a run begins with.
#[derive(Debug, Default)]
pub struct Opening {
    /// What is wanted.
    pub request: String,
    /// What the sender gives for the placeholders of the prompts.
    pub parameters: Parameters,
    /// What is remembered of it, as a prompt has it.
    pub recalled: String,
    /// Images for models that see.
    pub images: Vec<String>,
    /// What the conversation held before.
    pub history: Vec<Message>,
    /// Calls that the sender made for the request already, with their results.
    pub after: Vec<Message>,
    /// The files that came with it.
    pub visible: Visible,
    /// The files of earlier turns.
    pub earlier: Visible,
    /// The names of files of earlier turns that are no longer there.
    pub lost: Vec<String>,
    /// Tools that the sender calls by itself.
    pub sender_tools: Vec<ToolDefinition>,
    /// What the sender asks of the model's replies.
    pub options: ReplyOptions,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is over.
    Over,
    /// It waits for a person.
    Waiting,
    /// Its steps can be kept no more: another node goes on with it.
    Lost,
}

/// A call that waits for a person, and the way to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// Calls from the outermost run to this one; the last is the call itself.
    pub way: Vec<String>,
    pub agent: AgentName,
    pub call: Call,
}

impl Run {
    /// Prepares a run; nothing happens yet.
    pub fn begin(agent: &Agent, opening: Opening, shelf: &Shelf) -> Run {
        Run::begin_below(agent, opening, shelf, None)
    }

    pub(super) fn begin_below(agent: &Agent, opening: Opening, shelf: &Shelf, asked_by: Option<(&Run, &str)>) -> Run {
        // A program recalls by itself.
        let recalled = if agent.module.is_some() { String::new() } else { opening.recalled };
        let context = recalled + &shelf.describe(&opening.visible, &opening.earlier, &opening.lost);
        let (system, user) = agent.prompts(&opening.request, &context, &opening.parameters);
        let mut parts = Vec::with_capacity(1 + opening.images.len());
        // An image alone is a message, and many models refuse blank text beside it.
        if opening.images.is_empty() || !user.trim().is_empty() {
            parts.push(Part::Text { text: user });
        }
        parts.extend(opening.images.into_iter().map(|url| Part::Image { url }));
        let mut messages: Vec<Message> = system.map(Message::system).into_iter().collect();
        messages.extend(opening.history);
        let request_at = messages.len();
        messages.push(Message::User { parts });
        messages.extend(opening.after);
        let own = agent.tools.iter().map(|tool| (tool.definition.clone(), tool.gate));
        let theirs = opening.sender_tools.into_iter().map(|tool| (tool, Gate::Sender));
        let mut limits = agent.limits();
        let (mut depth, mut path, mut way) = (0, Vec::new(), Vec::new());
        if let Some((asker, call)) = asked_by {
            way.clone_from(&asker.way);
            way.push(call.to_owned());
            depth = asker.turn.depth() + 1;
            path.clone_from(&asker.path);
            limits.depth_max = limits.depth_max.min(asker.turn.limits().depth_max);
            limits.wall_ms_max = limits.wall_ms_max.min(asker.turn.time_left_ms());
            let tokens_left = asker.turn.limits().tokens_max.saturating_sub(asker.turn.spent().usage.total());
            limits.tokens_max = limits.tokens_max.min(tokens_left);
        }
        path.push(agent.manifest.name.clone());
        let turn = Turn::begin(Brief {
            limits,
            depth,
            asking: agent.asking.clone(),
            tools: own.chain(theirs).collect(),
            messages,
        });
        Run {
            agent: agent.manifest.name.clone(),
            turn,
            path,
            request_at,
            way,
            visible: opening.visible.union(&opening.earlier).cloned().collect(),
            options: opening.options,
            waiting: BTreeMap::new(),
        }
    }

    /// The request and everything that was said since, without what only a model's provider reads: when the turn is
    /// over, nobody asks it to go on. The sender's own calls are an exception, since the next turn goes on with those.
    pub fn said(&self) -> Vec<Message> {
        let mut said = self.turn.messages().get(self.request_at..).unwrap_or_default().to_vec();
        let before_last = said.len().saturating_sub(1);
        for message in said.iter_mut().take(before_last) {
            if let Message::Assistant { echo, .. } = message {
                *echo = None;
            }
        }
        said
    }

    /// Whether the model has read what a tool, another agent or a stranger said, also by way of what is remembered: what it
    /// says may come from there.
    pub fn has_heard_others(&self, agent: &Agent) -> bool {
        // Another agent asks: it may have read anything.
        !self.way.is_empty()
            || self.turn.messages().iter().any(|message| match message {
                Message::Tool { tool, text, .. } => match agent.tool(tool) {
                    Some(tool) if tool.is_built_in() => text.contains(UNTRUSTED_MARK),
                    Some(_) => true,
                    None => tool != super::builtin::LIST_CAPABILITIES,
                },
                other => other.text().contains(UNTRUSTED_MARK),
            })
    }

    /// All calls that wait for a person, in this run and in those that it waits for.
    pub fn pending(&self) -> Vec<Pending> {
        let own = self.turn.awaiting_approval().into_iter().map(|call| Pending {
            way: vec![call.id.clone()],
            agent: self.agent.clone(),
            call: call.clone(),
        });
        let below = self.waiting.iter().flat_map(|(call, run)| {
            run.pending().into_iter().map(|mut pending| {
                pending.way.insert(0, call.clone());
                pending
            })
        });
        own.chain(below).collect()
    }

    /// Takes a person's word on the call at the end of `way`.
    pub fn decided(&mut self, way: &[String], decision: Decision) -> Result<(), UnknownCall> {
        match way {
            [call] => self.turn.decided(call, decision),
            [call, rest @ ..] => match self.waiting.get_mut(call) {
                Some(run) => run.decided(rest, decision),
                None => Err(UnknownCall { what: format!("a decision below call {call:?}") }),
            },
            [] => Err(UnknownCall { what: "a decision on no call".to_owned() }),
        }
    }
}
