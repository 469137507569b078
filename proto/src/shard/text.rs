//! A JSON value as text: what models and strangers write is kept in its own bytes, so that what was read once can be read
//! again. (The first form, JSON, looks for a tag before it reads a value, and so orders the keys by name and drops blanks.)

use std::fmt;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The longest JSON text that is taken from a model, in bytes.
pub const JSON_BYTES_MAX: usize = 512 << 10;
/// How deep arrays and objects may lie in one another in what is taken from a model. Well below what a reader takes, since
/// the JSON of an entry puts its own levels around it.
pub const JSON_DEPTH_MAX: usize = 64;
/// How deep they may lie in what is read back: as deep as serde_json reads.
pub const JSON_DEPTH_READ: usize = 127;

/// A valid JSON value of at most [`JSON_DEPTH_READ`] levels, in the bytes in which it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(Box<str>);

/// Why a text is not taken as JSON. The words are for whoever wrote it, who may be a model, and come after what it wrote, as
/// in "the arguments".
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is longer than [`JSON_BYTES_MAX`].
    #[error("have {bytes} bytes, and {JSON_BYTES_MAX} is the most")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
    /// It is deeper than the limit.
    #[error("are nested {depth} levels deep, and {max} is the most")]
    TooDeep {
        /// How many levels it has.
        depth: usize,
        /// How many it may have.
        max: usize,
    },
    /// It is not JSON.
    #[error("are not JSON ({0})")]
    Invalid(#[from] serde_json::Error),
}

impl JsonText {
    /// Takes what a model or another stranger wrote: at most [`JSON_BYTES_MAX`] and [`JSON_DEPTH_MAX`].
    pub fn take(text: &str) -> Result<JsonText, JsonError> {
        if text.len() > JSON_BYTES_MAX {
            return Err(JsonError::TooLong { bytes: text.len() });
        }
        JsonText::within(text.to_owned(), JSON_DEPTH_MAX)
    }

    /// Takes what was taken before, by this build or another.
    pub fn read(text: String) -> Result<JsonText, JsonError> {
        JsonText::within(text, JSON_DEPTH_READ)
    }

    fn within(text: String, max: usize) -> Result<JsonText, JsonError> {
        let depth = json_depth(text.as_bytes());
        if depth > max {
            return Err(JsonError::TooDeep { depth, max });
        }
        serde_json::from_str::<Value>(&text)?;
        Ok(JsonText(text.into_boxed_str()))
    }

    /// The text of a value. One that is deeper than [`JSON_DEPTH_READ`], which no text that was parsed is, becomes `null`.
    pub fn of(value: &Value) -> JsonText {
        JsonText::read(value.to_string()).unwrap_or_else(|_| JsonText("null".into()))
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value that it stands for.
    pub fn value(&self) -> Value {
        // It was parsed when it was made.
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// How deep it is.
    pub fn depth(&self) -> usize {
        json_depth(self.0.as_bytes())
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many arrays and objects lie in one another at the deepest place: counted before a text is parsed, because parsing
/// recurses. Of a text that is not JSON it says something too, and the parser says the rest.
pub fn json_depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for &byte in text {
        if in_string {
            (in_string, escaped) = (byte != b'"' || escaped, byte == b'\\' && !escaped);
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The bytes themselves are gone where a tag was looked for first.
        let value = Value::deserialize(deserializer)?;
        JsonText::read(value.to_string()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn depth_is_that_of_arrays_and_objects_and_not_of_what_strings_hold() {
        let rows = [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[1,{"b":2}]}"#, 3),
            (r#""[[[""#, 0),
            (r#"["\"[[","\\",[]]"#, 2),
            ("]]][", 1),
        ];
        for (text, depth) in rows {
            assert_eq!(json_depth(text.as_bytes()), depth, "{text}");
        }
    }

    #[test]
    fn what_a_model_writes_is_bounded_and_what_was_written_before_is_read() {
        assert!(JsonText::take(&nested(JSON_DEPTH_MAX)).is_ok());
        let error = JsonText::take(&nested(JSON_DEPTH_MAX + 1)).expect_err("too deep");
        assert_eq!(error.to_string(), "are nested 65 levels deep, and 64 is the most");
        assert!(JsonText::read(nested(JSON_DEPTH_READ)).is_ok());
        assert!(matches!(JsonText::read(nested(JSON_DEPTH_READ + 1)), Err(JsonError::TooDeep { .. })));
        assert!(matches!(JsonText::take(&"1".repeat(JSON_BYTES_MAX + 1)), Err(JsonError::TooLong { .. })));
        for wrong in ["", "{", "1 2", "[1e999]", "\u{0}"] {
            assert!(matches!(JsonText::take(wrong), Err(JsonError::Invalid(_))), "{wrong}");
        }
    }

    #[test]
    fn the_bytes_stay_as_they_were_written() {
        let text = JsonText::take("{ \"b\": 1.50, \"a\": [] }").expect("JSON");
        assert_eq!(text.as_str(), "{ \"b\": 1.50, \"a\": [] }");
        assert_eq!(serde_json::to_string(&[&text]).expect("JSON"), "[{ \"b\": 1.50, \"a\": [] }]");
        assert_eq!(text.value(), serde_json::json!({ "a": [], "b": 1.5 }));
    }
}
