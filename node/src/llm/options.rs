//! What a sender asks of the model's reply beyond what the agent's file says: sampling, length, form and calls.
//!
//! Nothing of it is ignored in silence. A provider says which of them it cannot take ([`Provider::refuses`]
//! (super::Provider::refuses)), and a message whose options no model of the agent's chain takes is refused by their names.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which calls the reply has to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// One of the sender's tools at least.
    Required,
    /// The sender's tool of this name.
    Function(String),
}

/// What a sender asks of the reply. What is absent is left to the agent's file and the provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplyOptions {
    /// How freely the model speaks, in place of the agent's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Only the likeliest words are drawn that together have this probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Only so many of the likeliest words are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// The longest reply, in tokens; never more than the agent's own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_max: Option<u32>,
    /// The reply ends before any of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// The same seed shall give the same reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Against words that were said before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// Against words that were said often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// For or against single tokens, as OpenAI writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<Value>,
    /// The form of the reply, as OpenAI writes it; absent for plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// How long a model thinks, as OpenAI writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    /// How many words a model makes, as OpenAI writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbosity: Option<String>,
    /// Which calls the reply has to make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// One reply makes one call at most.
    #[serde(skip_serializing_if = "is_false")]
    pub single_call: bool,
    /// The sender's tools whose schemas the arguments have to follow exactly.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strict_tools: Vec<String>,
    /// Who the sender asks for, as its provider wants to know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl ReplyOptions {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == ReplyOptions::default()
    }

    /// What is asked for, by the names that OpenAI gave them.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            ("temperature", self.temperature.is_some()),
            ("top_p", self.top_p.is_some()),
            ("top_k", self.top_k.is_some()),
            ("max_tokens", self.tokens_max.is_some()),
            ("stop", !self.stop.is_empty()),
            ("seed", self.seed.is_some()),
            ("presence_penalty", self.presence_penalty.is_some()),
            ("frequency_penalty", self.frequency_penalty.is_some()),
            ("logit_bias", self.logit_bias.is_some()),
            ("response_format", self.response_format.is_some()),
            ("reasoning_effort", self.reasoning_effort.is_some()),
            ("verbosity", self.verbosity.is_some()),
            ("tool_choice", self.tool_choice.is_some()),
            ("parallel_tool_calls", self.single_call),
            ("strict", !self.strict_tools.is_empty()),
            ("user", self.user.is_some()),
        ];
        all.into_iter().filter(|(_, asked)| *asked).map(|(name, _)| name).collect()
    }

    /// What is asked for and not among `taken`. One call a reply is the driver's own to see to, whoever the provider is.
    pub fn except(&self, taken: &[&str]) -> Vec<&'static str> {
        let mut refused = self.names();
        refused.retain(|name| *name != "parallel_tool_calls" && !taken.contains(name));
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_asked_for_is_named_kept_and_read_back() {
        let options = ReplyOptions {
            seed: Some(-7),
            stop: vec![".".into()],
            single_call: true,
            tool_choice: Some(ToolChoice::Function("f".into())),
            response_format: Some(json!({ "type": "json_object" })),
            ..ReplyOptions::default()
        };
        assert_eq!(options.names(), ["stop", "seed", "response_format", "tool_choice", "parallel_tool_calls"]);
        assert_eq!(options.except(&["stop", "tool_choice"]), ["seed", "response_format"]);
        let text = serde_json::to_string(&options).expect("JSON");
        assert_eq!(serde_json::from_str::<ReplyOptions>(&text).expect("options"), options);
        let none = ReplyOptions::default();
        assert_eq!((none.is_empty(), serde_json::to_value(&none).expect("JSON")), (true, json!({})));
    }
}
