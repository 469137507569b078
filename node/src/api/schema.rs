//! The bodies' parts that come from floor 0, as the API's description shows them: floor 0 knows nothing of HTTP.
//!
//! These types are never values. Each mirrors how its namesake is written in JSON, and a test compares.

#![allow(dead_code, reason = "read by derives only")]

use utoipa::ToSchema;

/// A file's content.
#[derive(ToSchema)]
pub struct File {
    /// The SHA-256 of its content, 64 hexadecimal digits.
    digest: String,
    /// How many bytes it has.
    bytes: u64,
    /// For a file that is cut into chunks, the digest of the list of them.
    chunks: Option<String>,
}

/// One line of a plan.
#[derive(ToSchema)]
pub struct ItemChange {
    item: Item,
    change: Change,
}

/// A part of a workspace that a person would name.
#[derive(ToSchema)]
pub struct Item {
    kind: ItemKind,
    /// The agent's or the tool's name, or the file's path.
    name: String,
}

/// What an item is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ItemKind {
    Agent,
    Tool,
    File,
}

/// What happens to an item.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Change {
    New,
    Changed,
    Removed,
}

/// A step's name, and how many milliseconds it took.
#[derive(ToSchema)]
pub struct Step(Vec<serde_json::Value>);

#[cfg(test)]
mod tests {
    use caxton_proto::Digest;
    use caxton_proto::plan::{Change, Item, ItemChange};
    use caxton_proto::tree::File;
    use serde_json::json;

    #[test]
    fn the_description_shows_what_is_written() {
        let digest = Digest::of(b"x");
        let file = File { digest, bytes: 1, chunks: Some(digest) };
        let expected = json!({"digest": digest.to_string(), "bytes": 1, "chunks": digest.to_string()});
        assert_eq!(serde_json::to_value(file).expect("JSON"), expected);
        for (item, change, kind, word) in [
            (Item::Agent("x".into()), Change::New, "agent", "new"),
            (Item::Tool("x".into()), Change::Changed, "tool", "changed"),
            (Item::File("x".into()), Change::Removed, "file", "removed"),
        ] {
            let expected = json!({"item": {"kind": kind, "name": "x"}, "change": word});
            assert_eq!(serde_json::to_value(ItemChange { item, change }).expect("JSON"), expected);
        }
    }
}
