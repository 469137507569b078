//! `caxton cluster`: the nodes of a cluster, tokens to join by, and who leads.

use std::time::{Duration, Instant};

use crate::api::ServerInfo;
use crate::api::cluster::{
    ClusterChanged, ClusterGroup, ClusterStatus, JoinTokenIssued, JoinTokenRequest, RotateRequest, TransferRequest,
};
use crate::api::paths;
use crate::cli::output::{BOLD, DIM, GOOD, Table, WARN, count, paint};
use crate::cli::{CliError, Context};
use crate::client::Retry;
use crate::config::{Raw, Value};

/// The pause before a server is asked again whether a node is out; it waits itself before it answers.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Arguments of `caxton cluster`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton cluster token create > join.token
  caxton cluster status")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make tokens by which nodes join.
    Token(Token),
    /// List the nodes.
    #[command(after_help = "Example:\n  caxton cluster members --json")]
    Members,
    /// Show who votes and who leads, and how far the others are behind.
    #[command(after_help = "Example:\n  caxton cluster status")]
    Status,
    /// Take a node out for good: its id never comes back.
    ///
    /// Returns when no group counts the node any more: others lead what it led, and what is deployed is on them. One node
    /// goes at a time; a second one waits until the first is gone.
    #[command(after_help = "\
Examples:
  caxton cluster remove 3f2a9c01b5d4e6f7
  caxton cluster remove 3f2a9c01b5d4e6f7 --yes")]
    Remove(Remove),
    /// Take the node that --server names out for good.
    ///
    /// The node ends by itself, with status 0, when no group counts it any more. One node goes at a time; a second one waits
    /// until the first is gone.
    #[command(after_help = "\
Examples:
  caxton cluster leave --server https://node3:7411
  caxton cluster leave --yes --timeout 10m")]
    Leave(Leave),
    /// Let another node lead.
    #[command(after_help = "\
Examples:
  caxton cluster transfer
  caxton cluster transfer --group 1 --to 3f2a9c01b5d4e6f7")]
    Transfer(Transfer),
    /// Replace keys that all nodes hold; those before are good for a while longer.
    ///
    /// `ca` certifies the nodes and their servers, `gossip-key` seals what they tell each other of themselves, and
    /// `signing-key` signs tokens; with it goes the admin token. Every node takes the new keys over by itself.
    #[command(after_help = "\
Examples:
  caxton cluster rotate
  caxton cluster rotate signing-key --overlap 1h
  caxton cluster rotate --finish")]
    Rotate(Rotate),
}

#[derive(Debug, clap::Args)]
struct Rotate {
    /// Which keys [default: all three].
    #[arg(value_name = "KEY", value_parser = ["ca", "gossip-key", "signing-key"])]
    keys: Vec<String>,
    /// How long the keys before are good, as in 1h or 7d.
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = duration)]
    overlap: Duration,
    /// End the overlap now, if every node has the new keys [default: of all rotations that are under way].
    #[arg(long, conflicts_with = "overlap")]
    finish: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  caxton cluster token create --ttl 10m --uses 2")]
struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Make a join token and print it, this once.
    #[command(after_help = "\
Examples:
  caxton cluster token create > join.token
  caxton cluster token create --ttl 10m --uses 2 > join.token")]
    Create(Create),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// How long it is good, as in 10m or 1h.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// How many nodes may join by it.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    uses: u32,
}

#[derive(Debug, clap::Args)]
struct Remove {
    /// The node's id, as `caxton cluster members` shows it.
    node: String,
    #[command(flatten)]
    leave: Leave,
}

#[derive(Debug, clap::Args)]
struct Leave {
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// How long to wait until the node is out, as in 30s or 10m. A node that is not out by then stays.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
struct Transfer {
    /// The group [default: all that the leader of the deploy log leads].
    #[arg(long, value_name = "NUMBER")]
    group: Option<u32>,
    /// The node that is to lead [default: one that has caught up].
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::read(&Raw::Text(text.to_owned()))
}

/// Does what the subcommand says.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    match args.command {
        Command::Token(Token { command: TokenCommand::Create(create) }) => token(&create, context),
        Command::Members => members(context),
        Command::Status => status(context),
        Command::Remove(Remove { node, leave }) => remove(&node, &leave, context),
        Command::Leave(args) => leave(&args, context),
        Command::Transfer(transfer) => self::transfer(transfer, context),
        Command::Rotate(rotate) => self::rotate(rotate, context),
    }
}

