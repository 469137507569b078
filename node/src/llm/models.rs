//! All models of a node behind one call: budget, circuit breaker, tries with pauses, then the next model of the chain.
//!
//! This is the only place that retries. A reply that was streamed in part and then broke is asked for again, and the
//! listener is told that what it heard does not count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{Instrument, Span, field, info_span, warn};

use super::breaker::Breaker;
use super::budget::{Account, Budgets, Price, Spent};
use super::retry::Schedule;
use super::scripted::Script;
use super::{
    Anthropic, ChatRequest, Deltas, Endpoint, Error, Key, OpenAi, Player, Provider, Reply, Scripted, Usage, usage_guess,
};

/// The provider that speaks by a file of the workspace.
pub const SCRIPTED: &str = "scripted";
/// How a provider is added, for errors.
const PROVIDER_HELP: &str =
    "set OPENAI_API_KEY or ANTHROPIC_API_KEY for the server, or name the provider in its settings, and start it again";

/// A model of an agent's chain.
#[derive(Debug, Clone)]
pub struct Target {
    /// The provider's name on this node.
    pub provider: String,
    /// The model's name at the provider; for `scripted` the script's path in the workspace.
    pub model: String,
    /// What a scripted model says.
    pub speech: Option<Speech>,
}

/// What a scripted model says.
#[derive(Debug, Clone)]
pub enum Speech {
    /// Rules.
    Script(Arc<Script>),
    /// A recording.
    Recording(Arc<Player>),
}

impl Speech {
    /// Reads the file that a scripted model is named by: `.jsonl` is a recording, anything else a script.
    pub fn parse(path: &str, text: &str) -> Result<Speech, Error> {
        if path.ends_with(".jsonl") {
            Ok(Speech::Recording(Arc::new(Player::parse(path, text)?)))
        } else {
            Ok(Speech::Script(Arc::new(Script::parse(path, text)?)))
        }
    }
}

/// How a provider is reached.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its address up to the version.
    pub base: String,
    /// Its key.
    pub key: Key,
    /// The longest silence.
    pub silence: Duration,
    /// Its models' prices, by name.
    pub prices: BTreeMap<String, Price>,
}

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Chat Completions.
    OpenAi,
    /// The Messages API.
    Anthropic,
}

/// The providers of a node.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// By name.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// When a failed request is made again.
    pub schedule: Schedule,
}

/// How long a provider may be silent.
pub const SILENCE: Duration = Duration::from_secs(60);

impl Settings {
    /// The providers that the environment knows: those whose keys are set, and Ollama, which needs none.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Settings {
        let mut providers = BTreeMap::new();
        let mut add = |name: &str, protocol, base: String, key| {
            let settings = ProviderSettings { protocol, base, key, silence: SILENCE, prices: BTreeMap::new() };
            providers.insert(name.to_owned(), settings);
        };
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let base = |name: &str, default: &str| set(name).unwrap_or_else(|| default.to_owned());
        if let Some(key) = set("OPENAI_API_KEY") {
            add("openai", Protocol::OpenAi, base("OPENAI_BASE_URL", "https://api.openai.com/v1"), Key::new(&key));
        }
        if let Some(key) = set("OPENROUTER_API_KEY") {
            add("openrouter", Protocol::OpenAi, "https://openrouter.ai/api/v1".to_owned(), Key::new(&key));
        }
        if let Some(key) = set("ANTHROPIC_API_KEY") {
            let base = base("ANTHROPIC_BASE_URL", "https://api.anthropic.com/v1");
            add("anthropic", Protocol::Anthropic, base, Key::new(&key));
        }
        let host = base("OLLAMA_HOST", "http://127.0.0.1:11434");
        let host = if host.contains("://") { host } else { format!("http://{host}") };
        add("ollama", Protocol::OpenAi, format!("{}/v1", host.trim_end_matches('/')), Key::none());
        Settings { providers, schedule: Schedule::default() }
    }
}

struct Registered {
    provider: Arc<dyn Provider>,
    breaker: Mutex<Breaker>,
    prices: BTreeMap<String, Price>,
}

/// What one call to [`Models::chat`] asks.
pub struct Ask<'a> {
    /// The chain: the first that answers is heard.
    pub targets: &'a [Target],
    /// Who pays.
    pub account: &'a Account,
    /// The request; its model is filled in from the chain.
    pub request: ChatRequest,
    /// Who listens.
    pub deltas: &'a Deltas,
}

