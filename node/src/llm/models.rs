//! All models of a node behind one call: budget, circuit breaker, tries with pauses, then the next model of the chain.
//!
//! This is the only place that retries. A reply that was streamed in part and then broke is asked for again, and the
//! listener is told that what it heard does not count.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use caxton_proto::manifest::provider::Price;
use tracing::{Instrument, Span, field, info_span, warn};

use super::budget::{Account, Budgets, Charges, FREE, Reservation};
use super::providers::{Backend, Providers, Speech};
use super::{
    ChatRequest, Deltas, Error, Exchange, Provider, Reply, ReplyOptions, ScriptedProvider, Tape, Usage, usage_guess,
};
use crate::telemetry::labels;
use crate::time::{day_of, now_ms};

/// A model of an agent's chain.
#[derive(Debug, Clone)]
pub struct Target {
    /// The provider's name.
    pub provider: String,
    /// The model's name at the provider; for a scripted one the script's path in the workspace.
    pub model: String,
    /// Who is asked.
    pub voice: Voice,
}

impl Target {
    /// Which of these options it cannot take, by their names.
    pub fn refuses(&self, options: &ReplyOptions) -> Vec<&'static str> {
        match &self.voice {
            Voice::Backend(backend) => backend.provider.refuses(options),
            Voice::Speech(Speech::Script(script)) => {
                ScriptedProvider::new(&self.model, Arc::clone(script)).refuses(options)
            }
            Voice::Speech(Speech::Recording(player)) => player.refuses(options),
            // What is wrong with it is said when it is asked.
            Voice::Unusable(_) => Vec::new(),
        }
    }
}

/// Who is asked.
#[derive(Debug, Clone)]
pub enum Voice {
    Backend(Arc<Backend>),
    Speech(Speech),
    /// Nobody, because of what is wrong with the provider's settings; the next of the chain may do.
    Unusable(Arc<Error>),
}

/// What one call to [`Models::chat`] asks.
pub struct Ask<'a> {
    /// The chain: the first that answers is heard.
    pub targets: &'a [Target],
    pub account: &'a Account,
    /// The request; its model is filled in from the chain.
    pub request: ChatRequest,
    pub deltas: &'a Deltas,
    /// Where what was used is added, also of requests that failed, and of one that is given up half-way.
    pub charged: &'a Charges,
}

/// A reply and where it came from.
#[derive(Debug)]
pub struct Answered {
    pub reply: Reply,
    /// The provider that gave it.
    pub provider: String,
    /// The model that gave it.
    pub model: String,
    /// Requests that were made, failed ones among them.
    pub tries: u32,
}

/// The node's models.
pub struct Models {
    providers: Providers,
    budgets: Budgets,
    tape: Option<Arc<Tape>>,
    started: Instant,
}

impl Models {
    /// Models behind these providers.
    pub fn new(providers: Providers) -> Models {
        Models { providers, budgets: Budgets::default(), tape: None, started: Instant::now() }
    }

    /// The same, and what real providers answer is kept on `tape`.
    pub fn recorded(self, tape: Tape) -> Models {
        Models { tape: Some(Arc::new(tape)), ..self }
    }

    /// Who can be asked.
    pub fn providers(&self) -> &Providers {
        &self.providers
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
                Ok(reply) => {
                    let (provider, model) = (target.provider.clone(), target.model.clone());
                    return Ok(Answered { reply, provider, model, tries });
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
            (None, _) => Err(Error::NoModel),
        }
    }

    async fn chat_with(&self, target: &Target, ask: &Ask<'_>, tries: &mut u32) -> Result<Reply, Error> {
        let refused = if ask.request.options.is_empty() { Vec::new() } else { target.refuses(&ask.request.options) };
        if !refused.is_empty() {
            let problem = format!("it does not take {}", refused.join(", "));
            return Err(Error::Setup { provider: target.provider.clone(), problem });
        }
        match &target.voice {
            Voice::Backend(backend) => self.ask_backend(backend, target, ask, tries).await,
            Voice::Speech(Speech::Script(script)) => {
                self.request(&ScriptedProvider::new(&target.model, Arc::clone(script)), FREE, ask, tries).await
            }
            Voice::Speech(Speech::Recording(player)) => self.request(&**player, FREE, ask, tries).await,
            Voice::Unusable(error) => Err((**error).clone()),
        }
    }

