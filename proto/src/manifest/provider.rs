//! Language model providers and what they may cost, as a workspace's file names them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::address::HttpUrl;
pub use super::dialect::{DialectSettings, SystemStyle, TokensField};
use super::limits::{FALLBACK_MAX, LINE_BYTES_MAX, WORD_BYTES_MAX};
use super::read::{Section, Value, note_secret};
use super::secret::{InvalidKeySource, KeySource};
use super::units::serialize_duration;
use crate::diagnostic::code;
use crate::tree::TreePath;
use crate::{InvalidId, ProviderName, ToolName};

/// A language model provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Provider {
    /// What is spoken, and with whom.
    #[serde(flatten)]
    pub kind: ProviderKind,
    /// The model of agents that name none.
    pub model: Option<String>,
    /// The longest silence of a provider, before its answer begins and within it; of a tool, the time for its answer.
    #[serde(serialize_with = "serialize_duration")]
    pub timeout: Duration,
    /// Who is asked when this one fails, after an agent's own fallbacks.
    pub fallback: Vec<Fallback>,
    /// What its models cost.
    pub prices: BTreeMap<String, Price>,
    /// How it wants its protocol spoken, where that is known.
    #[serde(skip_serializing_if = "DialectSettings::is_empty")]
    pub dialect: DialectSettings,
}

/// What is spoken with a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProviderKind {
    /// OpenAI's chat completions, which many others speak too.
    #[serde(rename = "openai")]
    OpenAi {
        /// Where; OpenAI itself unless given.
        base_url: Option<HttpUrl>,
        /// Its key; local servers need none.
        api_key: Option<KeySource>,
    },
    /// Ollama, which speaks as OpenAI does.
    Ollama {
        /// Where; the node's `OLLAMA_HOST` unless given.
        base_url: Option<HttpUrl>,
        /// Its key; none on one's own machine.
        api_key: Option<KeySource>,
    },
    /// Anthropic's messages API.
    Anthropic {
        /// Where; Anthropic itself unless given.
        base_url: Option<HttpUrl>,
        /// Where the node finds the API key; the key itself is never in the file.
        api_key: Option<KeySource>,
    },
    /// Answers from a file: for demonstrations and tests.
    Scripted {
        /// The workspace's file with the replies.
        script: TreePath,
    },
    /// A tool of this workspace that exports `chat`.
    Wasm {
        /// The tool whose `chat` answers.
        tool: ToolName,
    },
}

impl ProviderKind {
    /// Where its key is, where it has one.
    pub fn api_key(&self) -> Option<&KeySource> {
        match self {
            ProviderKind::OpenAi { api_key, .. }
            | ProviderKind::Ollama { api_key, .. }
            | ProviderKind::Anthropic { api_key, .. } => api_key.as_ref(),
            ProviderKind::Scripted { .. } | ProviderKind::Wasm { .. } => None,
        }
    }
}

/// What stands before a tool's name where it takes the place of a provider: `tool:NAME`.
const TOOL_PREFIX: &str = "tool:";
/// The function of a tool that answers as a language model.
pub const CHAT_FUNCTION: &str = "chat";
/// The longest silence of a provider that does not say.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Who is asked, as an agent's file or `[llm]` names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProviderRef {
    /// One of the workspace's `[providers.NAME]`.
    Named(ProviderName),
    /// A tool of the workspace that exports `chat`: `tool:NAME`, without a `[providers.NAME]` of its own.
    Tool(ToolName),
}

impl ProviderRef {
    /// The provider's name, where it has one.
    pub fn named(&self) -> Option<&ProviderName> {
        match self {
            ProviderRef::Named(name) => Some(name),
            ProviderRef::Tool(_) => None,
        }
    }
}

impl FromStr for ProviderRef {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<ProviderRef, InvalidId> {
        match text.strip_prefix(TOOL_PREFIX) {
            Some(tool) => tool.parse().map(ProviderRef::Tool),
            None => text.parse().map(ProviderRef::Named),
        }
    }
}

impl fmt::Display for ProviderRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProviderRef::Named(name) => name.fmt(f),
            ProviderRef::Tool(tool) => write!(f, "{TOOL_PREFIX}{tool}"),
        }
    }
}

