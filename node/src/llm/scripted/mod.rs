//! A model that speaks by a script: the first rule that fits the conversation is its reply. No network, no key, and
//! the same answer every time: for demos and tests.
//!
//! ```toml
//! [[rule]]
//! when.request = ["chart", "draw"]      # the request has one of these words in it
//! when.after = []                       # nothing has been called yet
//! when.can = "chart-generator"          # and this tool can be called
//! when.system = "You draw charts"       # and this is in the system prompt
//! say = "I need the numbers first."
//! [[rule.call]]
//! tool = "ask_capability"
//! arguments = { request = "read the file {{attachment}}" }
//!
//! [[rule]]
//! when.after = ["ask_capability"]       # this is what was called just now
//! say = "The mean is {{ask_capability/mean}}."
//! ```

mod check;

use std::sync::Arc;

pub use check::check;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

use super::template::{self, TemplateError};
use super::{
    ChatRequest, Deltas, Error, Finish, Message, Provider, Reply, ReplyOptions, ToolCall, ToolDefinition, usage_guess,
};
use crate::recalled::without_blocks;

/// About how many bytes a token has, for a model that knows none.
const BYTES_PER_TOKEN: usize = 4;

/// A script may have this many rules.
pub const RULES_MAX: usize = 1_000;

/// A parsed script.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    #[serde(default, rename = "rule")]
    rules: Vec<Rule>,
}

/// What is said when.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    when: When,
    #[serde(default)]
    say: String,
    #[serde(default, rename = "call")]
    calls: Vec<Call>,
}

/// All that is named must hold; what is absent holds always.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    /// One of these is in what the sender says, upper and lower case alike.
    request: Option<OneOrMany>,
    /// Exactly these tools answered since the model last spoke; `[]` when none did.
    after: Option<OneOrMany>,
    /// One of those answers is a failure, or none is.
    failed: Option<bool>,
    /// All of these can be called.
    can: Option<OneOrMany>,
    /// One of these is in the newest message, what is remembered included.
    newest: Option<OneOrMany>,
    /// One of these is in the system prompt.
    system: Option<OneOrMany>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    tool: String,
    #[serde(default)]
    arguments: serde_json::Map<String, Value>,
}

impl OneOrMany {
    fn all(&self) -> &[String] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }

    fn any_in(&self, text: &str) -> bool {
        self.all().iter().any(|wanted| text.contains(&wanted.to_lowercase()))
    }
}

impl Script {
    /// Reads a script, whose file is `path`.
    pub fn parse(path: &str, text: &str) -> Result<Script, Error> {
        let bad = |problem: String| Error::BadScript { script: path.to_owned(), problem };
        let script: Script = toml::from_str(text).map_err(|error| bad(error.to_string()))?;
        if script.rules.is_empty() || script.rules.len() > RULES_MAX {
            return Err(bad(format!("it has {} rules, and needs 1 to {RULES_MAX}", script.rules.len())));
        }
        match script.rules.iter().position(|rule| rule.say.is_empty() && rule.calls.is_empty()) {
            Some(at) => Err(bad(format!("rule {} neither says nor calls anything", at + 1))),
            None => Ok(script),
        }
    }
}

/// A provider that follows one script.
#[derive(Debug, Clone)]
pub struct ScriptedProvider {
    path: Arc<str>,
    script: Arc<Script>,
}

impl ScriptedProvider {
    /// A provider that follows `script`, whose file is `path`.
    pub fn new(path: &str, script: Arc<Script>) -> ScriptedProvider {
        ScriptedProvider { path: path.into(), script }
    }