fn token(create: &Create, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let request = JoinTokenRequest { ttl_s: Some(create.ttl.as_secs()), uses: Some(create.uses) };
    // Sent once: a second attempt would leave a token behind that nobody saw.
    let issued: JoinTokenIssued =
        context.block_on(async { Ok(client.post(paths::CLUSTER_TOKENS.text(), &request, Retry::Never).await?) })?;
    // The token alone goes to stdout, so that it can go into a file.
    context.out.line(&issued.token)?;
    let good = format!("good for {}, until {}", count(u64::from(issued.uses), "node"), issued.expires);
    context.out.note(format_args!("{} {}, {good}", paint(DIM, "id"), paint(BOLD, &issued.id)));
    context.out.note(paint(DIM, "It is not shown again. On the new node, with the token in the file join.token:"));
    context.out.note(format_args!("  caxton serve --join {} --token-file join.token", issued.join.join(",")));
    context.out.json(&issued)
}

async fn ask(context: &Context) -> Result<ClusterStatus, CliError> {
    let client = context.client()?;
    Ok(match client.get(paths::CLUSTER.text()).await {
        // Without a leader, the node that is asked still tells what it knows.
        Err(error) if error.code() == Some("unavailable") => {
            context.out.warn("no leader answers; what follows is what the node that was asked knows");
            client.get(&format!("{}?stale=true", paths::CLUSTER.text())).await?
        }
        answer => answer?,
    })
}

fn members(context: &Context) -> Result<(), CliError> {
    let cluster = context.block_on(ask(context))?;
    let mut table = Table::new(["NODE", "STATE", "VOTES", "VERSION", "PEERS", "CLIENTS", "JOINED", "LAST HEARD"]);
    for member in &cluster.members {
        let state = (if member.state == "alive" { GOOD } else { WARN }, member.state.clone());
        let plain = |text: &str| (anstyle::Style::new(), text.to_owned());
        table.styled([
            plain(&member.node),
            state,
            plain(votes(&cluster, &member.node)),
            plain(&member.version),
            plain(&member.peer_address),
            plain(&member.client_url),
            plain(&member.joined),
            plain(member.last_heard.as_deref().unwrap_or("-")),
        ]);
    }
    context.out.line(table)?;
    context.out.json(&cluster)
}

/// What a node is in the deploy log's group.
fn votes(cluster: &ClusterStatus, node: &str) -> &'static str {
    let is = |nodes: &[String]| nodes.iter().any(|it| it == node);
    match cluster.groups.first() {
        Some(group) if group.leader.as_deref() == Some(node) => "leader",
        Some(group) if is(&group.voters) => "voter",
        Some(group) if is(&group.learners) => "learner",
        Some(_) | None => "-",
    }
}

