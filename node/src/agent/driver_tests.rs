//! Whole runs with scripted models in a small world: agents that ask agents, files, failures, approvals.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use caxton_proto::manifest::agent::AgentManifest;
use caxton_proto::manifest::workspace::WorkspaceManifest;
use caxton_proto::tree::TreePath;
use caxton_proto::{Format, Revision, ToolName, WorkspaceId, shard};
use serde_json::json;

use super::super::journal::{Step, Unkept};
use super::super::turn::{Decision, Failure};
use super::super::wanted::Wanted;
use super::super::world::{AgentProblem, NotFound};
use super::super::{OfferedFunction, Parts};
use super::*;
use crate::agent::attachments::{Attachment, Content};
use crate::agent::run::Pending;
use crate::llm::Message;
use crate::llm::models::Models;
use crate::llm::providers::{Providers, Settings};

/// Agents that are found by a word of their description, and tools that are closures.
struct SmallWorld {
    workspace: WorkspaceId,
    agents: BTreeMap<String, Arc<Agent>>,
    calls: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
}

impl World for SmallWorld {
    fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }

    fn asked_by(&self) -> Option<&str> {
        Some("ann")
    }

    fn agent<'a>(&'a self, name: &'a AgentName) -> BoxFuture<'a, Result<Arc<Agent>, AgentProblem>> {
        let absent = || AgentProblem::Absent { agent: name.clone(), workspace: self.workspace.clone() };
        let agent = self.agents.get(name.as_str()).cloned().ok_or_else(absent);
        Box::pin(async move { agent })
    }

    fn find<'a>(&'a self, wanted: Wanted<'a>, except: &'a [AgentName]) -> BoxFuture<'a, Result<AgentMatch, NotFound>> {
        let (Wanted::Text(wanted) | Wanted::Capability(wanted)) = wanted;
        let fits = |agent: &&Arc<Agent>| {
            wanted.contains(&agent.manifest.description) && !except.contains(&agent.manifest.name)
        };
        let found = self.agents.values().find(fits).map(|agent| AgentMatch {
            agent: agent.manifest.name.clone(),
            capability: agent.manifest.description.clone(),
            score: 0.9,
        });
        Box::pin(async move { found.ok_or(NotFound::Nobody { nearest: vec![] }) })
    }

    fn capabilities<'a>(&'a self, _: Option<&'a str>) -> BoxFuture<'a, String> {
        let lines: Vec<&str> = self.agents.values().map(|agent| agent.manifest.description.as_str()).collect();
        let lines = lines.join("\n");
        Box::pin(async move { lines })
    }

    fn recall<'a>(&'a self, _: &'a Agent, _: &'a str) -> BoxFuture<'a, String> {
        Box::pin(async { String::new() })
    }

    fn call_tool<'a>(&'a self, call: Invocation<'a>) -> BoxFuture<'a, Result<ToolOutput, String>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match call.function {
                "count" => {
                    let lines = call.arguments["text"].as_str().unwrap_or_default().lines().count();
                    Ok(ToolOutput { structured: Some(json!({ "lines": lines })), ..ToolOutput::default() })
                }
                "draw" => {
                    let content = Content::Text("<svg/>".into());
                    let file = Attachment { name: "chart.svg".into(), media_type: "image/svg+xml".into(), content };
                    let structured = Some(json!({ "svg": "<svg/>" }));
                    Ok(ToolOutput { structured, attachments: vec![file], ..ToolOutput::default() })
                }
                "meet" => {
                    // Returns only when two calls are under way at the same time.
                    self.at_once.fetch_add(1, Ordering::SeqCst);
                    while self.at_once.load(Ordering::SeqCst) < 2 {
                        tokio::task::yield_now().await;
                    }
                    Ok(ToolOutput { text: "met".into(), ..ToolOutput::default() })
                }
                "hang" => std::future::pending().await,
                other => Err(format!("{other} is broken")),
            }
        })
    }
}

