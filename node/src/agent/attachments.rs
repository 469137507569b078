//! The files of a turn: models name them, and tools get them whole.
//!
//! A model reads `attachment:NAME` and the first lines, never the file; an argument that is just `attachment:NAME`
//! reaches the tool as the file's content. An agent sees the files that came with its request and those that its own
//! calls made, and no others of the same turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
pub use caxton_proto::shard::{Attachment, AttachmentInfo, Content};
use serde_json::Value;

/// What comes before a name.
pub const PREFIX: &str = "attachment:";
/// All files of a turn together, in bytes.
pub const SHELF_BYTES_MAX: usize = 64 << 20;
/// All files of a turn.
pub const SHELF_FILES_MAX: usize = 256;
/// How much of a text a model is shown.
const SHOWN_BYTES_MAX: usize = 400;
/// How many files that are no longer there are named.
const LOST_SHOWN: usize = 8;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The turn's files are too many or too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the files of one turn are at most {SHELF_FILES_MAX}, and {SHELF_BYTES_MAX} bytes together")]
pub struct ShelfFull;

/// The files of a turn and of all turns that it began; a clone is the same shelf.
#[derive(Debug, Clone, Default)]
pub struct Shelf(Arc<Mutex<BTreeMap<String, Arc<Attachment>>>>);

/// Which files of the shelf one agent sees.
pub type Visible = BTreeSet<String>;

impl Shelf {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Attachment>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file and gives the name that it got: its own, without what would confuse a model, or one near to it.
    pub fn add(&self, mut attachment: Attachment) -> Result<String, ShelfFull> {
        let mut files = self.files();
        let bytes: usize = files.values().map(|file| file.content.len()).sum();
        if files.len() >= SHELF_FILES_MAX || bytes + attachment.content.len() > SHELF_BYTES_MAX {
            return Err(ShelfFull);
        }
        let wanted = clean_name(&attachment.name);
        let (stem, end) = wanted.rsplit_once('.').map_or((wanted.as_str(), ""), |(stem, end)| (stem, end));
        let numbered = |number: usize| match (number, end) {
            (1, _) => wanted.clone(),
            (number, "") => format!("{stem}-{number}"),
            (number, end) => format!("{stem}-{number}.{end}"),
        };
        let name = (1..).map(numbered).find(|name| !files.contains_key(name)).unwrap_or_default();
        attachment.name.clone_from(&name);
        files.insert(name.clone(), Arc::new(attachment));
        Ok(name)
    }

    /// Puts files back that were on the shelf before, under the names that they have.
    pub fn put_back(&self, files: impl IntoIterator<Item = Arc<Attachment>>) {
        let mut held = self.files();
        for file in files {
            held.insert(file.name.clone(), file);
        }
    }

