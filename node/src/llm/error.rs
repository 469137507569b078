//! Why a model did not answer, and what each reason allows: another try, another model, or neither.

use std::time::Duration;

/// Why a model did not answer.
///
/// What each says is one sentence: who, what is wrong, and what to do. Whoever shows it shows it once.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke before the reply began.
    #[error(
        "the provider `{provider}` at {url} cannot be reached ({cause}); check its address, that it runs, and the proxy if there is one"
    )]
    Unreachable {
        provider: String,
        /// Its address, without query.
        url: String,
        /// The innermost reason that the connection has, in a few words.
        cause: String,
    },
    /// Nothing came for too long.
    #[error("the provider `{provider}` was silent for {} ms; raise `timeout` under [providers.{provider}], or name a `fallback`", silence.as_millis())]
    Timeout {
        provider: String,
        /// How long it was waited for.
        silence: Duration,
    },
    /// It is used too much, by us or by others (429, 503, 529).
    #[error("the provider `{provider}` is busy ({status}): {message}; try again later, or name a `fallback`")]
    Busy {
        provider: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It failed (other 5xx).
    #[error("the provider `{provider}` failed ({status}): {message}; try again later, or name a `fallback`")]
    Failed {
        provider: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It does not accept the key (401, 403).
    #[error("the provider `{provider}` refused the key ({status}): {message}; {key_help}")]
    Unauthorized {
        provider: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
        /// Where the key is read from.
        key_help: String,
    },
    /// It does not accept the request (other 4xx): the same request will fail again.
    #[error(
        "the provider `{provider}` refused the request ({status}): {message}; check the model and what stands under [providers.{provider}]"
    )]
    Rejected {
        provider: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// No money or plan is left there: asking again is of no use, and it is not the provider that fails.
    #[error(
        "the account at the provider `{provider}` is used up ({status}): {message}; add credit or raise its limit there, or name a `fallback`"
    )]
    QuotaSpent {
        provider: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// What answers is no API: a web page, or the way to another address.
    #[error(
        "the provider `{provider}` is not at {url}, which answered with {problem}; put the address of its API, up to and with its version, into `base_url` under [providers.{provider}]"
    )]
    WrongAddress {
        provider: String,
        /// The address that was asked.
        url: String,
        /// What came instead of an answer.
        problem: String,
    },
    /// Nothing is at the address, or no such model (404, 405).
    #[error(
        "the provider `{provider}` has nothing at {url} ({status}): {message}; check `model`, and that `base_url` under [providers.{provider}] ends where the API's version does (often in /v1)"
    )]
    NotThere {
        provider: String,
        /// The address that was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The model takes no tools, and the agent cannot do without.
    #[error(
        "the model `{model}` of the provider `{provider}` takes no tools, and the agent has some; name a model that takes them, or take the tools out of the agent's file"
    )]
    TakesNoTools { provider: String, model: String },
    /// The reply stopped in the middle.
    #[error(
        "the reply of the provider `{provider}` broke off after {bytes} bytes; try again, and look at what stands between this node and it"
    )]
    BrokenOff {
        provider: String,
        /// How much had come.
        bytes: usize,
    },
    /// The reply is not what the protocol says.
    #[error(
        "the provider `{provider}` at {url} answered something that is not its protocol: {problem}; check `kind` and `base_url` under [providers.{provider}]"
    )]
    Nonsense {
        provider: String,
        url: String,
        /// The first thing that was wrong.
        problem: String,
    },
    /// The reply is longer than anything sensible.
    #[error(
        "the reply of the provider `{provider}` is longer than {bytes_max} bytes, and was stopped there; set `max_tokens` under [llm] in the agent's file"
    )]
    TooLarge { provider: String, bytes_max: usize },
    /// No rule of the script fits.
    #[error("the script `{script}` has no rule for this: {wanted}; add a [[rule]] that fits, or one without `when`")]
    NoRule {
        /// The script's file.
        script: String,
        /// What there was to answer.
        wanted: String,
    },
    /// The script is not there, or not a script.
    #[error("the script `{script}` cannot be used: {problem}")]
    BadScript {
        /// The script's file.
        script: String,
        /// What is wrong and where.
        problem: String,
    },
    /// The recording holds no such exchange.
    #[error("the recording holds no reply for this request (number {number}); record it again")]
    NotRecorded {
        /// How many requests had been answered.
        number: usize,
    },
    /// The agent names a provider that this node does not have.
    #[error("there is no provider `{provider}` on this node; it has {}; {help}", known.join(", "))]
    UnknownProvider {
        /// The provider asked for.
        provider: String,
        /// Those that are there.
        known: Vec<String>,
        /// How one is added.
        help: String,
    },
    /// The provider failed so often that it is left alone for a while.
    #[error("the provider `{provider}` failed {failures} times in a row and is left alone for another {} ms", rest.as_millis())]
    CircuitOpen {
        provider: String,
        failures: u32,
        /// How long still.
        rest: Duration,
    },
    /// The tool that stands in for a model gave no reply.
    #[error("the tool `{tool}`, which is the provider `{provider}`, gave no reply: {problem}")]
    ToolFailed { provider: String, tool: String, problem: String },
    /// The day's budget is used up.
    #[error("the budget of {whose} for today is used up: {used} of {limit}; raise it, or wait until midnight UTC")]
    BudgetSpent {
        /// `agent x`, or `workspace y`.
        whose: String,
        /// What was used, with its unit.
        used: String,
        /// What is allowed, with its unit.
        limit: String,
    },
    /// Every model of the fallback chain failed; the last error is the source.
    #[error("none of {tried} models answered")]
    AllFailed {
        /// How many were tried.
        tried: usize,
        /// The last one's reason.
        #[source]
        last: Box<Error>,
    },
    /// The agent's chain is empty: neither it nor the workspace names a provider.
    #[error("the agent names no model; set `provider` under [llm] in its file or in caxton.toml")]
    NoModel,
    /// The client could not be built.
    #[error("the connection to the provider `{provider}` could not be prepared: {problem}")]
    Setup {
        provider: String,
        /// What is wrong with its settings.
        problem: String,
    },
}