    async fn ask_backend(
        &self,
        backend: &Backend,
        target: &Target,
        ask: &Ask<'_>,
        tries: &mut u32,
    ) -> Result<Reply, Error> {
        let price = backend.prices.get(&target.model).copied().unwrap_or(FREE);
        let schedule = self.providers.schedule();
        let mut failed = 0;
        loop {
            self.admit(backend)?;
            let result = self.request(&*backend.provider, price, ask, tries).await;
            self.learn(backend, &result);
            let error = match result {
                Ok(answer) => {
                    self.keep(ask, target, &answer).await;
                    return Ok(answer);
                }
                Err(error) => error,
            };
            failed += 1;
            let chance = uuid::Uuid::new_v4().as_u64_pair().0;
            match schedule.pause(failed, error.retry_after(), chance).filter(|_| error.is_passing()) {
                None => return Err(error),
                Some(pause) => {
                    let pause_ms = pause.as_millis() as u64;
                    // What a provider says may quote the request, which belongs in no log.
                    let reason = if let Error::Unreachable { .. } = &error { error.to_string() } else { String::new() };
                    warn!(provider = %backend.name, kind = error.kind(), reason, pause_ms, "asking again");
                    tokio::time::sleep(pause).await;
                    ask.deltas.restart().await;
                }
            }
        }
    }

    /// Puts an exchange on the tape, if there is one. A tape that is full stops no answer.
    async fn keep(&self, ask: &Ask<'_>, target: &Target, reply: &Reply) {
        let Some(tape) = self.tape.clone() else { return };
        let exchange = Exchange::of(&ask.request, reply);
        let (workspace, provider) = (ask.account.workspace.clone(), target.provider.clone());
        let kept = crate::tasks::blocking(move || tape.keep(&workspace, &provider, &exchange));
        if let Ok(Err(error)) = kept.await {
            warn!(provider = %target.provider, %error, "a model's answer could not be recorded");
        }
    }

    /// One request: sets aside its budget, makes it, settles.
    async fn request<'a>(
        &'a self,
        provider: &dyn Provider,
        price: Price,
        ask: &'a Ask<'a>,
        tries: &mut u32,
    ) -> Result<Reply, Error> {
        let request = &ask.request;
        let input = usage_guess(request, "", &[]).input;
        let wanted = request.tokens_max.map(u64::from);
        let reserved = self.budgets.reserve(today(), ask.account, price, input, wanted).await?;
        let mut limited = None;
        if let Some(output_max) = reserved.output_max {
            let mut request = request.clone();
            request.tokens_max = Some(u32::try_from(output_max).unwrap_or(u32::MAX));
            limited = Some(request);
        }
        *tries += 1;
        ask.deltas.clear();
        let settle = Settle { budgets: &self.budgets, reserved: Some(reserved), ask, input };
        let reply = super::bounded(provider.chat(limited.as_ref().unwrap_or(request), ask.deltas).await?);
        settle.with(reply.usage);
        Ok(reply)
    }

    fn admit(&self, backend: &Backend) -> Result<(), Error> {
        let mut breaker = backend.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        breaker.admit(self.now_ms()).map_err(|rest| Error::CircuitOpen {
            provider: backend.name.clone(),
            failures: breaker.failures(),
            rest,
        })
    }

    fn learn(&self, backend: &Backend, result: &Result<Reply, Error>) {
        let mut breaker = backend.breaker.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Charges what was used, and gives the rest of what was set aside back: also when the request fails in the middle, or
/// is dropped, since a provider that has begun to answer charges for it as well.
struct Settle<'a> {
    budgets: &'a Budgets,
    reserved: Option<Reservation>,
    ask: &'a Ask<'a>,
    /// The guess for the request's tokens.
    input: u64,
}

impl Settle<'_> {
    fn with(mut self, usage: Usage) {
        self.settle(usage);
    }

    fn settle(&mut self, usage: Usage) {
        if let Some(reserved) = self.reserved.take() {
            self.ask.charged.add(self.budgets.settle(reserved, usage));
        }
    }
}

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        self.settle(self.ask.deltas.used(self.input));
    }
}

/// Days since 1970, in UTC.
pub fn today() -> u64 {
    day_of(now_ms())
}

fn observe(span: &Span, target: &Target, began: Instant, result: &Result<Reply, Error>) {
    let labels = [
        ("gen_ai_provider_name", labels::bounded("gen_ai_provider_name", &target.provider)),
        ("gen_ai_request_model", labels::bounded("gen_ai_request_model", &target.model)),
        ("error_type", result.as_ref().err().map_or("", Error::kind).to_owned()),
    ];
    metrics::histogram!("gen_ai_client_operation_duration_seconds", &labels).record(began.elapsed().as_secs_f64());
    match result {
        Ok(reply) => {
            span.record("gen_ai.response.model", &reply.model);
            span.record("gen_ai.usage.input_tokens", reply.usage.input);
            span.record("gen_ai.usage.output_tokens", reply.usage.output);
            for (kind, tokens) in [("input", reply.usage.input), ("output", reply.usage.output)] {
                let labels = [
                    ("gen_ai_provider_name", labels::bounded("gen_ai_provider_name", &target.provider)),
                    ("gen_ai_request_model", labels::bounded("gen_ai_request_model", &target.model)),
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
