//! What an agent remembers: what comes into its prompts, what its tools `remember`, `recall`, `relate` and `forget` do, and
//! the exchanges that it keeps by itself.
//!
//! An agent reaches the scope that its file names and what is nearer: with `scope = "agent"` its own memories, those of the
//! person who asks and those of the conversation. Whose turn it is says the token, never the model.

use std::sync::Arc;

use caxton_memory::proto::{
    Action, Command, Fate, Forget, MemoryId, NewMemory, NewRelation, Origin, Outcome, Reason, RelationId, Scope, Source,
};
use caxton_memory::{Filter, Memory, Permit};
use caxton_proto::manifest::agent::{AgentManifest, Memory as Settings, MemoryScope};
use caxton_proto::{AgentName, ToolName, WorkspaceId};
use serde_json::json;
use tracing::warn;

use super::extract::Exchange;
use super::{Invoker, Underway};
use crate::agent::builtin::memory::{self as tools, MemoryTool, Recall, Relate, Remember};
use crate::agent::run::Run;
use crate::agent::world::{Invocation, ToolOutput};
use crate::agent::{Agent, OfferedFunction};
use crate::catalog::Catalogs;
use crate::llm::{ToolDefinition, reasons};
use crate::memory::recall::block;
use crate::memory::{FoundMemories, Memories, MemoryError, SearchOrder};
use crate::memory_backend::MemoryBackends;
use crate::recalled::{MARK, UNTRUSTED_MARK, without_blocks};
use crate::text::preview;

/// Memories of one call of `recall` unless the model says how many, and at most.
const RECALLED: usize = 5;
const RECALLED_MAX: usize = 50;
/// What is kept of a request and of its answer, in bytes each.
const EXCHANGE_BYTES_MAX: usize = 4 << 10;
/// The kind of an exchange that an agent keeps by itself.
const EXCHANGE: &str = "exchange";
/// The kind of what a model keeps without saying what it is.
const FACT: &str = "fact";

/// Whose turn it is, and where.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    subject: String,
    conversation: String,
    turn: String,
}

impl Asker {
    pub(super) fn new(subject: &str, conversation: &str, turn: &str) -> Asker {
        let [subject, conversation, turn] = [subject, conversation, turn].map(str::to_owned);
        Asker { subject, conversation, turn }
    }

    pub(super) fn turn(&self) -> &str {
        &self.turn
    }

    /// Whose token sent the message.
    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// Where an agent keeps what it remembers.
    fn scope(&self, settings: &Settings, agent: &AgentName) -> Scope {
        match settings.scope {
            MemoryScope::Conversation => Scope::Conversation(self.conversation.clone()),
            MemoryScope::Agent => Scope::Agent(agent.to_string()),
            MemoryScope::Subject => Scope::Subject(self.subject.clone()),
            MemoryScope::Workspace => Scope::Workspace,
            MemoryScope::Global => Scope::Global,
        }
    }

    /// What it may look at: its scope, and what is nearer.
    fn scopes(&self, settings: &Settings, agent: &AgentName) -> Vec<Scope> {
        let conversation = Scope::Conversation(self.conversation.clone());
        let subject = Scope::Subject(self.subject.clone());
        let own = Scope::Agent(agent.to_string());
        match settings.scope {
            MemoryScope::Conversation => vec![conversation],
            MemoryScope::Subject => vec![conversation, subject],
            MemoryScope::Agent => vec![conversation, subject, own],
            MemoryScope::Workspace => vec![conversation, subject, own, Scope::Workspace],
            MemoryScope::Global => vec![conversation, subject, own, Scope::Workspace, Scope::Global],
        }
    }

    /// Where it comes from: the turn, and who decided to keep it.
    fn sources(&self, agent: Option<&AgentName>, at_ms: i64, untrusted: bool) -> Vec<Source> {
        let (conversation, turn) = (self.conversation.clone(), self.turn.clone());
        // Turns of a conversation are told apart by their times: neighbours in a conversation are those before and after.
        let turn = Origin::Turn { conversation, turn, position: 0 };
        let agent = agent.map(|agent| Origin::Agent { agent: agent.to_string() });
        [Some(turn), agent].into_iter().flatten().map(|origin| Source { origin, at_ms, untrusted }).collect()
    }
}

fn now_ms() -> i64 {
    crate::authn::now_ms().cast_signed()
}

/// What an agent remembers in one turn.
pub(super) struct AgentMemory<'a> {
    pub memories: &'a Memories,
    pub backends: &'a MemoryBackends,
    pub catalogs: &'a Catalogs,
    /// Whether the node's operator lets workspaces share what they remember.
    pub share: bool,
    pub workspace: &'a WorkspaceId,
    pub asker: &'a Asker,
    pub manifest: &'a AgentManifest,
}

