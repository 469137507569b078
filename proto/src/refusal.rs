//! Why a node refuses what another one asks, as a code that programs read. The sentence beside it is for people, and may be
//! said otherwise by any other build.

/// The key of the code in the metadata of a gRPC answer.
pub const METADATA_KEY: &str = "caxton-refusal";

/// Why a node refuses what another one asks. Codes are added and never change: what one of them means to a build that does
/// not know it is what the gRPC status beside it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The caller is a second process of a node whose first one is there and answers.
    CopyAlive,
    /// The caller's data directory is a copy or an older state of that of a node, which has gone on without it.
    CopyForked,
    /// The caller was removed from the cluster.
    Removed,
    /// The caller runs a version that cannot be in one cluster with that of the node it calls.
    Version,
    /// The join token or the secret that the caller shows does not let it in.
    Credential,
}

impl Refusal {
    /// Every code that this build knows.
    pub const ALL: [Refusal; 5] =
        [Refusal::CopyAlive, Refusal::CopyForked, Refusal::Removed, Refusal::Version, Refusal::Credential];

    /// The code as it goes over the wire.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::CopyAlive => "copy-alive",
            Refusal::CopyForked => "copy-forked",
            Refusal::Removed => "removed",
            Refusal::Version => "version",
            Refusal::Credential => "credential",
        }
    }

    /// What a code means; nothing for one that a later build has added.
    pub fn of_code(code: &str) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| refusal.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_that_other_builds_know() {
        let codes: Vec<_> = Refusal::ALL.into_iter().map(Refusal::code).collect();
        assert_eq!(codes, ["copy-alive", "copy-forked", "removed", "version", "credential"]);
        assert!(Refusal::ALL.into_iter().all(|refusal| Refusal::of_code(refusal.code()) == Some(refusal)));
        assert_eq!(Refusal::of_code("of-a-later-build"), None);
    }
}
