//! `caxton memory`: what a workspace remembers, for whoever runs it: found, shown, changed, forgotten, carried elsewhere.

mod carry;
mod show;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use http::Method;
use serde_json::Value;

use crate::api::memory::{
    EditRequest, EditResponse, ForgetRequest, ForgetResponse, GraphRequest, GraphResponse, KeepRequest, KeepResponse,
    MemoryDetail, MemoryFilter, MemoryPage, MemoryStats, NewMemoryInfo, NewRelationInfo, SearchMode, SearchRequest,
    SearchResponse,
};
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{BAD, GOOD, paint, size};
use crate::cli::{CliError, Context, text};
use crate::client::Retry;

/// Arguments of `caxton memory`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton memory add \"Ann prefers tea\" --kind preference
  caxton memory search \"what does Ann drink\" --explain
  caxton memory export > memory.jsonl")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List memories, the oldest change first.
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns: MEMORY its id, CHANGED when it was last changed, SCOPE who shares it, KIND what kind it is, TEXT its first words. JSON \
has them as id, changed, scope, kind and text.

Example:
  caxton memory list --scope workspace --kind fact"
    )]
    List {
        #[command(flatten)]
        which: Which,
        /// What was true then, as 2026-01-31 or RFC 3339.
        #[arg(long, value_name = "TIME")]
        as_of: Option<String>,
        /// How many, at most 1,000.
        #[arg(long, short = 'n', default_value_t = 50)]
        limit: u32,
        /// The `next` of the page before.
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
    },
    /// Search by words and by meaning.
    #[command(after_help = "\
Examples:
  caxton memory search \"what does Ann drink\"
  caxton memory search \"home address\" --as-of 2025-06-01 --explain
  caxton memory search '\"quick fox\" OR bear*' --by phrase")]
    Search(Search),
    /// Show one memory with what it was before.
    #[command(after_help = "Example:\n  caxton memory show 0199f2c4...")]
    Show {
        /// The id of the memory.
        id: String,
    },
    /// Keep a memory; the same thing twice is one memory.
    #[command(after_help = "\
Examples:
  caxton memory add \"Ann prefers tea\" --kind preference
  caxton memory add \"Ann lives in Rome\" --name home --about Ann --scope workspace")]
    Add(Add),
    /// Change a memory; what it was stays in its history.
    #[command(after_help = "\
Examples:
  caxton memory edit 0199f2c4... --text \"Ann prefers green tea\"
  caxton memory edit 0199f2c4... --undo")]
    Edit(Edit),
    /// Forget memories for good: by id, by filter, a whole scope, or all that is said of somebody.
    #[command(after_help = "\
Examples:
  caxton memory forget 0199f2c4...
  caxton memory forget --kind exchange --dry-run
  caxton memory forget --all-of subject:ann")]
    Forget(Forget),
    /// Keep how two people or things relate.
    #[command(after_help = "Example:\n  caxton memory relate Ann \"works for\" Acme")]
    Relate {
        /// Where the relation begins.
        from: String,
        /// How they relate.
        kind: String,
        /// Where it ends.
        to: String,
        /// Who shares it: one's own scope unless told.
        #[arg(long, value_name = "SCOPE")]
        scope: Option<String>,
    },
    /// Show what is around somebody or something, or a way from one to another.
    #[command(after_help = "\
Examples:
  caxton memory graph Ann --depth 2
  caxton memory graph Ann --to Rome")]
    Graph(Graph),
    /// Show how much is remembered.
    #[command(after_help = "\
Columns: SCOPE who shares them, MEMORIES how many there are, BYTES what they take, ENTITIES the people and things that are \
known, RELATIONS how many there are between these. JSON has them as scope, memories, bytes, entities and relations.

Example:
  caxton memory stats")]
    Stats,
    /// Empty the workspace's memory backend and fill it anew.
    #[command(after_help = "Example:\n  caxton memory sync")]
    Sync {
        /// Do not wait until it is filled.
        #[arg(long)]
        no_wait: bool,
    },
    /// Write everything that you may see, one JSON document a line.
    #[command(after_help = "Example:\n  caxton memory export --scope workspace > memory.jsonl")]
    Export {
        /// Only this scope.
        #[arg(long, value_name = "SCOPE")]
        scope: Option<String>,
        /// Only memories of this kind, with every entity and relation.
        #[arg(long)]
        kind: Option<String>,
    },
    /// Take in an export, or a file of the MCP memory server, mem0 or LangGraph's store.
    #[command(after_help = "\
Examples:
  caxton memory import memory.jsonl
  caxton memory import mem0.json --scope workspace")]
    Import {
        /// The file; `-` is standard input.
        file: PathBuf,
        /// Where memories go that name no scope: one's own unless told.
        #[arg(long, value_name = "SCOPE")]
        scope: Option<String>,
    },
}