/// A reply and where it came from.
#[derive(Debug)]
pub struct Answered {
    /// It.
    pub reply: Reply,
    /// The provider that gave it.
    pub provider: String,
    /// The model that gave it.
    pub model: String,
    /// Requests that were made, failed ones among them.
    pub tries: u32,
    /// What it cost.
    pub spent: Spent,
}

/// The node's models.
pub struct Models {
    providers: BTreeMap<String, Registered>,
    budgets: Budgets,
    schedule: Schedule,
    started: Instant,
}

impl Models {
    /// Prepares every provider; no request is made yet.
    pub fn new(settings: Settings) -> Result<Models, Error> {
        let mut models = Models {
            providers: BTreeMap::new(),
            budgets: Budgets::default(),
            schedule: settings.schedule,
            started: Instant::now(),
        };
        for (name, settings) in settings.providers {
            let endpoint = Endpoint::new(&name, &settings.base, settings.key, settings.silence)?;
            let provider: Arc<dyn Provider> = match settings.protocol {
                Protocol::OpenAi => Arc::new(OpenAi::new(endpoint)),
                Protocol::Anthropic => Arc::new(Anthropic::new(endpoint)),
            };
            models.register(&name, provider, settings.prices);
        }
        Ok(models)
    }

    /// Adds a provider of any kind under a name.
    pub fn register(&mut self, name: &str, provider: Arc<dyn Provider>, prices: BTreeMap<String, Price>) {
        self.providers.insert(name.to_owned(), Registered { provider, breaker: Mutex::default(), prices });
    }

    /// The names of the providers, `scripted` among them.
    pub fn names(&self) -> Vec<String> {
        self.providers.keys().cloned().chain([SCRIPTED.to_owned()]).collect()
    }

    /// What was used today.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Asks the chain's models one after the other until one answers.
    pub async fn chat(&self, mut ask: Ask<'_>) -> Result<Answered, Error> {
        let mut tries = 0;
        let mut failures = Vec::new();
        for target in ask.targets {
            ask.request.model.clone_from(&target.model);
            let span = info_span!(
                "chat",
                otel.name = format!("chat {}", target.model),
                otel.kind = "client",
                gen_ai.operation.name = "chat",
                gen_ai.provider.name = %target.provider,
                gen_ai.request.model = %target.model,
                gen_ai.response.model = field::Empty,
                gen_ai.usage.input_tokens = field::Empty,
                gen_ai.usage.output_tokens = field::Empty,
                error.type = field::Empty,
            );
            let began = Instant::now();
            let result = self.chat_with(target, &ask, &mut tries).instrument(span.clone()).await;
            observe(&span, target, began, &result);
            match result {
                Ok((reply, spent)) => {
                    let (provider, model) = (target.provider.clone(), target.model.clone());
                    return Ok(Answered { reply, provider, model, tries, spent });
                }
                Err(error) if error.falls_back() => failures.push(error),
                Err(error) => return Err(error),
            }
            if failures.len() < ask.targets.len() {
                warn!(provider = %target.provider, "a model did not answer, the next one of the chain is asked");
                ask.deltas.restart().await;
            }
        }
        let tried = failures.len();
        match (failures.pop(), tried) {
            (Some(only), 1) => Err(only),
            (Some(last), tried) => Err(Error::AllFailed { tried, last: Box::new(last) }),
            (None, _) => Err(Error::UnknownProvider {
                provider: "(none)".to_owned(),
                known: self.names(),
                help: "name one under [llm] in the agent's file or in caxton.toml".to_owned(),
            }),
        }
    }

