//! `caxton messages`: what lies in mailboxes, what is sent, and topics, for whoever runs a workspace.

mod keys;
mod show;
mod topics;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::api::mailbox::{
    DeadLettersChange, DeadLettersRequest, Delivery, DeliveryChange, DeliveryPage, MessageEvent, SendResponse,
};
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{BAD, GOOD, count, paint};
use crate::cli::{CliError, Context, stream, text};
use crate::client::{Client, Retry};

/// The longest content or message that is read from a file or standard input, in bytes.
const INPUT_BYTES_MAX: u64 = 4 << 20;

/// Arguments of `caxton messages`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton messages send analyst \"Which quarter was the best?\"
  caxton messages list --dead
  caxton messages tail")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what lies in mailboxes: one's own, or everybody's for deployers.
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns: DELIVERY its number, MAILBOX whose it is in, FROM who sent it, DOES its performative, STATE ready, started, retry, dead \
or waiting for a turn that was put down, TRIED how often it was given to its receiver, WHEN it was sent or is tried again, SAYS the \
beginning of it, or why it failed. JSON has them as delivery, owner, message, state, attempts, due and reason.

Examples:
  caxton messages list --owner analyst
  caxton messages list --dead --json | jq '.deliveries[].reason'"
    )]
    List {
        /// Only in this mailbox: an agent's name, or subject:NAME.
        #[arg(long, value_name = "WHOSE")]
        owner: Option<String>,
        /// Only dead letters.
        #[arg(long)]
        dead: bool,
        /// How many, at most 500.
        #[arg(long, short = 'n', default_value_t = 50)]
        limit: u32,
        /// The `next` of the page before.
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
    },
    /// Show one delivery with its message.
    #[command(after_help = "Example:\n  caxton messages show 12")]
    Show {
        /// The number of the delivery.
        delivery: u64,
    },
    /// Send a message to agents, people or topics, and do not wait for an answer.
    #[command(after_help = "\
Examples:
  caxton messages send analyst \"Which quarter was the best?\"
  caxton messages send analyst,auditor '{\"item\": \"desk\"}' --content-json --performative cfp --protocol fipa-contract-net
  caxton messages send --message message.json")]
    Send(Box<Send>),
    /// Check that a message is what its sender sent, and say who signed it with which key.
    #[command(after_help = "\
A message that does not verify is an error, with the reason.

Examples:
  caxton messages verify 12
  caxton messages verify 019a2b3c4d5e6f708192a3b4c5d6e7f8")]
    Verify {
        /// The number of a delivery, or a message's id.
        #[arg(value_name = "ID")]
        which: String,
    },
    /// List, rotate and register the keys with which messages are signed.
    Keys(keys::Keys),
    /// Try dead letters again, as if they had just come.
    #[command(after_help = "\
Examples:
  caxton messages retry 12 13
  caxton messages retry --dead --all --owner analyst --dry-run")]
    Retry(Which),
    /// Drop deliveries that are not under way, for good.
    #[command(after_help = "\
Examples:
  caxton messages drop 12
  caxton messages drop --dead --all --yes")]
    Drop(Which),
    /// Follow what agents and people send each other, until Ctrl-C.
    #[command(after_help = "\
A line says when, who sent it to whom, what it does, and how it begins. One that is dealt with at once shows no text.

Examples:
  caxton messages tail
  caxton messages tail --agents ping,pong --from 0
  caxton messages tail --json | jq .performative")]
    Tail(Tail),
    /// List topics, or those who subscribed to them.
    #[command(after_help = "\
Columns: TOPIC its name, KEPT how many messages of it are, FIRST and LAST their positions. With --subscriptions: NAME, \
SUBSCRIBER who receives, PATTERN and FILTER what, POSITION how far it has come, MISSED how much was no longer kept. JSON has \
them as topics and subscriptions.

Examples:
  caxton messages topics
  caxton messages topics --subscriptions")]
    Topics(topics::Topics),
    /// Subscribe to topics: what is published there comes to the mailbox.
    #[command(after_help = "\
A pattern has levels between slashes; `+` stands for one level and a last `#` for any number. A condition compares a field of \
the message: content.PATH, performative, sender, X-NAME and others, with =, !=, <, <=, > or >=.

Examples:
  caxton messages subscribe 'orders/#'
  caxton messages subscribe 'orders/+' --filter 'content.amount>=100' --subscriber analyst --after 0")]
    Subscribe(topics::Subscribe),
    /// End a subscription.
    #[command(after_help = "Example:\n  caxton messages unsubscribe 'orders/#'")]
    Unsubscribe(topics::Unsubscribe),
    /// Publish a message on a topic.
    #[command(after_help = "\