/// Which memories are meant.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only this scope: conversation:ID, agent:NAME, subject:NAME or workspace.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// Only this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only what is known of this person or thing.
    #[arg(long, value_name = "NAME")]
    about: Option<String>,
}

/// By what to search.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Both,
    Words,
    Meaning,
    Phrase,
    Conversations,
}

#[derive(Debug, clap::Args)]
struct Search {
    /// A question or a few words.
    text: String,
    #[command(flatten)]
    which: Which,
    /// By words and meaning, by one of them, by an expression of phrases, or for whole conversations.
    #[arg(long, value_enum, default_value_t = By::Both)]
    by: By,
    /// Only those whose metadata have this value.
    #[arg(long, value_name = "PATH=VALUE")]
    metadata: Vec<String>,
    /// What was true then, as 2026-01-31 or RFC 3339; `any` finds what was ever true.
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    /// How well a memory has to fit, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    min_similarity: f32,
    /// How many, at most 1,000.
    #[arg(long, short = 'n', default_value_t = 10)]
    limit: usize,
    /// Say what each score is made of.
    #[arg(long)]
    explain: bool,
}

#[derive(Debug, clap::Args)]
struct Add {
    /// What to remember.
    text: String,
    /// Who shares it: conversation:ID, agent:NAME, subject:NAME or workspace; one's own scope unless told.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// What kind it is: fact unless told.
    #[arg(long)]
    kind: Option<String>,
    /// What it is about: another text of the same kind and name takes its place.
    #[arg(long)]
    name: Option<String>,
    /// The person or thing of which it is an observation.
    #[arg(long, value_name = "NAME")]
    about: Option<String>,
    /// A JSON object, to filter by.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// From 0 to 100.
    #[arg(long)]
    importance: Option<u8>,
    /// Keep it whatever retention says.
    #[arg(long)]
    pin: bool,
    /// From when it is true, as 2026-01-31 or RFC 3339.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// From when it is no longer true.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Edit {
    /// The id of the memory.
    id: String,
    /// Take the last edit back.
    #[arg(long, conflicts_with_all = ["text", "kind", "name", "metadata", "importance", "pin", "until"])]
    undo: bool,
    /// The new text of it.
    #[arg(long)]
    text: Option<String>,
    /// The new kind of it.
    #[arg(long)]
    kind: Option<String>,
    /// Its name; an empty one takes it away.
    #[arg(long)]
    name: Option<String>,
    /// Its metadata, a JSON object; an empty text takes them away.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Its importance, from 0 to 100.
    #[arg(long)]
    importance: Option<u8>,
    /// Whether it stays whatever retention says.
    #[arg(long, value_name = "BOOL")]
    pin: Option<bool>,
    /// From when it is no longer true; an empty text makes it true without an end.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Forget {
    /// Memories by their ids.
    #[arg(conflicts_with_all = ["scope", "kind", "about", "all_of", "entity"])]
    ids: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// Everything of a scope, and the sources elsewhere that name its conversation or person.
    #[arg(long, value_name = "SCOPE", conflicts_with_all = ["scope", "kind", "about", "entity"])]
    all_of: Option<String>,
    /// A person or thing, with all that is said of it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["kind", "about"])]
    entity: Option<String>,
    /// Only say what would be forgotten.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short = 'y')]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Graph {
    /// Where it begins.
    #[arg(required = true, value_name = "NAME")]
    from: Vec<String>,
    /// Where it ends: a shortest way there.
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// The scope of these names: one's own unless told.
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// How many relations away, at most 16.
    #[arg(long)]
    depth: Option<u32>,
    /// Only relations of this kind.
    #[arg(long)]
    kind: Vec<String>,
    /// Which way relations are followed: out, in or both.
    #[arg(long)]
    direction: Option<String>,
    /// What was true then, as 2026-01-31 or RFC 3339; `any` for what was ever true.
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
}