/// A world of `(name, description, tools, script, more of the file)`.
fn world(agents: &[(&str, &str, &[&str], &str, &str)]) -> SmallWorld {
    let workspace: WorkspaceId = "team".parse().expect("a name");
    let providers = Providers::new(Settings::default()).expect("no settings");
    let mut world = SmallWorld {
        workspace: workspace.clone(),
        agents: BTreeMap::new(),
        calls: Arc::default(),
        at_once: Arc::default(),
    };
    for (name, description, tools, script, more) in agents {
        let settings = "[workspace]\nname = \"team\"\n[providers.s]\nkind = \"scripted\"\nscript = \"s.toml\"\n";
        let path: TreePath = "caxton.toml".parse().expect("a path");
        let settings = WorkspaceManifest::parse(&path, settings).expect("a workspace");
        let named = [tools, &["ask_capability", "list_capabilities"][..]].concat();
        let text = format!(
            "[agent]\nname = \"{name}\"\ndescription = \"{description}\"\n[capabilities]\npatterns = [\"{description}\"]\n\
             [tools]\nrequired = {named:?}\n{more}\n"
        );
        let path: TreePath = format!("agents/{name}.toml").parse().expect("a path");
        let manifest = AgentManifest::parse(&path, &text).expect("an agent");
        let offered = tools.iter().map(|tool| OfferedFunction {
            server: tool.parse::<ToolName>().expect("a name"),
            function: (*tool).to_owned(),
            description: String::new(),
            parameters: Arc::new(json!({ "type": "object" })),
            fixed: true,
            repeatable: *tool == "count",
        });
        let read = |_: &TreePath| Ok((*script).to_owned());
        let agent = Agent::assemble(Parts {
            module: None,
            workspace: &workspace,
            revision: Revision(1),
            manifest: Arc::new(manifest),
            settings: &settings,
            offered: offered.collect(),
            away: Vec::new(),
            read: &read,
            providers: &providers,
            chat_tool: &|_, tool, _| panic!("no agent here has the tool {tool} for a model"),
        });
        world.agents.insert((*name).to_owned(), Arc::new(agent.expect("an agent")));
    }
    world
}

fn driver(world: SmallWorld, events: Events) -> Driver {
    kept(world, events, Arc::new(Unkept))
}

fn kept(world: SmallWorld, events: Events, journal: Arc<dyn Journal>) -> Driver {
    let providers = Providers::new(Settings::default()).expect("no settings");
    Driver {
        models: Arc::new(Models::new(providers)),
        world: Arc::new(world),
        health: Arc::default(),
        events,
        shelf: Shelf::default(),
        ledger: Ledger::default(),
        turn_id: "turn".into(),
        load: Load::default(),
        journal,
    }
}

async fn run(driver: &Driver, agent: &str, request: &str) -> (Run, Progress) {
    let agent = driver.world.agent(&agent.parse().expect("a name")).await.expect("there");
    let visible: Visible = driver.shelf.all().into_iter().map(|file| file.name).collect();
    let opening = Opening { request: request.into(), visible, ..Opening::default() };
    let mut run = Run::begin(&agent, opening, &driver.shelf);
    let progress = driver.drive(&mut run, &agent).await;
    (run, progress)
}

fn answer(run: &Run) -> Result<String, Failure> {
    match run.turn.next() {
        Next::Over(Outcome::Answered { text, .. }) => Ok(text.clone()),
        Next::Over(Outcome::Failed { failure }) => Err(failure.clone()),
        other => panic!("not over: {other:?}"),
    }
}

const ASKS: &str = r#"
    [[rule]]
    when.after = []
    [[rule.call]]
    tool = "ask_capability"
    arguments = { capability = "counting", request = "count the lines of {{attachment}}" }
    [[rule]]
    when.after = "ask_capability"
    when.failed = false
    [[rule.call]]
    tool = "draw"
    [[rule]]
    when.after = "draw"
    say = "{{ask_capability}}; see {{draw/svg}}"
    [[rule]]
    say = "nobody could: {{ask_capability}}"
"#;
const COUNTS: &str = r#"
    [[rule]]
    when.after = []
    [[rule.call]]
    tool = "count"
    arguments = { text = "{{attachment}}" }
    [[rule]]
    say = "{{count/lines}} lines"
"#;

