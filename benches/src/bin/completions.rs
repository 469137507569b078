//! Whole turns through an OpenAI-compatible provider that answers at once: what an agent server costs beside its model. Caxton,
//! and servers of Python that do the same, each in turn in one run, with the same provider and the same client.
//!
//! ```text
//! python3 -m venv LITELLM && LITELLM/bin/pip install 'litellm[proxy]'
//! python3 -m venv ADK && ADK/bin/pip install google-adk litellm
//! python3 -m venv LANGGRAPH && LANGGRAPH/bin/pip install 'langgraph-cli[inmem]' langchain-openai
//! cargo build --release -p caxton -p caxton-benches
//! target/release/completions --dir DIR --litellm LITELLM --adk ADK --langgraph LANGGRAPH
//! ```
//!
//! The provider is in this process and answers every request with the same sentence. The controls: an append with fdatasync, the
//! provider itself, and Caxton's `/health`. Processor time is that of the server with all that it started, of the system as well as
//! its own; the client's and the provider's are not in it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use caxton_benches::figures::{Figures, bare_fdatasync, drive};
use caxton_benches::http::Pool;
use caxton_benches::node::Caxton;
use clap::Parser;
use serde_json::json;

/// What a peer gets to listen: some import for a long time.
const LISTEN_WITHIN: Duration = Duration::from_secs(180);
/// How many a second the kernel counts in /proc, on every architecture that Linux has today (USER_HZ).
const TICKS: f64 = 100.0;
const SENTENCE: &str = "That is all that there is to say about it.";

