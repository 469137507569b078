//! Between what is said with models and what is kept of it (`caxton_proto::shard`).

use std::sync::Arc;

use caxton_proto::shard::{self, COUNT_MAX, JsonText};

use super::{Finish, Message, Part, Reply, Spent, ToolCall, ToolDefinition, Usage};

impl From<Message> for shard::Message {
    fn from(message: Message) -> Self {
        match message {
            Message::System { text } => Self::System { text },
            Message::User { parts } => Self::User { parts: parts.into_iter().map(Into::into).collect() },
            Message::Assistant { text, calls, echo } => {
                Self::Assistant { text, calls: calls.into_iter().map(Into::into).collect(), echo }
            }
            Message::Tool { call, tool, text, failed } => Self::Tool { call, tool, text, failed },
        }
    }
}

impl From<shard::Message> for Message {
    fn from(message: shard::Message) -> Self {
        match message {
            shard::Message::System { text } => Self::System { text },
            shard::Message::User { parts } => Self::User { parts: parts.into_iter().map(Into::into).collect() },
            shard::Message::Assistant { text, calls, echo } => {
                Self::Assistant { text, calls: calls.into_iter().map(Into::into).collect(), echo }
            }
            shard::Message::Tool { call, tool, text, failed } => Self::Tool { call, tool, text, failed },
        }
    }
}

impl From<Part> for shard::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Text { text } => Self::Text { text },
            Part::Image { url } => Self::Image { url },
        }
    }
}

impl From<shard::Part> for Part {
    fn from(part: shard::Part) -> Self {
        match part {
            shard::Part::Text { text } => Self::Text { text },
            shard::Part::Image { url } => Self::Image { url },
        }
    }
}

impl From<ToolCall> for shard::ToolCall {
    fn from(ToolCall { id, tool, arguments }: ToolCall) -> Self {
        Self { id, tool, arguments }
    }
}

impl From<shard::ToolCall> for ToolCall {
    fn from(shard::ToolCall { id, tool, arguments }: shard::ToolCall) -> Self {
        Self { id, tool, arguments }
    }
}

impl From<&ToolDefinition> for shard::ToolDefinition {
    fn from(it: &ToolDefinition) -> Self {
        let parameters = JsonText::of(&it.parameters);
        Self { name: it.name.clone(), description: it.description.clone(), parameters }
    }
}

impl From<shard::ToolDefinition> for ToolDefinition {
    fn from(shard::ToolDefinition { name, description, parameters }: shard::ToolDefinition) -> Self {
        Self { name, description, parameters: Arc::new(parameters.value()) }
    }
}

impl From<Usage> for shard::Usage {
    fn from(Usage { input, output }: Usage) -> Self {
        Self { input: input.min(COUNT_MAX), output: output.min(COUNT_MAX) }
    }
}

impl From<shard::Usage> for Usage {
    fn from(shard::Usage { input, output }: shard::Usage) -> Self {
        Self { input, output }
    }
}

impl From<Spent> for shard::Spent {
    fn from(Spent { tokens, cost }: Spent) -> Self {
        Self { tokens: tokens.min(COUNT_MAX), cost: cost.min(COUNT_MAX) }
    }
}

impl From<shard::Spent> for Spent {
    fn from(shard::Spent { tokens, cost }: shard::Spent) -> Self {
        Self { tokens, cost }
    }
}

impl From<Reply> for shard::Reply {
    fn from(Reply { text, calls, usage, finish, model, echo }: Reply) -> Self {
        let finish = match finish {
            Finish::Stop => shard::Finish::Stop,
            Finish::Calls => shard::Finish::Calls,
            Finish::Length => shard::Finish::Length,
            Finish::Refused => shard::Finish::Refused,
        };
        Self { text, calls: calls.into_iter().map(Into::into).collect(), usage: usage.into(), finish, model, echo }
    }
}

impl From<shard::Reply> for Reply {
    fn from(shard::Reply { text, calls, usage, finish, model, echo }: shard::Reply) -> Self {
        let finish = match finish {
            shard::Finish::Stop => Finish::Stop,
            shard::Finish::Calls => Finish::Calls,
            shard::Finish::Length => Finish::Length,
            shard::Finish::Refused => Finish::Refused,
        };
        Self { text, calls: calls.into_iter().map(Into::into).collect(), usage: usage.into(), finish, model, echo }
    }
}