/// Does what the subcommand says.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    match args.command {
        Command::List { which, as_of, limit, after } => {
            let query = [
                ("scope", which.scope),
                ("kind", which.kind),
                ("entity", which.about),
                ("as_of", as_of),
                ("after", after),
                ("limit", Some(limit.to_string())),
            ];
            let path = paths::with_query(remote.path(paths::MEMORIES), &given(query));
            let page: MemoryPage = context.block_on(async { Ok(client.get(&path).await?) })?;
            show::list(context, &page)
        }
        Command::Search(search) => find(context, &remote, search),
        Command::Show { id } => {
            let path = remote.path_of(paths::MEMORY, &id);
            let found: MemoryDetail = context.block_on(async { Ok(client.get(&path).await?) })?;
            show::detail(context, &found)
        }
        Command::Add(add) => keep(context, &remote, add),
        Command::Edit(edit) => change(context, &remote, edit),
        Command::Forget(what) => forget(context, &remote, what),
        Command::Relate { from, kind, to, scope } => {
            let relation = NewRelationInfo { from, kind, to, scope, metadata: None, valid_from: None, valid_to: None };
            let request = KeepRequest { relations: vec![relation], ..KeepRequest::default() };
            let path = remote.path(paths::MEMORIES);
            let kept: KeepResponse =
                context.block_on(async { Ok(client.post(&path, &request, Retry::Once).await?) })?;
            kept_one(context, &kept, kept.relations.first())
        }
        Command::Graph(graph) => {
            let request = GraphRequest {
                from: graph.from,
                to: graph.to,
                scope: graph.scope,
                depth: graph.depth,
                direction: graph.direction,
                relation_kinds: graph.kind,
                as_of: graph.as_of,
                ..GraphRequest::default()
            };
            let path = remote.path(paths::MEMORY_GRAPH);
            let found: GraphResponse =
                context.block_on(async { Ok(client.post(&path, &request, Retry::Once).await?) })?;
            show::graph(context, &found)
        }
        Command::Stats => {
            let path = remote.path(paths::MEMORY_STATS);
            let stats: MemoryStats = context.block_on(async { Ok(client.get(&path).await?) })?;
            show::stats(context, &stats)
        }
        Command::Sync { no_wait } => carry::sync(context, &remote, no_wait),
        Command::Export { scope, kind } => carry::export(context, &remote, &given([("scope", scope), ("kind", kind)])),
        Command::Import { file, scope } => carry::import(context, &remote, &file, scope),
    }
}

/// `1 memory`, `2 memories`.
fn many(number: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if number == 1 => format!("1 {noun}"),
        Some(stem) => format!("{number} {stem}ies"),
        None => format!("{number} {noun}s"),
    }
}

