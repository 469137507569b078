//! What happens: the deployments of workspaces, and the lines of what agents do, both to be followed as they come.

use std::sync::Arc;

use caxton_proto::log::Deployment;
use caxton_raft::ReadError;
use caxton_raft::deploy_log::{DeployLog, State as LogState};
use tokio::sync::watch;

use crate::api::logs::LogLine;
use crate::authz::{Permit, ReadActivity, UnscopedToken};

/// What happens on this node, and in the deploy log.
pub struct Activity {
    lines: crate::activity::Activity,
    log: DeployLog,
}

impl Activity {
    /// The lines that are kept, and the deployments of the log.
    pub fn new(lines: crate::activity::Activity, log: DeployLog) -> Activity {
        Activity { lines, log }
    }

    /// The lines of a workspace after the one with the number `id`, and how many between were not kept.
    pub fn lines_after(&self, permit: &Permit<ReadActivity>, id: u64) -> (Vec<Arc<LogLine>>, u64) {
        self.lines.after(permit.workspace(), id)
    }

    /// The number of the newest line of a workspace, which changes with each; nothing where there is no line.
    pub fn newest_line(&self, permit: &Permit<ReadActivity>) -> Option<watch::Receiver<u64>> {
        self.lines.newest(permit.workspace())
    }

    /// Changes whenever there is the first line of some workspace.
    pub fn begun(&self) -> watch::Receiver<u64> {
        self.lines.begun()
    }

    /// The number of the newest entry of the deploy log that this node has applied, which changes with each.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.log.applied()
    }

    /// Where the deploy log has come to, and whether deployments between `after` and what it remembers are forgotten; as the
    /// log's leader knows it.
    pub async fn current(&self, scope: &DeploymentScope, after: Option<u64>) -> Result<(u64, bool), ReadError> {
        self.log.current(|state| (state.applied(), after.is_some_and(|after| scope.is_gap(state, after)))).await
    }

    /// The same as this node knows it, which may be behind.
    pub fn known(&self, scope: &DeploymentScope, after: Option<u64>) -> (u64, bool) {
        self.log.read(|state| (state.applied(), after.is_some_and(|after| scope.is_gap(state, after))))
    }

    /// At most `limit` entries after `cursor`: those of the scope, with the number of the last that was looked at.
    pub fn deployments_after(&self, scope: &DeploymentScope, cursor: u64, limit: usize) -> Deployments {
        self.log.read(|state| {
            if scope.is_gap(state, cursor) {
                return Deployments::Forgotten;
            }
            let seen: Vec<_> = state.deployments_after(cursor).take(limit).cloned().collect();
            match seen.last().map(|last| last.index) {
                None => Deployments::NoMore,
                Some(last) => Deployments::Some { last, found: seen.into_iter().filter(|it| scope.has(it)).collect() },
            }
        })
    }
}

/// What a look into the log found.
pub enum Deployments {
    /// Deployments; those that are not in the scope were passed over.
    Some {
        /// The number of the last entry that was looked at.
        last: u64,
        /// Those of the scope, in their order.
        found: Vec<Arc<Deployment>>,
    },
    /// There is nothing after the cursor yet.
    NoMore,
    /// The log has forgotten some after the cursor.
    Forgotten,
}

/// Whose deployments are followed.
pub enum DeploymentScope {
    /// Those of one workspace.
    One(Permit<ReadActivity>),
    /// Those of every workspace that the token is for.
    Every(UnscopedToken<ReadActivity>),
}

impl DeploymentScope {
    /// The token that opened the stream.
    pub fn access(&self) -> &crate::authn::Access {
        match self {
            DeploymentScope::One(permit) => permit.access(),
            DeploymentScope::Every(unscoped) => unscoped.access(),
        }
    }

    fn has(&self, deployment: &Deployment) -> bool {
        match self {
            DeploymentScope::One(permit) => *permit.workspace() == deployment.workspace,
            DeploymentScope::Every(unscoped) => unscoped.permit(&deployment.workspace).is_ok(),
        }
    }

    /// Whether a deployment of this scope came after `cursor` and is forgotten.
    fn is_gap(&self, state: &LogState, cursor: u64) -> bool {
        if cursor >= state.forgotten() {
            return false;
        }
        let DeploymentScope::One(permit) = self else { return true };
        let oldest = state.workspace(permit.workspace()).and_then(|workspace| workspace.deployments().next());
        // The first revision that is remembered has an older one before it, which may have come after the cursor.
        oldest.is_some_and(|oldest| oldest.revision.0 > 1 && cursor < oldest.index)
    }
}

#[cfg(test)]
mod tests {
    use caxton_proto::log::Role;
    use caxton_proto::log::{Author, Command, Deploy, Kind};
    use caxton_proto::{Digest, Revision};
    use caxton_raft::deploy_log::state::DEPLOYMENTS_MAX;

    use super::*;
    use crate::authn::Access;

    fn deploy(state: &mut LogState, index: u64, workspace: &str, parent: u64) {
        let command = Command::Deploy(Deploy {
            workspace: workspace.parse().expect("a name"),
            parent: Revision(parent),
            root: Digest::of(b""),
            kind: Kind::Deploy,
            author: Author::default(),
            actor: String::new(),
            time_ms: 0,
            git: None,
            message: String::new(),
            changes: Vec::new(),
            changes_total: 0,
            files: 0,
            bytes: 0,
            idempotency_key: String::new(),
            revisions_kept: 1,
        });
        state.apply(index, &command);
    }

    #[test]
    fn a_cursor_before_what_is_forgotten_is_a_gap_where_it_misses_something() {
        let mut state = LogState::default();
        deploy(&mut state, 1, "quiet", 0);
        for index in 2..=DEPLOYMENTS_MAX as u64 + 3 {
            deploy(&mut state, index, "busy", index - 2);
        }
        // The busy workspace had two deployments more than are remembered: those at 2 and 3.
        assert_eq!(state.forgotten(), 3);
        let gap = |workspace: Option<&str>, cursor| {
            let access = Access::for_test("ada", Role::Viewer, None);
            let scope = match workspace {
                Some(name) => DeploymentScope::One(
                    access.permit(ReadActivity, &name.parse().expect("a name")).expect("permitted"),
                ),
                None => DeploymentScope::Every(UnscopedToken::new(access)),
            };
            scope.is_gap(&state, cursor)
        };
        assert!(gap(None, 0) && gap(None, 2) && !gap(None, 3));
        assert!(gap(Some("busy"), 0) && gap(Some("busy"), 2) && !gap(Some("busy"), 3));
        assert!(!gap(Some("quiet"), 0), "nothing of the quiet one is forgotten");
    }
}
