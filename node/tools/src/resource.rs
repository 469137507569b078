//! Resources in the result of a call: what can be read of them is text for the model, the rest is a file or a name.

use crate::base64;
use serde_json::Value;

/// A resource that is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The last part of its address.
    pub name: String,
    /// Its media type.
    pub mime: String,
    /// What it holds, as bytes.
    pub data: Vec<u8>,
}

/// The bytes of an embedded resource that is no text; none if it is text, a link, or not readable.
pub fn blob(resource: &Value) -> Option<Blob> {
    let text = |key: &str| resource.get(key).and_then(Value::as_str);
    let data = base64::decode(text("blob")?)?;
    let address = text("uri").unwrap_or_default();
    let name = address.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let mime = text("mimeType").unwrap_or("application/octet-stream");
    Some(Blob { name: name.to_owned(), mime: mime.to_owned(), data })
}

/// A resource in words: its text below its address, or what it is and where.
pub(crate) fn read(resource: &Value) -> String {
    let text = |key: &str| resource.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let address = text("uri").unwrap_or("without an address");
    let kind = text("mimeType").map(|mime| format!(" ({mime})")).unwrap_or_default();
    if let Some(content) = text("text") {
        return format!("[resource {address}{kind}]\n{content}");
    }
    if resource.get("blob").is_some() {
        return match blob(resource) {
            Some(blob) => format!("[resource {address}{kind}, {} bytes]", blob.data.len()),
            None => format!("[resource {address}{kind}, which cannot be read]"),
        };
    }
    if resource.get("type").and_then(Value::as_str) == Some("resource_link") {
        let name = text("title").or(text("name")).map(|name| format!(" `{name}`")).unwrap_or_default();
        let about = text("description").map(|about| format!(": {about}")).unwrap_or_default();
        return format!("[link to the resource{name} {address}{kind}{about}]");
    }
    format!("[resource {address}{kind}, which is empty]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_resource_is_read_or_named() {
        for (resource, words) in [
            (
                json!({ "uri": "repo://a/README.md", "mimeType": "text/markdown", "text": "THE FILE" }),
                "[resource repo://a/README.md (text/markdown)]\nTHE FILE",
            ),
            (json!({ "uri": "x:/a.bin", "blob": "AAEC" }), "[resource x:/a.bin, 3 bytes]"),
            (json!({ "uri": "x:/a.bin", "blob": "!" }), "[resource x:/a.bin, which cannot be read]"),
            (
                json!({ "type": "resource_link", "uri": "repo://a/LICENSE", "name": "LICENSE", "description": "terms" }),
                "[link to the resource `LICENSE` repo://a/LICENSE: terms]",
            ),
            (json!({ "uri": "x:/empty", "text": "" }), "[resource x:/empty, which is empty]"),
            (json!(7), "[resource without an address, which is empty]"),
        ] {
            assert_eq!(read(&resource), words);
        }
        let file = blob(&json!({ "uri": "x:/folder/a.bin", "blob": "AAEC" })).unwrap();
        assert_eq!((file.name.as_str(), file.data.as_slice()), ("a.bin", &[0, 1, 2][..]));
    }
}