/// The parts of a query that were given.
fn given<const N: usize>(query: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn filter_of(which: Which) -> MemoryFilter {
    MemoryFilter {
        scopes: which.scope.into_iter().collect(),
        kinds: which.kind.into_iter().collect(),
        entity: which.about,
        ..MemoryFilter::default()
    }
}

fn object(flag: &str, text: &str) -> Result<Value, CliError> {
    serde_json::from_str(text).map_err(|error| {
        CliError::usage(format!("{flag} is no JSON"))
            .help("write an object, such as '{\"city\": \"Rome\"}'")
            .source(error)
    })
}

/// `PATH=VALUE`: a value that is JSON is that, anything else a text.
fn conditions(all: &[String]) -> Result<BTreeMap<String, Value>, CliError> {
    let condition = |text: &String| {
        let (path, value) = text.split_once('=').ok_or_else(|| {
            CliError::usage(format!("--metadata {text:?} has no `=`")).help("write --metadata city=Rome")
        })?;
        Ok((path.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
    };
    all.iter().map(condition).collect()
}

fn find(context: &Context, remote: &Remote<'_>, search: Search) -> Result<(), CliError> {
    let mode = match search.by {
        By::Both => SearchMode::Both,
        By::Words => SearchMode::Words,
        By::Meaning => SearchMode::Meaning,
        By::Phrase => SearchMode::Phrase,
        By::Conversations => SearchMode::Conversations,
    };
    let filter = MemoryFilter { metadata: conditions(&search.metadata)?, ..filter_of(search.which) };
    let request = SearchRequest {
        text: search.text,
        mode,
        filter,
        limit: Some(search.limit),
        min_similarity: search.min_similarity,
        as_of: search.as_of,
        explain: search.explain,
    };
    let path = remote.path(paths::MEMORY_SEARCH);
    let client = remote.client;
    let found: SearchResponse = context.block_on(async { Ok(client.post(&path, &request, Retry::Once).await?) })?;
    show::found(context, &found)
}

fn keep(context: &Context, remote: &Remote<'_>, add: Add) -> Result<(), CliError> {
    let memory = NewMemoryInfo {
        text: add.text,
        scope: add.scope,
        kind: add.kind,
        name: add.name,
        entity: add.about,
        metadata: add.metadata.map(|text| object("--metadata", &text)).transpose()?,
        importance: add.importance,
        pinned: add.pin,
        valid_from: add.since,
        valid_to: add.until,
        replaces: None,
        // Drawn here, so that an answer that is lost on the way leaves one memory.
        id: Some(uuid::Uuid::now_v7().simple().to_string()),
    };
    let request = KeepRequest { memories: vec![memory], ..KeepRequest::default() };
    let path = remote.path(paths::MEMORIES);
    let client = remote.client;
    let kept: KeepResponse = context.block_on(async { Ok(client.post(&path, &request, Retry::Once).await?) })?;
    kept_one(context, &kept, kept.memories.first())
}

/// Says what became of one thing to keep.
fn kept_one(context: &Context, all: &KeepResponse, one: Option<&crate::api::memory::KeptInfo>) -> Result<(), CliError> {
    let Some(kept) = one else { return Err(CliError::new("internal", "the server does not say what became of it")) };
    if let Some(problem) = &kept.problem {
        return Err(CliError::new("invalid_request", text::one_line(problem)).help("change it and add it again"));
    }
    let word = if kept.fate == "known" { "known before:" } else { "kept" };
    context.out.line(format_args!("{} {}", paint(GOOD, word), kept.id))?;
    for closed in &kept.closed {
        context.out.line(format_args!("{} {closed}", paint(BAD, "true no longer:")))?;
    }
    context.out.json(all)
}

fn change(context: &Context, remote: &Remote<'_>, edit: Edit) -> Result<(), CliError> {
    let client = remote.client;
    let request = if edit.undo {
        client.request(Method::POST, &remote.path_of(paths::MEMORY_UNDO, &edit.id))
    } else {
        let metadata = |text: String| if text.is_empty() { Ok(Value::from("")) } else { object("--metadata", &text) };
        let body = EditRequest {
            text: edit.text,
            kind: edit.kind,
            name: edit.name,
            metadata: edit.metadata.map(metadata).transpose()?,
            importance: edit.importance,
            pinned: edit.pin,
            valid_from: None,
            valid_to: edit.until,
        };
        let says_nothing = serde_json::to_value(&body).is_ok_and(|it| it.as_object().is_some_and(|it| it.is_empty()));
        if says_nothing {
            return Err(CliError::usage("nothing is to be changed").help("say --text, --kind, --name, ... or --undo"));
        }
        client.request(Method::PUT, &remote.path_of(paths::MEMORY, &edit.id)).json(&body)
    };
    let changed: EditResponse = context.block_on(async { Ok(client.json(request, Retry::Never).await?) })?;
    let word = if edit.undo { "took back" } else { "made" };
    context.out.line(format_args!("{} edit {} of {}", paint(GOOD, word), changed.number, changed.memory.id))?;
    context.out.line(text::one_line(&changed.memory.text))?;
    context.out.json(&changed)
}

fn forget(context: &Context, remote: &Remote<'_>, what: Forget) -> Result<(), CliError> {
    let mut request = ForgetRequest { ids: what.ids, dry_run: what.dry_run, ..ForgetRequest::default() };
    if let Some(scope) = what.all_of {
        request.scope = Some(scope);
    } else if let Some(entity) = what.entity {
        (request.entity, request.entity_scope) = (Some(entity), what.which.scope);
    } else if request.ids.is_empty() {
        request.filter = Some(filter_of(what.which)).filter(|filter| *filter != MemoryFilter::default());
        if request.filter.is_none() {
            return Err(CliError::usage("it has to be said what to forget")
                .help("name ids, --kind, --scope, --about, --entity, or --all-of SCOPE"));
        }
    }
    let (path, client) = (remote.path(paths::MEMORY_FORGET), remote.client);
    if request.ids.is_empty() && !what.dry_run && !what.yes {
        if !context.out.can_ask() {
            return Err(CliError::usage("nobody is there to agree to it")
                .help("agree beforehand with --yes, or look at what would go with --dry-run"));
        }
        let question = match &request.filter {
            Some(_) => {
                let dry = ForgetRequest { dry_run: true, ..request.clone() };
                let would: ForgetResponse =
                    context.block_on(async { Ok(client.post(&path, &dry, Retry::Once).await?) })?;
                format!("Forget {} ({}) for good?", many(would.memories, "memory"), size(would.bytes))
            }
            None => "Forget all of it for good?".to_owned(),
        };
        if !context.out.confirm(question)? {
            return Err(
                CliError::new("not_agreed", "nothing was forgotten").help("say --yes to forget without being asked")
            );
        }
    }
    let gone: ForgetResponse = context.block_on(async { Ok(client.post(&path, &request, Retry::Once).await?) })?;
    let word = if gone.dry_run { "would forget" } else { "forgot" };
    context.out.line(format_args!(
        "{} {}, {}, {}",
        paint(BAD, word),
        many(gone.memories, "memory"),
        many(gone.entities, "entity"),
        many(gone.relations, "relation")
    ))?;
    context.out.json(&gone)
}
