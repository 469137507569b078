//! What a deployment would do: the difference between what is live and what is proposed, in the user's nouns.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tree::{File, Tree, TreePath};

/// A part of a workspace that a person would name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum Item {
    /// Everything below `agents/NAME/`, or `agents/NAME.toml`.
    Agent(String),
    /// Everything below `tools/NAME/`.
    Tool(String),
    /// A file that belongs to no one agent or tool: `caxton.toml`, a shared prompt.
    File(String),
}

impl Item {
    /// The item that a file belongs to.
    pub fn of(path: &TreePath) -> Item {
        let mut parts = path.parts();
        match (parts.next(), parts.next(), parts.next()) {
            (Some("agents"), Some(name), None) if name.ends_with(".toml") => {
                Item::Agent(name.trim_end_matches(".toml").to_owned())
            }
            (Some("agents"), Some(name), Some(_)) => Item::Agent(name.to_owned()),
            (Some("tools"), Some(name), Some(_)) => Item::Tool(name.to_owned()),
            _ => Item::File(path.as_str().to_owned()),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Agent(name) => write!(f, "agent {name}"),
            Item::Tool(name) => write!(f, "tool {name}"),
            Item::File(path) => write!(f, "file {path}"),
        }
    }
}

/// What happens to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is not live and will be.
    New,
    /// It is live with other content.
    Changed,
    /// It is live and will not be.
    Removed,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ItemChange {
    /// What it happens to.
    pub item: Item,
    /// Whether the item is new, changed, renamed or removed.
    pub change: Change,
}

/// The way from one tree to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What happens to each item, in the items' order.
    pub items: Vec<ItemChange>,
    /// The files to put in, new or with other content.
    pub upserts: Vec<(TreePath, File)>,
    /// The files to take out.
    pub removals: Vec<TreePath>,
}

impl Plan {
    /// What leads from `live` to `proposed`.
    pub fn between(live: &Tree, proposed: &Tree) -> Plan {
        let mut plan = Plan::default();
        // For each item that a difference touches: does it have files before, and after?
        let mut touched = BTreeMap::new();
        for (path, file) in proposed.files() {
            if live.files().get(path) != Some(file) {
                plan.upserts.push((path.clone(), *file));
                touched.insert(Item::of(path), (false, false));
            }
        }
        for path in live.files().keys() {
            if !proposed.files().contains_key(path) {
                plan.removals.push(path.clone());
                touched.insert(Item::of(path), (false, false));
            }
        }
        if touched.is_empty() {
            return plan;
        }
        for path in live.files().keys() {
            touched.entry(Item::of(path)).and_modify(|there| there.0 = true);
        }
        for path in proposed.files().keys() {
            touched.entry(Item::of(path)).and_modify(|there| there.1 = true);
        }
        plan.items = touched
            .into_iter()
            .map(|(item, there)| {
                let change = match there {
                    (false, _) => Change::New,
                    (true, true) => Change::Changed,
                    (true, false) => Change::Removed,
                };
                ItemChange { item, change }
            })
            .collect();
        plan
    }

    /// Whether nothing differs, so that there is nothing to deploy.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }

    /// How many items get `change`.
    pub fn count(&self, change: Change) -> usize {
        self.items.iter().filter(|item| item.change == change).count()
    }

    /// The proposed tree: `live` with this plan carried out.
    pub fn apply(&self, live: &Tree) -> Tree {
        let mut tree = live.clone();
        for path in &self.removals {
            tree.remove(path);
        }
        for (path, file) in &self.upserts {
            tree.insert(path.clone(), *file);
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |text: &str| File { digest: Digest::of(text.as_bytes()), bytes: text.len() as u64, chunks: None };
        files.iter().map(|(path, text)| (path.parse().expect("a path"), file(text))).collect()
    }

    #[test]
    fn a_plan_speaks_of_agents_and_tools_not_of_their_files() {
        let live =
            tree(&[("agents/a.toml", "1"), ("agents/b/agent.toml", "1"), ("agents/b/p.md", "1"), ("caxton.toml", "")]);
        let next = tree(&[("agents/b/agent.toml", "1"), ("caxton.toml", "x"), ("tools/t/tool.toml", "1")]);
        let plan = Plan::between(&live, &next);
        let lines: Vec<_> = plan.items.iter().map(|i| format!("{} {:?}", i.item, i.change)).collect();
        assert_eq!(lines, ["agent a Removed", "agent b Changed", "tool t New", "file caxton.toml Changed"]);
        assert_eq!(plan.apply(&live), next);
        assert!(Plan::between(&next, &next).is_empty());
    }

    #[test]
    fn an_agent_that_becomes_a_folder_is_changed_and_not_new() {
        let plan = Plan::between(&tree(&[("agents/a.toml", "1")]), &tree(&[("agents/a/agent.toml", "1")]));
        assert_eq!(plan.items, [ItemChange { item: Item::Agent("a".into()), change: Change::Changed }]);
    }
}