    fn reply(&self, request: &ChatRequest) -> Result<Reply, Error> {
        let scene = Scene::of(request);
        let rule = self.script.rules.iter().find(|rule| scene.fits(&rule.when));
        let rule = rule.ok_or_else(|| Error::NoRule { script: self.path.to_string(), wanted: scene.wanted() })?;
        let look_up = |name: &str| scene.value(name);
        let bad = |error: TemplateError| Error::BadScript { script: self.path.to_string(), problem: error.to_string() };
        let text = template::fill_text(&rule.say, &look_up).map_err(bad)?;
        let (text, cut) = within(text, &request.options.stop, request.options.tokens_max);
        let mut calls = Vec::with_capacity(rule.calls.len());
        for (place, call) in rule.calls.iter().enumerate() {
            let arguments = template::fill(&Value::Object(call.arguments.clone()), &look_up).map_err(bad)?;
            let id = format!("call_{}_{place}", request.messages.len());
            calls.push(ToolCall { id, tool: call.tool.clone(), arguments: arguments.to_string() });
        }
        let finish = match (cut, calls.is_empty()) {
            (true, _) => Finish::Length,
            (false, true) => Finish::Stop,
            (false, false) => Finish::Calls,
        };
        let usage = usage_guess(request, &text, &calls);
        Ok(Reply { text, calls, usage, finish, model: request.model.clone(), echo: None })
    }
}

impl Provider for ScriptedProvider {
    fn chat<'a>(&'a self, request: &'a ChatRequest, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, Error>> {
        Box::pin(async move {
            let reply = self.reply(request)?;
            for word in reply.text.split_inclusive(' ') {
                deltas.text(word).await;
            }
            Ok(reply)
        })
    }

    /// It draws no words, so that nothing of how they are drawn changes what it says.
    fn refuses(&self, options: &ReplyOptions) -> Vec<&'static str> {
        options.except(&["temperature", "top_p", "top_k", "seed", "max_tokens", "stop", "user"])
    }
}

/// What is said up to a word that ends it, and up to the longest reply; whether that cut it.
fn within(mut text: String, stop: &[String], tokens_max: Option<u32>) -> (String, bool) {
    let ends = stop.iter().filter(|word| !word.is_empty()).filter_map(|word| text.find(word.as_str())).min();
    text.truncate(ends.unwrap_or(text.len()));
    let bytes_max = tokens_max.map_or(usize::MAX, |tokens| (tokens as usize).saturating_mul(BYTES_PER_TOKEN));
    let end = text.floor_char_boundary(bytes_max);
    let cut = end < text.len();
    text.truncate(end);
    (text, cut)
}

/// What a rule looks at: the newest request and what happened since.
struct Scene<'a> {
    tools: &'a [ToolDefinition],
    system: String,
    /// What the sender says. A file that a memory names is none that came with it.
    request: String,
    newest: String,
    /// Results since the request, in order.
    results: Vec<(&'a str, &'a str)>,
    /// The tools that answered since the model last spoke.
    after: Vec<&'a str>,
    failed: bool,
}

impl<'a> Scene<'a> {
    fn of(request: &'a ChatRequest) -> Scene<'a> {
        let messages = request.messages.as_slice();
        let asked = messages.iter().rposition(|message| matches!(message, Message::User { .. }));
        let since = asked.map_or(messages, |at| &messages[at + 1..]);
        let spoke = since.iter().rposition(|message| matches!(message, Message::Assistant { .. }));
        let fresh = spoke.map_or(since, |at| &since[at + 1..]);
        let result = |message: &'a Message| match message {
            Message::Tool { tool, text, .. } => Some((tool.as_str(), text.as_str())),
            _ => None,
        };
        let mut after: Vec<&str> = fresh.iter().filter_map(result).map(|(tool, _)| tool).collect();
        after.sort_unstable();
        after.dedup();
        Scene {
            tools: &request.tools,
            system: messages
                .iter()
                .filter(|message| matches!(message, Message::System { .. }))
                .map(Message::text)
                .collect(),
            request: asked.map(|at| without_blocks(&messages[at].text()).into_owned()).unwrap_or_default(),
            newest: messages.last().map(Message::text).unwrap_or_default(),
            results: since.iter().filter_map(result).collect(),
            failed: fresh.iter().any(|message| matches!(message, Message::Tool { failed: true, .. })),
            after,
        }
    }

    fn fits(&self, when: &When) -> bool {
        let after = |wanted: &OneOrMany| {
            let mut wanted: Vec<&str> = wanted.all().iter().map(String::as_str).collect();
            wanted.sort_unstable();
            wanted == self.after
        };
        when.request.as_ref().is_none_or(|wanted| wanted.any_in(&self.request.to_lowercase()))
            && when.newest.as_ref().is_none_or(|wanted| wanted.any_in(&self.newest.to_lowercase()))
            && when.system.as_ref().is_none_or(|wanted| wanted.any_in(&self.system.to_lowercase()))
            && when.can.as_ref().is_none_or(|wanted| wanted.all().iter().all(|tool| self.can(tool)))
            && when.after.as_ref().is_none_or(after)
            && when.failed.is_none_or(|failed| failed == self.failed)
    }