Examples:
  caxton messages publish orders/new '{\"amount\": 120}' --content-json
  caxton messages publish weather \"It rains.\"")]
    Publish(topics::Publish),
    /// Show what was published, from a position on.
    #[command(after_help = "\
Examples:
  caxton messages replay 'orders/#' --after 0
  caxton messages replay --follow")]
    Replay(topics::Replay),
}

#[derive(Debug, clap::Args)]
struct Send {
    /// Who receives it, with commas between: an agent, capability:NAME, subject:NAME, topic:A/B or broadcast:.
    #[arg(value_name = "TO", required_unless_present = "message")]
    to: Option<String>,
    /// What it says; `-` is standard input.
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// What it does: request, inform, cfp, and so on.
    #[arg(long, short = 'p', default_value = "request")]
    performative: String,
    /// The text is JSON.
    #[arg(long)]
    content_json: bool,
    /// The protocol that the conversation follows, such as fipa-request.
    #[arg(long)]
    protocol: Option<String>,
    /// The conversation that it belongs to: a new one unless told.
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
    /// What an answer is to say in `in_reply_to`.
    #[arg(long, value_name = "WORD")]
    reply_with: Option<String>,
    /// The `reply_with` of the message that this one answers.
    #[arg(long, value_name = "WORD")]
    in_reply_to: Option<String>,
    /// By when an answer is wanted, as RFC 3339.
    #[arg(long, value_name = "TIME")]
    reply_by: Option<String>,
    /// Who receives the answers: oneself unless told.
    #[arg(long, value_name = "TO")]
    reply_to: Option<String>,
    /// Sign it with the Ed25519 key of this file, which was registered with `caxton messages keys register`.
    #[arg(long, value_name = "KEYFILE", requires = "subject")]
    sign_with: Option<PathBuf>,
    /// Whose token it is sent with, which is signed along.
    #[arg(long, value_name = "NAME", requires = "sign_with")]
    subject: Option<String>,
    /// A file with the whole message as JSON, in place of the rest; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "text", "content_json", "protocol", "conversation",
        "reply_with", "in_reply_to", "reply_by", "reply_to"])]
    message: Option<PathBuf>,
    #[command(flatten)]
    around: Around,
}

/// What is said around a message.
#[derive(Debug, clap::Args)]
struct Around {
    /// How urgent it is, from 0 to 7, the most urgent.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(0..=7))]
    priority: Option<u8>,
    /// A key: the same message sent again with it is taken in once.
    #[arg(long)]
    key: Option<String>,
    /// When nobody wants it any more, as RFC 3339.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

impl Around {
    /// Adds it to a request. The key is drawn here where there is none, so that an answer that is lost on the way leaves one
    /// message.
    fn add(self, request: &mut Map<String, Value>) {
        let key = self.key.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
        request.insert("key".to_owned(), key.into());
        request.extend(self.priority.map(|priority| ("priority".to_owned(), priority.into())));
        request.extend(self.expires.map(|expires| ("expires".to_owned(), expires.into())));
    }
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Deliveries by their numbers.
    #[arg(value_name = "DELIVERY", required_unless_present = "all", conflicts_with_all = ["dead", "all", "owner"])]
    deliveries: Vec<u64>,
    /// Dead letters; with --all.
    #[arg(long, requires = "all")]
    dead: bool,
    /// All of them.
    #[arg(long, requires = "dead")]
    all: bool,
    /// Only those in this mailbox: an agent's name, or subject:NAME.
    #[arg(long, value_name = "WHOSE", requires = "all")]
    owner: Option<String>,
    /// Only say which or how many it would be.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short = 'y')]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Tail {
    /// Only messages that these agents or people send or receive, with commas between.
    #[arg(long, visible_alias = "agent", value_name = "NAME,...", value_delimiter = ',')]
    agents: Vec<String>,
    /// Begin after the message of this position, 0 for all that is kept; without it, with those that come from now on.
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
}

/// Does what the subcommand says.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id_or_default()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    match args.command {
        Command::List { owner, dead, limit, after } => {
            let query = [
                ("owner", owner),
                ("dead", dead.then(|| "true".to_owned())),
                ("after", after.map(|after| after.to_string())),
                ("limit", Some(limit.to_string())),
            ];
            let path = paths::with_query(remote.path(paths::MAILBOX), &given(query));
            let page: DeliveryPage = context.block_on(async { Ok(client.get(&path).await?) })?;
            show::list(context, &page)
        }
        Command::Show { delivery } => {
            let path = remote.path_of(paths::DELIVERY, &delivery.to_string());
            let found: Delivery = context.block_on(async { Ok(client.get(&path).await?) })?;
            show::delivery(context, &found)
        }
        Command::Send(send) => {
            let request = request_of(context, *send)?;
            let path = remote.path(paths::MAILBOX);
            let sent: SendResponse =
                context.block_on(async { Ok(client.post(&path, &request, Retry::Once).await?) })?;
            show::sent(context, &sent)
        }
        Command::Verify { which } => keys::verify(context, &remote, &which),
        Command::Keys(args) => keys::run(context, &remote, args),
        Command::Retry(which) => change(context, &remote, Change::Retry, &which),
        Command::Drop(which) => change(context, &remote, Change::Drop, &which),
        Command::Tail(tail) => context.block_on(follow(context, &remote, &tail)),
        Command::Topics(args) => topics::list(context, &remote, args),
        Command::Subscribe(args) => topics::subscribe(context, &remote, args),
        Command::Unsubscribe(args) => topics::unsubscribe(context, &remote, args),
        Command::Publish(args) => topics::publish(context, &remote, args),
        Command::Replay(args) => topics::replay(context, &remote, args),
    }
}