/// Measures whole turns through a provider that answers at once.
#[derive(Parser)]
struct Args {
    /// The program; else the one beside this benchmark.
    #[arg(long)]
    caxton: Option<PathBuf>,
    /// Where to keep what the servers write; must be on a real disk.
    #[arg(long, default_value = "target/bench-completions")]
    dir: PathBuf,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many clients wait for an answer at once.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// A virtual environment with LiteLLM's proxy.
    #[arg(long)]
    litellm: Option<PathBuf>,
    /// A virtual environment with Google's ADK.
    #[arg(long)]
    adk: Option<PathBuf>,
    /// A virtual environment with LangGraph's server.
    #[arg(long)]
    langgraph: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    fs::create_dir_all(&args.dir)?;
    let dir = tempfile::tempdir_in(&args.dir)?;
    let provider = provider().await?;
    say(&["", "clients", "in a second", "p50 ms", "p99 ms", "CPU s for 1,000"])?;
    say(&["---", "---", "---", "---", "---", "---"])?;
    let seconds = Duration::from_secs_f64(args.seconds);
    let synced = Figures::of(bare_fdatasync(dir.path(), seconds)?, seconds)?;
    print("control: fdatasync, one after another", 1, &synced, None)?;
    let itself = Pool::open(&provider, args.clients, "").await?;
    measure(&args, "control: the provider itself", None, {
        move |client, _| {
            let pool = itself.clone();
            async move { pool.post(client, "/v1/chat/completions", r#"{"messages":[]}"#).await.map(drop) }
        }
    })
    .await?;
    caxton(&args, dir.path(), &provider).await?;
    let peers: [(&Option<PathBuf>, fn(&Path, &str, u16) -> Result<Peer>); 3] =
        [(&args.litellm, litellm), (&args.adk, adk), (&args.langgraph, langgraph)];
    for (venv, peer) in peers {
        let Some(venv) = venv else { continue };
        let venv = fs::canonicalize(venv).with_context(|| format!("no environment {}", venv.display()))?;
        run(&args, dir.path(), &provider, &venv, peer).await?;
    }
    Ok(())
}

/// Starts the provider, and gives its address.
async fn provider() -> Result<String> {
    async fn complete(body: Bytes) -> impl IntoResponse {
        let wants = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        let usage = json!({ "prompt_tokens": 20, "completion_tokens": 11, "total_tokens": 31 });
        let head = json!({ "id": "c", "created": 1_700_000_000, "model": "mock" });
        let with = |more: serde_json::Value| {
            let mut whole = head.clone();
            whole.as_object_mut().into_iter().for_each(|it| it.extend(more.as_object().cloned().unwrap_or_default()));
            whole
        };
        if wants["stream"] == true {
            let delta = json!({ "role": "assistant", "content": SENTENCE });
            let piece = json!({ "object": "chat.completion.chunk",
                "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] });
            let end = json!({ "object": "chat.completion.chunk", "usage": usage,
                "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
            let text = format!("data: {}\n\ndata: {}\n\ndata: [DONE]\n\n", with(piece), with(end));
            return ([(header::CONTENT_TYPE, "text/event-stream")], text);
        }
        let message = json!({ "role": "assistant", "content": SENTENCE });
        let whole = json!({ "object": "chat.completion", "usage": usage,
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] });
        ([(header::CONTENT_TYPE, "application/json")], with(whole).to_string())
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let routes = Router::new().route("/v1/chat/completions", post(complete));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

async fn caxton(args: &Args, dir: &Path, provider: &str) -> Result<()> {
    let (caxton, home) = (Caxton::find(args.caxton.clone())?, dir.join("caxton"));
    let workspace = home.join("workspace");
    fs::create_dir_all(workspace.join("agents"))?;
    let toml = format!(
        "[workspace]\nname = \"bench\"\n\n[providers.mock]\nkind = \"openai\"\nbase_url = \"http://{provider}/v1\"\nmodel = \"mock\"\n"
    );
    fs::write(workspace.join("caxton.toml"), toml)?;
    fs::write(workspace.join("agents/bench.toml"), "[agent]\nname = \"bench\"\n[prompts]\nsystem = \"Answer.\"\n")?;
    let node = caxton.start(&home.join("data"))?;
    caxton.deploy(&workspace, &node.data)?;
    let pool = Pool::open(&node.address, args.clients, &node.token()?).await?;
    let health = {
        let pool = pool.clone();
        move |client, _| {
            let pool = pool.clone();
            async move { pool.get(client, "/health").await.map(drop) }
        }
    };
    measure(args, "control: Caxton's /health", Some(node.pid()), health).await?;
    let path = "/v1/chat/completions";
    let body = json!({ "model": "bench/bench", "messages": [{ "role": "user", "content": "What is there to say?" }] });
    let (body, turn) = (Bytes::from(body.to_string()), pool);
    let turn = move |client, _| {
        let (pool, body) = (turn.clone(), body.clone());
        async move { pool.post(client, path, body).await.map(drop) }
    };
    measure(args, "Caxton, /v1, on disk", Some(node.pid()), turn).await?;
    node.stop()
}

/// A server of Python, and what a turn of it is.
struct Peer {
    name: &'static str,
    command: Command,
    /// Each of these in turn is a turn; `{n}` stands for a number that no other turn has.
    posts: Vec<(String, String)>,
}

async fn run(
    args: &Args,
    dir: &Path,
    provider: &str,
    venv: &Path,
    peer: fn(&Path, &str, u16) -> Result<Peer>,
) -> Result<()> {
    let home = dir.join(venv.file_name().unwrap_or_default());
    fs::create_dir_all(&home)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let Peer { name, command, posts } = peer(&home, provider, port)?;
    let bin = venv.join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(bin.clone()).chain(std::env::split_paths(&path));
    let log = File::create(home.join("log"))?;
    let program = bin.join(command.get_program());
    let mut started = Command::new(program);
    started.args(command.get_args()).current_dir(&home).env("PATH", std::env::join_paths(paths)?);
    started.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut server = Server(started.spawn().with_context(|| format!("{name} does not start"))?);
    let address = format!("127.0.0.1:{port}");
    let until = Instant::now() + LISTEN_WITHIN;
    // It listens, and then it answers: the first turn may take as long as its imports do.
    loop {
        ensure!(server.0.try_wait()?.is_none(), "{name} ended: {}", fs::read_to_string(home.join("log"))?);
        let first = async {
            let pool = Pool::open(&address, 1, "none").await?;
            turn(&pool, &posts, 0, u64::MAX).await
        };
        match first.await {
            Ok(()) => break,
            Err(error) if Instant::now() > until => {
                return Err(error.context(format!("{name}: {}", fs::read_to_string(home.join("log"))?)));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
    let pool = Pool::open(&address, args.clients, "none").await?;
    let pid = server.0.id();
    measure(args, name, Some(pid), move |client, number| {
        let (pool, posts) = (pool.clone(), posts.clone());
        async move { turn(&pool, &posts, client, client as u64 * 1_000_000_007 + number).await }
    })
    .await
}

async fn turn(pool: &Pool, posts: &[(String, String)], client: usize, number: u64) -> Result<()> {
    for (path, body) in posts {
        let named = |text: &str| text.replace("{n}", &number.to_string());
        pool.post(client, &named(path), named(body)).await?;
    }
    Ok(())
}

fn litellm(home: &Path, provider: &str, port: u16) -> Result<Peer> {
    let config = json!({ "model_list": [{ "model_name": "mock", "litellm_params": {
        "model": "openai/mock", "api_base": format!("http://{provider}/v1"), "api_key": "none" } }] });
    fs::write(home.join("config.yaml"), config.to_string())?;
    let mut command = Command::new("litellm");
    command.args(["--config", "config.yaml", "--host", "127.0.0.1", "--port", &port.to_string()]);
    let body = json!({ "model": "mock", "messages": [{ "role": "user", "content": "What is there to say?" }] });
    let posts = vec![("/v1/chat/completions".to_owned(), body.to_string())];
    Ok(Peer { name: "LiteLLM's proxy, no disk", command, posts })
}

fn adk(home: &Path, provider: &str, port: u16) -> Result<Peer> {
    let agent = home.join("agents/bench");
    fs::create_dir_all(&agent)?;
    fs::write(agent.join("__init__.py"), "from . import agent\n")?;
    fs::write(
        agent.join("agent.py"),
        format!(
            "from google.adk.agents import LlmAgent\nfrom google.adk.models.lite_llm import LiteLlm\n\n\
             model = LiteLlm(model=\"openai/mock\", api_base=\"http://{provider}/v1\", api_key=\"none\")\n\
             root_agent = LlmAgent(name=\"bench\", model=model, instruction=\"Answer.\")\n"
        ),
    )?;
    let mut command = Command::new("adk");
    command.args(["api_server", "--host", "127.0.0.1", "--port", &port.to_string(), "agents"]);
    let message = json!({ "role": "user", "parts": [{ "text": "What is there to say?" }] });
    let run = json!({ "app_name": "bench", "user_id": "u", "session_id": "s{n}", "new_message": message });
    let posts =
        vec![("/apps/bench/users/u/sessions/s{n}".to_owned(), "{}".to_owned()), ("/run".to_owned(), run.to_string())];
    Ok(Peer { name: "ADK's api_server", command, posts })
}

fn langgraph(home: &Path, provider: &str, port: u16) -> Result<Peer> {
    fs::write(
        home.join("langgraph.json"),
        json!({ "dependencies": ["."], "graphs": { "bench": "./graph.py:graph" } }).to_string(),
    )?;
    fs::write(
        home.join("graph.py"),
        format!(
            "from langchain_openai import ChatOpenAI\nfrom langgraph.graph import END, START, MessagesState, StateGraph\n\n\
             model = ChatOpenAI(model=\"mock\", base_url=\"http://{provider}/v1\", api_key=\"none\")\n\n\n\
             async def answer(state: MessagesState):\n    return {{\"messages\": [await model.ainvoke(state[\"messages\"])]}}\n\n\n\
             builder = StateGraph(MessagesState)\nbuilder.add_node(\"answer\", answer)\n\
             builder.add_edge(START, \"answer\")\nbuilder.add_edge(\"answer\", END)\ngraph = builder.compile()\n"
        ),
    )?;
    let mut command = Command::new("langgraph");
    command.args(["dev", "--host", "127.0.0.1", "--port", &port.to_string(), "--no-browser", "--no-reload"]);
    let messages = json!([{ "role": "user", "content": "What is there to say?" }]);
    let body = json!({ "assistant_id": "bench", "input": { "messages": messages } });
    Ok(Peer { name: "LangGraph's server", command, posts: vec![("/runs/wait".to_owned(), body.to_string())] })
}

/// Drives one client and then many, and prints both.
async fn measure<F, P>(args: &Args, what: &str, pid: Option<u32>, call: F) -> Result<()>
where
    F: Fn(usize, u64) -> P + Clone + Send + 'static,
    P: Future<Output = Result<()>> + Send,
{
    let seconds = Duration::from_secs_f64(args.seconds);
    drive(args.clients, seconds / 4, call.clone()).await?;
    for clients in [1, args.clients] {
        let before = pid.map(cpu).transpose()?;
        let (started, figures) = (Instant::now(), drive(clients, seconds, call.clone()).await?);
        let made = figures.rate * seconds.as_secs_f64().max(started.elapsed().as_secs_f64());
        let used = pid.map(cpu).transpose()?.zip(before).map(|(now, before)| (now - before) / made * 1e3);
        print(what, clients, &figures, used)?;
    }
    Ok(())
}

/// Seconds of processor time that a process and all that it started have used.
fn cpu(pid: u32) -> Result<f64> {
    let mut processes: HashMap<u32, (u32, u64)> = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has just ended is not there any more.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name may have anything in it, and ends with the last bracket.
        let Some((_, fields)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<u64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        if let (Some(parent), Some(times)) = (fields.get(1), fields.get(11..15)) {
            processes.insert(pid, (*parent as u32, times.iter().sum()));
        }
    }
    let mut of = vec![pid];
    let mut at = 0;
    while let Some(parent) = of.get(at).copied() {
        of.extend(processes.iter().filter(|(_, (above, _))| *above == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    let ticks: u64 = of.iter().filter_map(|pid| processes.get(pid)).map(|(_, ticks)| ticks).sum();
    Ok(ticks as f64 / TICKS)
}

/// A server that ends with all that it started when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

fn print(what: &str, clients: usize, figures: &Figures, cpu: Option<f64>) -> Result<()> {
    let (p50, p99) = figures.ms();
    let cpu = cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.3}"));
    let rate = format!("{:.0}", figures.rate);
    say(&[what, &clients.to_string(), &rate, &format!("{p50:.3}"), &format!("{p99:.3}"), &cpu])
}

/// A line of a Markdown table.
fn say(cells: &[&str]) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "| {} |", cells.join(" | "))?)
}
