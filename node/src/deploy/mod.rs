//! THE DEPLOY WALK: from a request to the revision that this node serves.

pub mod check;
