//! `caxton messages verify` and `caxton messages keys`: who signed a message, and the keys with which messages are signed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use caxton_proto::acl::{Address, Message, MessageId, Priority};
use caxton_proto::mailbox::{KeyId, Submission, signed_id};
use clap::Subcommand;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use crate::api::mailbox::{
    MessageKeyInfo, MessageKeyPage, RegisterKeyRequest, RotateMessageKeyRequest, SignatureCheck,
};
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{DIM, GOOD, Table, paint};
use crate::cli::{CliError, Context, text};
use crate::client::Retry;
use crate::config::{Raw, Value as _};
use crate::secrets::SigningPair;

/// The longest file with a key, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 16 << 10;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  caxton messages keys list")]
pub struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the public keys with which agents and people sign, or did.
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns: OWNER who signs with it, KEY its id, HELD BY node or sender, MADE when, ENDS from when on what is taken in is not verified \
by it, PUBLIC KEY in hexadecimal. JSON has them as owner, key, held_by, made, ends and public_key.

Example:
  caxton messages keys list --owner analyst"
    )]
    List {
        /// Only those of this sender: an agent's name, or subject:NAME.
        #[arg(long, value_name = "WHOSE")]
        owner: Option<String>,
        /// How many, at most 500.
        #[arg(long, short = 'n', default_value_t = 50)]
        limit: u32,
        /// The `next` of the page before.
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
    },
    /// Give an agent, or a person without a key of their own, a new key that the nodes hold.
    #[command(after_help = "\
What the keys before signed is taken in until the overlap is over. With --overlap 0s they end at once.

Example:
  caxton messages keys rotate analyst --overlap 1h")]
    Rotate {
        /// An agent's name, or subject:NAME.
        #[arg(value_name = "AGENT")]
        owner: String,
        /// For how long the keys before it go on, 30 days at most.
        #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = duration)]
        overlap: Duration,
    },
    /// Register a key of one's own: only what is signed with it is sent in one's name from then on.
    #[command(after_help = "\
The file has a private key in PEM; only the public one is sent.

Example:
  openssl genpkey -algorithm ed25519 -out ann.pem
  caxton messages keys register ann.pem
  caxton messages send analyst \"Hello\" --sign-with ann.pem --subject ann")]
    Register {
        /// A file with an Ed25519 key in PKCS#8, as PEM.
        #[arg(value_name = "KEYFILE")]
        file: PathBuf,
        /// For how long the keys before it go on, 30 days at most.
        #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = duration)]
        overlap: Duration,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::read(&Raw::Text(text.to_owned()))
}

/// Says who signed a message. One that is not what its sender sent is an error.
pub fn verify(context: &Context, remote: &Remote<'_>, which: &str) -> Result<(), CliError> {
    let path = remote.path_of(paths::DELIVERY_SIGNATURE, which);
    let check: SignatureCheck = context.block_on(async { Ok(remote.client.get(&path).await?) })?;
    let sender = check.sender.as_deref().map_or_else(|| "nobody".to_owned(), text::one_line);
    let id = text::one_line(&check.id);
    if !check.holds {
        let reason = check.reason.as_deref().map_or_else(|| "its signature does not hold".to_owned(), text::one_line);
        return Err(CliError::new("forged", format!("message {id} from {sender} does not verify: {reason}"))
            .help("drop it, and find out who could write to the disks or the log of the node")
            .fact("check", &check));
    }
    let out = &context.out;
    match (&check.key, &check.signed) {
        (Some(key), Some(signed)) => {
            let held = if check.held_by.as_deref() == Some("sender") { "their own" } else { "held by the nodes" };
            let key = text::one_line(key);
            out.line(format_args!("{}  {id}", paint(GOOD, "verified")))?;
            out.line(format_args!("signed by {sender} with the key {key} ({held}) at {}", text::time(signed)))?;
        }
        _ => out.line(format_args!("{id} from {sender} has no signature, and none is asked for"))?,
    }
    out.json(&check)
}

/// Does what the subcommand says.
pub fn run(context: &Context, remote: &Remote<'_>, args: Keys) -> Result<(), CliError> {
    match args.command {
        Command::List { owner, limit, after } => list(context, remote, owner, limit, after),
        Command::Rotate { owner, overlap } => {
            let request = RotateMessageKeyRequest { owner, overlap_s: Some(overlap.as_secs()) };
            let path = remote.path(paths::MESSAGE_KEYS_ROTATE);
            let key: MessageKeyInfo =
                context.block_on(async { Ok(remote.client.post(&path, &request, Retry::Once).await?) })?;
            made(context, &key)
        }
        Command::Register { file, overlap } => {
            let pair = pair(context, &file)?;
            let request =
                RegisterKeyRequest { public_key: hex::encode(pair.public()), overlap_s: Some(overlap.as_secs()) };
            let path = remote.path(paths::MESSAGE_KEYS);
            let key: MessageKeyInfo =
                context.block_on(async { Ok(remote.client.post(&path, &request, Retry::Once).await?) })?;
            made(context, &key)
        }
    }
}

