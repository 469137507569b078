//! What a node says to a peer that it refuses, and what it understands of such an answer: a code in the metadata, which
//! programs read, beside a sentence, which people read.
//!
//! Builds before the codes compared the sentences. For as long as one of them may be in a cluster with this build, their
//! sentences are understood here and nowhere else, and this build says the same ones.

use caxton_proto::refusal::{METADATA_KEY, Refusal};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// What a node hears that was removed from the cluster.
const REMOVED: &str = "this node was removed from the cluster";
/// What a process hears that may not take part begins with this.
const COPY: &str = "this process is a copy of a node";
/// What a process hears whose node is there and answers in another process.
const COPY_ALIVE: &str = "this process is a copy of a node that runs: another process has its identity, and answers";

/// An answer that refuses, with the code of the reason.
pub fn refuse(code: Code, why: Refusal, sentence: impl Into<String>) -> Status {
    let mut status = Status::new(code, sentence);
    status.metadata_mut().insert(METADATA_KEY, MetadataValue::from_static(why.code()));
    status
}

/// A process may not take part as the node that it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Copied {
    /// The node is there and answers.
    #[error("{COPY} that runs: another process has its identity, and answers")]
    Alive,
    /// The node has gone on without it.
    #[error(
        "{COPY}, or of an older state of it: the node has gone on in another process, of which this one's data directory knows nothing"
    )]
    Forked,
    /// It could not be written down, and so does not hold.
    #[error("the node is not let in: that it is there could not be written down")]
    Unwritten,
}

impl Copied {
    /// What a node of the cluster answers to such a process.
    pub fn status(self) -> Status {
        match self {
            Copied::Alive => refuse(Code::PermissionDenied, Refusal::CopyAlive, self.to_string()),
            Copied::Forked => refuse(Code::PermissionDenied, Refusal::CopyForked, self.to_string()),
            Copied::Unwritten => Status::unavailable(self.to_string()),
        }
    }
}

/// The answer to a node that was removed from the cluster.
pub fn removed() -> Status {
    refuse(Code::PermissionDenied, Refusal::Removed, REMOVED)
}

/// Why a peer refused. Nothing when it gave no reason that programs read, or one that this build does not know: then the
/// status says what to do.
pub fn heard(status: &Status) -> Option<Refusal> {
    match status.metadata().get(METADATA_KEY) {
        Some(code) => Refusal::of_code(code.to_str().ok()?),
        None => before_codes(status),
    }
}

/// What an answer means of a build that gave no codes.
fn before_codes(status: &Status) -> Option<Refusal> {
    if status.code() != Code::PermissionDenied {
        return None;
    }
    match status.message() {
        REMOVED => Some(Refusal::Removed),
        COPY_ALIVE => Some(Refusal::CopyAlive),
        other if other.starts_with(COPY) => Some(Refusal::CopyForked),
        _ => None,
    }
}

/// The answer of a node that was asked on behalf of another one, as that other one may hear it. What was said of the node in
/// between is not true of the one behind it, which would stop for it.
pub fn passed_on(status: Status) -> Status {
    match heard(&status) {
        Some(Refusal::CopyAlive | Refusal::CopyForked | Refusal::Removed) => {
            Status::unavailable("the node that could answer refuses the one that passed this on")
        }
        Some(Refusal::Version | Refusal::Credential) | None => status,
    }
}

/// Whether the other side said no, and not the connection.
pub fn is_refusal(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => true,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentences of the builds before the codes, to the letter: they compare what they hear, and this build what they
    /// say.
    const BEFORE: [(Refusal, &str); 3] = [
        (Refusal::Removed, "this node was removed from the cluster"),
        (
            Refusal::CopyAlive,
            "this process is a copy of a node that runs: another process has its identity, and answers",
        ),
        (
            Refusal::CopyForked,
            "this process is a copy of a node, or of an older state of it: the node has gone on in another process, of which this one's data directory knows nothing",
        ),
    ];

    fn said(why: Refusal) -> Option<Status> {
        match why {
            Refusal::Removed => Some(removed()),
            Refusal::CopyAlive => Some(Copied::Alive.status()),
            Refusal::CopyForked => Some(Copied::Forked.status()),
            Refusal::Version | Refusal::Credential => None,
        }
    }

    #[test]
    fn a_build_before_the_codes_is_understood_and_understands() {
        for (why, sentence) in BEFORE {
            assert_eq!(heard(&Status::permission_denied(sentence)), Some(why), "its sentence");
            let ours = said(why).expect("it is said");
            assert_eq!((ours.code(), ours.message()), (Code::PermissionDenied, sentence), "our sentence");
        }
        for (other, what) in [
            (Status::permission_denied("the certificate is another node's"), "another refusal"),
            (Status::unavailable(REMOVED), "another status"),
        ] {
            assert_eq!(heard(&other), None, "{what}");
        }
    }

    #[test]
    fn the_code_decides_and_the_sentence_does_not() {
        for why in Refusal::ALL {
            assert_eq!(heard(&refuse(Code::PermissionDenied, why, "said in other words")), Some(why));
            assert_eq!(heard(&refuse(Code::PermissionDenied, why, REMOVED)), Some(why), "whatever the sentence");
        }
        let mut later = removed();
        later.metadata_mut().insert(METADATA_KEY, MetadataValue::from_static("of-a-later-build"));
        assert_eq!(heard(&later), None, "a reason that this build does not know");
    }

    #[test]
    fn what_was_said_of_the_node_in_between_is_not_passed_on_as_said_of_the_one_behind() {
        for why in [Refusal::Removed, Refusal::CopyAlive, Refusal::CopyForked] {
            for status in
                [said(why), BEFORE.iter().find(|(it, _)| *it == why).map(|it| Status::permission_denied(it.1))]
            {
                let passed = passed_on(status.expect("it is said"));
                assert_eq!((passed.code(), heard(&passed)), (Code::Unavailable, None), "{why:?}");
            }
        }
        for why in [Refusal::Version, Refusal::Credential] {
            assert_eq!(heard(&passed_on(refuse(Code::PermissionDenied, why, "no"))), Some(why));
        }
    }
}