/// The innermost cause of a connection that failed, without the number that the system gives it: what stands around it repeats
/// that there was a connection.
pub(super) fn cause_of(error: &(dyn std::error::Error + 'static)) -> String {
    let innermost = std::iter::successors(Some(error), |error| (*error).source()).last().unwrap_or(error).to_string();
    let words = match innermost.rfind(" (os error ") {
        Some(at) if innermost.ends_with(')') => &innermost[..at],
        _ => &innermost,
    };
    words.to_owned()
}

/// What only the errors of providers say that are down, or too busy, for a while.
const PASSING: [&str; 6] = [
    // As it was written before it named the cause.
    "cannot be reached;",
    "cannot be reached (",
    "was silent for",
    "try again later, or name",
    "broke off after",
    "and is left alone for another",
];

/// Whether a kept reason why no model answered is of a kind that passes by itself. Of turns that are over only the words are kept.
pub fn is_passing_reason(reason: &str) -> bool {
    PASSING.iter().any(|words| reason.contains(words))
}

impl Error {
    /// Whether the same request may succeed when it is made again.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Unreachable { .. }
            | Error::Timeout { .. }
            | Error::Busy { .. }
            | Error::Failed { .. }
            | Error::BrokenOff { .. }
            | Error::Nonsense { .. } => true,
            Error::Unauthorized { .. }
            | Error::Rejected { .. }
            | Error::QuotaSpent { .. }
            | Error::WrongAddress { .. }
            | Error::NotThere { .. }
            | Error::TakesNoTools { .. }
            | Error::TooLarge { .. }
            | Error::NoRule { .. }
            | Error::BadScript { .. }
            | Error::NotRecorded { .. }
            | Error::ToolFailed { .. }
            | Error::UnknownProvider { .. }
            | Error::CircuitOpen { .. }
            | Error::BudgetSpent { .. }
            | Error::AllFailed { .. }
            | Error::NoModel
            | Error::Setup { .. } => false,
        }
    }

    /// Whether another model may answer instead. Only a spent budget ends the chain: it is spent for all of them.
    pub fn falls_back(&self) -> bool {
        !matches!(self, Error::BudgetSpent { .. } | Error::AllFailed { .. })
    }

    /// The HTTP status that the provider refused with.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Rejected { status, .. } | Error::Failed { status, .. } | Error::NotThere { status, .. } => {
                Some(*status)
            }
            _ => None,
        }
    }

    /// When the provider wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// A short name for metrics and span attributes (`error.type`).
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Unreachable { .. } => "unreachable",
            Error::Timeout { .. } => "timeout",
            Error::Busy { .. } => "busy",
            Error::Failed { .. } => "failed",
            Error::Unauthorized { .. } => "unauthorized",
            Error::Rejected { .. } => "rejected",
            Error::QuotaSpent { .. } => "quota_spent",
            Error::WrongAddress { .. } => "wrong_address",
            Error::NotThere { .. } => "not_there",
            Error::TakesNoTools { .. } => "takes_no_tools",
            Error::BrokenOff { .. } => "broken_off",
            Error::Nonsense { .. } => "nonsense",
            Error::TooLarge { .. } => "too_large",
            Error::NoRule { .. } => "no_rule",
            Error::BadScript { .. } => "bad_script",
            Error::NotRecorded { .. } => "not_recorded",
            Error::ToolFailed { .. } => "tool_failed",
            Error::UnknownProvider { .. } => "unknown_provider",
            Error::CircuitOpen { .. } => "circuit_open",
            Error::BudgetSpent { .. } => "budget_spent",
            Error::AllFailed { .. } => "all_failed",
            Error::NoModel => "no_model",
            Error::Setup { .. } => "setup",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer words")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_cause_is_the_innermost_one_without_its_number() {
        let refused = std::io::Error::from_raw_os_error(111);
        let words = refused.to_string();
        assert!(words.ends_with("(os error 111)"), "{words}");
        let cause = cause_of(&Outer(refused));
        assert!(!cause.contains("os error") && !cause.contains("outer") && words.starts_with(&cause), "{cause}");
    }

    #[test]
    fn the_reasons_of_what_passes_are_known_by_their_words() {
        let (provider, message) = ("p".to_owned(), "no".to_owned());
        let url = "http://127.0.0.1:1/v1".to_owned();
        let passing = [
            Error::Unreachable { provider: provider.clone(), url, cause: "connection refused".to_owned() },
            Error::Timeout { provider: provider.clone(), silence: Duration::from_secs(1) },
            Error::Busy { provider: provider.clone(), status: 529, message: message.clone(), retry_after: None },
            Error::Failed { provider: provider.clone(), status: 502, message: message.clone() },
            Error::BrokenOff { provider: provider.clone(), bytes: 7 },
            Error::CircuitOpen { provider: provider.clone(), failures: 5, rest: Duration::from_secs(1) },
        ];
        for error in passing {
            assert!(is_passing_reason(&error.to_string()), "{error}");
            let all = Error::AllFailed { tried: 2, last: Box::new(error) };
            assert!(is_passing_reason(&crate::llm::reasons(&all)), "{}", crate::llm::reasons(&all));
        }
        let staying = [
            Error::Rejected { provider: provider.clone(), status: 400, message: message.clone() },
            Error::QuotaSpent { provider: provider.clone(), status: 402, message: message.clone() },
            Error::TooLarge { provider: provider.clone(), bytes_max: 7 },
            Error::Unauthorized { provider, status: 401, message, key_help: "set it".to_owned() },
        ];
        for error in staying {
            assert!(!is_passing_reason(&error.to_string()), "{error}");
        }
    }
}
