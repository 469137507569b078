//! An agent that is a program: a message of its mailbox is handed to its module as it is; a request that is asked directly
//! becomes a message to it, and its reply the turn's answer.
//!
//! The module asks models, calls tools and remembers as the agent's file allows, and at the agent's expense. It is started
//! anew where another node goes on with the turn; the keys of its calls are the same then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use caxton_proto::AgentName;
use caxton_proto::acl::{Address, Body, Message, Performative};
use caxton_proto::manifest::prompt::Parameters;
use caxton_tools::{
    AgentHost, AgentOutcome, CallResult, Content, HandlingError, HostAnswer, HostRefusal, Incoming, Question,
    SandboxedAgent,
};
use serde_json::{Value, json};

use super::builtin::memory::MemoryTool;
use super::turn::Gate;
use super::world::{Invocation, ToolOutput, World};
use super::{Agent, AgentTool};
use crate::chat::Spent;
use crate::llm::budget::Charges;
use crate::llm::models::{Ask, Models, Target};
use crate::llm::{self, Account, ChatRequest, Deltas, Finish, Reply, Usage};

/// The protocol of a request and its reply.
const REQUEST: &str = "fipa-request";

/// What is asked of an agent's module.
pub(super) struct Request<'a> {
    pub agent: &'a Agent,
    pub module: &'a SandboxedAgent,
    /// What is wanted.
    pub text: String,
    /// What the agent's file says to a model of who it is.
    pub system: Option<String>,
    /// Who asks: an agent, or whoever sent the message.
    pub asked_by: Option<AgentName>,
    /// The turn; replies name it.
    pub turn: &'a str,
    /// The same for every attempt at this step.
    pub step_key: String,
    /// Tokens that its models may use, in and out together.
    pub tokens_max: u64,
    /// How long it may take.
    pub left: Duration,
}

/// What came of a request: the reply or why there is none, and what its models cost.
pub(super) struct Handled {
    /// The reply, as a model's would be; the error is for people.
    pub reply: Result<Reply, String>,
    /// What its models cost.
    pub spent: Spent,
}

/// A message that lay in an agent's mailbox.
pub struct MailedMessage {
    /// The message, as its sender sent it.
    pub message: Message,
    /// The agent's state.
    pub state: BTreeMap<String, String>,
    /// Whether the agent may send a message; the error is for the module.
    pub may_send: MaySend,
    /// The same for every attempt at this delivery.
    pub step_key: String,
}

/// Whether an agent may send a message; the error is for its module.
pub type MaySend = Arc<dyn Fn(&Message) -> Result<(), String> + Send + Sync>;

/// What came of a message that was given to a module.
pub struct MailHandled {
    /// What the module sends and keeps, or why it did not handle the message.
    pub result: Result<AgentOutcome, HandlingError>,
    /// What its models cost.
    pub spent: Spent,
    /// The tokens of its models.
    pub usage: Usage,
}

/// Has a module handle a message of its mailbox.
pub async fn handle_mail(
    world: &Arc<dyn World>,
    models: &Arc<Models>,
    agent: &Agent,
    module: &SandboxedAgent,
    mail: MailedMessage,
) -> MailHandled {
    let MailedMessage { message, state, may_send, step_key } = mail;
    let limits = agent.limits();
    let deadline = Instant::now() + Duration::from_millis(limits.wall_ms_max);
    let (system, _) = agent.prompts("", "", &Parameters::new());
    let terms = Terms { sends: Sends::Anybody(may_send), system, step_key, tokens_max: limits.tokens_max, deadline };
    let host = Arc::new(Host(Arc::new(Desk::new(world, models, agent, terms))));
    let incoming = Incoming {
        message,
        state,
        host: host.clone(),
        workspace: world.workspace().to_string(),
        deadline: Some(deadline),
    };
    let handling = module.handle(incoming).await;
    let usage = *host.0.usage.lock().unwrap_or_else(PoisonError::into_inner);
    MailHandled { result: handling.result, spent: host.0.charged.total(), usage }
}