impl Serialize for ProviderRef {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A provider that stands in for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fallback {
    /// The provider that is asked next.
    pub provider: ProviderRef,
    /// Its model; the provider's own default when there is none.
    pub model: Option<String>,
}

/// An amount of money in millionths of a US dollar, so that sums are exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroUsd(pub u64);

impl Serialize for MicroUsd {
    /// As dollars, which is what files say.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.0 as f64 / 1e6)
    }
}

impl MicroUsd {
    fn from_usd(usd: f64) -> MicroUsd {
        // Callers have checked that the number is finite, not negative and small enough.
        MicroUsd((usd * 1e6).round() as u64)
    }
}

impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, format!("{:06}", self.0 % 1_000_000));
        let rest = rest.trim_end_matches('0');
        write!(f, "${whole}.{rest:0<2}")
    }
}

/// What a model costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Price {
    /// For a million tokens of the prompt.
    pub input: MicroUsd,
    /// For a million tokens of the answer.
    pub output: MicroUsd,
}

impl Price {
    /// What an exchange costs, rounded up.
    pub fn of(&self, tokens_in: u64, tokens_out: u64) -> MicroUsd {
        let part = |price: MicroUsd, tokens: u64| u128::from(price.0) * u128::from(tokens);
        let total = part(self.input, tokens_in) + part(self.output, tokens_out);
        MicroUsd(u64::try_from(total.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}

/// What may be spent in a day (UTC); without a number there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Tokens, in and out together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Money, by the providers' prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_day: Option<MicroUsd>,
}

impl Budget {
    pub(super) fn read(root: &mut Section<'_, '_>) -> Budget {
        let Some(mut section) = root.section("budget") else { return Budget::default() };
        let tokens = section.get("tokens_per_day").and_then(|value| value.integer(0..=1_000_000_000_000));
        let usd = section.get("usd_per_day").and_then(|value| value.number(0.0..=1_000_000.0));
        section.finish(&[]);
        Budget { tokens_per_day: tokens, usd_per_day: usd.map(MicroUsd::from_usd) }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    OpenAi,
    Ollama,
    Anthropic,
    Scripted,
    Wasm,
}

impl Provider {
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Provider> {
        let kinds = [
            ("openai", Kind::OpenAi),
            ("ollama", Kind::Ollama),
            ("anthropic", Kind::Anthropic),
            ("scripted", Kind::Scripted),
            ("wasm", Kind::Wasm),
        ];
        let help = "say what it speaks: kind = \"openai\" (and everything compatible), \"ollama\", \"anthropic\", \"scripted\" or \"wasm\"";
        let mut dialect = DialectSettings::default();
        let kind = section.require("kind", help).and_then(|value| value.choice(&kinds));
        let kind = match kind? {
            Kind::OpenAi => {
                let (base_url, api_key) = read_remote(&mut section);
                dialect = DialectSettings::read_openai(&mut section);
                Some(ProviderKind::OpenAi { base_url, api_key })
            }
            Kind::Ollama => {
                let (base_url, api_key) = read_remote(&mut section);
                dialect = DialectSettings::read_openai(&mut section);
                Some(ProviderKind::Ollama { base_url, api_key })
            }
            Kind::Anthropic => {
                let (base_url, api_key) = read_remote(&mut section);
                dialect = DialectSettings::read_anthropic(&mut section);
                Some(ProviderKind::Anthropic { base_url, api_key })
            }
            Kind::Scripted => {
                let script =
                    section.require("script", "name the file with its answers: script = \"prompts/script.toml\"");
                script.and_then(|value| value.parse(LINE_BYTES_MAX)).map(|script| ProviderKind::Scripted { script })
            }
            Kind::Wasm => {
                let tool = section.require("tool", "name the tool that exports `chat`: tool = \"NAME\"");
                tool.and_then(|value| value.parse(usize::MAX)).map(|tool| ProviderKind::Wasm { tool })
            }
        };
        let model = section.get("model").and_then(|value| value.some_text(WORD_BYTES_MAX));
        let time = Duration::from_millis(100)..=Duration::from_secs(3_600);
        let timeout = section.get("timeout").and_then(|value| value.duration(time));
        let fallback = section.get("fallback").map(|value| read_fallback(&value)).unwrap_or_default();
        let prices = section.section("prices").map(read_prices).unwrap_or_default();
        section.finish(&[("key", "`api_key`"), ("url", "`base_url`")]);
        let timeout = timeout.unwrap_or(TIMEOUT);
        Some(Provider { kind: kind?, model: model.map(str::to_owned), timeout, fallback, prices, dialect })
    }
}

fn read_remote(section: &mut Section<'_, '_>) -> (Option<HttpUrl>, Option<KeySource>) {
    let base_url = section.get("base_url").and_then(|value| value.parse(LINE_BYTES_MAX));
    let api_key = section.get("api_key").and_then(|value| read_key(&value));
    (base_url, api_key)
}

/// Reads where a key is. One that stands in the file itself is noted without being shown.
pub(super) fn read_key(value: &Value<'_, '_>) -> Option<KeySource> {
    let key = value.key();
    match value.text(LINE_BYTES_MAX)?.parse() {
        Ok(source) => Some(source),
        Err(error @ InvalidKeySource::NoSource) => {
            note_secret(value, &format!("`{key}` has to say where the key is, not what it is"), &error.to_string());
            None
        }
        Err(error @ InvalidKeySource::Name(_)) => {
            value.problem(code::BAD_VALUE, format!("`{key}` has a bad value"), error.to_string());
            None
        }
    }
}

fn read_prices(section: Section<'_, '_>) -> BTreeMap<String, Price> {
    let mut prices = BTreeMap::new();
    for (model, value) in section.entries() {
        let Some(mut price) = value.section("a price".into()) else { continue };
        let help = "give dollars for a million tokens: { input = 2.5, output = 10.0 }";
        let mut usd = |key| price.require(key, help).and_then(|value| value.number(0.0..=1_000_000.0));
        let (input, output) = (usd("input"), usd("output"));
        price.finish(&[]);
        if let (Some(input), Some(output)) = (input, output) {
            let price = Price { input: MicroUsd::from_usd(input), output: MicroUsd::from_usd(output) };
            prices.insert((*model.get_ref()).to_owned(), price);
        }
    }
    prices
}

/// Reads a list of `"provider"` and `"provider/model"`.
pub(super) fn read_fallback(value: &Value<'_, '_>) -> Vec<Fallback> {
    let mut chain: Vec<Fallback> = Vec::new();
    for item in value.list_of(FALLBACK_MAX) {
        let Some(text) = item.some_text(WORD_BYTES_MAX) else { continue };
        let (provider, model) = match text.split_once('/') {
            Some((provider, model)) => (provider, Some(model.to_owned())),
            None => (text, None),
        };
        match provider.parse() {
            Ok(provider) => {
                let next = Fallback { provider, model: model.filter(|model| !model.is_empty()) };
                if chain.contains(&next) {
                    item.problem(code::DUPLICATE, format!("`{text}` is there twice"), "again here");
                }
                chain.push(next);
            }
            Err(error) => {
                let message = "an entry of `fallback` is \"provider\" or \"provider/model\"";
                item.problem(code::BAD_VALUE, message, error.to_string());
            }
        }
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact_and_rounded_up() {
        let price = Price { input: MicroUsd::from_usd(2.5), output: MicroUsd::from_usd(10.0) };
        assert_eq!(price.of(1_000_000, 100_000), MicroUsd(3_500_000));
        assert_eq!(price.of(1, 0), MicroUsd(3));
        assert_eq!(price.of(0, 0), MicroUsd(0));
        assert_eq!(price.of(u64::MAX, u64::MAX), MicroUsd(u64::MAX));
        assert_eq!(MicroUsd(3_500_000).to_string(), "$3.50");
        assert_eq!(MicroUsd(1).to_string(), "$0.000001");
    }

    #[test]
    fn a_provider_is_named_or_is_a_tool() {
        for text in ["main", "tool:plain-model"] {
            assert_eq!(text.parse::<ProviderRef>().expect(text).to_string(), text);
        }
        assert_eq!("tool:m".parse(), Ok(ProviderRef::Tool("m".parse().expect("a name"))));
        for bad in ["", "tool:", "tool:M", "tools:m", "tool:a:b"] {
            assert!(bad.parse::<ProviderRef>().is_err(), "{bad}");
        }
    }
}
