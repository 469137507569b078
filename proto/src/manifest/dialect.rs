//! How a provider wants its protocol spoken: `[providers.NAME.dialect]` of a workspace's file.
//!
//! Everything here can be left out: the node has a default for each provider's host, and learns from what is refused.

use serde::Serialize;

use super::read::Section;
use crate::diagnostic::code;

/// The longest name of a header.
const HEADER_BYTES_MAX: usize = 64;

/// What a workspace's file says of a provider's dialect; the rest is the node's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DialectSettings {
    /// What the longest reply is called in a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_field: Option<TokensField>,
    /// Whether replies are streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Whether the tokens of a stream are asked for, with `stream_options`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_usage: Option<bool>,
    /// Whether the model takes tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<bool>,
    /// Where instructions stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemStyle>,
    /// Whether tools' schemas are rewritten to what OpenAI's check of them takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_schemas: Option<bool>,
    /// Whether tools' names are rewritten to what OpenAI's check of them takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_names: Option<bool>,
    /// Whether the model takes a temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<bool>,
    /// Whether ids of calls have to be nine letters and digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short_ids: Option<bool>,
    /// Whether messages of one role in a row have to be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternate_roles: Option<bool>,
    /// Whether the model's reasoning and signatures are sent back to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<bool>,
    /// The header that the key goes into, instead of the protocol's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_header: Option<String>,
}

/// What the longest reply is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokensField {
    /// The name that most servers know.
    MaxTokens,
    /// The name that OpenAI's newer models want.
    MaxCompletionTokens,
}

impl TokensField {
    /// The name as it stands in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            TokensField::MaxTokens => "max_tokens",
            TokensField::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// Where instructions stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemStyle {
    /// In one message at the start.
    One,
    /// In messages of their own wherever they were given.
    Many,
    /// Before the first words of the user, for models that know no instructions.
    User,
}

impl DialectSettings {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == DialectSettings::default()
    }

    /// Reads `dialect` of a provider that speaks as OpenAI does.
    pub(super) fn read_openai(provider: &mut Section<'_, '_>) -> DialectSettings {
        let Some(mut section) = provider.section("dialect") else { return DialectSettings::default() };
        let fields =
            [("max_tokens", TokensField::MaxTokens), ("max_completion_tokens", TokensField::MaxCompletionTokens)];
        let styles = [("one", SystemStyle::One), ("many", SystemStyle::Many), ("user", SystemStyle::User)];
        let tokens_field = section.get("tokens_field").and_then(|value| value.choice(&fields));
        let system = section.get("system").and_then(|value| value.choice(&styles));
        let mut flag = |key| section.get(key).and_then(|value| value.boolean());
        let (stream, stream_usage) = (flag("stream"), flag("stream_usage"));
        let (short_ids, alternate_roles) = (flag("short_ids"), flag("alternate_roles"));
        let common = DialectSettings::read_common(&mut section);
        section.finish(&[("max_tokens", "under [llm] in an agent's file")]);
        DialectSettings { tokens_field, system, stream, stream_usage, short_ids, alternate_roles, ..common }
    }

    /// Reads `dialect` of a provider that speaks as Anthropic does.
    pub(super) fn read_anthropic(provider: &mut Section<'_, '_>) -> DialectSettings {
        let Some(mut section) = provider.section("dialect") else { return DialectSettings::default() };
        let common = DialectSettings::read_common(&mut section);
        section.finish(&[("max_tokens", "under [llm] in an agent's file")]);
        common
    }

    fn read_common(section: &mut Section<'_, '_>) -> DialectSettings {
        let mut flag = |key| section.get(key).and_then(|value| value.boolean());
        let (tools, temperature, reasoning) = (flag("tools"), flag("temperature"), flag("reasoning"));
        let (strict_schemas, strict_names) = (flag("strict_schemas"), flag("strict_names"));
        let key_header = section.get("key_header").and_then(|value| {
            let name = value.some_text(HEADER_BYTES_MAX)?;
            if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
                return Some(name.to_owned());
            }
            value.problem(code::BAD_VALUE, "`key_header` has to be the name of a header", "letters, digits and `-`");
            None
        });
        DialectSettings {
            tools,
            temperature,
            reasoning,
            strict_schemas,
            strict_names,
            key_header,
            ..DialectSettings::default()
        }
    }
}
