//! A deployment as the log has it, in the API's words.

use caxton_proto::log::{self, Kind};

use super::{Author, Deployment, Git};

impl From<&log::Deployment> for Deployment {
    fn from(it: &log::Deployment) -> Deployment {
        Deployment {
            workspace: it.workspace.clone(),
            revision: it.revision,
            parent: it.parent,
            root: it.root,
            rollback_to: match it.kind {
                Kind::Deploy => None,
                Kind::Rollback { to } => Some(to),
            },
            author: Author { name: it.author.name.clone(), email: it.author.email.clone() },
            actor: it.actor.clone(),
            time: rfc3339(it.time_ms),
            git: it.git.as_ref().map(|git| Git {
                commit: git.commit.clone(),
                branch: git.branch.clone(),
                dirty: git.dirty,
            }),
            message: it.message.clone(),
            changes: it.changes.clone(),
            changes_total: it.changes_total,
            files: it.files,
            bytes: it.bytes,
            event_id: it.index,
            kept: it.kept,
        }
    }
}

/// A time of the log as RFC 3339 in UTC, with milliseconds. One that no calendar has is the last that it has.
pub fn rfc3339(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc_and_never_panic() {
        assert_eq!(rfc3339(1_795_000_000_123), "2026-11-18T11:06:40.123Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert!(rfc3339(u64::MAX).starts_with("9999-"));
    }
}