fn status(context: &Context) -> Result<(), CliError> {
    let cluster = context.block_on(ask(context))?;
    let out = &context.out;
    out.line(format_args!("{} {}", paint(BOLD, "cluster"), cluster.cluster))?;
    out.line(summary(&cluster))?;
    out.line(format_args!("{} {}", paint(DIM, "versions"), versions(&cluster)))?;
    out.line(format_args!("{} {}", paint(DIM, "format"), format_of(&cluster)))?;
    let mut table = Table::new(["GROUP", "LEADER", "TERM", "VOTERS", "LEARNERS", "APPLIED", "FURTHEST BEHIND"]);
    for group in &cluster.groups {
        let name = if group.group == 0 { "0 deploy log".to_owned() } else { format!("{} shard", group.group) };
        let cells = [
            name,
            group.leader.clone().unwrap_or_else(|| "none".to_owned()),
            group.term.to_string(),
            group.voters.len().to_string(),
            group.learners.len().to_string(),
            group.applied.to_string(),
            furthest(group),
        ];
        table.styled(cells.map(|cell| (anstyle::Style::new(), cell)));
    }
    out.line(table)?;
    let silent: Vec<_> = cluster.members.iter().filter(|member| member.state == "suspect").collect();
    for member in &silent {
        let heard = match &member.last_heard {
            Some(time) => format!("last heard of at {time}"),
            None => format!("not heard of since node {} started", cluster.node),
        };
        out.line(format_args!("{} {} ({}), {heard}", paint(WARN, "missing"), member.node, member.peer_address))?;
    }
    let lost = cluster.groups.iter().any(|group| group.leader.is_none()) && !silent.is_empty();
    if lost {
        out.note(
            "Start the missing nodes again where they were. If their disks are lost for good, stop this node, and",
        );
        out.note("  caxton recover --data-dir DIR");
        out.note("shows what it could go on with, and changes nothing.");
    }
    if !cluster.keys.is_empty() {
        out.line(keys(&cluster))?;
    }
    out.json(&cluster)
}

/// The keys that were rotated.
fn keys(cluster: &ClusterStatus) -> Table {
    let mut table = Table::new(["KEY", "ROTATED", "THE ONE BEFORE", "WAITS FOR"]);
    for key in &cluster.keys {
        let before = match &key.finished {
            Some(finished) => format!("good until {finished}"),
            None => format!("good, until {} at the latest", key.until),
        };
        let waits = if key.lacking.is_empty() { "-".to_owned() } else { key.lacking.join(", ") };
        let cells = [key.key.clone(), key.rotated.clone(), before, waits];
        table.styled(cells.map(|cell| (anstyle::Style::new(), cell)));
    }
    table
}

/// Which versions run, and on how many nodes.
fn versions(cluster: &ClusterStatus) -> String {
    let mut found = std::collections::BTreeMap::new();
    for member in &cluster.members {
        *found.entry(member.version.as_str()).or_insert(0u64) += 1;
    }
    let each = found.into_iter().map(|(version, nodes)| format!("{version} ({})", count(nodes, "node")));
    each.collect::<Vec<_>>().join(", ")
}

/// The format in which nodes write, and who keeps it from being raised.
fn format_of(cluster: &ClusterStatus) -> String {
    let newest = cluster.members.iter().map(|member| member.format).max().unwrap_or_default();
    if newest <= cluster.format {
        return cluster.format.to_string();
    }
    let lacking = cluster.members.iter().filter(|member| member.format < newest);
    let lacking: Vec<&str> = lacking.map(|member| member.node.as_str()).collect();
    match lacking.is_empty() {
        true => format!("{}, about to be {newest}", cluster.format),
        false => format!("{}; {newest} once it is read by {}", cluster.format, lacking.join(", ")),
    }
}

fn furthest(group: &ClusterGroup) -> String {
    match group.lag.iter().max_by_key(|lag| lag.entries) {
        Some(lag) => format!("{} by {}", lag.node, lag.entries),
        None => "-".to_owned(),
    }
}

/// How the cluster is, in one line.
pub fn summary(cluster: &ClusterStatus) -> String {
    let voters = cluster.groups.first().map_or(0, |group| group.voters.len());
    let silent: Vec<_> =
        cluster.members.iter().filter(|member| member.state == "suspect").map(|it| it.node.as_str()).collect();
    let nodes = format!("{}, {}", count(cluster.members.len() as u64, "node"), count(voters as u64, "voter"));
    let leaderless = cluster.groups.iter().filter(|group| group.leader.is_none()).count();
    match (silent.is_empty(), leaderless) {
        (true, 0) => format!("{nodes}, {}", paint(GOOD, "all well")),
        (false, 0) => format!("{nodes}, {} {}", paint(WARN, "not heard of:"), silent.join(", ")),
        (_, groups) => {
            format!("{nodes}, {}", paint(WARN, format_args!("{} without a leader", count(groups as u64, "group"))))
        }
    }
}

