//! What a token may do: one table of permissions and roles, and the permits that services ask for.
//!
//! A [`Permit`] is the proof that the table was asked. Only [`Access::permit`] and [`Access::permit_cluster`] make one, and
//! whatever touches a workspace takes one instead of the workspace's bare name, so that no caller can forget to ask.

mod permissions;

mod permit;

pub use permissions::{
    BackUpCluster, CallTools, Converse, DecideApprovals, DeleteWorkspaces, Deploy, ForgetConversations, InCluster,
    InWorkspace, ManageCluster, ManageMemory, ManageSecrets, ManageTokens, Measure, Permission, ReadActivity,
    ReadCluster, ReadConversations, ReadDeployed, Scope, StopTurns, UseMemory,
};
pub use permit::{ClusterPermit, Denied, Permit, UnscopedToken, Why};

#[cfg(test)]
mod tests;