/// The tools by which an agent remembers, of those whose names are free: all of them where it remembers, else those that its
/// file names. A call that is made again keeps nothing twice.
pub(super) fn offered(manifest: &AgentManifest, is_free: impl Fn(&ToolName) -> bool) -> Vec<OfferedFunction> {
    let named = |tool: &MemoryTool| manifest.tools.all().any(|name| name.as_str() == tool.name());
    let tools = MemoryTool::ALL.into_iter().filter(|tool| manifest.memory.enabled || named(tool));
    let offered = tools.filter_map(|tool| {
        let server = tool.name().parse::<ToolName>().ok().filter(&is_free)?;
        let ToolDefinition { name: function, description, parameters } = tool.definition();
        Some(OfferedFunction { server, function, description, parameters, fixed: true, repeatable: true })
    });
    offered.collect()
}

impl AgentMemory<'_> {
    /// What is remembered of a request, as a prompt has it. A turn without it is better than none.
    pub(super) async fn recalled(&self, request: &str) -> String {
        let settings = &self.manifest.memory;
        if !settings.enabled {
            return String::new();
        }
        let mut order = SearchOrder::new(request, now_ms(), settings.search_limit as usize);
        order.min_similarity = settings.min_similarity as f32;
        match self.search(order).await {
            Ok(found) => block(&found.memories, settings.tokens_max),
            Err(error) => {
                warn!(agent = %self.manifest.name, reason = %reasons(&error), "a turn begins without what is remembered");
                String::new()
            }
        }
    }

    async fn search(&self, order: SearchOrder) -> Result<FoundMemories, MemoryError> {
        let scopes = self.asker.scopes(&self.manifest.memory, &self.manifest.name);
        let permit = Permit::of(self.workspace.clone(), scopes);
        let own = self.backends.search(self.workspace, permit, order.clone()).await?;
        self.with_partners(own, &order).await
    }

    /// Does what a model asks one of the tools for; the error is for the model.
    pub(super) async fn call(&self, tool: MemoryTool, call: &Invocation<'_>) -> Result<ToolOutput, String> {
        let text = match tool {
            MemoryTool::Remember => self.remember(call, tools::parse(&call.arguments)?).await?,
            MemoryTool::Recall => self.look_up(tools::parse(&call.arguments)?).await?,
            MemoryTool::Relate => self.relate(call, tools::parse(&call.arguments)?).await?,
            MemoryTool::Forget => self.forget(tools::parse(&call.arguments)?).await?,
        };
        Ok(ToolOutput { text, ..ToolOutput::default() })
    }

    /// Where the agent keeps what it remembers.
    fn scope(&self) -> Scope {
        self.asker.scope(&self.manifest.memory, &self.manifest.name)
    }

    async fn remember(&self, call: &Invocation<'_>, asked: Remember) -> Result<String, String> {
        let at_ms = now_ms();
        let replaces = asked.replaces.as_deref().filter(|id| !id.is_empty()).map(memory_id).transpose()?;
        let memory = NewMemory {
            // The same for every attempt at this step.
            id: MemoryId::imported("step", &call.step_key),
            scope: self.scope(),
            kind: asked.kind.filter(|kind| !kind.trim().is_empty()).unwrap_or_else(|| FACT.to_owned()),
            name: asked.name.filter(|name| !name.trim().is_empty()),
            text: asked.text,
            metadata: None,
            importance: asked.importance.unwrap_or(50),
            pinned: false,
            sources: self.asker.sources(Some(&self.manifest.name), at_ms, call.heard_others),
            created_ms: at_ms,
            valid_from_ms: at_ms,
            valid_to_ms: None,
            replaces,
            entity: asked.about.filter(|about| !about.trim().is_empty()),
        };
        let action = Action::Remember { entities: Vec::new(), memories: vec![memory], relations: Vec::new() };
        let Outcome::Remembered(kept) = self.write(action, at_ms).await? else { return Err(strange()) };
        match kept.memories.into_iter().next() {
            None => Err(strange()),
            Some(item) => match item.fate {
                Fate::Stored { closed } => {
                    let closed: Vec<String> = closed.iter().map(ToString::to_string).collect();
                    Ok(json!({ "id": item.id, "kept": true, "true_no_longer": closed }).to_string())
                }
                Fate::Known => Ok(json!({ "id": item.id, "kept": true, "known_before": true }).to_string()),
                Fate::Refused(refusal) => Err(refusal.to_string()),
            },
        }
    }

    async fn look_up(&self, asked: Recall) -> Result<String, String> {
        let now_ms = now_ms();
        let as_of_ms = asked.as_of.as_deref().filter(|day| !day.is_empty()).map(day).transpose()?;
        let filter = Filter {
            kinds: asked.kind.into_iter().filter(|kind| !kind.is_empty()).collect(),
            entity: asked.about.filter(|about| !about.is_empty()),
            ..Filter::default()
        };
        let limit = asked.limit.unwrap_or(RECALLED).clamp(1, RECALLED_MAX);
        let order = SearchOrder {
            filter,
            as_of_ms: Some(as_of_ms.unwrap_or(now_ms)),
            ..SearchOrder::new(asked.query, now_ms, limit)
        };
        let found = self.search(order).await.map_err(|error| reasons(&error))?;
        let lines: Vec<_> = found.memories.iter().map(told).collect();
        let note = found.backend.and_then(|backend| backend.note.filter(|_| !backend.answered).zip(Some(backend.name)));
        Ok(match note {
            None => json!({ "memories": lines }),
            Some((why, backend)) => {
                json!({ "memories": lines, "note": format!("{backend} was not searched ({why}); the node's own index was") })
            }
        }
        .to_string())
    }

    async fn relate(&self, call: &Invocation<'_>, asked: Relate) -> Result<String, String> {
        let at_ms = now_ms();
        let relation = NewRelation {
            id: RelationId::imported("step", &call.step_key),
            scope: self.scope(),
            from: asked.from,
            kind: asked.relation,
            to: asked.to,
            metadata: None,
            sources: self.asker.sources(Some(&self.manifest.name), at_ms, call.heard_others),
            created_ms: at_ms,
            valid_from_ms: at_ms,
            valid_to_ms: None,
        };
        let action = Action::Remember { entities: Vec::new(), memories: Vec::new(), relations: vec![relation] };
        let Outcome::Remembered(kept) = self.write(action, at_ms).await? else { return Err(strange()) };
        match kept.relations.into_iter().next() {
            None => Err(strange()),
            Some(item) => match item.fate {
                Fate::Stored { .. } | Fate::Known => Ok(json!({ "id": item.id, "kept": true }).to_string()),
                Fate::Refused(refusal) => Err(refusal.to_string()),
            },
        }
    }

    async fn forget(&self, asked: tools::Forget) -> Result<String, String> {
        let action = Action::Forget(Forget::Memories(vec![memory_id(&asked.id)?]));
        match self.write(action, now_ms()).await? {
            Outcome::Removed(_) => Ok(json!({ "forgotten": true }).to_string()),
            // Whoever tries again finds it gone.
            Outcome::Refused(refusal) if refusal.reason == Reason::NotFound => {
                Ok(json!({ "forgotten": false, "why": "nothing that you may change has this id" }).to_string())
            }
            Outcome::Refused(refusal) => Err(refusal.to_string()),
            Outcome::Remembered(_) | Outcome::Edited { .. } | Outcome::Ended { .. } => Err(strange()),
        }
    }

    async fn write(&self, action: Action, time_ms: i64) -> Result<Outcome, String> {
        // It changes nothing beyond its own scope.
        let permit = Some(vec![self.scope()]);
        let actor = format!("agent:{}", self.manifest.name);
        let command = Command { workspace: self.workspace.clone(), time_ms, actor, permit, action };
        self.memories.of(self.workspace).write(&command).await.map_err(|error| reasons(&error))
    }
}