/// Has a module handle a request.
pub(super) async fn handle(world: &Arc<dyn World>, models: &Arc<Models>, request: Request<'_>) -> Handled {
    let Request { agent, module, text, system, asked_by, turn, step_key, tokens_max, left } = request;
    let subject = || world.asked_by().and_then(|subject| format!("subject:{subject}").parse().ok());
    let sender = asked_by.map(Address::Agent).or_else(subject).unwrap_or(Address::Platform);
    let content = Some(caxton_proto::acl::Content::text(text));
    let message = Message {
        content,
        protocol: Some(REQUEST.to_owned()),
        conversation_id: Some(turn.to_owned()),
        reply_with: Some(step_key.clone()).filter(|key| key.len() <= caxton_proto::acl::TOKEN_BYTES_MAX),
        ..Message::new(Performative::Request, [Address::Agent(agent.manifest.name.clone())])
    }
    .stamped(sender.clone());
    let deadline = Instant::now() + left;
    let terms = Terms { sends: Sends::Reply(sender), system, step_key, tokens_max, deadline };
    let host = Arc::new(Host(Arc::new(Desk::new(world, models, agent, terms))));
    let incoming = Incoming {
        message,
        state: Default::default(),
        host: host.clone(),
        workspace: world.workspace().to_string(),
        deadline: Some(deadline),
    };
    let handling = module.handle(incoming).await;
    let usage = *host.0.usage.lock().unwrap_or_else(PoisonError::into_inner);
    let reply = match handling.result {
        Ok(outcome) => reply(&outcome.messages).map(|reply| Reply { usage, ..reply }),
        Err(HandlingError::Call(error)) => Err(format!("the agent's module did not handle the request: {error}")),
        Err(error) => Err(error.to_string()),
    };
    Handled { reply, spent: host.0.charged.total() }
}

/// The last reply of a module that is more than an agreement, as the turn's answer.
fn reply(messages: &[Message]) -> Result<Reply, String> {
    let last = messages.iter().rfind(|message| message.performative != Performative::Agree);
    let message = last.ok_or("the agent's module sent no reply; it has to send one to the request's sender")?;
    let text = match message.content.as_ref().map(|content| &content.body) {
        Some(Body::Text(text) | Body::Json(text)) => text.clone(),
        Some(Body::Bytes(bytes)) => {
            return Err(format!("the agent's module replied with {} bytes, and no text", bytes.len()));
        }
        Some(Body::Artifact { digest, .. }) => format!("artifact {digest}"),
        None => String::new(),
    };
    match message.performative {
        Performative::Refuse | Performative::Failure | Performative::NotUnderstood => {
            Err(format!("the agent replied `{}`: {text}", message.performative))
        }
        _ if text.trim().is_empty() => Err(format!("the agent replied `{}` without content", message.performative)),
        _ => Ok(Reply {
            text,
            calls: Vec::new(),
            usage: Usage::default(),
            finish: Finish::Stop,
            model: String::new(),
            echo: None,
        }),
    }
}

/// The node's side of one request.
struct Host(Arc<Desk>);

/// What a module may use, and what it used.
struct Desk {
    world: Arc<dyn World>,
    models: Arc<Models>,
    agent: AgentName,
    tools: Vec<AgentTool>,
    targets: Vec<Target>,
    account: Account,
    answer_tokens_max: Option<u32>,
    temperature: Option<f32>,
    system: Option<String>,
    sends: Sends,
    step_key: String,
    deadline: Instant,
    tokens_left: AtomicU64,
    charged: Charges,
    usage: Mutex<Usage>,
    calls: AtomicU32,
    heard_others: AtomicBool,
}

/// To whom a module may send, and whether it keeps its state.
enum Sends {
    /// To whoever asked directly, and to nobody else.
    Reply(Address),
    /// To anybody to whom this lets it.
    Anybody(MaySend),
}

/// What a module has while it handles one message.
struct Terms {
    sends: Sends,
    system: Option<String>,
    step_key: String,
    tokens_max: u64,
    deadline: Instant,
}

impl Desk {
    fn new(world: &Arc<dyn World>, models: &Arc<Models>, agent: &Agent, terms: Terms) -> Desk {
        let Terms { sends, system, step_key, tokens_max, deadline } = terms;
        Desk {
            world: Arc::clone(world),
            models: Arc::clone(models),
            agent: agent.manifest.name.clone(),
            tools: agent.tools.clone(),
            targets: agent.targets.clone(),
            account: agent.account.clone(),
            answer_tokens_max: agent.manifest.llm.max_tokens,
            temperature: agent.manifest.llm.temperature.map(|temperature| temperature as f32),
            system,
            sends,
            step_key,
            deadline,
            tokens_left: AtomicU64::new(tokens_max),
            charged: Charges::default(),
            usage: Mutex::default(),
            calls: AtomicU32::new(0),
            heard_others: AtomicBool::new(false),
        }
    }