/// The parts of a query that were given.
fn given<const N: usize>(query: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// A message as the server takes it, from a file or from words.
fn request_of(context: &Context, mut send: Send) -> Result<Value, CliError> {
    let signing = send.sign_with.take().zip(send.subject.take());
    let message = match send.message {
        Some(file) => parsed("the message", &input(context, &file)?)?,
        None => {
            let receivers = send.to.unwrap_or_default();
            let receivers: Vec<&str> = receivers.split(',').map(str::trim).filter(|to| !to.is_empty()).collect();
            let mut message = Map::new();
            message.insert("performative".to_owned(), send.performative.into());
            message.insert("receiver".to_owned(), json!(receivers));
            if let Some(text) = send.text {
                content(context, &mut message, text, send.content_json)?;
            }
            let words = [
                ("protocol", send.protocol),
                ("conversation_id", send.conversation),
                ("reply_with", send.reply_with),
                ("in_reply_to", send.in_reply_to),
                ("reply_by", send.reply_by),
                ("reply_to", send.reply_to),
            ];
            message.extend(words.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
            Value::Object(message)
        }
    };
    let mut request = Map::new();
    request.insert("message".to_owned(), message);
    send.around.add(&mut request);
    if let Some((file, subject)) = signing {
        keys::sign(context, &mut request, &file, &subject)?;
    }
    Ok(Value::Object(request))
}

/// What a message says, from the command line or standard input.
fn content(context: &Context, to: &mut Map<String, Value>, text: String, is_json: bool) -> Result<(), CliError> {
    let text = if text == "-" { input(context, Path::new("-"))? } else { text };
    if is_json {
        to.insert("content".to_owned(), parsed("the content", &text)?);
        to.insert("content_type".to_owned(), "application/json".into());
    } else {
        to.insert("content".to_owned(), text.into());
    }
    Ok(())
}

fn parsed(what: &str, text: &str) -> Result<Value, CliError> {
    serde_json::from_str(text).map_err(|error| {
        CliError::usage(format!("{what} is no JSON")).help("docs/messages.md shows a message as JSON").source(error)
    })
}

/// A file's text, or that of standard input.
fn input(context: &Context, file: &Path) -> Result<String, CliError> {
    use std::io::Read;
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        let open = std::fs::File::open(context.cwd.join(file));
        open.and_then(|open| open.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text))
    };
    let wrong = |what: &str| CliError::new("io", format!("{} {what}", text::one_line(&file.display().to_string())));
    read.map_err(|error| wrong("cannot be read").help("name a file of text, or - for standard input").source(error))?;
    if text.len() as u64 > INPUT_BYTES_MAX {
        return Err(wrong("has more than 4 MiB").help("upload large content as an artifact and send its digest"));
    }
    Ok(text)
}

/// What is done to deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Retry,
    Drop,
}

impl Change {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Change::Retry => ("retry", "retried"),
            Change::Drop => ("drop", "dropped"),
        }
    }
}

fn change(context: &Context, remote: &Remote<'_>, change: Change, which: &Which) -> Result<(), CliError> {
    if which.all { change_all(context, remote, change, which) } else { change_some(context, remote, change, which) }
}

