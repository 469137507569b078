//! Why a call to a server failed.

use std::error::Error as _;

use caxton_proto::Digest;

use crate::api::Problem;
use crate::api::frame::FrameError;

/// The most of a strange answer that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no Caxton server answers at {url}")]
    Unreachable {
        url: String,
        /// What the system said.
        #[source]
        source: reqwest::Error,
    },
    /// The answer did not come in time.
    #[error("the server at {url} did not answer in time")]
    TimedOut {
        url: String,
        /// What ran out.
        #[source]
        source: reqwest::Error,
    },
    /// The certificate was not accepted.
    #[error("the certificate of {url} is not trusted")]
    Tls {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// The connection ended in the middle of an exchange.
    #[error("the connection to {url} broke")]
    Broken {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// A token was about to be sent over plain HTTP to another machine.
    #[error("{url} is not this machine, and the token would be sent in clear text")]
    ClearText { url: String },
    /// The server refused, and said why.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The answer is not one of a Caxton server.
    #[error("{url} answered with status {status} and something that is not Caxton's: {start:?}")]
    NotCaxton {
        url: String,
        /// The HTTP status.
        status: u16,
        /// How the body starts.
        start: String,
    },
    /// A framed body was cut short, or a blob is not what its digest promises.
    #[error("the answer of {url} is damaged")]
    Damaged {
        url: String,
        #[source]
        source: FrameError,
    },
    /// A blob that was asked for did not come.
    #[error("{url} did not send what was asked for by the digest {digest:?}")]
    Withheld {
        url: String,
        /// What was asked for.
        digest: Digest,
    },
    /// The client cannot be made from its settings.
    #[error("the connection cannot be set up")]
    Setup(#[source] reqwest::Error),
    /// A setting of the client is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl ClientError {
    /// The code of the server's refusal, if that is what it is.
    pub fn code(&self) -> Option<&str> {
        match self {
            ClientError::Problem(problem) => Some(&problem.code),
            ClientError::Unreachable { .. }
            | ClientError::TimedOut { .. }
            | ClientError::Tls { .. }
            | ClientError::Broken { .. }
            | ClientError::ClearText { .. }
            | ClientError::NotCaxton { .. }
            | ClientError::Damaged { .. }
            | ClientError::Withheld { .. }
            | ClientError::Setup(_)
            | ClientError::Invalid(_) => None,
        }
    }

    /// The server may have done what it was asked to do, or not.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            ClientError::TimedOut { .. } | ClientError::Broken { .. } | ClientError::NotCaxton { .. } => true,
            ClientError::Problem(problem) => matches!(problem.status, 408 | 500 | 502 | 504),
            ClientError::Unreachable { .. }
            | ClientError::Tls { .. }
            | ClientError::ClearText { .. }
            | ClientError::Damaged { .. }
            | ClientError::Withheld { .. }
            | ClientError::Setup(_)
            | ClientError::Invalid(_) => false,
        }
    }

    pub(super) fn setup(message: String) -> ClientError {
        ClientError::Invalid(message)
    }

    pub(super) fn of(url: &str, source: reqwest::Error) -> ClientError {
        let url = url.to_owned();
        // The address is in the message already.
        let source = source.without_url();
        let mut cause = source.source();
        let mut tls = false;
        while let Some(error) = cause {
            tls |= error.downcast_ref::<rustls::Error>().is_some() || error.to_string().contains("certificate");
            cause = error.source();
        }
        if tls {
            ClientError::Tls { url, source }
        } else if source.is_connect() {
            ClientError::Unreachable { url, source }
        } else if source.is_timeout() {
            ClientError::TimedOut { url, source }
        } else {
            ClientError::Broken { url, source }
        }
    }

    pub(super) fn not_caxton(url: &str, status: u16, body: &[u8]) -> ClientError {
        let start = String::from_utf8_lossy(body).chars().take(SHOWN_CHARS_MAX).collect();
        ClientError::NotCaxton { url: url.to_owned(), status, start }
    }
}
