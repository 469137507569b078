//! How a provider that speaks a known protocol wants it spoken: which of several words for one thing, and what it takes
//! not at all.
//!
//! What caxton.toml says holds. What it leaves open has a default by the provider's host, and is learnt from a refusal:
//! once, for the address and the model, until the node is started anew.

mod lesson;
pub(super) mod names;
pub(super) mod schema;
pub(super) mod thread;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use caxton_proto::manifest::provider::{DialectSettings, SystemStyle, TokensField};

pub(super) use lesson::{Lesson, RequestFeatures, lesson};

use super::limits::LESSONS_MAX;
use super::proxies::host_of;

/// A dialect, with everything decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// The name of the longest reply.
    pub tokens_field: TokensField,
    /// The longest reply that may be asked for, where the provider named it.
    pub tokens_max: Option<u32>,
    /// Replies are streamed.
    pub stream: bool,
    /// The tokens of a stream are asked for (`stream_options`).
    pub stream_usage: bool,
    /// Tools are sent.
    pub tools: bool,
    /// Where instructions stand.
    pub system: SystemStyle,
    /// Tools' schemas are written as OpenAI checks them.
    pub strict_schemas: bool,
    /// Tools' names are written as OpenAI checks them.
    pub strict_names: bool,
    /// `temperature` is sent.
    pub temperature: bool,
    /// Ids of calls have nine letters and digits.
    pub short_ids: bool,
    /// Messages of one role in a row become one.
    pub alternate_roles: bool,
    /// Reasoning and signatures are sent back.
    pub reasoning: bool,
    /// A call of another model has reasoning beside it as well.
    pub fill_reasoning: bool,
    /// A call of another model has a signature of a thought beside it as well.
    pub fill_signature: bool,
    /// A message that only calls has empty text and not `null`.
    pub empty_content: bool,
    /// The header that the key goes into, where it is not the protocol's own.
    pub key_header: Option<String>,
}

impl Default for Dialect {
    /// What nearly everybody takes.
    fn default() -> Dialect {
        Dialect {
            tokens_field: TokensField::MaxTokens,
            tokens_max: None,
            stream: true,
            stream_usage: true,
            tools: true,
            system: SystemStyle::One,
            strict_schemas: true,
            strict_names: true,
            temperature: true,
            short_ids: false,
            alternate_roles: false,
            reasoning: true,
            fill_reasoning: false,
            fill_signature: false,
            empty_content: false,
            key_header: None,
        }
    }
}

impl Dialect {
    /// The dialect of a host.
    pub fn of_host(base: &str) -> Dialect {
        let host = host_of(base).to_ascii_lowercase();
        let is = |name: &str| host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        let plain = Dialect::default();
        if is("api.openai.com") {
            Dialect { tokens_field: TokensField::MaxCompletionTokens, system: SystemStyle::Many, ..plain }
        } else if is("openai.azure.com") || is("services.ai.azure.com") || is("cognitiveservices.azure.com") {
            let key_header = Some("api-key".to_owned());
            Dialect { tokens_field: TokensField::MaxCompletionTokens, system: SystemStyle::Many, key_header, ..plain }
        } else if is("api.groq.com") {
            Dialect { tokens_field: TokensField::MaxCompletionTokens, ..plain }
        } else if is("mistral.ai") {
            Dialect { stream_usage: false, short_ids: true, ..plain }
        } else if is("generativelanguage.googleapis.com") {
            Dialect { fill_signature: true, ..plain }
        } else {
            plain
        }
    }

    /// The same with what a model of this name is known to refuse.
    fn of_model(mut self, base: &str, model: &str) -> Dialect {
        let maker = ["api.openai.com", "openai.azure.com", "openrouter.ai"];
        let host = host_of(base).to_ascii_lowercase();
        let name = model.rsplit('/').next().unwrap_or(model);
        let thinks = ["o1", "o3", "o4", "gpt-5"]
            .iter()
            .any(|start| name.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.'])));
        if thinks && !name.contains("chat") && maker.iter().any(|maker| host.ends_with(maker)) {
            self.temperature = false;
        }
        self
    }

    /// The same with what caxton.toml says.
    fn set(mut self, settings: &DialectSettings) -> Dialect {
        fn put<T: Clone>(place: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                place.clone_from(value);
            }
        }
        put(&mut self.tokens_field, &settings.tokens_field);
        put(&mut self.stream, &settings.stream);
        put(&mut self.stream_usage, &settings.stream_usage);
        put(&mut self.tools, &settings.tools);
        put(&mut self.system, &settings.system);
        put(&mut self.strict_schemas, &settings.strict_schemas);
        put(&mut self.strict_names, &settings.strict_names);
        put(&mut self.temperature, &settings.temperature);
        put(&mut self.short_ids, &settings.short_ids);
        put(&mut self.alternate_roles, &settings.alternate_roles);
        put(&mut self.reasoning, &settings.reasoning);
        if settings.key_header.is_some() {
            self.key_header.clone_from(&settings.key_header);
        }
        self
    }
}