fn change_some(context: &Context, remote: &Remote<'_>, change: Change, which: &Which) -> Result<(), CliError> {
    let (client, (verb, _)) = (remote.client, change.words());
    let path = |template, number: &u64| remote.path_of(template, &number.to_string());
    if change == Change::Drop || which.dry_run {
        let found: Vec<Delivery> = context.block_on(async {
            let mut found = Vec::new();
            for number in &which.deliveries {
                found.push(client.get(&path(paths::DELIVERY, number)).await?);
            }
            Ok(found)
        })?;
        if which.dry_run {
            for one in &found {
                context.out.line(format_args!("would {verb} {}", show::in_one_line(one)))?;
            }
            return context.out.json(&json!({ "deliveries": found, "dry_run": true }));
        }
        let what = found.iter().map(show::in_one_line).collect::<Vec<_>>().join("\n  ");
        agreed(context, which.yes, || format!("Drop for good?\n  {what}\n"))?;
    }
    let changed: Vec<DeliveryChange> = context.block_on(async {
        let mut changed = Vec::new();
        for number in &which.deliveries {
            changed.push(match change {
                Change::Drop => client.delete(&path(paths::DELIVERY, number)).await?,
                Change::Retry => client.post(&path(paths::DELIVERY_RETRY, number), &json!({}), Retry::Never).await?,
            });
        }
        Ok(changed)
    })?;
    for one in &changed {
        context.out.line(format_args!("{} {}", paint(GOOD, text::one_line(&one.change)), one.delivery))?;
    }
    context.out.json(&json!({ "deliveries": changed, "dry_run": false }))
}

fn change_all(context: &Context, remote: &Remote<'_>, change: Change, which: &Which) -> Result<(), CliError> {
    let (template, (verb, done)) = match change {
        Change::Retry => (paths::DEAD_LETTERS_RETRY, change.words()),
        Change::Drop => (paths::DEAD_LETTERS_DROP, change.words()),
    };
    let path = remote.path(template);
    let mut request = DeadLettersRequest { owner: which.owner.clone(), after: None, dry_run: true };
    let would = context.block_on(all(remote.client, &path, request.clone()))?;
    let letters = |number: u64| count(number, "dead letter");
    if which.dry_run || would == 0 {
        context.out.line(format_args!("would {verb} {}", letters(would)))?;
        return context.out.json(&json!({ "deliveries": would, "dry_run": which.dry_run }));
    }
    let question = || match change {
        Change::Retry => format!("Try {} again, each as a turn of its agent?", letters(would)),
        Change::Drop => format!("Drop {} for good?", letters(would)),
    };
    agreed(context, which.yes, question)?;
    request.dry_run = false;
    let changed = context.block_on(all(remote.client, &path, request))?;
    context.out.line(format_args!("{} {}", paint(BAD, done), letters(changed)))?;
    context.out.json(&json!({ "deliveries": changed, "dry_run": false }))
}

/// Asks for page after page until there are no more; how many there were.
async fn all(client: &Client, path: &str, mut request: DeadLettersRequest) -> Result<u64, CliError> {
    let mut deliveries = 0;
    loop {
        let retry = if request.dry_run { Retry::Once } else { Retry::Never };
        let change: DeadLettersChange = client.post(path, &request, retry).await?;
        deliveries += change.deliveries;
        match change.next {
            None => return Ok(deliveries),
            next => request.after = next,
        }
    }
}

/// Goes on only if somebody agrees.
fn agreed(context: &Context, yes: bool, question: impl FnOnce() -> String) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !context.out.can_ask() {
        return Err(CliError::usage("nobody is there to agree to it")
            .help("agree beforehand with --yes, or look at what it would be with --dry-run"));
    }
    match context.out.confirm(question())? {
        true => Ok(()),
        false => Err(CliError::new("not_agreed", "nothing was changed").help("say --yes to go on without being asked")),
    }
}

async fn follow(context: &Context, remote: &Remote<'_>, tail: &Tail) -> Result<(), CliError> {
    let path = |after: Option<u64>| {
        let query = [("follow", Some("true".to_owned())), ("after", after.map(|after| after.to_string()))];
        paths::with_query(remote.path(paths::MAILBOX_EVENTS), &given(query))
    };
    stream::follow(context, remote, tail.from, path, |event| {
        // Of a newer server, if it cannot be read.
        let Ok(event) = serde_json::from_str::<MessageEvent>(&event.data) else { return Ok(None) };
        let is_one = |name: &String| event.sender == *name || event.receivers.contains(name);
        if tail.agents.is_empty() || tail.agents.iter().any(is_one) {
            show::event(context, &event)?;
        }
        Ok(Some(event.position))
    })
    .await
}