    fn can(&self, tool: &str) -> bool {
        self.tools.iter().any(|known| known.name == tool)
    }

    /// `request`, `attachment` (the first one named in the request), `newest` (the newest message), or the newest
    /// result of a tool.
    fn value(&self, name: &str) -> Option<Value> {
        match name {
            "request" => Some(Value::String(self.request.clone())),
            "attachment" => {
                let (_, rest) = self.request.split_once("attachment:")?;
                let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '`' | '"' | '\'')).unwrap_or(rest.len());
                Some(Value::String(format!("attachment:{}", &rest[..end])))
            }
            "newest" => Some(Value::String(self.newest.clone())),
            tool => {
                let (_, text) = self.results.iter().rev().find(|(name, _)| *name == tool)?;
                Some(Value::String((*text).to_owned()))
            }
        }
    }

    fn wanted(&self) -> String {
        let request: String = self.request.chars().take(80).collect();
        match self.after.as_slice() {
            [] => format!("the request {request:?}"),
            after => format!("the request {request:?} after {}", after.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recalled::{BEGIN, END};

    const SCRIPT: &str = r#"
        [[rule]]
        when.request = ["CHART", "plot"]
        when.after = []
        [[rule.call]]
        tool = "read"
        arguments = { file = "{{attachment}}" }
        [[rule]]
        when.after = "read"
        when.failed = true
        say = "That did not work: {{read}}"
        [[rule]]
        when.after = "read"
        say = "It has {{read/count}} rows."
    "#;

    fn ask(messages: Vec<Message>) -> Result<Reply, Error> {
        let script = Script::parse("s.toml", SCRIPT).expect("a script");
        let request = ChatRequest {
            model: "s.toml".into(),
            messages,
            tools: Vec::new(),
            temperature: None,
            tokens_max: None,
            needs_tools: false,
            options: crate::llm::ReplyOptions::default(),
        };
        ScriptedProvider::new("s.toml", script.into()).reply(&request)
    }

    fn result(text: &str, failed: bool) -> Vec<Message> {
        let call = ToolCall { id: "1".into(), tool: "read".into(), arguments: "{}".into() };
        vec![
            Message::user("chart it"),
            Message::Assistant { text: String::new(), calls: vec![call], echo: None },
            Message::Tool { call: "1".into(), tool: "read".into(), text: text.into(), failed },
        ]
    }

    #[test]
    fn what_is_remembered_is_no_part_of_the_request() {
        let block = format!("{BEGIN}\n- [memory:1] The chart is attachment:old.svg.\n{END}");
        let asks = Message::user(format!("Chart it\n\n{block}\n\nattached: `attachment:sales.csv`"));
        let reply = ask(vec![asks]).expect("a rule");
        assert_eq!(reply.calls[0].arguments, r#"{"file":"attachment:sales.csv"}"#);
    }

    #[test]
    fn the_first_rule_that_fits_speaks() {
        let reply = ask(vec![Message::user("a Chart of `attachment:sales.csv`, please")]).expect("a rule");
        assert_eq!(reply.calls[0].arguments, r#"{"file":"attachment:sales.csv"}"#);
        assert_eq!(reply.finish, Finish::Calls);
        assert_eq!(ask(result(r#"{"count": 3}"#, false)).expect("a rule").text, "It has 3 rows.");
        assert_eq!(ask(result("no file", true)).expect("a rule").text, "That did not work: no file");
    }

    #[test]
    fn nothing_fitting_is_an_error_that_says_what_was_wanted() {
        let error = ask(vec![Message::user("sing")]).expect_err("no rule");
        assert!(error.to_string().contains("\"sing\""), "{error}");
    }

    #[test]
    fn a_script_is_checked_when_it_is_read() {
        for bad in ["", "[[rule]]", "[[rule]]\nsay = 'x'\nunknown = 1", "not toml"] {
            assert!(Script::parse("s.toml", bad).is_err(), "{bad}");
        }
    }
}