/// The dialects of a provider's models: what is set, what its host wants, and what was learnt.
#[derive(Debug, Clone)]
pub struct Dialects {
    base: String,
    host: Dialect,
    settings: DialectSettings,
    lessons: Lessons,
}

impl Dialects {
    /// Those of a provider at `base`.
    pub fn new(base: &str, settings: DialectSettings, lessons: Lessons) -> Dialects {
        Dialects { base: base.to_owned(), host: Dialect::of_host(base), settings, lessons }
    }

    /// What is spoken with `model` now.
    pub fn of(&self, model: &str) -> Dialect {
        let mut dialect = self.host.clone().of_model(&self.base, model);
        for lesson in self.lessons.of(&self.base, model) {
            lesson.apply(&mut dialect);
        }
        dialect.set(&self.settings)
    }

    /// Takes the lesson of a refusal, after which `model` was spoken to in the dialect `used`; false where the request
    /// would be the same once more, because what the lesson says is set otherwise in caxton.toml.
    pub(super) fn learn(&self, model: &str, lesson: Lesson, used: &Dialect) -> bool {
        self.lessons.add(&self.base, model, lesson);
        self.of(model) != *used
    }
}

/// What a node has learnt of providers, by their address and model.
#[derive(Debug, Clone, Default)]
pub struct Lessons(Arc<Mutex<HashMap<(String, String), Vec<Lesson>>>>);

impl Lessons {
    fn of(&self, base: &str, model: &str) -> Vec<Lesson> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            return Vec::new();
        }
        known.get(&(base.to_owned(), model.to_owned())).cloned().unwrap_or_default()
    }

    fn add(&self, base: &str, model: &str, lesson: Lesson) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= LESSONS_MAX {
            known.clear();
        }
        let lessons = known.entry((base.to_owned(), model.to_owned())).or_default();
        lessons.retain(|old| std::mem::discriminant(old) != std::mem::discriminant(&lesson));
        lessons.push(lesson);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_dialect_and_its_namesakes_do_not() {
        let openai = Dialect::of_host("https://api.openai.com/v1");
        assert_eq!((openai.tokens_field, openai.system), (TokensField::MaxCompletionTokens, SystemStyle::Many));
        assert_eq!(Dialect::of_host("https://team.openai.azure.com/openai/v1").key_header.as_deref(), Some("api-key"));
        let mistral = Dialect::of_host("https://api.mistral.ai/v1");
        assert!(mistral.short_ids && !mistral.stream_usage);
        for other in
            ["http://127.0.0.1:9900/openai/v1", "https://api.openai.com.evil.example/v1", "https://notmistral.ai"]
        {
            assert_eq!(Dialect::of_host(other), Dialect::default(), "{other}");
        }
    }

    #[test]
    fn what_is_set_holds_against_what_is_learnt() {
        let base = "http://a.example/v1";
        let settings = DialectSettings { tools: Some(true), ..DialectSettings::default() };
        let dialects = Dialects::new(base, settings, Lessons::default());
        let first = dialects.of("m");
        assert!(!dialects.learn("m", Lesson::NoTools, &first), "the file says that it takes tools");
        assert!(dialects.learn("m", Lesson::NoTemperature, &first));
        assert!(dialects.learn("m", Lesson::NoTemperature, &first), "whoever asked at the same time asks again too");
        assert!(!dialects.learn("m", Lesson::NoTemperature, &dialects.of("m")), "it was not sent");
        assert!(!dialects.of("m").temperature && dialects.of("other").temperature);
    }

    #[test]
    fn what_was_learnt_outlives_a_deployment() {
        let lessons = Lessons::default();
        let dialects = |base: &str| Dialects::new(base, DialectSettings::default(), lessons.clone());
        let first = dialects("http://a.example/v1");
        assert!(first.learn("m", Lesson::NoStreamUsage, &first.of("m")));
        assert!(!dialects("http://a.example/v1").of("m").stream_usage);
        assert!(dialects("http://b.example/v1").of("m").stream_usage);
    }

    #[test]
    fn reasoning_models_of_their_maker_get_no_temperature() {
        let dialects = |base: &str| Dialects::new(base, DialectSettings::default(), Lessons::default());
        let openai = dialects("https://api.openai.com/v1");
        for (model, temperature) in [
            ("o3", false),
            ("o4-mini", false),
            ("gpt-5.1", false),
            ("gpt-5-chat-latest", true),
            ("gpt-4o", true),
            ("o30", true),
        ] {
            assert_eq!(openai.of(model).temperature, temperature, "{model}");
        }
        assert!(dialects("http://localhost:11434/v1").of("o3").temperature);
    }

    #[test]
    fn a_node_does_not_remember_without_end() {
        let lessons = Lessons::default();
        for number in 0..=LESSONS_MAX {
            lessons.add("http://a", &number.to_string(), Lesson::NoTools);
        }
        assert!(lessons.0.lock().expect("no panic").len() <= LESSONS_MAX);
    }
}
