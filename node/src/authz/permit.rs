//! Permits, and how an [`Access`] becomes one or is refused.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use caxton_proto::WorkspaceId;
use caxton_proto::log::Role;

use super::permissions::{InCluster, InWorkspace, Permission};
use crate::authn::Access;

/// The proof that somebody may do `P` in one workspace.
pub struct Permit<P> {
    access: Access,
    workspace: WorkspaceId,
    permission: PhantomData<fn() -> P>,
}

/// The proof that somebody may do `P` in the whole cluster.
pub struct ClusterPermit<P> {
    access: Access,
    permission: PhantomData<fn() -> P>,
}

/// A token whose request names its workspaces in its body, or lists several: `P` has to be asked for in each of them.
pub struct UnscopedToken<P> {
    access: Access,
    permission: PhantomData<fn() -> P>,
}

impl<P: InWorkspace> Permit<P> {
    pub fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }

    /// Whose token it is.
    pub fn subject(&self) -> &str {
        self.access.subject()
    }

    /// The token itself: long streams ask whether it still stands.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// A permit for something else in the same workspace, if the token has it.
    pub fn also<Q: InWorkspace>(&self, other: Q) -> Result<Permit<Q>, Denied> {
        self.access.permit(other, &self.workspace)
    }
}

impl<P: InCluster> ClusterPermit<P> {
    /// Whose token it is.
    pub fn subject(&self) -> &str {
        self.access.subject()
    }
}

impl<P: InWorkspace> UnscopedToken<P> {
    /// Of this token.
    pub fn new(access: Access) -> UnscopedToken<P> {
        UnscopedToken { access, permission: PhantomData }
    }

    /// Of this token, if its role has the permission at all.
    pub fn of(access: Access) -> Result<UnscopedToken<P>, Denied> {
        let wrong = |why| Denied { subject: access.subject().into(), workspace: None, why };
        access.has(P::PERMISSION).map_err(wrong)?;
        Ok(UnscopedToken::new(access))
    }

    /// A permit for one workspace, if the token has it.
    pub fn permit(&self, workspace: &WorkspaceId) -> Result<Permit<P>, Denied> {
        self.access.permitted(P::PERMISSION, workspace)?;
        Ok(Permit { access: self.access.clone(), workspace: workspace.clone(), permission: PhantomData })
    }

    /// The token itself: long streams ask whether it still stands.
    pub fn access(&self) -> &Access {
        &self.access
    }
}

impl Access {
    /// A permit for a workspace, if the token has the permission there.
    pub fn permit<P: InWorkspace>(&self, _permission: P, workspace: &WorkspaceId) -> Result<Permit<P>, Denied> {
        UnscopedToken::new(self.clone()).permit(workspace)
    }

    /// A permit for the whole cluster, if the token has the permission there.
    pub fn permit_cluster<P: InCluster>(&self, _permission: P) -> Result<ClusterPermit<P>, Denied> {
        let wrong = |why| Denied { subject: self.subject().into(), workspace: None, why };
        if self.workspaces().is_some() {
            return Err(wrong(Why::Workspace));
        }
        self.has(P::PERMISSION).map_err(wrong)?;
        Ok(ClusterPermit { access: self.clone(), permission: PhantomData })
    }

    fn permitted(&self, permission: Permission, workspace: &WorkspaceId) -> Result<(), Denied> {
        let wrong = |why| Denied { subject: self.subject().into(), workspace: Some(workspace.clone()), why };
        if !self.may(workspace) {
            return Err(wrong(Why::Workspace));
        }
        self.has(permission).map_err(wrong)
    }

    fn has(&self, permission: Permission) -> Result<(), Why> {
        let (has, needed) = (self.role(), permission.least_role());
        if permission.is_of(has) { Ok(()) } else { Err(Why::Role { has, needed }) }
    }
}

/// The token is good, and does not allow this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token of `{subject}` does not allow this{}: {why}", in_workspace(.workspace))]
pub struct Denied {
    /// Whose token it is.
    pub subject: Arc<str>,
    /// In which workspace; none for the whole cluster.
    pub workspace: Option<WorkspaceId>,
    /// What the token lacks.
    pub why: Why,
}

fn in_workspace(workspace: &Option<WorkspaceId>) -> String {
    workspace.as_ref().map(|name| format!(" in workspace `{name}`")).unwrap_or_default()
}

/// What a token lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It is for other workspaces.
    #[error("it is limited to other workspaces")]
    Workspace,
    /// Its role is too small.
    #[error("it has the role {has}, and {needed} is needed")]
    Role {
        /// The role that it has.
        has: Role,
        /// The least role that would do.
        needed: Role,
    },
    /// What it is about belongs to somebody else.
    #[error("it belongs to somebody else")]
    Owner,
}

// A permit prints whose it is, and where; never the token.
impl<P: InWorkspace> fmt::Debug for Permit<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({:?} in {} for {})", P::PERMISSION, self.workspace, self.subject())
    }
}

impl<P: InCluster> fmt::Debug for ClusterPermit<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterPermit({:?} for {})", P::PERMISSION, self.subject())
    }
}

impl<P> Clone for Permit<P> {
    fn clone(&self) -> Permit<P> {
        Permit { access: self.access.clone(), workspace: self.workspace.clone(), permission: PhantomData }
    }
}