/// A person's yes, one way or the other. A script has to say it beforehand.
fn agreed(yes: bool, question: &str, again: &str, context: &Context) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !context.out.can_ask() {
        return Err(CliError::usage(format!("{question} Nobody can be asked here"))
            .help(format!("agree beforehand: `{again}`")));
    }
    if context.out.confirm(question)? {
        return Ok(());
    }
    Err(CliError::new("not_agreed", "nothing was changed"))
}

fn remove(node: &str, leave: &Leave, context: &Context) -> Result<(), CliError> {
    if node.is_empty() || node.len() > 16 || !node.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(
            CliError::usage(format!("{node:?} is not a node's id")).help("`caxton cluster members` shows the ids")
        );
    }
    let question = format!("Take node {node} out of the cluster for good?");
    agreed(leave.yes, &question, &format!("caxton cluster remove {node} --yes"), context)?;
    take_out(node, leave, context)
}

fn leave(leave: &Leave, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let server: ServerInfo = context.block_on(async { Ok(client.get(paths::SERVER.text()).await?) })?;
    let question = format!("Take node {} at {} out of the cluster for good?", server.node, client.url());
    agreed(leave.yes, &question, "caxton cluster leave --yes", context)?;
    take_out(&server.node, leave, context)
}

/// Asks until the node is out. While it waits for groups, or for another node that goes first, the server says so.
fn take_out(node: &str, leave: &Leave, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let path = paths::CLUSTER_NODE.with([node]);
    let until = Instant::now() + leave.timeout;
    let asking = async {
        let mut said = String::new();
        loop {
            let error = match client.delete::<ClusterChanged>(&path).await {
                Ok(changed) => return Ok(changed),
                Err(error) => error,
            };
            // What it waits for, or an election. Asking again changes nothing twice.
            if error.code() != Some("unavailable") || Instant::now() >= until {
                return Err(CliError::from(error));
            }
            let says = error.to_string();
            if says != said {
                context.out.note(format_args!("{} {says}", paint(DIM, "waiting:")));
                said = says;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    let mut progress = context.out.progress("taking the node out", None);
    let changed = context.block_on(progress.during(asking))?;
    context.out.line(&changed.done)?;
    context.out.json(&changed)
}

fn rotate(rotate: Rotate, context: &Context) -> Result<(), CliError> {
    let keys = if rotate.keys.is_empty() { "all keys of the cluster".to_owned() } else { rotate.keys.join(", ") };
    let again = std::iter::once("caxton cluster rotate").chain(rotate.keys.iter().map(String::as_str));
    let again = again.collect::<Vec<_>>().join(" ");
    match rotate.finish {
        true => agreed(
            rotate.yes,
            "End the overlap of rotated keys? What still has the keys before is refused from then on.",
            &format!("{again} --finish --yes"),
            context,
        )?,
        false => agreed(rotate.yes, &format!("Replace {keys}?"), &format!("{again} --yes"), context)?,
    }
    let client = context.client()?;
    let (path, overlap_s) = match rotate.finish {
        true => (paths::KEYS_FINISH.text(), None),
        false => (paths::KEYS_ROTATE.text(), Some(rotate.overlap.as_secs())),
    };
    let request = RotateRequest { keys: rotate.keys, overlap_s };
    let changed: ClusterChanged = context.block_on(async { Ok(client.post(path, &request, Retry::Never).await?) })?;
    context.out.line(&changed.done)?;
    if !rotate.finish {
        context.out.note(paint(DIM, "`caxton cluster status` shows which nodes lack a key; end it with"));
        context.out.note("  caxton cluster rotate --finish");
    }
    context.out.json(&changed)
}

fn transfer(transfer: Transfer, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    // In the address as well, so that whoever is asked can tell whose leader has to do it.
    let path = match transfer.group {
        Some(group) => format!("{}?group={group}", paths::CLUSTER_TRANSFER.text()),
        None => paths::CLUSTER_TRANSFER.text().to_owned(),
    };
    let request = TransferRequest { group: transfer.group, to: transfer.to };
    let changed: ClusterChanged = context.block_on(async { Ok(client.post(&path, &request, Retry::Never).await?) })?;
    context.out.line(&changed.done)?;
    context.out.json(&changed)
}
