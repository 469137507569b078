//! `caxton secrets`: sets, lists and removes what tools and providers are given by name.
//!
//! A value is read from the terminal or from standard input and is never an argument: arguments are in the shell's
//! history and in the list of processes.

use std::io::{self, IsTerminal, Read, Write};

use caxton_proto::manifest::secret::SecretName;
use http::Method;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::api::paths;
use crate::api::secrets::{SecretInfo, SecretList, SecretRemoved, SecretRequest};
use crate::cli::live::Remote;
use crate::cli::output::{BAD, BOLD, DIM, GOOD, Table, paint};
use crate::cli::{CliError, Context, text};
use crate::client::Retry;
use crate::secrets::VALUE_BYTES_MAX;

/// Arguments of `caxton secrets`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton secrets set WEATHER_API_KEY              asks for the value, and does not show it
  printf %s \"$KEY\" | caxton secrets set WEATHER_API_KEY
  caxton secrets list")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Keep a secret; its value comes from the terminal or from standard input.
    #[command(after_help = "\
Examples:
  caxton secrets set OPENAI_KEY
  caxton secrets set SERVICE_ACCOUNT < account.json")]
    Set {
        /// Its name: letters, digits and `_`, as a variable has.
        #[arg(required = true, value_name = "NAME")]
        words: Vec<String>,
    },
    /// List the names; values are never shown.
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns: NAME, SET when, BY whose token, DATA KEY which key seals it. JSON has them as name, set, actor and key.

Example:
  caxton secrets list --json"
    )]
    List,
    /// Forget a secret.
    #[command(visible_alias = "rm", after_help = "Example:\n  caxton secrets remove OPENAI_KEY")]
    Remove {
        /// The name of the secret.
        name: SecretName,
    },
}

/// Does what the subcommand says.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    match args.command {
        Command::Set { words } => set(context, &remote, &name_of(&words)?),
        Command::List => list(context, &remote),
        Command::Remove { name } => remove(context, &remote, &name),
    }
}

/// The name, and nothing else; what was typed too much may be the value, and is not repeated.
fn name_of(words: &[String]) -> Result<SecretName, CliError> {
    let alone = match words {
        [name] if !name.contains('=') => Some(name),
        _ => None,
    };
    let name = alone.ok_or_else(|| {
        CliError::usage("a secret's value is not an argument: it would stay in the shell's history")
            .help("give the name alone; the value is asked for, or read from standard input")
    })?;
    name.parse().map_err(|error: caxton_proto::manifest::secret::InvalidSecretName| {
        CliError::usage(error.to_string()).help("name it like a variable, as in WEATHER_API_KEY")
    })
}

fn set(context: &Context, remote: &Remote<'_>, name: &SecretName) -> Result<(), CliError> {
    let value = if io::stdin().is_terminal() { ask(context, name)? } else { read(io::stdin().lock())? };
    let value = value.strip_suffix('\n').map(|value| value.strip_suffix('\r').unwrap_or(value)).unwrap_or(&value);
    if value.is_empty() {
        return Err(CliError::usage("the secret's value is empty").help("type it, or send it to standard input"));
    }
    let body = SecretRequest { value: value.to_owned() };
    let request = remote.client.request(Method::PUT, &remote.path_of(paths::SECRET, name.as_str())).json(&body);
    // Setting the same value twice is the same as once.
    let info: SecretInfo = context.block_on(async { Ok(remote.client.json(request, Retry::Once).await?) })?;
    context.out.line(format_args!("{} secret {} of {}", paint(GOOD, "set"), paint(BOLD, name), remote.id))?;
    context.out.note(paint(DIM, "Tools and providers that name it have it from their next call on."));
    context.out.json(&info)
}

fn list(context: &Context, remote: &Remote<'_>) -> Result<(), CliError> {
    let list: SecretList = context.block_on(async { Ok(remote.client.get(&remote.path(paths::SECRETS)).await?) })?;
    if list.secrets.is_empty() {
        context.out.note(format_args!("{} has no secrets; set one with `caxton secrets set NAME`", remote.id));
    } else {
        let mut table = Table::new(["NAME", "SET", "BY", "DATA KEY"]);
        for secret in &list.secrets {
            let cells = [&secret.name, &text::age(&secret.set), &secret.actor, &secret.key];
            table.row(cells.map(|cell| text::one_line(cell)));
        }
        context.out.table(table)?;
    }
    context.out.json(&list)
}

fn remove(context: &Context, remote: &Remote<'_>, name: &SecretName) -> Result<(), CliError> {
    let path = remote.path_of(paths::SECRET, name.as_str());
    let removed: SecretRemoved = context.block_on(async { Ok(remote.client.delete(&path).await?) })?;
    context.out.line(format_args!("{} secret {name} of {}", paint(BAD, "removed"), remote.id))?;
    context.out.json(&removed)
}

/// Reads the value that somebody sends.
fn read(from: impl Read) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let most = VALUE_BYTES_MAX as u64 + 2; // A line's end is not part of it.
    let read = from.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| CliError::new("io", "standard input cannot be read").source(error))?;
    if bytes.len() as u64 > most {
        return Err(CliError::usage(format!("the secret's value has more than {VALUE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| {
        CliError::usage("the secret's value is not UTF-8 text").help("encode it first, for example with `base64`")
    })
}

/// Asks for the value without showing it.
fn ask(context: &Context, name: &SecretName) -> Result<String, CliError> {
    let failed = |error: io::Error| CliError::new("io", "the terminal cannot be read").source(error);
    let mut stderr = io::stderr();
    write!(stderr, "Value of {name} in {}: ", paint(BOLD, context.workspace_id()?)).map_err(failed)?;
    stderr.flush().map_err(failed)?;
    let hidden = HiddenInput::begin().map_err(|errno| failed(errno.into()))?;
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line);
    drop(hidden);
    read.map_err(failed)?;
    Ok(line)
}

/// The terminal shows nothing of what is typed as long as this lives.
struct HiddenInput(Termios);

impl HiddenInput {
    fn begin() -> rustix::io::Result<HiddenInput> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(HiddenInput(before))
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // The shell puts the terminal right when this cannot.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_the_arguments_is_refused_and_not_repeated() {
        let words = |words: &[&str]| name_of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["KEY"]).expect("a name").as_str(), "KEY");
        for wrong in [&["KEY", "sk-123"] as &[&str], &["KEY=sk-123"], &["sk-123"]] {
            let error = words(wrong).expect_err("a value");
            assert!(!format!("{error:?}").contains("sk-123"), "{error:?}");
        }
    }

    #[test]
    fn a_value_that_is_too_long_or_no_text_is_refused() {
        assert_eq!(read(&b"abc\n"[..]).expect("text"), "abc\n");
        assert!(read(vec![b'x'; VALUE_BYTES_MAX + 3].as_slice()).is_err());
        assert!(read(&[0xff, 0xfe][..]).is_err());
    }
}
