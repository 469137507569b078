//! What a command fails with: what happened, what to do next, and the exit code that scripts rely on.

use std::error::Error;
use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::client::ClientError;

/// Exit codes; they are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Anything that has no code of its own.
    Failed = 1,
    /// Wrong usage: flags or arguments.
    Usage = 2,
    /// The workspace has mistakes, and each was printed.
    Check = 3,
    /// Something else was deployed in between.
    Conflict = 4,
    /// The token is missing, wrong, or does not allow this.
    Unauthorized = 5,
    /// The server cannot be reached.
    Unreachable = 6,
    /// The server refuses for now: a full disk, or too much to do.
    Refused = 7,
    /// A turn waits until a person has decided on a call.
    Waiting = 8,
    /// A person pressed Ctrl-C; what a shell gives a program that was interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A command's failure, as a person or a program sees it.
#[derive(Debug)]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// A stable name for programs; the server's own code when the server refused.
    pub code: String,
    /// What failed, without a full stop.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
    /// Printed as it is in front of the message: diagnostics, for one.
    pub body: Option<String>,
    /// Facts for `--json`.
    pub facts: Map<String, Value>,
    /// Why, as a chain.
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// The layers between the failure and its innermost cause are a library's, and say nothing to a person.
    pub plumbing: bool,
    /// The reader of our output went away: say nothing.
    pub quiet: bool,
    /// Everything was printed already: only the exit code is left to say.
    pub said: bool,
}

impl CliError {
    /// A failure with the exit code 1.
    pub fn new(code: &str, message: impl Into<String>) -> CliError {
        CliError {
            exit: Exit::Failed,
            code: code.to_owned(),
            message: message.into(),
            help: None,
            body: None,
            facts: Map::new(),
            source: None,
            plumbing: false,
            quiet: false,
            said: false,
        }
    }

    /// A mistake in how the command was called.
    pub fn usage(message: impl Into<String>) -> CliError {
        CliError::new("usage", message).exit(Exit::Usage)
    }

    /// With another exit code.
    pub fn exit(mut self, exit: Exit) -> CliError {
        self.exit = exit;
        self
    }

    /// An exit code alone, for a command that has printed what there is to say.
    pub fn only(exit: Exit, code: &str) -> CliError {
        CliError { said: true, ..CliError::new(code, "").exit(exit) }
    }

    /// With what to do next.
    pub fn help(mut self, help: impl Into<String>) -> CliError {
        self.help = Some(help.into());
        self
    }

    /// With the cause.
    pub fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> CliError {
        self.source = Some(source.into());
        self
    }

    /// With text that is printed in front of the message as it is.
    pub fn body(mut self, body: impl Into<String>) -> CliError {
        self.body = Some(body.into());
        self
    }

    /// With a fact for `--json`.
    pub fn fact(mut self, name: &str, value: impl serde::Serialize) -> CliError {
        self.facts.insert(name.to_owned(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }

    /// The chain of causes, each without what the one before already says.
    pub fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        let mut next = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !self.message.contains(&text) && !causes.iter().any(|said| said.contains(&text)) {
                causes.push(text);
            }
            next = cause.source();
        }
        causes
    }

    /// What a person is shown of the causes.
    pub fn shown_causes(&self) -> Vec<String> {
        let mut causes = self.causes();
        if self.plumbing {
            causes.drain(..causes.len().saturating_sub(1));
        }
        causes
    }

    /// The failure for programs.
    pub fn to_json(&self) -> Value {
        let mut error = self.facts.clone();
        error.insert("code".into(), self.code.clone().into());
        error.insert("message".into(), self.message.clone().into());
        error.insert("exit".into(), (self.exit as u8).into());
        if let Some(help) = &self.help {
            error.insert("help".into(), help.clone().into());
        }
        let causes = self.causes();
        if !causes.is_empty() {
            error.insert("causes".into(), causes.into());
        }
        serde_json::json!({ "error": error })
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        let (exit, code, help) = match &error {
            ClientError::Unreachable { .. } => (
                Exit::Unreachable,
                "unreachable",
                Some("start one with `caxton serve`, or name another with --server URL".to_owned()),
            ),
            ClientError::TimedOut { .. } => (
                Exit::Unreachable,
                "timeout",
                Some("the server may be busy: look at `caxton health`, and try again".to_owned()),
            ),
            ClientError::Tls { .. } => (
                Exit::Unreachable,
                "tls",
                Some(
                    "name the CA that signed the server's certificate with --ca-file FILE \
                     (on the server it is tls/ca.pem in the data directory)"
                        .to_owned(),
                ),
            ),
            ClientError::Broken { .. } => {
                (Exit::Unreachable, "connection_broken", Some("try again; nothing is applied twice".to_owned()))
            }
            ClientError::ClearText { .. } => {
                (Exit::Unauthorized, "clear_text", Some("write the server's address with https://".to_owned()))
            }
            ClientError::NotCaxton { .. } => {
                (Exit::Failed, "not_caxton", Some("check the address given with --server".to_owned()))
            }
            ClientError::Damaged { .. } | ClientError::Withheld { .. } => {
                let help = "try again; if it stays, the server's log names what is damaged".to_owned();
                (Exit::Failed, "damaged_answer", Some(help))
            }
            ClientError::Setup(_) | ClientError::Invalid(_) => {
                (Exit::Failed, "setup", Some("check --server and --ca-file".to_owned()))
            }
            ClientError::Problem(problem) => (of_status(problem.status), problem.code.as_str(), problem.help.clone()),
        };
        let mut cli = CliError::new(code, error.to_string()).exit(exit);
        cli.help = help;
        if let ClientError::Problem(problem) = &error {
            cli.facts = problem.extra.clone();
            cli.facts.insert("status".into(), problem.status.into());
            if let Some(request) = &problem.request_id {
                cli.facts.insert("request_id".into(), request.clone().into());
            }
            if problem.status == 401 && cli.help.is_none() {
                cli.help = Some("pass a token with --token-file FILE or in CAXTON_TOKEN".to_owned());
            }
        }
        cli.plumbing = true;
        cli.source(error)
    }
}

fn of_status(status: u16) -> Exit {
    match status {
        401 | 403 => Exit::Unauthorized,
        409 => Exit::Conflict,
        422 => Exit::Check,
        429 | 503 | 507 => Exit::Refused,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_not_said_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] std::io::Error);
        let error = CliError::new("x", "it failed").source(Outer(std::io::Error::other("disk")));
        assert_eq!(error.causes(), ["outer: disk"]);
    }
}