    /// The file of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Attachment>> {
        self.files().get(name).cloned()
    }

    #[cfg(test)]
    pub fn all(&self) -> Vec<Attachment> {
        self.files().values().map(|file| (**file).clone()).collect()
    }

    /// What is known of these files.
    pub fn infos(&self, names: &Visible) -> Vec<AttachmentInfo> {
        let info = |file: Arc<Attachment>| AttachmentInfo {
            name: file.name.clone(),
            media_type: file.media_type.clone(),
            bytes: file.content.len() as u64,
        };
        names.iter().filter_map(|name| self.get(name)).map(info).collect()
    }

    /// The names of visible files that a text speaks of.
    pub fn named_in(&self, text: &str, visible: &Visible) -> Visible {
        visible.iter().filter(|name| text.contains(&format!("{PREFIX}{name}"))).cloned().collect()
    }

    /// What a model is told of its files: how those begin that came now, which `earlier` ones are there too, and which are
    /// `lost`. Empty when there are none.
    pub fn describe(&self, visible: &Visible, earlier: &Visible, lost: &[String]) -> String {
        let mut lines = String::new();
        for file in visible.iter().filter_map(|name| self.get(name)) {
            let Attachment { name, media_type, content } = &*file;
            lines.push_str(&format!("\n\nAttached: `{PREFIX}{name}` ({media_type}, {} bytes).", content.len()));
            if let Content::Text(text) = content {
                let start: String = text.chars().take(SHOWN_BYTES_MAX).collect();
                let kind = if start.len() < text.len() { "It begins" } else { "It is" };
                lines.push_str(&format!(" {kind}:\n{start}"));
            }
        }
        let listed = earlier
            .iter()
            .filter_map(|name| self.get(name))
            .map(|file| format!("\n- `{PREFIX}{}` ({}, {} bytes)", file.name, file.media_type, file.content.len()));
        let listed: String = listed.collect();
        if !listed.is_empty() {
            lines.push_str(&format!("\n\nFiles from earlier in this conversation:{listed}"));
        }
        if !lines.is_empty() {
            lines.push_str(&format!("\n\nTo give a file to a tool, write `{PREFIX}NAME` as the argument."));
        }
        if !lost.is_empty() {
            let shown = lost.iter().take(LOST_SHOWN).map(|name| format!("`{}`", clean_name(name)));
            let shown = shown.collect::<Vec<_>>().join(", ");
            lines.push_str(&format!("\n\nNot here from earlier, to be sent again where they are needed: {shown}."));
        }
        lines
    }

    /// Puts files in the place of their names, wherever an argument is nothing but one; the error is for the model.
    pub fn fill(&self, arguments: Value, visible: &Visible) -> Result<Value, String> {
        match arguments {
            Value::String(text) => match text.strip_prefix(PREFIX) {
                None => Ok(Value::String(text)),
                Some(name) => match self.get(name).filter(|_| visible.contains(name)) {
                    Some(file) => Ok(Value::String(match &file.content {
                        Content::Text(text) | Content::Base64(text) => text.clone(),
                    })),
                    None => {
                        let known: Vec<&str> = visible.iter().map(String::as_str).collect();
                        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                        Err(format!("there is no attachment `{name}`; there are: {known}"))
                    }
                },
            },
            Value::Array(values) => values.into_iter().map(|value| self.fill(value, visible)).collect(),
            Value::Object(fields) => {
                let filled = fields.into_iter().map(|(name, value)| Ok((name, self.fill(value, visible)?)));
                filled.collect::<Result<_, String>>().map(Value::Object)
            }
            other => Ok(other),
        }
    }
}

/// Bytes as JSON carries them (RFC 4648, with padding).
pub fn to_base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes that a text in base64 stands for; none, when it is not one.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// A name that a model can write back: letters, digits, `.`, `-` and `_`.
fn clean_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let fine = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let mut clean: String = last.chars().map(fine).collect();
    while clean.len() > NAME_BYTES_MAX {
        clean.pop();
    }
    let clean = clean.trim_start_matches('.');
    if clean.is_empty() { "file".to_owned() } else { clean.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(name: &str, text: &str) -> Attachment {
        Attachment { name: name.into(), media_type: "text/csv".into(), content: Content::Text(text.into()) }
    }

    #[test]
    fn names_are_clean_and_each_is_there_once() {
        let shelf = Shelf::default();
        assert_eq!(shelf.add(file("../../etc/sales 2026.csv", "a")).as_deref(), Ok("sales_2026.csv"));
        assert_eq!(shelf.add(file("sales 2026.csv", "b")).as_deref(), Ok("sales_2026-2.csv"));
        assert_eq!(shelf.add(file("...", "c")).as_deref(), Ok("file"));
    }

    #[test]
    fn an_agent_reaches_only_the_files_that_it_sees() {
        let shelf = Shelf::default();
        let mine = shelf.add(file("mine.csv", "x,y")).expect("room");
        shelf.add(file("theirs.csv", "secret")).expect("room");
        let visible = Visible::from([mine]);
        let filled = shelf.fill(json!({ "a": ["attachment:mine.csv"], "b": "see attachment:mine.csv" }), &visible);
        assert_eq!(filled, Ok(json!({ "a": ["x,y"], "b": "see attachment:mine.csv" })));
        let error = shelf.fill(json!("attachment:theirs.csv"), &visible).expect_err("hidden");
        assert!(error.contains("mine.csv") && !error.contains("secret"), "{error}");
        assert!(!shelf.describe(&visible, &Visible::new(), &[]).contains("theirs"));
        assert!(shelf.named_in("attachment:theirs.csv", &visible).is_empty());
    }

    #[test]
    fn a_full_shelf_says_so() {
        let shelf = Shelf::default();
        for number in 0..SHELF_FILES_MAX {
            shelf.add(file(&number.to_string(), "")).expect("room");
        }
        assert_eq!(shelf.add(file("one more", "")), Err(ShelfFull));
    }
}
