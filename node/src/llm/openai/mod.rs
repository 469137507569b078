//! Chat Completions as OpenAI, Azure, Gemini, Mistral, DeepSeek, Groq, OpenRouter, Ollama, vLLM, llama.cpp, LiteLLM and
//! others speak it: the same words, and each with a dialect of its own.

mod body;
mod draft;

use futures::future::BoxFuture;
use serde_json::Value;
use tracing::info;

use self::body::Wording;
use self::draft::Draft;
use super::dialect::{Dialect, Dialects, Lessons, lesson};
use super::echo::origin;
use super::http::{Answer, Piece, Proof};
use super::limits::{REPLY_BYTES_MAX, REWORDINGS_MAX};
use super::{ChatRequest, Deltas, Endpoint, Error, Finish, Provider, Reply, ReplyOptions, Usage, usage_guess};

/// A provider that speaks Chat Completions.
#[derive(Debug, Clone)]
pub struct OpenAi {
    endpoint: Endpoint,
    dialects: Dialects,
}

impl OpenAi {
    /// A provider at `endpoint` that speaks as its host does.
    pub fn new(endpoint: Endpoint) -> OpenAi {
        let dialects = Dialects::new(&endpoint.base, Default::default(), Lessons::default());
        OpenAi { endpoint, dialects }
    }

    /// The same in these dialects.
    pub fn speaking(self, dialects: Dialects) -> OpenAi {
        OpenAi { dialects, ..self }
    }

    async fn ask(&self, request: &ChatRequest, deltas: &Deltas) -> Result<Reply, Error> {
        let origin = origin(&self.endpoint.base, &request.model);
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
            let refusal = match self.endpoint.post("/chat/completions", proof(&dialect), &[], &wording.body).await {
                Ok(answer) => {
                    deltas.begun();
                    return self.read(answer, request, &wording, origin, deltas).await;
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

    async fn read(
        &self,
        answer: Answer<'_>,
        request: &ChatRequest,
        wording: &Wording,
        origin: String,
        deltas: &Deltas,
    ) -> Result<Reply, Error> {
        let mut draft = self.read_pieces(answer, deltas).await?;
        let (mut calls, echo) = draft.calls(origin, |name| wording.names.back(name));
        let usage = draft.usage.unwrap_or_else(|| usage_guess(request, &draft.text, &calls));
        let finish = match draft.finish.take().unwrap_or_default().to_ascii_lowercase().as_str() {
            "length" | "max_tokens" | "model_length" => Finish::Length,
            "content_filter" | "safety" | "prohibited_content" | "refusal" => {
                calls.clear();
                Finish::Refused
            }
            _ if !calls.is_empty() => Finish::Calls,
            _ => Finish::Stop,
        };
        Ok(Reply { text: draft.text, calls, usage, finish, model: draft.model, echo })
    }

    async fn read_pieces(&self, mut answer: Answer<'_>, deltas: &Deltas) -> Result<Draft, Error> {
        let mut draft = Draft::default();
        while let Some(piece) = answer.piece().await? {
            match piece {
                Piece::Whole(whole) => {
                    self.take(&mut draft, &whole, deltas).await?;
                    if whole.get("choices").and_then(Value::as_array).is_none_or(Vec::is_empty) {
                        return Err(self.endpoint.nonsense("a document without `choices`"));
                    }
                    return Ok(draft);
                }
                Piece::Event(event) if event.data.trim() == "[DONE]" => return Ok(draft),
                // A name alone says nothing.
                Piece::Event(event) if event.data.trim().is_empty() => {}
                Piece::Event(event) => {
                    let chunk = serde_json::from_str(&event.data).map_err(|error| answer.not_json(&event, &error))?;
                    let named = event.name == "error";
                    if named && matches!(&chunk, Value::Object(fields) if !fields.contains_key("choices")) {
                        return Err(self.endpoint.error_within(&chunk));
                    }
                    self.take(&mut draft, &chunk, deltas).await?;
                }
            }
        }
        // Some servers close without [DONE]; a reason to finish says as much, and so does the count of tokens, which
        // comes last.
        if draft.finish.is_some() || draft.counted { Ok(draft) } else { Err(answer.broken_off()) }
    }

    /// Takes a chunk or a whole completion: they differ in what their message is called.
    async fn take(&self, draft: &mut Draft, chunk: &Value, deltas: &Deltas) -> Result<(), Error> {
        let none = chunk.get("choices").is_none_or(Value::is_null);
        let is_error = none && (chunk["object"] == "error" || chunk["type"] == "error" || chunk.is_string());
        if is_error || chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(self.endpoint.error_within(chunk));
        }
        if let Some(model) = chunk.get("model").and_then(Value::as_str) {
            draft.model = model.to_owned();
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            let usage = usage_of(usage);
            // Some send zeros until the end, and some after it.
            if usage != Usage::default() {
                draft.usage = Some(usage);
                deltas.reported(usage);
            }
        }
        let choices = chunk.get("choices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        draft.counted |= choices.is_empty() && draft.usage.is_some_and(|usage| usage.output > 0);
        // Only one is asked for.
        let first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        let Some(choice) = choices.iter().find(first) else { return Ok(()) };
        if let Some(error) = choice.get("error").filter(|error| error.is_object()) {
            return Err(self.endpoint.error_within(&serde_json::json!({ "error": error })));
        }
        let said = ["delta", "message"].iter().find_map(|part| choice.get(*part).filter(|said| said.is_object()));
        if let Some(said) = said {
            let text = draft.take(said).map_err(|problem| self.endpoint.nonsense(problem))?;
            deltas.received(draft.bytes());
            if draft.bytes() > REPLY_BYTES_MAX {
                return Err(self.endpoint.too_large(REPLY_BYTES_MAX));
            }
            deltas.text(&text).await;
        }
        if let Some(finish) = choice.get("finish_reason").and_then(Value::as_str).filter(|reason| !reason.is_empty()) {
            draft.finish = Some(finish.to_owned());
        }
        Ok(())
    }
}

impl Provider for OpenAi {
    fn chat<'a>(&'a self, request: &'a ChatRequest, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, Error>> {
        Box::pin(self.ask(request, deltas))
    }

    /// What it knows none of the provider refuses by itself. `top_k` is no word of this protocol.
    fn refuses(&self, options: &ReplyOptions) -> Vec<&'static str> {
        options.top_k.map(|_| "top_k").into_iter().collect()
    }
}

/// The header of the key.
fn proof(dialect: &Dialect) -> Proof<'_> {
    match &dialect.key_header {
        Some(header) => Proof { header, before: "" },
        None => Proof { header: "authorization", before: "Bearer " },
    }
}

/// The tokens that a provider counted, by either of the two names.
fn usage_of(usage: &Value) -> Usage {
    let count = |names: [&str; 2]| names.iter().find_map(|name| super::whole_number(usage.get(*name)?)).unwrap_or(0);
    Usage { input: count(["prompt_tokens", "input_tokens"]), output: count(["completion_tokens", "output_tokens"]) }
}