impl Invoker {
    /// Keeps an answered exchange, and has facts drawn out of it, as the agent's file says. The answer is recorded: what
    /// cannot be remembered of it keeps nobody from reading it.
    pub(super) async fn keep_exchange(&self, agent: &Arc<Agent>, exchange: Exchange) {
        if agent.manifest.memory.auto_store {
            self.store_exchange(exchange.keep(vec![exchange.memory.clone()])).await;
        }
        if agent.manifest.memory.extract {
            self.extract_later(agent, exchange);
        }
    }

    async fn store_exchange(&self, exchange: Command) {
        match self.shared.parts.memories.of(&exchange.workspace).write_now(&exchange).await {
            Ok(Outcome::Remembered(kept)) => {
                for item in kept.memories {
                    if let Fate::Refused(refusal) = item.fate {
                        warn!(agent = exchange.actor, reason = %refusal, "an exchange was not remembered");
                    }
                }
            }
            Ok(other) => warn!(agent = exchange.actor, ?other, "an exchange was not remembered"),
            Err(error) => warn!(agent = exchange.actor, reason = %reasons(&error), "an exchange was not remembered"),
        }
    }
}

/// The exchange of a turn that is over, to be kept or looked at where the agent's file says so. Its id is the turn's, so that
/// it is kept once.
pub(super) fn exchange(underway: &Underway, agent: &Agent, run: &Run) -> Option<Exchange> {
    let settings = &agent.manifest.memory;
    if !(settings.enabled && (settings.auto_store || settings.extract)) {
        return None;
    }
    let said = run.said();
    // What was recalled into the prompt is nothing new.
    let asked = underway.request.clone().or_else(|| Some(without_blocks(&said.first()?.text()).into_owned()))?;
    let answer = said.last()?.text();
    let asker = Asker::new(&underway.subject, &underway.conversation, &underway.turn);
    let (at_ms, name) = (now_ms(), &agent.manifest.name);
    let [asked, answer] = [asked, answer].map(|text| preview(text.trim(), EXCHANGE_BYTES_MAX));
    let memory = NewMemory {
        id: exchange_id(&underway.workspace, &underway.turn),
        scope: asker.scope(settings, name),
        kind: EXCHANGE.to_owned(),
        name: None,
        text: format!("{}: {asked}\n{name}: {answer}", underway.subject).replace('\0', " "),
        metadata: None,
        importance: 50,
        pinned: false,
        sources: asker.sources(None, at_ms, run.has_heard_others(agent)),
        created_ms: at_ms,
        valid_from_ms: at_ms,
        valid_to_ms: None,
        replaces: None,
        entity: None,
    };
    let (workspace, turn) = (underway.workspace.clone(), underway.turn.clone());
    Some(Exchange { workspace, turn, actor: format!("agent:{name}"), memory })
}

