//! Anthropic's Messages API, streamed, as Anthropic and those who speak it after them have it.

mod body;
mod draft;

use futures::future::BoxFuture;
use serde_json::Value;
use tracing::info;

use self::body::Wording;
use self::draft::Draft;
use super::dialect::{Dialects, Lessons, lesson};
use super::echo::origin;
use super::http::{Answer, Piece, Proof};
use super::limits::{REPLY_BYTES_MAX, REWORDINGS_MAX};
use super::{ChatRequest, Deltas, Endpoint, Error, Finish, Provider, Reply, ReplyOptions, Usage, usage_guess};

/// The API's version that this speaks.
const VERSION: &str = "2023-06-01";

/// A provider that speaks the Messages API.
#[derive(Debug, Clone)]
pub struct Anthropic {
    endpoint: Endpoint,
    dialects: Dialects,
}

impl Anthropic {
    /// A provider at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Anthropic {
        let dialects = Dialects::new(&endpoint.base, Default::default(), Lessons::default());
        Anthropic { endpoint, dialects }
    }

    /// The same in these dialects.
    pub fn speaking(self, dialects: Dialects) -> Anthropic {
        Anthropic { dialects, ..self }
    }

    async fn ask(&self, request: &ChatRequest, deltas: &Deltas) -> Result<Reply, Error> {
        let origin = origin(&self.endpoint.base, &request.model);
        let version = [("anthropic-version", VERSION)];
        let mut rewordings = 0;
        loop {
            let dialect = self.dialects.of(&request.model);
            if !dialect.temperature && request.options.temperature.is_some() {
                return Err(self.endpoint.without_temperature());
            }
            if !dialect.tools && request.needs_tools {
                let (provider, model) = (self.endpoint.provider.clone(), request.model.clone());
                return Err(Error::TakesNoTools { provider, model });
            }
            let wording = Wording::of(request, &dialect, &origin);
            let proof = match &dialect.key_header {
                Some(header) if header.eq_ignore_ascii_case("authorization") => Proof { header, before: "Bearer " },
                Some(header) => Proof { header, before: "" },
                None => Proof { header: "x-api-key", before: "" },
            };
            let refusal = match self.endpoint.post("/messages", proof, &version, &wording.body).await {
                Ok(answer) => {
                    deltas.begun();
                    let draft = self.read_pieces(answer, deltas).await?;
                    return Ok(reply_of(draft, request, &wording, origin));
                }
                Err(refusal) => refusal,
            };
            let lesson = refusal.error.status().and_then(|status| lesson(status, &refusal.text, &wording.sent));
            match lesson {
                Some(lesson)
                    if rewordings < REWORDINGS_MAX && self.dialects.learn(&request.model, lesson, &dialect) =>
                {
                    rewordings += 1;
                    info!(provider = %self.endpoint.provider, model = %request.model, ?lesson, "learnt how a provider is spoken to");
                }
                Some(_) | None => return Err(refusal.error),
            }
        }
    }

    async fn read_pieces(&self, mut answer: Answer<'_>, deltas: &Deltas) -> Result<Draft, Error> {
        let mut draft = Draft::default();
        let nonsense = |problem: String| self.endpoint.nonsense(problem);
        while let Some(piece) = answer.piece().await? {
            let event = match piece {
                Piece::Whole(whole) if whole["type"] == "error" || whole.get("error").is_some() => {
                    return Err(self.endpoint.error_within(&whole));
                }
                Piece::Whole(whole) => {
                    let text = draft.whole(&whole).map_err(nonsense)?;
                    deltas.text(&text).await;
                    return Ok(draft);
                }
                Piece::Event(event) if event.data.trim().is_empty() || event.data.trim() == "[DONE]" => continue,
                Piece::Event(event) => event,
            };
            let data: Value = serde_json::from_str(&event.data).map_err(|error| answer.not_json(&event, &error))?;
            let kind = data.get("type").and_then(Value::as_str).unwrap_or(&event.name).to_owned();
            let text = match kind.as_str() {
                "message_start" => draft.start(&data["message"]),
                "content_block_start" => draft.block(&data).map_err(nonsense)?,
                "content_block_delta" => draft.piece(&data).map_err(nonsense)?,
                "message_delta" => draft.finish(&data),
                "message_stop" => return Ok(draft),
                "error" => return Err(self.endpoint.error_within(&data)),
                _ if data.get("error").is_some() => return Err(self.endpoint.error_within(&data)),
                _ => continue, // `ping`, `content_block_stop`, and whatever is added later.
            };
            deltas.reported(draft.usage);
            deltas.received(draft.bytes());
            if draft.bytes() > REPLY_BYTES_MAX {
                return Err(self.endpoint.too_large(REPLY_BYTES_MAX));
            }
            deltas.text(&text).await;
        }
        // The reason to stop is the last thing that is said before the stop itself.
        if draft.stop.is_some() { Ok(draft) } else { Err(answer.broken_off()) }
    }
}

fn reply_of(mut draft: Draft, request: &ChatRequest, wording: &Wording, origin: String) -> Reply {
    let stop = draft.stop.take().unwrap_or_default();
    let (usage, model) = (draft.usage, std::mem::take(&mut draft.model));
    let (text, mut calls, echo) = draft.parts(origin, |name| wording.names.back(name));
    let finish = match stop.as_str() {
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "refusal" => {
            calls.clear();
            Finish::Refused
        }
        _ if !calls.is_empty() => Finish::Calls,
        _ => Finish::Stop,
    };
    let usage = if usage == Usage::default() { usage_guess(request, &text, &calls) } else { usage };
    Reply { text, calls, usage, finish, model, echo }
}

impl Provider for Anthropic {
    fn chat<'a>(&'a self, request: &'a ChatRequest, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, Error>> {
        Box::pin(self.ask(request, deltas))
    }

    fn refuses(&self, options: &ReplyOptions) -> Vec<&'static str> {
        options.except(body::TAKEN)
    }
}