    async fn chat_with(&self, target: &Target, ask: &Ask<'_>, tries: &mut u32) -> Result<(Reply, Spent), Error> {
        if let Some(speech) = &target.speech {
            let provider: Arc<dyn Provider> = match speech {
                Speech::Script(script) => Arc::new(Scripted::new(&target.model, Arc::clone(script))),
                Speech::Recording(player) => Arc::clone(player) as Arc<dyn Provider>,
            };
            return self.request(&*provider, Price::default(), ask, tries).await;
        }
        let registered = self.providers.get(&target.provider).ok_or_else(|| Error::UnknownProvider {
            provider: target.provider.clone(),
            known: self.names(),
            help: PROVIDER_HELP.to_owned(),
        })?;
        let price = registered.prices.get(&target.model).copied().unwrap_or_default();
        let mut failed = 0;
        loop {
            self.admit(&target.provider, registered)?;
            let result = self.request(&*registered.provider, price, ask, tries).await;
            self.learn(registered, &result);
            let error = match result {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failed += 1;
            let chance = uuid::Uuid::new_v4().as_u64_pair().0;
            match self.schedule.pause(failed, error.retry_after(), chance).filter(|_| error.is_passing()) {
                None => return Err(error),
                Some(pause) => {
                    warn!(provider = %target.provider, kind = error.kind(), pause_ms = pause.as_millis() as u64, "asking again");
                    tokio::time::sleep(pause).await;
                    ask.deltas.restart().await;
                }
            }
        }
    }

    /// One request: sets aside its budget, makes it, settles.
    async fn request(
        &self,
        provider: &dyn Provider,
        price: Price,
        ask: &Ask<'_>,
        tries: &mut u32,
    ) -> Result<(Reply, Spent), Error> {
        let request = &ask.request;
        let input = usage_guess(request, "", &[]).input;
        let wanted = request.tokens_max.map(u64::from);
        let reserved = self.budgets.reserve(today(), ask.account, price, input, wanted)?;
        let mut limited = None;
        if let Some(output_max) = reserved.output_max {
            let mut request = request.clone();
            request.tokens_max = Some(u32::try_from(output_max).unwrap_or(u32::MAX));
            limited = Some(request);
        }
        *tries += 1;
        let settle = Settle { budgets: &self.budgets, reserved: Some(reserved) };
        let reply = provider.chat(limited.as_ref().unwrap_or(request), ask.deltas).await?;
        let spent = settle.with(reply.usage);
        Ok((reply, spent))
    }

    fn admit(&self, provider: &str, registered: &Registered) -> Result<(), Error> {
        let mut breaker = registered.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        breaker.admit(self.now_ms()).map_err(|rest| Error::CircuitOpen {
            provider: provider.to_owned(),
            failures: breaker.failures(),
            rest,
        })
    }

    fn learn(&self, registered: &Registered, result: &Result<(Reply, Spent), Error>) {
        let mut breaker = registered.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            // "Busy" with a wish is a healthy provider that paces us.
            Err(error) if error.is_passing() && error.retry_after().is_none() => breaker.failed(self.now_ms()),
            Err(_) => {}
            Ok(_) => breaker.succeeded(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// Gives back what was set aside also when the request is dropped half-way.
struct Settle<'a> {
    budgets: &'a Budgets,
    reserved: Option<super::budget::Reserved>,
}

impl Settle<'_> {
    fn with(mut self, usage: Usage) -> Spent {
        self.reserved.take().map(|reserved| self.budgets.settle(reserved, usage)).unwrap_or_default()
    }
}

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            self.budgets.settle(reserved, Usage::default());
        }
    }
}

/// Days since 1970, in UTC.
pub fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400)
}

fn observe(span: &Span, target: &Target, began: Instant, result: &Result<(Reply, Spent), Error>) {
    let labels = [
        ("gen_ai_provider_name", target.provider.clone()),
        ("gen_ai_request_model", target.model.clone()),
        ("error_type", result.as_ref().err().map_or("", Error::kind).to_owned()),
    ];
    metrics::histogram!("gen_ai_client_operation_duration_seconds", &labels).record(began.elapsed().as_secs_f64());
    match result {
        Ok((reply, _)) => {
            span.record("gen_ai.response.model", &reply.model);
            span.record("gen_ai.usage.input_tokens", reply.usage.input);
            span.record("gen_ai.usage.output_tokens", reply.usage.output);
            for (kind, tokens) in [("input", reply.usage.input), ("output", reply.usage.output)] {
                let labels = [
                    ("gen_ai_provider_name", target.provider.clone()),
                    ("gen_ai_request_model", target.model.clone()),
                    ("gen_ai_token_type", kind.to_owned()),
                ];
                metrics::histogram!("gen_ai_client_token_usage", &labels).record(tokens as f64);
            }
        }
        Err(error) => {
            span.record("error.type", error.kind());
        }
    }
}
