//! `caxton token`: makes, lists and revokes the tokens that people and programs show to the server.

use std::time::Duration;

use caxton_proto::WorkspaceId;
use caxton_proto::log::Role;

use crate::api::paths;
use crate::api::{TokenInfo, TokenIssued, TokenRequest, Tokens};
use crate::cli::output::{BAD, BOLD, DIM, GOOD, Table, paint};
use crate::cli::{CliError, Context};
use crate::client::Retry;
use crate::config::{Raw, Value};

/// Arguments of `caxton token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Roles, each with what the ones before it may do:
  metrics   read what nodes measure, and nothing else
  viewer    read what is deployed
  caller    send messages to agents
  deployer  deploy and roll back
  admin     make and revoke tokens

Example:
  caxton token create ci --role deployer --only demo --ttl 90d")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token and print it, this once.
    #[command(after_help = "\
Examples:
  caxton token create ci --role deployer --only demo
  caxton token create ada --role viewer --ttl 8h > ada.token
  caxton token create prometheus --role metrics --ttl 365d > prometheus.token")]
    Create(Create),
    /// List the tokens that have not expired.
    #[command(after_help = "\
Columns: ID to revoke it by, SUBJECT who uses it, ROLE what it may do, WORKSPACES where, EXPIRES when, STATE valid or revoked. \
JSON has them as id, subject, role, workspaces, expires and revoked.

Example:
  caxton token list --json")]
    List,
    /// Revoke a token: from then on it opens nothing.
    #[command(after_help = "Example:\n  caxton token revoke 3f2a9c...")]
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Who or what will use it; it is named in the history of what it deploys.
    subject: String,
    /// What it may do: metrics, viewer, caller, deployer or admin.
    #[arg(long, default_value = "viewer", value_name = "ROLE")]
    role: Role,
    /// A workspace that it is for; may be repeated, and --workspace says the same [default: every workspace].
    #[arg(long = "only", value_name = "WORKSPACE")]
    workspaces: Vec<WorkspaceId>,
    /// How long it is valid, as in 8h or 90d [default: what the server says, 30d].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    /// The token's id, as `caxton token list` shows it.
    id: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::read(&Raw::Text(text.to_owned()))
}

/// Does what the subcommand says.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    match args.command {
        Command::Create(create) => self::create(create, context),
        Command::List => list(context),
        Command::Revoke(revoke) => self::revoke(&revoke.id, context),
    }
}

fn create(create: Create, context: &Context) -> Result<(), CliError> {
    let mut workspaces = create.workspaces;
    // Whoever names a workspace means it, whichever flag it is named by.
    if let Some(named) = context.global.workspace.clone().filter(|named| !workspaces.contains(named)) {
        workspaces.push(named);
    }
    let request = TokenRequest {
        subject: create.subject,
        role: create.role.to_string(),
        workspaces,
        ttl_s: create.ttl.map(|ttl| ttl.as_secs()),
    };
    let client = context.client()?;
    // Sent once: a second attempt would leave a token behind that nobody saw.
    let issued: TokenIssued =
        context.block_on(async { Ok(client.post(paths::TOKENS.text(), &request, Retry::Never).await?) })?;
    // The token alone goes to stdout, so that it can go into a file or a variable.
    context.out.line(&issued.token)?;
    let TokenInfo { id, role, expires, .. } = &issued.info;
    context.out.note(format_args!(
        "{} {}, {role} {}, until {expires}",
        paint(DIM, "id"),
        paint(BOLD, id),
        scope(&issued.info)
    ));
    context.out.note(paint(DIM, "It is not shown again. Pass it in CAXTON_TOKEN, or in a file with --token-file."));
    context.out.json(&issued)
}

fn list(context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let tokens: Tokens = context.block_on(async { Ok(client.get(paths::TOKENS.text()).await?) })?;
    if tokens.tokens.is_empty() {
        context.out.note("there are no tokens; make one with `caxton token create NAME --role ROLE`");
    } else {
        let mut table = Table::new(["ID", "SUBJECT", "ROLE", "WORKSPACES", "EXPIRES", "STATE"]);
        for token in &tokens.tokens {
            let (style, state) = match &token.revoked {
                Some(when) => (BAD, format!("revoked {when}")),
                None => (GOOD, "valid".to_owned()),
            };
            let plain = |text: &str| (anstyle::Style::new(), text.to_owned());
            let cells = [&token.id, &token.subject, &token.role, &scope(token), &token.expires].map(|text| plain(text));
            table.styled(cells.into_iter().chain([(style, state)]));
        }
        context.out.table(table)?;
    }
    context.out.json(&tokens)
}

fn revoke(id: &str, context: &Context) -> Result<(), CliError> {
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if id.is_empty() || !plain {
        return Err(CliError::usage(format!("{id:?} is not a token's id"))
            .help("`caxton token list` shows the ids; the token itself is not needed, and should not be typed"));
    }
    let client = context.client()?;
    let path = paths::TOKEN.with([id]);
    let token: TokenInfo = context.block_on(async { Ok(client.delete(&path).await?) })?;
    context.out.line(format_args!("{} token {} of {}", paint(BAD, "revoked"), token.id, token.subject))?;
    context.out.json(&token)
}

fn scope(token: &TokenInfo) -> String {
    if token.workspaces.is_empty() {
        return "everywhere".to_owned();
    }
    token.workspaces.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
