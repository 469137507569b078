//! The policy: every permission, where it is given, and the roles that have it. This table is the only place that says so;
//! docs/SECURITY.md shows it.

use caxton_proto::log::Role::{self, Admin, Caller, Deployer, Metrics, Viewer};

/// Where a permission is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In each workspace that the token is for.
    Workspace,
    /// In the whole cluster: tokens that are limited to workspaces never have it.
    Cluster,
}

/// A permission that is given in a workspace, as a type: a permit names it in its own type.
pub trait InWorkspace: Send + Sync + 'static {
    const PERMISSION: Permission;
}

/// A permission that is given for the whole cluster, as a type.
pub trait InCluster: Send + Sync + 'static {
    const PERMISSION: Permission;
}

macro_rules! policy {
    ($($(#[doc = $doc:literal])* $name:ident in $scope:ident for $($role:ident)+;)*) => {
        /// What can be permitted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Permission {
            $($(#[doc = $doc])* $name,)*
        }

        impl Permission {
            /// Every permission, in the order of the table.
            pub const ALL: &[Permission] = &[$(Permission::$name),*];

            /// Where it is given.
            pub const fn scope(self) -> Scope {
                match self {
                    $(Permission::$name => Scope::$scope,)*
                }
            }

            /// The roles that have it.
            pub const fn roles(self) -> &'static [Role] {
                match self {
                    $(Permission::$name => &[$($role),+],)*
                }
            }

            /// What it allows, as a sentence.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Permission::$name => concat!($($doc),*),)*
                }
            }
        }

        $(
            $(#[doc = $doc])*
            #[derive(Debug, Clone, Copy, Default)]
            pub struct $name;
            policy!(@ $scope $name);
        )*
    };
    (@ Workspace $name:ident) => {
        impl InWorkspace for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    };
    (@ Cluster $name:ident) => {
        impl InCluster for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    };
}

policy! {
    /// Read what is deployed: agents, tools, files, history, and which agent a message would go to.
    ReadDeployed in Workspace for Viewer Caller Deployer Admin;
    /// Follow what happens, without what is said: deployments, steps, calls.
    ReadActivity in Workspace for Viewer Caller Deployer Admin;
    /// Send messages, and read, follow and stop the turns and conversations that are one's own.
    Converse in Workspace for Caller Deployer Admin;
    /// Read everybody's conversations and turns, and what waits for a person with its arguments.
    ReadConversations in Workspace for Deployer Admin;
    /// Stop everybody's turns.
    StopTurns in Workspace for Deployer Admin;
    /// Decide on calls that wait for a person.
    DecideApprovals in Workspace for Deployer Admin;
    /// Remove conversations with all that was said.
    ForgetConversations in Workspace for Deployer Admin;
    /// Search, keep, change and forget what is remembered of oneself, and search what the workspace shares.
    UseMemory in Workspace for Caller Deployer Admin;
    /// Search, keep, change and forget everything that is remembered, of everybody.
    ManageMemory in Workspace for Deployer Admin;
    /// Deploy, roll back, and send what deployments are made of.
    Deploy in Workspace for Deployer Admin;
    /// Call tools directly, without an agent.
    CallTools in Workspace for Deployer Admin;
    /// Set, list and remove secrets.
    ManageSecrets in Workspace for Deployer Admin;
    /// Delete the workspace with all that is its own.
    DeleteWorkspaces in Workspace for Admin;
    /// Read who belongs to the cluster, and who leads what.
    ReadCluster in Cluster for Viewer Caller Deployer Admin;
    /// Read what a node measures.
    Measure in Cluster for Metrics Viewer Caller Deployer Admin;
    /// Make, list and revoke tokens.
    ManageTokens in Cluster for Admin;
    /// Let nodes in, take nodes out, let others lead, rotate keys.
    ManageCluster in Cluster for Admin;
    /// Take an archive of everything.
    BackUpCluster in Cluster for Admin;
}

impl Permission {
    /// Whether a role has it.
    pub fn is_of(self, role: Role) -> bool {
        self.roles().contains(&role)
    }

    /// The least of the roles that have it.
    pub fn least_role(self) -> Role {
        self.roles().iter().copied().min().unwrap_or(Admin)
    }
}