    async fn call(&self, tool: &AgentTool, arguments: Value) -> Result<ToolOutput, HostRefusal> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let heard_others = self.heard_others.load(Ordering::Relaxed);
        let invocation = Invocation {
            agent: &self.agent,
            server: &tool.server,
            function: &tool.function,
            arguments,
            heard_others,
            way: String::new(),
            step_key: format!("{}/{number}", self.step_key),
            deadline: self.deadline,
        };
        let output = self.world.call_tool(invocation).await;
        if !tool.is_built_in() {
            self.heard_others.store(true, Ordering::Relaxed);
        }
        output.map_err(HostRefusal::new)
    }

    /// A tool by its name as a model would know it, if its calls need nobody's consent.
    fn tool(&self, name: &str) -> Result<&AgentTool, HostRefusal> {
        let found = self.tools.iter().find(|tool| tool.definition.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.tools.iter().map(|tool| tool.definition.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            HostRefusal::new(format!("the agent's file names no tool `{name}`; it has {known}"))
        })?;
        match found.gate {
            Gate::Open | Gate::Sender => Ok(found),
            Gate::Approval => Err(HostRefusal::new(format!(
                "calls of `{name}` wait for a person, and a module cannot wait; take it out of [approval], or leave the call \
                 to an agent that is a language model"
            ))),
        }
    }

    async fn remember_tool(&self, tool: MemoryTool, arguments: Value) -> Result<String, HostRefusal> {
        let found = self.tools.iter().find(|own| own.is_built_in() && own.function == tool.name());
        let found =
            found.ok_or_else(|| HostRefusal::new("the agent's file has no [memory], so that it remembers nothing"))?;
        self.call(found, arguments).await.map(|output| output.text)
    }

    async fn ask(&self, question: Question) -> Result<String, HostRefusal> {
        let left = self.tokens_left.load(Ordering::Relaxed);
        if left == 0 {
            let why = "the turn used its tokens; raise tokens_max under [limits] in the agent's file if it needs more";
            return Err(HostRefusal::new(why));
        }
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let wanted = question.tokens_max.or(self.answer_tokens_max);
        let room = (left < wanted.unwrap_or(8_192)).then_some(left);
        let system = question.system.or_else(|| self.system.clone()).map(llm::Message::system);
        let request = ChatRequest {
            model: String::new(),
            messages: system.into_iter().chain([llm::Message::user(question.prompt)]).collect(),
            tools: Vec::new(),
            temperature: self.temperature,
            tokens_max: room.or(wanted),
            needs_tools: false,
            options: Default::default(),
        };
        let (targets, account, deltas) = (&self.targets, &self.account, Deltas::none());
        let before = self.charged.total().tokens;
        let ask = Ask { targets, account, request, deltas: &deltas, charged: &self.charged };
        let answered = self.models.chat(ask).await;
        let used = self.charged.total().tokens.saturating_sub(before);
        let _ =
            self.tokens_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(used)));
        let reply = answered.map(|answered| answered.reply);
        if let Ok(reply) = &reply {
            *self.usage.lock().unwrap_or_else(PoisonError::into_inner) += reply.usage;
        }
        reply.map(|reply| reply.text).map_err(|error| HostRefusal::new(llm::reasons(&error)))
    }
}

impl AgentHost for Host {
    fn check(&self, message: &Message) -> Result<(), HostRefusal> {
        match (&self.0.sends, message.receivers.as_slice()) {
            (Sends::Anybody(may_send), _) => may_send(message).map_err(HostRefusal::new),
            (Sends::Reply(sender), [only]) if only == sender => Ok(()),
            (Sends::Reply(sender), _) => {
                Err(HostRefusal::new(format!("a request is answered to its sender, {sender}, and to nobody else")))
            }
        }
    }

    fn keeps_state(&self) -> bool {
        match self.0.sends {
            Sends::Reply(_) => false,
            Sends::Anybody(_) => true,
        }
    }

    fn call_tool(&self, tool: String, arguments: Value) -> HostAnswer<CallResult> {
        let desk = Arc::clone(&self.0);
        Box::pin(async move {
            let output = desk.call(desk.tool(&tool)?, arguments).await?;
            let content = vec![Content::Text { text: output.text }];
            Ok(CallResult { content, structured: output.structured, is_error: output.failed })
        })
    }

    fn ask_model(&self, question: Question) -> HostAnswer<String> {
        let desk = Arc::clone(&self.0);
        Box::pin(async move { desk.ask(question).await })
    }

    fn remember(&self, text: String) -> HostAnswer<()> {
        let desk = Arc::clone(&self.0);
        Box::pin(async move { desk.remember_tool(MemoryTool::Remember, json!({ "text": text })).await.map(drop) })
    }

    fn recall(&self, query: String, count: u32) -> HostAnswer<Vec<String>> {
        let desk = Arc::clone(&self.0);
        Box::pin(async move {
            let arguments = json!({ "query": query, "limit": count.max(1) });
            let told = desk.remember_tool(MemoryTool::Recall, arguments).await?;
            let told: Value = serde_json::from_str(&told).unwrap_or_default();
            let memories = told["memories"].as_array().cloned().unwrap_or_default();
            if memories.iter().any(|memory| !memory["mark"].is_null()) {
                desk.heard_others.store(true, Ordering::Relaxed);
            }
            Ok(memories.iter().filter_map(|memory| memory["text"].as_str().map(str::to_owned)).collect())
        })
    }
}