fn list(
    context: &Context,
    remote: &Remote<'_>,
    owner: Option<String>,
    limit: u32,
    after: Option<u64>,
) -> Result<(), CliError> {
    let query = [("owner", owner), ("after", after.map(|after| after.to_string())), ("limit", Some(limit.to_string()))];
    let path = paths::with_query(remote.path(paths::MESSAGE_KEYS), &super::given(query));
    let page: MessageKeyPage = context.block_on(async { Ok(remote.client.get(&path).await?) })?;
    let out = &context.out;
    if page.keys.is_empty() {
        out.line(
            "No keys. One is made when a sender of a workspace with `signed = true` under [messages] first sends.",
        )?;
    } else {
        let mut table = Table::new(["OWNER", "KEY", "HELD BY", "MADE", "ENDS", "PUBLIC KEY"]);
        for key in &page.keys {
            table.row([
                text::one_line(&key.owner),
                text::one_line(&key.key),
                text::one_line(&key.held_by),
                text::time(&key.made),
                key.ends.as_deref().map_or_else(|| "-".to_owned(), text::time),
                text::one_line(&key.public_key),
            ]);
        }
        out.table(table)?;
    }
    if let Some(next) = page.next {
        out.note(paint(DIM, format!("there are more: --after {next}")));
    }
    out.json(&page)
}

fn made(context: &Context, key: &MessageKeyInfo) -> Result<(), CliError> {
    let (owner, id) = (text::one_line(&key.owner), text::one_line(&key.key));
    context.out.line(format_args!("{owner} signs with the key {} now", paint(GOOD, id)))?;
    context.out.json(key)
}

/// The key pair of a file.
fn pair(context: &Context, file: &Path) -> Result<SigningPair, CliError> {
    use std::io::Read;
    let shown = text::one_line(&file.display().to_string());
    let mut bytes = Vec::new();
    let open = std::fs::File::open(context.cwd.join(file));
    let read = open.and_then(|open| open.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| CliError::new("io", format!("{shown} cannot be read")).source(error))?;
    let pair = PrivatePkcs8KeyDer::from_pem_slice(&bytes).ok();
    pair.and_then(|der| SigningPair::of_pkcs8(der.secret_pkcs8_der())).ok_or_else(|| {
        CliError::usage(format!("{shown} has no Ed25519 key in PKCS#8"))
            .help("make one with `openssl genpkey -algorithm ed25519 -out FILE`")
    })
}

/// Adds a signature to a request that is complete otherwise.
pub fn sign(context: &Context, request: &mut Map<String, Value>, file: &Path, subject: &str) -> Result<(), CliError> {
    let pair = pair(context, file)?;
    let workspace = context.workspace_id()?;
    let invalid = |what: String| CliError::usage(what).help("docs/messages.md shows a message as JSON");
    let sender: Address =
        format!("subject:{subject}").parse().map_err(|error| invalid(format!("--subject is no subject: {error}")))?;
    let message = request.get("message").map(Value::to_string).unwrap_or_default();
    let (message, _) = Message::from_json(message.as_bytes()).map_err(|error| invalid(error.to_string()))?;
    let own = request.get("key").and_then(Value::as_str).unwrap_or_default();
    let expires = request.get("expires").and_then(Value::as_str);
    let expires = expires.map(str::parse::<jiff::Timestamp>).transpose();
    let expires = expires.map_err(|_| invalid("--expires is a time such as 2026-03-01T12:00:00Z".to_owned()))?;
    let priority = request.get("priority").and_then(Value::as_u64).and_then(Priority::new).unwrap_or_default();
    let submission = Submission {
        priority,
        expires_ms: expires.map(|at| at.as_millisecond()),
        ..Submission::new(MessageId::from_bytes([0; 16]), message.stamped(sender.clone()))
    };
    let submission = Submission { id: signed_id(&sender, own), ..submission };
    let key = KeyId::of(&pair.public());
    let signed_ms = crate::time::now().as_millisecond();
    let signature = pair.sign(&submission.signed_form(&workspace, key, signed_ms));
    let signature = json!({ "key": key.to_string(), "signed_ms": signed_ms, "signature": hex::encode(signature) });
    request.insert("signature".to_owned(), signature);
    Ok(())
}
