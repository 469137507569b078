//! What a tool may reach. The default is nothing.
//!
//! A grant is only ever made by a manifest and the operator's settings: no byte that a tool, a model or a message
//! produced becomes one.

use caxton_proto::manifest::address::HostPattern;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What a tool may reach.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// Hosts it may send HTTP requests to.
    pub http: Vec<HostPattern>,
    /// A directory of its own at `/scratch`, empty at the start of each call and gone after it.
    pub scratch: bool,
    /// The real time. Without it every clock stands still.
    pub clock: bool,
    /// Real random numbers. Without it they are the same in each call.
    pub random: bool,
    /// The same instance for later calls: what it leaves behind is there for the next caller. Only components that import
    /// no WASI can have it.
    pub reuse: bool,
    /// Values by name. Only the names are ever shown.
    #[serde(serialize_with = "names")]
    pub env: BTreeMap<String, String>,
}

fn names<S: serde::Serializer>(env: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(env.keys())
}

impl Grants {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self == &Grants::default()
    }

    /// Each in a few words, for listings and the audit.
    pub fn described(&self) -> Vec<String> {
        let mut all: Vec<String> = self.http.iter().map(|rule| format!("http {rule}")).collect();
        let flags = [(self.scratch, "scratch"), (self.clock, "clock"), (self.random, "random"), (self.reuse, "reuse")];
        for (granted, name) in flags {
            if granted {
                all.push(name.into());
            }
        }
        all.extend(self.env.keys().map(|name| format!("env {name}")));
        all
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grants").field(&self.described()).finish()
    }
}