#[tokio::test]
async fn two_agents_that_never_heard_of_each_other_answer_together() {
    let (events, mut heard) = Events::channel();
    let driver =
        driver(world(&[("a", "drawing", &["draw"], ASKS, ""), ("b", "counting", &["count"], COUNTS, "")]), events);
    let file =
        Attachment { name: "x.csv".into(), media_type: "text/csv".into(), content: Content::Text("1\n2\n3".into()) };
    driver.shelf.add(file).expect("room");
    let (run, progress) = run(&driver, "a", "draw the file").await;
    assert_eq!(progress, Progress::Over);
    assert_eq!(answer(&run).as_deref(), Ok("3 lines; see attachment:chart.svg"));
    assert!(run.visible.contains("chart.svg"));
    let spent = run.turn.spent();
    assert_eq!(spent.steps, 5, "three answers and two calls");
    let ledger: u64 = driver.ledger.all().iter().map(|(_, spent)| spent.tokens).sum();
    assert!(ledger > 0 && ledger == spent.usage.total(), "what the other agent used counts here too");
    drop(driver);
    let mut names = Vec::new();
    while let Some(event) = heard.recv().await {
        if event.name() != "text" {
            names.push(event.name());
        }
    }
    let expected = "model_asked model_answered delegated model_asked model_answered tool_called tool_returned \
        model_asked model_answered delegate_returned model_asked model_answered tool_called attached tool_returned \
        model_asked model_answered";
    assert_eq!(names.join(" "), expected);
}

#[tokio::test]
async fn an_agent_that_fails_is_an_error_to_the_one_that_asked_and_is_left_alone_after_a_while() {
    let broken = "[[rule]]\nwhen.request = \"never\"\nsay = \"x\"";
    let driver = driver(
        world(&[("a", "drawing", &["draw"], ASKS, ""), ("b", "counting", &["count"], broken, "")]),
        Events::none(),
    );
    for _ in 0..5 {
        let (run, _) = run(&driver, "a", "draw").await;
        assert!(answer(&run).unwrap_err().to_string().contains("leads nowhere"), "no attachment to speak of");
    }
    let file = Attachment { name: "x.csv".into(), media_type: "text/csv".into(), content: Content::Text("1".into()) };
    driver.shelf.add(file).expect("room");
    for _ in 0..5 {
        let (run, _) = run(&driver, "a", "draw the file").await;
        let said = answer(&run).expect("an answer");
        assert!(said.contains("nobody could: the agent `b` could not do it: no model answered"), "{said}");
    }
    let (run, _) = run(&driver, "a", "draw the file").await;
    assert!(answer(&run).expect("an answer").contains("failed again and again"));
}

#[tokio::test]
async fn nobody_is_found_twice_in_a_row_and_nobody_fitting_is_told_to_the_model() {
    let driver = driver(world(&[("b", "counting", &[], ASKS, "")]), Events::none());
    let file = Attachment { name: "x.csv".into(), media_type: "text/csv".into(), content: Content::Text("1".into()) };
    driver.shelf.add(file).expect("room");
    let (run, _) = run(&driver, "b", "count the file").await;
    assert!(answer(&run).expect("an answer").contains("no agent here can do that"));
}

#[tokio::test]
async fn parallel_calls_run_in_parallel() {
    let script = "[[rule]]\nwhen.after = []\n[[rule.call]]\ntool = \"meet\"\n[[rule.call]]\ntool = \"meet\"\narguments = { n = 2 }\n\
        [[rule]]\nsay = \"{{meet}}\"";
    let driver = driver(world(&[("a", "x", &["meet"], script, "")]), Events::none());
    let (run, _) = tokio::time::timeout(Duration::from_secs(10), run(&driver, "a", "go")).await.expect("no deadlock");
    assert_eq!(answer(&run).as_deref(), Ok("met"));
}

#[tokio::test]
async fn a_tool_that_hangs_costs_the_turn_its_time_and_no_more() {
    let script = "[[rule]]\n[[rule.call]]\ntool = \"hang\"";
    let driver = driver(world(&[("a", "x", &["hang"], script, "[limits]\nwall_time = \"1s\"")]), Events::none());
    let (run, progress) =
        tokio::time::timeout(Duration::from_secs(10), run(&driver, "a", "go")).await.expect("it ends");
    assert_eq!(progress, Progress::Over);
    assert!(matches!(answer(&run), Err(Failure::TimeSpent { wall_ms_max: 1_000 })));
}