/// The id of the memory that a turn's exchange becomes.
fn exchange_id(workspace: &WorkspaceId, turn: &str) -> MemoryId {
    MemoryId::imported("turn", &format!("{workspace}/{turn}"))
}

/// A memory as a model reads it.
fn told(memory: &Memory) -> serde_json::Value {
    let what = &memory.what;
    let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap_or_default().strftime("%Y-%m-%d").to_string();
    let mut told = json!({ "id": what.id, "kind": what.kind, "text": what.text, "since": time(what.valid_from_ms) });
    let more = [
        ("about", what.entity.clone()),
        ("name", what.name.clone()),
        ("until", what.valid_to_ms.map(time)),
        ("mark", memory.untrusted.then(|| UNTRUSTED_MARK.to_owned())),
    ];
    for (name, value) in more {
        if let (Some(value), Some(fields)) = (value, told.as_object_mut()) {
            fields.insert(name.to_owned(), value.into());
        }
    }
    told
}

fn memory_id(text: &str) -> Result<MemoryId, String> {
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    let text = text.strip_prefix(MARK).unwrap_or(text);
    text.parse().map_err(|error| format!("{text:?} is no memory's id: {error}"))
}

/// The end of a day, as 2026-01-31.
fn day(text: &str) -> Result<i64, String> {
    let wrong = |error: jiff::Error| format!("{text:?} is no day like 2026-01-31: {error}");
    let day: jiff::civil::Date = text.parse().map_err(wrong)?;
    let end = day.at(23, 59, 59, 999_000_000).to_zoned(jiff::tz::TimeZone::UTC).map_err(wrong)?;
    Ok(end.timestamp().as_millisecond())
}

fn strange() -> String {
    "the answer of the memory makes no sense; please report it as a defect".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_reaches_its_scope_and_what_is_nearer() {
        let asker = Asker::new("ann", "c1", "t1");
        let agent: AgentName = "helper".parse().expect("a name");
        let reach = |scope| {
            let settings = Settings { scope, ..Settings::default() };
            let scopes = asker.scopes(&settings, &agent);
            assert!(scopes.contains(&asker.scope(&settings, &agent)), "it finds what it keeps");
            scopes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(reach(MemoryScope::Conversation), ["conversation:c1"]);
        assert_eq!(reach(MemoryScope::Subject), ["conversation:c1", "subject:ann"]);
        assert_eq!(reach(MemoryScope::Agent), ["conversation:c1", "subject:ann", "agent:helper"]);
        assert_eq!(reach(MemoryScope::Workspace).last().map(String::as_str), Some("workspace"));
        assert_eq!(reach(MemoryScope::Global)[3..], ["workspace", "global"]);
    }

    #[test]
    fn ids_and_days_are_read_as_models_write_them() {
        let id = MemoryId::from_bytes([7; 16]);
        for text in [format!("{id}"), format!("memory:{id}"), format!(" [memory:{id}] ")] {
            assert_eq!(memory_id(&text), Ok(id));
        }
        assert!(memory_id("it").is_err() && memory_id("").is_err());
        assert_eq!(day("1970-01-01"), Ok(86_399_999));
        assert!(day("yesterday").is_err() && day("2026-02-30").is_err());
    }
}
