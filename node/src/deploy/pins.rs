//! What keeps a collection from removing the blobs of a deployment that is on its way.
//!
//! A deployment holds its workspace's pin from before it looks at which blobs are there until the log has decided; a
//! collection removes blobs only while nobody holds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use caxton_proto::WorkspaceId;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Pins that nobody holds are forgotten once there are this many.
const IDLE_PINS_MAX: usize = 1_024;

/// The pins of all workspaces; clones are handles on the same.
#[derive(Clone, Default)]
pub struct Pins(Arc<Mutex<HashMap<WorkspaceId, Arc<RwLock<()>>>>>);

/// While it lives, nothing of the workspace is removed.
#[must_use]
pub struct Pin(#[allow(dead_code, reason = "held, never read")] OwnedRwLockReadGuard<()>);

/// While it lives, no deployment of the workspace is on its way.
#[must_use]
pub struct Alone(#[allow(dead_code, reason = "held, never read")] OwnedRwLockWriteGuard<()>);

impl Pins {
    /// Waits while a collection removes blobs of `workspace`, which is short.
    pub async fn hold(&self, workspace: &WorkspaceId) -> Pin {
        Pin(self.of(workspace).read_owned().await)
    }

    /// Waits until no deployment of `workspace` is on its way; later ones wait for this.
    pub async fn alone(&self, workspace: &WorkspaceId) -> Alone {
        Alone(self.of(workspace).write_owned().await)
    }

    fn of(&self, workspace: &WorkspaceId) -> Arc<RwLock<()>> {
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pins.len() >= IDLE_PINS_MAX {
            pins.retain(|_, pin| Arc::strong_count(pin) > 1);
        }
        pins.entry(workspace.clone()).or_default().clone()
    }
}