#[tokio::test]
async fn an_approval_below_survives_being_stored_and_the_turn_goes_on() {
    let approval = "[approval]\ntools = [\"count\"]";
    let build = || {
        let driver = driver(
            world(&[("a", "drawing", &["draw"], ASKS, ""), ("b", "counting", &["count"], COUNTS, approval)]),
            Events::none(),
        );
        let file =
            Attachment { name: "x.csv".into(), media_type: "text/csv".into(), content: Content::Text("1\n2".into()) };
        driver.shelf.add(file).expect("room");
        driver
    };
    let (waiting, progress) = run(&build(), "a", "draw the file").await;
    assert_eq!(progress, Progress::Waiting);
    let stored = shard::Run::from(&waiting);

    for (decision, expected) in [
        (Decision::Approved, "2 lines; see attachment:chart.svg"),
        (Decision::Denied { reason: "no".into() }, "could not do it"),
    ] {
        let again = build();
        let mut run = Run::from(stored.clone());
        assert_eq!(run, waiting);
        let [pending] = run.pending().try_into().expect("one");
        let Pending { way, agent, call } = pending;
        assert_eq!((way.len(), agent.as_str(), call.action.tool()), (2, "b", "count"));
        run.decided(&way, decision).expect("it waits");
        let root = again.world.agent(&run.agent).await.expect("there");
        assert_eq!(again.drive(&mut run, &root).await, Progress::Over);
        let said = answer(&run).expect("an answer");
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn a_conversation_goes_on_where_it_was() {
    let script = "[[rule]]\nwhen.newest = \"again\"\nsay = \"again it is\"\n[[rule]]\nsay = \"first\"";
    let driver = driver(world(&[("a", "x", &[], script, "[prompts]\nsystem = \"You are A.\"")]), Events::none());
    let agent = driver.world.agent(&"a".parse().expect("a name")).await.expect("there");
    let history = vec![Message::user("hello"), Message::assistant("first")];
    let opening = Opening { request: "again".into(), history, ..Opening::default() };
    let mut run = Run::begin(&agent, opening, &driver.shelf);
    driver.drive(&mut run, &agent).await;
    let roles: Vec<&str> = run
        .turn
        .messages()
        .iter()
        .map(|message| match message {
            Message::System { .. } => "system",
            Message::User { .. } => "user",
            Message::Assistant { .. } => "assistant",
            Message::Tool { .. } => "tool",
        })
        .collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(answer(&run).as_deref(), Ok("again it is"));
}

/// Keeps every step in memory, in the form in which it is stored.
#[derive(Default)]
struct Memory(Mutex<Vec<Vec<u8>>>);

impl Journal for Memory {
    fn later(&self, step: Step) {
        let document = shard::Step::from(&step).encode(Format::PROTOBUF).expect("written");
        self.0.lock().expect("no panic").push(document);
    }

    fn now(&self, step: Step) -> BoxFuture<'_, Result<(), super::super::journal::Lost>> {
        self.later(step);
        Box::pin(async { Ok(()) })
    }
}

/// A step as the next leader reads it.
fn step_of(document: &[u8]) -> Step {
    shard::Step::decode(document).expect("a step").into()
}

/// A driver in the world of two agents with one file.
fn two_agents(journal: Arc<dyn Journal>, approval: &str) -> (Driver, Arc<AtomicUsize>) {
    let agents = [("a", "drawing", ["draw"].as_slice(), ASKS, approval), ("b", "counting", &["count"], COUNTS, "")];
    let world = world(&agents);
    let calls = Arc::clone(&world.calls);
    let driver = kept(world, Events::none(), journal);
    let content = Content::Text("1\n2\n3".into());
    driver.shelf.put_back([Arc::new(Attachment { name: "x.csv".into(), media_type: "text/csv".into(), content })]);
    (driver, calls)
}

#[tokio::test]
async fn a_turn_that_stops_after_any_step_goes_on_from_there() {
    let memory = Arc::new(Memory::default());
    let (driver, calls) = two_agents(Arc::clone(&memory) as Arc<dyn Journal>, "");
    let agent = driver.world.agent(&"a".parse().expect("a name")).await.expect("there");
    let visible: Visible = driver.shelf.all().into_iter().map(|file| file.name).collect();
    let opening = Opening { request: "draw the file".into(), visible, ..Opening::default() };
    let begun = Run::begin(&agent, opening, &driver.shelf);
    let mut whole = begun.clone();
    assert_eq!(driver.drive(&mut whole, &agent).await, Progress::Over);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let steps = memory.0.lock().expect("no panic").clone();
    let names = steps.iter().map(|step| match step_of(step) {
        Step::Answered { .. } => "answered",
        Step::Delegated { .. } => "delegated",
        Step::Returned { .. } => "returned",
        Step::Decided { .. } | Step::TakenUp { .. } => "another",
    });
    let expected = ["answered", "delegated", "answered", "returned", "answered", "returned", "answered", "returned"];
    assert_eq!(names.collect::<Vec<_>>(), expected);

    for stopped in 0..=steps.len() {
        let (driver, calls) = two_agents(Arc::new(Unkept), "");
        let mut run = begun.clone();
        let read: Vec<Step> = steps[..stopped].iter().map(|step| step_of(step)).collect();
        run.replay(read, &driver.shelf, &driver.ledger).expect("it fits");
        let doubts: Vec<String> = run.doubts().iter().map(|doubt| doubt.call.action.tool().to_owned()).collect();
        let in_doubt: &[&str] = match stopped {
            3 => &["count"],
            7 => &["draw"],
            _ => &[],
        };
        assert_eq!(doubts, in_doubt, "after step {stopped}");
        assert_eq!(driver.drive(&mut run, &agent).await, Progress::Over, "after step {stopped}");
        assert_eq!(answer(&run), answer(&whole), "after step {stopped}");
        assert_eq!((run.said(), run.turn.spent().usage), (whole.said(), whole.turn.spent().usage));
        let made = [4, 8].iter().filter(|returned| stopped < **returned).count();
        assert_eq!(calls.load(Ordering::SeqCst), made, "nothing that returned is called again, after step {stopped}");
        let tokens = |driver: &Driver| driver.ledger.all().iter().map(|(_, spent)| spent.tokens).sum::<u64>();
        assert_eq!(
            tokens(&driver),
            whole.turn.spent().usage.total(),
            "what was used counts once, after step {stopped}"
        );
    }
}

#[tokio::test]
async fn a_call_in_doubt_is_settled_with_what_the_model_is_told() {
    let memory = Arc::new(Memory::default());
    let (driver, _) = two_agents(Arc::clone(&memory) as Arc<dyn Journal>, "");
    let agent = driver.world.agent(&"a".parse().expect("a name")).await.expect("there");
    let visible: Visible = driver.shelf.all().into_iter().map(|file| file.name).collect();
    let begun =
        Run::begin(&agent, Opening { request: "draw the file".into(), visible, ..Opening::default() }, &driver.shelf);
    driver.drive(&mut begun.clone(), &agent).await;
    let steps = memory.0.lock().expect("no panic").clone();
    let read = |count: usize| steps[..count].iter().map(|step| step_of(step));
    let (shelf, ledger) = (Shelf::default(), Ledger::default());
    let mut run = begun.clone();
    run.replay(read(7), &shelf, &ledger).expect("it fits");
    let [doubt] = run.doubts().try_into().expect("one");
    let step = run.settle(&doubt, Returned::failed("perhaps")).expect("it is asked for");
    assert!(run.doubts().is_empty() && run.settle(&doubt, Returned::failed("again")).is_err());
    // Whoever takes it up next reads the same.
    let mut next = begun.clone();
    let steps = read(7).chain([Step::TakenUp { term: 4 }, step, Step::TakenUp { term: 5 }]);
    assert_eq!(next.replay(steps, &Shelf::default(), &Ledger::default()), Ok(2));
    assert_eq!(next, run);
    let lost = Step::Decided { way: vec!["nothing".into()], decision: Decision::Approved };
    assert!(next.replay([lost], &shelf, &ledger).is_err(), "what does not fit is not guessed at");
}
