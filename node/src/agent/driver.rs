//! Does what a [`Turn`] says: asks models, calls tools and other agents, and reports every step as it happens.
//!
//! It decides nothing. What came of each step goes back into the turn, with the time that it took; an agent that fails
//! is an error to the one that asked it and to nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_proto::AgentName;
use futures::future::{BoxFuture, join_all};
use serde_json::Value;
use tracing::{Instrument, debug, field, info_span};

use super::attachments::{Content, PREFIX, Shelf, Visible};
use super::builtin::{AskCapability, is_built_in};
use super::events::Events;
use super::health::AgentHealth;
use super::journal::{Journal, Lost, Step};
use super::ledger::Ledger;
use super::module::{self, Handled};
use super::run::{Opening, Progress, Run};
use super::turn::{Action, Call, Next, Outcome, Returned, UnknownCall};
use super::world::{AgentMatch, Invocation, ToolOutput, World};
use super::{Agent, AgentTool};
use crate::api::messages::{PREVIEW_BYTES_MAX, TurnEvent};
use crate::capability::Load;
use crate::chat::Spent;
use crate::llm::budget::Charges;
use crate::llm::models::{Answered, Ask, Models};
use crate::llm::{ChatRequest, Delta, Deltas, Message, Reply, ReplyOptions, echo};
use crate::telemetry::labels;

/// Drives runs in one workspace.
#[derive(Clone)]
pub struct Driver {
    pub models: Arc<Models>,
    pub world: Arc<dyn World>,
    /// The health of agents.
    pub health: Arc<AgentHealth>,
    pub events: Events,
    /// The files of the message.
    pub shelf: Shelf,
    /// What each agent used.
    pub ledger: Ledger,
    /// Names the turn in step keys, spans and logs.
    pub turn_id: Arc<str>,
    /// Where turns are counted while they are under way.
    pub load: Load,
    /// Where steps are kept.
    pub journal: Arc<dyn Journal>,
}

/// What came of one call.
enum CallEnd {
    Returned(Returned, Visible),
    /// An agent that was asked waits.
    Waits(Box<Run>),
    /// What comes of it comes later.
    Awaited,
    Lost,
}

