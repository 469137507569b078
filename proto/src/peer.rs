//! What nodes of a cluster say to each other: the messages and the service of peer.proto, and which versions may speak.

/// Generated from peer.proto.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "prost writes it")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/caxton.peer.v1.rs"));
}

/// How many minor versions two nodes of a cluster may be apart.
pub const MINORS_APART_MAX: u64 = 1;

/// Whether two versions of the binary can be nodes of one cluster. A text that is no version can be with none.
pub fn can_speak(one: &str, other: &str) -> bool {
    let parse = |text: &str| semver::Version::parse(text).ok();
    let (Some(one), Some(other)) = (parse(one), parse(other)) else { return false };
    one.major == other.major && one.minor.abs_diff(other.minor) <= MINORS_APART_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_of_skew_is_allowed() {
        for (one, other, expected) in [
            ("0.1.0", "0.1.9", true),
            ("0.1.0", "0.2.0", true),
            ("0.3.0", "0.2.0-rc.1", true),
            ("0.1.0", "0.3.0", false),
            ("1.0.0", "0.9.0", false),
            ("0.1.0", "", false),
            ("x", "0.1.0", false),
        ] {
            assert_eq!(can_speak(one, other), expected, "{one} and {other}");
        }
    }
}
