//! What an agent is looked for to do: whatever a text says, or a capability, with a version or without.

use caxton_proto::CapabilityName;
use semver::VersionReq;

/// What stands behind the `@` of a capability's name is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no version behind its `@`: {problem}; write one as in `read-csv@^1.2`, or leave it out")]
pub struct NoVersion {
    /// What was wanted.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What somebody is looked for to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Whatever a text says.
    Text(&'a str),
    /// A capability: its name, with a version or without, or what it is in a few words.
    Capability(&'a str),
}

impl<'a> Wanted<'a> {
    /// What finds the agent, and the version that it must have: what stands behind the `@` of a capability's name.
    pub fn parse(self) -> Result<(&'a str, Option<VersionReq>), NoVersion> {
        let text = match self {
            Wanted::Text(text) => return Ok((text, None)),
            Wanted::Capability(text) => text,
        };
        match text.trim().split_once('@') {
            Some((name, version)) if name.parse::<CapabilityName>().is_ok() => match version.parse() {
                Ok(version) => Ok((name, Some(version))),
                Err(error) => Err(NoVersion { text: text.to_owned(), problem: error.to_string() }),
            },
            Some(_) | None => Ok((text, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_behind_the_name_of_a_capability() {
        let parse =
            |text| Wanted::Capability(text).parse().map(|(name, version)| (name, version.map(|it| it.to_string())));
        for (text, name, version) in [
            ("read-csv", "read-csv", None),
            ("read-csv@^1.2", "read-csv", Some("^1.2")),
            (" read-csv@1 ", "read-csv", Some("^1")),
            ("read-csv@>=1.2, <3", "read-csv", Some(">=1.2, <3")),
            ("write to ann@example.org", "write to ann@example.org", None),
        ] {
            assert_eq!(parse(text), Ok((name, version.map(str::to_owned))), "{text}");
        }
        for bad in ["read-csv@", "read-csv@new", "read-csv@1@2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        // A message is no name, whatever is in it.
        assert_eq!(Wanted::Text("read-csv@^1.2").parse(), Ok(("read-csv@^1.2", None)));
    }
}