impl Driver {
    /// Drives a run until it is over or waits for a person.
    pub fn drive<'a>(&'a self, run: &'a mut Run, agent: &'a Agent) -> BoxFuture<'a, Progress> {
        let span = info_span!(
            "invoke_agent",
            otel.name = format!("invoke_agent {}", run.agent),
            gen_ai.operation.name = "invoke_agent",
            gen_ai.agent.name = %run.agent,
            gen_ai.agent.version = %agent.manifest.version,
            caxton.workspace = %self.world.workspace(),
            caxton.turn = %self.turn_id,
            caxton.depth = run.turn.depth(),
            error.type = field::Empty,
        );
        let underway = self.load.begin(self.world.workspace(), &run.agent);
        let steps = async move {
            let _underway = underway;
            self.steps(run, agent).await
        };
        Box::pin(steps.instrument(span))
    }

    async fn steps(&self, run: &mut Run, agent: &Agent) -> Progress {
        loop {
            let began = Instant::now();
            let waits = match run.turn.next() {
                Next::Over(outcome) => {
                    if let Outcome::Failed { failure } = outcome {
                        tracing::Span::current().record("error.type", failure.code());
                    }
                    return Progress::Over;
                }
                Next::AwaitApproval(_) => return Progress::Waiting,
                Next::AskModel { tokens_max } if agent.module.is_some() => {
                    self.run_module(run, agent, tokens_max).await.map(|()| false)
                }
                Next::AskModel { tokens_max } => self.ask_model(run, agent, tokens_max).await.map(|()| false),
                Next::Call(calls) => {
                    let calls: Vec<Call> = calls.into_iter().cloned().collect();
                    self.make_calls(run, agent, calls).await
                }
            };
            let Ok(waits) = waits else { return Progress::Lost };
            run.turn.passed(elapsed_ms(began));
            if waits && !run.turn.is_over() {
                return Progress::Waiting;
            }
        }
    }

    /// Has the agent's program answer in the place of a model.
    async fn run_module(&self, run: &mut Run, agent: &Agent, tokens_max: u64) -> Result<(), Lost> {
        let Some(module) = &agent.module else { return Ok(()) };
        let messages = run.turn.messages();
        let system = messages.first().filter(|message| matches!(message, Message::System { .. })).map(Message::text);
        let request = module::Request {
            agent,
            module,
            text: messages.get(run.request_at).map(Message::text).unwrap_or_default(),
            system,
            asked_by: run.path.iter().rev().nth(1).cloned(),
            turn: &self.turn_id,
            step_key: format!("{}/{}/{}", self.turn_id, run.way.join("/"), run.turn.said().len()),
            tokens_max,
            left: Duration::from_millis(run.turn.time_left_ms()),
        };
        let began = Instant::now();
        let Handled { reply, spent } = module::handle(&self.world, &self.models, request).await;
        if spent != Spent::default() {
            self.ledger.add(&run.agent, spent);
        }
        match reply {
            Ok(reply) => {
                let elapsed_ms = run.turn.spent().elapsed_ms.saturating_add(elapsed_ms(began));
                let kept = (!run.way.is_empty()).then(|| Step::Answered {
                    way: run.way.clone(),
                    reply: reply.clone(),
                    spent,
                    elapsed_ms,
                });
                let (agent, depth, text) = (run.agent.clone(), run.turn.depth(), reply.text.clone());
                self.events.emit(|| TurnEvent::Text { agent, depth, text });
                self.report(run.turn.answered(reply));
                if let Some(step) = kept {
                    self.journal.later(step);
                }
            }
            Err(problem) => run.turn.give_up(problem),
        }
        Ok(())
    }

    async fn ask_model(&self, run: &mut Run, agent: &Agent, tokens_left: u64) -> Result<(), Lost> {
        let (name, depth) = (run.agent.clone(), run.turn.depth());
        self.events.emit(|| TurnEvent::ModelAsked { agent: name.clone(), depth });
        let left = u32::try_from(tokens_left).unwrap_or(u32::MAX);
        // Only a limit that means something is sent: some models refuse numbers beyond what they can write.
        let room = (left < agent.manifest.llm.max_tokens.unwrap_or(8_192)).then_some(left);
        let options = run.options.clone();
        // A call that the sender demands is one of its own tools; with others beside them the model could choose wrong.
        let demanded = options.tool_choice.is_some();
        let tools = if demanded { run.turn.sender_tools() } else { run.turn.tools().to_vec() };
        let longest = [room.or(agent.manifest.llm.max_tokens), options.tokens_max].into_iter().flatten().min();
        let own_temperature = agent.manifest.llm.temperature.map(|temperature| temperature as f32);
        let request = ChatRequest {
            model: String::new(),
            messages: run.turn.messages().to_vec(),
            needs_tools: tools.iter().any(|tool| !is_built_in(&tool.name)),
            tools,
            temperature: options.temperature.or(own_temperature),
            tokens_max: longest,
            options,
        };
        let began = Instant::now();
        let charged = Charges::default();
        let chat = self.chat(agent, request, &name, depth, &charged);
        let told = tokio::time::timeout(Duration::from_millis(run.turn.time_left_ms()), chat).await;
        // What was asked and not answered has its price too.
        let spent = charged.total();
        if spent != Spent::default() {
            self.ledger.add(&name, spent);
        }
        match told {
            Err(_) => {} // The time that passed ends the turn.
            Ok(Err(error)) => run.turn.model_failed(crate::llm::reasons(&error)),
            Ok(Ok(answered)) => {
                let Answered { mut reply, provider, model, tries: _ } = answered;
                if let Err(problem) = hold_to(&run.options, &mut reply) {
                    run.turn.model_failed(problem);
                    return Ok(());
                }
                run.turn.name_calls(&mut reply);
                let (usage, calls, duration_ms) = (reply.usage, reply.calls.len(), elapsed_ms(began));
                let elapsed_ms = run.turn.spent().elapsed_ms.saturating_add(duration_ms);
                // The answer to a person is kept by the turn's record.
                let kept = (calls > 0 || !run.way.is_empty()).then(|| Step::Answered {
                    way: run.way.clone(),
                    reply: reply.clone(),
                    spent,
                    elapsed_ms,
                });
                self.events.emit(|| TurnEvent::ModelAnswered {
                    agent: name,
                    depth,
                    provider,
                    model,
                    usage,
                    calls,
                    duration_ms,
                });
                self.report(run.turn.answered(reply));
                match kept {
                    Some(step) if !run.turn.is_over() => self.journal.now(step).await?,
                    Some(step) if !run.way.is_empty() => self.journal.later(step),
                    Some(_) | None => {}
                }
            }
        }
        Ok(())
    }

    async fn chat(
        &self,
        agent: &Agent,
        request: ChatRequest,
        name: &AgentName,
        depth: u32,
        charged: &Charges,
    ) -> Result<Answered, crate::llm::Error> {
        let (targets, account) = (&agent.targets, &agent.account);
        if !self.events.is_heard() {
            return self.models.chat(Ask { targets, account, request, deltas: &Deltas::none(), charged }).await;
        }
        let (deltas, mut said) = Deltas::channel();
        // The sender goes when the reply is there, and so the listening ends.
        let ask = async move { self.models.chat(Ask { targets, account, request, deltas: &deltas, charged }).await };
        let listen = async {
            while let Some(delta) = said.recv().await {
                let agent = name.clone();
                let event = match delta {
                    Delta::Text(text) => TurnEvent::Text { agent, depth, text },
                    Delta::Restart => TurnEvent::TextWithdrawn { agent, depth },
                };
                self.events.emit(|| event);
            }
        };
        tokio::join!(ask, listen).0
    }

    /// Makes all calls at the same time; true when one of them now waits for a person.
    async fn make_calls(&self, run: &mut Run, agent: &Agent, calls: Vec<Call>) -> Result<bool, Lost> {
        let mut resumed: BTreeMap<String, Run> = BTreeMap::new();
        for call in &calls {
            if let Some(below) = run.waiting.remove(&call.id) {
                resumed.insert(call.id.clone(), below);
            }
        }
        let asker = &*run;
        let each = calls.iter().map(|call| {
            let below = resumed.remove(&call.id);
            self.make_call(asker, agent, call, below)
        });
        let came = join_all(each).await;
        let (mut waits, mut lost) = (false, false);
        for (call, came) in calls.into_iter().zip(came) {
            match came {
                CallEnd::Returned(returned, files) => {
                    run.visible.extend(files);
                    self.report(run.turn.returned(&call.id, returned));
                }
                CallEnd::Waits(below) => {
                    run.waiting.insert(call.id, *below);
                    waits = true;
                }
                CallEnd::Awaited => waits = true,
                CallEnd::Lost => lost = true,
            }
        }
        if lost { Err(Lost) } else { Ok(waits) }
    }

    async fn make_call(&self, run: &Run, agent: &Agent, call: &Call, below: Option<Run>) -> CallEnd {
        let limit = Duration::from_millis(run.turn.time_left_ms());
        let doing = async {
            match (&call.action, below) {
                (Action::AskCapability(ask), below) => self.ask_agent(run, call, ask, below).await,
                (Action::ListCapabilities(list), _) => {
                    let lines = self.world.capabilities(list.about.as_deref()).await;
                    CallEnd::Returned(Returned::good(lines), Visible::new())
                }
                (Action::Tool { tool, arguments }, _) => {
                    let arguments = Value::Object(arguments.clone());
                    self.call_tool(run, agent, call, tool, arguments).await
                }
                (Action::Refuse { problem, .. }, _) => {
                    CallEnd::Returned(Returned::failed(problem.clone()), Visible::new())
                }
            }
        };
        let came = match tokio::time::timeout(limit, doing).await {
            Ok(came) => came,
            Err(_) => CallEnd::Returned(Returned::failed("the turn's time was used up"), Visible::new()),
        };
        match came {
            CallEnd::Returned(returned, files) => self.keep(run, agent, call, returned, files).await,
            CallEnd::Waits(_) | CallEnd::Awaited | CallEnd::Lost => came,
        }
    }

    /// Keeps what came of a call: before anything else where it must not be made again.
    async fn keep(&self, run: &Run, agent: &Agent, call: &Call, returned: Returned, visible: Visible) -> CallEnd {
        let returned = run.turn.cut(returned);
        let (files, again) = match &call.action {
            Action::Tool { tool, .. } => {
                let files = visible.iter().filter_map(|name| self.shelf.get(name));
                let again = agent.tool(tool).is_none_or(|tool| tool.repeatable);
                (files.map(|file| (*file).clone()).collect(), again)
            }
            // What it made was kept with its own calls.
            Action::AskCapability(_) => (Vec::new(), false),
            Action::ListCapabilities(_) | Action::Refuse { .. } => (Vec::new(), true),
        };
        let (way, id) = (run.way.clone(), call.id.clone());
        let step = Step::Returned { way, call: id, returned: returned.clone(), files, visible: visible.clone() };
        if again {
            self.journal.later(step);
        } else if self.journal.now(step).await.is_err() {
            return CallEnd::Lost;
        }
        CallEnd::Returned(returned, visible)
    }

    async fn call_tool(&self, run: &Run, agent: &Agent, call: &Call, tool: &str, arguments: Value) -> CallEnd {
        let (name, depth) = (&run.agent, run.turn.depth());
        let shown = preview(&arguments.to_string());
        self.events.emit(|| TurnEvent::ToolCalled {
            agent: name.clone(),
            depth,
            call: call.id.clone(),
            tool: tool.to_owned(),
            arguments: shown,
        });
        let span = info_span!(
            "execute_tool",
            otel.name = format!("execute_tool {tool}"),
            gen_ai.operation.name = "execute_tool",
            gen_ai.tool.name = tool,
            gen_ai.tool.call.id = %call.id,
            error.type = field::Empty,
        );
        let began = Instant::now();
        let result = match (agent.tool(tool), self.shelf.fill(arguments, &run.visible)) {
            (None, _) => Err(format!("the tool `{tool}` is not deployed any more")),
            (_, Err(problem)) => Err(problem),
            (Some(tool), Ok(arguments)) => {
                let invocation = self.invocation((run, agent), call, tool, arguments);
                self.world.call_tool(invocation).instrument(span.clone()).await
            }
        };
        let (returned, files) = match result {
            Ok(output) if output.awaited => return CallEnd::Awaited,
            Ok(output) => self.keep_files(output).await,
            Err(problem) => (Returned::failed(problem), Visible::new()),
        };
        if returned.failed {
            span.record("error.type", "tool_error");
        }
        let duration_ms = elapsed_ms(began);
        let outcome = if returned.failed { "failed" } else { "ok" };
        metrics::histogram!("caxton_agent_tool_call_duration_seconds", "tool" => labels::bounded("tool", tool), "outcome" => outcome)
            .record(began.elapsed().as_secs_f64());
        let (failed, result) = (returned.failed, preview(&returned.text));
        let (agent, call, tool) = (name.clone(), call.id.clone(), tool.to_owned());
        self.events.emit(|| TurnEvent::ToolReturned { agent, depth, call, tool, failed, result, duration_ms });
        CallEnd::Returned(returned, files)
    }

    fn invocation<'a>(
        &self,
        (run, agent): (&'a Run, &Agent),
        call: &Call,
        tool: &'a AgentTool,
        arguments: Value,
    ) -> Invocation<'a> {
        Invocation {
            agent: &run.agent,
            server: &tool.server,
            function: &tool.function,
            arguments,
            heard_others: run.has_heard_others(agent),
            way: run.way.iter().chain([&call.id]).map(String::as_str).collect::<Vec<_>>().join("\n"),
            step_key: format!("{}/{}/{}/{}", self.turn_id, run.way.join("/"), run.turn.said().len(), call.id),
            deadline: Instant::now() + Duration::from_millis(run.turn.time_left_ms()),
        }
    }

    /// Puts a result's files on the shelf and their names where the model reads.
    async fn keep_files(&self, output: ToolOutput) -> (Returned, Visible) {
        let mut names = Visible::new();
        let mut structured = output.structured;
        let mut problem = None;
        for file in output.attachments {
            let content = file.content.clone();
            let (media_type, bytes) = (file.media_type.clone(), content.len());
            match self.shelf.add(file) {
                Ok(name) => {
                    if let Some(value) = &mut structured {
                        replace_content(value, &content, &name);
                    }
                    names.insert(name.clone());
                    self.events.emit(|| TurnEvent::Attached { name, media_type, bytes });
                }
                Err(full) => problem = Some(full.to_string()),
            }
        }
        let list: Vec<String> = names.iter().map(|name| format!("{PREFIX}{name}")).collect();
        let mut text = match structured {
            Some(Value::Object(mut fields)) => {
                if !list.is_empty() {
                    fields.insert("attachments".to_owned(), list.into());
                }
                Value::Object(fields).to_string()
            }
            Some(value) => value.to_string(),
            None if list.is_empty() => output.text,
            None => format!("{}\n[attached: {}]", output.text, list.join(", ")),
        };
        if let Some(problem) = problem {
            text.push_str(&format!("\n[a file of this result was not kept: {problem}]"));
        }
        (Returned { failed: output.failed, ..Returned::good(text) }, names)
    }

    async fn ask_agent(&self, run: &Run, call: &Call, ask: &AskCapability, below: Option<Run>) -> CallEnd {
        let refuse = |problem: String| CallEnd::Returned(Returned::failed(problem), Visible::new());
        let began = Instant::now();
        let (mut below, agent) = match below {
            Some(below) => match self.world.agent(&below.agent).await {
                Ok(agent) => (below, agent),
                Err(problem) => return refuse(problem.to_string()),
            },
            None => match self.find_agent(run, call, ask).await {
                Ok(found) => found,
                Err(problem) => return refuse(problem),
            },
        };
        let key = (self.world.workspace().clone(), below.agent.clone());
        if let Err(rest) = self.health.admit(&key) {
            return refuse(format!("the agent `{}` failed again and again; try it in {} s", key.1, rest.as_secs() + 1));
        }
        match self.drive(&mut below, &agent).await {
            Progress::Waiting => return CallEnd::Waits(Box::new(below)),
            Progress::Lost => return CallEnd::Lost,
            Progress::Over => {}
        }
        let returned = self.answer_of(&below, run);
        let went = if returned.0.failed { Err(returned.0.text.as_str()) } else { Ok(()) };
        self.health.learn(&key.0, &key.1, went);
        let (agent, depth, from) = (run.agent.clone(), run.turn.depth(), below.agent.clone());
        let (call, failed, duration_ms) = (call.id.clone(), returned.0.failed, elapsed_ms(began));
        self.events.emit(|| TurnEvent::DelegateReturned { agent, depth, call, from, failed, duration_ms });
        CallEnd::Returned(returned.0, returned.1)
    }

    /// Finds who can do what is asked, and prepares its run.
    async fn find_agent(&self, run: &Run, call: &Call, ask: &AskCapability) -> Result<(Run, Arc<Agent>), String> {
        let found = self.world.find(ask.wanted(), &run.path).await.map_err(|none| none.to_string())?;
        let AgentMatch { agent: name, capability, score } = found;
        let agent = self.world.agent(&name).await.map_err(|problem| problem.to_string())?;
        self.events.emit(|| TurnEvent::Delegated {
            agent: run.agent.clone(),
            depth: run.turn.depth(),
            call: call.id.clone(),
            to: name,
            capability,
            score,
            request: preview(&ask.request),
        });
        let visible = self.shelf.named_in(&ask.request, &run.visible);
        let recalled = self.world.recall(&agent, &ask.request).await;
        let opening = Opening { request: ask.request.clone(), recalled, visible, ..Opening::default() };
        let below = Run::begin_below(&agent, opening, &self.shelf, Some((run, &call.id)));
        let (way, call) = (run.way.clone(), call.id.clone());
        self.journal.later(Step::Delegated { way, call, run: Box::new(below.clone()) });
        Ok((below, agent))
    }

    /// What the one that asked reads of a run that is over, and the files that it gets to see.
    fn answer_of(&self, below: &Run, asker: &Run) -> (Returned, Visible) {
        let usage = below.turn.spent().usage;
        let files: Visible = below.visible.difference(&asker.visible).cloned().collect();
        let Next::Over(outcome) = below.turn.next() else {
            return (Returned::failed("the agent did not finish"), Visible::new());
        };
        let (text, failed) = match outcome {
            Outcome::Answered { text, .. } => {
                let unnamed: Vec<String> =
                    files.iter().map(|name| format!("{PREFIX}{name}")).filter(|name| !text.contains(name)).collect();
                let more =
                    if unnamed.is_empty() { String::new() } else { format!("\n[attached: {}]", unnamed.join(", ")) };
                (format!("{text}{more}"), false)
            }
            Outcome::Failed { failure } => (format!("the agent `{}` could not do it: {failure}", below.agent), true),
            Outcome::SenderCalls { .. } => ("the agent called a tool that only a sender has".to_owned(), true),
        };
        (Returned { text, failed, usage, cut: false }, files)
    }

    /// The turn refuses only what the driver should not have reported; it goes on as if nothing was said.
    fn report(&self, told: Result<(), UnknownCall>) {
        if let Err(unasked) = told {
            debug!(turn = %self.turn_id, what = %unasked.what, "a report that the turn did not ask for");
        }
    }
}

/// Holds a reply to what the sender asks of its calls, whatever the provider made of that.
fn hold_to(options: &ReplyOptions, reply: &mut Reply) -> Result<(), String> {
    if options.single_call && reply.calls.len() > 1 {
        reply.calls.truncate(1);
        reply.echo = echo::keep_calls(reply.echo.as_deref(), &[0]);
    }
    match options.tool_choice {
        Some(_) if reply.calls.is_empty() => Err("the model made no call, and `tool_choice` demands one".to_owned()),
        Some(_) | None => Ok(()),
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The start of a text, for events.
fn preview(text: &str) -> String {
    crate::text::preview(text, PREVIEW_BYTES_MAX)
}

/// A result that repeats a file's content word for word says its name instead.
fn replace_content(value: &mut Value, content: &Content, name: &str) {
    let Content::Text(whole) = content else { return };
    match value {
        Value::String(text) if !whole.is_empty() && text == whole => *text = format!("{PREFIX}{name}"),
        Value::Array(values) => values.iter_mut().for_each(|value| replace_content(value, content, name)),
        Value::Object(fields) => fields.values_mut().for_each(|value| replace_content(value, content, name)),
        _ => {}
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
